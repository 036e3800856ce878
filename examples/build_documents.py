"""Rebuild the binary documents of the demo set from the text under ``examples/sources``.

A source ``sources/<path>.md`` becomes ``documents/<path>``; the extension of ``<path>`` chooses the writer
(pdf, docx, pptx, xlsx, eml). A source opens with ``key: value`` lines between two ``---`` lines and goes on in a
small part of Markdown: ``#``/``##``/``###`` headings, paragraphs, ``-`` and ``1.`` lists, ``|`` tables, ``>`` notes,
``**bold**``. Documents in text formats (md, txt, csv, html, plain eml) are kept as they are and are not built.

Output is reproducible: dates come from the source, archive members carry a fixed time. ``--check`` builds into a
temporary folder and exits 1 where a file differs from the one in the tree.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
DOCUMENTS = HERE / "documents"
COMPANY = "Tarnfell Hydrometry"
NAVY, TEAL, PALE, GREY = "12344D", "1F7A8C", "E8F1F4", "5B6770"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a source: ``kind`` is h1, h2, h3, p, ul, ol, note or table; a table's rows are lists of cells."""

    kind: str
    text: str = ""
    items: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed source file: its header fields and its blocks in order."""

    path: Path
    meta: dict[str, str]
    blocks: tuple[Block, ...]

    @property
    def moment(self) -> dt.datetime:
        """The document's date at nine in the morning, the only time that goes into a built file."""
        return dt.datetime.fromisoformat(f"{self.meta['date']}T09:00:00")


# --- reading -----------------------------------------------------------------------------------------------------


def read_source(path: Path) -> Source:
    """Parse one source file. Raises ValueError where the header is missing."""
    text = path.read_text(encoding="utf-8")
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if head is None:
        raise ValueError(f"{path}: the header between two '---' lines is missing")
    meta = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in head[1].splitlines())}
    return Source(path, meta, tuple(parse_blocks(text[head.end() :])))


def parse_blocks(text: str) -> Iterator[Block]:
    """Split the body at blank lines and name the kind of each part."""
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in part.strip().splitlines()]
        first = lines[0]
        if heading := re.match(r"(#{1,3}) (.*)", first):
            yield Block(f"h{len(heading[1])}", heading[2])
            if len(lines) > 1:
                yield from parse_blocks("\n".join(lines[1:]))
        elif first.startswith("|"):
            yield Block("table", rows=tuple(table_rows(lines)))
        elif first.startswith("> "):
            yield Block("note", " ".join(line.removeprefix("> ") for line in lines))
        elif re.match(r"- |\d+\. ", first):
            kind = "ul" if first.startswith("- ") else "ol"
            yield Block(kind, items=tuple(list_items(lines)))
        else:
            yield Block("p", " ".join(lines))


def table_rows(lines: list[str]) -> Iterator[tuple[str, ...]]:
    """Cells of a pipe table; the dashed rule under the header is dropped."""
    for line in lines:
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            yield cells


def list_items(lines: list[str]) -> Iterator[str]:
    """Join continuation lines to the item they belong to."""
    item = ""
    for line in lines:
        if start := re.match(r"(?:- |\d+\. )(.*)", line):
            if item:
                yield item
            item = start[1]
        else:
            item += " " + line
    yield item


def plain(text: str) -> str:
    """Text without the bold markers."""
    return text.replace("**", "")


def facts(source: Source) -> list[tuple[str, str]]:
    """The rows of the title block, in the order in which they are printed."""
    shown = (("number", "Document"), ("version", "Version"), ("date", "Date"), ("owner", "Owner"))
    return [(label, source.meta[key]) for key, label in shown if key in source.meta]


# --- PDF ---------------------------------------------------------------------------------------------------------


def write_pdf(source: Source, target: Path) -> None:
    """A4 pages with a title block, numbered pages and a running title, in the built-in Helvetica (Windows-1252)."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import SimpleDocTemplate

    source.path.read_text(encoding="utf-8").encode("cp1252")  # a glyph the font lacks fails here, not in print

    class NumberedCanvas(Canvas):  # type: ignore[misc]
        """Holds the pages back until their number is known."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self.held: list[dict[str, object]] = []

        def showPage(self) -> None:
            self.held.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for state in self.held:
                self.__dict__.update(state)
                draw_frame(self, source, len(self.held))
                super().showPage()
            super().save()

    document = SimpleDocTemplate(
        str(target), pagesize=A4, leftMargin=24 * mm - 6, rightMargin=24 * mm - 6, topMargin=26 * mm,
        bottomMargin=24 * mm,
        title=source.meta["title"], author=source.meta["owner"], subject=source.meta.get("subtitle", ""),
        creator=COMPANY, invariant=1,
    )  # fmt: skip
    document.build(pdf_story(source), canvasmaker=NumberedCanvas)


