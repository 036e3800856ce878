"""What numbers and words of letters and digits share: how they are ranked, and what the words near call them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policies.pii.contexts import after

US_PASSPORT = "US_PASSPORT"
UNMISTAKABLE, CALLED, FAR = 20.0, 19.0, 99.0
"""What decides between readings of one place: proven, called so (the nearer, and the better checked, the better), alone
(by its score). `FAR`: no word near it calls it that.
"""
Reading = tuple[float, str, float]
"""Score, entity and rank."""


@dataclass(frozen=True, slots=True)
class Named:
    """An identifier that only the words before it tell. Lengths count letters and digits."""

    entity: str
    shortest: int
    longest: int
    digits: int
    """How many digits it has at least."""
    reach: float = 4.0
    """How many words before it the name may stand."""
    score: float = 0.75


NAMED: Mapping[str, Named] = {
    "driver": Named("US_DRIVER_LICENSE", 4, 19, 3, 6.0, 0.8),
    "passport": Named("PASSPORT", 6, 11, 4, 5.0, 0.8),
    "id_card": Named("ID_CARD", 5, 16, 4),
    "mrn": Named("MEDICAL_RECORD_NUMBER", 3, 16, 3),
    "plan": Named("HEALTH_PLAN_NUMBER", 5, 20, 3),
    "account": Named("ACCOUNT_NUMBER", 5, 24, 5),
    "routing": Named("US_ROUTING_NUMBER", 9, 9, 9, score=0.6),
    "plate": Named("LICENSE_PLATE", 4, 9, 1, 3.0),
    "vehicle": Named("VEHICLE_ID", 5, 17, 3),
    "imei": Named("DEVICE_ID", 8, 20, 6),
    "serial": Named("DEVICE_ID", 5, 40, 3, 0.5),
    "device": Named("DEVICE_ID", 5, 40, 3),
    "dea": Named("MEDICAL_LICENSE", 5, 12, 4),
    "npi": Named("US_NPI", 10, 10, 10, score=0.6),
    "certificate": Named("CERTIFICATE_NUMBER", 4, 20, 3, 2.0),
    "biometric": Named("BIOMETRIC_ID", 3, 64, 2, 3.0),
    "unique": Named("UNIQUE_ID", 3, 40, 2),
    "zip": Named("ZIP_CODE", 4, 9, 3, 2.0, 0.85),
    "vat": Named("VAT_NUMBER", 8, 14, 7, score=0.7),
}
"""By topic. A name nearer to the number wins, then the one that stands first here."""


@dataclass(frozen=True, slots=True)
class Number:
    """Digits that belong together. `shape`: how long its groups are and what stands between, `_` for a space."""

    start: int
    end: int
    digits: str
    shape: str


_YEAR_OR_MONTH = re.compile(r"(?:19|20)[0-9]{2}(?:[-/][01][0-9])?")
_WITHOUT_DOTS = frozenset({"certificate", "unique", "device", "serial", "mrn", "driver"})
"""Of these, what has a dot is a version."""
_PREFIX = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{1,5}[-./]\Z")


def prefix(text: str, start: int) -> int:
    """Give where an identifier begins that has letters and a mark before its digits: `RN-123456`."""
    found = _PREFIX.search(text, max(0, start - 7), start)
    return found.start() if found and not after(found.group(), 0) else start


def part_of_code(text: str, start: int) -> bool:
    """Say whether letters that name no number are joined to its beginning: `CVE-2026-57516`."""
    return prefix(text, start) < start


def called(value: str, written: str, topics: dict[str, float]) -> Iterator[Reading]:
    """Give what the words near a value call it, where its length fits and it is written as no version."""
    if not topics or _YEAR_OR_MONTH.fullmatch(written):
        return
    dotted = "." in written
    figures = sum(map(str.isdigit, value))
    other = topics.get("not_personal", FAR)
    for place, (topic, named) in enumerate(NAMED.items()):
        away = topics.get(topic)
        if away is None or away > named.reach or other < away or (dotted and topic in _WITHOUT_DOTS):
            continue
        if named.shortest <= len(value) <= named.longest and figures >= named.digits:
            entity = named.entity
            if topic == "passport" and len(value) == 9 and figures >= 8:
                entity = US_PASSPORT
            yield named.score, entity, CALLED - away - place / 1000


def goes_on(text: str, number: Number) -> bool:
    """Say whether the number goes on beyond a mark: `A-123-45`, `12.3/x`, `1,234,567`."""
    before, after = text[max(0, number.start - 2) : number.start], text[number.end : number.end + 2]
    return (len(before) == 2 and before[1] in "-./_,:=" and before[0].isalnum() and before[1] not in ":=") or (
        len(after) == 2 and after[0] in "-_/,:" and after[1].isalnum() and not after[1].isalpha()
    )
