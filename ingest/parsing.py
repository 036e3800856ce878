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
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from index.document import Extracted, Page
from ingest.archives import NO_ARCHIVE
from ingest.cleaning import FENCE, clean, cleaned, cut_blocks, first_heading, usable_title
from ingest.detection import MIME, Kind, decode, detect
from ingest.hidden import Taken
from ingest.hidden_html import without_hidden
from ingest.hidden_sheets import strip_sheets
from ingest.hidden_slides import strip_slides
from ingest.hidden_word import strip_word
from ingest.mail import MAX_ATTACHMENT_DEPTH, parse_mail
from ingest.office_parts import OfficeParts, Strip
from ingest.pdf import parse_pdf
from policies.errors import DocumentRejected

if TYPE_CHECKING:
    from xberg import ExtractedDocument

PARSER_VERSION = 3
"""Raise it when a file would be read differently: what was given up is then tried again."""
MAX_TABLE_CELLS = 5_000_000
MAX_PART_BYTES = 10_000_000
MAX_LEFT_OUT = 20
MAX_HTML_DEPTH = 512
"""Blink and WebKit nest elements no deeper than this either."""
MAX_COLUMNS = 16_384
"""Those of a spreadsheet program: a wider file is no table."""
MAX_COLUMN_NAME_CHARS = 200
"""A column's name stands in each row's text again."""
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def parse(data: bytes, name: str) -> Extracted:
    """Extract the text of one file, without what its readers do not see. `name` is a hint where content cannot tell.

    Raises `DocumentRejected` where the file is empty, damaged, encrypted or holds no text, `UnsupportedType` where
    nothing here reads it.
    """
    return _parsed(data, name, Taken())


def parse_keeping(data: bytes, name: str) -> Extracted:
    """Do what `parse` does, but keep what its readers do not see, and only count it (characters without a width go)."""
    return _parsed(data, name, Taken(keep=True))


def _parsed(data: bytes, name: str, taken: Taken) -> Extracted:
    extracted = _parse(data, name, 0, taken)
    return replace(extracted, hidden=taken.as_pairs())


def _parse(data: bytes, name: str, depth: int, taken: Taken) -> Extracted:
    if not data.strip(b"\x00 \t\r\n\x0c\xef\xbb\xbf\xff\xfe"):
        raise DocumentRejected("empty")
    kind, key = detect(data, name)
    readers: dict[Kind, Callable[[], Extracted]] = {
        "pdf": lambda: parse_pdf(data, taken),
        "docx": lambda: _office(_stripped(data, strip_word, taken), key, taken),
        "pptx": lambda: _pptx(_stripped(data, strip_slides, taken), taken),
        "xlsx": lambda: _workbook(_stripped(data, strip_sheets, taken), key, taken),
        "office": lambda: _workbook(data, key, taken) if key in ("xls", "ods") else _office(data, key, taken),
        "html": lambda: _html(_counted(decode(data), taken), taken),
        "eml": lambda: _mail(data, depth, taken),
        "csv": lambda: _csv(_counted(decode(data), taken)),
        "markdown": lambda: _markdown(_counted(decode(data), taken), taken),
        "text": lambda: Extracted(text=_counted(decode(data), taken)),
    }
    extracted = readers[kind]()
    if _LETTER_OR_DIGIT.search(extracted.text) is None:
        raise DocumentRejected("empty: the file holds no text")
    return extracted


def _counted(text: str, taken: Taken) -> str:
    """Clean a text, and count what nobody sees of it."""
    text, unseen = cleaned(text)
    taken.add_unseen(unseen)
    return text


def _stripped(data: bytes, strip: Strip, taken: Taken) -> bytes:
    """An Office file without what its readers do not see; the same bytes where there is nothing of it."""
    parts = OfficeParts(data)
    strip(parts, taken)
    return data if taken.keep else parts.data()


def _mail(data: bytes, depth: int, taken: Taken) -> Extracted:
    def read_page(page: str) -> str:
        return _html(_counted(page, taken), taken).text

    def read_attachment(attached: bytes, name: str) -> Extracted:
        return _parse(attached, name, depth + 1, taken)

    extracted = parse_mail(data, read_page, read_attachment if depth < MAX_ATTACHMENT_DEPTH else None)
    return replace(extracted, text=_counted(extracted.text, taken))


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
            exclude_selectors=["svg", "template", "noscript"] if mime == MIME["html"] else [],
        ),
    )
    try:
        result = asyncio.run(extract(ExtractInput(kind="bytes", bytes=data, mime_type=mime), config))
    except (RuntimeError, ValueError, XbergError) as error:
        raise DocumentRejected(_reason(str(error))) from error
    if not result.results:
        raise DocumentRejected(_reason("; ".join(item.message for item in result.errors) or "nothing was extracted"))
    return result.results[0]


