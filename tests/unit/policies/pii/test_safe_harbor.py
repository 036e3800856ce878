"""The 18 identifiers of the Safe Harbor method, 45 CFR 164.514(b)(2)(i)(A)-(R): each found where it stands, and its
look-alikes left alone. What is known to be missed is a row of its own, and must stay missed to stay there.
"""

from typing import NamedTuple

import pytest

from policies.pii.detector import Detector
from policies.pii.findings import GROUPS


class Row(NamedTuple):
    letter: str
    entities: str
    """Any of these is right."""
    found: tuple[tuple[str, str], ...] = ()
    """A text, and what of it must lie in a finding."""
    left: tuple[str, ...] = ()
    """Texts without any of the entities."""


ROWS = (
    Row(
        "A names",
        "PERSON",
        (
            ("Patient John Smith was seen today.", "John Smith"),
            ("Dr. Maria Gonzalez called the ward.", "Maria Gonzalez"),
            ("Name: Thomas Müller", "Thomas Müller"),
        ),
        ("The patient was seen today.", "The ward has twelve beds."),
    ),
    Row(
        "B geographic subdivisions smaller than a state",
        "LOCATION ADDRESS ZIP_CODE",
        (
            ("She lives at 42 Maple Street, Springfield.", "42 Maple Street"),
            ("Her zip code is 90210.", "90210"),
            ("Houston, TX 77002-1234", "77002-1234"),
            ("He was treated in Chicago last year.", "Chicago"),
        ),
        ("The dose was 50000 units.", "Chapter 42 describes the method."),
    ),
    Row(
        "C all elements of dates but the year, and ages over 89",
        "DATE_TIME AGE",
        (
            ("admitted 03/14/2021", "03/14/2021"),
            ("discharged on 2021-03-14", "2021-03-14"),
            ("died March 3, 2019", "March 3"),
            ("a 93-year-old woman", "93"),
            ("on 12/25 he fell", "12/25"),
        ),
        ("since 2019", "a ratio of 3/4", "version 12.3.2"),
    ),
    Row(
        "D telephone numbers",
        "PHONE_NUMBER",
        (
            ("Tel. (212) 555-0187", "(212) 555-0187"),
            ("call 555-0134", "555-0134"),
            ("+44 20 7946 0958", "+44 20 7946 0958"),
        ),
        ("room 555", "10.1016/j.cell.2019", "2020-2021"),
    ),
    Row(
        "E fax numbers",
        "FAX_NUMBER",
        (
            ("Fax: 212-555-0199", "212-555-0199"),
            ("030 1234567 fax", "030 1234567"),
            ("telefax 0431/350690", "0431/350690"),
        ),
        ("the fax is broken", "fax 12"),
    ),
    Row(
        "F electronic mail addresses",
        "EMAIL_ADDRESS",
        (
            ("write to j.smith@clinic.example.org", "j.smith@clinic.example.org"),
            ("smith (at) clinic.org", "smith (at) clinic.org"),
        ),
        ("@home", "3 @ 4 USD", "user@localhost"),
    ),
    Row(
        "G social security numbers",
        "US_SSN US_ITIN",
        (
            ("536-32-3065", "536-32-3065"),
            ("SSN 536 32 3065", "536 32 3065"),
            ("social security no. 536323065", "536323065"),
        ),
        ("666-12-3456", "536323065", "part 536-32-30656"),
    ),
    Row(
        "H medical record numbers",
        "MEDICAL_RECORD_NUMBER",
        (
            ("MRN: 00123456", "00123456"),
            ("medical record number A-99-1234", "99-1234"),
            ("patient ID 8812734", "8812734"),
        ),
        ("the medical record is long", "00123456"),
    ),
    Row(
        "I health plan beneficiary numbers",
        "HEALTH_PLAN_NUMBER US_MBI",
        (
            ("member ID XYZ123456789", "XYZ123456789"),
            ("Medicare number 1EG4-TE5-MK73", "1EG4-TE5-MK73"),
            ("policy number 88-1234-99", "88-1234-99"),
        ),
        ("members pay 20 dollars", "the policy of 2019"),
    ),
    Row(
        "J account numbers",
        "ACCOUNT_NUMBER IBAN_CODE CREDIT_CARD US_ROUTING_NUMBER",
        (
            ("account number 1234567890", "1234567890"),
            ("GB29 NWBK 6016 1331 9268 19", "GB29 NWBK 6016 1331 9268 19"),
            ("4111-1111-1111-1111", "4111-1111-1111-1111"),
            ("ABA 021000021", "021000021"),
        ),
        ("on account of rain in 2019", "4111-1111-1111-1112"),
    ),
    Row(
        "K certificate and licence numbers",
        "CERTIFICATE_NUMBER MEDICAL_LICENSE US_DRIVER_LICENSE US_NPI",
        (
            ("certificate number C-12345", "12345"),
            ("driver's license D1234567", "D1234567"),
            ("DEA AB1234563", "AB1234563"),
            ("NPI 1234567893", "1234567893"),
            ("nursing license RN-123456", "RN-123456"),
        ),
        ("the MIT licence", "certified in 2019"),
    ),
    Row(
        "L vehicle identifiers and plates",
        "VEHICLE_ID LICENSE_PLATE",
        (
            ("1M8GDM9AXKP042788", "1M8GDM9AXKP042788"),
            ("license plate 7ABC123", "7ABC123"),
            ("Kennzeichen B-MW 1234", "B-MW 1234"),
            ("immatriculation AB-123-CD", "AB-123-CD"),
        ),
        ("a plate of 12 biscuits", "B-MW 1234", "a vehicle of 2019"),
    ),
    Row(
        "M device identifiers and serial numbers",
        "DEVICE_ID MAC_ADDRESS",
        (
            ("serial number SN-00X99120", "00X99120"),
            ("IMEI 490154203237518", "490154203237518"),
            ("(01)00844588003288(21)ABC123", "(01)00844588003288(21)ABC123"),
            ("00:1A:2b:3c:4d:5e", "00:1A:2b:3c:4d:5e"),
        ),
        ("a serial port", "18:02:08"),
    ),
    Row(
        "N web universal resource locators",
        "URL DOMAIN_NAME",
        (
            ("https://example.org/patients/12", "https://example.org/patients/12"),
            ("www.example.org", "www.example.org"),
            ("at clinic-north.org", "clinic-north.org"),
        ),
        ("setup.py", "end.It was", "e.g. this"),
    ),
    Row(
        "O internet protocol addresses",
        "IP_ADDRESS",
        (("from 203.0.113.7", "203.0.113.7"), ("2001:db8::8a2e:370:7334", "2001:db8::8a2e:370:7334")),
        ("version 1.2.3.4", "999.1.1.1", "18:02:08"),
    ),
    Row(
        "P biometric identifiers",
        "BIOMETRIC_ID",
        (
            ("fingerprint template FP-00123", "00123"),
            ("voiceprint_0042.wav", "voiceprint_0042.wav"),
            ("retinal scan ID 88213", "88213"),
        ),
        ("fingerprints were taken", "her voice was calm"),
    ),
    Row(
        "Q full-face photographs",
        "PHOTO",
        (
            ("photo: jdoe_face.jpg", "jdoe_face.jpg"),
            ("a full-face photograph is attached", "full-face photograph"),
            ("passport photos enclosed", "passport photos"),
        ),
        ("diagram.png", "a photocopy of the letter"),
    ),
    Row(
        "R any other unique identifying number",
        "UNIQUE_ID PASSPORT US_PASSPORT ID_CARD",
        (
            ("employee ID 77123", "77123"),
            ("study ID S-0042", "0042"),
            ("passport number 123456789", "123456789"),
            ("badge number 4411", "4411"),
        ),
        ("study 42 participants", "the badge"),
    ),
)
MISSES = (
    ("P", "She speaks with a lisp and walks with a limp."),  # a description is no number
    ("Q", "The picture shows her from the front, smiling."),
    ("R", "the only mayor of this town who ever won the lottery"),  # 164.514(b)(2)(ii): actual knowledge
    ("H", "the chart that lies on top, the one with 77"),  # two digits
)
"""What no pattern finds. A person has to look for it."""


