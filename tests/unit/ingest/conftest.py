"""A source whose every answer the test decides, a real ledger, and rows of the vector store in memory."""

from __future__ import annotations

import itertools
import os
import tempfile

import numpy as np
import pytest

from index.document import Chunk
from index.ledger import Ledger
from ingest.connector import Entry, Gone, InlineDocument, Mark, Unreadable
from ingest.source_settings import SourceSettings
from ingest.source_sync import SourceSync
from ingest.stages import Preparation, process
from policies.access import AccessRule
from policies.errors import SourceUnavailable
from policies.principals import Principal
from tests.unit.ingest.screens import screening

PUBLIC = AccessRule.of(["everyone"])


class Rows:
    """The rows, by document and version, with the rule that they carry and their texts."""

    def __init__(self, *_: object) -> None:
        self.carried: dict[tuple[str, int], int] = {}
        self.texts: dict[tuple[str, int], list[str]] = {}

    def open(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def upsert(self, rows):
        fresh: dict[tuple[str, int], list[str]] = {}
        for row in rows:
            fresh.setdefault((row.document_id, row.version), []).append(row.text)
            self.carried[row.document_id, row.version] = row.access_id
        self.texts |= fresh
        return len(rows)

    def delete(self, document_id, version, chunk_count):
        self.carried.pop((document_id, version), None)
        self.texts.pop((document_id, version), None)

    def set_access(self, document_id, version, chunk_count, access_id):
        self.carried[document_id, version] = access_id


class Desk:
    """A source: documents by id, changes since a cursor, and a mood."""

    def __init__(self, name: str) -> None:
        self.settings = SourceSettings(name=name, tenant="acme")
        self.documents: dict[str, tuple[str, AccessRule]] = {}
        self.changes: list[str | Entry] = []  # a name: as it is when it is listed
        self.broken: Exception | None = None
        self.unreadable: set[str] = set()
        self.breaks_off = False
        self.closed: list[str] = []  # what begins so has rights that cannot be read
        self.asked: list[str | None] = []
        self.incremental = True
        self.changed_at: float | None = None

    def put(self, external_id: str, text: str, rule: AccessRule = PUBLIC) -> None:
        self.documents[external_id] = (text, rule)
        self.changes.append(external_id)

    def take(self, external_id: str) -> None:
        del self.documents[external_id]
        self.changes.append(external_id)

    def entry(self, external_id: str) -> Entry:
        text, rule = self.documents[external_id]
        ref = self.settings.ref(external_id, f"desk:{external_id}", rule, fingerprint=f"{hash(text)}")
        if external_id in self.unreadable:
            return Entry(ref, location=external_id, changed_at=self.changed_at)
        return Entry(ref, inline=InlineDocument(None, text), changed_at=self.changed_at)

    def now(self, external_id: str, below: bool = False) -> Entry | Gone:
        return self.entry(external_id) if external_id in self.documents else Gone(external_id, below)

    def check(self) -> None: ...

    def list(self, cursor):
        self.asked.append(cursor)
        if self.broken:
            raise self.broken
        if cursor is None or not self.incremental:
            closed = tuple(self.closed)
            yield from [Unreadable(below, f"{below}acl.yaml: entry 1") for below in closed]
            yield from [self.entry(name) for name in sorted(self.documents) if not name.startswith(closed)]
        else:
            for change in self.changes[int(cursor) :]:
                yield change if isinstance(change, Entry) else self.now(change)
        if not self.breaks_off:
            yield Mark(str(len(self.changes)) if self.incremental else None, cursor is None or not self.incremental)

    def look(self, external_ids):
        for name in external_ids:
            yield self.now(name, below=True)

    def fetch(self, entry, max_bytes):
        raise SourceUnavailable("the desk is locked")

    def watch(self):
        return None


class World:
    """A source in a ledger, which other worlds may share, and the rows of its own."""

    def __init__(self, ledger: Ledger, name: str, regimes: tuple[str, ...] = ()) -> None:
        rows = Rows()
        self.ledger = ledger
        self.rows, self.desk = rows, Desk(name)
        self.ages: list[float] = []
        prepare = Preparation(self.ledger, None, _OneChunk(), 3, 1_000_000, screen=screening(self.ledger, *regimes))
        self.before_write = lambda: None

        def work(entries):
            self.before_write()
            yield from process(entries, self.desk.fetch, prepare, _embed, self.ledger, rows, "run")

        self.sync = SourceSync(
            self.desk.settings, "desk:", self.desk, self.ledger, rows, "key", work, observe=self.ages.append
        )

    def reads(self, who: Principal, external_id: str) -> str | None:
        return self.reading(who).get(external_id)

    def reading(self, who: Principal) -> dict[str, str]:
        """Everything that somebody is shown, by the source's ids, as a search and the second gate show it."""
        visible = self.ledger.visible_rules(who)
        found = [key for key, rule in self.rows.carried.items() if visible is not None and rule in visible.access_ids]
        live = self.ledger.gate(found, who)
        shown: dict[str, str] = {}
        for key in found:
            document = live.get(key[0])
            if document is not None and document.key == key:
                assert document.external_id not in shown, "two versions at once"
                shown[document.external_id] = "".join(self.rows.texts[key])
        return shown


class _OneChunk:
    def split(self, extracted):
        return (Chunk(0, extracted.text, 0, len(extracted.text)),)


def _embed(texts):
    return [{"m": np.zeros(2, np.float32)} for _ in texts], [True for _ in texts]


@pytest.fixture
def make_world():
    """Give a function that makes worlds of their own, on one ledger in memory: nothing waits for a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite")
        numbers = itertools.count()
        yield lambda: World(ledger, f"desk-{next(numbers)}")
        ledger.close()


@pytest.fixture
def world(make_world):
    return make_world()