def draw_frame(canvas: object, source: Source, pages: int) -> None:
    """Running header (from page 2 on) and footer of one page."""
    from reportlab.lib.colors import HexColor
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.pdfgen.canvas import Canvas

    assert isinstance(canvas, Canvas)
    width, height = A4
    left, right = 24 * mm, width - 24 * mm
    canvas.setFont("Helvetica", 8)
    canvas.setFillColor(HexColor("#" + GREY))
    canvas.setStrokeColor(HexColor("#" + TEAL))
    canvas.setLineWidth(0.6)
    if canvas.getPageNumber() > 1:
        canvas.drawString(left, height - 17 * mm, source.meta["title"])
        canvas.drawRightString(right, height - 17 * mm, source.meta["number"])
        canvas.line(left, height - 19 * mm, right, height - 19 * mm)
    canvas.line(left, 17 * mm, right, 17 * mm)
    canvas.drawString(left, 12.5 * mm, f"{COMPANY} - {source.meta['class']}")
    canvas.drawRightString(right, 12.5 * mm, f"Page {canvas.getPageNumber()} of {pages}")


def pdf_styles() -> dict[str, object]:
    """Paragraph styles by block kind."""
    from reportlab.lib.colors import HexColor
    from reportlab.lib.styles import ParagraphStyle

    body = ParagraphStyle("p", fontName="Helvetica", fontSize=10, leading=14.6, spaceAfter=7)
    navy, teal = HexColor("#" + NAVY), HexColor("#" + TEAL)
    bold = "Helvetica-Bold"
    make = ParagraphStyle
    return {
        "p": body,
        "item": make("item", parent=body, spaceAfter=3),
        "title": make("title", fontName=bold, fontSize=23, leading=27, textColor=navy, spaceAfter=4),
        "subtitle": make("subtitle", parent=body, fontSize=12, leading=16, textColor=teal, spaceAfter=10),
        "h1": make("h1", fontName=bold, fontSize=14.5, leading=18, textColor=navy, spaceBefore=13, spaceAfter=6),
        "h2": make("h2", fontName=bold, fontSize=11.5, leading=15, textColor=teal, spaceBefore=8, spaceAfter=4),
        "h3": make("h3", fontName=bold, fontSize=10, leading=14, spaceBefore=4, spaceAfter=2),
        "note": make(
            "note", parent=body, backColor=HexColor("#" + PALE), borderPadding=(6, 8, 6, 8), leftIndent=8,
            rightIndent=8, spaceBefore=8, spaceAfter=14,
        ),
        "cell": make("cell", fontName="Helvetica", fontSize=8.8, leading=11.5),
        "head": make("head", fontName=bold, fontSize=8.8, leading=11.5, textColor=HexColor("#FFFFFF")),
    }  # fmt: skip


