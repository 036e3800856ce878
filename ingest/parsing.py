"""From a file's bytes to its text. Runs inside the sandbox's child process, never in a pipeline's own process.

The content decides the type, the name only where the content leaves it open (CSV, Markdown, mail). Nothing here
reads a path or opens a connection; text recognition in images is off.
"""

from __future__ import annotations

import asyncio
import csv
import html
import io
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from index.document import Extracted, Page
from policies.errors import DocumentRejected, UnsupportedType

if TYPE_CHECKING:
    from email.message import EmailMessage, MIMEPart

    from xberg import ExtractedDocument

Kind = Literal["pdf", "docx", "pptx", "xlsx", "office", "html", "eml", "markdown", "csv", "text"]

MAX_TITLE_CHARS = 200
MAX_ATTACHMENT_DEPTH = 3
MAX_ATTACHMENTS = 200
MAX_TABLE_CELLS = 5_000_000
MAX_UNPACKED_BYTES = 1_000_000_000
MAX_PART_BYTES = 10_000_000

MIME = {
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "epub": "application/epub+zip",
    "rtf": "application/rtf",
    "doc": "application/msword",
    "xls": "application/vnd.ms-excel",
    "ppt": "application/vnd.ms-powerpoint",
    "msg": "application/vnd.ms-outlook",
    "html": "text/html",
}
_OLE_STREAMS = {"WordDocument": "doc", "Workbook": "xls", "PowerPoint Document": "ppt", "__substg1.0_": "msg"}
_BINARY_MAGIC = {
    b"\x89PNG": "a PNG image; it needs OCR",
    b"\xff\xd8\xff": "a JPEG image; it needs OCR",
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image; it needs OCR",
    b"MM\x00*": "a TIFF image; it needs OCR",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x7fELF": "a program",
    b"SQLite format 3": "a database file",
}
_HTML = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_MAIL_HEADER = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_JUNK_TITLE = re.compile(
    r"untitled.*|microsoft (word|powerpoint|excel)\b.*|powerpoint presentation|presentation( title)?|word document"
    r"|(document|slide|sheet|book|page|tabelle|blank)\s*\d*|title|no title|default|index|home"
    r"|.*\.(docx?|pptx?|xlsx?|pdf|html?|txt|indd|dvi|tex|rtf|odt)",
    re.IGNORECASE,
)


def parse(data: bytes, name: str) -> Extracted:
    """Extract the text of one file. `name` is a hint for types that content cannot tell apart.

    Raises `DocumentRejected` where the file is empty, damaged, encrypted or holds no text, `UnsupportedType` where
    nothing here reads it.
    """
    return _parse(data, name, depth=0)


