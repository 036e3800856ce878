"""Text that Word does not show: hidden runs, runs in white or in type too small to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ingest.hidden import TINY_PT, WHITE, Taken, colour_of, is_same
from ingest.office_parts import Attributes, OfficeParts, Walk, is_on, mentions, whole

_PARTS = re.compile(r"word/(document|header\d*|footer\d*|footnotes|endnotes|comments)\.xml")
_SUSPECT = (rb"vanish", rb"\bcolor\b", rb"\bsz\b")
"""Names only: XML has more than one way to write a value."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a style or a run says of itself; None: nothing. `shaded`: something that is not white lies behind it."""

    vanish: bool | None = None
    white: bool | None = None
    tiny: bool | None = None
    shaded: bool = False

    def over(self, below: _Look) -> _Look:
        """Where nothing is said here, the other counts."""
        return _Look(
            below.vanish if self.vanish is None else self.vanish,
            below.white if self.white is None else self.white,
            below.tiny if self.tiny is None else self.tiny,
            self.shaded or below.shaded,
        )

    def told(self, name: str, attributes: Attributes) -> _Look:
        """What one more property says."""
        value = attributes.get("val", "")
        if name == "vanish":
            return replace(self, vanish=is_on(attributes))
        if name == "color":
            found = colour_of(value)
            white = attributes.get("themeColor") in ("background1", "light1") if value == "auto" else None
            return replace(self, white=is_same(found, WHITE) if found else bool(white))
        if name == "sz":
            size = whole(value)
            return replace(self, tiny=size is not None and size <= 2 * TINY_PT)
        if name == "shd":
            return replace(self, shaded=self.shaded or _is_dark(attributes))
        if name == "highlight":
            return replace(self, shaded=self.shaded or value not in ("none", "white"))
        return self


def _is_dark(attributes: Attributes) -> bool:
    if attributes.get("val") not in (None, "clear", "nil"):
        return True
    fill = colour_of(attributes.get("fill", "auto"))
    return (fill is not None and not is_same(fill, WHITE)) or "themeFill" in attributes


def strip_word(parts: OfficeParts, taken: Taken) -> None:
    """Cut what is not shown out of a DOCX's parts."""
    styles = parts.read("word/styles.xml")
    known = _styles(styles)
    suspect = any(look.vanish or look.white or look.tiny for look in known.values())
    coloured = mentions(parts.read("word/document.xml"), rb"<w:background\b")
    for name in filter(_PARTS.fullmatch, parts.names):
        part = parts.read(name)
        if not suspect and not mentions(part, *_SUSPECT):
            continue
        walk = _Text(known, _Look(shaded=coloured))
        if walk.run(part) and walk.cuts:
            parts.cut(name, part, walk.cuts)
            for why, text in walk.found:
                taken.add(why, text)


class _Styles(Walk):
    """Each style's look, and what it is based on."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: dict[str, _Look] = {}
        self.based: dict[str, str] = {}
        self._id = ""

    def begin(self, name: str, attributes: Attributes) -> None:
        if name == "style":
            self._id = attributes.get("styleId", "")
            self.looks[self._id] = _Look()
        elif self._id:
            if name == "basedOn":
                self.based[self._id] = attributes.get("val", "")
            conditional = "tblStylePr" in self.path  # of a table's head or bands: only what lies behind counts
            look = self.looks[self._id].told(name, attributes) if not conditional or name == "shd" else None
            self.looks[self._id] = look or self.looks[self._id]

    def finish(self, name: str) -> bool:
        if name == "style":
            self._id = ""
        return False


def _styles(part: bytes) -> Mapping[str, _Look]:
    walk = _Styles()
    if not walk.run(part):
        return {}
    resolved = {}
    for name in walk.looks:
        look, at = walk.looks[name], name
        for _ in range(12):
            at = walk.based.get(at, "")
            look = look.over(walk.looks.get(at, _Look()))
        resolved[name] = look
    return resolved


class _Text(Walk):
    """Cuts the texts of runs that are not seen."""

    def __init__(self, styles: Mapping[str, _Look], page: _Look) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._styles = styles
        self._around = [page]
        """The look that holds for what stands in each open paragraph, cell, table, box and run."""
        self._pieces: list[str] = []

    def begin(self, name: str, attributes: Attributes) -> None:
        if name in ("p", "tbl", "tc", "r"):
            self._around.append(
                replace(self._around[-1], vanish=None, white=None, tiny=None) if name != "r" else self._around[-1]
            )
        elif name in ("txbxContent", "textbox"):
            self._around.append(_Look(shaded=True))  # what lies behind a box is not known here
        elif name in ("pStyle", "rStyle", "tblStyle"):
            style = self._styles.get(attributes.get("val", ""), _Look())
            self._around[-1] = (_Look(shaded=style.shaded) if name == "tblStyle" else style).over(self._around[-1])
        elif name == "shd" or (len(self.path) > 2 and self.path[-2] == "rPr" and self.path[-3] == "r"):
            self._around[-1] = self._around[-1].told(name, attributes)
        elif name == "t":
            self._pieces = []

    def text(self, text: str) -> None:
        if self.path[-1] == "t":
            self._pieces.append(text)

    def finish(self, name: str) -> bool:
        if name in ("p", "tbl", "tc", "r", "txbxContent", "textbox"):
            self._around.pop()
            return False
        if name != "t" or len(self.path) < 2 or self.path[-2] != "r":
            return False
        look, text = self._around[-1], "".join(self._pieces)
        why = None
        if look.vanish:
            why = "in hidden runs"
        elif look.tiny:
            why = "in type too small to read"
        elif look.white and not look.shaded:
            why = "in the colour of its background"
        if why is None or not text.strip():
            return False
        self.found.append((why, text))
        return True