def markup(text: str) -> str:
    """Escape for a reportlab paragraph and turn ``**`` into bold tags."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))


def pdf_story(source: Source) -> list[object]:
    """The flowables of a whole document, title block first."""
    from reportlab.lib.colors import HexColor
    from reportlab.platypus import HRFlowable, ListFlowable, ListItem, Paragraph, Spacer

    style = pdf_styles()
    story: list[object] = [Paragraph(markup(source.meta["title"]), style["title"])]
    if "subtitle" in source.meta:
        story.append(Paragraph(markup(source.meta["subtitle"]), style["subtitle"]))
    line = "  |  ".join(f"<b>{label}</b> {escape(value)}" for label, value in facts(source))
    story += [Paragraph(line, style["cell"]), Spacer(1, 6)]
    story += [HRFlowable(width="100%", thickness=1.6, color=HexColor("#" + TEAL), spaceAfter=10)]
    for block in source.blocks:
        if block.kind == "table":
            story.append(pdf_table(block, style))
        elif block.kind in ("ul", "ol"):
            items = [ListItem(Paragraph(markup(item), style["item"]), leftIndent=16) for item in block.items]
            bullet: dict[str, object] = {"start": "•"} if block.kind == "ul" else {"bulletFormat": "%s."}
            kind = "bullet" if block.kind == "ul" else "1"
            story += [ListFlowable(items, bulletType=kind, bulletFontSize=9, leftIndent=16, **bullet), Spacer(1, 5)]
        else:
            paragraph = Paragraph(markup(block.text), style[block.kind])
            paragraph.keepWithNext = block.kind.startswith("h")
            story.append(paragraph)
    return story


def pdf_table(block: Block, style: dict[str, object]) -> object:
    """A table over the full width; a column is as wide as its longest text asks for, within limits."""
    from reportlab.lib.colors import HexColor
    from reportlab.lib.units import mm
    from reportlab.platypus import Paragraph, Table, TableStyle

    longest = [min(46, max(9, *(len(row[i]) for row in block.rows))) for i in range(len(block.rows[0]))]
    widths = [162 * mm * part / sum(longest) for part in longest]
    cells = [
        [Paragraph(markup(cell), style["head" if n == 0 else "cell"]) for cell in row]
        for n, row in enumerate(block.rows)
    ]
    table = Table(cells, colWidths=widths, repeatRows=1, spaceBefore=4, spaceAfter=12)
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, 0), HexColor("#" + NAVY)),
                ("ROWBACKGROUNDS", (0, 1), (-1, -1), [HexColor("#FFFFFF"), HexColor("#" + PALE)]),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, HexColor("#B8C7CE")),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 3.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 4.5),
            ]
        )
    )
    return table


# --- DOCX --------------------------------------------------------------------------------------------------------


def write_docx(source: Source, target: Path) -> None:
    """A Word document with real heading, list and table styles and a page number field in the footer."""
    import docx
    from docx.shared import Pt, RGBColor

    document = docx.Document()
    for name in ("Normal", "Title", "Subtitle", "Heading 1", "Heading 2", "Heading 3"):
        document.styles[name].font.name = "Calibri"
    document.styles["Normal"].font.size = Pt(10.5)
    for name in ("Title", "Heading 1"):
        document.styles[name].font.color.rgb = RGBColor.from_string(NAVY)
    document.add_paragraph(source.meta["title"], style="Title")
    if "subtitle" in source.meta:
        document.add_paragraph(source.meta["subtitle"], style="Subtitle")
    document.add_paragraph(" | ".join(f"{label}: {value}" for label, value in facts(source)))
    for block in source.blocks:
        add_docx_block(document, block)
    add_docx_footer(document, source)
    stamp_properties(document.core_properties, source)
    document.save(str(target))
    normalise_archive(target, source)


def add_docx_block(document: object, block: Block) -> None:
    """Append one block."""
    from docx.document import Document

    assert isinstance(document, Document)
    if block.kind == "table":
        table = document.add_table(rows=0, cols=len(block.rows[0]), style="Light Grid Accent 1")
        for row in block.rows:
            for cell, text in zip(table.add_row().cells, row, strict=True):
                cell.text = plain(text)
        document.add_paragraph()
    elif block.kind in ("ul", "ol"):
        style = "List Bullet" if block.kind == "ul" else "List Number"
        for number, item in enumerate(block.items, start=1):
            # Word continues one number sequence through the whole file, so steps carry their own number as text
            text, used = (item, style) if block.kind == "ul" else (f"{number}. {item}", "List Paragraph")
            add_runs(document.add_paragraph(style=used), text)
    elif block.kind.startswith("h"):
        document.add_heading(plain(block.text), level=int(block.kind[1]))
    else:
        style = "Intense Quote" if block.kind == "note" else "Normal"
        add_runs(document.add_paragraph(style=style), block.text)


def add_runs(paragraph: object, text: str) -> None:
    """Add text to a paragraph, every other part between ``**`` in bold."""
    from docx.text.paragraph import Paragraph

    assert isinstance(paragraph, Paragraph)
    for number, part in enumerate(text.split("**")):
        if part:
            paragraph.add_run(part).bold = True if number % 2 else None


def add_docx_footer(document: object, source: Source) -> None:
    """Company, class and the page number as a field."""
    from docx.document import Document
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    assert isinstance(document, Document)
    paragraph = document.sections[0].footer.paragraphs[0]
    paragraph.add_run(f"{COMPANY} - {source.meta['class']} - page ")
    field = OxmlElement("w:fldSimple")
    field.set(qn("w:instr"), "PAGE")
    paragraph._p.append(field)


def stamp_properties(properties: object, source: Source) -> None:
    """Fixed author, title and dates for docx, pptx and xlsx, which name these fields alike."""
    values = {
        "title": source.meta["title"], "subject": source.meta.get("subtitle", ""), "author": source.meta["owner"],
        "creator": source.meta["owner"], "last_modified_by": source.meta["owner"],
        "lastModifiedBy": source.meta["owner"], "created": source.moment, "modified": source.moment,
    }  # fmt: skip
    for name, value in values.items():
        if hasattr(properties, name):
            setattr(properties, name, value)


def normalise_archive(path: Path, source: Source) -> None:
    """Rewrite an Office archive with fixed member times; openpyxl stamps the clock into core.xml, which is undone."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    stamp = f">{source.moment.isoformat()}Z</dcterms:modified>".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in members:
            if name == "docProps/core.xml":
                data = re.sub(rb">[^<]*</dcterms:modified>", stamp, data)
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