_LEFT_OUT = re.compile(r"was (?:skipped|not extracted)")
_SAFETY = re.compile(r".*\bSecurity (?:limit exceeded|violation): *", re.DOTALL)


def _reason(said: str) -> str:
    """One sentence out of what the converter says of a file that it refuses."""
    said = " ".join(said.split())
    refused = _SAFETY.match(said)
    if refused:
        return f"refused for safety: {said[refused.end() :][:200]}"
    word = "encrypted" if "password" in said.lower() or "encrypt" in said.lower() else "damaged or unreadable"
    return f"{word}: {said[:200]}"


def _with_unread(text: str, result: ExtractedDocument) -> str:
    """Add what the converter left out, in its own words. Raises `DocumentRejected` where nothing else is there."""
    messages = (" ".join(str(warning.message).split())[:300] for warning in result.processing_warnings)
    left_out = [message for message in messages if _LEFT_OUT.search(message)][:MAX_LEFT_OUT]
    if left_out and not text.strip():
        raise DocumentRejected(f"damaged or unreadable: {left_out[0]}")
    return "\n\n".join([text, *(f"Not read: {message}." for message in left_out)])


def _office(data: bytes, key: str, taken: Taken) -> Extracted:
    result = _extract(data, MIME[key])
    text = _with_unread(_tidy(_counted(result.content, taken)), result)
    metadata = result.metadata
    title = usable_title(metadata.title) or (usable_title(metadata.subject) if key == "msg" else None)
    return Extracted(text=text, title=title or usable_title(first_heading(text)), markdown=True)


_EMPTY_SLIDE = re.compile(r"-{3,}")
"""What xberg 1.3 gives for a slide without text."""


def _pptx(data: bytes, taken: Taken) -> Extracted:
    """One `Page` per slide; the speaker's notes follow the slide's own text."""
    result = _extract(data, MIME["pptx"], pages=True)
    contents = [slide.content for slide in result.pages or []]
    order, all_notes = _slide_order(data)
    if sorted(order) != list(range(len(contents))):
        order, all_notes = list(range(len(contents))), {}
    texts, ranges, offset = [], [], 0
    for number, position in enumerate(order, start=1):
        text = _tidy(_bold_headings(_counted(contents[position], taken)))
        text = "" if _EMPTY_SLIDE.fullmatch(text) else text
        notes = _counted(all_notes.get(position, ""), taken).strip()
        if notes:
            text = f"{text}\n\nNotes: {notes}" if text else f"Notes: {notes}"
        texts.append(text)
        ranges.append(Page(number, offset, offset + len(text)))
        offset += len(text) + 2
    text = _with_unread("\n\n".join(texts), result)
    title = usable_title(result.metadata.title) or usable_title(first_heading(text))
    return Extracted(text=text, title=title, pages=tuple(ranges), markdown=True)


def _slide_order(data: bytes) -> tuple[list[int], dict[int, str]]:
    """The slides as shown, and their notes, both by position among the slide files.

    xberg 1.3 gives slides in the order of their files, and notes by file number: wrong once slides were moved.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        tags = re.findall(r"<p:sldId\b[^<>]*>", _part(archive, "ppt/presentation.xml"))
        shown = [found.group(1) for tag in tags if (found := re.search(r'\br:id="([^"]+)"', tag))]
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
    except (KeyError, *NO_ARCHIVE):
        return ""  # an optional part of a file that the converter could read


def _relations(archive: zipfile.ZipFile, name: str, kind: str) -> dict[str, str]:
    found = {}
    for tag in re.findall(r"<Relationship\b[^<>]*>", _part(archive, name)):
        attributes = dict(re.findall(r'\b(Id|Type|Target)="([^"]*)"', tag))
        if attributes.get("Type", "").endswith(kind):
            found[attributes.get("Id", "")] = attributes.get("Target", "")
    return found


_SHAPE = re.compile(r"<p:sp[ >]")
_PARAGRAPH = re.compile(r"<a:p[ >]")


def _notes_text(xml: str) -> str:
    """The text of the notes' body, a line per paragraph; not the slide number and date beside it."""
    for shape in cut_blocks(xml, _SHAPE, lambda _: "</p:sp>")[1::2]:
        if re.search(r'<p:ph\b[^<>]*\btype="body"', shape):
            paragraphs = cut_blocks(shape, _PARAGRAPH, lambda _: "</a:p>")[1::2]
            texts = ("".join(re.findall(r"<a:t>([^<]*)</a:t>", paragraph)) for paragraph in paragraphs)
            return html.unescape("\n".join(text for text in texts if text.strip()))
    return ""


