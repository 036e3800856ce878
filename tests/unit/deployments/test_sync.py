"""Changes to single documents: an overtaken one says so, and what is hidden costs what is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.sync import Sync, Upload
from index.document import Chunk, DocumentRef
from index.ledger import Ledger
from ingest.connector import InlineDocument
from ingest.report import Outcome
from ingest.stages import Prepared, change_rights
from policies.access import AccessRule
from policies.errors import Conflict, InvalidRequest, NotFound
from policies.grants import Scope
from policies.labels import Label
from policies.principals import Principal
from tests.unit.ingest.screens import screening

TEXT = "The answer is 42."
ADA = Principal("ada", "acme", groups=frozenset({"staff"}))
ALL = Scope(everything=True)


class Store:
    """Takes rows; `meanwhile` runs while they are on their way."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    def upsert(self, rows: Sequence[Any]) -> int:
        self.meanwhile()
        return len(rows)

    def delete(self, *_: Any) -> None: ...

    def set_access(self, *_: Any) -> None: ...


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

    deployment._ledger, deployment._store = ledger, Store()
    deployment._screening, deployment._suppressions = screening(ledger), None
    deployment._prepare, deployment._parsing = prepare, asyncio.Lock()
    deployment._default_label = Label.INTERNAL
    deployment._embedding = SimpleNamespace(passages=SimpleNamespace(remote=passages))
    return deployment


def upload(rule: AccessRule, text: str = TEXT) -> Upload:
    return Upload("note", "upload:note", rule, None, InlineDocument(None, text))


def test_an_upload_that_a_newer_writer_overtook_is_a_conflict(sync: Any, ledger: Ledger) -> None:
    first = asyncio.run(sync.put(ADA, upload(AccessRule.of(["everyone"])), Scope()))
    assert first.status == "indexed"
    ref = DocumentRef("acme", "uploads/ada", "note", "upload:note", None, "newer", AccessRule.of(["everyone"]))
    assert ref.document_id == first.document_id
    sync._store.meanwhile = lambda: ledger.begin_version(ref, "newer", 1, "another run")

    with pytest.raises(Conflict, match="written at the same time; send it again"):
        asyncio.run(sync.put(ADA, upload(AccessRule.of(["user:ada"]), "other text"), Scope()))

    sync._store.meanwhile = lambda: None
    again = asyncio.run(sync.put(ADA, upload(AccessRule.of(["user:ada"]), "other text"), Scope()))
    assert again.status == "indexed"
    stored = ledger.document(again.document_id)
    assert stored is not None and ledger.rule(stored.access_id) == AccessRule.of(["user:ada"])


def place(
    ledger: Ledger, tenant: str, name: str, rule: AccessRule, owner: str | None = None, source: str = "wiki"
) -> str:
    ref = DocumentRef(tenant, source, name, name, None, "1", rule)
    assert ledger.flip(ref, ledger.begin_version(ref, "hash", 1, "run", owner))
    return ref.document_id


def test_what_is_hidden_is_looked_up_like_what_is_unknown(sync: Any, ledger: Ledger) -> None:
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return getattr(ledger, name)(*arguments)

        return call

    sync._ledger = SimpleNamespace(**{name: counted(name) for name in ("held", "find_tenant", "get")})
    hr, public = AccessRule.of(["group:hr"]), AccessRule.of(["everyone"])
    deleted = place(ledger, "acme", "deleted", public)
    ledger.delete([deleted])
    refused = {
        "hidden": place(ledger, "acme", "hidden", hr),
        "unknown": "0" * 32,
        "of another tenant": place(ledger, "rival", "theirs", public),
        "deleted": deleted,
        "above the clearance": place(ledger, "acme", "secret", AccessRule.of(["everyone"], label=Label.CONFIDENTIAL)),
        "of another source": place(ledger, "acme", "elsewhere", public, source="crm"),
    }
    wiki = Scope(patterns=frozenset({"source/wik*"}))
    seen = {}
    for kind, document_id in refused.items():
        calls.clear()
        with pytest.raises(NotFound, match="no such document"):
            sync._managed(ADA, document_id, wiki)
        seen[kind] = list(calls)

    assert set(map(tuple, seen.values())) == {("held", "find_tenant", "get")}, seen
    assert sync._managed(ADA, place(ledger, "acme", "public", public), wiki)
    assert sync._managed(ADA, place(ledger, "acme", "own", hr, owner="ada"), wiki)
    assert sync._managed(ADA, refused["of another source"], ALL)


