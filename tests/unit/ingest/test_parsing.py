from __future__ import annotations

import base64
import csv
import io
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from reportlab.lib import pdfencrypt
from reportlab.pdfgen.canvas import Canvas

from index.document import Extracted
from ingest import parsing
from ingest import pdf as pdf_reader
from ingest.cleaning import MAX_MARKS, clean, cut_blocks, first_heading, usable_title
from ingest.hidden import Taken
from ingest.hidden_html import without_hidden
from ingest.parsing import MAX_ATTACHMENT_DEPTH, parse
from policies.errors import DocumentRejected, UnsupportedType

ROOT = Path(__file__).resolve().parents[3]


def pdf(*pages: list[tuple[str, int]], title: str | None = None, **options: object) -> bytes:
    """A PDF of lines `(text, size)` per page."""
    stream = io.BytesIO()
    canvas = Canvas(stream, **options)
    if title:
        canvas.setTitle(title)
    for lines in pages:
        y = 780.0
        for text, size in lines:
            canvas.setFont("Helvetica-Bold" if size > 12 else "Helvetica", size)
            canvas.drawString(60, y, text)
            y -= size * (2.2 if size > 12 else 1.2)
        canvas.showPage()
    canvas.save()
    return stream.getvalue()


def saved(document: object) -> bytes:
    stream = io.BytesIO()
    document.save(stream)  # type: ignore[attr-defined]
    return stream.getvalue()


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


BODY = [(f"This is line {i} of the body text, which is long enough to be full.", 11) for i in range(12)]


def page_text(extracted: Extracted, number: int) -> str:
    page = next(page for page in extracted.pages if page.number == number)
    return extracted.text[page.start : page.end]


# ---- PDF ----


def test_pdf_keeps_pages_headings_and_reading_order() -> None:
    extracted = parse(pdf([("Annual Report", 22), *BODY], [("Outlook", 16), *BODY, ("End of page two.", 11)]), "x.pdf")
    assert extracted.text.startswith("# Annual Report")
    assert "## Outlook" in page_text(extracted, 2)
    assert "Outlook" not in page_text(extracted, 1)
    assert page_text(extracted, 2).endswith("End of page two.")
    assert [page.number for page in extracted.pages] == [1, 2]
    assert extracted.title == "Annual Report"
    assert extracted.text.index("line 3 ") < extracted.text.index("line 4 ")


def test_pdf_lines_of_a_paragraph_are_joined() -> None:
    assert "be full. This is line 1 of" in parse(pdf(BODY), "x.pdf").text


def test_pdf_page_numbers_and_running_headers_are_left_out() -> None:
    pages = [
        [("Acme confidential", 9), *BODY, (f"Invoice {i}00 was paid by customer {i}{i}", 11), (f"Page {i} of 6", 9)]
        for i in range(1, 7)
    ]
    text = parse(pdf(*pages), "x.pdf").text
    assert "Acme confidential" not in text
    assert "Page 3" not in text
    assert text.count("was paid by") == 6
    assert text.count("line 11 ") == 6


def test_pdf_title_comes_from_its_metadata_unless_that_is_junk() -> None:
    lines = [("Heading", 20), *BODY]
    assert parse(pdf(lines, title="Real Title"), "x.pdf").title == "Real Title"
    assert parse(pdf(lines, title="Microsoft Word - draft.doc"), "x.pdf").title == "Heading"
    assert parse(pdf(BODY, title="untitled"), "name.pdf").title is None


def test_encrypted_pdf_is_rejected_as_such() -> None:
    locked = pdf(BODY, encrypt=pdfencrypt.StandardEncryption("secret", strength=128))
    with pytest.raises(DocumentRejected, match="encrypted: it needs a password"):
        parse(locked, "x.pdf")


def test_pdf_that_anyone_may_open_is_read_though_it_is_encrypted() -> None:
    locked = pdf(BODY, encrypt=pdfencrypt.StandardEncryption("", ownerPassword="owner", strength=128))
    assert "line 3" in parse(locked, "x.pdf").text


@pytest.mark.parametrize("data", [b"%PDF-1.7\nnothing here", pdf(BODY)[:200], b"%PDF-"])
def test_broken_pdf_is_rejected(data: bytes) -> None:
    with pytest.raises(DocumentRejected, match="damaged"):
        parse(data, "x.pdf")


