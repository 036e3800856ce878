"""A change of the embedding model on a real store and a real ledger: nothing is missing, wherever it is killed."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from index.document import Chunk, DocumentRef, chunk_id, document_id
from index.embedders import Embedders
from index.embedding import Embedder
from index.embedding_cache import EmbeddingCache, text_hash
from index.ledger import Ledger
from index.ledger_records import NewVersion, WrittenVersion
from index.live_versions import LiveVersions
from index.models import FILLING, LIVE, PREVIOUS, HeldModel, Models
from index.settings import AppArgs, EmbeddingSettings, parse
from index.stores import KEPT_S, Live, ModelsChanged, Stores
from index.vectors import LIVE_ALIAS, VectorStore
from ingest import reindex
from ingest.comparison import MARGIN, Comparison
from ingest.embedding import CachedEmbedder
from ingest.reindex import Copied, Copy, Group, Reindex, missing
from ingest.stages import Prepared, _rows, change_rights, embed, embed_and_write, sweep, write
from policies.access import AccessRule
from policies.errors import Conflict, NotFound, Unavailable
from policies.principals import Principal
from tests.tiny_models import write_tiny_model

PUBLIC, HR = AccessRule.of(["everyone"]), AccessRule.of(["group:hr"])
BOB = Principal("bob", "acme")
ISSUER = {"issuer": "i", "audience": "a", "algorithms": ["EdDSA"], "key_file": "k"}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
WORDS = [
    "heron",
    "kestrel",
    "otter",
    "badger",
    "lantern",
    "harbour",
    "quarry",
    "meadow",
    "granite",
    "willow",
    "copper",
    "thistle",
]


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class InOneProcess(Reindex):
    """The job without Ray Data. `between` runs before each group is copied."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def _stream(self, model: HeldModel, groups: list[Group]) -> Iterator[Copied]:
        stage = Copy(self._args, model.model_id)
        for group in groups:
            self.between()
            yield from stage({"item": np.array([group], dtype=object)})["item"]


class World:
    """An index of short documents under a tiny model, and another tiny model to change to."""

    def __init__(self, home: Path, models: Path, uri: str) -> None:
        self.old = EmbeddingSettings(model=str(models / "old"))
        self.new = EmbeddingSettings(model=str(models / "new"), passage_prefix="p: ")
        store = {"uri": uri}
        embedding = self.old.model_dump()
        given = {"data_dir": str(home), "store": store, "embedding": embedding, "identity": {"issuers": [ISSUER]}}
        self.args: AppArgs = parse(given)
        self.ledger, self.stores = Ledger(self.args.store.ledger), Stores(self.args)
        self.stores.open()
        self.models, self.live = Models(self.args.store.ledger), LiveVersions(self.args.store.ledger)
        self.embedder = CachedEmbedder(self.args)
        self.client = MilvusClient(uri=uri)

    def prepared(self, name: str, text: str, rule: AccessRule = PUBLIC) -> Prepared:
        ref = DocumentRef("acme", "s", name, f"file:{name}", None, text, rule)
        half = len(text) // 2
        chunks = (
            Chunk(0, text[:half], 0, half, None, ("Birds", "Of the shore")),
            Chunk(1, text[half:], half, len(text)),
        )
        return Prepared(ref, f"About {name}", text_hash(text).hex(), chunks)

    def put(self, name: str, text: str, rule: AccessRule = PUBLIC) -> None:
        self.write([self.prepared(name, text, rule)])

    def write(self, documents: list[Prepared]) -> None:
        outcomes = embed_and_write(documents, self.embedder, self.ledger, self.stores, "run")
        assert [outcome.status for outcome in outcomes] == ["indexed"] * len(documents)

    def delete(self, name: str) -> None:
        self.ledger.delete([self.id(name)])
        sweep(self.ledger, self.stores, [self.id(name)])

    def rights(self, name: str, rule: AccessRule) -> None:
        change_rights(self.id(name), rule, self.ledger, self.stores)

    def id(self, name: str) -> str:
        return document_id("acme", "s", name)

    def fill(self, count: int = 12) -> None:
        texts = [f"Note {number} on the {WORDS[number]} by the old mill. It counts to 7." for number in range(count)]
        self.write([self.prepared(f"n{number}", text) for number, text in enumerate(texts)])

    def store(self, model: HeldModel) -> VectorStore:
        return VectorStore(self.args.store, model.model_id, model.dim)

    def held(self, state: str) -> HeldModel:
        found = self.models.find(state)
        assert found is not None
        return found

    def reindex(self, kind: type[Reindex] = InOneProcess) -> Any:
        return kind(self.args, patience_s=0.5)

    def check(self, model: HeldModel) -> None:
        """A model's collection is exactly what the ledger says, and each vector is that model's for the text."""
        store = self.store(model)
        store.open()
        live = [item for page in self.live.pages() for item in page]
        assert list(missing(self.live, store)) == []
        keys = {key: item.access_id for item in live for key in item.keys}
        assert store.access_ids(list(store.primary_keys())) == keys, "nothing is missing and nothing is left behind"
        rows = store.stored(list(keys))
        embedder = Embedders(self.args.embedding).get(model)
        found = self.client.get(store.collection, ids=list(keys), output_fields=["dense"])
        dense = {row["chunk_id"]: row["dense"] for row in found}
        for key, row in rows.items():
            assert text_hash(row.embedded_text).hex() == row.text_hash
            assert np.allclose(dense[key], embedder.encode([row.embedded_text]).dense[0], atol=1e-5)

    def alias(self) -> str:
        return str(self.client.describe_alias(LIVE_ALIAS)["collection_name"])


