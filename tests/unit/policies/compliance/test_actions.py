"""What is done to values: each action, their order, and the way between places before and after."""

from __future__ import annotations

import random

import pytest

from policies.compliance.actions import Action, Decision, Edit, Offsets, RuleName, apply, generalised
from policies.pii.findings import Finding

BY = RuleName("r", "x", "Art. 1")


def done(text: str, *parts: tuple[str, str, Action]) -> str:
    """Apply actions to parts of a text, found by their words."""
    decisions = []
    for words, entity, action in parts:
        start = text.index(words)
        decisions.append(Decision(Finding(entity, start, start + len(words), 0.9, "t"), action, BY))
    return apply(text, decisions, lambda _, value: f"p{len(value)}").text


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action.KEEP, "Write to ada@x.org, please."),
        (Action.MASK, "Write to [EMAIL_ADDRESS], please."),
        (Action.PSEUDONYMISE, "Write to [EMAIL_ADDRESS:p9], please."),
        (Action.GENERALISE, "Write to [EMAIL_ADDRESS], please."),
        (Action.DROP_FIELD, "Write to , please."),
    ],
)
def test_each_action_on_a_value(action, expected):
    assert done("Write to ada@x.org, please.", ("ada@x.org", "EMAIL_ADDRESS", action)) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("Name: Ada\nSSN: 123-45-6789\nEnd", "123-45-6789", "Name: Ada\n\nEnd"),
        ("- **Phone**: 555 0100\nEnd", "555 0100", "\nEnd"),
        ("| Ada | 123-45-6789 | ok |", "123-45-6789", "| Ada || ok |"),
        ("Ada\t123-45-6789\tok", "123-45-6789", "Ada\t\tok"),
        ("She wrote 123-45-6789 down.", "123-45-6789", "She wrote  down."),
    ],
)
def test_a_field_goes_with_its_label_or_its_cell(text, value, expected):
    assert done(text, (value, "US_SSN", Action.DROP_FIELD)) == expected


@pytest.mark.parametrize(
    ("entity", "value", "expected"),
    [
        ("DATE_TIME", "3 March 1987", "1987"),
        ("DATE_TIME", "1987-03-03", "1987"),
        ("DATE_TIME", "3 March", "[DATE_TIME]"),
        ("DATE_TIME", "1987 to 1989", "[DATE_TIME]"),
        ("ZIP_CODE", "94103", "941"),
        ("ZIP_CODE", "94103-1234", "941"),
        ("ZIP_CODE", "03601", "000"),
        ("ZIP_CODE", "20301", "000"),
        ("ZIP_CODE", "89301", "000"),
        ("ZIP_CODE", "SW1A 1AA", "[ZIP_CODE]"),
        ("AGE", "89 years old", "89 years old"),
        ("AGE", "90 years old", "90+ years old"),
        ("AGE", "aged 104", "aged 90+"),
        ("AGE", "ninety-three", "[AGE]"),
        ("PERSON", "Ada Lovelace", "[PERSON]"),
    ],
)
def test_what_of_a_value_may_stay(entity, value, expected):
    assert generalised(entity, value) == expected


def test_the_strictest_of_actions_that_meet_wins_over_all_that_any_takes():
    text = "SSN: 123-45-6789, Ada\nrest"
    label, name = ("123-45-6789", "US_SSN", Action.DROP_FIELD), ("Ada", "PERSON", Action.MASK)
    assert done(text, label, name) == done(text, name, label) == "\nrest"


def test_places_go_there_and_back_for_any_edits():
    chance = random.Random(5)
    for _ in range(300):
        before = "".join(chance.choice("abcdefghij") for _ in range(60))
        cuts = sorted(chance.sample(range(61), 2 * chance.randint(1, 5)))
        edits = [Edit(a, b, "X" * chance.randint(0, 6)) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        parts, at = [], 0
        for edit in edits:
            parts += [before[at : edit.start], edit.replacement]
            at = edit.end
        after, offsets = "".join([*parts, before[at:]]), Offsets(edits)
        for place in range(len(before)):
            if not any(edit.start <= place < edit.end for edit in edits):
                moved = offsets.after(place)
                assert after[moved] == before[place]
                assert offsets.before(moved) == place
                assert offsets.before(moved + 1, ends=True) == place + 1
        assert offsets.after(len(before)) == len(after)