def test_pdf_most_of_whose_pages_are_missing_is_damaged() -> None:
    whole = pdf(*[[("Page text", 11)]] * 3)
    kids = re.search(rb"/Kids \[ (\d+ 0 R) (\d+ 0 R) (\d+ 0 R) \]", whole)
    assert kids
    for missing, expected in ((1, "Page text"), (2, "damaged: 2 of its 3 pages cannot be read")):
        broken = whole
        for number in range(2, 2 + missing):
            gone = b"99 0 R".ljust(len(kids.group(number)))
            broken = broken.replace(kids.group(number) + b" ", gone + b" ", 1)
        try:
            said = parse(broken, "x.pdf").text
        except DocumentRejected as error:
            said = error.detail
        assert expected in said


def test_pdf_without_text_needs_ocr() -> None:
    stream = io.BytesIO()
    canvas = Canvas(stream)
    canvas.rect(10, 10, 100, 100, fill=1)
    canvas.showPage()
    canvas.save()
    with pytest.raises(DocumentRejected, match="no text; needs OCR"):
        parse(stream.getvalue(), "scan.pdf")


def test_content_decides_the_type_before_the_name() -> None:
    assert parse(pdf(BODY), "x.txt").pages
    assert parse(b"<!DOCTYPE html><html><body><h1>Hi</h1></body></html>", "x.pdf").text == "# Hi"
    assert "hello" in parse(saved(_docx("hello")), "x.bin").text
    with pytest.raises(DocumentRejected, match="no PDF"):
        parse(b"just words", "x.pdf")


# ---- Office ----


def _docx(*paragraphs: str) -> docx.document.Document:
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    return document


def test_docx_keeps_headings_lists_and_tables() -> None:
    document = docx.Document()
    document.add_heading("Travel Policy", 1)
    document.add_heading("Hotels", 2)
    document.add_paragraph("Up to 150 euros <a night>.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip((c for row in table.rows for c in row.cells), ("City", "Limit", "Oslo", "200"), strict=True):
        cell.text = text
    extracted = parse(saved(document), "x.docx")
    assert extracted.text.startswith("# Travel Policy\n\n## Hotels\n\nUp to 150 euros <a night>.")
    assert "| Oslo | 200 |" in extracted.text
    assert extracted.title == "Travel Policy"
    assert extracted.markdown


def test_docx_title_comes_from_its_properties() -> None:
    document = _docx("text")
    document.core_properties.title = "Handbook"
    assert parse(saved(document), "x.docx").title == "Handbook"
    document.core_properties.title = "Word Document"
    assert parse(saved(document), "x.docx").title is None


def test_pptx_gives_a_page_per_slide_with_notes() -> None:
    presentation = pptx.Presentation()
    for number in (1, 2, 3):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number} title"
        slide.placeholders[1].text = f"Body {number}"
    slide.notes_slide.notes_text_frame.text = "Say this & that aloud."
    extracted = parse(saved(presentation), "x.pptx")
    assert [page.number for page in extracted.pages] == [1, 2, 3]
    assert page_text(extracted, 2) == "## Slide 2 title\n\nBody 2"
    assert page_text(extracted, 3).endswith("Notes: Say this & that aloud.")
    assert extracted.title == "Slide 1 title"


def test_xlsx_rows_explain_themselves_sheet_by_sheet() -> None:
    book = openpyxl.Workbook()
    book.active.title = "Prices"
    for row in (["Item", "Price", "Note"], ["Chair", 49.5, None], ["Desk", 120, "two\nlines"]):
        book.active.append(row)
    book.create_sheet("Empty")
    book.create_sheet("Numbers").append([1, 2])
    extracted = parse(saved(book), "x.xlsx")
    assert page_text(extracted, 1) == "## Prices\n\nItem: Chair; Price: 49.5\nItem: Desk; Price: 120; Note: two lines"
    assert page_text(extracted, 3) == "## Numbers\n\n1 | 2"


def test_slides_keep_the_order_and_notes_of_the_presentation() -> None:
    presentation = pptx.Presentation()
    for number in (1, 2, 3):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number}"
        slide.notes_slide.notes_text_frame.text = f"Notes of {number}"
    order = presentation.slides._sldIdLst
    order.insert(0, order[2])
    extracted = parse(saved(presentation), "x.pptx")
    assert [page_text(extracted, n) for n in (1, 2)] == [f"## Slide {n}\n\nNotes: Notes of {n}" for n in (3, 1)]


