"""Cells that a spreadsheet does not show: on hidden sheets, in hidden rows and columns, in white, or formatted away.

Rows that a filter hides stay: a click shows them, and whoever saved the file had no say in what is true. So do grouped
rows and columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ingest.hidden import TINY_PT, WHITE, Colour, Taken, colour_of, is_same
from ingest.office_parts import Attributes, OfficeParts, Walk, is_on, mentions, whole

HIDDEN = "on hidden sheets, rows or columns"
_T = TypeVar("_T")
_COLUMN = re.compile(r"[A-Z]{1,3}")


def strip_sheets(parts: OfficeParts, taken: Taken) -> None:
    """Cut what is not shown out of an XLSX's parts."""
    book = _Book()
    if not book.run(parts.read("xl/workbook.xml")):
        return
    styles = _Styles()
    unseen = styles.unseen() if styles.run(parts.read("xl/styles.xml")) else {}
    sheets = {relation: target for relation, kind, target in parts.related("xl/workbook.xml") if kind == "worksheet"}
    cut: list[tuple[str, str, str]] = []
    for relation, shown in book.sheets:
        name = sheets.get(relation, "")
        part = parts.read(name)
        filtered = mentions(part, rb"autoFilter\b", rb"tablePart\b")
        suspect = not shown or bool(unseen) or mentions(part, rb"\bhidden\b")
        if not part or not suspect:
            continue
        walk = _Cells(shown, filtered, unseen, plain=not filtered and not mentions(part, rb"conditionalFormatting"))
        if walk.run(part) and walk.cuts:
            parts.cut(name, part, walk.cuts)
            cut += walk.found
    if cut:
        strings = _Strings()
        strings.run(parts.read("xl/sharedStrings.xml"))
        for why, kind, value in cut:
            taken.add(why, _at(strings.lengths, value, 0) if kind == "s" else value)


class _Book(Walk):
    """The sheets' relations, and whether each is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.sheets: list[tuple[str, bool]] = []

    def begin(self, name: str, attributes: Attributes) -> None:
        if name == "sheet":
            self.sheets.append((attributes.get("id", ""), attributes.get("state", "visible") == "visible"))


@dataclass(slots=True)
class _Font:
    colour: Colour | None = None
    size: float = 11.0


class _Styles(Walk):
    """Which cell formats hide what stands in them."""

    def __init__(self) -> None:
        super().__init__()
        self._fonts: list[_Font] = []
        self._fills: list[Colour | None] = []
        self._formats: set[str] = set()
        self._cells: list[Attributes] = []

    def begin(self, name: str, attributes: Attributes) -> None:
        parent = self.path[-2] if len(self.path) > 1 else ""
        if name == "font" and parent == "fonts":
            self._fonts.append(_Font())
        elif self.path[-3:] == ["fonts", "font", "color"]:
            white = attributes.get("theme") == "0" and "tint" not in attributes
            self._fonts[-1].colour = WHITE if white else colour_of(attributes.get("rgb", "")[-6:])
        elif self.path[-3:] == ["fonts", "font", "sz"]:
            found = re.fullmatch(r"\d{1,4}(\.\d{1,9})?", attributes.get("val", ""))
            self._fonts[-1].size = float(found[0]) if found else 11.0
        elif name == "fill" and parent == "fills":
            self._fills.append(WHITE)
        elif name in ("patternFill", "gradientFill") and self.path[-3:-1] == ["fills", "fill"]:
            if name == "gradientFill" or attributes.get("patternType", "none") != "none":
                self._fills[-1] = None
        elif name == "fgColor" and self.path[-4:-2] == ["fills", "fill"] and self._fills[-1] is None:
            self._fills[-1] = colour_of(attributes.get("rgb", "")[-6:])
        elif name == "numFmt" and re.fullmatch(r'[;\s"]{2,}', attributes.get("formatCode", "")):
            self._formats.add(attributes.get("numFmtId", ""))
        elif name == "xf" and parent == "cellXfs":
            self._cells.append(attributes)

    def unseen(self) -> dict[str, str]:
        """Why what has a format is not seen, by the format's number."""
        found = {}
        for number, cell in enumerate(self._cells):
            font = _at(self._fonts, cell.get("fontId"), _Font())
            fill = _at(self._fills, cell.get("fillId"), WHITE)
            if cell.get("numFmtId") in self._formats:
                found[str(number)] = "in a format that shows nothing"
            elif font.size <= TINY_PT:
                found[str(number)] = "in type too small to read"
            elif font.colour and fill and is_same(font.colour, fill):
                found[str(number)] = "in the colour of its background"
        return found


def _at(values: Sequence[_T], number: str | None, default: _T) -> _T:
    place = whole(number or "")
    return values[place] if place is not None and place < len(values) else default


class _Cells(Walk):
    """Cuts the cells that are not seen. `found`: why, the cell's kind and its value."""

    def __init__(self, shown: bool, filtered: bool, unseen: dict[str, str], plain: bool) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self._shown = shown
        self._filtered = filtered
        self._unseen = unseen
        self._plain = plain
        self._hidden_columns: list[tuple[int, int]] = []
        self._row_is_hidden = False
        self._why: str | None = None
        self._kind = ""
        self._value: list[str] = []

    def begin(self, name: str, attributes: Attributes) -> None:
        grouped = attributes.get("outlineLevel", "0") != "0"
        if name == "col" and is_on(attributes, "hidden", False) and not grouped:
            first, last = whole(attributes.get("min", "")), whole(attributes.get("max", ""))
            if first is not None and last is not None:
                self._hidden_columns.append((first, last))
        elif name == "row":
            self._row_is_hidden = is_on(attributes, "hidden", False) and not grouped and not self._filtered
        elif name == "c":
            self._kind, self._value = attributes.get("t", ""), []
            self._why = self._reason(attributes)

    def text(self, text: str) -> None:
        if self._why is not None and self.path[-1] in ("v", "t"):
            self._value.append(text)

    def finish(self, name: str) -> bool:
        if name != "c" or self._why is None or not self._value:
            return False
        self.found.append((self._why, self._kind, "".join(self._value)))
        return True

    def _reason(self, attributes: Attributes) -> str | None:
        if not self._shown or self._row_is_hidden or self._is_in_hidden_column(attributes.get("r", "")):
            return HIDDEN
        why = self._unseen.get(str(whole(attributes.get("s", "0"))))
        return why if self._plain or why != "in the colour of its background" else None

    def _is_in_hidden_column(self, reference: str) -> bool:
        found = _COLUMN.match(reference) if self._hidden_columns else None
        if found is None:
            return False
        number = 0
        for letter in found.group():
            number = number * 26 + ord(letter) - 64
        return any(first <= number <= last for first, last in self._hidden_columns[:100])


class _Strings(Walk):
    """The length of each shared string, without white space."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def begin(self, name: str, attributes: Attributes) -> None:
        if name == "si":
            self.lengths.append(0)

    def text(self, text: str) -> None:
        if self.path[-1] == "t" and self.lengths:
            self.lengths[-1] += len("".join(text.split()))