def cases(kind: str) -> list[object]:
    return [
        pytest.param(row, case, id=f"{row.letter[0]}-{case if kind == 'left' else case[0]}")
        for row in ROWS
        for case in getattr(row, kind)
    ]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(GROUPS["HIPAA_SAFE_HARBOR"])


def test_there_is_a_row_for_each_of_the_eighteen() -> None:
    assert [row.letter[0] for row in ROWS] == list("ABCDEFGHIJKLMNOPQR")
    assert all(set(row.entities.split()) <= GROUPS["HIPAA_SAFE_HARBOR"] for row in ROWS)


@pytest.mark.parametrize(("row", "case"), cases("found"))
def test_the_identifier_is_found(detector: Detector, row: Row, case: tuple[str, str]) -> None:
    text, value = case
    start = text.index(value)
    findings = [each for each in detector.find(text) if each.entity in row.entities.split()]

    assert any(each.start <= start and each.end >= start + len(value) for each in findings)


@pytest.mark.parametrize(("row", "text"), cases("left"))
def test_what_only_looks_like_the_identifier_is_not_it(detector: Detector, row: Row, text: str) -> None:
    assert [each for each in detector.find(text) if each.entity in row.entities.split()] == []


@pytest.mark.parametrize(("letter", "text"), MISSES)
def test_a_known_miss_is_still_one(detector: Detector, letter: str, text: str) -> None:
    entities = next(row.entities.split() for row in ROWS if row.letter[0] == letter)
    assert [each for each in detector.find(text) if each.entity in entities] == []
