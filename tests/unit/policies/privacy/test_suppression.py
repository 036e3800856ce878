"""The suppression list against texts: what is the same person, what is not, and how fast that is told."""

from __future__ import annotations

import random
import string

import pytest

from policies.errors import InvalidRequest
from policies.keyed_hashes import KeyedHashes
from policies.privacy.sealing import Sealing
from policies.privacy.subject import Subject, normal
from policies.privacy.suppression import Matcher, Suppression, Suppressions, entries_of, joined_rows, moved, replaced

KEYED = KeyedHashes(b"k" * 32)
SUBJECT = Subject(
    ("DE89 3704 0044 0532 0130 00", "Jane.Doe@ACME.com", "K-4711-08"), ("Jane Doe", "Anna Müller", "王小明", "Al Most")
)


def matcher(subject: Subject = SUBJECT, tenant: str = "acme", **replacements: str) -> Matcher:
    by_old = {normal(old.replace("_", " ")): new for old, new in replacements.items()}
    action = "replace" if by_old else "erase"
    return Matcher(tenant, KEYED, entries_of(subject, tenant, KEYED, "r", action, by_old))


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        ("IBAN: DE89370400440532013000.", "IBAN: [erased].", "not grouped"),
        ("de89-3704-0044-0532-0130-00", "[erased]", "other separators"),
        ("see DE89\n3704 0044 0532 0130 00!", "see [erased]!", "over the end of a line"),
        ("mailto:jane.doe@acme.com?x", "mailto:[erased]?x", "case"),
        ("JANE DOE and jane-doe", "[erased] and [erased]", "case, a hyphen"),
        ("Doe, Jane (Dr.)", "[erased] (Dr.)", "the family name first"),
        ("Jane Doe's and Jane Does Akte", "[erased] and [erased] Akte", "genitives"),
        ("ＪＡＮＥ ｄｏｅ", "[erased]", "full-width letters"),
        ("Anna Mu\u0308ller, anna müller", "[erased], [erased]", "a mark of its own"),
        ("Ja\u00adne D\u200boe", "[erased]", "hidden characters within words"),
        ("我认识王小明先生", "我认识[erased]先生", "no spaces between words"),
        ("| Jane | Doe |", "| [erased] |", "a table's cells"),
        ("almost all, the most", "almost all, the most", "a short name is no other word"),
        ("Janet Doering, Jane Do, ane Doe", "Janet Doering, Jane Do, ane Doe", "parts of words are others"),
        ("XDE89370400440532013000", "XDE89370400440532013000", "a longer number is another one"),
        ("Jane met Doe", "Jane met Doe", "a word in between"),
        ("", "", "nothing"),
    ],
)
def test_a_person_is_found_in_every_spelling_and_nobody_else_is(text: str, expected: str, why: str) -> None:
    assert matcher().redact(text)[0] == expected, why


def test_nothing_is_found_for_another_tenant_or_with_another_key() -> None:
    entries = entries_of(SUBJECT, "acme", KEYED, "r")
    assert not Matcher("globex", KEYED, entries).find("Jane Doe")
    assert not Matcher("acme", KeyedHashes(b"x" * 32), entries).find("Jane Doe")


def test_an_entry_says_nobodys_name() -> None:
    for entry in entries_of(SUBJECT, "acme", KEYED, "r"):
        assert not {"jane", "doe", "müller"} & set(repr(entry).lower().replace("'", " ").split())


def test_what_is_in_place_of_a_value_is_not_replaced_again() -> None:
    corrected = matcher(Subject(("NL91ABNA0417164300",), ("Jane Doe",)), Jane_Doe="Jane Doe-Smith")
    once, count = corrected.redact("Jane Doe and Jane  Doe")
    assert (once, count) == ("Jane Doe-Smith and Jane Doe-Smith", 2)
    assert corrected.redact(once) == (once, 0)


def test_a_mention_over_the_end_of_a_passage_is_found_in_both() -> None:
    spans = list(joined_rows(["It is Jane", "Doe who writes", "nothing"], matcher()))
    assert [[(each.start, each.end) for each in found] for found in spans] == [[(6, 10)], [(0, 3)], []]


