"""A text as a list of words: letters, numbers, single marks and line breaks, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(
    r"[^\W\d_]+(?:['’](?!(?:s|ll|ve|re|d|m|t)\b)[^\W\d_]+)*|['’](?:s|ll|ve|re|d|m|t)\b|\d+|\n\s*|[^\w\s]|_"
)
_LONGEST_WORD = 60
BREAK = "\n"
BLANK_LINE = "\n\n"


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text: `texts[i]` stands at `starts[i]` to `ends[i]`.

    A line break is `BREAK`, several in a row are one `BLANK_LINE`.
    """

    texts: list[str]
    lows: list[str]
    """The same in lower case."""
    starts: list[int]
    ends: list[int]


def words(text: str) -> Words:
    """Split a text, in one pass; what is longer than any word is cut to its first letters (its place stays whole)."""
    spans = [match.span() for match in _WORD.finditer(text)]
    texts = [text[start : min(end, start + _LONGEST_WORD)] for start, end in spans]
    for at, word in enumerate(texts):
        if word[0] == "\n":
            texts[at] = BREAK if word.count("\n") == 1 else BLANK_LINE
    return Words(texts, [word.lower() for word in texts], [start for start, _ in spans], [end for _, end in spans])


def part(of: Words, low: int, high: int) -> Words:
    """Give the words `low` to `high` (exclusive)."""
    return Words(of.texts[low:high], of.lows[low:high], of.starts[low:high], of.ends[low:high])


def split(text: str) -> list[str]:
    """Give only the words of a short text."""
    return _WORD.findall(text)