@pytest.fixture(scope="module")
def models() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="models-", dir=MEMORY) as home:
        for name, dim, seed in (("old", 16, 1), ("new", 24, 2), ("again", 16, 1)):
            write_tiny_model(Path(home) / name, dim, seed)
        yield Path(home)


@pytest.fixture(scope="module")
def load_once() -> Iterator[None]:
    """Compile each model once for all tests, not for each process that a test stands for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.embedders.Embedder", cache(Embedder))
        yield


@pytest.fixture
def world(models: Path, load_once: None, milvus_uri: str) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="index-", dir=MEMORY) as home:
        world = World(Path(home), models, milvus_uri)
        yield world
        for model in world.models.all():
            world.store(model).drop()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex, "KEPT_S", 0.0)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex, "GROUP_CHUNKS", 4)


# ---- filling


def test_the_new_collection_is_what_ingestion_would_have_made(world):
    world.fill()
    world.put("n3", "Edited since it was first written, and now about otters alone.")
    done = world.reindex().fill(world.new)
    assert (done.report.discovered, done.report.indexed, done.report.embedded, done.lost) == (12, 12, 24, 0)
    model = world.held(FILLING)
    assert model.dim == 24 and model.filled_at is not None
    world.check(model)
    expected = world.prepared("n3", "Edited since it was first written, and now about otters alone.")
    version = world.ledger.document(world.id("n3")).version
    rows = world.store(model).stored([chunk_id(world.id("n3"), version, n) for n in (0, 1)])
    assert [row.embedded_text for _, row in sorted(rows.items())] == expected.texts, "title and headings included"
    tokens = EmbeddingCache(world.args.store.embeddings, model.model_id).token_vectors(
        [text_hash(text) for text in expected.texts]
    )
    assert len(tokens) == 2, "the reranker finds what it needs"


def test_questions_get_the_old_model_until_the_promotion(world):
    world.fill(3)
    live = Live(world.args)
    before = live.ask()
    changes = world.reindex()
    changes.run(world.new, 5, 0)
    assert live.ask() is before and world.alias() == before.store.collection
    changes.promote(force=True)
    assert live.kept() is before, "for a moment, a process may go on with what it has"
    after = live.ask()
    assert (before.model_id, after.model_id) == (world.held(PREVIOUS).model_id, world.held(LIVE).model_id)
    assert world.alias() == after.store.collection == world.store(world.held(LIVE)).collection
    assert after.embeddings.get_dense([text_hash(text) for text in world.prepared("n0", "x" * 9).texts]) == {}


def test_filling_goes_on_where_it_was_and_embeds_nothing_twice(world):
    world.fill()
    first = world.reindex()
    seen = 0

    def die() -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise Killed

    first.between = die
    with pytest.raises(Killed):
        first.fill(world.new)
    done = world.reindex().fill(world.new)
    assert (done.report.unchanged, done.report.indexed, done.report.embedded) == (6, 6, 12)
    world.check(world.held(FILLING))


def test_an_empty_index_changes_its_model_too(world):
    changes = world.reindex()
    done = changes.run(world.new, 5, 0)
    assert done.comparison.questions == 0
    changes.promote()
    world.put("first", "The first words under the new model.")
    world.check(world.held(LIVE))


def test_a_stored_text_that_was_tampered_with_is_not_embedded(world):
    world.fill(1)
    store = world.store(world.held(LIVE))
    key = chunk_id(world.id("n0"), 1, 0)
    world.client.upsert(store.collection, [{"chunk_id": key, "text": "something else"}], partial_update=True)
    with pytest.raises(Unavailable, match="is damaged"):
        world.reindex().fill(world.new)
    assert world.held(FILLING).filled_at is None


def test_rows_that_the_live_collection_lost_do_not_block_the_change(world):
    world.fill(4)
    world.store(world.held(LIVE)).delete(world.id("n2"), 1, 2)
    changes = world.reindex()
    assert changes.run(world.new, 5, 0).lost == 1
    assert changes.promote(force=True).state == LIVE


# ---- writing meanwhile


def test_what_is_written_changed_and_deleted_meanwhile_is_in_both(world):
    world.fill()
    changes = world.reindex()
    steps = iter(
        [
            lambda: world.put("n0", "The first one was edited while the filling went on."),
            lambda: world.put("late", "A new one came while the filling went on."),
            lambda: (world.delete("n1"), world.delete("n11")),
            lambda: (world.rights("n2", HR), world.rights("n10", HR), world.rights("late", HR)),
            lambda: (world.put("n2", "Edited after its rights were changed.", HR), world.rights("n9", HR)),
            lambda: world.put("n1", "It came back with other words in it."),
        ]
    )
    changes.between = lambda: next(steps, lambda: None)()
    changes.fill(world.new)
    assert next(steps, None) is None
    for state in (LIVE, FILLING):
        world.check(world.held(state))


@pytest.mark.parametrize("when", ["before its rows are read", "before it is written", "after it is written"])
@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.put("n0", "Edited in the very moment of its copying."),
        lambda world: world.delete("n0"),
        lambda world: world.rights("n0", HR),
        lambda world: (world.rights("n0", HR), world.rights("n0", AccessRule.of(["user:ada"]))),
    ],
    ids=["edit", "delete", "rights", "rights twice"],
)
def test_a_document_that_changes_while_it_is_copied_is_whole(world, monkeypatch, when, change):
    world.fill(2)
    copied, reads, follows = VectorStore.upsert, VectorStore.stored, reindex.follow
    done: list[bool] = []

    def once() -> None:
        if not done:
            done.append(True)
            change(world)

    def stored(store: VectorStore, keys: Any) -> Any:
        once()
        return reads(store, keys)

    def upsert(store: VectorStore, rows: Any) -> int:
        if store.model_id != world.models.live().model_id:
            once()
        return copied(store, rows)

    def follow(*arguments: Any) -> None:
        once()
        follows(*arguments)

    if when == "before its rows are read":
        monkeypatch.setattr(VectorStore, "stored", stored)
    elif when == "before it is written":
        monkeypatch.setattr(VectorStore, "upsert", upsert)
    else:
        monkeypatch.setattr(reindex, "follow", follow)
    world.reindex().fill(world.new)
    monkeypatch.undo()
    assert done
    for state in (LIVE, FILLING):
        world.check(world.held(state))


def test_a_writer_that_began_before_the_model_was_held_is_waited_for(world):
    world.fill(3)
    document = world.prepared("n1", "Begun before anybody spoke of another model.")
    (embedded,) = embed([document], world.embedder)
    (version,) = world.ledger.begin_versions(reindexed_versions(document), "run")
    rows = rows_of(embedded, version, world)
    world.store(world.held(LIVE)).upsert(rows)
    changes = world.reindex()
    flips = iter([lambda: world.ledger.flip_versions([WrittenVersion(document.ref, version, document.title)])])
    waits = Reindex._await_writers

    def late(self: Reindex, writing: set[tuple[str, int]]) -> None:
        assert (document.ref.document_id, version) in writing or not writing
        next(flips, lambda: None)()  # it comes through when all else is copied
        waits(self, writing)

    changes._await_writers = late.__get__(changes)
    changes.fill(world.new)
    assert world.ledger.document(world.id("n1")).version == version
    sweep(world.ledger, world.stores)
    for state in (LIVE, FILLING):
        world.check(world.held(state))


def test_a_writer_that_never_comes_back_can_publish_nothing_later(world):
    world.fill(3)
    document = world.prepared("n1", "Its writer is about to die.")
    (version,) = world.ledger.begin_versions(reindexed_versions(document), "run")
    world.reindex().fill(world.new)
    assert world.ledger.flip_versions([WrittenVersion(document.ref, version, document.title)]) == [False]
    world.check(world.held(FILLING))


def test_texts_that_were_embedded_before_the_model_was_held_are_embedded_again(world):
    world.fill(2)
    document = world.prepared("n0", "Embedded under one model only.")
    embedded = embed([document], world.embedder)
    world.models.begin(world.args.embedding, world.new)
    with pytest.raises(ModelsChanged):
        write(embedded, world.ledger, world.stores, "run")
    asked = []

    def embedder(texts: Any) -> Any:
        asked.append(len(texts))
        vectors, computed = world.embedder(texts)
        old = world.held(LIVE).model_id
        return ([{old: each[old]} for each in vectors] if len(asked) == 1 else vectors), computed

    (outcome,) = embed_and_write([document], embedder, world.ledger, world.stores, "run")
    assert outcome.status == "indexed" and asked == [2, 2]
    world.reindex().fill(world.new)
    for state in (LIVE, FILLING):
        world.check(world.held(state))


# ---- promotion, rollback, removal


def test_a_rollback_loses_nothing_that_was_written_since(world):
    world.fill(6)
    changes = world.reindex()
    changes.run(world.new, 5, 0)
    changes.promote(force=True)
    world.put("n0", "Written under the new model's rule.")
    world.put("since", "New since the promotion.")
    world.delete("n1")
    world.rights("n2", HR)
    live = changes.rollback()
    assert live.model_id == world.held(LIVE).model_id and world.alias() == world.store(live).collection
    for state in (LIVE, PREVIOUS):
        world.check(world.held(state))
    world.put("n3", "And on it goes, under both.")
    changes.rollback()
    for state in (LIVE, PREVIOUS):
        world.check(world.held(state))


def test_what_is_dropped_leaves_no_row_and_no_vector(world):
    world.fill(3)
    changes = world.reindex()
    changes.run(world.new, 5, 0)
    changes.promote(force=True)
    previous = world.held(PREVIOUS)
    collection = world.store(previous).collection
    assert world.client.has_collection(collection)
    assert changes.drop().model_id == previous.model_id
    assert not world.client.has_collection(collection)
    texts = [text for number in range(3) for text in world.prepared(f"n{number}", f"Note {number}").texts]
    cache = EmbeddingCache(world.args.store.embeddings, previous.model_id)
    assert cache.get_dense([text_hash(text) for text in texts]) == {} and cache.drop_model() == 0
    world.put("n0", "Written once, for the one that is left.")
    world.check(world.held(LIVE))
    with pytest.raises(Conflict, match="no previous model"):
        changes.drop()


def test_a_model_that_was_given_up_leaves_the_live_one_as_it_was(world):
    world.fill(3)
    changes = world.reindex()
    changes.fill(world.new)
    changes.drop(FILLING)
    assert [model.state for model in world.models.all()] == [LIVE]
    world.put("n0", "Only one model is written for.")
    world.check(world.held(LIVE))


def test_a_writer_that_still_knew_a_dropped_model_goes_on(world, monkeypatch):
    world.fill(2)
    changes = world.reindex()
    changes.run(world.new, 5, 0)
    changes.promote(force=True)
    known = world.models.held()
    changes.drop()
    asked = world.stores._models.held
    answers = iter([known])
    monkeypatch.setattr(world.stores._models, "held", lambda: next(answers, None) or asked())
    document = world.prepared("n0", "Its writer read the models a moment too early.")
    both = [{model.model_id: np.zeros(model.dim, np.float32) for model in known} for _ in document.chunks]
    old = [replace(item, vectors=tuple(both)) for item in embed([document], world.embedder)]
    assert write(old, world.ledger, world.stores, "run")[0].status == "indexed"


def test_a_model_that_finds_less_is_not_promoted_unless_it_is_forced(world):
    world.fill(4)
    changes = world.reindex()
    changes.run(world.new, 5, 0)
    found = Comparison(**world.held(FILLING).comparison)
    assert 0 <= found.overlap <= 1 and found.questions == 5 and found.truncated == 0
    worse = replace(found, recall_old=0.9, recall_new=0.9 - MARGIN - 0.01)
    world.models.compared(world.held(FILLING).model_id, worse.as_dict())
    with pytest.raises(Conflict, match=r"recall@10 falls from 0.900 to 0.870.*--force"):
        changes.promote()
    assert world.models.live().name == world.old.model
    assert changes.promote(force=True).name == world.new.model


def test_a_model_that_lacks_a_document_is_not_promoted(world):
    world.fill(4)
    changes = world.reindex()
    changes.run(world.new, 5, 0)
    world.store(world.held(FILLING)).delete(world.id("n2"), 1, 2)
    with pytest.raises(Conflict, match="1 documents are not in it yet"):
        changes.promote(force=True)
    changes.run(world.new, 5, 0)
    assert changes.promote(force=True).name == world.new.model


def test_the_same_model_finds_what_it_found(world):
    world.fill()
    other = Path(world.old.model).with_name("again")
    changes = world.reindex()
    found = changes.run(EmbeddingSettings(model=str(other)), 30, 7).comparison
    assert found.questions == 30 and found.overlap == 1.0 and found.recall_old == found.recall_new > 0.3
    assert found.worse is None
    again = changes.run(EmbeddingSettings(model=str(other)), 30, 7).comparison
    assert again == found, "the seed decides the questions"


# ---- kill -9

POINTS: dict[str, tuple[Any, str, bool]] = {
    "model not yet held": (Models, "begin", False),
    "model held, no collection": (Models, "begin", True),
    "stored text read": (VectorStore, "stored", True),
    "rows written, not followed": (VectorStore, "upsert", True),
    "all copied, writers not awaited": (Reindex, "_await_writers", False),
    "checked, orphans still there": (reindex, "remove_orphans", False),
    "whole, not noted": (Models, "filled", False),
    "noted, not compared": (Models, "filled", True),
    "compared, not noted": (Models, "compared", False),
    "promotion not begun": (Models, "promote", False),
    "promoted, alias not moved": (Models, "promote", True),
    "alias moved": (Stores, "point_alias", True),
    "drop begun": (Models, "begin_drop", True),
    "collection dropped": (VectorStore, "drop_generations", True),
    "vectors dropped": (EmbeddingCache, "drop_model", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_change_that_is_killed_anywhere_is_finished_by_the_next_one(world, monkeypatch, point):
    world.fill(6)
    owner, name, after = POINTS[point]
    original = getattr(owner, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        if name == "upsert" and arguments[0].model_id == world.models.live().model_id:
            return original(*arguments, **named)
        if name == "point_alias" and world.models.live().name != world.new.model:
            return original(*arguments, **named)
        if after:
            original(*arguments, **named)
        raise Killed

    def steps() -> None:
        changes = world.reindex()
        if world.models.live().name != world.new.model:
            changes.run(world.new, 5, 0)
            changes.promote(force=True)
        else:
            changes.run(world.new, 5, 0)  # what an operator does who saw it end without a word
        if world.models.find(PREVIOUS) or world.models.find("dropping"):
            changes.drop()

    monkeypatch.setattr(owner, name, dying)
    with pytest.raises(Killed):
        steps()
    monkeypatch.setattr(owner, name, original)
    world.check(world.models.live())
    world.put("n0", "Edited between the kill and the next run.")
    world.delete("n5")
    world.check(world.models.live())
    steps()
    assert [model.name for model in world.models.all()] == [world.new.model]
    world.check(world.models.live())
    assert world.alias() == world.store(world.models.live()).collection


def test_a_copy_that_was_killed_between_two_changes_leaves_no_row_behind(world):
    world.fill(3)
    changes = world.reindex()
    model = world.models.begin(world.args.embedding, world.new)
    world.stores.open()
    stage = Copy(world.args, model.model_id)
    items = [item for page in world.live.pages() for item in page]
    source, target = world.store(world.held(LIVE)), world.store(model)
    rows = source.stored([key for item in items for key in item.keys])
    world.delete("n0")
    vector = np.zeros(24, np.float32)
    target.upsert([replace(row, dense={model.model_id: vector}) for row in rows.values()])  # and here it died
    del stage
    changes.fill(world.new)
    keys = set(target.primary_keys())
    assert not any(key.startswith(world.id("n0")) for key in keys)
    assert len(keys) == 4


def test_a_model_that_the_index_does_not_hold_is_not_copied_to(world):
    with pytest.raises(NotFound):
        Copy(world.args, "no_such_model")


def reindexed_versions(document: Prepared) -> list[NewVersion]:
    return [NewVersion(document.ref, document.content_hash, len(document.chunks), document.owner)]


def rows_of(embedded: Any, version: int, world: World) -> Any:
    return _rows(embedded, version, world.ledger)


# ---- everything at once


class Crowd:
    """Two writers and a reader, each with connections of its own, until `over`."""

    def __init__(self, world: World, stable: set[str]) -> None:
        self._world, self._stable = world, stable
        self._over = threading.Event()
        self.failures: list[BaseException] = []
        self.seen: list[tuple[str, int]] = []

    def __enter__(self) -> Crowd:
        steps = (self._writer(1), self._writer(2), self._reader())
        self._threads = [threading.Thread(target=self._until_over, args=[step]) for step in steps]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _until_over(self, step: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                step()
        except BaseException as error:
            self.failures.append(error)
            raise

    def _writer(self, number: int) -> Callable[[], None]:
        world, chance = self._world, random.Random(number)
        stores, embedder, ledger = Stores(world.args), CachedEmbedder(world.args), Ledger(world.args.store.ledger)

        def step() -> None:
            name, what = f"w{number}-{chance.randrange(4)}", chance.random()
            if what < 0.6:
                text = f"Writer {number} says {chance.random()} of {chance.choice(WORDS)} and goes on."
                embed_and_write([world.prepared(name, text)], embedder, ledger, stores, "run")
            elif what < 0.8:
                ledger.delete([world.id(name)])
                sweep(ledger, stores, [world.id(name)])
            else:
                with suppress(NotFound):
                    change_rights(world.id(name), chance.choice([PUBLIC, HR]), ledger, stores)

        return step

    def _reader(self) -> Callable[[], None]:
        world, live, ledger = self._world, Live(self._world.args), Ledger(self._world.args.store.ledger)
        sizes = {str(model): dim for model, dim in ((world.old.model, 16), (world.new.model, 24))}

        def step() -> None:
            index = live.kept() or live.ask()
            model = world.models.get(index.model_id)
            assert model is not None
            vector = np.ones(sizes[model.name], np.float32) / np.sqrt(sizes[model.name])
            visible = ledger.visible_rules(BOB)
            assert visible is not None
            found = index.store.search_dense(vector.astype(np.float32), visible, 500)
            allowed = ledger.gate([(hit.document_id, hit.version) for hit in found], BOB)
            rows = [hit for hit in found if hit.document_id in self._stable and hit.document_id in allowed]
            self.seen.append((index.model_id, len(rows)))

        return step


def test_readers_miss_nothing_while_writers_and_a_change_of_model_go_on(world):
    world.fill(4)  # nobody touches these: they must be found at every moment
    with Crowd(world, {world.id(f"n{number}") for number in range(4)}) as crowd:
        changes = world.reindex()
        changes.run(world.new, 5, 0)
        changes.promote(force=True)
        time.sleep(KEPT_S + 0.2)
        changes.rollback()
        time.sleep(0.3)
        changes.rollback()
    assert crowd.failures == []
    assert {count for _, count in crowd.seen} == {8}, "four documents of two chunks each, at every moment"
    assert len({model_id for model_id, _ in crowd.seen}) == 2
    sweep(world.ledger, world.stores)
    for state in (LIVE, PREVIOUS):
        world.check(world.held(state))
