"""The quotable units of a passage: sentences of prose, list items, table rows and rows of `column: value`.

Every unit is a place `[start, end)` in the passage, so that a quote is the passage's own text, character for
character. Headings, rules, fences and table heads are no units; a unit knows the lines that introduce it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

MAX_UNIT_CHARS = 400
"""Longer units are cut at a clause's end, or at a space where there is none."""

_HEADING = re.compile(r"[ ]{0,3}#{1,6}(?:[ \t]|$)")
_UNDERLINE = re.compile(r"[ ]{0,3}(?:=+|-{2,})[ \t]*$")
_RULE = re.compile(r"[ \t]*(?:[-*_=~\u2014][ \t]*){3,}$")
_FENCE = re.compile(r"[ \t]*(?:`{3,}|~{3,})")
_ROW = re.compile(r"[ \t]*\|.*\|[ \t]*$")
_ROW_RULE = re.compile(r"[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)+(?:[ \t]*:?-+:?)?[ \t]*$")
_RECORD = re.compile(r"[ \t]*[^:;\n]{1,60}: [^;\n]+(?:; [^:;\n]{1,60}: [^;\n]+)+;?[ \t]*$")
_QUOTED = re.compile(r"[ \t]*(?:>[ \t]?)+")
_ITEM = re.compile(
    r"[ \t]*(?:(?:[-*+\u2022\u2023\u25aa\u25cf\u25e6\u2013\u00b7][ \t]+(?:\[[ xX]\][ \t]+)?)"
    r"|\(?(?:\d{1,3}(?:\.\d{1,3})*|[a-zA-Z]|[ivx]{1,5})[.)][ \t]+|\d{1,2}(?:\.\d{1,2}){1,3}[ \t]+(?=[A-Z]))"
)
_BOLD_LINE = re.compile(r"[ \t]*(\*\*|__)(?:(?!\1).)+\1:?[ \t]*$")
_FULL_LINE_CHARS = 50
"""A line at least this long, without a full stop, was broken to fit a page: the next line continues it."""
_TERMINAL = re.compile(r"[.!?:;\u2026\u3002\uff01\uff1f][\"')\]\u201d\u2019*_]*$")

_SENTENCE_END = re.compile(
    r"[.!?\u2026]+(?:[\"')\]\u201d\u2019*_]|[ ]''|\[\d{1,3}\])*(?=\s|$)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]?"
)
_ABBREVIATIONS = """
    e.g i.e eg ie cf vs v viz approx ca dr mr mrs ms prof st sr jr hon rev gen col lt sgt capt gov pres inc ltd corp
    co bros dept univ est al etc no nos nr art sec ch fig figs eq p pp vol ed eds para jan feb mar apr jun jul aug sep
    sept oct nov dec mon tue wed thu fri sat sun a.m p.m am pm u.s u.k u.n e.u d.c ph.d m.d b.a m.a min max avg tel ext
    ref resp incl excl mt ft op
"""
_ABBREVIATED = frozenset(_ABBREVIATIONS.split())
# After these a capital begins a new sentence more often than it continues the abbreviation.
_CLOSING_ABBREVIATIONS = "etc inc ltd corp co jr sr a.m p.m am pm u.s u.k u.n e.u d.c al ph.d m.d b.a m.a"
_MAY_END = frozenset(_CLOSING_ABBREVIATIONS.split())
_NUMBERED_THINGS = "no nos nr art sec ch fig figs eq p pp vol para tel ext ref op approx ca min max"
_BEFORE_NUMBER = frozenset(_NUMBERED_THINGS.split())
_OPENING_WORDS = """
    the a an it this that these those in on at he she they we you i if when while after before for to as by there its
    his her their our your however but and or with from all no each both such since during under most some then once
    only not so here who what which where how why
"""
_STARTERS = frozenset(_OPENING_WORDS.split())
_LAST_WORD = re.compile(r"(?:[^\W\d_]\.)*[^\W_]+$")
_CLAUSE_END = re.compile(r"[;:,\u2014)][ \t\n]|[ ][-\u2013\u2014][ ]|[ ]\|[ ]")
_EDGE_MARKS = ("**", "__", "*", "_", "`")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `[start, end)` of a passage; `lead` is what introduces them: headings, a list's line, columns."""

    start: int
    end: int
    lead: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Paragraph:
    start: int
    end: int
    item: bool


