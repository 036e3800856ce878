"""PDF by pdfium: pages, paragraphs and headings out of lines that only know where they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from index.document import Extracted, Page
from ingest.cleaning import clean, first_heading, usable_title
from ingest.hidden import Taken
from ingest.hidden_pdf import PageEye
from policies.errors import DocumentRejected

MAX_PAGES = 50_000


def parse_pdf(data: bytes, taken: Taken | None = None) -> Extracted:
    """Text by pdfium, in the file's own reading order, one `Page` per page; headings told by size and weight.

    What nobody sees is left out, and counted in `taken`; with none, it stays.
    """
    import pypdfium2
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            raise DocumentRejected("encrypted: it needs a password") from error
        raise DocumentRejected("damaged: this PDF cannot be opened") from error
    try:
        pages, unreadable = _pages(document, raw, PageEye(taken) if taken is not None else None)
        metadata_title = document.get_metadata_value("Title")
    finally:
        document.close()
    if not pages or unreadable == len(pages):
        raise DocumentRejected("damaged: this PDF has no readable page")
    if unreadable * 2 > len(pages):
        raise DocumentRejected(f"damaged: {unreadable} of its {len(pages)} pages cannot be read")
    if not any(line.text.strip() for lines in pages for line in lines):
        raise DocumentRejected("no text that can be seen" if taken and taken.as_pairs() else "no text; needs OCR")
    return _assemble_pdf(pages, metadata_title)


def _pages(document: Any, raw: Any, eye: PageEye | None) -> tuple[list[list[Line]], int]:
    """The lines of each page, and how many pages cannot be read; these have no lines."""
    import pypdfium2

    count = len(document)
    if count > MAX_PAGES:
        raise DocumentRejected(f"it has {count} pages, more than {MAX_PAGES}")
    pages: list[list[Line]] = []
    unreadable = 0
    for index in range(count):
        try:
            page = document[index]
            textpage = page.get_textpage()
            hidden = eye.hidden_characters(page, textpage, raw) if eye else frozenset()
            pages.append(_pdf_lines(textpage, raw, hidden))
            page.close()
        except pypdfium2.PdfiumError:
            unreadable += 1
            pages.append([])
    return pages, unreadable


Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points."""


class Line:
    """A line of a PDF page: its text, and where it stands in points (the origin is at the bottom left)."""

    __slots__ = ("bold", "bottom", "left", "right", "size", "text", "top")

    def __init__(self, text: str, first: Box, last: Box, bold: bool) -> None:
        self.text = text
        # pdfium joins hyphenated lines, so the last character may stand lower than the first.
        self.left, self.top, self.right, self.bottom = first[0], first[3], last[2], last[1]
        self.size = round(first[3] - first[1], 1)
        self.bold = bold


def _pdf_lines(textpage: object, raw: object, hidden: frozenset[int]) -> list[Line]:
    """Split a page's text at its line ends and measure each line by its first and last character that is seen."""
    text: str = textpage.get_text_range()  # type: ignore[attr-defined]
    lines = []
    position = 0
    for part in text.split("\n"):
        seen = [at for at, c in enumerate(part, position) if at not in hidden and not c.isspace()]
        if seen:
            first, last = seen[0], seen[-1]
            line = text[first : last + 1]
            if hidden:
                line = "".join(c for at, c in enumerate(line, first) if at not in hidden)
            lines.append(_measure(textpage, raw, line, first, last))
        position += len(part) + 1
    return lines


def _measure(textpage: object, raw: object, text: str, first: int, last: int) -> Line:
    from ctypes import byref

    boxes, weights = [], []
    for position in (first, last):
        index = raw.FPDFText_GetCharIndexFromTextIndex(textpage, position)  # type: ignore[attr-defined]
        box = raw.FS_RECTF()  # type: ignore[attr-defined]
        if index >= 0 and raw.FPDFText_GetLooseCharBox(textpage, index, byref(box)):  # type: ignore[attr-defined]
            boxes.append((box.left, box.bottom, box.right, box.top))
            weights.append(_is_bold(textpage, raw, index))
    if not boxes:
        return Line(text, (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), bold=False)
    return Line(_without_hyphenation(text), boxes[0], boxes[-1], bold=all(weights))


def _without_hyphenation(text: str) -> str:
    """Undo hyphens at line ends, which pdfium marks by U+FFFE or U+0002; before a capital it is a real hyphen."""
    return re.sub(r"[\ufffe\x02]\s*", "-", re.sub(r"[\ufffe\x02]\s*(?=[a-z])", "", text))


def _is_bold(textpage: object, raw: object, index: int) -> bool:
    """By the font's weight, or by its name where the file gives no weight (LaTeX)."""
    from ctypes import byref, c_int, create_string_buffer

    if raw.FPDFText_GetFontWeight(textpage, index) >= 600:  # type: ignore[attr-defined]
        return True
    name = create_string_buffer(80)
    raw.FPDFText_GetFontInfo(textpage, index, name, 80, byref(c_int()))  # type: ignore[attr-defined]
    return re.search(rb"bold|black|heavy|cmbx", name.value, re.IGNORECASE) is not None


_BULLET = re.compile(r"^[•▪◦●○■□‣⁃·–—*➢✓-]\s+")
_NUMBERED = re.compile(r"^(\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)]\s+\S")
_PAGE_NUMBER = re.compile(r"(page\s+)?[-–]?\s*\d{1,4}\s*[-–]?(\s*(of|/)\s*\d{1,4})?", re.IGNORECASE)


