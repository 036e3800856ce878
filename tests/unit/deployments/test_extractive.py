"""Quotes: where a passage may be cut, which units answer a question, and when there is no answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.extractive import MAX_CANDIDATES, Extraction, Passage, candidates, choose, sentences
from deployments.sentences import MAX_UNIT_CHARS
from policies.citations import markers


def quoted(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


def make_passage(text: str, title: str = "Travel policy", document_id: str = "d1", score: float = 1.0) -> Passage:
    return Passage(f"{document_id}.1.0", document_id, title, text, score)


def answer(
    question: str, passages: Sequence[Passage], cosines: dict[str, float], other: float = 0.1
) -> Extraction | None:
    """Ask with given cosines: that of a unit which holds one of the phrases, or `other`."""
    found = candidates(question, passages)
    values = []
    for item in found:
        text = passages[item.passage].text[item.start : item.end]
        values.append(next((cosine for phrase, cosine in cosines.items() if phrase in text), other))
    return choose(question, passages, found, np.array(values, np.float32))


SENTENCES = [
    ("one after the other", "It rains. We stay! They go… Fine.", ["It rains.", "We stay!", "They go…", "Fine."]),
    ("titles and initials", "Dr. J. R. Smith left. Mr. Low stayed.", ["Dr. J. R. Smith left.", "Mr. Low stayed."]),
    (
        "e.g. and i.e.",
        "Take a train, e.g. The Star, i.e. no car. Go.",
        ["Take a train, e.g. The Star, i.e. no car.", "Go."],
    ),
    ("decimals and versions", "Use v1.2.3 at 3.5 V. Then stop.", ["Use v1.2.3 at 3.5 V.", "Then stop."]),
    ("addresses", "See https://a.example/b.c?d=e. Or a.b@c.example. Go.", None),
    ("numbers", "See no. 5 and Art. 17 of it. Then sign.", ["See no. 5 and Art. 17 of it.", "Then sign."]),
    ("countries", "The U.S. Army came. It left.", ["The U.S. Army came.", "It left."]),
    (
        "a country at the end",
        "They moved to the U.S. The house stayed.",
        ["They moved to the U.S.", "The house stayed."],
    ),
    ("quotation marks", 'He said "Go." She went.', ['He said "Go."', "She went."]),
    ("no space in Chinese", "第一句。第二句！", ["第一句。", "第二句！"]),
    ("tokenised text", "The coat is grey . The eyes are green .", ["The coat is grey .", "The eyes are green ."]),
    ("a date with a point", "Paid on Jan. 5 by him. Done.", ["Paid on Jan. 5 by him.", "Done."]),
]


@pytest.mark.parametrize(("reason", "text", "expected"), SENTENCES, ids=[case[0] for case in SENTENCES])
def test_prose_is_cut_where_a_sentence_ends(reason: str, text: str, expected: list[str] | None) -> None:
    assert quoted(text) == (expected or ["See https://a.example/b.c?d=e.", "Or a.b@c.example.", "Go."])


def test_a_sentence_goes_on_over_a_line_that_was_broken_to_fit_the_page() -> None:
    text = "Trips outside Europe need the approval of the whole\nmanaging board. Others do not."
    assert quoted(text) == ["Trips outside Europe need the approval of the whole\nmanaging board.", "Others do not."]


def test_headings_rules_and_fences_are_not_quoted() -> None:
    text = "# Leave\n\nParental leave\n==============\n\n---\n\n**Who**\n\nEveryone may go.\n\n```\nx = 1\n```\n"
    assert quoted(text) == ["Everyone may go.", "x = 1"]


def test_a_plain_heading_introduces_and_is_not_quoted() -> None:
    text = "Parental leave\n\nEach parent gets 22 weeks.\n"
    assert [(span.lead, text[span.start : span.end]) for span in sentences(text)] == [
        ("Parental leave", "Each parent gets 22 weeks.")
    ]


def test_list_items_are_quoted_without_their_marks() -> None:
    text = "Bring with you:\n\n- a passport\n* **two photos**\n3. the form no. 5. It is green.\n4.2 The supplier pays."
    assert quoted(text) == ["a passport", "two photos", "the form no. 5.", "It is green.", "The supplier pays."]
    assert sentences(text)[0].lead == "Bring with you"


def test_emphasis_inside_a_quote_stays_whole() -> None:
    assert quoted("- **Seats:** *about 500* in all") == ["**Seats:** *about 500* in all"]


def test_a_table_row_is_quoted_whole_and_knows_its_columns() -> None:
    text = "## Transport\n\n| Time | Class |\n|---|---|\n| up to 5 h | economy |\n| above | first |\n\nThe end is near."
    spans = sentences(text)
    assert quoted(text) == ["up to 5 h | economy", "above | first", "The end is near."]
    assert spans[0].lead == "Transport > Time, Class"
    assert spans[2].lead == "Transport"


def test_a_row_of_a_sheet_is_quoted_whole() -> None:
    rows = "site: Varnsund; desk: Travel; phone: 555-0121. Ask.\nsite: Ostrey; desk: People; phone: 555-0110\n"
    assert quoted(rows) == rows.strip().split("\n")


def test_a_question_introduces_its_answer_and_is_not_quoted() -> None:
    text = "Can I cancel? Yes, until noon.\n\n**Q: May I bring a dog?**\nOnly guide dogs may come.\n"
    assert [(span.lead, text[span.start : span.end]) for span in sentences(text)] == [
        ("Can I cancel?", "Yes, until noon."),
        ("Q: May I bring a dog?", "Only guide dogs may come."),
    ]


def test_a_long_sentence_is_cut_at_a_clause() -> None:
    clause = "the supplier delivers the goods to the place that the order names, "
    text = f"It is agreed that {clause * 12}and no later."
    assert all(len(quote) <= MAX_UNIT_CHARS for quote in quoted(text))
    assert all(quote.endswith(",") for quote in quoted(text)[:-1])


@given(st.text(alphabet="aB1 .,:;!?|-#*_>`\n[]()é。\t\r", max_size=300))
def test_units_are_in_order_apart_and_of_bounded_length(text: str) -> None:
    spans = sentences(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(span.end - span.start <= MAX_UNIT_CHARS for span in spans)
    assert all(above.end <= below.start for above, below in zip(spans, spans[1:], strict=False))
    assert all(text[span.start : span.end].strip() == text[span.start : span.end] for span in spans)


POLICY = make_passage(
    "## 3. Meals\n\nTravellers receive a meal allowance of EUR 46 a day. Meals provided by a host are deducted.\n\n"
    "## 4. Hotels\n\nThe limit is EUR 140 a night. Lost receipts can be replaced by a signed statement."
)
NEWS = make_passage("The canteen opens at noon. Soup is served in the hall.", "Newsletter", "d2", 0.5)


def test_the_answer_is_verbatim_and_cited() -> None:
    found = answer("How much meal allowance do travellers receive a day?", [POLICY, NEWS], {"EUR 46": 0.8})
    assert found is not None
    assert found.answer == "Travellers receive a meal allowance of EUR 46 a day. [1]"
    (quote,) = found.quotes
    assert POLICY.text[quote.start : quote.end] == "Travellers receive a meal allowance of EUR 46 a day."
    assert 0 < found.support <= 1


def test_nothing_visible_answers_so_there_is_no_answer() -> None:
    assert answer("How large is the retention bonus in Project Curlew?", [POLICY, NEWS], {}, other=0.2) is None


def test_the_same_topic_about_another_name_is_no_answer() -> None:
    pune = make_passage("ZX Bank has 12 ATMs in Pune. They are open at night.", "ATM locations in Pune", "d3")
    assert answer("How many ATMs does ZX Bank have in Bangalore?", [pune], {"12 ATMs": 0.62}) is None
    assert answer("How many ATMs does ZX Bank have in Pune?", [pune], {"12 ATMs": 0.75}) is not None


def test_no_passage_no_answer() -> None:
    assert candidates("Who?", []) == []
    assert choose("Who?", [], [], np.empty(0, np.float32)) is None
    empty = make_passage("# Only a heading")
    assert choose("Who?", [empty], candidates("Who?", [empty]), np.empty(0, np.float32)) is None


def test_a_second_sentence_that_says_the_same_is_left_out() -> None:
    again = make_passage("Note: travellers receive a meal allowance of EUR 46 a day.", "Newsletter", "d2")
    found = answer("How much meal allowance do travellers receive a day?", [POLICY, again], {"EUR 46": 0.8})
    assert found is not None
    assert len(found.quotes) == 1


def test_at_most_three_quotes_numbered_in_order_of_appearance() -> None:
    listing = make_passage(
        "Documents for a travel visa:\n\n- the visa form, signed\n- a visa photograph\n- a valid travel passport\n"
        "- the travel visa fee, paid\n- a travel insurance for the visa",
        "Travel visa",
    )
    found = answer("Which documents does a travel visa need?", [listing], {}, other=0.8)
    assert found is not None
    assert 2 <= len(found.quotes) <= 3
    assert markers(found.answer) == list(range(1, len(found.quotes) + 1))
    assert [quote.start for quote in found.quotes] == sorted(quote.start for quote in found.quotes)


def test_numbers_in_brackets_of_the_source_do_not_read_as_citations() -> None:
    page = make_passage("Travellers receive a meal allowance of EUR 46 a day [7].")
    found = answer("How much meal allowance do travellers receive a day?", [page], {"EUR 46": 0.8})
    assert found is not None
    assert markers(found.answer) == [1]
    assert page.text[found.quotes[0].start : found.quotes[0].end].endswith("[7].")


def test_a_higher_threshold_abstains() -> None:
    question = "How much meal allowance do travellers receive a day?"
    found = candidates(question, [POLICY])
    cosines = np.full(len(found), 0.8, np.float32)
    assert choose(question, [POLICY], found, cosines, min_support=0.0) is not None
    assert choose(question, [POLICY], found, cosines, min_support=1.0) is None


def test_few_candidates_and_those_that_share_words_are_among_them() -> None:
    filler = " ".join(f"The weather on the day was number {place}." for place in range(100))
    passages = [make_passage(filler, "Weather"), POLICY]
    found = candidates("How much meal allowance do travellers receive a day?", passages)
    assert len(found) <= MAX_CANDIDATES
    assert any("EUR 46" in passages[item.passage].text[item.start : item.end] for item in found)


def test_as_many_cosines_as_candidates() -> None:
    with pytest.raises(ValueError, match="candidates"):
        choose("Who?", [POLICY], candidates("Who?", [POLICY]), np.zeros(1, np.float32))
