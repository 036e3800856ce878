"""The reranking deployment: late interaction over kept token vectors, or a cross-encoder where one is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ray import serve

from index.embedding_cache import EmbeddingCache
from index.late_interaction import maxsim
from index.settings import AppArgs

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from deployments.embedding import QuestionVectors


@serve.deployment(name="Reranking")
class Reranking:
    """Scores passages against a question. Only a cross-encoder loads torch."""

    def __init__(self, args: AppArgs) -> None:
        self._settings = args.reranking
        self._cross_encoder = _cross_encoder(args) if args.reranking.kind == "cross_encoder" else None
        self._cache = EmbeddingCache(args.store.embeddings, "")

    async def scores(
        self, question: str, vectors: QuestionVectors | None, texts: Sequence[str], hashes: Sequence[str], model_id: str
    ) -> list[float | None]:
        """Score each passage, more is better; None where it cannot be scored (its token vectors are gone).

        `hashes[i]`: 64 hex digits under which passage i is embedded. Late interaction needs `vectors`, of `model_id`.
        """
        if self._cross_encoder is not None:
            return await asyncio.to_thread(self._cross_scores, question, texts)
        if vectors is None:
            return [None] * len(texts)
        return await asyncio.to_thread(self._late_scores, vectors.tokens, hashes, model_id)

    def _late_scores(self, question: NDArray[np.float32], hashes: Sequence[str], model_id: str) -> list[float | None]:
        keys = [bytes.fromhex(text_hash) for text_hash in hashes]
        kept = self._cache.of(model_id).token_vectors(keys)
        found = [key for key in keys if key in kept]
        scores = dict(zip(found, maxsim(question, [kept[key] for key in found]), strict=True))
        return [float(scores[key]) if key in scores else None for key in keys]

    def _cross_scores(self, question: str, texts: Sequence[str]) -> list[float | None]:
        assert self._cross_encoder is not None
        pairs = [(question, text) for text in texts]
        scores: Any = self._cross_encoder.predict(pairs, batch_size=self._settings.batch_size, show_progress_bar=False)
        return [float(score) for score in scores]


def _cross_encoder(args: AppArgs) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    encoder: CrossEncoder = CrossEncoder(
        str(args.reranking.model), local_files_only=True, model_kwargs={"use_safetensors": True}
    )
    return encoder
