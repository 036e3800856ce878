from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.citations import CitationChecker, Evidence, check, holds, markers, sentence_spans
from policies.links import Links
from policies.outgoing import Outgoing
from policies.unseen import UnseenFilter, without_unseen

LEAVE = "Employees get 25 days of leave. Unused days expire in March. Managers approve requests."
TRAVEL = "The travel budget is 1,200 euros a year. Flights are booked by the office."
EVIDENCE = (
    Evidence("c1", "d1", LEAVE, 100, 100 + len(LEAVE)),
    Evidence("c2", "d2", TRAVEL, 0, len(TRAVEL), title="Travel rules 2024"),
)


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ("Blue [1].", [1]),
        ("Blue[1] and red [12].", [1, 12]),
        ("Blue [1][2].", [1, 2]),
        ("Blue [1, 2; 3].", [1, 2, 3]),
        ("Blue [ 1 ,2 ].", [1, 2]),
        ("Blue [2-4], red [2\u20133].", [2, 3, 4, 2, 3]),
        ("Blue \u30101\u3011\u30102\u2020source\u3011.", [1, 2]),
        ("Blue [^1].", [1]),
        ("Blue [1](http://x/y).", [1]),
        ("Blue [0] [99].", [0, 99]),
        ("Nothing at all.", []),
        ("", []),
        ("[", []),
        ("[a] [1a] [1.5] [-1] [12345] [ ] []", []),
        ("Read `a[1]` and ``b[2]``.", []),
        ("```python\nx = a[1]\n```", []),
        ("~~~\n[1]\n~~~", []),
        ("```\nnever closed [1]", []),
        ("a[0] and x[3] and row_names[1] and f(x)[2]", []),
        ("list[0] is first; rows[3] = 5", []),
        ("In Q3[1], COVID19[2] and 2024[3].", [1, 2, 3]),
        ("It is blue.[1] Next.", [1]),
        ('It is "blue"[1] (so)[2].', [1, 2]),
        ("\u5e74\u4f11\u306f25\u65e5[1]\u3002", [1]),
    ],
)
def test_marks_are_found_and_code_is_not(answer: str, numbers: list[int]) -> None:
    assert markers(answer) == numbers