# --- PPTX --------------------------------------------------------------------------------------------------------


def write_pptx(source: Source, target: Path) -> None:
    """Wide slides: a title slide, then one slide for each ``##``; ``>`` becomes the speaker's notes."""
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    deck.slide_width, deck.slide_height = Inches(13.333), Inches(7.5)
    first = deck.slides.add_slide(deck.slide_layouts[0])
    paint(first, deck.slide_width, Inches(1.1))
    place(first.shapes.title, 0.9, 2.3, 11.5, 1.5, source.meta["title"], 40)
    details = source.meta.get("subtitle", "") + "\n" + ", ".join(value for _, value in facts(source))
    place(first.placeholders[1], 0.9, 4.0, 11.5, 1.4, details, 18)
    slide = first
    for block in source.blocks:
        if block.kind == "h2":
            slide = deck.slides.add_slide(deck.slide_layouts[5])
            paint(slide, deck.slide_width, Inches(0.22))
            place(slide.shapes.title, 0.7, 0.45, 12.0, 0.9, block.text, 28)
        else:
            fill_slide(slide, block)
    stamp_properties(deck.core_properties, source)
    deck.save(str(target))
    normalise_archive(target, source)


def paint(slide: object, width: int, height: int) -> None:
    """A coloured band over the top of a slide."""
    from pptx.dml.color import RGBColor
    from pptx.enum.shapes import MSO_SHAPE
    from pptx.slide import Slide
    from pptx.util import Emu

    assert isinstance(slide, Slide)
    band = slide.shapes.add_shape(MSO_SHAPE.RECTANGLE, Emu(0), Emu(0), Emu(width), Emu(height))
    band.fill.solid()
    band.fill.fore_color.rgb = RGBColor.from_string(NAVY)
    band.line.fill.background()


def place(shape: object, left: float, top: float, width: float, height: float, text: str, size: int) -> None:
    """Move a text shape (inches) and write left-aligned text into it, one paragraph a line."""
    from pptx.enum.text import PP_ALIGN
    from pptx.shapes.autoshape import Shape
    from pptx.util import Inches, Pt

    assert isinstance(shape, Shape)
    shape.left, shape.top, shape.width, shape.height = Inches(left), Inches(top), Inches(width), Inches(height)
    frame = shape.text_frame
    frame.word_wrap = True
    frame.text = text
    for paragraph in frame.paragraphs:
        paragraph.alignment = PP_ALIGN.LEFT
        paragraph.space_after = Pt(6)
        paragraph.font.size = Pt(size)