def clean(text: str) -> str:
    r"""Make text safe to store: `\n` line ends, NFC, no NUL or other control characters, no lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    text = text.replace("\f", "\n").replace("\u00a0", " ")
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))


def usable_title(title: str | None) -> str | None:
    """Tidy a title; none for what programs fill in by themselves ("untitled", "Microsoft Word - x.doc")."""
    text = " ".join(clean(title or "").split())
    if not any(character.isalpha() for character in text) or _JUNK_TITLE.fullmatch(text):
        return None
    return text[:MAX_TITLE_CHARS].rstrip()


def detect(data: bytes, name: str) -> tuple[Kind, str]:
    """Tell the type of `data`, and its key in `MIME` where it has one. Raises as `parse` does."""
    suffix = PurePosixPath(name).suffix.lower().lstrip(".")
    if b"%PDF-" in data[:1024]:
        return "pdf", ""
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_kind(data)
    if data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        return _ole_kind(data)
    if data[:5] == b"{\\rtf":
        return "office", "rtf"
    for magic, what in _BINARY_MAGIC.items():
        if data.startswith(magic):
            raise UnsupportedType(f"unsupported type: {what}")
    return _text_kind(data, suffix)


def decode(data: bytes, partial: bool = False) -> str:
    """Turn bytes into text by BOM, UTF-8, UTF-16 or a detected encoding. Raises `UnsupportedType` for binary data.

    With `partial`, the end of `data` may cut a character.
    """
    for bom, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(bom):
            return data.decode(encoding, errors="replace")
    sample = data[:65_536]
    wide = _wide_encoding(sample)
    if wide:
        return data.decode(wide, errors="replace")
    controls = sum(sample.count(byte) for byte in (*range(1, 9), *range(14, 27), *range(28, 32), 127))
    if sample.count(0) > max(8, len(sample) // 20) or controls > max(8, len(sample) // 50):
        raise UnsupportedType("unsupported type: binary data that no parser here knows")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if partial and error.start >= len(data) - 4:
            return data.decode("utf-8", errors="ignore")
    return data.decode(_legacy_encoding(data), errors="replace")


def _parse(data: bytes, name: str, depth: int) -> Extracted:
    if not data.strip(b"\x00 \t\r\n\x0c\xef\xbb\xbf\xff\xfe"):
        raise DocumentRejected("empty")
    kind, key = detect(data, name)
    readers: dict[Kind, Callable[[], Extracted]] = {
        "pdf": lambda: _pdf(data),
        "docx": lambda: _office(data, key),
        "pptx": lambda: _pptx(data),
        "xlsx": lambda: _workbook(data, key),
        "office": lambda: _workbook(data, key) if key in ("xls", "ods") else _office(data, key),
        "html": lambda: _html(decode(data)),
        "eml": lambda: _eml(data, depth),
        "csv": lambda: _csv(decode(data)),
        "markdown": lambda: _markdown(decode(data)),
        "text": lambda: Extracted(text=clean(decode(data))),
    }
    extracted = readers[kind]()
    if not extracted.text.strip():
        raise DocumentRejected("empty: the file holds no text")
    return extracted


# ---- types ----


def _zip_kind(data: bytes) -> tuple[Kind, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            mimetype = archive.open("mimetype").read(100).decode("ascii", "replace") if "mimetype" in names else ""
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DocumentRejected("damaged: the file is cut short or no valid Office or zip file") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED_BYTES:
        raise DocumentRejected(
            f"it unpacks to {unpacked // 1_000_000} MB, more than {MAX_UNPACKED_BYTES // 1_000_000} MB"
        )
    folders = {entry.split("/", 1)[0] for entry in names}
    if "word" in folders:
        return "docx", "docx"
    if "ppt" in folders:
        return "pptx", "pptx"
    if "xl" in folders:
        return "xlsx", "xlsx"
    for key in ("odt", "ods", "odp", "epub"):
        if mimetype.strip() == MIME[key]:
            return "office", key
    raise UnsupportedType("unsupported type: a zip archive; add its files one by one")


def _ole_kind(data: bytes) -> tuple[Kind, str]:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise DocumentRejected("encrypted: it needs a password")
    for stream, key in _OLE_STREAMS.items():
        if stream.encode("utf-16-le") in data:
            return "office", key
    raise UnsupportedType("unsupported type: an old Office container that is no DOC, XLS, PPT or MSG")


def _text_kind(data: bytes, suffix: str) -> tuple[Kind, str]:
    head = decode(data[:8192], partial=True)
    if suffix not in ("md", "markdown", "csv", "tsv") and _HTML.search(head[:2048]):
        return "html", "html"
    if suffix in ("html", "htm", "xhtml") and re.search(r"<[a-zA-Z]+[^>]*>", head):
        return "html", "html"
    if suffix == "pdf":
        raise DocumentRejected("damaged: this is no PDF, though its name says so")
    if _looks_like_mail(head, suffix):
        return "eml", ""
    if suffix in ("csv", "tsv"):
        return "csv", ""
    return ("markdown" if suffix in ("md", "markdown", "mdx") else "text"), ""


def _looks_like_mail(head: str, suffix: str) -> bool:
    names = {name.lower() for name in _MAIL_HEADER.findall(clean(head).lstrip().split("\n\n", 1)[0])}
    if suffix in ("eml", "mht", "mhtml"):
        return bool(names & {"from", "to", "subject", "date", "received", "mime-version", "message-id"})
    starts = re.match(r"\s*(From |[A-Za-z][A-Za-z0-9-]*:)", head) is not None
    return starts and "from" in names and bool(names & {"received", "mime-version", "message-id"})


# ---- text encodings ----


def _wide_encoding(sample: bytes) -> str | None:
    """UTF-16 without BOM, told by where the zero bytes of its ASCII characters stand."""
    half = len(sample) // 2
    if half < 2 or sample.count(0) * 4 < half:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd * 2 > half and even * 10 < half:
        return "utf-16-le"
    if even * 2 > half and odd * 10 < half:
        return "utf-16-be"
    return None


def _legacy_encoding(data: bytes) -> str:
    """The encoding of text that is not all UTF-8: slightly damaged UTF-8, Western text, or what detection finds."""
    high = [index for index, byte in enumerate(data[:1_000_000]) if byte > 127]
    begin = max(0, high[0] - 200) if high else 0
    sample = data[begin : begin + 32_768]
    count = sum(byte > 127 for byte in sample)
    damaged = sample.decode("utf-8", errors="replace").count("\ufffd")
    if damaged * 10 < count:
        return "utf-8"
    # Short or mostly ASCII text tells a detector too little: Western European is by far the likeliest then.
    if count < 8 or count * 25 < len(sample):
        return "cp1252" if not set(sample) & {0x81, 0x8D, 0x8F, 0x90, 0x9D} else "latin-1"
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best else "latin-1"


# ---- PDF ----


def _pdf(data: bytes) -> Extracted:
    """Text by pdfium, in the file's own reading order, one `Page` per page; headings told by size and weight."""
    import pypdfium2
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            raise DocumentRejected("encrypted: it needs a password") from error
        raise DocumentRejected("damaged: this PDF cannot be opened") from error
    pages: list[list[Line]] = []
    unreadable = 0
    try:
        for index in range(len(document)):
            try:
                page = document[index]
                pages.append(_pdf_lines(page.get_textpage(), raw))
                page.close()
            except pypdfium2.PdfiumError:
                unreadable += 1
                pages.append([])
        metadata_title = document.get_metadata_value("Title")
    finally:
        document.close()
    if not pages or unreadable == len(pages):
        raise DocumentRejected("damaged: this PDF has no readable page")
    if not any(line.text.strip() for lines in pages for line in lines):
        raise DocumentRejected("no text; needs OCR")
    return _assemble_pdf(pages, metadata_title)


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


