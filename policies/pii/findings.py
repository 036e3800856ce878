"""What a detector says of a text: where personal data of which kind stands, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Finding:
    """Characters `start` to `end` of the text given are an `entity`."""

    entity: str
    start: int
    end: int
    score: float
    """0 to 1; from `PROVEN` on a checksum or a shape that nothing else has stands behind it."""
    detector: str
    """Which recogniser found it; for the record and for a person who asks why. Never any of the text."""


PROVEN = 0.95
"""A finding this sure beats a longer one that is not."""


class Recogniser(Protocol):
    """Finds some entities. Deterministic, thread-safe, and linear in the length of the text."""

    entities: frozenset[str]

    def find(self, text: str) -> Iterable[Finding]:
        """Give findings in any order; they may overlap. Offsets count characters of `text`."""
        ...


SECRETS = frozenset({"API_KEY", "PRIVATE_KEY", "PASSWORD"})
NAMES = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "ADDRESS", "TITLE", "AGE", "NRP"})
PAYMENT = frozenset({"CREDIT_CARD"})
BANKING = frozenset({"IBAN_CODE", "SWIFT_CODE", "ACCOUNT_NUMBER", "US_ROUTING_NUMBER", "CRYPTO"})
EU_NATIONAL_IDS = frozenset(
    {
        "AT_SVNR",
        "BE_NRN",
        "BG_EGN",
        "CZ_RC",
        "DE_TAX_ID",
        "DK_CPR",
        "ES_NIF",
        "FI_HETU",
        "FR_NIR",
        "GR_AMKA",
        "IE_PPS",
        "IT_FISCAL_CODE",
        "NL_BSN",
        "PL_PESEL",
        "PT_NIF",
        "RO_CNP",
        "SE_PERSONNUMMER",
    }
)
UK_NATIONAL_IDS = frozenset({"UK_NINO", "UK_NHS"})
US_NATIONAL_IDS = frozenset({"US_SSN", "US_ITIN"})
PERSONAL_DOCUMENTS = frozenset({"US_DRIVER_LICENSE", "US_PASSPORT", "PASSPORT", "ID_CARD", "CERTIFICATE_NUMBER"})
HEALTH = frozenset(
    {"MEDICAL_LICENSE", "US_NPI", "US_MBI", "MEDICAL_RECORD_NUMBER", "HEALTH_PLAN_NUMBER", "UK_NHS"},
)
CONTACT = frozenset({"EMAIL_ADDRESS", "PHONE_NUMBER", "FAX_NUMBER", "ADDRESS"})
ONLINE = frozenset({"EMAIL_ADDRESS", "URL", "DOMAIN_NAME", "IP_ADDRESS", "MAC_ADDRESS"})
DEVICES = frozenset({"DEVICE_ID", "MAC_ADDRESS", "VEHICLE_ID", "LICENSE_PLATE"})
BODY = frozenset({"BIOMETRIC_ID", "PHOTO"})

NATIONAL_IDS = EU_NATIONAL_IDS | UK_NATIONAL_IDS | US_NATIONAL_IDS
ENTITIES: frozenset[str] = (
    SECRETS | NAMES | PAYMENT | BANKING | NATIONAL_IDS | PERSONAL_DOCUMENTS | HEALTH | CONTACT | ONLINE | DEVICES | BODY
) | {"DATE_TIME", "ZIP_CODE", "VAT_NUMBER", "UNIQUE_ID"}
"""Every name there is: Presidio's where it has one, others in its manner."""

GROUPS: Mapping[str, frozenset[str]] = {
    "NAMES": NAMES,
    "CONTACT": CONTACT,
    "ONLINE": ONLINE,
    "PAYMENT": PAYMENT,
    "FINANCIAL": PAYMENT | BANKING | {"VAT_NUMBER"},
    "NATIONAL_IDS": NATIONAL_IDS,
    "EU_NATIONAL_IDS": EU_NATIONAL_IDS,
    "PERSONAL_DOCUMENTS": PERSONAL_DOCUMENTS,
    "HEALTH": HEALTH,
    "DEVICES": DEVICES,
    "BIOMETRIC": BODY,
    "SECRETS": SECRETS,
    "DIRECT_IDENTIFIERS": (ENTITIES - SECRETS) - {"DATE_TIME", "ZIP_CODE", "AGE", "LOCATION", "ORGANIZATION", "TITLE"},
    "QUASI_IDENTIFIERS": frozenset({"DATE_TIME", "ZIP_CODE", "AGE", "LOCATION", "TITLE", "NRP"}),
    "HIPAA_SAFE_HARBOR": (ENTITIES - SECRETS) - {"ORGANIZATION", "TITLE", "NRP"},
    "ALL": ENTITIES,
}
"""Names that rules may use in place of entities. HIPAA_SAFE_HARBOR: 45 CFR 164.514(b)(2)(i)(A)-(R)."""


def expand(names: Iterable[str]) -> frozenset[str]:
    """Replace groups by their entities. Raises `ValueError` with the first name that is neither."""
    found: set[str] = set()
    for name in names:
        if name not in ENTITIES and name not in GROUPS:
            raise ValueError(f"{name!r} is neither an entity nor a group of entities")
        found |= GROUPS.get(name, frozenset({name}))
    return frozenset(found)
