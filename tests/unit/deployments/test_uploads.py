"""What a caller sends as a document is cleaned like a source's, and names no address that does something."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.uploads import _from_json
from ingest.cleaning import clean
from policies.errors import InvalidRequest

DIRTY = "x\x00y\x07 caf\u0065\u0301\r\nend\x1b[2J"


def read(**row: Any) -> Any:
    return _from_json(json.dumps({"id": "a", "text": "some text", **row}).encode())


def test_text_and_title_are_cleaned_as_a_jsonl_rows() -> None:
    upload = read(text=DIRTY, title="  The\x00 ti\x07tle\n[1] ")

    assert upload.inline.text == clean(DIRTY) == "xy caf\u00e9\nend[2J"
    assert upload.title == upload.inline.title == "The title [1]"


@pytest.mark.parametrize(("title", "kept"), [(None, None), ("", None), (" \x00 ", None), ("Untitled", "Untitled")])
def test_a_title_that_says_nothing_is_kept_where_it_is_all_there_is(title: str | None, kept: str | None) -> None:
    assert read(title=title).title == kept


@pytest.mark.parametrize("text", [" ", "\x00", "\x07\n"])
def test_text_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="text: it is empty"):
        read(text=text)


GOOD = ["http://a/b", "HTTPS://a/b?c#d", "file:///srv/a b.pdf", "s3://b/k", "gs://b/k", "abfs://c@a/k", "smb://s/p",
        "https://acme.sharepoint.com/sites/hr/x.docx", "handbook.md", "../a/b.md", "/a/b:c", "#part", "?q=a:b",
        "a/b:c", "北京/é.pdf", "100% a.md"]  # fmt: skip


@pytest.mark.parametrize("uri", GOOD)
def test_a_plain_address_is_kept_as_it_is(uri: str) -> None:
    assert read(uri=uri).uri == uri


BAD = ["javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "vbscript:x", "blob:x", "ms-word:ofe|u|x",
       "ssh://a", "mailto:a@b", "c:\\x", "upload:x", " javascript:alert(1)", "java\nscript:alert(1)",
       "\x01javascript:alert(1)", "java\tscript:alert(1)", "https://a/\u202egpj.exe", "https://a/\u200b", "a\x7f",
       "https://a "]  # fmt: skip


@pytest.mark.parametrize("uri", BAD)
def test_an_address_that_does_something_or_hides_something_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequest, match="uri: give a relative reference"):
        read(uri=uri)


def test_without_an_address_the_id_stands_for_it() -> None:
    assert read().uri == read(uri=None).uri == read(uri="").uri == "upload:a"
