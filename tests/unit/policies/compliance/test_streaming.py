"""No part of a value leaves a stream, wherever its text is cut into pieces; and what leaves is always the same."""

from __future__ import annotations

import random
import re
import tracemalloc

import pytest

from policies.compliance.actions import Action, Decision, RuleName, Screened, apply
from policies.compliance.streaming import LONGEST, TOO_LONG, Window
from policies.pii.detector import Detector
from policies.pii.findings import NATIONAL_IDS, Finding

BY = RuleName("r", "x", "Art. 1")
LOOKED_FOR = frozenset({"CREDIT_CARD", "IBAN_CODE", "EMAIL_ADDRESS", "API_KEY", "PRIVATE_KEY"}) | NATIONAL_IDS
DETECTOR = Detector(LOOKED_FOR)


def screen(text: str) -> Screened:
    return apply(text, [Decision(f, Action.MASK, BY) for f in DETECTOR.find(text)], lambda *_: "p")


def streamed(text: str, *cuts: int) -> str:
    window, places = Window(screen), [0, *sorted(cuts), len(text)]
    left = [window.feed(text[a:b]) for a, b in zip(places, places[1:], strict=False)]
    return "".join([*left, window.finish()])


def luhn(digits: str) -> str:
    doubled = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if place % 2 == 0 else 1)
        doubled += number - 9 if number > 9 else number
    return digits + str((10 - doubled % 10) % 10)


def seeded(chance: random.Random) -> str:
    """A value with a check digit, a shape of its own, or both."""
    kind = chance.randrange(4)
    if kind == 0:
        number = luhn("4" + "".join(chance.choices("0123456789", k=14)))
        return number if chance.random() < 0.5 else " ".join(number[i : i + 4] for i in range(0, 16, 4))
    if kind == 1:
        account = "".join(chance.choices("0123456789", k=18))
        check = 98 - int(account + "131400") % 97
        iban = f"DE{check:02d}{account}"
        return iban if chance.random() < 0.5 else " ".join(iban[i : i + 4] for i in range(0, len(iban), 4))
    if kind == 2:
        word = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=8))
        return f"{word}.{chance.randrange(10, 99)}@mail.example.com"
    return "AKIA" + "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))


BEFORE = "The heron counts its fish at noon. Payments go as agreed with number "
AFTER = " as was said before. Nothing else was written on that page by anybody."


def test_a_thousand_values_leak_at_no_cut():
    """Each value is cut at every place, and no run of its characters that tells it leaves."""
    chance, leaked, changed = random.Random(11), [], []
    for number in range(1_000):
        value = seeded(chance)
        text = BEFORE + value + AFTER
        whole = streamed(text)
        core = re.sub(r"\s", "", value)
        if core in re.sub(r"\s", "", whole):
            leaked.append(number)
        start = len(BEFORE)
        for cut in range(start - 1, start + len(value) + 2):
            window = Window(screen)
            early = window.feed(text[:cut])
            if re.search(re.escape(value[:6]), early):
                leaked.append(number)
            if early + window.feed(text[cut:]) + window.finish() != whole:
                changed.append((number, cut))
    assert (leaked, changed) == ([], [])


def test_what_leaves_does_not_depend_on_the_pieces():
    chance = random.Random(3)
    words = [
        "the",
        "count",
        "of",
        "herons",
        "rose.",
        "It",
        "fell",
        "again,",
        "said",
        "Ada.",
        "12",
        "of",
        "40",
        "(see",
        "[1]).",
        "Dr.",
        "Who?",
        "yes!",
        "-----BEGIN",
        "x",
    ]
    for _ in range(60):
        parts = [chance.choice([*words, seeded(chance), "\n"]) for _ in range(chance.randint(5, 120))]
        text = " ".join(parts)
        whole = streamed(text)
        assert streamed(text, *range(1, len(text))) == whole
        assert streamed(text, *chance.sample(range(len(text)), min(9, len(text)))) == whole


def test_a_text_without_values_leaves_as_it_came():
    text = "The heron counts its fish. It does so at noon, and writes it down [1]. " * 30
    assert streamed(text) == streamed(text, *range(0, len(text), 7)) == text


def test_a_plain_sentence_leaves_when_the_next_one_begins():
    window = Window(screen)
    assert window.feed("The heron counts its fish. ") == ""
    assert window.feed("I") == "The heron counts its fish. "


def test_a_key_that_never_ends_is_withheld_and_memory_stays_bounded():
    window = Window(screen)
    left = [window.feed("Here it is:\n-----BEGIN RSA PRIVATE KEY-----\n")]
    tracemalloc.start()
    for _ in range(3_000):
        left.append(window.feed("MIIEowIBAAKCAQEAx7Jq\n" * 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    shown = "".join([*left, window.finish()])
    assert "MIIE" not in shown
    assert TOO_LONG in shown
    assert peak < 40 * LONGEST


def test_what_stands_behind_a_key_that_ended_leaves():
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEAx7Jq\n" * 600 + "-----END RSA PRIVATE KEY-----\n"
    shown = streamed(f"Before it.\n{key}And this is behind it.")
    assert "MIIE" not in shown
    assert shown.endswith("And this is behind it.")


def test_a_window_that_broke_gives_nothing_any_more():
    def broken(text: str) -> Screened:
        raise ValueError("no")

    window = Window(broken)
    with pytest.raises(ValueError, match="no"):
        window.feed("a word ends here. Then " * 10)
    with pytest.raises(RuntimeError):
        window.feed("x " * 400)
    with pytest.raises(RuntimeError):
        window.finish()


def test_a_name_is_masked_with_the_label_of_an_earlier_sentence():
    def by_label(text: str) -> Screened:
        found = [Finding("PASSWORD", m.start(1), m.end(1), 1, "t") for m in re.finditer(r"word is\s.*?(\bzx\w+)", text)]
        return apply(text, [Decision(f, Action.MASK, BY) for f in found], lambda *_: "p")

    window = Window(by_label)
    text = "The word is as follows. It reads zxheron today."
    assert window.feed(text) + window.finish() == "The word is as follows. It reads [PASSWORD] today."
