from __future__ import annotations

import io
import zipfile

import pytest

from ingest.archives import check_archive
from policies.errors import DocumentRejected
from tests.unit.ingest.poison.zips import Part, archive, part


def check(data: bytes, may_declare_types: bool = False) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        check_archive(opened, data, may_declare_types)


def test_honest_archive_passes() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as written:
        written.writestr("stored.xml", b"<a/>" * 1_000, zipfile.ZIP_STORED)
        written.writestr("packed.xml", b"<a/>" * 100_000, zipfile.ZIP_DEFLATED)
        written.writestr("empty.xml", b"", zipfile.ZIP_DEFLATED)
        written.writestr("folder/", b"")
    check(stream.getvalue())
    check(b"something before it" + stream.getvalue())


def test_part_that_holds_more_than_it_declares_is_refused() -> None:
    with pytest.raises(DocumentRejected, match="unpacks to more than it declares"):
        check(archive([part("a.xml", b"x" * 5_000_000, declared=4_999_999)]))


def test_parts_that_share_their_bytes_are_refused() -> None:
    with pytest.raises(DocumentRejected, match="overlap"):
        check(archive([part(f"{number}.xml", b"x" * 1_000) for number in range(3)], overlapping=True))


def test_number_of_parts_and_their_size_are_bounded() -> None:
    with pytest.raises(DocumentRejected, match="10001 parts"):
        check(archive([Part(str(number), b"\x03\0", 0, 0) for number in range(10_001)]))
    with pytest.raises(DocumentRejected, match="1200 MB"):
        check(archive([Part(str(number), b"\x03\0", 400_000_000, 0) for number in range(3)]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_document_type_is_refused_where_the_format_forbids_it(encoding: str) -> None:
    data = '<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode(encoding)
    with pytest.raises(DocumentRejected, match="declares a document type"):
        check(archive([part("word/document.xml", data)]))
    check(archive([part("content.xml", data)]), may_declare_types=True)
    check(archive([part("customXml/item1.xml", data), part("word/media/a.svg", data)]))


def test_damaged_part_is_refused() -> None:
    with pytest.raises(DocumentRejected, match="damaged"):
        check(archive([Part("a.xml", b"\xff\xff\xff", 10, 0)]))