# ---- labels


def cleared(label: Label) -> Principal:
    return replace(ADA, clearance=label)


def told(label: Label | None) -> Upload:
    return replace(upload(AccessRule.of(["everyone"])), label=label)


def change(sync: Any, caller: Principal, document_id: str, label: Label | None) -> None:
    asyncio.run(sync.set_rule(caller, document_id, AccessRule.of(["everyone"]), label, ALL))


def label_of(ledger: Ledger, document_id: str) -> Label:
    held = ledger.held(document_id)
    assert held is not None
    return held.label


def test_an_upload_keeps_the_label_that_is_there_and_a_new_one_gets_the_default(sync: Any, ledger: Ledger) -> None:
    sync._default_label = Label.PUBLIC
    keeper = cleared(Label.RESTRICTED)
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    assert label_of(ledger, document_id) is Label.PUBLIC
    for label, becomes in [
        (Label.CONFIDENTIAL, Label.CONFIDENTIAL),
        (None, Label.CONFIDENTIAL),
        (Label.INTERNAL, Label.INTERNAL),
    ]:
        asyncio.run(sync.put(keeper, told(label), Scope()))
        assert label_of(ledger, document_id) is becomes
    ledger.delete([document_id])
    asyncio.run(sync.put(keeper, told(None), Scope()))
    assert label_of(ledger, document_id) is Label.PUBLIC, "what was deleted says nothing any more"


def test_nobody_gives_a_label_above_their_own_clearance(sync: Any, ledger: Ledger) -> None:
    with pytest.raises(InvalidRequest, match="label: restricted is above your clearance, internal"):
        asyncio.run(sync.put(ADA, told(Label.RESTRICTED), Scope()))
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    with pytest.raises(InvalidRequest, match="above your clearance"):
        change(sync, ADA, document_id, Label.CONFIDENTIAL)
    sync._default_label = Label.CONFIDENTIAL
    with pytest.raises(InvalidRequest, match="above your clearance"):
        asyncio.run(sync.put(ADA, replace(told(None), external_id="another"), Scope()))
    assert label_of(ledger, document_id) is Label.INTERNAL


def test_nobody_relabels_or_deletes_what_they_are_not_cleared_for_their_own_included(sync: Any, ledger: Ledger) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    change(sync, cleared(Label.RESTRICTED), document_id, Label.RESTRICTED)
    for label in [None, *Label]:
        with pytest.raises(NotFound, match="no such document"):
            change(sync, cleared(Label.CONFIDENTIAL), document_id, label)
        with pytest.raises(NotFound, match="no such document"):
            asyncio.run(sync.put(cleared(Label.CONFIDENTIAL), told(label), ALL))
    with pytest.raises(NotFound, match="no such document"):
        asyncio.run(sync.delete(cleared(Label.CONFIDENTIAL), document_id, ALL))
    assert label_of(ledger, document_id) is Label.RESTRICTED


def test_a_change_of_the_rule_keeps_the_label_unless_it_says_one(sync: Any, ledger: Ledger) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    keeper, embedded = cleared(Label.RESTRICTED), sync._embedding
    sync._embedding = None  # a change of the label embeds nothing
    for label, becomes, seen in [
        (Label.CONFIDENTIAL, Label.CONFIDENTIAL, False),
        (None, Label.CONFIDENTIAL, False),
        (Label.PUBLIC, Label.PUBLIC, True),
        (None, Label.PUBLIC, True),
    ]:
        change(sync, keeper, document_id, label)
        assert label_of(ledger, document_id) is becomes
        assert (ledger.get(ADA, document_id) is not None) is seen
    sync._embedding = embedded


# ---- by source


def test_a_scope_bounds_what_is_changed_deleted_and_overwritten(sync: Any, ledger: Ledger) -> None:
    bob = Principal("bob", "acme")
    adas, bobs = (Scope(patterns=frozenset({f"source/uploads/{name}"})) for name in ("ada", "bob"))
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    with pytest.raises(NotFound):
        asyncio.run(sync.set_rule(bob, document_id, AccessRule.of([]), None, bobs))
    with pytest.raises(NotFound):
        asyncio.run(sync.delete(bob, document_id, bobs))
    assert asyncio.run(sync.put(bob, told(None), bobs)).document_id != document_id
    ledger.delete([document.document_id for document in ledger.find(1) if document.owner == "bob"])
    assert asyncio.run(sync.put(bob, told(None), adas)).document_id == document_id
    asyncio.run(sync.delete(bob, document_id, adas))
    assert ledger.get(ADA, document_id) is None