def sentences(text: str) -> list[Span]:
    """List the quotable units of a passage in order, none longer than `MAX_UNIT_CHARS`, none overlapping."""
    return list(_Reader(text).spans())


class _Reader:
    """Reads a passage line by line and keeps what introduces the lines that follow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._headings: list[tuple[int, str]] = []
        self._columns = ""
        self._intro = ""
        self._paragraph: _Paragraph | None = None
        self._open = False  # the paragraph's last line was full, or ended without a stop

    def spans(self) -> Iterator[Span]:
        lines = list(_lines(self._text))
        fenced = False
        for index, line in enumerate(lines):
            following = lines[index + 1] if index + 1 < len(lines) else None
            if _FENCE.match(self._text, line.start, line.end):
                yield from self._flush()
                fenced = not fenced
            elif fenced:
                yield from self._cut(line.start, line.end)
            else:
                yield from self._line(line, following)
        yield from self._flush()

    def _line(self, line: _Line, following: _Line | None) -> Iterator[Span]:
        content = self._text[line.start : line.end]
        under = self._text[following.start : following.end] if following else ""
        if not content.strip():
            yield from self._flush()
            self._columns = ""
        elif self._is_skipped(content, under):
            yield from self._flush()
        elif _ROW.match(content):
            yield from self._flush()
            if _ROW_RULE.match(under):
                self._columns = _cells(content)
            else:
                yield from self._row(line)
        elif _RECORD.match(content) and content.count(": ") >= 3:
            yield from self._flush()
            yield from self._cut(line.start, line.end)
        else:
            yield from self._prose(line, content)

    def _is_skipped(self, content: str, under: str) -> bool:
        """Note a heading, and say whether the line is none to quote."""
        heading = _HEADING.match(content)
        if heading:
            self._head(content.count("#", 0, heading.end()), content[heading.end() :].strip(" \t#"))
        elif _BOLD_LINE.match(content):
            self._head(7, content.strip(" \t:"))
        elif under and _UNDERLINE.match(under) and not _RULE.match(content) and len(content) <= 120:
            self._head(1 if "=" in under else 2, content.strip())
        else:
            return bool(_RULE.match(content) or _ROW_RULE.match(content))
        return True

    def _head(self, level: int, title: str) -> None:
        self._headings = [(above, name) for above, name in self._headings if above < level]
        self._headings.append((level, title.strip("*_ ")))
        self._intro = self._columns = ""

    def _prose(self, line: _Line, content: str) -> Iterator[Span]:
        quoted = _QUOTED.match(content)
        start = line.start + (quoted.end() if quoted else 0)
        item = _ITEM.match(self._text, start, line.end)
        continues = self._paragraph is not None and (self._open or self._text[start : start + 1].islower())
        if item or not continues:
            yield from self._flush()
            self._paragraph = _Paragraph(item.end() if item else start, line.end, item is not None)
        else:
            assert self._paragraph is not None
            self._paragraph = replace(self._paragraph, end=line.end)
        self._open = len(content.rstrip()) >= _FULL_LINE_CHARS and not content.rstrip().endswith(":")

    def _flush(self) -> Iterator[Span]:
        if self._paragraph is None:
            return
        start, end, item = self._paragraph.start, self._paragraph.end, self._paragraph.item
        self._paragraph = None
        body = self._text[start:end].rstrip()
        if body.rstrip("*_ ").endswith(":") and not _ends(body[:-1]):
            self._intro = body.strip("*_: ")  # "Bring with you:" says nothing without its list
            if len(body) < 80:
                return
        elif not item and _is_title(body):
            self._head(8, body)
            return
        for first, last in _sentence_bounds(self._text, start, end):
            if self._text[first:last].rstrip("*_ \t\n").endswith("?"):
                self._intro = " ".join(self._text[first:last].split()).strip("*_ ")  # what follows may answer it
            else:
                yield from self._cut(first, last)

    def _row(self, line: _Line) -> Iterator[Span]:
        start, end = line.start, line.end
        while start < end and self._text[start] in " \t|":
            start += 1
        while end > start and self._text[end - 1] in " \t|":
            end -= 1
        yield from self._cut(start, end)

    def _cut(self, start: int, end: int) -> Iterator[Span]:
        start, end = _trimmed(self._text, start, end)
        lead = " > ".join([*(name for _, name in self._headings), *filter(None, (self._intro, self._columns))])
        while end - start > MAX_UNIT_CHARS:
            cut = _clause_end(self._text, start, start + MAX_UNIT_CHARS)
            yield Span(*_trimmed(self._text, start, cut), lead)
            start, end = _trimmed(self._text, cut, end)
        if any(char.isalnum() for char in self._text[start:end]):
            yield Span(start, end, lead)


def _lines(text: str) -> Iterator[_Line]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield _Line(start, start + len(line.rstrip("\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")))
        start += len(line)


def _cells(row: str) -> str:
    return ", ".join(cell.strip(" *_") for cell in row.strip(" \t|").split("|") if cell.strip(" *_"))


def _is_title(line: str) -> bool:
    """Say whether a line of its own is a plain text's heading: a few words, no stop, no figure, no value."""
    return (
        len(line) < 60 and not any(char.isdigit() or char in ":;\n=@" for char in line) and not _TERMINAL.search(line)
    )