def test_slides_without_text_are_empty() -> None:
    presentation = pptx.Presentation()
    presentation.slides.add_slide(presentation.slide_layouts[6])
    with pytest.raises(DocumentRejected, match="empty"):
        parse(saved(presentation), "x.pptx")


def test_sheet_that_the_converter_leaves_out_is_named() -> None:
    book = openpyxl.Workbook()
    book.active.title = "Sparse"
    book.active["A1"], book.active["A1048576"] = "first", "last"
    with pytest.raises(DocumentRejected, match="Sheet 'Sparse' declared 1048576 rows"):
        parse(saved(book), "x.xlsx")
    book.create_sheet("Full").append(["Chair", "Desk"])
    text = parse(saved(book), "x.xlsx").text
    assert "Chair | Desk" in text
    assert "Not read: Sheet 'Sparse' declared 1048576 rows" in text


def test_zip_bomb_is_rejected_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.archives.MAX_UNPACKED_BYTES", 10_000_000)
    bomb = zipped(**{"word/document.xml": b"\0" * 20_000_000, "[Content_Types].xml": b"<Types/>"})
    assert len(bomb) < 30_000
    with pytest.raises(DocumentRejected, match="unpacks to"):
        parse(bomb, "x.docx")


def test_billion_laughs_is_rejected() -> None:
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    xml = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{entities}]><w:document>&a9;</w:document>'
    files = {
        "[Content_Types].xml": b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "word/document.xml": xml.encode(),
    }
    with pytest.raises(DocumentRejected):
        parse(zipped(**files), "x.docx")


@pytest.mark.parametrize("name", ["x.docx", "x.pptx", "x.xlsx"])
def test_cut_office_file_is_rejected(name: str) -> None:
    with pytest.raises(DocumentRejected, match="damaged"):
        parse(saved(_docx("hello"))[:2000], name)


def test_encrypted_office_file_is_rejected_as_such() -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le")
    with pytest.raises(DocumentRejected, match="password"):
        parse(data, "x.docx")


# ---- HTML ----

PAGE = """<!doctype html><html><head><title>Caf&eacute; &amp; Bar</title><style>.gone{display:none}</style>
<script>var secret = 1</script></head><body>
<h1>Opening
hours</h1><!-- hidden comment --><p>Open from <b>nine</b>
to five.</p><p hidden>attribute</p><div style="display: none">inline style</div><p class="gone">by class</p>
<span style="font-size:0">zero size</span><p style="visibility:hidden">invisible</p>
<ul><li>Mon</li><li> </li></ul><h2> </h2><pre>a
  b</pre><a href="/rel">relative</a> <a href="https://x.org/">absolute</a></body></html>"""


def test_html_gives_title_and_visible_text_only() -> None:
    extracted = parse(PAGE.encode(), "x.html")
    assert extracted.title == "Café & Bar"
    assert extracted.text.startswith("# Opening hours\n\nOpen from **nine** to five.")
    for hidden in ("secret", "comment", "attribute", "inline style", "by class", "zero size", "invisible", "gone"):
        assert hidden not in extracted.text
    assert "a\n  b" in extracted.text
    assert "relative [absolute](https://x.org/)" in extracted.text


def test_html_charset_of_legacy_pages_is_found() -> None:
    assert "Café" in parse("<html><body><p>Café crème</p></body></html>".encode("latin-1"), "x.html").text


def test_html_nested_a_hundred_thousand_deep_still_gives_its_text() -> None:
    deep = b"<html><body>" + b"<div>" * 100_000 + b"hello" + b"</div>" * 100_000
    assert parse(deep, "x.html").text == "hello"


def test_lists_nested_deeper_than_browsers_nest_still_give_their_text() -> None:
    deep = b"<html><body>" + b"<ul><li>" * 30_000 + b"hello" + b"</li></ul>" * 30_000
    assert parse(deep, "x.html").text == "hello"


def test_html_of_many_boxes_side_by_side_is_not_taken_for_deep() -> None:
    page = b"<html><body>" + b"<div><p><b>hello</b>" * 300 + b"</div>" * 300 + b"<div>x</div>" * 3_000
    assert "**hello**" in parse(page, "x.html").text


