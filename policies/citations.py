"""Whether a model-written answer's `[n]` hold: each must point at a passage that says what its sentence says.

A mark is checked by words: the words and the numbers of what stands before it must be in the passage. That
is no proof of meaning; it finds marks that point nowhere, at the wrong passage, or at a changed number. A mark
that does not hold is taken out, so that a reader can trust those which are left. Quotes are verbatim.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MIN_SUPPORT = 0.34
"""The share of a statement's words that its passage must hold: about every third, since a model paraphrases."""
MAX_RANGE = 50
MAX_QUOTE_CHARS = 600
LONG_CHARS = 2_000

_NUMBERS = r"\^?\d{1,4}(?:\s*[-\u2013]\s*\d{1,4})?"
_LIST = rf"{_NUMBERS}(?:\s*[,;]\s*{_NUMBERS})*"
_MARK = re.compile(rf"\[\s*({_LIST})\s*\](\([^()\s]*\))?|\u3010\s*({_LIST})\s*(?:\u2020[^\u3011\n]*)?\u3011")
_MARKS = re.compile(rf"(?:{_MARK.pattern})(?:[ \t]*,?[ \t]*(?:{_MARK.pattern}))*")
# A definition would turn every mark of that number into a link to an address which the model chose.
_DEFINITION = re.compile(r"^[ ]{0,3}\[\^?\d{1,4}\]:[^\n]*(?:\n|\Z)", re.MULTILINE)
_CODE = re.compile(r"(?P<fence>`{3,}|~{3,}).*?(?:(?P=fence)|\Z)|(?P<tick>`+)[^\n]*?[^`\n](?P=tick)(?!`)", re.DOTALL)
_INDEXED = re.compile(r"(?:(?:^|[^\w.])[a-z]|\w*_\w+|\w\([^().!?\n]*\))$")
_ASSIGNED = re.compile(r"\s?=\s?[^=\s]")
_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"')\u201d\u2019]*(?=\s|[\[\u3010]|\Z)|[\u3002\uff01\uff1f]+|\n+")
_ABBREVIATION = re.compile(
    r"(?:^|\W)(?:e\.g|i\.e|cf|vs|approx|dr|mr|mrs|ms|prof|[a-z])$|(?:^|\n)[ \t]*\d+$", re.IGNORECASE
)
_BEFORE_NUMBER = re.compile(r"(?:^|\W)(?:no|nr|art|sec|fig|pp?|vol)$", re.IGNORECASE)
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|\d+(?:[.,:/]\d+)*|[^\W\d_]+", re.UNICODE)
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_COMMON_WORDS = """
    a about according after all also an and any are as at be been but by can could did do does for from had has have
    he her his how i if in into is it its may more most must no not of on one only or other our out she should so
    some such than that the their them then there these they this those to under up was we were what when where
    which while who will with would you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage that was put before the model as number 1, 2, ... in this order.

    `[start, end)` is its place in the document's extracted text, in characters, so `end - start == len(text)`.
    """

    chunk_id: str
    document_id: str
    text: str
    start: int
    end: int
    title: str = ""
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """`[n]` in the answer. `quote` is verbatim; `[start, end)` is its place in the document's extracted text.

    `evidence` is the passage's index in what `check` was given, from 0.
    """

    n: int
    evidence: int
    chunk_id: str
    document_id: str
    quote: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """An answer in which every `[n]` has its citation, numbered from 1 in order of appearance."""

    answer: str
    citations: tuple[Citation, ...]
    removed: int
    """How many marks did not hold."""


def holds(quote: str, start: int, end: int, chunk_text: str, chunk_start: int) -> bool:
    """Say whether `quote` is, character for character, what stands at `[start, end)` of the document."""
    inside = chunk_start <= start < end <= chunk_start + len(chunk_text)
    return inside and chunk_text[start - chunk_start : end - chunk_start] == quote


def markers(answer: str) -> list[int]:
    """List the numbers that an answer cites, in order. Code, and indexes such as `a[0]`, cite nothing."""
    return [number for group in _groups(answer) for number in group.numbers]


def check(answer: str, evidence: Sequence[Evidence], min_support: float = MIN_SUPPORT) -> CheckedAnswer:
    """Keep the marks that hold, take out the others, and number the citations anew.

    A passage that is cited for different statements gets a citation for each sentence of it that is quoted.
    """
    checker = CitationChecker(evidence, min_support)
    text = checker.feed(answer) + checker.finish()
    return CheckedAnswer(text, tuple(checker.citations), checker.removed)


