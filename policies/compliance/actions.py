"""What is done to a value that was found. Pure: text and decisions in, text, the map of its offsets and counts out.

Where several rules meet, the strictest action wins: KEEP < GENERALISE < PSEUDONYMISE < MASK < DROP_FIELD < QUARANTINE
< DROP_DOCUMENT. The last two are about the whole document, and are not done to text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from policies.pii.findings import Finding


class Action(IntEnum):
    """By strictness."""

    KEEP = 0
    GENERALISE = 1
    PSEUDONYMISE = 2
    MASK = 3
    DROP_FIELD = 4
    QUARANTINE = 5
    DROP_DOCUMENT = 6

    @property
    def word(self) -> str:
        """The action as regimes write it."""
        return self.name.lower()

    @property
    def is_of_document(self) -> bool:
        """Whether it keeps a whole document out of the index."""
        return self >= Action.QUARANTINE


@dataclass(frozen=True, slots=True)
class RuleName:
    """Which rule of which regime, and the article that it supports."""

    regime: str
    rule: str
    article: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done to a finding, and by which rule."""

    finding: Finding
    action: Action
    by: RuleName


@dataclass(frozen=True, slots=True)
class Done:
    """One kind of thing that was done, for counting."""

    by: RuleName
    entity: str
    action: Action


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters `start` to `end` of the text before became `replacement`. `of`: what was done there, and why."""

    start: int
    end: int
    replacement: str
    of: tuple[Done, ...] = ()


class Offsets:
    """The way between the places of a text before and after its edits, which ascend and do not overlap."""

    def __init__(self, edits: Sequence[Edit] = ()) -> None:
        self._edits = tuple(edits)
        self._before = [edit.start for edit in self._edits]
        self._after: list[int] = []
        shift = 0
        for edit in self._edits:
            self._after.append(edit.start + shift)
            shift += len(edit.replacement) - (edit.end - edit.start)

    def after(self, place: int) -> int:
        """Give where a place of the text before is now: within what was replaced, where that begins."""
        at = bisect_right(self._before, place) - 1
        if at < 0:
            return place
        edit = self._edits[at]
        if place < edit.end:
            return self._after[at]
        return place - edit.end + self._after[at] + len(edit.replacement)

    def before(self, place: int, ends: bool = False) -> int:
        """Give where a place was. Within a replacement: where the replaced began, or with `ends`, where it ended."""
        at = bisect_right(self._after, place - 1 if ends else place) - 1
        if at < 0:
            return place
        edit, begins = self._edits[at], self._after[at]
        if place < begins + len(edit.replacement) or (ends and place <= begins + len(edit.replacement)):
            return edit.end if ends else edit.start
        return place - begins - len(edit.replacement) + edit.end


@dataclass(frozen=True, slots=True)
class Screened:
    """A text after the actions. `edits` ascend and are in places of the text before."""

    text: str
    edits: tuple[Edit, ...] = ()

    @property
    def counts(self) -> Counter[Done]:
        """How often each thing was done."""
        return Counter(done for edit in self.edits for done in edit.of)

    @property
    def offsets(self) -> Offsets:
        """The way between its places and those of the text before."""
        return Offsets(self.edits)


Pseudonym = Callable[[str, str], str]
"""Gives the pseudonym of an entity's value: ten letters, the same for the same value."""


def apply(text: str, decisions: Iterable[Decision], pseudonym: Pseudonym) -> Screened:
    """Do what was decided, but for what is about whole documents: that is masked here. Linear in the text."""
    spans = [span for decision in decisions if (span := _span(text, decision, pseudonym)) is not None]
    if not spans:
        return Screened(text)
    edits = _joined(sorted(spans, key=lambda span: (span.start, span.end)))
    parts, position = [], 0
    for edit in edits:
        parts += [text[position : edit.start], edit.replacement]
        position = edit.end
    return Screened("".join([*parts, text[position:]]), edits)


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    replacement: str
    by: Decision

    @property
    def done(self) -> Done:
        return Done(self.by.by, self.by.finding.entity, self.by.action)