def _pdf_lines(textpage: object, raw: object) -> list[Line]:
    """Split a page's text at its line ends and measure each line by its first and last character."""
    text: str = textpage.get_text_range()  # type: ignore[attr-defined]
    lines = []
    position = 0
    for part in text.split("\n"):
        stripped = part.strip()
        if stripped:
            first = position + part.index(stripped[0])
            last = first + len(stripped) - 1
            lines.append(_measure(textpage, raw, stripped, first, last))
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
            dropped |= {i for i in (0, len(lines) - 1) if lines and _PAGE_NUMBER.fullmatch(lines[i].text)}
        kept.append([line for index, line in enumerate(lines) if index not in dropped])
    return kept if any(kept) else list(pages)


def _place(line: Line) -> tuple[str, int]:
    """A line's text but for a page number at one of its ends, and its height on the page."""
    return re.sub(r"^\d+\b|\b\d+$", "0", line.text), round(line.top)


# ---- Office, by xberg ----


def _extract(data: bytes, mime: str, pages: bool = False) -> ExtractedDocument:
    from xberg import (
        ConversionOptions,
        ExtractInput,
        ExtractionConfig,
        PageConfig,
        SecurityLimits,
        XbergError,
        extract,
    )

    config = ExtractionConfig(
        output_format="markdown",
        use_cache=False,
        disable_ocr=True,
        escape_markdown=False,
        enable_quality_processing=False,
        extraction_timeout_secs=None,
        pages=PageConfig(extract_pages=True) if pages else None,
        security_limits=SecurityLimits(max_table_cells=MAX_TABLE_CELLS),
        html_options=ConversionOptions(
            extract_metadata=False,
            compact_tables=True,
            skip_images=True,
            exclude_selectors=_hidden_selectors(data) if mime == MIME["html"] else [],
        ),
    )
    try:
        result = asyncio.run(extract(ExtractInput(kind="bytes", bytes=data, mime_type=mime), config))
    except (RuntimeError, ValueError, XbergError) as error:
        reason = " ".join(str(error).split())[:200]
        word = "encrypted" if "password" in reason.lower() or "encrypt" in reason.lower() else "damaged or unreadable"
        raise DocumentRejected(f"{word}: {reason}") from error
    if not result.results:
        reasons = "; ".join(item.message for item in result.errors) or "nothing was extracted"
        raise DocumentRejected(f"damaged or unreadable: {reasons[:200]}")
    return result.results[0]


