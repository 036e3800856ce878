"""From a document's text to passages whose boundaries follow its structure and stay put under edits.

The text is seen as units (headings, sentences, table rows, lines of code). Every heading starts a passage; a section
that is too large is cut at its strongest boundary until the parts fit: paragraphs before sentences before words, and
among equals by a hash of the unit that follows. Then tiny parts join a neighbour. No decision reaches further than the
few units around it, so a changed sentence changes the passage it stands in and at most one more. Packing units greedily
from the start, as splitters commonly do, would move every later boundary of the section.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from zlib import crc32

from index.document import Chunk, Extracted
from index.settings import ChunkingSettings
from ingest.cleaning import MAX_MARKS, plain_heading, without_closing_marker

CHUNKER_VERSION = 1
"""Part of a chunk's identity: raise it when the same text would be cut differently."""

_SPECIAL_TOKENS = 2
_LONG_WORD = 48
"""Characters of a run without white space after which it may be cut, as a last resort."""
_CACHED_WORDS = 500_000

# Strength of the boundary before a unit, weakest first: stronger boundaries are cut first.
_GLUED, _WORD, _SENTENCE, _LINE, _PARAGRAPH, _HEADING = range(6)
_DEEPEST = 6

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(?=\S)")
_SETEXT = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")
_NEW_LINE = re.compile(r"\s*([-*+•|>]|\d{1,3}[.)]|```|~~~|\S{1,40}: )\s*")
_SENTENCE_END = re.compile(r"[.!?…](?:[\"'”’)\]*_]{0,3})[ \t]+(?=[\"'“‘(\[*_]{0,3}[^\W_a-z])|[。！？]+")
_WORD_PIECE = re.compile(rf"\s*\S{{1,{_LONG_WORD}}}")


@dataclass(frozen=True, slots=True)
class _Section:
    """A heading with its place in the outline. The text before the first heading has level 0."""

    level: int
    title: str
    parent: _Section | None

    @property
    def path(self) -> tuple[str, ...]:
        above = self.parent.path if self.parent else ()
        return (*above, self.title) if self.title else above


@dataclass(slots=True)
class _Unit:
    """Characters `[start, end)` that stay together; `strength` is that of the boundary before it."""

    start: int
    end: int
    strength: int
    section: _Section
    heading: bool = False
    tokens: int = 0