class CitationChecker:
    """`check` for an answer that arrives in pieces: what it gives back, joined, equals what `check` gives.

    A sentence is held back until it and the marks after it are complete.
    """

    def __init__(self, evidence: Sequence[Evidence], min_support: float = MIN_SUPPORT) -> None:
        self.citations: list[Citation] = []
        self.removed = 0
        self._passages = [_Passage(item) for item in evidence]
        self._min_support = min_support
        self._pending = ""
        self._look_at = 0
        self._places: dict[tuple[int, int, int], int] = {}

    def feed(self, piece: str, before_word: bool = False) -> str:
        """Take the next piece of the answer. Returns the text that is checked by now, possibly none.

        `before_word`: whoever gives it knows that a word comes next, and not a mark, a number or code.
        """
        self._pending += piece
        if len(self._pending) < self._look_at:
            return ""
        cut = min(_safe_cut(self._pending + "a"), len(self._pending)) if before_word else _safe_cut(self._pending)
        # What grows long without a place to cut, such as a code block, is looked at ever less often: time stays linear.
        self._look_at = 0 if cut or len(self._pending) < LONG_CHARS else len(self._pending) * 9 // 8
        ready, self._pending = self._pending[:cut], self._pending[cut:]
        return self._checked(ready)

    def finish(self) -> str:
        """Return the rest, checked."""
        ready, self._pending = self._pending, ""
        return self._checked(ready)

    def _checked(self, text: str) -> str:
        text = _without_definitions(text)
        parts, position = [], 0
        for group in _groups(text):
            marks = self._marks(group)
            before = text[position : group.start]
            parts += [before if marks else before.rstrip(" \t"), marks]
            position = group.end
        return "".join([*parts, text[position:]])

    def _marks(self, group: _Group) -> str:
        found = []
        for number in dict.fromkeys(group.numbers):
            place = self._passages[number - 1].support(group, self._min_support) if self._known(number) else None
            if place is None:
                self.removed += 1
            else:
                found.append(self._number(number - 1, *place))
        return "".join(f"[{n}]" for n in dict.fromkeys(found))

    def _known(self, number: int) -> bool:
        return 1 <= number <= len(self._passages)

    def _number(self, index: int, start: int, end: int) -> int:
        known = self._places.get((index, start, end))
        if known is not None:
            return known
        passage = self._passages[index].evidence
        n = self._places[index, start, end] = len(self.citations) + 1
        quote = passage.text[start:end]
        begins = passage.start + start
        self.citations.append(
            Citation(n, index, passage.chunk_id, passage.document_id, quote, begins, begins + len(quote))
        )
        return n


class _Passage:
    """A passage, cut into sentences once."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._sentences = [
            (start, end, _words(evidence.text[start:end])) for start, end in sentence_spans(evidence.text)
        ]
        self._words = frozenset().union(*(words for _, _, words in self._sentences), _words(evidence.title))

    def support(self, group: _Group, least: float) -> tuple[int, int] | None:
        """Find the sentence that says most of one of the readings of a statement; None where no reading holds."""
        for claim in group.claims:
            words = _words(claim)
            numbers = {word for word in words if word[0].isdigit()}
            if not words or not numbers <= self._words or len(words & self._words) < least * len(words):
                continue
            shared, start, end = 0, 0, 0
            for begins, ends, found in self._sentences:
                if len(words & found) > shared:
                    shared, start, end = len(words & found), begins, ends
            if shared:
                return start, end
        return None


@dataclass(frozen=True, slots=True)
class _Group:
    """Marks that stand together, and the statements that they may be meant for, the narrowest first."""

    start: int
    end: int
    numbers: tuple[int, ...]
    claims: tuple[str, ...]


def _groups(text: str) -> Iterator[_Group]:
    code = _Code(text)
    found = [match for match in _MARKS.finditer(text) if match.start() not in code and not _is_index(text, match)]
    ends = [match.end() for match in _sentence_ends(text)] if found else []
    previous = 0
    for place, match in enumerate(found):
        follows = found[place + 1].start() if place + 1 < len(found) else len(text)
        claims = _claims(text, ends, previous, match.start(), match.end(), follows)
        yield _Group(match.start(), match.end(), tuple(_numbers(match.group())), claims)
        previous = match.end()


def _is_index(text: str, match: re.Match[str]) -> bool:
    """Say whether this is `a[0]`, `row_names[1]`, `f(x)[2]` or `rows[3] = x` rather than a mark set close to a word.

    In doubt it is a mark, since what is taken for an index stays in the answer unchecked.
    """
    before = text[max(0, match.start() - 64) : match.start()]
    if not before or not (before[-1].isalnum() or before[-1] in "_)]") or text[match.start()] != "[":
        return False
    if match.group().strip("[] ") == "0" or _INDEXED.search(before):
        return True
    return before[-1] not in ")]" and _ASSIGNED.match(text, match.end()) is not None


def _numbers(marks: str) -> Iterator[int]:
    for match in _MARK.finditer(marks):
        for item in re.split(r"[,;]", (match.group(1) or match.group(3)).replace("^", "")):
            first, *last = (int(number) for number in re.split(r"[-\u2013]", item))
            if last and 0 < last[0] - first <= MAX_RANGE:
                yield from range(first, last[0] + 1)
            else:
                yield from (first, *last)


def _claims(text: str, ends: Sequence[int], previous: int, start: int, end: int, follows: int) -> tuple[str, ...]:
    """Give the readings: what stands since the last mark, the sentence so far, and what follows a leading mark.

    `ends`: where the text's sentences end, ascending.
    """
    written = start
    while written and text[written - 1].isspace():
        written -= 1
    before = bisect_left(ends, written)
    begins = ends[before - 1] if before else 0
    sentence = _MARKS.sub(" ", text[begins:start])
    since = text[max(begins, previous) : start]
    readings = [since, sentence] if _words(since) else [sentence]
    if not _words(sentence):
        readings.append(text[end : next((match.end() + end for match in _sentence_ends(text[end:follows])), follows)])
    return tuple(dict.fromkeys(reading for reading in readings if reading.strip()))


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Cut a text into sentences `[start, end)`, without the space around them; long ones are cut at a space."""
    spans: list[tuple[int, int]] = []
    start = 0
    for end in [*(match.end() for match in _sentence_ends(text)), len(text)]:
        spans += _trimmed(text, start, end)
        start = end
    return spans


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > MAX_QUOTE_CHARS:
        space = text.rfind(" ", start + 1, start + MAX_QUOTE_CHARS)
        cut = space if space > 0 else start + MAX_QUOTE_CHARS
        yield start, cut
        start = cut + (space > 0)
    if start < end:
        yield start, end


