"""Hostile text and tables, files in disguise, and bytes that no encoding explains."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable

from .case import EMPTY, Bait, Poison, of, read, refused
from .good import pdf as good_pdf
from .good import sheet, word
from .zips import MEGABYTE

KEPT = "The heron stays."


def million_columns() -> bytes:
    return b",".join(b"c" for _ in range(1_000_000)) + b"\n" + b",".join(b"1" for _ in range(1_000_000)) + b"\n"


def pickled(bait: Bait, protocol: int) -> bytes:
    """A pickle that, loaded, would write a file beside the canary."""
    return pickle.dumps(_Acts(str(bait.canary.with_name("written-by-pickle"))), protocol=protocol)


class _Acts:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [KEPT] * 100, "number": list(range(100))}), stream)
    return stream.getvalue()


def program() -> bytes:
    """The beginning of a Windows program."""
    return (
        b"MZ"
        + b"\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0"
        + b"\0" * 44
        + struct.pack("<I", 128)
        + b"\0" * 64
        + b"PE\0\0"
        + bytes(range(200))
    )


def extension_parquet(bait: Bait) -> bytes:
    """A table whose column says that it is of a kind which a reader unpickles (CVE-2026-41486)."""
    import pyarrow
    import pyarrow.parquet

    kind = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": pickled(bait, 4)}
    field = pyarrow.field("text", pyarrow.binary(), metadata=kind)
    stream = io.BytesIO()
    rows = pyarrow.array([pickled(bait, 4)], pyarrow.binary())
    pyarrow.parquet.write_table(pyarrow.table([rows], schema=pyarrow.schema([field])), stream)
    return stream.getvalue()


def weights(bait: Bait) -> bytes:
    """A model's weights as torch.save writes them: a zip whose first part is unpickled."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(bait, 2))
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def samples(bait: Bait) -> bytes:
    """A data set as webdataset reads it: an archive whose .pkl and .pt parts are unpickled (CVE-2026-57516)."""
    import tarfile

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("0.pkl", "0.pt"):
            entry = tarfile.TarInfo(name)
            entry.size = len(pickled(bait, 4))
            archive.addfile(entry, io.BytesIO(pickled(bait, 4)))
    return stream.getvalue()


def pickle_inside(bait: Bait) -> bytes:
    """A letter with a pickle among its parts."""
    stream = io.BytesIO(word(KEPT))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("word/embeddings/data.pkl", pickled(bait, 4))
    return stream.getvalue()


def tar() -> bytes:
    import tarfile

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("../../slipped")
        archive.addfile(entry)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return stream.getvalue()


def gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = packer.compress(b"\0" * MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * 500 + packer.flush()


FORMULAS = b"""Note,Number
=cmd|' /C calc'!A0,1
"=HYPERLINK(""http://x.org"",""click"")",2
@SUM(1),3
-2+3,4
"""
BINARY = "unsupported type: binary data that no parser here knows"
HTML = f"<!doctype html><html><body><p>{KEPT}</p><script>poison()</script></body></html>"
UTF_7 = "<html><head><meta charset=utf-7></head><body>The heron stays. +ADw-script+AD4-poison()+ADw-/script+AD4-</body>"
OVERLONG = b" \xc0\xae\xc0\xae\xc0\xaf \xe0\x80\xbcscript\xf0\x80\x80\xbe \xfe\xff\xf8\x88\x80\x80\x80"
PICTURE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)


def repeated_names() -> bytes:
    """A table whose columns are named at length: each row would say so again."""
    return b"".join(b"name%d %s," % (i, b"ha " * 3_000) for i in range(3)) + b"\n" + b"1,2,3\n" * 500


def kept(more: bytes) -> Callable[[Bait], bytes]:
    return of(f"{KEPT} ".encode() + more)


