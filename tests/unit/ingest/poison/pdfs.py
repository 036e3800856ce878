"""Hostile PDFs, written object by object: loops, endless pages, bombs in streams and forms, and things that act."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping

from reportlab.lib import pdfencrypt
from reportlab.pdfgen.canvas import Canvas

from .case import OUT_OF_MEMORY, Bait, Poison, of, read, refused
from .good import pdf as good_pdf
from .zips import MEGABYTE, archive, part

KEPT = "The heron stays."


def written(objects: Mapping[int, str | bytes], trailer: str = "", root: int = 1) -> bytes:
    """A PDF of these objects, with its table of places."""
    out, places = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), {}
    for number, content in objects.items():
        places[number] = len(out)
        out += b"%d 0 obj\n" % number + (content if isinstance(content, bytes) else content.encode()) + b"\nendobj\n"
    table, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d %05d %s \n" % (places.get(number, 0), 0, b"n" if number in places else b"f")
    out += f"trailer\n<</Size {size}/Root {root} 0 R{trailer}>>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)


def stream(content: bytes, entries: str = "") -> bytes:
    return f"<<{entries}/Length {len(content)}>>\nstream\n".encode() + content + b"\nendstream"


def shown(text: str) -> bytes:
    """A page's content that shows one line."""
    return f"BT /F1 12 Tf 60 700 Td ({text}) Tj ET".encode()


FONT = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
PAGE = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>%s>>%s>>"


def one_page(
    content: bytes,
    catalog: str = "",
    page: str = "",
    resources: str = "",
    more: Mapping[int, str | bytes] | None = None,
) -> bytes:
    """A good PDF of one page with something added to its parts."""
    objects: dict[int, str | bytes] = {
        1: f"<</Type/Catalog/Pages 2 0 R{catalog}>>",
        2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: PAGE % (resources, page),
        4: content if content.startswith(b"<<") else stream(content),
        5: FONT,
    }
    return written(objects | dict(more or {}))


def pages(tree: str, **more: str) -> bytes:
    """A PDF with a page tree of its own making."""
    extra = {int(number[1:]): content for number, content in more.items()}
    return written(
        {1: "<</Type/Catalog/Pages 2 0 R>>", 2: tree, 3: PAGE % ("", ""), 4: stream(shown(KEPT)), 5: FONT} | extra
    )


def table_that_names_itself() -> bytes:
    data = one_page(shown(KEPT))
    place = data.rindex(b"xref\n0")
    return data.replace(b"/Root 1 0 R", b"/Root 1 0 R/Prev %d" % place)


