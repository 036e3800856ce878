"""Text that a PDF page does not show, told by painting the page: what changes no pixel is not seen.

Only pages with suspects are painted: text that is invisible by its render mode, see-through, tiny, outside of the page,
of an optional layer, or in white or the colour of something that is painted. Text recognised on a scan is invisible
too, and stands over the ink that it spells: it stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_float, c_uint, c_ulong, c_void_p, cast
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.hidden import TINY_PT, WHITE, Colour, Taken, is_same

MAX_PAINTED_PAGES = 100
"""Of one file. On the others, text stays where an image or a coloured area may lie behind it."""
MAX_OBJECTS = 200_000
_MAX_PIXELS = 1_500_000
_CONTRAST = 24
"""Levels of grey, of 255, that differ where something is seen."""
_INVISIBLE_MODES = (3, 7)
_MAX_NESTING = 8
Pixels = NDArray[np.uint8]


class PageEye:
    """Looks at the pages of one file."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._painted = 0

    def hidden_characters(self, page: Any, textpage: Any, raw: Any) -> frozenset[int]:
        """The positions in the page's text of what nobody sees."""
        suspects = _suspects(page, raw)
        if not suspects:
            return frozenset()
        reasons = self._reasons(page, suspects, raw)
        if not reasons:
            return frozenset()
        hidden = set()
        for index in range(raw.FPDFText_CountChars(textpage)):
            why = reasons.get(_address(raw.FPDFText_GetTextObject(textpage, index)))
            if why is None or chr(raw.FPDFText_GetUnicode(textpage, index)).isspace():
                continue
            place = raw.FPDFText_GetTextIndexFromCharIndex(textpage, index)
            if place >= 0:
                hidden.add(place)
                self._taken.add(why, 1)
        return frozenset() if self._taken.keep else frozenset(hidden)

    def _reasons(self, page: Any, suspects: list[_Suspect], raw: Any) -> dict[int, str]:
        """Why nobody sees each text object, by its address."""
        found = {suspect.address: suspect.why for suspect in suspects if suspect.certain}
        open_questions = [suspect for suspect in suspects if not suspect.certain]
        if not open_questions:
            return found
        if self._painted >= MAX_PAINTED_PAGES:
            seen = {s.address for s in open_questions} if _has_paint(page, raw) else set()
        else:
            self._painted += 1
            seen = _seen(page, open_questions, raw)
        return found | {s.address: s.why for s in open_questions if s.address not in seen}


class _Suspect:
    """A text object that may not be seen; `certain`: without painting. `box`: left, bottom, right, top in points."""

    __slots__ = ("address", "box", "certain", "handle", "recognised", "why")

    def __init__(self, handle: Any, why: str, certain: bool, recognised: bool, box: tuple[float, ...]) -> None:
        self.handle = handle
        self.address = _address(handle)
        self.why = why
        self.certain = certain
        self.recognised = recognised
        self.box = box


def _address(handle: Any) -> int:
    return cast(handle, c_void_p).value or 0


def _shown(page: Any) -> tuple[float, float, float, float]:
    """The part of a page that is shown, before it is turned: left, bottom, right, top in points."""
    media, crop = page.get_mediabox(), page.get_cropbox()
    return max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3])


def _objects(page: Any, raw: Any) -> Iterator[tuple[Any, float, bool]]:
    """All objects of a page: each, how much the forms around it scale it, and whether there are any."""
    stack: list[tuple[Any, float, int]] = []
    for index in range(raw.FPDFPage_CountObjects(page)):
        stack.append((raw.FPDFPage_GetObject(page, index), 1.0, 0))
    seen = 0
    while stack and seen < MAX_OBJECTS:
        handle, scale, depth = stack.pop()
        seen += 1
        yield handle, scale, depth > 0
        if raw.FPDFPageObj_GetType(handle) == raw.FPDF_PAGEOBJ_FORM and depth < _MAX_NESTING:
            inner = scale * _scale(handle, raw)
            for index in range(max(0, raw.FPDFFormObj_CountObjects(handle))):
                stack.append((raw.FPDFFormObj_GetObject(handle, index), inner, depth + 1))


def _suspects(page: Any, raw: Any) -> list[_Suspect]:
    colours: set[Colour] = {WHITE}
    texts = []
    for handle, scale, nested in _objects(page, raw):
        kind = raw.FPDFPageObj_GetType(handle)
        if kind == raw.FPDF_PAGEOBJ_TEXT:
            texts.append((handle, scale, nested))
        elif kind == raw.FPDF_PAGEOBJ_PATH and len(colours) < 50:
            found = _colour(handle, raw)
            colours |= {found[0]} if found else set()
    left, bottom, right, top = _shown(page)
    suspects = []
    for handle, scale, nested in texts:
        box = _box(handle, raw)
        mode, colour = raw.FPDFTextObj_GetTextRenderMode(handle), _colour(handle, raw)
        outside = not nested and (box[2] <= left or box[0] >= right or box[3] <= bottom or box[1] >= top)
        why, certain = "", False
        if outside:
            why, certain = "beside the page", True
        elif 0 < _size(handle, raw) * scale <= TINY_PT:
            why, certain = "in type too small to read", True
        elif mode in _INVISIBLE_MODES or (colour and colour[1] <= 12) or _is_optional(handle, raw):
            why = "in no colour"
        elif mode in (0, 4) and colour and any(is_same(colour[0], other) for other in colours):
            why = "in the colour of its background"
        if why:
            recognised = mode in _INVISIBLE_MODES
            suspects.append(_Suspect(handle, why, certain, recognised, (0, 0, 0, 0) if nested else box))
    return suspects


