"""What the heads of a table's columns say of the numbers below them: Markdown, tabs, semicolons and commas."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_DELIMITERS = "|\t;,"
_FEWEST = 2
"""Delimiters in a head."""
_HEAD_CHARS = 1_000
ROW_CHARS = 4_000
"""In a longer row no column is counted: that would take longer the longer it is."""
_DIGIT = re.compile(r"[0-9]")
Topics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that have a head. `rows`: where each begins; `end`: where the last one ends."""

    rows: tuple[int, ...]
    end: int
    delimiter: str
    columns: tuple[Topics, ...]

    def cell(self, text: str, place: int) -> tuple[int, Topics] | None:
        """Give where the cell around `place` begins, and what its column's head says; None outside and in long rows."""
        index = bisect_right(self.rows, place) - 1
        if index < 0 or place >= self.end or place - self.rows[index] > ROW_CHARS:
            return None
        row = self.rows[index]
        column = text.count(self.delimiter, row, place)
        begins = text.rfind(self.delimiter, row, place) + 1 or row
        return begins, self.columns[column] if column < len(self.columns) else {}


def tables(text: str, topics: Callable[[str], Topics]) -> list[Table]:
    """Find the tables of a text of which at least one head's `topics` are known."""
    if "\n" not in text or not any(delimiter in text for delimiter in _DELIMITERS):
        return []
    found: list[Table] = []
    head: tuple[str, int, tuple[Topics, ...]] | None = None
    rows: list[int] = []
    start = 0
    for line in text.splitlines(keepends=True):
        if head is not None and line.count(head[0]) >= head[1]:
            rows.append(start)
        else:
            if head is not None and rows:
                found.append(Table(tuple(rows), start, head[0], head[2]))
            head, rows = _head(line, topics), []
        start += len(line)
    if head is not None and rows:
        found.append(Table(tuple(rows), start, head[0], head[2]))
    return found


def _head(line: str, topics: Callable[[str], Topics]) -> tuple[str, int, tuple[Topics, ...]] | None:
    """Read a head: delimiters, no digits, and a word that names a kind of number."""
    if len(line) > _HEAD_CHARS:
        return None
    for delimiter in _DELIMITERS:
        count = line.count(delimiter)
        if count >= _FEWEST:
            if _DIGIT.search(line):
                return None
            columns = tuple(topics(cell) for cell in line.split(delimiter))
            return (delimiter, count, columns) if any(columns) else None
    return None