def test_places_move_with_the_text() -> None:
    chance = random.Random(3)
    for _ in range(200):
        words = [
            chance.choice(["Jane Doe", "the", "K 4711 08", "heron", "é", "\n"]) for _ in range(chance.randrange(12))
        ]
        text = " ".join(words)
        found = matcher().find(text)
        new = replaced(text, found)
        for position in range(len(text) + 1):
            if all(position <= each.start or position >= each.end for each in found):
                rest = replaced(text[position:], matcher().find(text[position:]))
                assert new[moved(position, found) :] == rest


@pytest.mark.parametrize("name", ["/x/Jane%20Doe%20CV.pdf", "Jane_Doe.txt", "files/jane-doe/1"])
def test_a_documents_name_mentions_a_person_however_it_is_escaped(name: str) -> None:
    assert matcher().names(name) and matcher().erases(name)
    assert "oe" not in matcher().masked(name)


def test_a_text_that_mentions_nobody_is_given_back_as_it_is() -> None:
    chance = random.Random(4)
    for _ in range(300):
        text = "".join(chance.choice(string.printable + "äöüß漢") for _ in range(chance.randrange(200)))
        assert matcher().redact(text) == (text, 0)


class _Source:
    def __init__(self) -> None:
        self.number = 0
        self.listed: list[Suppression] = []

    def revision(self) -> int:
        return self.number

    def entries(self, tenant: str) -> list[Suppression]:
        return self.listed


def test_a_list_that_grew_is_followed_at_once_and_restrictions_change_no_text() -> None:
    source = _Source()
    suppressions = Suppressions(source, KEYED)
    assert suppressions.redact("acme", "Jane Doe") == ("Jane Doe", 0)
    source.listed = entries_of(SUBJECT, "acme", KEYED, "r")
    source.number = 1
    assert suppressions.redact("acme", "Jane Doe") == ("[erased]", 1)
    source.listed = entries_of(SUBJECT, "acme", KEYED, "r", "restrict")
    source.number = 2
    assert suppressions.redact("acme", "Jane Doe") == ("Jane Doe", 0)
    assert suppressions.matcher("acme", restricting=True).find("Jane Doe")


@pytest.mark.parametrize(
    ("subject", "alone", "word"),
    [
        (Subject(), True, "empty"),
        (Subject(("ab",)), True, "too short"),
        (Subject(("12345",)), True, "too short"),
        (Subject((), ("Anna",)), True, "one word"),
        (Subject((), ("Alexandra",)), True, "one word"),
        (Subject((), ("!!",)), True, "empty"),
        (Subject(("Jane Doe",)), True, "subject.names"),
        (Subject((), ("Jane Doe",)), False, "subject.identifiers: missing"),
        (Subject(("x" * 201,)), True, "longer"),
        (Subject(tuple(f"k-{n:06}" for n in range(51))), True, "at most"),
    ],
)
def test_an_unclear_subject_is_refused_without_a_word_of_it(subject: Subject, alone: bool, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word) as refused:
        subject.checked(names_alone=alone)
    assert "Jane" not in refused.value.detail and "Anna" not in refused.value.detail


def test_repetitions_count_once() -> None:
    assert Subject(("a@b.example", "A@B.example"), ("Jane Doe", "jane  doe")).checked() == Subject(
        ("A@B.example",), ("jane doe",)
    )


def test_what_is_sealed_is_read_with_the_same_key_and_tenant_alone() -> None:
    sealed = Sealing(KEYED).seal("acme", {"names": ["Jane Doe"]})
    assert "Jane" not in sealed and Sealing(KEYED).open("acme", sealed) == {"names": ["Jane Doe"]}
    for other, tenant in ((KEYED, "globex"), (KeyedHashes(b"x" * 32), "acme")):
        with pytest.raises(Exception, match="another key"):
            Sealing(other).open(tenant, sealed)
