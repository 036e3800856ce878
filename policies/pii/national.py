"""National identifiers: which shape each has, whose checksum it is, and what the words near it say.

`alone`: how sure a number is without such a word; 0 where its checksum would let too many others through. Of random
digits of the right length there pass: FR NIR 1 in 3,000, BE NRN 1 in 2,500, RO CNP 1 in 600, GR AMKA 1 in 270; but
DE 1 in 40, PL 1 in 55, NL 1 in 11, PT 1 in 10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stdnum.at import vnr
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.eu import vat
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.gr import amka
from stdnum.ie import pps
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.pt import nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.us import itin, rtn, ssn

from policies.pii.checks import Check, dea_valid, luhn_valid, npi_valid, vin_valid
from policies.pii.findings import PROVEN

STRONG = 10.0


@dataclass(frozen=True, slots=True)
class NumberRule:
    """A number of digits only. `shapes`: the groups it is written in when no word names it (`3-2-4`)."""

    entity: str
    lengths: frozenset[int]
    valid: Check
    topics: frozenset[str]
    alone: float = 0.0
    shapes: frozenset[str] = frozenset()
    named: float = 1.0
    worth: float = 1.5
    """How many words nearer a passed check makes the word that names it: a check that most numbers pass, none."""


@dataclass(frozen=True, slots=True)
class TokenRule:
    """Letters and digits, upper case, without spaces and marks between them."""

    entity: str
    shape: re.Pattern[str]
    valid: Check
    topics: frozenset[str]
    alone: float = 0.0
    named: float = 1.0
    worth: float = 1.5


def _number(
    entity: str,
    lengths: tuple[int, ...],
    valid: Check,
    topics: str,
    alone: float = 0.0,
    shapes: str = "",
    named: float = 1.0,
    worth: float = 1.5,
) -> NumberRule:
    return NumberRule(
        entity,
        frozenset(lengths),
        valid,
        frozenset(topics.split()),
        alone,
        frozenset(shapes.split()),
        named,
        STRONG if alone >= PROVEN and worth else worth,
    )


def _token(entity: str, shape: str, valid: Check, topics: str, alone: float = 0.0, named: float = 1.0) -> TokenRule:
    worth = 0.0 if valid is _any else STRONG if alone >= PROVEN else 1.5
    return TokenRule(entity, re.compile(shape), valid, frozenset(topics.split()), alone, named, worth)


def _any(_: str) -> bool:
    return True


def _swedish(digits: str) -> bool:
    return personnummer.is_valid(f"{digits[-10:-4]}-{digits[-4:]}")


def _danish(digits: str) -> bool:
    return 1 <= int(digits[:2]) <= 31 and 1 <= int(digits[2:4]) <= 12


NUMBERS: tuple[NumberRule, ...] = (
    _number("US_SSN", (9,), ssn.is_valid, "ssn", 0.95, "3-2-4", worth=0.0),
    _number("US_SSN", (9,), ssn.is_valid, "ssn", 0.6, "3_2_4 3.2.4", worth=0.0),
    _number("US_ITIN", (9,), itin.is_valid, "itin ssn de_tax", 0.9, "3-2-4", worth=0.0),
    _number("US_ROUTING_NUMBER", (9,), rtn.is_valid, "routing"),
    _number("US_NPI", (10,), npi_valid, "npi"),
    _number("UK_NHS", (10,), nhs.is_valid, "uk_nhs"),
    _number("DEVICE_ID", (15,), luhn_valid, "imei"),
    _number("DEVICE_ID", (14, 15, 16), _any, "imei", named=0.8, worth=0.0),
    _number("DE_TAX_ID", (11,), idnr.is_valid, "de_tax"),
    _number("FR_NIR", (15,), nir.is_valid, "fr_nir plan", 0.97, "15 1_2_2_2_3_3_2 13_2 1_2_2_2_3_3-2"),
    _number("NL_BSN", (8, 9), bsn.is_valid, "nl_bsn"),
    _number("BE_NRN", (11,), nn.is_valid, "be_nrn", 0.95, "11 2.2.2-3.2 6-3.2 6-3-2 2.2.2.3.2"),
    _number("PL_PESEL", (11,), pesel.is_valid, "pl_pesel"),
    _number("SE_PERSONNUMMER", (10, 12), _swedish, "se_pnr", 0.95, "6-4 8-4"),
    _number("DK_CPR", (10,), cpr.is_valid, "dk_cpr se_pnr"),
    _number("DK_CPR", (10,), _danish, "dk_cpr", named=0.9, worth=0.5),
    _number("PT_NIF", (9,), nif.is_valid, "pt_nif es_nif"),
    _number("AT_SVNR", (10,), vnr.is_valid, "at_svnr plan"),
    _number("RO_CNP", (13,), cnp.is_valid, "ro_cnp", 0.95, "13"),
    _number("CZ_RC", (9, 10), rc.is_valid, "cz_rc", 0.95, "6/4 6/3"),
    _number("BG_EGN", (10,), egn.is_valid, "bg_egn"),
    _number("GR_AMKA", (11,), amka.is_valid, "gr_amka", 0.8, "11"),
)
NUMBERS_BY_LENGTH: Mapping[int, tuple[NumberRule, ...]] = {
    length: tuple(rule for rule in NUMBERS if length in rule.lengths) for length in range(8, 17)
}

_MBI_LETTER = "[AC-HJKMNP-RT-Y]"
_MBI_EITHER = "[AC-HJKMNP-RT-Y0-9]"
TOKENS: tuple[TokenRule, ...] = (
    _token(
        "IT_FISCAL_CODE",
        r"[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]",
        codicefiscale.is_valid,
        "it_cf",
        1.0,
    ),
    _token("ES_NIF", r"[0-9]{8}[A-Z]", dni.is_valid, "es_nif", 0.7),
    _token("ES_NIF", r"[XYZ][0-9]{7}[A-Z]", nie.is_valid, "es_nif", 0.95),
    _token("FI_HETU", r"[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-Y]", hetu.is_valid, "fi_hetu", 1.0),
    _token("IE_PPS", r"[0-9]{7}[A-W][A-IW]?", pps.is_valid, "ie_pps", 0.7),
    _token(
        "UK_NINO", r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][0-9]{6}[A-D]", _any, "uk_nino", 0.95
    ),
    _token(
        "US_MBI",
        rf"[1-9]{_MBI_LETTER}{_MBI_EITHER}[0-9]{_MBI_LETTER}{_MBI_EITHER}[0-9]{_MBI_LETTER}{{2}}[0-9]{{2}}",
        _any,
        "mbi plan",
        0.95,
    ),
    _token("MEDICAL_LICENSE", r"[ABCDEFGHJKLMNPRSTUX][A-Z9][0-9]{7}", dea_valid, "dea"),
    _token("FR_NIR", r"[12][0-9]{4}2[AB][0-9]{8}", nir.is_valid, "fr_nir", 0.97),
    _token("VEHICLE_ID", r"[A-HJ-NPR-Z0-9]{17}", vin_valid, "vehicle", 0.95),
    _token("VEHICLE_ID", r"[A-HJ-NPR-Z0-9]{17}", _any, "vehicle", named=0.95),
    _token(
        "VAT_NUMBER",
        r"(?:AT|BE|BG|CY|CZ|DE|DK|EE|EL|ES|FI|FR|GR|HR|HU|IE|IT|LT|LU|LV|MT|NL|PL|PT|RO|SE|SI|SK|XI)"
        r"[0-9A-Z]{8,12}",
        vat.is_valid,
        "vat es_nif de_tax",
        0.9,
    ),
    _token("VAT_NUMBER", r"GB[0-9]{9}(?:[0-9]{3})?", _any, "vat"),
)