def flated(times: int, megabytes: int) -> bytes:
    """A content stream packed `times` over: each round turns the one before it into next to nothing."""
    packer = zlib.compressobj(9)
    packed = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    once = packer.compress(b" " * MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += once * megabytes + packer.flush()
    data = packed
    for _ in range(times - 1):
        data = zlib.compress(data, 9)
    return stream(data, f"/Filter[{'/FlateDecode ' * times}]")


def forms(fold: int, depth: int) -> bytes:
    """Forms that draw forms: `fold ** depth` lines of text."""
    more: dict[int, str | bytes] = {}
    for level in range(depth):
        last = level == depth - 1
        inner = shown("ha") if last else b"/X Do " * fold
        resources = "/Font<</F1 5 0 R>>" if last else f"/XObject<</X {11 + level} 0 R>>"
        more[10 + level] = stream(inner, f"/Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<<{resources}>>")
    return one_page(b"/X Do", resources="/XObject<</X 10 0 R>>", more=more)


def form_in_itself() -> bytes:
    inner = shown(KEPT) + b" /X Do"
    form = stream(
        inner, "/Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<</Font<</F1 5 0 R>>/XObject<</X 10 0 R>>>>"
    )
    return one_page(b"/X Do", resources="/XObject<</X 10 0 R>>", more={10: form})


def acting(bait: Bait) -> bytes:
    """Scripts, programs, addresses and a file inside: nothing of it is run, opened or told."""
    actions = {
        10: f"<</S/JavaScript/JS(app.alert\\('poison script'\\); app.launchURL\\('{bait.http_url}'\\))>>",
        11: f"<</S/Launch/F({bait.canary})/Win<</F(cmd.exe)/P(/c calc)>>>>",
        12: f"<</S/URI/URI({bait.http_url})>>",
        13: f"<</S/SubmitForm/F({bait.http_url})>>",
        14: f"<</S/GoToR/F<</FS/URL/F({bait.http_url})>>/D[0/Fit]>>",
        15: f"<</S/ImportData/F({bait.canary})>>",
        16: "<</Type/Filespec/F(../../slipped.exe)/EF<</F 17 0 R>>>>",
        17: stream(b"MZ poison program", "/Type/EmbeddedFile"),
        18: stream(b"<xdp><!DOCTYPE x [<!ENTITY f SYSTEM '%s'>]>&f;</xdp>" % bait.file_url.encode()),
        19: f"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Ref<</F<</FS/URL/F({bait.http_url})>>/Page 0>>>>",
    }
    every = "".join(f"/{when} {10 + i} 0 R" for i, when in enumerate(("O", "C", "WC", "WS", "DS")))
    catalog = f"/OpenAction 10 0 R/AA<<{every}>>/Names<</JavaScript<</Names[(a)10 0 R]>>"
    catalog += "/EmbeddedFiles<</Names[(../../x)16 0 R]>>>>"
    links = "".join(f"<</Type/Annot/Subtype/Link/Rect[0 0 600 800]/A {n} 0 R>>" for n in range(10, 16))
    return one_page(
        shown(KEPT), f"{catalog}/AcroForm<</XFA 18 0 R/Fields[]>>", f"/AA<</O 11 0 R>>/Annots[{links}]", more=actions
    )


def outside_stream(bait: Bait) -> bytes:
    """A page whose content lies in another file, or at an address."""
    return one_page(shown(KEPT), more={3: (PAGE % ("", "")).replace("4 0 R", "[4 0 R 10 0 R 11 0 R]"),
        10: stream(b"", f"/F({bait.canary})"), 11: stream(b"", f"/F<</FS/URL/F({bait.http_url})>>")})  # fmt: skip


def encrypted(user: str) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, encrypt=pdfencrypt.StandardEncryption(user, ownerPassword="owner", strength=128))
    canvas.drawString(60, 700, KEPT)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def outlines() -> bytes:
    more = {
        10: "<</Type/Outlines/First 11 0 R/Last 11 0 R/Count 1>>",
        11: "<</Title(loop)/Parent 10 0 R/Next 11 0 R/Prev 11 0 R/First 11 0 R>>",
    }
    return one_page(shown(KEPT), "/Outlines 10 0 R", more=more)


def many_pages(count: int) -> bytes:
    return pages(f"<</Type/Pages/Kids[{'3 0 R ' * count}]/Count {count}>>")


def glyphs() -> bytes:
    """A character that stands for a thousand others, shown fifty thousand times."""
    meaning = b"0041" * 1_000
    cmap = (
        b"/CIDInit /ProcSet findresource begin 1 begincmap 1 begincodespacerange <00><ff> endcodespacerange "
        b"1 beginbfchar <61> <" + meaning + b"> endbfchar endcmap"
    )
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 11 0 R>>"
    return one_page(shown("a" * 50_000), more={5: font, 11: stream(cmap)})


NOT_OPENED = "damaged: this PDF cannot be opened"
NO_PAGE = "damaged: this PDF has no readable page"


def circle(kids: str, **more: str) -> bytes:
    """A tree of pages whose branches lead back to its root."""
    return pages(f"<</Type/Pages/Kids[{kids}]/Count 2>>", **more)


