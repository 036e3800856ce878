"""A bulk run without Ray: the same plan, rights and stages, one document after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.document import DocumentRef, document_id
from index.settings import load
from ingest import bulk
from ingest.bulk import Bulk, Prepare, source_name
from ingest.plan import TWICE
from ingest.report import Outcome, Report
from ingest.stages import Embedded, Prepared, write
from policies.access import AccessRule
from policies.errors import ConfigurationError
from policies.principals import Principal

ROOT = Path(__file__).resolve().parents[3]
HR, PUBLIC = AccessRule.of(["group:hr"]), AccessRule.of(["everyone"])
BOB, HAL = Principal("bob", "acme"), Principal("hal", "acme", groups=frozenset({"hr"}))


class Rows:
    """The rows of the vector store in memory, by document and version, with the rule that they carry."""

    def __init__(self, *_: object) -> None:
        self.carried: dict[tuple[str, int], int] = {}
        self.open = self.flush = lambda: None

    def upsert(self, rows):
        self.carried |= {(row.document_id, row.version): row.access_id for row in rows}
        return len(rows)

    def delete(self, document_id, version, chunk_count):
        self.carried.pop((document_id, version), None)

    def set_access(self, document_id, version, chunk_count, access_id):
        self.carried[document_id, version] = access_id


class Index:
    """A ledger, its rows and runs that fill them. `before_write` is called between the rights and the new text."""

    def __init__(self, folder: Path) -> None:
        args = load(ROOT / "serve_config.yaml", str(folder))
        self.bulk = Bulk(args, lambda report: None)
        self.ledger, self.rows = self.bulk._ledger, self.bulk._store
        self.before_write: Callable[[], None] = lambda: None
        self._args = args
        self.bulk._stream = self._stream

    def run(self, source: object, rule: AccessRule = PUBLIC) -> Report:
        report = self.bulk.run(str(source), "acme", rule)
        assert report.discovered == report.indexed + report.unchanged + report.quarantined
        return report

    def readers(self, source: object, external_id: str) -> list[str]:
        key = document_id("acme", source_name(str(source)), external_id)
        keys = list(self.rows.carried)
        return [who.subject for who in (BOB, HAL) if key in self.ledger.gate(keys, who)]

    def _stream(self, settings, entries):
        self.before_write()
        stage = Prepare(self._args, settings)
        for entry in entries:
            item = stage._prepare(entry, stage._fetch)
            if isinstance(item, Prepared):
                vectors = tuple({"m": np.zeros(2, np.float32)} for _ in item.chunks)
                [item] = write([Embedded(item, vectors, 0)], self.ledger, self.rows, "run")
            assert isinstance(item, Outcome)
            yield item


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(bulk, "Stores", Rows)
    return Index(tmp_path / "data")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def rows_file(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_redacted_and_opened_document_never_shows_its_old_text_to_new_readers(index, source):
    (source / "a.md").write_text("The secret is 7.")
    index.run(source, HR)
    seen = []
    index.before_write = lambda: seen.append(index.readers(source, "a.md"))
    (source / "a.md").write_text("The secret was redacted from this.")
    assert index.run(source, PUBLIC).indexed == 1
    assert seen == [["hal"]]
    assert index.readers(source, "a.md") == ["bob", "hal"]


def test_edited_and_closed_document_loses_its_readers_before_its_new_text(index, source):
    (source / "a.md").write_text("Open.")
    index.run(source, PUBLIC)
    seen = []
    index.before_write = lambda: seen.append(index.readers(source, "a.md"))
    (source / "a.md").write_text("Now with what only HR may know.")
    index.run(source, HR)
    assert seen == [["hal"]] == [index.readers(source, "a.md")]


def test_narrowed_rule_stays_where_the_new_text_cannot_be_read(index, source):
    (source / "a.md").write_text("Open.")
    index.run(source, PUBLIC)
    (source / "a.md").write_bytes(b"\x7fELF\x02" + b"\0" * 90)
    assert index.run(source, HR).quarantined == 1
    assert index.readers(source, "a.md") == ["hal"]
    assert index.run(source, PUBLIC).quarantined == 1
    assert index.readers(source, "a.md") == ["hal"], "the text that is live is not the one that was opened"


def test_document_that_was_only_touched_gets_its_wider_rule_in_the_same_run(index, source):
    (source / "a.md").write_text("Same.")
    index.run(source, HR)
    os.utime(source / "a.md", ns=(1, 1))
    assert index.run(source, PUBLIC).unchanged == 1
    assert index.readers(source, "a.md") == ["bob", "hal"]


def test_row_whose_acl_became_malformed_is_hidden_until_it_is_mended(index, source):
    path = source / "d.jsonl"
    rows_file(path, {"id": "1", "text": "One.", "acl": ["everyone"]})
    index.run(path)
    assert index.readers(path, "1") == ["bob", "hal"]
    rows_file(path, {"id": "1", "text": "One.", "acl": "group:hr"})
    report = index.run(path)
    assert (report.quarantined, report.deleted) == (1, 0)
    assert index.readers(path, "1") == []
    rows_file(path, {"id": "1", "text": "One.", "acl": ["group:hr"]})
    assert index.run(path).indexed == 1
    assert index.readers(path, "1") == ["hal"]


def test_bad_row_still_follows_a_narrower_rule(index, source):
    path = source / "d.jsonl"
    rows_file(path, {"id": "1", "text": "One.", "acl": ["everyone"]})
    index.run(path)
    rows_file(path, {"id": "1", "text": "", "acl": ["group:hr"]})
    assert index.run(path).quarantined == 1
    assert index.readers(path, "1") == ["hal"]


def test_file_that_takes_a_rows_id_changes_neither_its_text_nor_its_readers(index, source):
    rows_file(source / "hr.jsonl", {"id": "42", "text": "A grievance.", "acl": ["group:hr"]})
    index.run(source)
    (source / "hr.jsonl#42").write_text("Mine.")
    report = index.run(source)
    assert [error.reason for error in report.errors] == [TWICE, TWICE]
    assert index.readers(source, "hr.jsonl#42") == ["hal"]
    (source / "hr.jsonl#42").unlink()
    assert index.run(source).unchanged == 1


# ---- the source's name


def test_a_source_has_one_name_however_its_place_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spellings = ["docs", "docs/", "./docs", f"{tmp_path}/docs", f"{tmp_path}/docs/", f"file://{tmp_path}/docs"]
    assert {source_name(spelling) for spelling in spellings} == {f"{tmp_path}/docs"}
    assert {source_name("s3://bucket/docs"), source_name("s3://bucket/docs/")} == {"s3://bucket/docs"}
    assert source_name("/") == "/"
    assert source_name("zip::s3://bucket/a.zip") == "zip::s3://bucket/a.zip"


@pytest.mark.parametrize("uri", ["uploads/ada://x", "uploads/ada::", "://x", "::", "1x://y", "a b://c"])
def test_what_is_neither_a_path_nor_a_url_is_refused(uri):
    with pytest.raises(ConfigurationError, match="neither a path nor a URL"):
        source_name(uri)


def test_bulk_run_over_a_folder_that_is_called_as_uploads_are_deletes_no_upload(index, tmp_path, monkeypatch):
    upload = DocumentRef("acme", "uploads/ada", "my.txt", "upload:my.txt", None, "f", PUBLIC)
    assert index.ledger.flip(upload, index.ledger.begin_version(upload, "h", 1, "run", "ada"))
    (tmp_path / "uploads" / "ada").mkdir(parents=True)
    (tmp_path / "uploads" / "ada" / "other.md").write_text("Other.")
    monkeypatch.chdir(tmp_path)
    assert index.run("uploads/ada").deleted == 0
    assert index.ledger.get(BOB, upload.document_id) is not None