def _office(data: bytes, key: str) -> Extracted:
    result = _extract(data, MIME[key])
    text = _tidy(result.content)
    metadata = result.metadata
    title = usable_title(metadata.title) or (usable_title(metadata.subject) if key == "msg" else None)
    return Extracted(text=text, title=title or usable_title(first_heading(text)), markdown=True)


def _pptx(data: bytes) -> Extracted:
    """One `Page` per slide; the speaker's notes follow the slide's own text."""
    result = _extract(data, MIME["pptx"], pages=True)
    contents = [slide.content for slide in result.pages or []]
    order, all_notes = _slide_order(data)
    if sorted(order) != list(range(len(contents))):
        order, all_notes = list(range(len(contents))), {}
    texts, ranges, offset = [], [], 0
    for number, position in enumerate(order, start=1):
        text = _tidy(_bold_headings(contents[position]))
        notes = clean(all_notes.get(position, "")).strip()
        if notes:
            text = f"{text}\n\nNotes: {notes}" if text else f"Notes: {notes}"
        texts.append(text)
        ranges.append(Page(number, offset, offset + len(text)))
        offset += len(text) + 2
    text = "\n\n".join(texts)
    title = usable_title(result.metadata.title) or usable_title(first_heading(text))
    return Extracted(text=text, title=title, pages=tuple(ranges), markdown=True)


def _slide_order(data: bytes) -> tuple[list[int], dict[int, str]]:
    """The slides as shown, and their notes, both by position among the slide files.

    xberg 1.3 gives slides in the order of their files, and notes by file number: wrong once slides were moved.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        shown = re.findall(r'<p:sldId\b[^>]*?\br:id="([^"]+)"', _part(archive, "ppt/presentation.xml"))
        slides = _relations(archive, "ppt/_rels/presentation.xml.rels", "/slide")
        names = [PurePosixPath(slides.get(relation, "")).name for relation in shown]
        files = sorted(set(names), key=lambda name: (len(name), name))
        notes = {}
        for position, name in enumerate(files):
            for target in _relations(archive, f"ppt/slides/_rels/{name}.rels", "/notesSlide").values():
                notes[position] = _notes_text(_part(archive, f"ppt/notesSlides/{PurePosixPath(target).name}"))
    return [files.index(name) for name in names], notes


def _part(archive: zipfile.ZipFile, name: str) -> str:
    try:
        return archive.open(name).read(MAX_PART_BYTES).decode("utf-8", "replace")
    except (KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        return ""  # an optional part of a file that the converter could read


def _relations(archive: zipfile.ZipFile, name: str, kind: str) -> dict[str, str]:
    found = {}
    for tag in re.findall(r"<Relationship\b[^>]*>", _part(archive, name)):
        attributes = dict(re.findall(r'\b(Id|Type|Target)="([^"]*)"', tag))
        if attributes.get("Type", "").endswith(kind):
            found[attributes.get("Id", "")] = attributes.get("Target", "")
    return found


def _notes_text(xml: str) -> str:
    """The text of the notes' body, a line per paragraph; not the slide number and date beside it."""
    for shape in re.findall(r"<p:sp>.*?</p:sp>|<p:sp .*?</p:sp>", xml, re.DOTALL):
        if re.search(r'<p:ph\b[^>]*\btype="body"', shape):
            paragraphs = re.findall(r"<a:p>.*?</a:p>|<a:p .*?</a:p>", shape, re.DOTALL)
            texts = ("".join(re.findall(r"<a:t>([^<]*)</a:t>", paragraph)) for paragraph in paragraphs)
            return html.unescape("\n".join(text for text in texts if text.strip()))
    return ""


def _bold_headings(text: str) -> str:
    """A paragraph that is bold as a whole is a slide's inner heading."""
    return re.sub(r"^\*\*([^*\n]{2,100}?)\s*\*\*\s*$", r"### \1", text, flags=re.MULTILINE)