# ---- changes at the same time


def answers_unchanged(sync: Any, meanwhile: Callable[[], None]) -> None:
    """Let what is uploaded be the text that is live; `meanwhile` runs while it is read."""

    def prepare(entry: Any, _: Any, __: str) -> Outcome:
        meanwhile()
        return Outcome(entry.ref.document_id, entry.ref.external_id, entry.ref.uri, "unchanged", 1)

    sync._prepare = prepare


def test_an_upload_under_way_does_not_undo_a_label_that_is_given_meanwhile(sync: Any, ledger: Ledger) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    rule = AccessRule.of(["everyone"], label=Label.RESTRICTED)
    answers_unchanged(sync, lambda: change_rights(document_id, rule, ledger, sync._store) and None)
    with pytest.raises(Conflict, match="at the same time; send it again"):
        asyncio.run(sync.put(ADA, told(None), Scope()))
    assert label_of(ledger, document_id) is Label.RESTRICTED
    with pytest.raises(NotFound):
        asyncio.run(sync.put(ADA, told(None), Scope()))


def test_an_upload_is_as_old_as_before_the_label_that_it_read(sync: Any, ledger: Ledger) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    read = sync._label

    def slow(*arguments: Any) -> Label:
        label: Label = read(*arguments)
        ledger.set_rule(document_id, AccessRule.of(["everyone"], label=Label.RESTRICTED))
        return label

    sync._label = slow
    answers_unchanged(sync, lambda: None)
    with pytest.raises(Conflict):
        asyncio.run(sync.put(ADA, told(None), Scope()))
    assert label_of(ledger, document_id) is Label.RESTRICTED


def test_an_upload_of_the_same_text_gives_it_the_rule_that_it_came_with(sync: Any, ledger: Ledger) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    answers_unchanged(sync, lambda: None)
    asyncio.run(sync.put(ADA, upload(AccessRule.of(["user:ada"])), Scope()))
    stored = ledger.document(document_id)
    assert stored is not None and ledger.rule(stored.access_id) == AccessRule.of(["user:ada"])


def relabelled_behind(sync: Any, ledger: Ledger, labels: Sequence[Label]) -> None:
    """Somebody else gives these labels, one each time between looking at the document and changing it."""
    looked, left = sync._managed, list(labels)

    def managed(caller: Principal, document_id: str, scope: Scope) -> Any:
        held = looked(caller, document_id, scope)
        if left:
            ledger.set_rule(document_id, AccessRule.of(["everyone"], label=left.pop(0)))
        return held

    sync._managed = managed


def test_a_change_of_the_rule_keeps_the_label_that_is_given_meanwhile(sync: Any, ledger: Ledger) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    relabelled_behind(sync, ledger, [Label.CONFIDENTIAL])
    asyncio.run(sync.set_rule(cleared(Label.RESTRICTED), document_id, AccessRule.of(["user:ada"]), None, ALL))
    stored = ledger.document(document_id)
    assert stored is not None
    assert ledger.rule(stored.access_id) == AccessRule.of(["user:ada"], label=Label.CONFIDENTIAL)


@pytest.mark.parametrize("label", [None, Label.PUBLIC])
def test_a_label_above_the_caller_that_is_given_meanwhile_stays(sync: Any, ledger: Ledger, label: Label | None) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    relabelled_behind(sync, ledger, [Label.RESTRICTED])
    with pytest.raises(NotFound):
        change(sync, ADA, document_id, label)
    assert label_of(ledger, document_id) is Label.RESTRICTED


def test_a_rule_that_others_keep_changing_is_a_conflict(sync: Any, ledger: Ledger) -> None:
    document_id = asyncio.run(sync.put(ADA, told(None), Scope())).document_id
    relabelled_behind(sync, ledger, [Label.PUBLIC, Label.INTERNAL] * 5)
    with pytest.raises(Conflict, match="send it again"):
        change(sync, ADA, document_id, None)
