"""Identifiers with a shape: what is found, what is left alone, and that offsets are those of the text given."""

import pytest

from policies.pii.detector import settle
from policies.pii.findings import ENTITIES, GROUPS, Finding, expand
from policies.pii.plain import plain
from policies.pii.structured import recognisers


def found(text: str) -> list[tuple[str, str]]:
    seen = plain(text)
    findings = settle([each for part in recognisers() for each in part.find(seen.text)], seen.text)
    spans = [(each.entity, *seen.original(each.start, each.end)) for each in findings]
    return [(entity, text[start:end]) for entity, start, end in spans]


FOUND = [
    ("mail anna.o'neil+x@acme.co.uk.", "EMAIL_ADDRESS", "anna.o'neil+x@acme.co.uk"),
    ("mail müller@büro.de", "EMAIL_ADDRESS", "müller@büro.de"),
    ("jo [at] example [dot] com", "EMAIL_ADDRESS", "jo [at] example [dot] com"),
    ("see (https://en.example.org/wiki/A_(b)).", "URL", "https://en.example.org/wiki/A_(b)"),
    ("www.example.org/x?y=1, then", "URL", "www.example.org/x?y=1"),
    ("my page KarateGiant.com is", "DOMAIN_NAME", "KarateGiant.com"),
    ("from 10.218.6.131:80", "IP_ADDRESS", "10.218.6.131"),
    ("at d80:e4b5:79da:6cf6:71f3:51f7:9161:c319 now", "IP_ADDRESS", "d80:e4b5:79da:6cf6:71f3:51f7:9161:c319"),
    ("at fe80::1 now", "IP_ADDRESS", "fe80::1"),
    ("00:1A:2b:3c:4d:5e", "MAC_ADDRESS", "00:1A:2b:3c:4d:5e"),
    ("001a.2b3c.4d5e", "MAC_ADDRESS", "001a.2b3c.4d5e"),
    ("4111 1111 1111 1111", "CREDIT_CARD", "4111 1111 1111 1111"),
    ("3782-822463-10005", "CREDIT_CARD", "3782-822463-10005"),
    ("my card 4222222222222", "CREDIT_CARD", "4222222222222"),
    ("IBAN de89 3704 0044 0532 0130 00.", "IBAN_CODE", "de89 3704 0044 0532 0130 00"),
    ("GB29NWBK60161331926819", "IBAN_CODE", "GB29NWBK60161331926819"),
    ("BIC: DEUTDEFF500", "SWIFT_CODE", "DEUTDEFF500"),
    ("routing number 021000021", "US_ROUTING_NUMBER", "021000021"),
    ("bank account 1234567890", "ACCOUNT_NUMBER", "1234567890"),
    ("1NEDqZPvTWRaoho48qXuLLsrYomMXPABfD", "CRYPTO", "1NEDqZPvTWRaoho48qXuLLsrYomMXPABfD"),
    ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "CRYPTO", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
    ("0x52908400098527886E0F7030069857D2E4169EE7", "CRYPTO", "0x52908400098527886E0F7030069857D2E4169EE7"),
    ("536-32-3065", "US_SSN", "536-32-3065"),
    ("ssn 536323065", "US_SSN", "536323065"),
    ("912-78-1234", "US_ITIN", "912-78-1234"),
    ("her driver's license is LH329609T", "US_DRIVER_LICENSE", "LH329609T"),
    ("Führerschein B072RRE2I55", "US_DRIVER_LICENSE", "B072RRE2I55"),
    ("passport number 123456789", "US_PASSPORT", "123456789"),
    ("Reisepass C01X00T47", "PASSPORT", "C01X00T47"),
    ("Personalausweisnummer: L01X00T471", "ID_CARD", "L01X00T471"),
    ("NPI 1234567893", "US_NPI", "1234567893"),
    ("DEA AB1234563", "MEDICAL_LICENSE", "AB1234563"),
    ("1EG4-TE5-MK73", "US_MBI", "1EG4-TE5-MK73"),
    ("VIN 1M8GDM9AXKP042788", "VEHICLE_ID", "1M8GDM9AXKP042788"),
    ("Fahrgestellnummer WVWZZZ1JZXW000001", "VEHICLE_ID", "WVWZZZ1JZXW000001"),
    ("Kennzeichen B-MW 1234", "LICENSE_PLATE", "B-MW 1234"),
    ("license plate 7ABC123", "LICENSE_PLATE", "7ABC123"),
    ("IMEI 490154203237518", "DEVICE_ID", "490154203237518"),
    ("UDI (01)00844588003288(17)141120(10)7654321D", "DEVICE_ID", "(01)00844588003288(17)141120(10)7654321D"),
    ("ZIP 90210", "ZIP_CODE", "90210"),
    ("Dallas, TX 75001", "ZIP_CODE", "75001"),
    ("London SW1A 1AA", "ZIP_CODE", "SW1A 1AA"),
    ("Toronto M5V 2T6", "ZIP_CODE", "M5V 2T6"),
    ("born 3/31/1982", "DATE_TIME", "3/31/1982"),
    ("on 2002-11-22 18:02:08.", "DATE_TIME", "2002-11-22 18:02:08"),
    ("am 31.12.99 war", "DATE_TIME", "31.12.99"),
    ("born 1985 03 12", "DATE_TIME", "1985 03 12"),
    ("VAT DE136695976", "VAT_NUMBER", "DE136695976"),
    ("FR40303265045", "VAT_NUMBER", "FR40303265045"),
    ("employee id 77123", "UNIQUE_ID", "77123"),
    ("password: hunter2!x", "PASSWORD", "hunter2!x"),
    ("Das Passwort ist Gr3ta_99", "PASSWORD", "Gr3ta_99"),
    ("postgres://bob:s3cr3tpw@db:5432/x", "PASSWORD", "s3cr3tpw"),
    ('api_key = "a9f8b7c6d5e4f3a2b1c0d9e8"', "API_KEY", "a9f8b7c6d5e4f3a2b1c0d9e8"),
]