def _workbook(data: bytes, key: str) -> Extracted:
    """One `Page` per sheet, one line per row: each value with its column's name, so that a row explains itself."""
    result = _extract(data, MIME[key], pages=True)
    names = {page.page_number: page.sheet_name for page in result.pages or []}
    texts, ranges, offset = [], [], 0
    for table in result.tables:
        lines = _rows_as_text(table.cells)
        if not lines:
            continue
        text = "\n".join([f"## {clean(names.get(table.page_number) or f'Sheet {table.page_number}')}", "", *lines])
        texts.append(text)
        ranges.append(Page(table.page_number, offset, offset + len(text)))
        offset += len(text) + 2
    title = usable_title(result.metadata.title)
    return Extracted(text="\n\n".join(texts), title=title, pages=tuple(ranges), markdown=True)


_LINK = re.compile(r"(!?)\[([^\[\]\n]*)\]\(<?([^()\s<>]*(?:\([^()\s]*\)[^()\s]*)*)>?(?:\s+\"[^\"\n]*\")?\)")


def _tidy(text: str) -> str:
    """Take what a reader does not see out of generated Markdown: escapes, image targets, relative link targets."""
    parts = re.split(r"(^```.*?^```\s*$)", clean(text), flags=re.MULTILINE | re.DOTALL)
    for index in range(0, len(parts), 2):
        part = _LINK.sub(_plain_link, parts[index])
        part = re.sub(r"\\?</?u\\?>|\[cmt:\d+\]", "", part)
        part = re.sub(r"(?<!^)\\([<>~_*\[\]()#+.!`-])", r"\1", part, flags=re.MULTILINE)
        part = re.sub(r"^\\([<>~_*\[\]()+.!-])", r"\1", part, flags=re.MULTILINE)
        part = re.sub(r"^#{1,6}[ \t]*$", "", part, flags=re.MULTILINE)
        parts[index] = re.sub(r"[ \t]+$", "", part, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip()


def _plain_link(match: re.Match[str]) -> str:
    image, label, target = match.groups()
    keep = not image and target.startswith(("http://", "https://")) and len(target) <= 100 and target != label
    return f"[{label}]({target})" if keep else label


# ---- HTML ----

_TITLE_TAG = re.compile(r"<title\b[^>]*>(.*?)</title\s*>", re.IGNORECASE | re.DOTALL)
_PREFORMATTED = re.compile(r"(<(pre|textarea)\b.*?</\2\s*>)", re.IGNORECASE | re.DOTALL)
_WRAPPED = re.compile(r"(?<![>\s])[ \t]*\n\s*|\s*\n[ \t]*(?![<\s])")
_BLANK_ELEMENT = re.compile(
    r"<(h[1-6]|li)\b[^<>]*>(?:\s|&nbsp;|&#160;|<(?!/?(?:h[1-6]|li|ul|ol|img)\b)[^<>]*>)*</\1\s*>", re.IGNORECASE
)
_DROPPED = re.compile(r"<!--.*?-->|<(script|style|template|svg)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)


def _html(source: str) -> Extracted:
    """The visible text as Markdown; hidden elements, scripts, styles and comments are left out."""
    tag = _TITLE_TAG.search(source)
    parts = _PREFORMATTED.split(clean(source))
    # split() yields text, block, block's tag name, text, …: only the texts lose their line wraps.
    rebuilt = [_WRAPPED.sub(" ", part) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 != 2]
    # The converter panics on a heading or list item of white space only (html-to-markdown 3.17).
    page = _BLANK_ELEMENT.sub("", "".join(rebuilt))
    try:
        text = _tidy(_extract(page.encode(), MIME["html"]).content)
    except DocumentRejected:
        text = ""
    text = text or _visible_text(source)
    title = usable_title(html.unescape(re.sub(r"<[^>]*>", "", tag.group(1)))) if tag else None
    return Extracted(text=text, title=title or usable_title(first_heading(text)), markdown=True)


def _visible_text(source: str) -> str:
    """Plain text of a page that the converter cannot take (nested thousands deep)."""
    body = re.sub(r"<head\b.*?</head\s*>", "", _DROPPED.sub("", source), flags=re.IGNORECASE | re.DOTALL)
    body = re.sub(
        r"<h([1-6])\b[^<>]*>\s*", lambda match: "\n" + "#" * int(match.group(1)) + " ", body, flags=re.IGNORECASE
    )
    body = re.sub(r"</?(p|div|br|li|tr|h[1-6]|section|article)\b[^<>]*>", "\n", body, flags=re.IGNORECASE)
    lines = (" ".join(line.split()) for line in clean(html.unescape(re.sub(r"<[^<>]*>", "", body))).split("\n"))
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


def _hidden_selectors(data: bytes) -> list[str]:
    """CSS selectors of what the page's author hides: inline styles, and rules of its own style sheets."""
    selectors = ["svg", "template", "noscript", "[hidden]"]
    for declaration in ("display:none", "visibility:hidden", "font-size:0", "opacity:0"):
        name, value = declaration.split(":")
        if value == "0":
            selectors += [f'[style*="{name}:{value};"]', f'[style*="{name}: {value};"]']
            selectors += [f'[style$="{name}:{value}"]', f'[style$="{name}: {value}"]', f'[style*="{name}:{value}px"]']
        else:
            selectors += [f'[style*="{declaration}"]', f'[style*="{name}: {value}"]']
    styles = re.findall(
        r"<style\b[^>]*>(.{0,200000}?)</style", data.decode("utf-8", "replace"), re.IGNORECASE | re.DOTALL
    )
    for sheet in styles:
        sheet = re.sub(r"/\*.*?\*/|@[^{}]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", sheet, flags=re.DOTALL)
        for names, body in re.findall(r"([^{}]{1,300})\{([^{}]*)\}", sheet):
            if re.search(r"display\s*:\s*none|visibility\s*:\s*hidden", body, re.IGNORECASE):
                selectors += [n for n in map(str.strip, names.split(",")) if re.fullmatch(r"[.#][A-Za-z][\w-]*", n)]
    return selectors


# ---- mail ----


def _eml(data: bytes, depth: int) -> Extracted:
    """Headers, body and attachments; an attachment that cannot be read is named with the reason."""
    from email import message_from_bytes, policy

    message = message_from_bytes(data.lstrip(), policy=policy.default)
    subject = _header(message, "Subject")
    head = [f"{name}: {value}" for name in ("From", "To", "Cc", "Date", "Subject") if (value := _header(message, name))]
    blocks = ["\n".join(head), *_mail_parts(message, depth)]
    text = "\n\n".join(block for block in blocks if block)
    return Extracted(text=clean(text), title=usable_title(subject), markdown=True)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message[name] or "").split())
    except (ValueError, IndexError, AttributeError, TypeError, KeyError):
        # The library's header parser fails on some malformed headers: the raw text serves then.
        raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return " ".join(str(raw).split())