PACK: list[Poison] = [
    refused("columns.csv", lambda _: million_columns(), "a row of it has 1000000 columns, more than 16384"),
    read("names-that-repeat.csv", lambda _: repeated_names(), "name2 ha"),
    read("formulas.csv", of(FORMULAS), "Note: =cmd|' /C calc'!A0"),
    read("quote-that-never-ends.csv", lambda _: b'a,b\n"' + b"x,y\n" * 50_000, "x"),
    read("quotes.csv", lambda _: b'"' * 500_001 + f"\n{KEPT},2\n".encode(), KEPT),
    refused(
        "separators.csv", lambda _: b",;\t|" * 250_000 + f"\n{KEPT}\n".encode(), "a row of it has 250001 columns, .*"
    ),
    refused("one-line-of-100-mb.csv", lambda _: b"x" * 100_000_000, "the file is larger than 20 MB"),
    read("one-line.csv", lambda _: b"x" * 300_000, "xxxx"),
    read("one-word.txt", lambda _: b"x" * 300_000, "xxxx"),
    refused("white.txt", lambda _: b"begin" + b" " * 2_000_000 + b"end", "over 65535 bytes of it hold hardly a word"),
    refused("brackets.json", of(b"[" * 100_000 + b"]" * 100_000), EMPTY),
    read("nul.txt", of(b"The heron\0 stays.\0\n" * 3), KEPT),
    refused("nul-only.txt", lambda _: b"\0" * 1_000_000, "empty"),
    read("surrogates.txt", kept(b"\xed\xa0\x80 \xed\xbf\xbf"), KEPT),
    read("surrogates-utf16.txt", of(b"\xff\xfe" + KEPT.encode("utf-16-le") + b"\x00\xd8 \x00\x00\xdc"), KEPT),
    read("utf7.html", of(UTF_7.encode()), "+ADw-script+AD4-"),
    read("utf16-without-mark.txt", of(f"{KEPT} It counts the fish.".encode("utf-16-le")), KEPT),
    read("utf16-without-mark.html", of(HTML.encode("utf-16-be")), KEPT, "poison()"),
    read("overlong.txt", kept(OVERLONG), KEPT, "../", "<script>"),
    read("marks.txt", lambda _: (KEPT + "\u0316\u0301" * 500_000).encode(), KEPT),
    read("ligature.txt", lambda _: (KEPT + "\ufdfa" * 50_000).encode(), KEPT),
    read("directions.txt", kept("\u202e\u2066\u200b\u2060\ufeff\U000e0041 end".encode()), KEPT),
    read("escapes.txt", kept(b"\x1b[2J\x1b]0;poison\x07 end"), KEPT, "\x1b"),
    refused("every-byte.txt", lambda _: bytes(range(256)) * 4_000, BINARY),
    read("html.pdf", of(HTML.encode()), KEPT, "poison()"),
    read("text.docx", of(KEPT.encode()), KEPT),
    read("pdf.docx", lambda _: good_pdf(KEPT), KEPT),
    read("docx.xlsx", lambda _: word(KEPT), KEPT),
    read("xlsx.txt", lambda _: sheet(KEPT), KEPT),
    refused("windows-program.docx", of(program()), BINARY),
    refused("linux-program.docx", of(b"\x7fELF\2\1\1" + b"\0" * 9 + bytes(range(200))), "unsupported type: a program"),
    refused("pickle.txt", lambda bait: pickled(bait, 4), "unsupported type: a pickled Python object", reaches=True),
    read("pickle-in-letters.txt", lambda bait: pickled(bait, 0), "open", reaches=True),
    refused("parquet.txt", lambda _: parquet(), "unsupported type: a Parquet table"),
    refused("extension.parquet", extension_parquet, "unsupported type: a Parquet table", reaches=True),
    refused("weights.pt", weights, "unsupported type: a zip archive; add its files one by one", reaches=True),
    refused("samples.tar", samples, BINARY, reaches=True),
    read("pickle-inside.docx", pickle_inside, KEPT, reaches=True),
    refused("tar.txt", lambda _: tar(), BINARY),
    refused("bomb.gz", lambda _: gzip_bomb(), "unsupported type: a gzip archive"),
    refused("picture.png", of(PICTURE), "unsupported type: a PNG image; it needs OCR"),
    refused("empty.docx", of(b""), "empty"),
]