@pytest.mark.parametrize(("text", "entity", "value"), FOUND)
def test_an_identifier_is_found_with_its_whole_span(text: str, entity: str, value: str) -> None:
    assert (entity, value) in found(text)


NATIONAL = [
    ("AT_SVNR", "Sozialversicherungsnummer 1237 010180"),
    ("BE_NRN", "Rijksregisternummer 85.07.30-033.28"),
    ("BG_EGN", "ЕГН 7523169263"),
    ("CZ_RC", "rodné číslo 710319/2745"),
    ("DE_TAX_ID", "Steuer-ID: 36 574 261 809"),
    ("DK_CPR", "CPR 211062-5629"),
    ("ES_NIF", "DNI 54362315K"),
    ("ES_NIF", "X-2482300W"),
    ("FI_HETU", "131052-308T"),
    ("FR_NIR", "2 95 10 99 126 111 93"),
    ("FR_NIR", "sécurité sociale 253072B07300470"),
    ("GR_AMKA", "ΑΜΚΑ 01013099997"),
    ("IE_PPS", "PPS number 6433435F"),
    ("IT_FISCAL_CODE", "RCCMNL83S18D969H"),
    ("IT_FISCAL_CODE", "RSS MRA 85T10 A562S"),
    ("NL_BSN", "BSN 1112.22.333"),
    ("PL_PESEL", "PESEL 44051401359"),
    ("PT_NIF", "NIF 501964843"),
    ("RO_CNP", "1630615123457"),
    ("SE_PERSONNUMMER", "880320-0016"),
    ("UK_NHS", "NHS number 943 476 5919"),
    ("UK_NINO", "AB 12 34 56 C"),
    ("UK_NINO", "AB123456C"),
]


@pytest.mark.parametrize(("entity", "text"), NATIONAL)
def test_a_national_number_is_found(entity: str, text: str) -> None:
    assert entity in [each for each, _ in found(f"x, {text}.")]


@pytest.mark.parametrize(("entity", "text"), NATIONAL)
def test_a_national_number_with_a_wrong_checksum_is_not_that(entity: str, text: str) -> None:
    if entity in {"UK_NINO", "DK_CPR"}:
        pytest.skip("has no checksum (CPR none since 2007)")
    place = max(index for index, char in enumerate(text) if char.isdigit())
    wrong = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]

    assert entity not in [each for each, _ in found(f"x, {wrong}.")]


PHONES = [
    "+49 30 1234567",
    "+1 (212) 555-1234 ext. 55",
    "212.555.1234",
    "(03) 5327 5996",
    "(044)688-7538x8775",
    "001-748-088-2851x818",
    "+1-558-744-9883x195",
    "079 4650 2145",
    "0431 35 06 90",
    "06-10446904",
    "50-98-28-96",
    "1-800-555-0199",
    "00420 703 155 049",
    "07751431635",
]


@pytest.mark.parametrize("number", PHONES)
def test_a_number_written_as_telephone_numbers_are_is_one_without_a_word(number: str) -> None:
    assert found(f"She left {number} for you.") == [("PHONE_NUMBER", number)]


@pytest.mark.parametrize("number", ["785 8949", "73 448 266", "92 34 70", "22 498317", "5551234"])
@pytest.mark.parametrize("words", ["You can call {}", "Phone: {}", "Téléphone : {}", "Handynummer {}"])
def test_a_shorter_number_is_one_behind_a_word_for_it(words: str, number: str) -> None:
    assert found(words.format(number)) == [("PHONE_NUMBER", number)]


def test_a_fax_number_is_told_from_a_telephone_number() -> None:
    assert [entity for entity, _ in found("Fax: 030 1234567\nTel: 030 7654321")] == ["FAX_NUMBER", "PHONE_NUMBER"]


