"""The rows of every model that the index holds, written as one, and the live model's, read as one.

Written to both sides, a document's new version is whole under each model before the ledger's pointer moves; its
deletion and its rights reach both. See `index.models` for why each call asks anew which models there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from index.document import chunk_id
from index.embedding_cache import EmbeddingCache
from index.models import FILLING, HeldModel, Models
from index.settings import AppArgs, StoreSettings
from index.vectors import ChunkRow, VectorStore
from policies.errors import Unavailable

T = TypeVar("T")
KEPT_S = 1.0
"""For this long a process may go on answering from the model that was live."""
MOST_OPEN = 4
"""Two models, each of them in two collections while its rows are rewritten."""


class ModelsChanged(Unavailable):
    """The index came to hold a model under which these rows are not embedded: embed and write them again."""


class Stores:
    """The collections of all held models as one (a `Rows`). Safe to use from many threads.

    Raises `ConfigurationError` as `Models.settle`, and `Unavailable` from every method.
    """

    def __init__(self, args: AppArgs) -> None:
        self._models = Models(args.store.ledger)
        self._models.settle(args.embedding)
        self._opened = _Opened(args.store)

    def open(self) -> None:
        """Create and load what is missing, and let the alias name the live collection."""
        for model in self._models.held():
            self._opened.store(model)
        self.point_alias()

    def point_alias(self) -> None:
        """Let the alias follow the ledger, however many do so at once."""
        live = self._models.live()
        while True:
            self._opened.store(live).point_alias()
            now = self._models.live()
            if now.place == live.place:
                return
            live = now

    def upsert(self, rows: Sequence[ChunkRow]) -> int:
        """Write rows under each model and return how many every one of them acknowledged.

        Raises `ModelsChanged`, with nothing written, where a row has no vector under one of the models.
        """
        held = self._models.held()
        for model in held:
            if any(model.model_id not in row.dense for row in rows):
                raise ModelsChanged(f"the index is being filled for another model ({model.model_id}): try again")
        return min(self._each(lambda store, _: store.upsert(rows), held), default=0)

    def set_access(self, document_id: str, version: int, chunk_count: int, access_id: int) -> None:
        """Point a version's rows at another access rule; those that are yet to be filled get it then."""
        keys = [chunk_id(document_id, version, position) for position in range(chunk_count)]

        def work(store: VectorStore, model: HeldModel) -> None:
            there = list(store.access_ids(keys)) if model.state == FILLING else keys
            store.set_access_of(there, access_id)

        self._each(work)

    def delete(self, document_id: str, version: int, chunk_count: int) -> None:
        """Remove a version's rows under every model."""
        self._each(lambda store, _: store.delete(document_id, version, chunk_count))

    def flush(self) -> None:
        """Seal what was written."""
        self._each(lambda store, _: store.flush())

    def healthy(self) -> None:
        """Raise `Unavailable` unless the live collection answers."""
        self._opened.store(self._models.live()).healthy()

    def _each(self, work: Callable[[VectorStore, HeldModel], T], held: Sequence[HeldModel] | None = None) -> list[T]:
        done = []
        for model in self._models.held() if held is None else held:
            try:
                done.append(work(self._opened.store(model), model))
            except Unavailable:
                if model.place in {each.place for each in self._models.held()}:
                    raise
        return done


@dataclass(frozen=True, slots=True, eq=False)
class LiveIndex:
    """All of one model that a question needs: which it is, its rows and its cached vectors."""

    model_id: str
    store: VectorStore
    embeddings: EmbeddingCache


class Live:
    """The live model, as the ledger named it at most `KEPT_S` ago. Safe to use from many threads.

    A question takes one `LiveIndex` and keeps to it, so that all of its answer comes from one model. Raises
    `ConfigurationError` as `Models.settle`.
    """

    def __init__(self, args: AppArgs) -> None:
        self._models = Models(args.store.ledger)
        self._models.settle(args.embedding)
        self._opened = _Opened(args.store)
        self._embeddings = EmbeddingCache(args.store.embeddings, "")
        self._lock = Lock()
        self._kept: tuple[float, LiveIndex] | None = None
        self._place: tuple[str, int] | None = None

    def kept(self) -> LiveIndex | None:
        """Give the live index without asking; None when it was asked for too long ago."""
        kept = self._kept
        return kept[1] if kept is not None and time.monotonic() - kept[0] < KEPT_S else None

    def ask(self) -> LiveIndex:
        """Ask the ledger. Raises `Unavailable`; the same object while the model is the same."""
        with self._lock:
            asked_at = time.monotonic()
            model = self._models.live()
            found = self._kept[1] if self._kept is not None else None
            if found is None or self._place != model.place:
                found = LiveIndex(model.model_id, self._opened.store(model), self._embeddings.of(model.model_id))
                self._place = model.place
            self._kept = asked_at, found
            return found


class _Opened:
    """The collections that this process has opened; those of models long gone are let go."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._stores: dict[tuple[str, int], VectorStore] = {}

    def store(self, model: HeldModel) -> VectorStore:
        with self._lock:
            found = self._stores.pop(model.place, None)
            if found is None:
                found = VectorStore(self._settings, model.model_id, model.dim, model.generation)
                found.open()
            self._stores[model.place] = found  # the last used stands last
            while len(self._stores) > MOST_OPEN:
                del self._stores[next(iter(self._stores))]
            return found
