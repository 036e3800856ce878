"""What kind of file some bytes are, and in which encoding text stands. The content decides, the name only helps."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal

from ingest.archives import NO_ARCHIVE, check_archive
from ingest.cleaning import clean
from policies.errors import DocumentRejected, UnsupportedType

Kind = Literal["pdf", "docx", "pptx", "xlsx", "office", "html", "eml", "markdown", "csv", "text"]

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
_OFFICE_FOLDERS: dict[str, Kind] = {"word": "docx", "ppt": "pptx", "xl": "xlsx"}
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
    b"PAR1": "a Parquet table",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    **{b"\x80" + bytes([protocol]): "a pickled Python object" for protocol in range(2, 6)},
}
_HTML = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_MAIL_HEADER = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):", re.MULTILINE)


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


def _zip_kind(data: bytes) -> tuple[Kind, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {entry.filename for entry in archive.infolist()}
            mimetype = archive.open("mimetype").read(100).decode("ascii", "replace") if "mimetype" in names else ""
            kind = _packed_kind(names, mimetype.strip())
            check_archive(archive, data, may_declare_types=kind[0] == "office")
    except (*NO_ARCHIVE, OSError, ValueError) as error:
        raise DocumentRejected("damaged: the file is cut short or no valid Office or zip file") from error
    return kind


def _packed_kind(names: Iterable[str], mimetype: str) -> tuple[Kind, str]:
    folders = {name.split("/", 1)[0] for name in names}
    for folder, kind in _OFFICE_FOLDERS.items():
        if folder in folders:
            return kind, kind
    for key in ("odt", "ods", "odp", "epub"):
        if mimetype == MIME[key]:
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
    if _looks_like_mail(head, suffix):  # first: its body may be HTML
        return "eml", ""
    if suffix not in ("md", "markdown", "csv", "tsv") and _HTML.search(head[:2048]):
        return "html", "html"
    if suffix in ("html", "htm", "xhtml") and re.search(r"<[a-zA-Z]+[^<>]*>", head):
        return "html", "html"
    if suffix == "pdf":
        raise DocumentRejected("damaged: this is no PDF, though its name says so")
    if suffix in ("csv", "tsv"):
        return "csv", ""
    return ("markdown" if suffix in ("md", "markdown", "mdx") else "text"), ""


def _looks_like_mail(head: str, suffix: str) -> bool:
    names = {name.lower() for name in _MAIL_HEADER.findall(clean(head).lstrip().split("\n\n", 1)[0])}
    if suffix in ("eml", "mht", "mhtml"):
        return bool(names & {"from", "to", "subject", "date", "received", "mime-version", "message-id"})
    starts = re.match(r"\s*(From |[A-Za-z][A-Za-z0-9-]*:)", head) is not None
    return starts and "from" in names and bool(names & {"received", "mime-version", "message-id"})


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