NOT_FOUND = [
    "version 2.10.3, release 1.2.3.4",
    "1.2.3.4 Retention\n",
    "1,234,567 rows on page 123 in 2019",
    "order 12345678, invoice 2024-00123-55",
    "ISBN 978-3-16-148410-0",
    "$1 234 567 and 12 500 000 EUR",
    "10.5% of 2020-2021, 3/4 cup, 24/7",
    "4111 1111 1111 1112",  # no Luhn, nothing calls it a card
    "666-12-3456 and 000-12-3456",  # areas that are not given out
    "1700000000000 ms, 1700000000 s",
    "3.14159265358979",
    "std::vector, 18:02:08, a::b",
    "sha 9f86d081884c7d659a2feaa0c55ad015",
    "e.g. setup.py, README.md, end.In the",
    "the password is required, password: ${PASSWORD}, password=None",
    "the key is under the mat",
    "see diagram.png and plan_of_the_building.tiff",
    "fingerprint of the certificate",
    "12345",
    "Suite 680 36 4022 Oakridge Lane",
]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_an_identifier_is_left_alone(text: str) -> None:
    assert found(text) == []


DISGUISED = [
    "４１１１　１１１１　１１１１　１１１１",
    "4111\u200b1111\u200b1111\u200b1111",
    "4111\u00a01111\u20111111\u00a01111",
    "4111\u202f1111\u202f1111\u202f1111",
    "\u200e4111 1111 1111 1111\u200f",
    "4111 1111\n1111 1111",
    "4111 1111\r\n> 1111 1111",
    "**4111 1111 1111 1111**",
    "_4111111111111111_",
    "|4111111111111111|",
    "٤١١١ ١١١١ ١١١١ ١١١١",
]


@pytest.mark.parametrize("text", DISGUISED)
def test_a_disguised_number_is_found_at_its_offsets_in_the_text_given(text: str) -> None:
    seen = found(f"né en été\u200b: {text} .")

    assert [entity for entity, _ in seen] == ["CREDIT_CARD"]
    assert sum(char.isdigit() for char in seen[0][1]) == 16
    assert seen[0][1][0].isdigit()
    assert seen[0][1][-1].isdigit()


def test_the_word_that_is_nearest_says_what_a_number_is() -> None:
    text = "Name: X, SSN: 536323065, MRN: 5551212, phone: 2125551234, account: 99887766"

    assert [entity for entity, _ in found(text)] == [
        "US_SSN",
        "MEDICAL_RECORD_NUMBER",
        "PHONE_NUMBER",
        "ACCOUNT_NUMBER",
    ]


TABLES = [
    "Name | Phone | SSN\n---|---|---\nAda | 785 8949 | 536323065\nBo | 226 3939 | 219099998\n",
    "name\tphone\tssn\nAda\t785 8949\t536323065\nBo\t226 3939\t219099998\n",
    "name;telefon;ssn\nAda;785 8949;536323065\nBo;226 3939;219099998\n",
    "name,phone number,social security\nAda,785 8949,536323065\nBo,226 3939,219099998\n",
]


@pytest.mark.parametrize("text", TABLES)
def test_the_head_of_a_column_says_what_the_numbers_below_it_are(text: str) -> None:
    assert found(text) == [
        ("PHONE_NUMBER", "785 8949"),
        ("US_SSN", "536323065"),
        ("PHONE_NUMBER", "226 3939"),
        ("US_SSN", "219099998"),
    ]


def test_a_column_that_is_headed_otherwise_takes_no_word_from_its_neighbour() -> None:
    assert found("ssn | amount | note\n--|--|--\n536323065 | 219099998 | 785 8949\n") == [("US_SSN", "536323065")]


def test_a_secret_beats_the_url_around_it_and_the_rest_of_the_url_stays_found() -> None:
    assert found("amqps://bob:s3cr3tpw@mq.example.org/v") == [
        ("URL", "amqps://bob"),
        ("PASSWORD", "s3cr3tpw"),
        ("URL", "mq.example.org/v"),
    ]


def test_what_overlaps_is_settled_for_the_proven_then_the_longer() -> None:
    text = "x" * 20
    person, card, place = (
        Finding("PERSON", 0, 12, 0.9, "a"),
        Finding("CREDIT_CARD", 2, 6, 1.0, "b"),
        Finding("LOCATION", 10, 12, 0.94, "c"),
    )

    assert settle([place, person, card], text) == [card, place]
    assert settle([place, person], text) == [person]


def test_every_recogniser_says_which_entities_it_finds() -> None:
    assert frozenset().union(*(part.entities for part in recognisers())) <= ENTITIES


def test_groups_hold_entities_that_exist_and_an_unknown_name_is_refused() -> None:
    assert all(entities <= ENTITIES for entities in GROUPS.values())
    assert expand(["PAYMENT", "US_SSN"]) == {"CREDIT_CARD", "US_SSN"}
    with pytest.raises(ValueError, match="SHOE_SIZE"):
        expand(["SHOE_SIZE"])