def _sentence_ends(text: str) -> Iterator[re.Match[str]]:
    for match in _SENTENCE_END.finditer(text):
        if match.group() == ".":
            before, after = text[max(0, match.start() - 8) : match.start()], text[match.end() : match.end() + 2]
            if _ABBREVIATION.search(before) or (after[1:].isdigit() and _BEFORE_NUMBER.search(before)):
                continue
        elif match.group() == "\n" and text[match.end() : match.end() + 1].islower():
            continue  # a line that was broken to fit a page
        yield match


def _words(text: str) -> frozenset[str]:
    """Take the words that carry meaning, each cut to six letters so that endings do not matter; numbers whole."""
    found = set()
    for word in _WORD.findall(re.sub(r"(?m)^\s*\d+[.)]\s", " ", text).casefold()):
        if _WIDE.match(word):
            found |= {word[place : place + 2] for place in range(max(1, len(word) - 1))}
        elif word[0].isdigit():
            found.add(re.sub(r"(?<=\d),(?=\d{3})", "", word).rstrip(".,:/"))
        elif word not in _COMMON and len(word) > 1:
            found.add(word[:6])
    return frozenset(found)


def _without_definitions(text: str) -> str:
    code = _Code(text)
    return _DEFINITION.sub(lambda match: match.group() if match.start() in code else "", text)


class _Code:
    """Where code stands in a text; `place in code`."""

    def __init__(self, text: str) -> None:
        spans = [match.span() for match in _CODE.finditer(text)]
        self._starts, self._ends = [start for start, _ in spans], [end for _, end in spans]

    def __contains__(self, place: int) -> bool:
        before = bisect_right(self._starts, place)
        return before > 0 and place < self._ends[before - 1]


def _safe_cut(text: str) -> int:
    """Find the end of the last sentence that nothing after it can change, or 0."""
    fence = len(text)
    for match in reversed(list(_sentence_ends(text))):
        cut = match.end()
        while cut < len(text) and text[cut].isspace():
            cut += 1
        # A mark that follows belongs to the sentence; a number may be a list's; code must be whole.
        if cut >= fence or text[cut] in "[\u3010`~" or text[cut].isdigit():
            continue
        head = text[:cut]
        if "`" in head[head.rfind("\n") + 1 :]:
            continue
        fence = _open_fence(head)
        if fence == cut:
            return cut
    return 0


def _open_fence(text: str) -> int:
    """Find where the fenced code begins that the text ends in; its length where it ends in none."""
    blocks = list(_CODE.finditer(text))
    opened = bool(blocks) and blocks[-1].group("fence") is not None and blocks[-1].end() == len(text)
    return blocks[-1].start() if opened else len(text)
