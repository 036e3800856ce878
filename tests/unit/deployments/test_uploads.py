"""What a caller sends as a document is cleaned like a source's, and names no address that does something."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from deployments.contract import RuleChange
from deployments.uploads import _from_json, read_uploads
from ingest.cleaning import clean
from policies.errors import InvalidRequest
from policies.labels import Label

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


def test_a_label_is_said_or_not_said_and_never_guessed() -> None:
    assert read().label is None
    assert read(label="restricted").label is Label.RESTRICTED


@pytest.mark.parametrize("label", ["", "Restricted", "secret", "restricted ", None, 3, True, ["public"]])
def test_a_malformed_label_is_refused(label: Any) -> None:
    with pytest.raises(InvalidRequest, match="label: .* is none; write public, internal, confidential, restricted"):
        read(label=label)


def test_a_label_inside_of_the_readers_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="acl"):
        read(acl={"allow": ["everyone"], "label": "public"})


@pytest.mark.parametrize("label", [None, "confidential", "", "Confidential", "2"])
def test_a_forms_label_is_for_all_of_its_files(label: str | None) -> None:
    async def send(request: Request) -> JSONResponse:
        found = await read_uploads(request, 1_000)
        return JSONResponse([each.label for each in found])

    client = TestClient(Starlette(routes=[Route("/", send, methods=["POST"])]))
    files = [("file", ("a.txt", b"x")), ("file", ("b.txt", b"y"))]
    fields = {} if label is None else {"label": label}
    if label in (None, "confidential"):
        expected = [None if label is None else int(Label.CONFIDENTIAL)] * 2
        assert client.post("/", files=files, data=fields).json() == expected
    else:
        with pytest.raises(InvalidRequest, match="label: .* is none"):
            client.post("/", files=files, data=fields)


@pytest.mark.parametrize(("body", "label"), [({}, None), ({"label": "public"}, Label.PUBLIC)])
def test_a_change_of_the_rule_may_say_a_label(body: dict[str, Any], label: Label | None) -> None:
    assert RuleChange.model_validate({"allow": ["everyone"], **body}).label is label


@pytest.mark.parametrize("label", ["", "Public", None, 0])
def test_a_change_with_a_malformed_label_changes_nothing(label: Any) -> None:
    with pytest.raises(ValidationError, match="is none; write public"):
        RuleChange.model_validate({"allow": ["everyone"], "label": label})
