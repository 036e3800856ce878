"""Names, places, addresses, titles, dates in words and ages: found offline, in many languages and cases."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from policies.pii.detector import Detector
from policies.pii.findings import ENTITIES, PROVEN
from policies.pii.names import recognisers

PLACE = frozenset({"LOCATION", "ADDRESS"})


def found(text: str) -> list[tuple[str, str]]:
    return [(each.entity, text[each.start : each.end]) for part in recognisers() for each in part.find(text)]


def covers(text: str, value: str, entities: frozenset[str]) -> bool:
    at = text.index(value)
    return any(
        each.entity in entities and each.start < at + len(value) and at < each.end
        for part in recognisers()
        for each in part.find(text)
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("My name is Ingrid Sørensen and I need help.", "Ingrid Sørensen"),
        ("Dear Mr. Papadopoulos,\n\nthank you for your letter.", "Papadopoulos"),
        ("Kind regards,\nTomasz Wiśniewski", "Tomasz Wiśniewski"),
        ("Patient: Giulia Esposito\nWard 3", "Giulia Esposito"),
        ("Sehr geehrte Frau Hoffmann,", "Hoffmann"),
        ("Je m'appelle Camille Lefèvre.", "Camille Lefèvre"),
        ("Me llamo Alejandro Gutiérrez y tengo una pregunta.", "Alejandro Gutiérrez"),
        ("Nazywam się Katarzyna Nowak.", "Katarzyna Nowak"),
        ("Меня зовут Наталья Иванова.", "Наталья Иванова"),
        ("The invoice was approved by Priya Sharma on Monday.", "Priya Sharma"),
        ("please call jennifer thompson back tomorrow", "jennifer thompson"),
        ("Ask Matthew whether Olivia has called.", "Olivia"),
    ],
)
def test_people_are_found_by_their_names_and_by_what_stands_around_them(text: str, value: str) -> None:
    assert covers(text, value, frozenset({"PERSON"}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("We moved here from Rotterdam last year.", "Rotterdam"),
        ("The ship sailed from Portugal to Brazil.", "Brazil"),
        ("My friend lives in Český Krumlov", "Český Krumlov"),
        ("i grew up in barcelona", "barcelona"),
        ("Exports to Bosnia and Herzegovina fell.", "Bosnia and Herzegovina"),
        ("Deliver it to 14 Maple Street, Springfield, Illinois 62704", "14 Maple Street"),
        ("Anschrift: Lindenstraße 27, 10969 Berlin", "Lindenstraße 27"),
        ("Adresse : 12 rue Victor Hugo, 69002 Lyon", "rue Victor Hugo"),
        ("Indirizzo: Via Garibaldi 8, 20121 Milano", "Via Garibaldi 8"),
        ("Adres: Keizersgracht 174, 1016 DW Amsterdam", "Keizersgracht 174"),
        ("Unit 4312 Box 881\nDPO AP 96345", "Unit 4312 Box 881"),
        ("Write to P.O. Box 4410, please.", "P.O. Box 4410"),
    ],
)
def test_places_and_addresses_are_found(text: str, value: str) -> None:
    assert covers(text, value, PLACE)


def test_an_address_of_several_lines_is_one_finding() -> None:
    text = "Ship to:\n48 Harbour Road\nApt. 12\nGalway\nIreland 90210\n"
    addresses = [value for entity, value in found(text) if entity == "ADDRESS"]
    assert len(addresses) == 1
    assert addresses[0].startswith("48 Harbour Road") and "Galway" in addresses[0]


def test_addresses_below_each_other_are_not_one() -> None:
    text = "12 Queen Street, Cardiff\n98 Mill Lane, Norwich\n"
    addresses = [value for entity, value in found(text) if entity == "ADDRESS"]
    assert addresses == ["12 Queen Street, Cardiff", "98 Mill Lane, Norwich"]


def test_a_title_before_a_name_is_not_part_of_the_name() -> None:
    said = found("Please ask Dr. Kowalski about it.")
    assert ("TITLE", "Dr.") in said
    assert ("PERSON", "Kowalski") in said


def test_a_job_is_a_finding_only_beside_somebody() -> None:
    assert "TITLE" in {entity for entity, _ in found("Maria Keller, Chief financial officer, signed the letter.")}
    assert "TITLE" not in {entity for entity, _ in found("The position of civil engineer is open.")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("He works for Siemens AG in Erlangen.", "Siemens"),
        ("The contract with Baker & Hughes Ltd. ends soon.", "Baker & Hughes"),
        ("She studied at the University of Leiden.", "University of Leiden"),
    ],
)
def test_organisations_are_found(text: str, value: str) -> None:
    assert covers(text, value, frozenset({"ORGANIZATION"}))


@pytest.mark.parametrize(
    "text", ["The Norwegian minister resigned.", "She was raised Catholic.", "Many Germans voted."]
)
def test_nationality_and_religion_are_found(text: str) -> None:
    assert "NRP" in {entity for entity, _ in found(text)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("He died on 4 March 1951.", "4 March 1951"),
        ("Due by December 24th, 2026 at noon", "December 24th, 2026"),
        ("am 3. Oktober 1990 in Berlin", "3. Oktober 1990"),
        ("le 14 juillet 1789", "14 juillet 1789"),
        ("el 5 de mayo de 1862", "5 de mayo de 1862"),
        ("seen in May 2011", "May 2011"),
        ("See you on Wednesday.", "Wednesday"),
    ],
)
def test_dates_in_words_are_found(text: str, value: str) -> None:
    assert ("DATE_TIME", value) in found(text)


@pytest.mark.parametrize(
    "text", ["In 1999 sales rose.", "You may 5 times try.", "We march on.", "the august 400 pages"]
)
def test_a_year_or_a_month_alone_is_no_date(text: str) -> None:
    assert "DATE_TIME" not in {entity for entity, _ in found(text)}


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("a woman aged 94", "94"),
        ("the 94-year-old driver", "94"),
        ("He is 93 years old.", "93"),
        ("ein 91-jähriger Mann", "91"),
        ("die Frau ist 92 Jahre alt", "92"),
        ("âgée de 95 ans, elle", "95"),
        ("a 101 year old man", "101"),
    ],
)
def test_ages_are_found_and_only_their_number(text: str, age: str) -> None:
    assert ("AGE", age) in found(text)


@pytest.mark.parametrize(
    "text", ["The page 94 is missing.", "It took 3 years.", "a 10-year bond", "temperature of 40 C"]
)
def test_other_numbers_are_no_ages(text: str) -> None:
    assert "AGE" not in {entity for entity, _ in found(text)}


@pytest.mark.parametrize(
    "text",
    [
        "The quarterly report must be finished before the end of the month.",
        "Terms and Conditions\n\nThe Supplier shall deliver the Goods to the Buyer.",
        "Grant access to the folder, mark the box and bill the customer.",
        "def main(args: list[str]) -> int:\n    return run(args)\n",
        "| Metric | Value |\n| --- | --- |\n| Recall | 0.93 |\n",
        "can i speak to a human? my card does not work",
        "PLEASE READ THE MANUAL FIRST",
        "Die Rechnung wurde bereits bezahlt. Der Vertrag endet am Monatsende.",
        "We'll see. It's fine, and they've left.",
    ],
)
def test_ordinary_text_names_nobody(text: str) -> None:
    assert [each for each in found(text) if each[0] in ("PERSON", "ADDRESS", "LOCATION", "ORGANIZATION")] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "\n\n\n",
        "\x00",
        "A",
        "'s",
        "’’’",
        "\ud800 Anna",
        "İstanbul ŞİŞLİ",
        "ﬁne ǅ ß ẞ",
        "東京都千代田区 山田太郎",
        "محمد علي يعيش في القاهرة",
        "a" * 100_000,
        "🙂" * 1_000,
        "Mr." * 1_000,
        "Dr. Dr. Dr. Dr. Dr.",
        "1" * 5_000,
        "van der " * 500,
    ],
)
def test_hostile_texts_give_offsets_inside_of_them(text: str) -> None:
    for part in recognisers():
        for each in part.find(text):
            assert 0 <= each.start < each.end <= len(text)
            assert each.entity in ENTITIES and 0 < each.score < PROVEN


def test_offsets_hold_behind_characters_of_several_bytes() -> None:
    text = "🙂🙂 ﬁ İİ My name is Hannah Vogel."
    assert ("PERSON", "Hannah Vogel") in found(text)


def test_the_same_text_is_read_the_same_way_whatever_was_read_before() -> None:
    text = "Dear Laura Bianchi, your parcel is in Genoa at Via Roma 12."
    before = found(text)
    for at in range(300):
        found(f"Wort{at} Name{at}heim says that {at} is Xy{at}zzy")
    assert found(text) == before


def test_threads_find_the_same() -> None:
    texts = [f"Report {at} by Helena Marković from Zagreb, {at} High Street" for at in range(60)]
    expected = [found(text) for text in texts]
    seen: dict[int, list[list[tuple[str, str]]]] = {}

    def read(name: int) -> None:
        seen[name] = [found(text) for text in texts]

    threads = [threading.Thread(target=read, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(seen.values()) == [expected] * 4


@pytest.mark.parametrize(
    "unit", ["ANNA MARIA ", "Anna ", "anna ", "Mr. ", "12 High Street, ", "aged 9", "May ", "Box 1 ", "\n\nA", "Dr"]
)
def test_time_grows_no_faster_than_the_text(unit: str) -> None:
    def seconds(chars: int) -> float:
        text = (unit * (chars // len(unit) + 1))[:chars]
        began = time.process_time()
        for part in recognisers():
            for _ in part.find(text):
                pass
        return time.process_time() - began

    seconds(2_000)
    small, large = max(seconds(20_000), 0.005), seconds(160_000)
    assert large < 8 * small * 4


def test_the_detector_asks_for_names() -> None:
    said = {each.entity for each in Detector().find("My name is Oliver Brandt, I live in Hamburg.")}
    assert {"PERSON", "LOCATION"} <= said


def test_loading_needs_neither_torch_nor_spacy_and_little_memory() -> None:
    code = (
        "import sys, resource, numpy\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "from policies.pii.names import recognisers\n"
        "list(recognisers()[0].find('Anna lives in Rome'))\n"
        "assert not {'torch', 'spacy', 'presidio_analyzer', 'faker'} & set(sys.modules)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    kilobytes = int(done.stdout) // (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 60_000