def _span(text: str, decision: Decision, pseudonym: Pseudonym) -> _Span | None:
    found, action = decision.finding, decision.action
    value = text[found.start : found.end]
    if action is Action.KEEP or not value:
        return None
    if action is Action.DROP_FIELD:
        return _Span(*_field(text, found.start, found.end), "", decision)
    if action is Action.GENERALISE:
        general = generalised(found.entity, value)
        return None if general == value else _Span(found.start, found.end, general, decision)
    if action is Action.PSEUDONYMISE:
        made = f"[{found.entity}:{pseudonym(found.entity, value)}]"
        return _Span(found.start, found.end, made, decision)
    return _Span(found.start, found.end, masked(found.entity), decision)


def masked(entity: str) -> str:
    """What stands in a masked value's place: what it was, and nothing of it."""
    return f"[{entity}]"


def _joined(spans: Sequence[_Span]) -> tuple[Edit, ...]:
    """Make one edit of spans that overlap: that of the strictest, over all that any of them takes."""
    edits: list[Edit] = []
    strictest = Action.KEEP
    for span in spans:
        if edits and span.start < edits[-1].end:
            last = edits[-1]
            text = span.replacement if span.by.action > strictest else last.replacement
            edits[-1] = Edit(last.start, max(last.end, span.end), text, (*last.of, span.done))
            strictest = max(strictest, span.by.action)
        else:
            edits.append(Edit(span.start, span.end, span.replacement, (span.done,)))
            strictest = span.by.action
    return tuple(edits)


# ---- dropping a field

_LABEL = re.compile(r"[ \t]*(?:[-*\u2022]\s+)?(?:\*\*)?[^\W\d_][\w ()/.,'#&*-]{0,60}?\s*[:=]")
_LONG_LINE = 500


def _field(text: str, start: int, end: int) -> tuple[int, int]:
    """Give the labelled line or the table's cell that a value stands in; else the value's own place."""
    begins = text.rfind("\n", 0, start) + 1
    ends = text.find("\n", end)
    ends = len(text) if ends < 0 else ends
    if ends - begins > _LONG_LINE:
        return start, end
    line = text[begins:ends]
    mark = "|" if line.count("|") >= 2 else "\t" if "\t" in line else None
    if mark is not None:
        cell = text.rfind(mark, begins, start) + 1 or begins
        until = text.find(mark, end, ends)
        return max(cell, begins), ends if until < 0 else until
    label = _LABEL.match(line)
    if label is not None and begins + label.end() <= start:
        return begins, ends
    return start, end


# ---- generalising

RESTRICTED_ZIP3 = frozenset(
    "036 059 063 102 203 205 369 556 692 790 821 823 830 831 878 879 884 890 893".split()  # noqa: SIM905
)
"""Areas of the first three digits in which at most 20,000 people live (45 CFR 164.514(b)(2)(i)(B)).

The lists made of the censuses of 2000 and of 2010 differ; what stands in either is here. What a newer census adds is
the operator's to mask.
"""
MAX_SAID_AGE = 89
_YEAR = re.compile(r"(?<!\d)(?:1[6-9]|20)\d\d(?!\d)")
_ZIP = re.compile(r"(?<!\d)(\d{3})\d{2}(?:[- ]?\d{4})?(?!\d)")
_NUMBER = re.compile(r"\d+")


def generalised(entity: str, value: str) -> str:
    """Give what of a value may stay: a date's year, a ZIP code's first three digits, an age up to 89.

    What cannot be made general is masked. 45 CFR 164.514(b)(2)(i)(B) and (C).
    """
    if entity == "DATE_TIME":
        years = set(_YEAR.findall(value))
        return years.pop() if len(years) == 1 else masked(entity)
    if entity == "ZIP_CODE":
        found = _ZIP.search(value)
        if found is None:
            return masked(entity)
        return "000" if found[1] in RESTRICTED_ZIP3 else found[1]
    if entity == "AGE":
        if _NUMBER.search(value) is None:
            return masked(entity)
        return _NUMBER.sub(lambda age: "90+" if int(age.group()[:9]) > MAX_SAID_AGE else age.group(), value)
    return masked(entity)
