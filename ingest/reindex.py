"""A change of the embedding model without an outage: fill → check → compare → promote, with a way back.

    live versions ──▶ Copy (actor pool, GPU or CPU: stored text → the new model's vectors → rows) ──▶ Copied
    columns:  item: Group                                                                             item: Copied

No source is read: a row holds the text that was embedded. The ledger says what must be there, and a pass over all of it
that finds nothing missing ends the filling; so a run that was killed is run again, and copies what is left. Everything
that is written meanwhile is written for both models (`index.stores`), so nothing is left behind at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from index.document import Vector
from index.embedding import identify
from index.embedding_cache import EmbeddingCache, text_hash
from index.ledger import Ledger
from index.live_versions import LiveVersion, LiveVersions, by_chunks
from index.models import FILLING, PREVIOUS, HeldModel, Models, State
from index.settings import AppArgs, EmbeddingSettings
from index.stores import KEPT_S, Stores
from index.vectors import VectorStore
from ingest.comparison import Comparison, compare
from ingest.embedding import CachedEmbedder
from ingest.priority import step_aside
from ingest.report import Report
from policies.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    import ray.data

GROUP_CHUNKS = 128
"""Chunks that are copied at a time, in whole documents."""
PATIENCE_S = 60.0
"""How long a version that was being written when the filling began may take; its writer is taken for dead then."""
ORPHANS_AT_ONCE = 1_000
Batch = dict[str, np.ndarray]
Progress = Callable[[Report], None]
Embed = Callable[[Sequence[str]], tuple[list[Vector], list[bool]]]


@dataclass(frozen=True, slots=True)
class Group:
    """Versions that are copied at a time."""

    versions: tuple[LiveVersion, ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of a group of versions. `embedded` of the chunks were not in the cache."""

    documents: int
    chunks: int
    embedded: int


@dataclass(frozen=True, slots=True)
class Reindexed:
    """How far a change of model is. `lost`: documents whose rows the live collection lacks, too."""

    model: HeldModel
    report: Report
    lost: int = 0
    comparison: Comparison | None = None


