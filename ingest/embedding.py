"""Embedding of passages through the content-addressed cache: a text that was embedded before is not embedded again."""

from __future__ import annotations

from collections.abc import Sequence

from index.document import Vector
from index.embedding import Embedder, bulk_streams, identify
from index.embedding_cache import CachedEmbedding, EmbeddingCache, text_hash
from index.settings import AppArgs


class CachedEmbedder:
    """One for each embedding actor. Without an `embedder` it loads its own at the first text that is not cached."""

    def __init__(self, args: AppArgs, embedder: Embedder | None = None) -> None:
        self._settings = args.embedding
        self._cache = EmbeddingCache(args.store.embeddings, identify(args.embedding).model_id)
        self._embedder = embedder

    def __call__(self, texts: Sequence[str]) -> tuple[list[Vector], list[bool]]:
        """Give a vector for each text and whether it had to be computed (the second of two equal texts had not)."""
        hashes = [text_hash(text) for text in texts]
        vectors = self._cache.get_dense(hashes)
        missing = {key: text for key, text in zip(hashes, texts, strict=True) if key not in vectors}
        if missing:
            vectors = {**vectors, **self._compute(missing)}
        computed = []
        for key in hashes:
            computed.append(missing.pop(key, None) is not None)
        return [vectors[key] for key in hashes], computed

    def _compute(self, missing: dict[bytes, str]) -> dict[bytes, Vector]:
        if self._embedder is None:
            self._embedder = Embedder(self._settings, streams=bulk_streams(self._settings))
        encoded = self._embedder.encode(list(missing.values()))
        made = {}
        for row, key in enumerate(missing):
            tokens = None if encoded.tokens is None else encoded.tokens[row]
            made[key] = CachedEmbedding(encoded.dense[row], tokens)
        self._cache.put(made)
        return {key: value.dense for key, value in made.items()}
