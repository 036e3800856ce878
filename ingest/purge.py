"""Physical erasure: what was deleted goes from the disk as well.

    Milvus Lite   each model's live rows are copied into a new collection, vectors and all, and the old one is dropped:
                  its own compaction rewrites nothing
    a server      compaction
    vectors       what is cached of texts that no row has any more is dropped
    databases     SQLite: VACUUM with secure_delete, and its log is emptied; PostgreSQL: VACUUM FULL

Questions are answered, and documents are written, all the while. A purge that was killed is run again. It writes no
audit record away: that holds no personal data, and nobody may take anything out of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from index.embedding_cache import EmbeddingCache
from index.ledger import Ledger
from index.ledger_schema import metadata, open_database
from index.live_versions import LiveVersion, LiveVersions, by_chunks
from index.models import DROPPING, FILLING, HeldModel, Models
from index.settings import AppArgs
from index.stores import KEPT_S, Stores
from index.vectors import VectorStore
from ingest.reindex import await_writers, follow, missing, remove_orphans
from ingest.stages import sweep
from policies.errors import Conflict, Unavailable

GROUP_CHUNKS = 256
PATIENCE_S = 60.0
SETTLE_S = 2.0
"""Vectors are cached a moment before their rows are written: what seems to be nobody's is looked at twice."""


@dataclass(slots=True)
class Purged:
    """What a purge did. `rows` were copied; `vectors` were dropped from the cache; `seconds` it took."""

    way: str = ""
    collections: list[str] = field(default_factory=list)
    rows: int = 0
    vectors: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """As a receipt has it: without fractions."""
        return {
            "way": self.way,
            "collections": self.collections,
            "rows": self.rows,
            "vectors": self.vectors,
            "seconds": round(self.seconds),
        }


class Purge:
    """Rewrites the store and the databases. Raises `Conflict` during a change of the embedding model."""

    def __init__(self, args: AppArgs, beat: Callable[[], None] = lambda: None, patience_s: float = PATIENCE_S) -> None:
        self._args = args
        self._beat = beat
        self._patience_s = patience_s
        url = args.store.ledger
        self._ledger, self._live, self._models = Ledger(url), LiveVersions(url), Models(url)
        self._models.settle(args.embedding)
        self._stores = Stores(args)

    def run(self) -> Purged:
        """Purge all of it."""
        started = time.monotonic()
        done = Purged()
        for state in (FILLING, DROPPING):
            if self._models.find(state) is not None:
                raise Conflict("the embedding model is being changed: finish that first (rayrag reindex --status)")
        sweep(self._ledger, self._stores)
        for model in self._models.all():
            store = self._store(model)
            if store.is_lite():
                done.way = "rewritten"
                done.rows += self._rewrite(model)
            else:
                done.way = "compacted"
                store.compact()
            done.collections.append(self._store(self._models.get(model.model_id) or model).collection)
        done.vectors = self._drop_vectors()
        self._vacuum()
        done.seconds = time.monotonic() - started
        return done

    def close(self) -> None:
        """Close the connections that are not in use."""
        for each in (self._ledger, self._live, self._models):
            each.close()

    def _rewrite(self, model: HeldModel) -> int:
        """Copy a model's live rows into its next collection, let that be the model's, and drop all others."""
        rewritten = self._models.begin_rewriting(model.model_id)
        writing = self._live.writing()  # behind it: who is not among these writes for both
        source, target = self._store(model), self._store(rewritten)
        rows, before = 0, None
        while True:
            todo = list(missing(self._live, target))
            if not todo and not writing:
                break
            if todo == before and not writing:
                self._require_lost(todo, source)
                break
            for few in by_chunks(todo, GROUP_CHUNKS):
                rows += self._copy(few, source, target)
            await_writers(self._live, self._ledger, self._stores, writing, self._patience_s, self._beat)
            before, writing = todo, set()
        remove_orphans(self._live, target)
        target.flush()
        self._models.end_rewriting(model.model_id)
        self._stores.point_alias()
        time.sleep(2 * KEPT_S)  # processes that may still ask the former one
        target.drop_generations(keep=[target.collection])
        return rows

    def _copy(self, wanted: tuple[LiveVersion, ...], source: VectorStore, target: VectorStore) -> int:
        self._beat()
        held = source.copies([key for item in wanted for key in item.keys])
        rows = [replace(held[key], access_id=item.access_id) for item in wanted for key in item.keys if key in held]
        target.upsert(rows)
        follow(wanted, target, self._live)
        return len(rows)

    def _require_lost(self, todo: list[LiveVersion], source: VectorStore) -> None:
        """Raise where rows that can be read could not be copied: only what the store has lost is left behind."""
        for item in todo:
            if len(source.access_ids(item.keys)) == len(item.keys):
                raise Unavailable("the vector store does not keep what it is given: see its log")

    def _drop_vectors(self) -> int:
        cache = EmbeddingCache(self._args.store.embeddings, "")
        try:
            unused = {each for page in cache.pages() for each in page} - self._used()
            if unused:
                time.sleep(SETTLE_S)
                cache.drop(unused - self._used())
            cache.vacuum()
            return len(unused)
        finally:
            cache.close()

    def _used(self) -> set[bytes]:
        self._beat()
        return {bytes.fromhex(each) for each in self._store(self._models.live()).text_hashes()}

    def _vacuum(self) -> None:
        self._beat()
        database = open_database(self._args.store.ledger)
        try:
            database.vacuum(metadata)
        finally:
            database.dispose()

    def _store(self, model: HeldModel) -> VectorStore:
        store = VectorStore(self._args.store, model.model_id, model.dim, model.generation)
        store.open()
        return store