def _mail_parts(message: EmailMessage, depth: int) -> list[str]:
    body = message.get_body(preferencelist=("plain", "html"))
    blocks = [_body_text(body)] if body is not None else []
    attachments = [part for part in message.walk() if part is not message and _is_attachment(part, body)]
    inside: set[int] = set()
    for part in attachments[:MAX_ATTACHMENTS]:
        if id(part) in inside:
            continue
        inside.update(id(child) for child in part.walk())
        blocks.append(_attachment_text(part, depth))
    return blocks


def _is_attachment(part: EmailMessage, body: object) -> bool:
    if part.get_content_type() == "message/rfc822":
        return True
    if part.is_multipart() or part is body:
        return False
    return part.get_content_disposition() == "attachment" or part.get_filename() is not None


def _body_text(part: MIMEPart) -> str:
    raw = part.get_payload(decode=True)
    data = raw if isinstance(raw, bytes) else b""
    charset = part.get_content_charset()
    try:
        text = data.decode(charset) if charset else decode(data)
    except (LookupError, UnicodeDecodeError):
        text = decode(data)
    if part.get_content_type() == "text/html" and text.strip():
        return _html(text).text
    return clean(text).strip()


def _attachment_text(part: EmailMessage, depth: int) -> str:
    from email.message import Message

    name = PurePosixPath(" ".join((part.get_filename() or "").split()).replace("\\", "/")).name
    if depth >= MAX_ATTACHMENT_DEPTH:
        return f"Attachment {name or 'message'} was not read: mails are nested more than {MAX_ATTACHMENT_DEPTH} deep."
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload()
        data = inner[0].as_bytes() if isinstance(inner, list) and isinstance(inner[0], Message) else b""
        name = name or "message.eml"
    else:
        raw = part.get_payload(decode=True)
        data = raw if isinstance(raw, bytes) else b""
    try:
        extracted = _parse(data, name or "attachment", depth + 1)
    except (DocumentRejected, UnsupportedType) as error:
        return f"Attachment {name or 'without name'} was not read: {error.detail}."
    return f"## Attachment: {clean(name or extracted.title or 'without name')}\n\n{extracted.text.strip()}"


