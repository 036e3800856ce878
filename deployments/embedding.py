"""The embedding deployment: questions, uploads and small changes, batched and cached. The only owner of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from ray import serve

from deployments.metrics import Metrics
from index.document import Vector
from index.embedding import Embedder
from index.settings import AppArgs
from ingest.embedding import CachedEmbedder


@dataclass(frozen=True, slots=True, eq=False)
class QuestionVectors:
    """`dense` float32[dim] and `tokens` float32[tokens, dim], rows of unit length."""

    dense: Vector
    tokens: NDArray[np.float32]


@serve.deployment(name="Embedding")
class Embedding:
    """Holds the model once for each replica."""

    def __init__(self, args: AppArgs) -> None:
        self._embedder = Embedder(args.embedding)
        self._passages = CachedEmbedder(args, self._embedder)
        # By tenant: how fast an answer comes would tell one tenant what another has asked.
        self._questions: LRUCache[tuple[str, str], QuestionVectors] = LRUCache(max(1, args.embedding.query_cache))
        self._metrics = Metrics("embedding")
        batching: Any = self._batch
        batching.set_max_batch_size(args.embedding.batch_size)
        batching.set_batch_wait_timeout_s(args.embedding.batch_wait_s)
        self._embedder.encode_query(["warm-up"])

    async def question(self, tenant: str, text: str, keep: bool = True) -> QuestionVectors:
        """Embed a question, through what this tenant has asked before. `keep=False` leaves no trace in the cache."""
        known = self._questions.get((tenant, text))
        self._metrics.cache("question", hit=known is not None)
        if known is not None:
            return known
        made: QuestionVectors = await self._batch(text)
        if keep:
            self._questions[tenant, text] = made
        return made

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def _batch(self, texts: list[str]) -> list[QuestionVectors]:
        encoded = await asyncio.to_thread(self._embedder.encode_query, texts)
        return [QuestionVectors(encoded.dense[row], encoded.tokens[row]) for row in range(len(texts))]

    async def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed short texts of an answer in the making, float32[n, dim]; nothing is kept."""
        encoded = await asyncio.to_thread(self._embedder.encode_query, texts)
        return encoded.dense

    async def passages(self, texts: Sequence[str]) -> tuple[list[Vector], list[bool]]:
        """Embed passages through the content-addressed cache; says which had to be computed."""
        return await asyncio.to_thread(self._passages, texts)
