"""Text that a presentation does not show: hidden slides and shapes, text beside the slide, tiny, see-through or white.

White text counts only where all of the slide is white, and so are its layout and master: what lies behind a text on
any other slide takes a painter to know.
"""

from __future__ import annotations

import re

from ingest.hidden import TINY_PT, WHITE, Taken, colour_of, is_same
from ingest.office_parts import Attributes, OfficeParts, Walk, is_on, whole

_SLIDE = re.compile(r"ppt/slides/[^/]+\.xml")
_FILLS = frozenset({"solidFill", "gradFill", "blipFill", "pattFill", "grpFill"})


def strip_slides(parts: OfficeParts, taken: Taken) -> None:
    """Cut what is not shown out of a PPTX's parts."""
    deck = _Deck()
    deck.run(parts.read("ppt/presentation.xml"))
    white: dict[str, bool] = {}
    for name in filter(_SLIDE.fullmatch, parts.names):
        part = parts.read(name)
        walk = _Slide(deck.size, _is_white(parts, name, white))
        walk.run(part)
        if walk.cuts:
            parts.cut(name, part, walk.cuts)
        if not walk.shown:
            for notes in [target for _, kind, target in parts.related(name) if kind == "notesSlide"]:
                _strip_notes(parts, notes, walk)
        for why, text in walk.found:
            taken.add(why, text)


def _strip_notes(parts: OfficeParts, name: str, slide: _Slide) -> None:
    part = parts.read(name)
    walk = _Slide(None, False)
    walk.shown = False
    if walk.run(part) and walk.cuts:
        parts.cut(name, part, walk.cuts)
        slide.found += walk.found


class _Deck(Walk):
    """How wide and high a slide is."""

    def __init__(self) -> None:
        super().__init__()
        self.size: tuple[int, int] | None = None

    def begin(self, name: str, attributes: Attributes) -> None:
        if name == "sldSz":
            width, height = whole(attributes.get("cx", "")), whole(attributes.get("cy", ""))
            self.size = (width, height) if width and height else None


class _Slide(Walk):
    """Cuts the texts that are not shown. `shown`: whether the slide is."""

    def __init__(self, size: tuple[int, int] | None, white: bool) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.shown = True
        self._size = size
        self._white = white
        self._shape: str | None = None
        self._place: tuple[int, int] | None = None
        self._run: str | None = None
        self._pieces: list[str] = []

    def begin(self, name: str, attributes: Attributes) -> None:
        parent = self.path[-2] if len(self.path) > 1 else ""
        if name == "sld":
            self.shown = is_on(attributes, "show")
        elif name in ("sp", "graphicFrame"):
            self._shape, self._place = None, None
        elif name == "cNvPr" and is_on(attributes, "hidden", False):
            self._shape = "in hidden shapes"
        elif name in ("off", "ext") and parent == "xfrm" and "grpSp" not in self.path and self._size:
            self._look_at_place(name, attributes)
        elif name == "r":
            self._run = None
        elif name == "rPr" and parent == "r" and "sz" in attributes:
            size = whole(attributes["sz"])
            if size is not None and size <= 100 * TINY_PT:
                self._run = "in type too small to read"
        elif "rPr" in self.path[-5:-1] and "ln" not in self.path[-4:]:
            self._look_at_colour(name, parent, attributes)
        elif name == "t":
            self._pieces = []

    def text(self, text: str) -> None:
        if self.path[-1] == "t":
            self._pieces.append(text)

    def finish(self, name: str) -> bool:
        if name == "sp":
            self._shape = None
        if name != "t":
            return False
        text = "".join(self._pieces)
        why = "on hidden slides" if not self.shown else self._shape or self._run
        if why is None or not text.strip():
            return False
        self.found.append((why, text))
        return True

    def _look_at_place(self, name: str, attributes: Attributes) -> None:
        first, second = (attributes.get(key, "") for key in (("x", "y") if name == "off" else ("cx", "cy")))
        if not re.fullmatch(r"-?\d{1,12}", first) or not re.fullmatch(r"-?\d{1,12}", second):
            return
        if name == "off":
            self._place = int(first), int(second)
        elif self._place and self._size:
            (left, top), (width, height) = self._place, self._size
            if left >= width or top >= height or left + int(first) <= 0 or top + int(second) <= 0:
                self._shape = self._shape or "beside the page"

    def _look_at_colour(self, name: str, parent: str, attributes: Attributes) -> None:
        alpha = whole(attributes.get("val", "")) if name == "alpha" else None
        if name == "noFill" or (alpha is not None and alpha <= 5_000):
            self._run = self._run or "in no colour"
        elif self._white and parent == "solidFill" and _is_light(name, attributes):
            self._run = self._run or "in the colour of its background"


def _is_light(name: str, attributes: Attributes) -> bool:
    if name == "schemeClr":
        return attributes.get("val") in ("bg1", "lt1")
    found = colour_of(attributes.get("lastClr" if name == "sysClr" else "val", ""))
    return found is not None and is_same(found, WHITE)


class _Paint(Walk):
    """Whether a slide, layout or master holds anything but text on white."""

    def __init__(self) -> None:
        super().__init__()
        self.white = True

    def begin(self, name: str, attributes: Attributes) -> None:
        parent = self.path[-2] if len(self.path) > 1 else ""
        mapped = name == "clrMap" and attributes.get("bg1", "lt1") != "lt1"
        if mapped or name in ("pic", "graphicFrame", "overrideClrMapping", "contentPart"):
            self.white = False
        elif name in _FILLS and parent in ("spPr", "bgPr", "grpSpPr"):
            self.white = self.white and name == "solidFill" and parent == "bgPr"
        elif name == "fillRef" and attributes.get("idx", "0") != "0":
            self.white = False
        elif parent == "bgRef" or (parent == "solidFill" and "bgPr" in self.path):
            self.white = self.white and _is_light(name, attributes)


def _is_white(parts: OfficeParts, name: str, known: dict[str, bool]) -> bool:
    """Look at a slide, its layout and master, and whether the theme's light colour is white."""
    if name in known:
        return known[name]
    known[name] = False  # should they name each other
    if name.startswith("ppt/theme/"):
        light = re.search(rb"<a:lt1>(.{0,200}?)</a:lt1>", parts.read(name), re.DOTALL)
        found = re.search(rb'(?:lastClr|srgbClr val)="([0-9A-Fa-f]{6})"', light[1]) if light else None
        colour = colour_of(found[1].decode()) if found else None
        known[name] = colour is not None and is_same(colour, WHITE)
        return known[name]
    paint = _Paint()
    if not paint.run(parts.read(name)) or not paint.white:
        return False
    kinds = {"slides": "slideLayout", "slideLayouts": "slideMaster", "slideMasters": "theme"}
    above = kinds.get(name.split("/")[1])
    targets = [target for _, kind, target in parts.related(name) if kind == above]
    known[name] = bool(targets) and _is_white(parts, targets[0], known)
    return known[name]