CASES: list[tuple[str, str, str, list[str]]] = [
    ("a right mark stays", "Employees get 25 days of leave [1].", "Employees get 25 days of leave [1].",
     ["Employees get 25 days of leave."]),
    ("the sentence that fits is quoted", "Unused days expire in March [1].", "Unused days expire in March [1].",
     ["Unused days expire in March."]),
    ("a changed number does not hold", "Employees get 30 days of leave [1].", "Employees get 30 days of leave.", []),
    ("a number spelt otherwise holds", "The budget is 1200 euros [2].", "The budget is 1200 euros [1].",
     ["The travel budget is 1,200 euros a year."]),
    ("a number in the title holds", "In 2024 the budget was 1,200 euros [2].",
     "In 2024 the budget was 1,200 euros [1].",
     ["The travel budget is 1,200 euros a year."]),
    ("the wrong passage", "Employees get 25 days of leave [2].", "Employees get 25 days of leave.", []),
    ("no passage of that number", "Employees get 25 days [7] of leave [0].", "Employees get 25 days of leave.", []),
    ("number nought is not the last passage", "Flights are booked by the office [0].",
     "Flights are booked by the office.", []),
    ("a word in common is not enough", "Requests for bananas delight every monkey in town [1].",
     "Requests for bananas delight every monkey in town.", []),
    ("one of two holds", "Employees get 25 days of leave [2, 1].", "Employees get 25 days of leave [1].",
     ["Employees get 25 days of leave."]),
    ("numbered in order of appearance", "Flights are booked by the office [2]. Managers approve requests [1].",
     "Flights are booked by the office [1]. Managers approve requests [2].",
     ["Flights are booked by the office.", "Managers approve requests."]),
    ("one passage, two statements", "Flights are booked by the office [2]. The budget is 1200 euros [2].",
     "Flights are booked by the office [1]. The budget is 1200 euros [2].",
     ["Flights are booked by the office.", "The travel budget is 1,200 euros a year."]),
    ("one statement twice, one citation", "Managers approve requests [1]. Indeed managers approve [1].",
     "Managers approve requests [1]. Indeed managers approve [1].", ["Managers approve requests."]),
    ("said twice at once", "Managers approve requests [1][1].", "Managers approve requests [1].",
     ["Managers approve requests."]),
    ("after the full stop", "Managers approve requests. [1] Then more.", "Managers approve requests. [1] Then more.",
     ["Managers approve requests."]),
    ("two statements in a sentence", "Employees get 25 days [1] and flights are booked by the office [2].",
     "Employees get 25 days [1] and flights are booked by the office [2].",
     ["Employees get 25 days of leave.", "Flights are booked by the office."]),
    ("a leading mark", "[1] says that managers approve requests. Fine.",
     "[1] says that managers approve requests. Fine.",
     ["Managers approve requests."]),
    ("a list", "1. Managers approve requests [1]\n2. Flights are booked [2]\n",
     "1. Managers approve requests [1]\n2. Flights are booked [2]\n",
     ["Managers approve requests.", "Flights are booked by the office."]),
    ("another ending of the words", "The manager's approval of a request [1].",
     "The manager's approval of a request [1].",
     ["Managers approve requests."]),
    ("wide brackets", "Managers approve requests\u30101\u2020source\u3011.", "Managers approve requests[1].",
     ["Managers approve requests."]),
    ("a link is no citation's", "Managers approve requests [1](https://evil.example/?q=secret).",
     "Managers approve requests [1].", ["Managers approve requests."]),
    ("a link on a mark that does not hold", "Bananas [1](https://evil.example/).", "Bananas.", []),
    ("a definition is taken out", "Managers approve requests [1].\n\n[1]: https://evil.example/\n[^2]: x\nEnd.",
     "Managers approve requests [1].\n\nEnd.", ["Managers approve requests."]),
    ("nothing said", "[1][2]", "", []),
    ("no words that say anything", "Yes, it is so [1].", "Yes, it is so.", []),
    ("code is left alone", "`a[1]` and\n```\nb[2]\n[1]: x\n```\nManagers approve [1].",
     "`a[1]` and\n```\nb[2]\n[1]: x\n```\nManagers approve [1].", ["Managers approve requests."]),
    ("no marks", "Managers approve requests.", "Managers approve requests.", []),
    ("an abbreviation ends no sentence", "Managers approve, e.g. by mail, their requests [1].",
     "Managers approve, e.g. by mail, their requests [1].", ["Managers approve requests."]),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected", "quotes"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_marks_that_do_not_hold_are_taken_out(answer: str, expected: str, quotes: list[str]) -> None:
    checked = check(answer, EVIDENCE)

    assert checked.answer == expected
    assert [citation.quote for citation in checked.citations] == quotes


def test_a_statement_in_a_script_without_spaces_is_checked() -> None:
    text = "\u5e74\u6b21\u6709\u7d66\u4f11\u6687\u306f25\u65e5\u3067\u3059\u3002"
    text += "\u7533\u8acb\u306f\u4e0a\u53f8\u304c\u627f\u8a8d\u3057\u307e\u3059\u3002"
    evidence = [Evidence("c1", "d1", text, 0, len(text))]

    right = check("\u6709\u7d66\u4f11\u6687\u306f25\u65e5\u3067\u3059[1]\u3002", evidence)
    wrong = check("\u6709\u7d66\u4f11\u6687\u306f30\u65e5\u3067\u3059[1]\u3002", evidence)

    assert [citation.quote for citation in right.citations] == [text[: text.index("\u3002") + 1]]
    assert (wrong.citations, wrong.removed) == ((), 1)


def test_nothing_holds_without_evidence() -> None:
    checked = check("Managers approve requests [1].", [])
    assert (checked.answer, checked.citations, checked.removed) == ("Managers approve requests.", (), 1)
    empty = [Evidence("c", "d", "", 0, 0, title="Managers approve requests")]
    assert check("Managers approve requests [1].", empty).citations == ()


@pytest.mark.parametrize(
    ("quote", "start", "end", "expected", "why"),
    [
        ("Unused days", 132, 143, True, "verbatim"),
        ("unused days", 132, 143, False, "another spelling"),
        ("Unused days", 131, 142, False, "one off"),
        ("Unused days", 32, 43, False, "counted from the chunk, not from the document"),
        ("", 132, 132, False, "nothing"),
        ("s.", 185, 187, True, "to the very end"),
        ("s.", 185, 188, False, "beyond the end"),
        ("", 143, 132, False, "backwards"),
        ("E", 100, 101, True, "the first character"),
        ("E", 99, 100, False, "before the chunk"),
        ("s", 98, 99, False, "before the chunk, counted from its end"),
    ],
)
def test_a_quote_holds_only_at_its_place(quote: str, start: int, end: int, expected: bool, why: str) -> None:
    assert holds(quote, start, end, LEAVE, 100) == expected, why


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 1.5 euros. Yes.", ["It costs 1.5 euros.", "Yes."]),
        ("Dr. Ada came, i.e. she was there. So.", ["Dr. Ada came, i.e. she was there.", "So."]),
        ("See no. 5 there. Is it no. Maybe", ["See no. 5 there.", "Is it no.", "Maybe"]),
        ("Founded in 2024. Then", ["Founded in 2024.", "Then"]),
        ("A line that was\nbroken here.\n\nNew part", ["A line that was\nbroken here.", "New part"]),
        ("# Title\nText", ["# Title", "Text"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_sentences_are_cut_where_they_end(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


def test_a_text_without_any_end_is_quoted_in_parts() -> None:
    text = "word " * 1000
    spans = sentence_spans(text)
    assert all(0 < end - start <= 600 for start, end in spans)
    assert "".join(text[start:end] for start, end in spans).replace(" ", "") == "word" * 1000


PARTS = [
    "Employees get 25 days", " of leave", ". ", "Managers approve requests", "\n", "\n\n", " [1]", "[2]", "[1, 2]",
    "[9]", "\u30101\u3011", " `a[1]` ", "```\n", "\n```\n", "a[0]", "[1](http://x)", "\n[1]: http://x\n",
    "The budget is 1,200 euros", " and ", "! ", "e.g. ", "1. ", "\u3002", "Flights are booked.", "[", "]",
    "1", "5 ", "~~~\n", "`", " = 3", "f(x. y)", "^",
]  # fmt: skip
answers = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@settings(max_examples=100)
@given(answers)
def test_whatever_is_sent_holds(answer: str) -> None:
    checked = check(answer, EVIDENCE)

    assert [citation.n for citation in checked.citations] == list(range(1, len(checked.citations) + 1))
    assert set(markers(checked.answer)) >= {citation.n for citation in checked.citations}
    for citation in checked.citations:
        source = EVIDENCE[citation.evidence]
        assert (source.chunk_id, source.document_id) == (citation.chunk_id, citation.document_id)
        assert holds(citation.quote, citation.start, citation.end, source.text, source.start)


@settings(max_examples=150)
@given(answers, st.data())
def test_a_streamed_answer_is_checked_like_a_whole_one(answer: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=12)))
    checker = CitationChecker(EVIDENCE)

    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    streamed = "".join([*(checker.feed(piece) for piece in pieces), checker.finish()])

    whole = check(answer, EVIDENCE)
    assert streamed == whole.answer
    assert tuple(checker.citations) == whole.citations
    assert checker.removed == whole.removed


def test_a_number_within_a_line_is_no_list_number_in_a_stream_either() -> None:
    answer = "Hello there. 7) Managers approve requests [1]."
    checker = CitationChecker(EVIDENCE)

    assert (
        "".join([*(checker.feed(character) for character in answer), checker.finish()])
        == check(answer, EVIDENCE).answer
    )


def test_a_stream_lets_go_of_each_sentence_that_is_complete() -> None:
    checker = CitationChecker(EVIDENCE)
    sent = [
        checker.feed(piece) for piece in ("Managers approve requests [", "1]. ", "Flights are", " booked [7].", " End")
    ]

    assert sent == ["", "", "Managers approve requests [1]. ", "", "Flights are booked. "]
    assert checker.finish() == "End"


def test_time_grows_with_an_answers_length_and_no_faster() -> None:
    def seconds(answer: str, size: int) -> float:
        started, checker = time.process_time(), CitationChecker(EVIDENCE)
        for place in range(0, len(answer), size):
            checker.feed(answer[place : place + size])
        checker.finish()
        return time.process_time() - started

    for start, sentence in (
        ("", "Managers approve requests [1]. "),
        ("", "Managers approve requests. [1] "),
        ("", "Managers `approve` requests [1].\n"),
        ("```\n", "Managers approve requests [1]. "),
        ("", "```\nx [1]. y\n"),
    ):
        for size in (10**9, 40):
            short = seconds(start + sentence * 500, size)
            assert seconds(start + sentence * 2_000, size) < 6 * short + 0.5, (start, sentence, size)


def test_a_hostile_answer_takes_no_long_time() -> None:
    for answer in (
        "[" * 20_000,
        "[1" * 10_000,
        "`" * 20_000,
        "[1]" * 3_000,
        "a(" * 10_000 + "[1]",
        "." * 20_000,
        "[1, " * 5_000,
    ):
        check(answer, EVIDENCE)


BUDGET = "The budget for travel is 500 euros per year."


def leaving(*pieces: str) -> str:
    way = Outgoing([Evidence("c", "d" * 32, BUDGET, 0, len(BUDGET))], Links.to([]))
    return "".join([*(way.feed(piece) for piece in pieces), way.finish()])


@pytest.mark.parametrize(
    "mark",
    [
        "[\u200b1]",
        "[1\u00ad]",
        "[\ufeff1]",
        "[\u2060\u2060 1]",
        "[\x011]",
        "[\U000e00311]",
        "\uff3b1\uff3d(https://evil.org/x)",
        "\uff3b1\uff3d<b>",
        "!\uff3b1\uff3d(https://evil.org/x)",
        "[\uff11]",
    ],
)
def test_a_mark_that_nobody_checked_does_not_leave(mark: str) -> None:
    text = f"Aliens landed {mark} today."
    for pieces in ([text], list(text)):
        assert not re.search(r"\[\s*\d+\s*\]", leaving(*pieces)), leaving(*pieces)


def test_a_mark_that_holds_stays_without_what_nobody_sees() -> None:
    assert leaving(*"The budget for travel is 500 euros [\u200b1].") == "The budget for travel is 500 euros [1]."


@pytest.mark.parametrize(
    "text",
    [
        "a\u200d\u202e\ufe0fb 1\ufe0f\u20e3 \u2764\ufe0f\u200d\U0001f525 \u0645\u06cc\u200c\u062e",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f \U0001f3f4\U000e0067 \U0001f3f4",
        "\u0645\u200c" + "x\u200b" * 20 + "\u2764" + "\ufe0f" * 200 + "\u0915\u094d\u200d\u0937\u200c",
        "\ufe0f\u200bx \ufe0f\u845b\U000e0100\U000e0101",
    ],
)
def test_unseen_characters_go_in_pieces_as_they_go_in_one(text: str) -> None:
    for size in (1, 2, 3, 5, len(text)):
        each = UnseenFilter()
        found = "".join(each.feed(text[at : at + size]) for at in range(0, len(text), size)) + each.finish()
        assert found == without_unseen(text)[0]
    each = UnseenFilter()
    assert [each.feed("word"), each.feed(" x\u200b"), each.feed("y")] == ["word", " x", "y"]


@pytest.mark.parametrize("unit", ["\u200b", "x\u200b", "\U0001f3f4", "\ufe0f", "x"])
def test_taking_out_the_unseen_is_linear_in_the_text(unit: str) -> None:
    started = time.process_time()
    each = UnseenFilter()
    for _ in range(20_000):
        each.feed(unit)
    each.feed(unit * 200_000)
    each.finish()
    assert time.process_time() - started < 5
