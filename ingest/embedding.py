"""Embedding of passages through the content-addressed cache: a text that was embedded before is not embedded again."""

from __future__ import annotations

from collections.abc import Sequence

from index.document import Vector, Vectors
from index.embedders import Embedders
from index.embedding import bulk_streams
from index.embedding_cache import CachedEmbedding, EmbeddingCache, text_hash
from index.models import HeldModel, Models
from index.settings import AppArgs


class CachedEmbedder:
    """Embeds passages under every model that the index holds. Without `embedders` it loads its own, at their first use.

    Raises `ConfigurationError` as `Models.settle` and `Embedders.get`.
    """

    def __init__(self, args: AppArgs, embedders: Embedders | None = None) -> None:
        self._models = Models(args.store.ledger)
        self._models.settle(args.embedding)
        self._cache = EmbeddingCache(args.store.embeddings, "")
        self._embedders = embedders or Embedders(args.embedding, bulk_streams(args.embedding))

    def __call__(self, texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
        """Give each text's vectors and whether one had to be computed (the second of two equal texts had not)."""
        vectors: list[dict[str, Vector]] = [{} for _ in texts]
        computed = [False] * len(texts)
        for model in {each.model_id: each for each in self._models.held()}.values():
            found, made = self.under(model, texts)
            for row, vector in enumerate(found):
                vectors[row][model.model_id] = vector
                computed[row] |= made[row]
        return list(vectors), computed

    def under(self, model: HeldModel, texts: Sequence[str]) -> tuple[list[Vector], list[bool]]:
        """Give each text's vector under one model, and whether it had to be computed."""
        hashes = [text_hash(text) for text in texts]
        cache = self._cache.of(model.model_id)
        vectors = cache.get_dense(hashes)
        missing = {key: text for key, text in zip(hashes, texts, strict=True) if key not in vectors}
        if missing:
            vectors = {**vectors, **self._compute(model, missing, cache)}
        computed = [missing.pop(key, None) is not None for key in hashes]
        return [vectors[key] for key in hashes], computed

    def _compute(self, model: HeldModel, missing: dict[bytes, str], cache: EmbeddingCache) -> dict[bytes, Vector]:
        encoded = self._embedders.get(model).encode(list(missing.values()))
        made = {}
        for row, key in enumerate(missing):
            # A text can be without a token: a lone accent is one that the model does not read.
            tokens = encoded.tokens[row] if encoded.tokens is not None and len(encoded.tokens[row]) else None
            made[key] = CachedEmbedding(encoded.dense[row], tokens)
        cache.put(made)
        return {key: value.dense for key, value in made.items()}