def fill_slide(slide: object, block: Block) -> None:
    """Put a list, paragraph, table or note on a slide, under what is already there."""
    from pptx.slide import Slide
    from pptx.util import Inches, Pt

    assert isinstance(slide, Slide)
    below = [shape.top + shape.height for shape in slide.shapes if shape.top > Inches(0.3)]
    top = max(below) / Inches(1) + 0.1
    if block.kind == "note":
        notes = slide.notes_slide.notes_text_frame
        assert notes is not None
        notes.text = plain(block.text)
    elif block.kind == "table":
        rows, columns = len(block.rows), len(block.rows[0])
        frame = slide.shapes.add_table(rows, columns, Inches(0.7), Inches(top), Inches(11.9), Inches(0.46 * rows))
        for r, row in enumerate(block.rows):
            for c, text in enumerate(row):
                cell = frame.table.cell(r, c)
                cell.text = plain(text)
                cell.text_frame.paragraphs[0].font.size = Pt(16)
    else:
        lines = [f"• {item}" for item in block.items] or [block.text]
        height = 0.25 + sum(0.5 * (1 + len(line) // 90) for line in lines)
        box = slide.shapes.add_textbox(Inches(0.7), Inches(top), Inches(11.9), Inches(height))
        place(box, 0.7, top, 11.9, height, plain("\n".join(lines)), 22)


# --- XLSX --------------------------------------------------------------------------------------------------------


def write_xlsx(source: Source, target: Path) -> None:
    """One sheet for each ``##``; a table becomes typed cells under a styled header row, prose one cell a line."""
    from openpyxl import Workbook
    from openpyxl.styles import Alignment, Font, PatternFill

    book = Workbook()
    book.remove(book.active)
    sheet = None
    for block in source.blocks:
        if block.kind == "h2":
            sheet = book.create_sheet(block.text)
        elif sheet is None:
            raise ValueError(f"{source.path}: text before the first sheet")
        elif block.kind == "table":
            start = sheet.max_row + 1 if sheet["A1"].value is not None else 1
            for r, row in enumerate(block.rows, start=start):
                for c, text in enumerate(row, start=1):
                    cell = sheet.cell(r, c, typed(plain(text)))
                    cell.alignment = Alignment(vertical="top", wrap_text=len(text) > 30)
                    if r == start:
                        cell.font = Font(bold=True, color="FFFFFF")
                        cell.fill = PatternFill("solid", fgColor=NAVY)
            for c in range(1, len(block.rows[0]) + 1):
                width = max(len(row[c - 1]) for row in block.rows)
                sheet.column_dimensions[chr(64 + c)].width = min(60, max(10, width + 2))
            sheet.freeze_panes = sheet.cell(start + 1, 1)
        else:
            for line in block.items or (block.text,):
                sheet.append([plain(line)])
            sheet.column_dimensions["A"].width = 100
    stamp_properties(book.properties, source)
    book.save(target)
    normalise_archive(target, source)


def typed(text: str) -> str | int | float | dt.date:
    """A cell's value: whole number, decimal, ISO date, or the text itself."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return dt.date.fromisoformat(text)
    return text


# --- EML ---------------------------------------------------------------------------------------------------------


def write_eml(source: Source, target: Path) -> None:
    """A message with one CSV attachment: the first table of the source; the rest is the body."""
    message = EmailMessage(policy=SMTP)
    for name in ("From", "To", "Cc", "Subject", "Date", "Message-ID"):
        if name in source.meta:
            message[name] = source.meta[name]
    body = [block for block in source.blocks if block.kind != "table"]
    paragraphs = ["\n".join(f"* {item}" for item in block.items) or block.text for block in body]
    message.set_content("\n\n".join(paragraphs) + "\n", cte="quoted-printable")
    table = next(block for block in source.blocks if block.kind == "table")
    csv = "".join(",".join(row) + "\r\n" for row in table.rows)
    message.add_attachment(csv.encode(), maintype="text", subtype="csv", filename=source.meta["attachment"])
    message.set_boundary("=_tarnfell_0001")
    target.write_bytes(message.as_bytes())


# --- command -----------------------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[Source, Path], None]] = {
    ".pdf": write_pdf,
    ".docx": write_docx,
    ".pptx": write_pptx,
    ".xlsx": write_xlsx,
    ".eml": write_eml,
}


def build(into: Path) -> list[Path]:
    """Write every document below ``into``; returns their paths relative to it."""
    built = []
    for path in sorted(SOURCES.rglob("*.md")):
        relative = path.relative_to(SOURCES).with_suffix("")
        target = into / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[relative.suffix](read_source(path), target)
        built.append(relative)
    return built


def main() -> int:
    """Build in place, or with ``--check`` compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="build elsewhere and compare byte for byte")
    if not parser.parse_args().check:
        print(f"{len(build(DOCUMENTS))} documents written below {DOCUMENTS.name}/")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder))
        stale = [p for p in built if (DOCUMENTS / p).read_bytes() != (Path(folder) / p).read_bytes()]
    for path in stale:
        print(f"differs: {path}", file=sys.stderr)
    print(f"{len(built) - len(stale)} of {len(built)} documents are as built")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