def test_html_without_text_is_rejected() -> None:
    with pytest.raises(DocumentRejected, match="empty"):
        parse(b"<html><body><script>x</script></body></html>", "x.html")


# ---- mail ----


def mail(subject: str = "Lunch", body: str = "See you at noon.") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ada <ada@x.org>", "bob@x.org", subject
    message["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    message.set_content(body)
    return message


def test_mail_gives_headers_body_and_attachments() -> None:
    message = mail("Grüße aus Köln")
    message.add_attachment(
        saved(_docx("Inside the attachment.")), maintype="application", subtype="x", filename="a.docx"
    )
    message.add_attachment(b"\x89PNG....", maintype="image", subtype="png", filename="b.png")
    extracted = parse(message.as_bytes(), "x.eml")
    assert extracted.title == "Grüße aus Köln"
    assert extracted.text.startswith("From: Ada <ada@x.org>\nTo: bob@x.org\nDate: Mon, 02 Nov 2026")
    assert "See you at noon." in extracted.text
    assert "## Attachment: a.docx\n\nInside the attachment." in extracted.text
    assert "Attachment b.png was not read: unsupported type" in extracted.text


def test_mail_with_html_body_only_is_read() -> None:
    message = mail()
    message.set_content("<p>Hello <b>Bob</b></p><p style='display:none'>tracker</p>", subtype="html")
    text = parse(message.as_bytes(), "x.eml").text
    assert "Hello **Bob**" in text
    assert "tracker" not in text


def test_mail_in_mail_is_read_down_to_a_limit() -> None:
    message = mail("level 0", "body 0")
    for level in range(1, MAX_ATTACHMENT_DEPTH + 3):
        outer = mail(f"level {level}", f"body {level}")
        outer.add_attachment(message)
        message = outer
    text = parse(message.as_bytes(), "x.eml").text
    deepest_read = MAX_ATTACHMENT_DEPTH + 2 - MAX_ATTACHMENT_DEPTH
    assert f"body {deepest_read}\n" in text
    assert "nested more than" in text
    assert "body 0" not in text


def test_mail_with_wrong_charset_and_headers_is_read() -> None:
    raw = b"From: a@x.org\r\nSubject: =?nonsense?b?!!?=\r\nContent-Type: text/plain; charset=none\r\n\r\ncaf\xe9 time"
    assert "café time" in parse(raw, "x.eml").text


@pytest.mark.parametrize("charset", ["none", "idna", "punycode", "undefined", "base64", "a\x00b", "x" * 300])
def test_mail_in_an_encoding_that_no_mail_has_is_read_by_its_content(charset: str) -> None:
    raw = f'From: a@x.org\r\nSubject: s\r\nContent-Type: text/plain; charset="{charset}"\r\n\r\ncaf\u00e9 time'
    assert "café time" in parse(raw.encode(), "x.eml").text


def test_mail_with_endless_headers_is_read_in_time() -> None:
    begin = time.process_time()
    for value in ('"' * 100_001, "a@x.org, " * 100_000, "(" * 100_000, "=?utf-8?q?a?= " * 50_000):
        raw = f"From: a@x.org\nMIME-Version: 1.0\nCc: {value}\nSubject: Late\nX-Mailer: y\n\nbody text"
        assert parse(raw.encode(), "x.eml").text.endswith("body text")
    assert time.process_time() - begin < 5


def test_mail_of_too_many_parts_is_rejected_before_they_are_read() -> None:
    raw = b'From: a@x.org\nSubject: s\nContent-Type: multipart/mixed; boundary="b"\n\n' + b"--b\n\nx\n" * 50_000
    begin = time.process_time()
    with pytest.raises(DocumentRejected, match="more than 5000 parts"):
        parse(raw, "x.eml")
    assert time.process_time() - begin < 2


def test_mail_whose_parts_are_not_marked_off_keeps_its_body() -> None:
    raw = b"From: a@x.org\nSubject: s\nContent-Type: multipart/mixed\n\nstill here"
    assert parse(raw, "x.eml").text.endswith("still here")


def test_mail_whose_body_is_no_text_keeps_its_headers() -> None:
    head = b"From: a@x.org\nSubject: Minutes\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n"
    text = parse(head + base64.encodebytes(bytes(range(256)) * 40), "x.eml").text
    assert "Subject: Minutes" in text
    assert "The body was not read: unsupported type" in text


# ---- text ----


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_text_encodings_are_found(encoding: str) -> None:
    text = "Über den Wölken muß die Freiheit wohl grenzenlos sein, sagt café."
    assert parse(text.encode(encoding), "x.txt").text == text


def test_cyrillic_legacy_text_is_found() -> None:
    text = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 5
    assert parse(text.encode("cp1251"), "x.txt").text.strip() == text.strip()


def test_slightly_damaged_utf8_stays_utf8() -> None:
    data = ("Grüße " * 50).encode() + b"\xff end"
    text = parse(data, "x.txt").text
    assert text.startswith("Grüße Grüße")
    assert text.endswith("end")


def test_text_is_cleaned() -> None:
    assert clean("a\r\nb\rc\x00d\ufeff e\u0301\ud800\f") == "a\nb\ncd é\n"
    assert parse(b"one\x00 two\r\nthree", "x.txt").text == "one two\nthree"


@pytest.mark.parametrize("data", [b"", b"  \r\n\t", b"\xef\xbb\xbf", b"\x00\x00\x00"])
@pytest.mark.parametrize("name", ["x.txt", "x.pdf", "x.docx", "x.html", "x"])
def test_empty_file_is_rejected(data: bytes, name: str) -> None:
    with pytest.raises(DocumentRejected, match="empty"):
        parse(data, name)


@pytest.mark.parametrize(
    "data",
    [bytes(range(256)) * 40, b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"\x7fELF\x02" + b"\0" * 90, zipped(**{"a.txt": b"x"})],
)
def test_unknown_content_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedType):
        parse(data, "x.txt")