class Chunker:
    """Splits documents into passages of at most `max_tokens` tokens of the embedding model.

    The limit holds for what is embedded: the title, the headings above the passage and the passage (title and headings
    count for at most a quarter of it each; beyond that the innermost headings stay). Tokens are counted word by word,
    which is exact where the tokenizer splits at white space first, as BERT's does.
    """

    def __init__(self, settings: ChunkingSettings, tokenizer_file: Path) -> None:
        from tokenizers import Tokenizer

        self._limit = settings.max_tokens
        self._overlap = min(settings.overlap_tokens, settings.max_tokens // 4)
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._words: dict[str, int] = {}

    def split(self, extracted: Extracted) -> tuple[Chunk, ...]:
        """Cut the text into passages: `text == extracted.text[start:end]`, in order, nothing but white space left out.

        A passage's `headings` are those above it, without the ones it holds itself, and without a first heading that
        repeats the document's title. Its `page` is the one it starts on. Time is linear in the text.
        """
        text = extracted.text
        units = self._units(text, extracted.markdown)
        if not units:
            return ()
        budget = self._limit - _SPECIAL_TOKENS - min(self.count(extracted.title or ""), self._limit // 4)
        groups = _group(units, text, _Sizes(self, budget - self._overlap, extracted.title))
        return tuple(self._chunks(text, units, groups, extracted))

    def count(self, text: str) -> int:
        """Tokens of `text`, without the special ones."""
        return self._count_all([text])[0]

    def headings(self, section: _Section, title: str | None) -> tuple[str, ...]:
        """The path of a section, shortened from the outside until it takes at most a quarter of the limit."""
        path = section.path
        if path and title and path[0].casefold() == title.casefold():
            path = path[1:]
        while path and self.count(" > ".join(path)) > self._limit // 4:
            path = path[1:]
        return path

    def _units(self, text: str, markdown: bool) -> list[_Unit]:
        units = [unit for unit in _outline(text, markdown) if text[unit.start : unit.end].strip()]
        # A unit must fit beside any title, headings and overlap.
        most = max(self._limit // 2 - 2 * _SPECIAL_TOKENS - self._overlap, 4)
        fine: list[_Unit] = []
        longest = most * 16  # characters: what is longer is cut without counting
        short = [unit for unit in units if unit.end - unit.start <= longest]
        for unit, tokens in zip(short, self._count_all([text[u.start : u.end] for u in short]), strict=True):
            unit.tokens = tokens
        for unit in units:
            if unit.end - unit.start <= longest and unit.tokens <= most:
                fine.append(unit)
            else:
                fine += _pieces(unit, text, most)
        uncounted = [unit for unit in fine if not unit.tokens]  # the pieces
        for unit, tokens in zip(uncounted, self._count_all([text[u.start : u.end] for u in uncounted]), strict=True):
            unit.tokens = tokens
        return fine

    def _count_all(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text: the sum over its words, each counted once per process."""
        # A long word counts as the pieces it may be cut into: WordPiece sees one unknown token in it.
        split = [
            text.split() if len(text) <= _LONG_WORD else [p for w in text.split() for p in _word_pieces(w)]
            for text in texts
        ]
        if len(self._words) > _CACHED_WORDS:
            self._words.clear()
        known = self._words
        unknown = list({word for words in split for word in words if word not in known})
        for begin in range(0, len(unknown), 10_000):
            batch = unknown[begin : begin + 10_000]
            encoded = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            known.update(zip(batch, map(len, encoded), strict=True))
        return [sum(map(known.__getitem__, words)) for words in split]

    def _chunks(
        self, text: str, units: Sequence[_Unit], groups: Iterable[tuple[int, int]], extracted: Extracted
    ) -> Iterator[Chunk]:
        page_starts = [page.start for page in extracted.pages]
        for position, (first, last) in enumerate(groups):
            begin = self._overlapped(units, first)
            start, end = _trimmed(text, units[begin].start, units[last].end)
            page = bisect_right(page_starts, start) - 1
            yield Chunk(
                position=position,
                text=text[start:end],
                start=start,
                end=end,
                page=extracted.pages[page].number if page >= 0 else None,
                headings=self.headings(_above(units[begin]), extracted.title),
            )

    def _overlapped(self, units: Sequence[_Unit], first: int) -> int:
        """The unit at which a passage starts that repeats the end of the one before it, within its section."""
        left, begin = self._overlap, first
        while begin > 0 and units[begin].strength < _HEADING and units[begin - 1].tokens <= left:
            begin -= 1
            left -= units[begin].tokens
        return begin


class _Sizes:
    """How many tokens a passage may have, by the headings above it."""

    def __init__(self, chunker: Chunker, budget: int, title: str | None) -> None:
        self._chunker = chunker
        self._budget = budget
        self._title = title
        self._rooms: dict[int, int] = {}

    def room(self, section: _Section) -> int:
        """Tokens left for a passage that stands under `section`."""
        room = self._rooms.get(id(section))
        if room is None:
            path = self._chunker.headings(section, self._title)
            room = self._budget - (self._chunker.count(" > ".join(path)) if path else 0)
            self._rooms[id(section)] = room
        return room

    @property
    def tiny(self) -> int:
        """A section below this does not stand alone where a sibling has room."""
        return self._budget // 4

    @property
    def scrap(self) -> int:
        """What a cut leaves below this goes back to a neighbour; a higher share would let edits reach further."""
        return self._budget * 3 // 20


def _above(unit: _Unit) -> _Section:
    """The section whose heading stands above a passage that begins with `unit`."""
    return unit.section.parent if unit.heading and unit.section.parent else unit.section


def _group(units: Sequence[_Unit], text: str, sizes: _Sizes) -> list[tuple[int, int]]:
    """Cut at every heading, then what is too large at its strongest boundary, then join what is tiny.

    Whether a boundary becomes a cut depends only on the text up to the next stronger boundary on either side, and no
    further than a passage's size. Returns the first and last unit of each group.
    """
    total = [0, *accumulate(unit.tokens for unit in units)]
    weakest_first = _by_strength(units, text)
    cuts = [0, *(index for index in range(1, len(units)) if units[index].strength >= _HEADING), len(units)]
    for index in reversed(weakest_first):
        after = bisect_right(cuts, index)
        left, right = cuts[after - 1], cuts[after]
        if left != index and total[right] - total[left] > sizes.room(_above(units[left])):
            cuts.insert(after, index)
    first, last = list(range(len(units))), list(range(len(units)))  # of each group, kept at its two ends
    for left, right in pairwise(cuts):
        first[right - 1], last[left] = left, right - 1
    inner = set(cuts[1:-1])
    for index in weakest_first:
        left, right = first[index - 1], last[index]
        if index in inner and _belong(units, total, (left, index, right + 1), sizes):
            first[right], last[left] = left, right
    groups, begin = [], 0
    while begin < len(units):
        groups.append((begin, last[begin]))
        begin = last[begin] + 1
    return groups


def _belong(units: Sequence[_Unit], total: Sequence[int], bounds: tuple[int, int, int], sizes: _Sizes) -> bool:
    """Whether two neighbouring groups, `[left, middle)` and `[middle, right)`, become one: one of them is tiny."""
    left, middle, right = bounds
    if total[right] - total[left] > sizes.room(_above(units[left])):
        return False
    smaller = min(total[middle] - total[left], total[right] - total[middle])
    if units[middle].strength < _HEADING:
        return smaller < sizes.scrap
    return smaller < sizes.tiny and _may_join(units[left].section, units[middle].section)


def _may_join(left: _Section, right: _Section) -> bool:
    """Siblings, or a section's own text and its first subsection."""
    return right.parent is left or right.parent is left.parent


def _by_strength(units: Sequence[_Unit], text: str) -> list[int]:
    """The boundaries (by the unit after each), weakest first.

    The order among equals comes from a hash of how the unit begins, then of all of it: an edit further back in the
    unit moves nothing, and rows that all begin alike still differ.
    """
    contents = [text[unit.start : unit.end].strip() for unit in units]
    hashes = [_hash(content) for content in contents]
    keys = [
        # The last two tell apart units that repeat word for word; without them a cut would shave off one at a time.
        (units[index].strength, _hash(contents[index][:24]), hashes[index], hashes[index - 1], _hash(str(index)), index)
        for index in range(1, len(units))
    ]
    keys.sort()
    return [key[-1] for key in keys]


def _word_pieces(word: str) -> Sequence[str]:
    return (word,) if len(word) <= _LONG_WORD else _WORD_PIECE.findall(word)


def _hash(text: str) -> int:
    return crc32(text.encode("utf-8", "replace"))


# ---- units ----


def _outline(text: str, markdown: bool) -> Iterator[_Unit]:
    """Units in order, covering the text: headings, lines of code, table rows, sentences."""
    section = _Section(0, "", None)
    strength, glued = _PARAGRAPH, False
    fence: str | None = None
    lines = _lines(text)
    for number, (start, end) in enumerate(lines):
        line = text[start:end]
        if not line.strip():
            strength = max(strength, _PARAGRAPH if fence is None else _LINE)
            continue
        marker = _FENCE.match(line) if markdown else None
        if fence is not None:
            yield _Unit(start, end, min(strength, _LINE), section)
            if marker and marker.group(1).startswith(fence) and not line[marker.end() :].strip():
                fence = None
            strength = _LINE if fence is not None else _PARAGRAPH
            continue
        found = None if marker or not markdown else _heading(text, lines, number)
        if found:
            level, title = found
            section = _Section(level, title, _parent(section, level))
            yield _Unit(start, end, _HEADING + _DEEPEST - level, section, heading=True)
            glued = True
            continue
        if glued and markdown and _SETEXT.match(line) and _is_underline(text, lines, number):
            yield _Unit(start, end, _GLUED, section)
            continue
        if marker:
            fence = marker.group(1)
        before = _GLUED if glued else max(strength, _line_strength(text, start, line))
        glued = False
        yield from _sentences(text, start, end, before, section, whole=bool(marker) or line.lstrip().startswith("|"))
        strength = _WORD


def _lines(text: str) -> list[tuple[int, int]]:
    lines, start = [], 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        lines.append((start, end))
        start = end
    return lines


def _heading(text: str, lines: Sequence[tuple[int, int]], number: int) -> tuple[int, str] | None:
    line = text[slice(*lines[number])].rstrip("\r\n")
    match = _ATX.match(line)
    if match:
        return len(match.group(1)), _plain(without_closing_marker(line[match.end() :]))
    if number + 1 < len(lines) and len(line) <= 200 and _is_underline(text, lines, number + 1):
        return (1 if "=" in text[slice(*lines[number + 1])] else 2), _plain(line)
    return None


def _is_underline(text: str, lines: Sequence[tuple[int, int]], number: int) -> bool:
    """Whether a line of `=` or `-` underlines the single line above it (a paragraph of several is none)."""
    if not _SETEXT.match(text[slice(*lines[number])].rstrip("\r\n")) or number == 0:
        return False
    above = text[slice(*lines[number - 1])]
    alone = number < 2 or not text[slice(*lines[number - 2])].strip()
    return alone and bool(above.strip()) and not re.match(r"\s*([-*+>|#]|\d+[.)]\s)|\s{4}", above)


def _plain(heading: str) -> str:
    return " ".join(plain_heading(heading).split())


def _parent(section: _Section, level: int) -> _Section:
    """The section that a heading of `level` belongs to, seen from the section before it."""
    above = section
    while above.level >= level and above.parent is not None:
        above = above.parent
    return above


def _line_strength(text: str, start: int, line: str) -> int:
    """A line that begins a row, an item or a new sentence is a unit; one that goes on mid-sentence is not."""
    before = text[max(0, start - 8) : start].rstrip()
    if not before or _NEW_LINE.match(line) or line.startswith(("    ", "\t")):
        return _LINE
    return _SENTENCE if before[-1] in '.!?…:;。！？"”)' else _WORD


def _sentences(text: str, start: int, end: int, strength: int, section: _Section, whole: bool) -> Iterator[_Unit]:
    begin = start
    if not whole:
        for match in _SENTENCE_END.finditer(text, start, end):
            if match.end() < end and not text[match.end()].isspace():
                yield _Unit(begin, match.end(), strength, section)
                begin, strength = match.end(), _SENTENCE
    yield _Unit(begin, end, strength, section)


def _pieces(unit: _Unit, text: str, most: int) -> Iterator[_Unit]:
    """Cut a unit that is too large: phrases of a few words, their ends told by the words themselves."""
    begin, strength, words = unit.start, unit.strength, 0
    position = unit.start
    while position < unit.end:
        match = _WORD_PIECE.match(text, position, unit.end)
        stop = match.end() if match else unit.end
        cut_inside = stop < unit.end and not text[stop].isspace()
        if cut_inside:
            stop = _whole_character(text, stop, unit.end)
        word = text[position:stop].strip()
        words += 1
        if stop < unit.end and (cut_inside or words >= most // 6 or (words > 2 and _ends_phrase(word))):
            yield _Unit(begin, stop, strength, unit.section, heading=unit.heading and begin == unit.start)
            begin, strength, words = stop, _GLUED if cut_inside else _WORD, 0
        position = stop
    yield _Unit(begin, unit.end, strength, unit.section, heading=unit.heading and begin == unit.start)


def _ends_phrase(word: str) -> bool:
    return word[-1:] in ",;:—|" or _hash(word) % 8 == 0


def _whole_character(text: str, position: int, end: int) -> int:
    """Move a cut behind the combining marks, joiners and variation selectors that belong to the character before it."""
    end = min(end, position + MAX_MARKS)  # no character has more: a run of them must not make a passage of any size
    while position < end and (
        unicodedata.combining(text[position])
        or text[position] in "\u200d\ufe0e\ufe0f"
        or text[position - 1] == "\u200d"
    ):
        position += 1
    return position


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    passage = text[start:end]
    return start + len(passage) - len(passage.lstrip()), end - (len(passage) - len(passage.rstrip()))
