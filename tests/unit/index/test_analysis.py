"""Keyword analysis: what is found by what."""

from __future__ import annotations

import pytest
from milvus_lite.analyzer import StandardAnalyzer

from index.analysis import MAX_TERM_CHARS, analyse


def finds(question: str, passage: str) -> bool:
    """Whether every term of the question is a term of the passage, the question having at least one."""
    wanted = set(analyse(question).split())
    return bool(wanted) and wanted <= set(analyse(passage).split())


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("running", "She runs."),  # stems
        ("POLICIES", "the travel policy"),  # case and plural
        ("Muller", "Dr. Müller"),  # accents
        ("Strasse", "Lange Straße 7"),
        ("Lodz", "w Łodzi: Łódź"),
        ("email", "Ｅ-Ｍａｉｌ"),  # full-width forms, joined words
        ("ISO 27001", "certified under ISO-27001:2022"),
        ("ISO-27001", "certified under ISO-27001:2022"),
        ("ISO27001", "certified under ISO-27001:2022"),
        ("ISO 27001", "certified under ISO27001"),
        ("CVE-2024-1234", "fixes CVE-2024-1234."),
        ("cve 2024", "fixes CVE-2024-1234."),
        ("jane.doe@example.com", "Mail <Jane.Doe@Example.com>!"),
        ("doe", "Mail <Jane.Doe@Example.com>!"),
        ("1234567", "a sum of 1,234,567 euros"),
        ("1,234,567", "a sum of 1234567 euros"),
        ("2.60.0", "needs Ray 2.60.0 or later"),
        ("max_error_rate", "set `max_error_rate` to 0"),
        ("C++", "written in C++."),
        ("c#", "written in C# and Java"),
        ("company", "the company’s rules"),
        ("O'Neill", "Mr. O’Neill"),
        ("東京", "東京都に住む"),
        ("서울", "서울에서"),
        ("हिन्दी", "यह हिन्दी में है"),
        ("สวัสดี", "สวัสดีครับ"),
        ("محمد", "مُحَمَّد"),
        ("москва", "Москва, столица"),
    ],
)
def test_question_finds_passage(question: str, passage: str) -> None:
    assert finds(question, passage)


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("35", "a rate of 3.5"),  # the point is part of the number
        ("CVE-2024-1234", "fixes CVE-2024-1235"),
        ("C++", "the letter C"),
        ("C#", "written in C++"),
        ("京東", "東京都に住む"),  # the order of the characters counts
        ("हिन्दू", "यह हिन्दी में है"),
        ("москвы", "Москва"),  # no stemming without a stemmer for the language
    ],
)
def test_question_does_not_find_passage(question: str, passage: str) -> None:
    assert not finds(question, passage)


def test_words_that_carry_no_meaning_are_left_out() -> None:
    assert analyse("What is the size of an engine?") == "size engin"
    assert analyse("to be, or not to be") == ""


MIXED = "Don't: E-Mail a.b@c.org! हिन्दी, ไม่มี, 東京2020, naïve_coöp 3.5% C++/C# ½ ①② 😀 ﬁne—x IL-6 \u200bzero\u00adwidth"


def test_milvus_indexes_every_term_as_it_stands() -> None:
    analysed = analyse(MIXED)
    assert StandardAnalyzer().tokenize(analysed) == analysed.split(" ")
    assert all(term.isalnum() for term in analysed.split(" "))


def test_long_strings_keep_a_bounded_prefix() -> None:
    assert analyse("0123456789abcdef" * 8) == ("0123456789abcdef" * 8)[:MAX_TERM_CHARS]


@pytest.mark.parametrize("text", ["", "   \n", "!?…", "\x00\ud800"])
def test_text_without_words_gives_nothing(text: str) -> None:
    assert analyse(text) == ""