def test_markdown_stays_as_written_without_front_matter_and_comments() -> None:
    source = '---\ntitle: "My Page"\n---\n# Head\r\n\r\nText <!-- secret --> here\n\n```\n<!-- code -->\n```\n'
    extracted = parse(source.encode(), "x.md")
    assert extracted.title == "My Page"
    assert extracted.text == "# Head\n\nText  here\n\n```\n<!-- code -->\n```"
    assert extracted.markdown


def test_markdown_title_is_its_first_heading() -> None:
    assert parse(b"intro\n\n## The *first* [heading](x)\n", "x.md").title == "The first heading"
    assert parse(b"Manual\n======\n\ntext", "x.md").title == "Manual"
    assert parse(b"```\n# code\n```\ntext", "x.md").title is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_rows_repeat_their_column_names(delimiter: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([["Name", "City"], ["Ada", f"Lon{delimiter}don"], ["Bob", ""]])
    extracted = parse(stream.getvalue().encode(), "x.csv")
    assert extracted.text == f"Name: Ada; City: Lon{delimiter.strip() or ' '}don\nName: Bob"


def test_csv_wider_than_any_table_is_rejected() -> None:
    with pytest.raises(DocumentRejected, match="a row of it has 20000 columns, more than 16384"):
        parse(b",".join([b"a"] * 20_000) + b"\n1,2\n", "x.csv")


def test_csv_does_not_repeat_the_whole_of_a_long_name() -> None:
    text = parse(f"City,{'very ' * 1_000}long\nOslo,7\nRome,8\n".encode(), "x.csv").text
    assert len(text) < 600
    assert "City: Oslo; very very" in text


@pytest.mark.parametrize("data", [b"[" * 1_000, b"--- ... ***\n" * 10, b"_____ \n"])
def test_file_without_a_letter_or_digit_is_empty(data: bytes) -> None:
    with pytest.raises(DocumentRejected, match="empty: the file holds no text"):
        parse(data, "x.txt")


def test_csv_without_header_keeps_its_values() -> None:
    assert parse(b"1,2\n3,4\n", "x.csv").text == "1 | 2\n3 | 4"


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("Annual  Report\n2026", "Annual Report 2026"),
        ("untitled", None),
        ("Untitled document", None),
        ("Microsoft Word - x.doc", None),
        ("PowerPoint Presentation", None),
        ("report_final.docx", None),
        ("0001759509-22-000016", None),
        ("", None),
        (None, None),
    ],
)
def test_junk_titles_are_dropped(title: str | None, kept: str | None) -> None:
    assert usable_title(title) == kept


# ---- time ----