def _assemble_pdf(pages: Sequence[list[Line]], metadata_title: str | None) -> Extracted:
    pages = _without_furniture(pages)
    weights: dict[tuple[float, bool], int] = {}
    for line in (line for lines in pages for line in lines):
        weights[line.size, line.bold] = weights.get((line.size, line.bold), 0) + len(line.text)
    if not weights:
        raise DocumentRejected("no text; needs OCR")
    (body, body_bold), _ = max(weights.items(), key=lambda item: item[1])
    total = sum(weights.values())
    # A size is a heading's where it is clearly larger than the body's and rare: else it is another body text.
    sizes = sorted({size for (size, _), n in weights.items() if size > body * 1.1 and n * 4 < total}, reverse=True)
    levels = {size: min(1 + rank, 4) for rank, size in enumerate(sizes)}
    texts, ranges, offset = [], [], 0
    for number, lines in enumerate(pages, start=1):
        text = clean(_page_text(lines, levels, body, body_bold)).strip()
        texts.append(text)
        ranges.append(Page(number, offset, offset + len(text)))
        offset += len(text) + 2
    text = "\n\n".join(texts)
    return Extracted(
        text=text,
        title=usable_title(metadata_title) or usable_title(first_heading(text)),
        pages=tuple(ranges),
        markdown=True,
    )


def _page_text(lines: Sequence[Line], levels: dict[float, int], body: float, body_bold: bool) -> str:
    deepest = min(max(levels.values(), default=0) + 1, 5)
    blocks: list[str] = []
    paragraph: list[Line] = []
    heading: tuple[int, list[str]] | None = None

    def flush() -> None:
        nonlocal heading
        if paragraph:
            blocks.append(_join_paragraph(paragraph))
            paragraph.clear()
        if heading:
            blocks.append("#" * heading[0] + " " + " ".join(heading[1]))
            heading = None

    previous: Line | None = None
    for line in lines:
        level = _heading_level(line, levels, deepest, body, body_bold)
        broken = previous is None or _breaks(previous, line)
        if level and heading and heading[0] == level and not broken:
            heading[1].append(line.text)
        elif level and (broken or line.size in levels or heading):
            flush()
            heading = (level, [line.text])
        else:
            if heading or broken or _BULLET.match(line.text) or _NUMBERED.match(line.text):
                flush()
            paragraph.append(line)
        previous = line
    flush()
    return "\n\n".join(blocks)


def _heading_level(line: Line, levels: dict[float, int], deepest: int, body: float, body_bold: bool) -> int | None:
    text = line.text
    if len(text) > 160 or sum(map(str.isalpha, text)) < 2 or _BULLET.match(text) or text[-1] in ".,;":
        return None
    if line.size in levels:
        return levels[line.size]
    bold = line.bold and not body_bold and abs(line.size - body) <= body * 0.1
    return deepest if bold and len(text) <= 100 and not text.endswith(":") else None


def _breaks(above: Line, below: Line) -> bool:
    """Whether a new block starts: a gap of more than half a line, a jump upwards (next column), or another size."""
    if not above.size or not below.size:
        return False
    gap = above.bottom - below.top
    return gap > 0.55 * min(above.size, below.size) or gap < -2 * above.size or abs(above.size - below.size) > 1.5


def _join_paragraph(lines: Sequence[Line]) -> str:
    """Join full lines by a space; keep the line end after a short line or a row of figures."""
    right, left = max(line.right for line in lines), min(line.left for line in lines)
    text = _BULLET.sub("- ", lines[0].text)
    for above, below in pairwise(lines):
        full = above.right >= right - 0.15 * (right - left) and not (_is_row(above.text) or _is_row(below.text))
        text += (" " if full else "\n") + below.text
    return text


def _is_row(text: str) -> bool:
    words = text.split()
    return len(words) >= 3 and sum(any(map(str.isdigit, word)) for word in words) * 3 >= len(words)


def _without_furniture(pages: Sequence[list[Line]]) -> list[list[Line]]:
    """Leave out page numbers, and first and last lines that most pages repeat (unless nothing else is there)."""
    counts: dict[tuple[str, int], int] = {}
    for lines in pages:
        for line in {_place(line): line for line in (*lines[:2], *lines[-2:])}.values():
            counts[_place(line)] = counts.get(_place(line), 0) + 1
    enough = max(4, len(pages) * 3 // 5)
    kept = []
    for lines in pages:
        edge = {0, 1, len(lines) - 2, len(lines) - 1}
        dropped = {i for i in edge if 0 <= i < len(lines) and counts[_place(lines[i])] >= enough}
        if len(pages) > 1:
            dropped |= {i for i in (0, len(lines) - 1) if lines and _is_page_number(lines[i].text)}
        kept.append([line for index, line in enumerate(lines) if index not in dropped])
    return kept if any(kept) else list(pages)


def _is_page_number(text: str) -> bool:
    # Its optional parts and white space can be told apart in many ways: a long line is none, whatever it holds.
    return len(text) <= 40 and _PAGE_NUMBER.fullmatch(text) is not None


def _place(line: Line) -> tuple[str, int]:
    """A line's text but for a page number at one of its ends, and its height on the page."""
    return re.sub(r"^\d+\b|\b\d+$", "0", line.text), round(line.top)