def _bold_headings(text: str) -> str:
    """A paragraph that is bold as a whole is a slide's inner heading."""
    return re.sub(
        r"^\*\*([^*\n]{2,100})\*\*[ \t]*$", lambda match: f"### {match.group(1).rstrip()}", text, flags=re.MULTILINE
    )


def _workbook(data: bytes, key: str, taken: Taken) -> Extracted:
    """One `Page` per sheet, one line per row: each value with its column's name, so that a row explains itself."""
    result = _extract(data, MIME[key], pages=True)
    names = {page.page_number: page.sheet_name for page in result.pages or []}
    texts, ranges, offset = [], [], 0
    for table in result.tables:
        lines = _rows_as_text(table.cells)
        if not lines:
            continue
        name = clean(names.get(table.page_number) or f"Sheet {table.page_number}")
        text = _counted("\n".join([f"## {name}", "", *lines]), taken)
        texts.append(text)
        ranges.append(Page(table.page_number, offset, offset + len(text)))
        offset += len(text) + 2
    text = _with_unread("\n\n".join(texts), result)
    return Extracted(text=text, title=usable_title(result.metadata.title), pages=tuple(ranges), markdown=True)


_CODE = re.compile(r"^```", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\[\]\n]*)\]\(<?([^()\s<>]*(?:\([^()\s]*\)[^()\s]*)*)>?(?:\s+\"[^\"\n]*\")?\)")


def _tidy(text: str) -> str:
    """Take what a reader does not see out of generated Markdown: escapes, image targets, relative link targets."""
    parts = cut_blocks(clean(text), _CODE, lambda _: r"^```[ \t]*$")
    for index in range(0, len(parts), 2):
        part = _LINK.sub(_plain_link, parts[index])
        part = re.sub(r"\\?</?u\\?>|\[cmt:\d+\]", "", part)
        part = re.sub(r"(?<!^)\\([<>~_*\[\]()#+.!`-])", r"\1", part, flags=re.MULTILINE)
        part = re.sub(r"^\\([<>~_*\[\]()+.!-])", r"\1", part, flags=re.MULTILINE)
        part = re.sub(r"^#{1,6}[ \t]*$", "", part, flags=re.MULTILINE)
        parts[index] = re.sub(r"(?<![ \t])[ \t]+$", "", part, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip()


def _plain_link(match: re.Match[str]) -> str:
    image, label, target = match.groups()
    keep = not image and target.startswith(("http://", "https://")) and len(target) <= 100 and target != label
    return f"[{label}]({target})" if keep else label


# ---- HTML ----

_TITLE_TAG = re.compile(r"<(title)\b[^<>]*>", re.IGNORECASE)
_PREFORMATTED = re.compile(r"<(pre|textarea)\b", re.IGNORECASE)
# A run of white space is looked at from its start only: a run that the expression refuses costs its length once.
_WRAPPED = re.compile(r"(?<![>\s])[^\S\n]*\n\s*|(?<=>)[^\S\n]*\n\s*(?![<\s])")
_BLANK_ELEMENT = re.compile(
    r"<(h[1-6]|li)\b[^<>]*>(?:\s|&nbsp;|&#160;|<(?!/?(?:h[1-6]|li|ul|ol|img)\b)[^<>]*>)*</\1\s*>", re.IGNORECASE
)
_COMMENT = re.compile(r"<!--")
_DROPPED = re.compile(r"<!--|<(script|style|template|svg)\b", re.IGNORECASE)
_HEAD = re.compile(r"<(head)\b", re.IGNORECASE)
_BOX = re.compile(r"<(/?)(?:div|ul|ol|dl|table|blockquote|section|article|details|figure|aside)\b", re.IGNORECASE)


def _closing(tag: str) -> str:
    return rf"</{tag}\s*>" if tag else "-->"


def _html(source: str, taken: Taken) -> Extracted:
    """The visible text as Markdown; hidden elements, scripts, styles and comments are left out."""
    source = without_hidden(source, taken)
    titles = cut_blocks(source, _TITLE_TAG, _closing)[1:2]
    parts = cut_blocks(clean(source), _PREFORMATTED, _closing)
    rebuilt = [part if index % 2 else _WRAPPED.sub(" ", part) for index, part in enumerate(parts)]
    # The converter panics on a heading or list item of white space only (html-to-markdown 3.17).
    page = _BLANK_ELEMENT.sub("", "".join(rebuilt))
    text = "" if _is_too_deep(page) else _converted(page)
    text = text or _visible_text(source)
    title = usable_title(html.unescape(re.sub(r"<[^<>]*>", "", titles[0]))) if titles else None
    return Extracted(text=text, title=title or usable_title(first_heading(text)), markdown=True)


def _converted(page: str) -> str:
    try:
        return _tidy(_extract(page.encode(), MIME["html"]).content)
    except DocumentRejected:
        return ""


def _is_too_deep(page: str) -> bool:
    """Whether boxes stand in boxes so deep that the converter loses text, or its stack (nested lists: a crash)."""
    depth = 0
    for tag in _BOX.finditer("".join(cut_blocks(page, _DROPPED, _closing)[::2])):
        depth = max(0, depth - 1) if tag.group(1) else depth + 1
        if depth > MAX_HTML_DEPTH:
            return True
    return False


def _visible_text(source: str) -> str:
    """Plain text of a page that the converter cannot take (nested thousands deep)."""
    body = "".join(cut_blocks(source, _DROPPED, _closing)[::2])
    body = "".join(cut_blocks(body, _HEAD, _closing)[::2])
    body = re.sub(
        r"<h([1-6])\b[^<>]*>\s*", lambda match: "\n" + "#" * int(match.group(1)) + " ", body, flags=re.IGNORECASE
    )
    body = re.sub(r"</?(p|div|br|li|tr|h[1-6]|section|article)\b[^<>]*>", "\n", body, flags=re.IGNORECASE)
    lines = (" ".join(line.split()) for line in clean(html.unescape(re.sub(r"<[^<>]*>", "", body))).split("\n"))
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


# ---- CSV and Markdown ----


def _csv(source: str) -> Extracted:
    text = clean(source)
    csv.field_size_limit(max(131_072, len(text)))
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=_delimiter(text)))
    except csv.Error as error:
        raise DocumentRejected(f"damaged: no valid CSV: {error}") from error
    widest = max(map(len, rows), default=0)
    if widest > MAX_COLUMNS:
        raise DocumentRejected(f"a row of it has {widest} columns, more than {MAX_COLUMNS}")
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
    names = [name[:MAX_COLUMN_NAME_CHARS] or f"column {index}" for index, name in enumerate(header, start=1)]
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


