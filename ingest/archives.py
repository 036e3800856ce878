"""Whether a zip file may be unpacked: what its directory says is held against what its bytes can be.

A library that trusts the directory can be made to unpack the same bytes many times over, or more of them than were
declared. This looks at all entries first and keeps nothing of what it unpacks.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from itertools import pairwise

from policies.errors import DocumentRejected

MAX_UNPACKED_BYTES = 1_000_000_000
MAX_PARTS = 10_000
NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises for files that are damaged, encrypted or packed in a way that it does not know."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BLOCK = 1_048_576
_DOCTYPE = b"<!DOCTYPE"
_PROLOG_BYTES = 1_024


def check_archive(archive: zipfile.ZipFile, data: bytes, may_declare_types: bool) -> None:
    """Raise `DocumentRejected` for a zip bomb, and for XML that declares a type where the format forbids it.

    `data` is the whole file. `may_declare_types`: Office Open XML forbids document type declarations, and with them
    entities of its own (ECMA-376 part 2, annex on package XML); EPUB and OpenDocument know them.
    """
    entries = archive.infolist()
    if len(entries) > MAX_PARTS:
        raise DocumentRejected(f"it has {len(entries)} parts, more than {MAX_PARTS}")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED_BYTES:
        raise DocumentRejected(
            f"it unpacks to {unpacked // 1_000_000} MB, more than {MAX_UNPACKED_BYTES // 1_000_000} MB"
        )
    placed = sorted(entries, key=lambda entry: entry.header_offset)
    for one, following in pairwise(placed):
        if one.header_offset + _LOCAL_HEADER.size + one.compress_size > following.header_offset:
            raise DocumentRejected("its parts overlap, as they do in a zip bomb")
    for entry in placed:
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            _check_part(entry, data, may_declare_types)


def _check_part(entry: zipfile.ZipInfo, data: bytes, may_declare_types: bool) -> None:
    """Unpack a part block by block, up to what it declares."""
    header = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    if len(header) < _LOCAL_HEADER.size:
        raise DocumentRejected("damaged: a part of it lies beyond its end")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size + name + extra
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, size = data[start : start + entry.compress_size], 0
    must_not_declare = not may_declare_types and _is_xml(entry.filename)
    try:
        while packed and not unpacker.eof:
            block = unpacker.decompress(packed, _BLOCK)
            # Without its zero bytes, UTF-16 reads as ASCII.
            if size == 0 and must_not_declare and _DOCTYPE in block[:_PROLOG_BYTES].replace(b"\x00", b""):
                raise DocumentRejected("it declares a document type, which Office files must not")
            size += len(block)
            if size > entry.file_size:
                raise DocumentRejected("a part of it unpacks to more than it declares, as in a zip bomb")
            packed = unpacker.unconsumed_tail
    except zlib.error as error:
        raise DocumentRejected("damaged: a part of it cannot be unpacked") from error


def _is_xml(name: str) -> bool:
    return name.endswith((".xml", ".rels")) and not name.startswith("customXml/")  # what users put there is their own