# ---- CSV and Markdown ----


def _csv(source: str) -> Extracted:
    text = clean(source)
    csv.field_size_limit(max(131_072, len(text)))
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=_delimiter(text)))
    except csv.Error as error:
        raise DocumentRejected(f"damaged: no valid CSV: {error}") from error
    return Extracted(text="\n".join(_rows_as_text(rows)))


def _delimiter(text: str) -> str:
    """The separator that gives the first rows the most equal number of columns."""
    sample = "\n".join(text.split("\n", 30)[:30])

    def fit(candidate: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(io.StringIO(sample), delimiter=candidate) if row]
        usual = max(set(widths), key=widths.count, default=1)
        return (widths.count(usual) / len(widths), usual) if usual > 1 else (0.0, 1)

    return max(",;\t|", key=fit)


def _rows_as_text(rows: Iterable[Sequence[str | None]]) -> list[str]:
    """`column: value; column: value` for each row; `value | value` where the first row is no header."""
    table = [[" ".join((cell or "").split()) for cell in row] for row in rows]
    table = [row for row in table if any(row)]
    if not table:
        return []
    header = table[0]
    if not _is_header(header) or len(table) == 1:
        return [" | ".join(cell for cell in row if cell) for row in table]
    names = [name or f"column {index}" for index, name in enumerate(header, start=1)]
    lines = []
    for row in table[1:]:
        named = zip([*names, *(f"column {index}" for index in range(len(names) + 1, len(row) + 1))], row, strict=False)
        lines.append("; ".join(f"{name}: {value}" for name, value in named if value))
    return lines


def _is_header(row: Sequence[str]) -> bool:
    filled = [cell for cell in row if cell]
    words = sum(any(map(str.isalpha, cell)) for cell in filled)
    return len(set(filled)) == len(filled) and words * 2 > len(filled) and len(filled) * 2 >= len(row)


_FRONT_MATTER = re.compile(r"\A---\n(.{0,20000}?)\n(---|\.\.\.)[ \t]*(\n|\Z)", re.DOTALL)
_FENCE = re.compile(r"(^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\2[`~]*[ \t]*$|\Z))", re.MULTILINE | re.DOTALL)


def _markdown(source: str) -> Extracted:
    """The text as written, without front matter and comments."""
    text = clean(source)
    title = None
    front = _FRONT_MATTER.match(text)
    if front:
        named = re.search(r"^title:[ \t]*(.+)$", front.group(1), re.MULTILINE)
        title = usable_title(named.group(1).strip().strip("\"'")) if named else None
        text = text[front.end() :]
    parts = _FENCE.split(text)
    # split() yields text, fenced block, its marker, text, …
    text = "".join(
        re.sub(r"<!--.*?-->", "", part, flags=re.DOTALL) if i % 3 == 0 else part
        for i, part in enumerate(parts)
        if i % 3 != 2
    )
    return Extracted(text=text.strip("\n"), title=title or usable_title(first_heading(text)), markdown=True)


_HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$|^([^\n#>|`\s-][^\n]{0,200})\n(?:=+|-{3,})[ \t]*$", re.MULTILINE
)


def first_heading(text: str) -> str | None:
    """The first heading of Markdown text, without its emphasis marks."""
    match = _HEADING.search(_FENCE.sub("", text[:200_000]))
    if not match:
        return None
    heading = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", match.group(1) or match.group(2))
    return re.sub(r"[*_`]{1,3}(\S(?:.*?\S)?)[*_`]{1,3}", r"\1", heading).strip() or None
