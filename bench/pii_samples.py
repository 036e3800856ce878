"""Texts with personal data for `bench pii`: templates of our own, names and addresses by Faker, numbers that are valid.

Also in the forms in which detectors fail: tables, several lines, words that a scanner misread, names of many countries,
spaces and digits of other scripts within a number. Seeded: the same texts each time.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stdnum import iban, luhn
from stdnum.be import nn
from stdnum.de import idnr
from stdnum.es import dni
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.us import ssn

LOCALES = (
    "en_US", "en_GB", "en_IN", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "sv_SE", "pt_BR", "tr_TR", "ro_RO",
    "hu_HU", "vi_VN", "id_ID", "en_NG", "cs_CZ",
)  # fmt: skip
SLOT = re.compile(r"\{([A-Z_]+)\}")
TEMPLATES = (
    "My name is {PERSON} and you can write to {EMAIL_ADDRESS} or call {PHONE_NUMBER}.",
    "Please charge {CREDIT_CARD}, it belongs to {PERSON}.",
    "{PERSON} was born on {DATE_TIME} and lives at {ADDRESS}.",
    "Transfer the rest to {IBAN_CODE} before {DATE_TIME}, please.",
    "Bitte überweisen Sie an {IBAN_CODE}. Steuer-ID: {DE_TAX_ID}. Telefon {PHONE_NUMBER}",
    "Son numéro de sécurité sociale est {FR_NIR}; joindre au {PHONE_NUMBER}.",
    "El DNI de {PERSON} es {ES_NIF}.",
    "BSN: {NL_BSN}, e-mail: {EMAIL_ADDRESS}",
    "PESEL {PL_PESEL}; telefon {PHONE_NUMBER}",
    "Rijksregisternummer {BE_NRN} van {PERSON}",
    "SSN {US_SSN}, driver's license {US_DRIVER_LICENSE}, DOB {DATE_TIME}",
    "NHS number {UK_NHS}. Seen {DATE_TIME} by Dr. {PERSON}.",
    "Patient: {PERSON}\nMRN: {MEDICAL_RECORD_NUMBER}\nAdmitted: {DATE_TIME}\nPhone: {PHONE_NUMBER}\n",
    "Member ID {HEALTH_PLAN_NUMBER}, policy holder {PERSON}",
    "| Name | E-mail | Phone | SSN |\n|---|---|---|---|\n| {PERSON} | {EMAIL_ADDRESS} | {PHONE_NUMBER} | {US_SSN} |\n",
    "name;iban;since\n{PERSON};{IBAN_CODE};{DATE_TIME}\n{PERSON};{IBAN_CODE};{DATE_TIME}\n",
    "Login from {IP_ADDRESS} (device {MAC_ADDRESS}) at {DATE_TIME}",
    "See {URL} or ask {EMAIL_ADDRESS}.",
    "{PERSON} <{EMAIL_ADDRESS}> wrote:\n> my card {CREDIT_CARD} is lost\n> reach me at {PHONE_NUMBER}\n",
    "VIN {VEHICLE_ID}, plate number {LICENSE_PLATE}, owner {PERSON}",
    "password: {PASSWORD}\naws_access_key_id = {API_KEY}",
    "Ship to:\n{PERSON}\n{ADDRESS}\nFax: {FAX_NUMBER}",
    "{ORGANIZATION} hired {PERSON} as of {DATE_TIME}.",
    "IMEI {DEVICE_ID}; serial number {DEVICE_ID}",
    "I moved from {LOCATION} to {LOCATION} last year, says {PERSON}.",
    "The meeting is in room 214; chapter 3.2.1 of version 2.10.4 has 1,234,567 rows and costs $1 250 000.",
    "Invoice 2024-00123 of order 48213377 lists 12 items at 10.50 EUR each, 126.00 EUR in total.",
    "ISBN 978-3-16-148410-0, pages 12-48, figure 7; ratio 3/4, 24/7 service, 99.95 % up.",
    "The error rate fell from 0.0132 to 0.0098 over 4 000 runs (seed 20240117, p < 0.01).",
)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Characters `start` to `end` are an `entity`, says who made the text."""

    entity: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A text with its labels, ascending."""

    text: str
    spans: tuple[Labelled, ...]


def generate(count: int, seed: int = 7) -> list[Sample]:
    """Make samples. Raises `ImportError` where Faker, of the group `test`, is not installed."""
    from faker import Faker

    fakes = [Faker(locale) for locale in LOCALES]
    for index, fake in enumerate(fakes):
        fake.seed_instance(seed + index)
    chance = random.Random(seed)
    return [_sample(chance, chance.choice(fakes)) for _ in range(count)]


def _sample(chance: random.Random, fake: Any) -> Sample:
    template = chance.choice(TEMPLATES)
    pieces, spans, reached, length = [], [], 0, 0
    for slot in SLOT.finditer(template):
        before = _misread(template[reached : slot.start()], chance)
        value = _disguised(_VALUES[slot.group(1)](chance, fake), slot.group(1), chance)
        spans.append(Labelled(slot.group(1), length + len(before), length + len(before) + len(value)))
        pieces += [before, value]
        length += len(before) + len(value)
        reached = slot.end()
    return Sample("".join((*pieces, template[reached:])), tuple(spans))


def _misread(words: str, chance: random.Random) -> str:
    """Write some words as a scanner reads them; line breaks and columns stay."""
    if chance.random() > 0.1:
        return words
    return words.replace("rn", "m").replace(" a", "  a").replace("ll", "l1")


def _disguised(value: str, entity: str, chance: random.Random) -> str:
    """Write some numbers with other spaces and hyphens, in full width, or between marks."""
    if entity not in {"CREDIT_CARD", "IBAN_CODE", "PHONE_NUMBER", "US_SSN"} or chance.random() > 0.15:
        return value
    way = chance.randrange(3)
    if way == 0:
        return value.replace(" ", "\u00a0").replace("-", "\u2011")
    if way == 1:
        return value.translate({code: code + 0xFEE0 for code in range(0x30, 0x3A)})
    return value[: len(value) // 2] + "\u200b" + value[len(value) // 2 :]


def _digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("0123456789", k=count))


def _until(valid: Callable[[str], bool], make: Callable[[], str]) -> str:
    while True:
        number = make()
        if valid(number):
            return number


def _card(chance: random.Random, _: Any) -> str:
    start, length = chance.choice(
        (("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("37", 15), ("6011", 16), ("36", 14))
    )
    body = start + _digits(chance, length - len(start) - 1)
    number = body + str(luhn.calc_check_digit(body))
    mark = chance.choice(("", " ", "-"))
    return mark.join((number[:4], number[4:8], number[8:12], number[12:])) if length == 16 else number


def _iban(chance: random.Random, _: Any) -> str:
    country, letters, count = chance.choice((("DE", "", 18), ("GB", "WXYZ", 14), ("AT", "", 16), ("NL", "ABNA", 10)))
    body = letters + _digits(chance, count)
    number = country + iban.calc_check_digits(f"{country}00{body}") + body
    written = (
        " ".join(number[place : place + 4] for place in range(0, len(number), 4)) if chance.random() < 0.5 else number
    )
    return written.lower() if chance.random() < 0.1 else written


def _phone(chance: random.Random, fake: Any) -> str:
    forms = (
        "### ####",
        "(##) ###-####",
        "##-##-##-##",
        "0## #### ####",
        "###-###-####x###",
        "+49 30 ######",
        "0#### ## ## ##",
    )
    if chance.random() < 0.5:
        return str(fake.phone_number())
    return "".join(str(chance.randrange(2, 10)) if char == "#" else char for char in chance.choice(forms))


def _date(chance: random.Random, fake: Any) -> str:
    formats = ("%m/%d/%Y", "%d.%m.%Y", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%d/%m/%y", "%d %B %Y", "%B %d, %Y")
    return str(fake.date_time_between("-80y").strftime(chance.choice(formats)))


def _vin(chance: random.Random, _: Any) -> str:
    from policies.pii.checks import vin_valid

    return _until(vin_valid, lambda: "".join(chance.choices("ABCDEFGHJKLMNPRSTUVWXYZ0123456789", k=17)))


def _driver(chance: random.Random, _: Any) -> str:
    forms = ("?#######", "#########", "?########", "########", "?############", "##???####?")
    shape = chance.choice(forms)
    return "".join(chance.choice("ABCDEFHKLM") if c == "?" else _digits(chance, 1) for c in shape)


def _french(chance: random.Random, _: Any) -> str:
    body = f"{chance.choice('12')}{chance.randrange(40, 99)}{chance.randrange(1, 13):02d}75{_digits(chance, 6)}"
    return body + nir.calc_check_digits(body)


def _valid(module: Any, length: int) -> Callable[[random.Random, Any], str]:
    return lambda chance, _: _until(module.is_valid, lambda: _digits(chance, length))


_VALUES: Mapping[str, Callable[[random.Random, Any], str]] = {
    "PERSON": lambda _, fake: f"{fake.first_name()} {fake.last_name()}",
    "ADDRESS": lambda _, fake: fake.street_address().replace("\n", ", "),
    "LOCATION": lambda _, fake: fake.city(),
    "ORGANIZATION": lambda _, fake: fake.company(),
    "EMAIL_ADDRESS": lambda _, fake: fake.email(),
    "URL": lambda _, fake: fake.url(),
    "IP_ADDRESS": lambda chance, fake: fake.ipv4() if chance.random() < 0.6 else fake.ipv6(),
    "MAC_ADDRESS": lambda _, fake: fake.mac_address(),
    "PHONE_NUMBER": _phone,
    "FAX_NUMBER": _phone,
    "DATE_TIME": _date,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "US_SSN": lambda chance, _: (lambda d: f"{d[:3]}-{d[3:5]}-{d[5:]}")(
        _until(ssn.is_valid, lambda: _digits(chance, 9))
    ),
    "US_DRIVER_LICENSE": _driver,
    "DE_TAX_ID": _valid(idnr, 11),
    "FR_NIR": _french,
    "ES_NIF": lambda chance, _: (lambda d: d + dni.calc_check_digit(d))(_digits(chance, 8)),
    "NL_BSN": _valid(bsn, 9),
    "PL_PESEL": _valid(pesel, 11),
    "BE_NRN": _valid(nn, 11),
    "UK_NHS": _valid(nhs, 10),
    "MEDICAL_RECORD_NUMBER": lambda chance, _: chance.choice(("", "A-", "MR")) + _digits(chance, 7),
    "HEALTH_PLAN_NUMBER": lambda chance, _: "XYZ" + _digits(chance, 9),
    "VEHICLE_ID": _vin,
    "LICENSE_PLATE": lambda chance, _: f"B-{chance.choice(('AB', 'MW', 'X'))} {chance.randrange(10, 9999)}",
    "PASSWORD": lambda _, fake: fake.password(12, special_chars=False),
    "API_KEY": lambda chance, _: "AKIA" + "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16)),
    "DEVICE_ID": lambda chance, _: (lambda d: d + str(luhn.calc_check_digit(d)))("35" + _digits(chance, 12)),
}