class Reindex:
    """The steps of a change of model. Raises `Conflict` for a step that is not due, and as the ledger and the store."""

    def __init__(self, args: AppArgs, progress: Progress = lambda _: None, patience_s: float = PATIENCE_S) -> None:
        self._args = args
        self._progress = progress
        self._patience_s = patience_s
        self._models = Models(args.store.ledger)
        self._models.settle(args.embedding)
        self._ledger = Ledger(args.store.ledger)
        self._live = LiveVersions(args.store.ledger)
        self._stores = Stores(args)

    def run(self, wanted: EmbeddingSettings, sample: int, seed: int) -> Reindexed:
        """Fill the model's collection with all that is live and compare it with the live one.

        A model that is live already, because a run was killed behind its promotion, gets what that run left undone.
        """
        live = self._models.live()
        if identify(wanted).model_id == live.model_id:
            self._stores.point_alias()
            return Reindexed(live, Report())
        filled = self.fill(wanted)
        comparison = compare(self._args, filled.model, sample, seed)
        self._models.compared(filled.model.model_id, comparison.as_dict())
        return replace(filled, comparison=comparison)

    def fill(self, wanted: EmbeddingSettings) -> Reindexed:
        """Hold another model, and copy what is live until nothing of it is missing."""
        started = time.monotonic()
        model = self._models.begin(self._args.embedding, wanted)
        writing = self._live.writing()  # behind `begin`: who is not among these writes for both
        self._stores.open()
        target = self._store(model)
        report = Report(discovered=self._live.count())
        todo = list(missing(self._live, target))
        report.unchanged = max(0, report.discovered - len(todo))
        lost = 0
        while True:
            for copied in self._stream(model, [Group(few) for few in by_chunks(todo, GROUP_CHUNKS)]):
                report.indexed += copied.documents
                report.chunks += copied.chunks
                report.embedded += copied.embedded
                report.discovered = max(report.discovered, report.unchanged + report.indexed)
                report.seconds = time.monotonic() - started
                self._progress(report)
            self._await_writers(writing)
            before, todo = todo, list(missing(self._live, target))
            if not todo:
                break
            if todo == before:
                lost = self._count_lost(todo)
                if lost < len(todo):
                    raise Unavailable("the vector store does not keep what it is given: see its log")
                break
        remove_orphans(self._live, target)
        self._stores.flush()
        self._models.filled(model.model_id)
        report.seconds = time.monotonic() - started
        return Reindexed(self._models.get(model.model_id) or model, report, lost)

    def promote(self, force: bool = False) -> HeldModel:
        """Answer from the filled model from now on; the former one is kept for a rollback.

        Raises `Conflict` when it lacks something, or finds less than the former one did and `force` is not given.
        """
        model = self._models.find(FILLING)
        if model is None:
            raise Conflict("no model is being filled: name one with --model")
        lacking = list(missing(self._live, self._store(model), rights=False))
        if len(lacking) > self._count_lost(lacking):
            raise Conflict(f"{len(lacking)} documents are not in it yet: run rayrag reindex --model again")
        if model.comparison is None:
            raise Conflict("it was not compared yet: run rayrag reindex --model again")
        reason = Comparison(**model.comparison).worse
        if reason is not None and not force:
            raise Conflict(f"{reason}: keep the old model (--abandon), or promote it all the same with --force")
        live = self._models.promote(self._args.embedding)
        self._stores.point_alias()
        return live

    def rollback(self) -> HeldModel:
        """Answer from the previous model again, at once: it was written all along."""
        live = self._models.rollback(self._args.embedding)
        self._stores.point_alias()
        return live

    def drop(self, state: State = PREVIOUS) -> HeldModel:
        """Remove the previous model, or the one being filled: its collection and its cached vectors."""
        model = self._models.begin_drop(state)
        self._stores.point_alias()
        time.sleep(2 * KEPT_S)  # processes that may still take it for the live one
        VectorStore(self._args.store, model.model_id, model.dim).drop_generations(keep=())
        cache = EmbeddingCache(self._args.store.embeddings, model.model_id)
        cache.drop_model()
        cache.close()
        self._models.forget(model.model_id)
        return model

    def close(self) -> None:
        """Close the connections that are not in use."""
        for each in (self._models, self._ledger, self._live):
            each.close()

    def _stream(self, model: HeldModel, groups: list[Group]) -> Iterator[Copied]:
        if groups:
            dataset = pipeline(groups, self._args, model.model_id)
            for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
                yield from batch["item"]

    def _store(self, model: HeldModel) -> VectorStore:
        store = VectorStore(self._args.store, model.model_id, model.dim, model.generation)
        store.open()
        return store

    def _await_writers(self, writing: set[tuple[str, int]]) -> None:
        await_writers(self._live, self._ledger, self._stores, writing, self._patience_s)

    def _count_lost(self, lacking: Sequence[LiveVersion]) -> int:
        """Count the documents whose rows the live collection lacks, too: there is nothing to copy."""
        source = self._store(self._models.live())
        return len(_lacking(lacking, source, rights=False))