def _colour(handle: Any, raw: Any) -> tuple[Colour, int] | None:
    """What an object is filled with: the colour and how dense it is, to 255."""
    red, green, blue, dense = c_uint(), c_uint(), c_uint(), c_uint()
    if not raw.FPDFPageObj_GetFillColor(handle, byref(red), byref(green), byref(blue), byref(dense)):
        return None
    return (red.value, green.value, blue.value), dense.value


def _box(handle: Any, raw: Any) -> tuple[float, float, float, float]:
    left, bottom, right, top = c_float(), c_float(), c_float(), c_float()
    raw.FPDFPageObj_GetBounds(handle, byref(left), byref(bottom), byref(right), byref(top))
    return left.value, bottom.value, right.value, top.value


def _scale(handle: Any, raw: Any) -> float:
    matrix = raw.FS_MATRIX()
    if not raw.FPDFPageObj_GetMatrix(handle, byref(matrix)):
        return 1.0
    return float(abs(matrix.a * matrix.d - matrix.b * matrix.c) ** 0.5)


def _size(handle: Any, raw: Any) -> float:
    size = c_float()
    raw.FPDFTextObj_GetFontSize(handle, byref(size))
    return abs(size.value) * _scale(handle, raw)


def _is_optional(handle: Any, raw: Any) -> bool:
    """Whether an object is in a layer that a reader may switch off, and the file may have switched off."""
    for index in range(max(0, raw.FPDFPageObj_CountMarks(handle))):
        name = (raw.FPDF_WCHAR * 8)()
        raw.FPDFPageObjMark_GetName(raw.FPDFPageObj_GetMark(handle, index), name, 16, byref(c_ulong()))
        if bytes(name).decode("utf-16-le", "ignore").rstrip("\x00") == "OC":
            return True
    return False


def _has_paint(page: Any, raw: Any) -> bool:
    """Whether anything but text may lie behind a text."""
    text, path = raw.FPDF_PAGEOBJ_TEXT, raw.FPDF_PAGEOBJ_PATH
    for handle, _, _ in _objects(page, raw):
        kind = raw.FPDFPageObj_GetType(handle)
        colour = _colour(handle, raw) if kind == path else None
        if kind not in (text, path) or (colour and not is_same(colour[0], WHITE)):
            return True
    return False


def _seen(page: Any, suspects: list[_Suspect], raw: Any) -> set[int]:
    """Which of these can be seen: those that change a pixel, and recognised ones with something painted under them."""
    rotation = page.get_rotation()
    page.set_rotation(0)
    painted = without = _paint(page)
    if any(not suspect.recognised for suspect in suspects):
        for suspect in suspects:
            raw.FPDFPageObj_SetIsActive(suspect.handle, False)
        without = _paint(page)
        for suspect in suspects:
            raw.FPDFPageObj_SetIsActive(suspect.handle, True)
    page.set_rotation(rotation)
    left, bottom, right, top = _shown(page)
    height, width = painted.shape
    scale = (width / max(right - left, 1.0), height / max(top - bottom, 1.0))
    seen = set()
    for suspect in suspects:
        box = suspect.box if any(suspect.box) else (left, bottom, right, top)
        wider = (box[3] - box[1]) * 0.3 if suspect.recognised else 1.0
        columns = slice(
            max(0, int((box[0] - wider - left) * scale[0])), max(0, int((box[2] + wider - left) * scale[0]) + 1)
        )
        rows = slice(max(0, int((top - box[3] - wider) * scale[1])), max(0, int((top - box[1] + wider) * scale[1]) + 1))
        if _shows(painted[rows, columns], without[rows, columns], suspect.recognised):
            seen.add(suspect.address)
    return seen


def _shows(painted: Pixels, without: Pixels, recognised: bool) -> bool:
    if not painted.size:
        return False
    if recognised:
        return int(painted.max()) - int(painted.min()) >= _CONTRAST
    return int(np.abs(painted.astype(np.int16) - without).max()) >= _CONTRAST


def _paint(page: Any) -> Pixels:
    width, height = page.get_size()
    scale = min(1.5, (_MAX_PIXELS / max(width * height, 1.0)) ** 0.5)
    bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False, draw_annots=False)
    try:
        pixels = bitmap.to_numpy()
        return np.array(pixels[:, :, 0] if pixels.ndim == 3 else pixels)
    finally:
        bitmap.close()