SIZE = 100_000
HOSTILE = [
    *("<!--", "<", "</", "<a ", "<title>", "<title ", "<pre>", "<pre ", "<textarea>", "<script>", "<style>"),
    *("<style ", "<svg><style>", "<head>", "<h1>", "<li>", "<li><b>", "</pre ", "</title ", "<p:sldId "),
    *("<Relationship ", "<p:sp>", "<a:p>", "<p:ph ", "@", "@a{", "@{x{}", "/*", "a{", ".a{display", "{", "}"),
    *("```x\n", "```\n", "~~~\n", "`", "*", "*a ", "# a\n", "# ", "#", "[", "[a](", "[a](x ", "![a](<", "[a](b(c)"),
    *('[a](b "', "\\", "[cmt:1", "**ab\n", "**ab ", "**", " ", "\t", "\n", " \n", ">\n", "> ", "=", "-", "---\n"),
    *("a\n=", "1 ", "1", "a.", ".", "untitled", "\x02 ", "&", "&#"),
]
BEGINNINGS = ("# a", "**ab", "a", ">", "---", "```", "<pre", "[a](b")
SHAPES = [
    *(piece * (SIZE // len(piece)) + tail for piece in HOSTILE for tail in ("", "x")),
    *(f"{begin}{' ' * SIZE}{end}" for begin in BEGINNINGS for end in "bx<"),
    "x" + "\u0301\u0316" * SIZE,
    ">" + "\n" * SIZE + "<",
]
READERS: dict[str, Callable[[str], object]] = {
    "markdown": lambda text: parsing._markdown(text, Taken()),
    "generated markdown": parsing._tidy,
    "slide headings": parsing._bold_headings,
    "visible text": parsing._visible_text,
    "style sheets": lambda text: without_hidden(f"<style>{text}</style><style>{text}", Taken()),
    "titles": lambda text: cut_blocks(text, parsing._TITLE_TAG, parsing._closing),
    "preformatted": lambda text: cut_blocks(text, parsing._PREFORMATTED, parsing._closing),
    "line wraps": lambda text: parsing._WRAPPED.sub(" ", text),
    "blank elements": lambda text: parsing._BLANK_ELEMENT.sub("", text),
    "notes": lambda text: parsing._notes_text(f"<p:sp>{text}</p:sp>{text}"),
    "relations": lambda text: parsing._relations(zipfile.ZipFile(io.BytesIO(zipped(rels=text.encode()))), "rels", "/x"),
    "clean": clean,
    "first heading": first_heading,
    "title": usable_title,
    "page number": pdf_reader._is_page_number,
    "hyphens": pdf_reader._without_hyphenation,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", READERS)
def test_no_shape_of_text_takes_long(name: str) -> None:
    for shape in SHAPES:
        begin = time.process_time()
        READERS[name](shape)
        assert time.process_time() - begin < 1, f"{shape[:12]!r}… {shape[-3:]!r}"


def test_comment_that_nothing_closes_stays_text() -> None:
    assert parse(b"Write `<!--` to begin one. <!-- so --> it ends.", "x.md").text == "Write ` it ends."
    assert parse(b"Write `<!--` to begin one.", "x.md").text == "Write `<!--` to begin one."


def test_blocks_are_cut_at_the_next_closing_of_their_own_kind() -> None:
    tags = re.compile(r"<(pre|code)\b", re.IGNORECASE)
    text = "a<pre>b</code></PRE >c<code>d<pre>e</pre>f"
    assert cut_blocks(text, tags, lambda tag: rf"</{tag}\s*>") == [
        "a",
        "<pre>b</code></PRE >",
        "c<code>d",
        "<pre>e</pre>",
        "f",
    ]


def test_run_of_marks_is_cut_to_what_a_character_may_carry() -> None:
    assert clean("x" + "\u0316" * 100 + "y\u0316") == "x" + "\u0316" * MAX_MARKS + "y\u0316"
    hangul, han = "\u1112\u1161\u11ab" * 50, "\u6f22" * 100
    assert clean(hangul + han) == "\ud55c" * 50 + han


def test_importing_the_parser_loads_no_pipeline_or_model_library() -> None:
    code = (
        "import sys, ingest.parsing, ingest.sandbox; "
        "print([n for n in ('ray', 'torch', 'openvino', 'sqlalchemy', 'xberg', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