def deep_tree() -> bytes:
    branches = {f"_{n}": f"<</Type/Pages/Kids[{n + 1} 0 R]/Count 1>>" for n in range(10, 20_000)}
    return pages("<</Type/Pages/Kids[10 0 R]/Count 1>>", **branches, _20000="<</Type/Pages/Kids[3 0 R]/Count 1>>")


def declared(count: int) -> bytes:
    """One page that says to be many."""
    return pages(f"<</Type/Pages/Kids[3 0 R]/Count {count}>>")


PACK: list[Poison] = [
    read("tree-in-a-circle.pdf", lambda _: circle("2 0 R 3 0 R"), KEPT),
    refused(
        "tree-in-a-long-circle.pdf", lambda _: circle("10 0 R", _10="<</Type/Pages/Kids[2 0 R]/Count 2>>"), NO_PAGE
    ),
    read("parent-in-a-circle.pdf", lambda _: pages("<</Type/Pages/Parent 2 0 R/Kids[3 0 R]/Count 1>>"), KEPT),
    refused("deep-tree.pdf", lambda _: deep_tree(), NO_PAGE),
    read("table-in-a-circle.pdf", lambda _: table_that_names_itself(), KEPT),
    read("length-in-a-circle.pdf", of(one_page(b"<</Length 4 0 R>>\nstream\n" + shown(KEPT) + b"\nendstream")), KEPT),
    read("outline-in-a-circle.pdf", lambda _: outlines(), KEPT),
    read("form-in-itself.pdf", lambda _: form_in_itself(), KEPT),
    refused("forms-that-laugh.pdf", lambda _: forms(10, 9), OUT_OF_MEMORY),
    refused("100000-pages-declared.pdf", lambda _: declared(100_000), "it has 100000 pages, more than 50000"),
    refused("1000-pages-declared.pdf", lambda _: declared(1_000), "damaged: 999 of its 1000 pages cannot be read"),
    read("pages-beyond-counting.pdf", lambda _: declared(2**31 - 1), KEPT),
    read("pages-below-zero.pdf", lambda _: declared(-5), KEPT),
    refused("one-page-100000-times.pdf", lambda _: many_pages(100_000), "it has 100000 pages, more than 50000"),
    refused("flate-chain.pdf", lambda _: one_page(flated(40, 600)), OUT_OF_MEMORY),
    refused("one-glyph-a-thousand-letters.pdf", lambda _: glyphs(), OUT_OF_MEMORY),
    read("deep-states.pdf", lambda _: one_page(b"q " * 200_000 + shown(KEPT)), KEPT),
    read("deep-arrays.pdf", lambda _: one_page(shown(KEPT), "/X" + "[" * 200_000), KEPT),
    read("acts.pdf", acting, KEPT, "poison script", "poison program", "cmd.exe", reaches=True),
    read("content-elsewhere.pdf", outside_stream, KEPT, reaches=True),
    refused(
        "huge-page.pdf",  # as large as a country: its words are there, and no reader sees them
        lambda _: one_page(shown(KEPT), page="/UserUnit 99999999/CropBox[0 0 1e38 1e38]"),
        "no text that can be seen",
    ),
    refused("encrypted.pdf", lambda _: encrypted("secret"), "encrypted: it needs a password"),
    refused("cut.pdf", lambda _: good_pdf(KEPT)[:600], NOT_OPENED),
    refused("cut-at-the-end.pdf", lambda _: good_pdf(KEPT)[:-300], NOT_OPENED),
    read("pdf-and-zip.pdf", lambda _: good_pdf(KEPT) + archive([part("word/document.xml", b"hidden")]), KEPT, "hidden"),
    refused("junk.pdf", of(b"%PDF-1.7\n" + bytes(range(256)) * 4_000), NOT_OPENED),
    refused("no-pdf.pdf", of(b"just words"), "damaged: this is no PDF, though its name says so"),
]