def await_writers(
    live: LiveVersions,
    ledger: Ledger,
    stores: Stores,
    writing: set[tuple[str, int]],
    patience_s: float,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Wait for versions whose writers may not know what changed: they become live, or never will."""
    deadline = time.monotonic() + patience_s
    while writing := writing & live.writing():
        beat()
        if time.monotonic() >= deadline:
            begun = ledger.stale_versions(abandoned_after_s=patience_s)
            dead = [version for version in begun if (version.document_id, version.version) in writing]
            for version in dead:
                stores.delete(version.document_id, version.version, version.chunk_count)
            ledger.forget_versions(dead)  # a flip of these fails from now on
        time.sleep(0.2)


def missing(live: LiveVersions, target: VectorStore, rights: bool = True) -> Iterator[LiveVersion]:
    """Yield each live version whose rows are not all in `target`, or (`rights`) carry another rule than they should."""
    for page in live.pages():
        lacking = _lacking(page, target, rights)
        while lacking:
            now = live.of([item.document_id for item in lacking])
            yield from (item for item in lacking if now.get(item.document_id) == item)
            moved = [now[item.document_id] for item in lacking if now.get(item.document_id) not in (None, item)]
            lacking = _lacking(moved, target, rights)


def _lacking(items: Sequence[LiveVersion], target: VectorStore, rights: bool) -> list[LiveVersion]:
    if not items:
        return []
    there = target.access_ids([key for item in items for key in item.keys])

    def whole(item: LiveVersion) -> bool:
        return all(key in there and (not rights or there[key] == item.access_id) for key in item.keys)

    return [item for item in items if not whole(item)]


def copy(
    wanted: Sequence[LiveVersion],
    source: VectorStore,
    target: VectorStore,
    live: LiveVersions,
    embed: Embed,
) -> Copied:
    """Write the rows of live versions under another model: same keys, same text, the rule that the ledger names now.

    Raises `Unavailable` where a stored text is not the one that was embedded.
    """
    held = source.stored([key for item in wanted for key in item.keys])
    rows = [replace(held[key], access_id=item.access_id) for item in wanted for key in item.keys if key in held]
    for row in rows:
        if text_hash(row.embedded_text).hex() != row.text_hash:
            raise Unavailable(
                f"chunk {row.position} of document {row.document_id} is damaged: delete and ingest it again"
            )
    vectors, computed = embed([row.embedded_text for row in rows])
    dense = [{target.model_id: vector} for vector in vectors]
    target.upsert([replace(row, dense=vector) for row, vector in zip(rows, dense, strict=True)])
    follow(wanted, target, live)
    documents = {row.document_id for row in rows}
    return Copied(len(documents), len(rows), sum(computed))


def follow(written: Sequence[LiveVersion], target: VectorStore, live: LiveVersions) -> None:
    """Let rows that were just written follow what the ledger came to say meanwhile, until it says nothing new.

    Whoever changed it changed the rows that were there then, which may have been before these.
    """
    carried = {item.document_id: item for item in written}
    while carried:
        now = live.of(list(carried))
        changed: dict[str, LiveVersion] = {}
        for document_id, item in carried.items():
            current = now.get(document_id)
            if current is None or current.version != item.version:
                target.delete_keys(item.keys)  # a version that was live once never is again
            elif current.access_id != item.access_id:
                target.set_access_of(list(target.access_ids(item.keys)), current.access_id)
                changed[document_id] = current
        carried = changed


def remove_orphans(live: LiveVersions, target: VectorStore) -> int:
    """Remove rows of versions that the ledger no longer knows: a copy that was killed left them. Gives how many."""
    count, there = 0, target.primary_keys()
    while keys := list(islice(there, ORPHANS_AT_ONCE)):
        of_key = {key: (key.split(".")[0], int(key.split(".")[1])) for key in keys}
        known = live.known(list(set(of_key.values())))  # asked behind the rows: no row is written before its version
        gone = [key for key, version in of_key.items() if version not in known]
        target.delete_keys(gone)
        count += len(gone)
    return count


def pipeline(groups: list[Group], args: AppArgs, model_id: str) -> ray.data.Dataset:
    """Build the streaming dataset; its rows are one `Copied` for each group, in no particular order."""
    import ray.data
    from ray.data import ActorPoolStrategy

    settings = args.ingest
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    blocks = min(len(groups), 200)
    dataset: ray.data.Dataset = ray.data.from_items([{"item": group} for group in groups], override_num_blocks=blocks)
    return dataset.map_batches(
        Copy,
        fn_constructor_args=[args, model_id, settings.niceness],
        batch_size=1,
        num_cpus=settings.embed_cpus,
        num_gpus=settings.embed_gpus,
        compute=ActorPoolStrategy(min_size=settings.embed_actors, max_size=settings.embed_actors),
        max_restarts=3,
        max_task_retries=3,
    )


class Copy:
    """Stage: item Group → Copied. What is copied twice is there once."""

    def __init__(self, args: AppArgs, model_id: str, niceness: int = 0) -> None:
        step_aside(niceness)  # first: what is started from here on inherits it
        models = Models(args.store.ledger)
        model, live = models.get(model_id), models.live()
        if model is None:
            raise NotFound(f"the index holds no embedding model {model_id}")
        self._source = VectorStore(args.store, live.model_id, live.dim, live.generation)
        self._target = VectorStore(args.store, model.model_id, model.dim, model.generation)
        for store in (self._source, self._target):
            store.open()
        self._live = LiveVersions(args.store.ledger)
        self._model = model
        self._embedder = CachedEmbedder(args)

    def __call__(self, batch: Batch) -> Batch:
        items = list(batch["item"])
        copied = np.empty(len(items), dtype=object)
        copied[:] = [copy(item.versions, self._source, self._target, self._live, self._embed) for item in items]
        return {"item": copied}

    def _embed(self, texts: Sequence[str]) -> tuple[list[Vector], list[bool]]:
        return self._embedder.under(self._model, texts)


def as_dict(done: Reindexed) -> dict[str, Any]:
    """What a run came to, as JSON has it."""
    found = done.report.as_dict()
    figures = {key: found[key] for key in ("discovered", "indexed", "unchanged", "chunks", "embedded", "seconds")}
    compared = done.comparison.as_dict() if done.comparison else None
    return {
        "model": done.model.model_id,
        "state": done.model.state,
        **figures,
        "lost": done.lost,
        "comparison": compared,
    }
