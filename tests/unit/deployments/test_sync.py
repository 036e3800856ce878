"""Changes to single documents: an overtaken one says so, and what is hidden costs what is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.sync import Sync, Upload
from index.document import Chunk, DocumentRef
from index.ledger import Ledger
from ingest.connector import InlineDocument
from ingest.stages import Prepared
from policies.access import AccessRule
from policies.errors import Conflict, NotFound
from policies.principals import Principal

TEXT = "The answer is 42."
ADA = Principal("ada", "acme", groups=frozenset({"staff"}))


class Store:
    """Takes rows; `meanwhile` runs while they are on their way."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    def upsert(self, rows: Sequence[Any]) -> int:
        self.meanwhile()
        return len(rows)

    def delete(self, *_: Any) -> None: ...


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture
def sync(ledger: Ledger) -> Any:
    """The deployment on a real ledger, without parser and model."""
    deployment: Any = Sync.func_or_class.__new__(Sync.func_or_class)

    def prepare(entry: Any, _: Any, owner: str) -> Prepared:
        return Prepared(entry.ref, None, entry.ref.fingerprint, (Chunk(0, TEXT, 0, len(TEXT)),), owner)

    async def passages(texts: Sequence[str]) -> Any:
        return [np.ones(4, np.float32) for _ in texts], [True for _ in texts]

    deployment._ledger, deployment._store, deployment._key = ledger, Store(), "key"
    deployment._prepare, deployment._parsing = prepare, asyncio.Lock()
    deployment._embedding = SimpleNamespace(passages=SimpleNamespace(remote=passages))
    return deployment


def upload(rule: AccessRule, text: str = TEXT) -> Upload:
    return Upload("note", "upload:note", rule, None, InlineDocument(None, text))


def test_an_upload_that_a_newer_writer_overtook_is_a_conflict(sync: Any, ledger: Ledger) -> None:
    first = asyncio.run(sync.put(ADA, upload(AccessRule.of(["everyone"])), False))
    assert first.status == "indexed"
    ref = DocumentRef("acme", "uploads/ada", "note", "upload:note", None, "newer", AccessRule.of(["everyone"]))
    assert ref.document_id == first.document_id
    sync._store.meanwhile = lambda: ledger.begin_version(ref, "newer", 1, "another run")

    with pytest.raises(Conflict, match="written at the same time; send it again"):
        asyncio.run(sync.put(ADA, upload(AccessRule.of(["user:ada"]), "other text"), False))

    sync._store.meanwhile = lambda: None
    again = asyncio.run(sync.put(ADA, upload(AccessRule.of(["user:ada"]), "other text"), False))
    assert again.status == "indexed"
    stored = ledger.document(again.document_id)
    assert stored is not None and ledger.rule(stored.access_id) == AccessRule.of(["user:ada"])


def place(ledger: Ledger, tenant: str, name: str, rule: AccessRule, owner: str | None = None) -> str:
    ref = DocumentRef(tenant, "wiki", name, name, None, "1", rule)
    assert ledger.flip(ref, ledger.begin_version(ref, "hash", 1, "run", owner))
    return ref.document_id


def test_what_is_hidden_is_looked_up_like_what_is_unknown(sync: Any, ledger: Ledger) -> None:
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return getattr(ledger, name)(*arguments)

        return call

    sync._ledger = SimpleNamespace(**{name: counted(name) for name in ("document", "find_tenant", "get")})
    hr, public = AccessRule.of(["group:hr"]), AccessRule.of(["everyone"])
    deleted = place(ledger, "acme", "deleted", public)
    ledger.delete([deleted])
    refused = {
        "hidden": place(ledger, "acme", "hidden", hr),
        "unknown": "0" * 32,
        "of another tenant": place(ledger, "rival", "theirs", public),
        "deleted": deleted,
    }
    seen = {}
    for kind, document_id in refused.items():
        calls.clear()
        with pytest.raises(NotFound, match="no such document"):
            sync._managed(ADA, document_id)
        seen[kind] = list(calls)

    assert set(map(tuple, seen.values())) == {("document", "find_tenant", "get")}, seen
    assert sync._managed(ADA, place(ledger, "acme", "public", public))
    assert sync._managed(ADA, place(ledger, "acme", "own", hr, owner="ada"))