def _sentence_bounds(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut `text[start:end]`, a paragraph, after each full stop that ends a sentence."""
    for match in _SENTENCE_END.finditer(text, start, end):
        if _is_end(text, start, match, end):
            yield start, match.end()
            start = match.end()
    yield start, end


def _ends(text: str) -> bool:
    return any(_is_end(text, 0, match, len(text)) for match in _SENTENCE_END.finditer(text))


def _is_end(text: str, start: int, match: re.Match[str], end: int) -> bool:
    follows = text[match.end() : end].lstrip().lstrip("\"'(\u201c\u2018*_`[")
    if not match.group().startswith("."):
        return not follows[:1].islower() or match.group()[0] in "\u3002\uff01\uff1f"
    if follows[:1].islower() or match.group().startswith(".."):
        return not follows[:1].islower()
    word = _LAST_WORD.search(text, max(start, match.start() - 24), match.start())
    if word is None:
        return True
    last = word.group().lower()
    next_word = re.match(r"[^\W_]+", follows)
    starts_anew = next_word is not None and next_word.group().lower() in _STARTERS and len(next_word.group()) > 1
    if len(last) == 1 and last.isalpha():  # an initial, but for "Vitamin C. The ..." and "3.5 V. Then"
        if re.search(r"\d\s?$", text[max(start, word.start() - 2) : word.start()]):
            return True
        return starts_anew or (word.group().islower() and text[word.start() - 1 : word.start()] != ".")
    if last in _BEFORE_NUMBER and follows[:1].isdigit():
        return False
    if last.isdigit() and not text[start : word.start()].strip():
        return False  # "4. The supplier"
    if last in _ABBREVIATED:
        return last in _MAY_END and starts_anew
    return starts_anew or not re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", last)


def _clause_end(text: str, start: int, limit: int) -> int:
    """Find where to cut before `limit`: behind the last clause, else at the last space, else right there."""
    ends = [match.start() + 1 for match in _CLAUSE_END.finditer(text, start + MAX_UNIT_CHARS // 3, limit)]
    if ends:
        return ends[-1]
    space = max(text.rfind(" ", start + 1, limit), text.rfind("\n", start + 1, limit))
    return space if space > start else limit


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave out the space around a unit, and the emphasis that encloses the whole of it."""
    while True:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        for mark in _EDGE_MARKS:
            body = text[start + len(mark) : end - len(mark)]
            enclosed = text.startswith(mark, start, end) and text.endswith(mark, start, end)
            if enclosed and len(body) > 0 and mark not in body:
                start, end = start + len(mark), end - len(mark)
                break
        else:
            return start, end
