"""The embedding deployment: questions, uploads and small changes, batched and cached. The only owner of the models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from ray import serve

from deployments.metrics import Metrics
from index.document import Vector, Vectors
from index.embedders import Embedders
from index.embedding import Embedder, EncodedQueries
from index.models import HeldModel, Models
from index.settings import AppArgs
from ingest.embedding import CachedEmbedder
from policies.errors import NotFound, RayragError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class QuestionVectors:
    """`dense` float32[dim] and `tokens` float32[tokens, dim], rows of unit length."""

    dense: Vector
    tokens: NDArray[np.float32]


@serve.deployment(name="Embedding")
class Embedding:
    """Holds the live model once for each replica, and while the model changes the other one, too.

    Whoever asks names the model: a question and the rows it is held against must come from the same one.
    """

    def __init__(self, args: AppArgs) -> None:
        self._models = Models(args.store.ledger)
        live = self._models.settle(args.embedding)
        self._known: dict[str, HeldModel] = {live.model_id: live}
        self._embedders = Embedders(args.embedding)
        self._passages = CachedEmbedder(args, self._embedders)
        # By tenant: how fast an answer comes would tell one tenant what another has asked.
        self._questions: LRUCache[tuple[str, str, str], QuestionVectors]
        self._questions = LRUCache(max(1, args.embedding.query_cache))
        self._metrics = Metrics("embedding")
        self._loading: asyncio.Task[None] | None = None
        batching: Any = self._batch
        batching.set_max_batch_size(args.embedding.batch_size)
        batching.set_batch_wait_timeout_s(args.embedding.batch_wait_s)
        self._loaded(live.model_id).encode_query(["warm-up"])

    async def question(self, tenant: str, text: str, model_id: str, keep: bool = True) -> QuestionVectors:
        """Embed a question, through what this tenant has asked before. `keep=False` leaves no trace: no cache is asked.

        Raises `NotFound` for a model that the index does not hold.
        """
        if keep:  # to look a question up already moves it to the front
            known = self._questions.get((tenant, model_id, text))
            self._metrics.cache("question", hit=known is not None)
            if known is not None:
                return known
        made: QuestionVectors | RayragError = await self._batch((model_id, text))
        if isinstance(made, RayragError):
            raise made
        if keep:
            self._questions[tenant, model_id, text] = made
        return made

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def _batch(self, asked: list[tuple[str, str]]) -> list[QuestionVectors | RayragError]:
        made: list[Any] = [None] * len(asked)
        for model_id in {each for each, _ in asked}:
            places = [place for place, (each, _) in enumerate(asked) if each == model_id]
            try:
                encoded = await asyncio.to_thread(self._encode, model_id, [asked[place][1] for place in places])
            except RayragError as error:  # the other model's questions have nothing to do with it
                for place in places:
                    made[place] = error
                continue
            for row, place in enumerate(places):
                made[place] = QuestionVectors(encoded.dense[row], encoded.tokens[row])
        return made

    async def sentences(self, texts: Sequence[str], model_id: str | None = None) -> NDArray[np.float32]:
        """Embed short texts of an answer in the making, float32[n, dim]; nothing is kept. None: the live model."""
        encoded = await asyncio.to_thread(self._encode, model_id, texts)
        return encoded.dense

    async def passages(self, texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
        """Embed passages under every model that the index holds, through the content-addressed cache.

        Says which had to be computed.
        """
        return await asyncio.to_thread(self._passages, texts)

    async def check_health(self) -> None:
        """Load what a change of model will need: Serve asks every few seconds, long before a question does."""
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(asyncio.to_thread(self._load_held))

    def _load_held(self) -> None:
        try:
            for model in self._models.held():
                self._embedders.get(model)
        except RayragError as error:  # whoever needs that model is told; this replica is well
            log.warning("a model of the index was not loaded: %s", error.detail)

    def _encode(self, model_id: str | None, texts: Sequence[str]) -> EncodedQueries:
        return self._loaded(self._models.live().model_id if model_id is None else model_id).encode_query(texts)

    def _loaded(self, model_id: str) -> Embedder:
        model = self._known.get(model_id) or self._models.get(model_id)
        if model is None:
            raise NotFound(f"the index holds no embedding model {model_id}")
        self._known[model_id] = model
        return self._embedders.get(model)