_DEFINITION = re.compile(
    r"^ {0,3}\[([^\[\]\n]{0,200})\]:[ \t]*(<[^<>\n]*>|\S+)([ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'|\([^()\n]*\)))?[ \t]*$",
    re.MULTILINE,
)
_LINK_TITLE = re.compile(r"(\]\([^()\s<>]{0,2000})[ \t\n]+(?:\"[^\"]*\"|'[^']*'|\([^()]*\))[ \t]*\)")
_PLACE = re.compile(r"<?(https?://|mailto:|[./#\w])[^\s<>]*>?")


def _without_comments(text: str, taken: Taken) -> str:
    """Take out of Markdown what no reader of the page sees: comments of all kinds, titles of links, hidden HTML."""
    text = without_hidden("".join(cut_blocks(text, _COMMENT, _closing)[::2]), taken)

    def definition(found: re.Match[str]) -> str:
        label, target, rest = found.groups()
        if label.startswith("^"):
            return found.group()  # a footnote
        is_place = len(label.strip("/ ")) > 0 and target != "#" and _PLACE.fullmatch(target)
        if not is_place or rest:
            taken.add("in link titles", rest if is_place else target + (rest or ""))
        return found.group() if taken.keep else f"[{label}]: {target}" if is_place else ""

    def link(found: re.Match[str]) -> str:
        taken.add("in link titles", found.group()[len(found[1]) : -1])
        return found.group() if taken.keep else f"{found[1]})"

    return _LINK_TITLE.sub(link, _DEFINITION.sub(definition, text))


def _markdown(source: str, taken: Taken) -> Extracted:
    """The text as written, without front matter, comments, titles of links and hidden HTML."""
    text = clean(source)
    title = None
    front = _FRONT_MATTER.match(text)
    if front:
        named = re.search(r"^title:[ \t]*(.+)$", front.group(1), re.MULTILINE)
        title = usable_title(named.group(1).strip().strip("\"'")) if named else None
        text = text[front.end() :]
    parts = FENCE.split(text)
    # split() yields text, fenced block, its marker, text, …
    text = "".join(_without_comments(part, taken) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 != 2)
    return Extracted(text=text.strip("\n"), title=title or usable_title(first_heading(text)), markdown=True)
