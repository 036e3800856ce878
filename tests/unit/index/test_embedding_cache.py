from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from index import embedding_cache
from index.embedding_cache import CachedEmbedding, EmbeddingCache, text_hash
from index.ledger import Ledger

DIM = 384


def make_embedding(seed: int, tokens: int | None = 20) -> CachedEmbedding:
    random = np.random.default_rng(seed)
    dense = random.standard_normal(DIM).astype(np.float32)
    if tokens is None:
        return CachedEmbedding(dense / np.linalg.norm(dense))
    return CachedEmbedding(dense / np.linalg.norm(dense), random.integers(-127, 128, (tokens, DIM), dtype=np.int8))


@pytest.fixture
def cache(database_url: str) -> Iterator[EmbeddingCache]:
    cache = EmbeddingCache(database_url, "minilm")
    yield cache
    cache.close()


def test_what_was_put_comes_back_unchanged(cache: EmbeddingCache) -> None:
    many = {text_hash(str(seed)): make_embedding(seed, tokens=seed + 1) for seed in range(5)}
    cache.put(many)
    wanted = [*many, text_hash("unknown")]
    found = cache.get(wanted)
    assert set(found) == set(many)
    for key, embedding in many.items():
        np.testing.assert_array_equal(found[key].dense, embedding.dense)
        np.testing.assert_array_equal(found[key].tokens, embedding.tokens)
        np.testing.assert_array_equal(cache.get_dense(wanted)[key], embedding.dense)
        np.testing.assert_array_equal(cache.token_vectors(wanted)[key], embedding.tokens)
        assert found[key].dense.dtype == np.float32
        assert cache.token_vectors([key])[key].dtype == np.int8


def test_text_without_token_vectors_has_a_dense_one(cache: EmbeddingCache) -> None:
    key = text_hash("a")
    cache.put({key: make_embedding(1, tokens=None)})
    assert cache.get([key])[key].tokens is None
    assert cache.token_vectors([key]) == {}
    assert set(cache.get_dense([key])) == {key}


def test_first_embedding_of_a_text_stays(cache: EmbeddingCache) -> None:
    key = text_hash("a")
    cache.put({key: make_embedding(1)})
    cache.put({key: make_embedding(2)})
    np.testing.assert_array_equal(cache.get_dense([key])[key], make_embedding(1).dense)
    np.testing.assert_array_equal(cache.token_vectors([key])[key], make_embedding(1).tokens)


def test_token_vectors_are_added_to_a_row_without_them_and_never_taken_away(cache: EmbeddingCache) -> None:
    key = text_hash("a")
    cache.put({key: make_embedding(1, tokens=None)})
    cache.put({key: make_embedding(1)})
    cache.put({key: make_embedding(1, tokens=None)})
    np.testing.assert_array_equal(cache.token_vectors([key])[key], make_embedding(1).tokens)


def test_models_do_not_mix(cache: EmbeddingCache, database_url: str) -> None:
    other = EmbeddingCache(database_url, "another")
    key = text_hash("a")
    cache.put({key: make_embedding(1)})
    assert other.get([key]) == {}
    other.put({key: make_embedding(2)})
    np.testing.assert_array_equal(cache.get_dense([key])[key], make_embedding(1).dense)
    assert cache.drop([key]) == 2, "an erased text goes under every model"
    assert other.get([key]) == {}
    other.close()


def test_many_hashes_are_answered_in_batches(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "BATCH", 3)
    many = {text_hash(str(seed)): make_embedding(seed, tokens=1) for seed in range(10)}
    cache.put(many)
    assert set(cache.get_dense(list(many) * 2)) == set(many)
    assert cache.drop(list(many)) == 10
    assert cache.get(list(many)) == {}


def test_nothing_asked_nothing_done(cache: EmbeddingCache) -> None:
    cache.put({})
    assert cache.get([]) == cache.get_dense([]) == cache.token_vectors([]) == {}
    assert cache.drop([]) == 0


def test_threads_may_put_and_get_the_same_texts(cache: EmbeddingCache) -> None:
    many = {text_hash(str(seed)): make_embedding(seed, tokens=3) for seed in range(30)}

    def work(number: int) -> int:
        keys = list(many)[number:] + list(many)[:number]
        cache.put({key: many[key] for key in keys})
        return len(cache.token_vectors(keys))

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(work, range(12))) == [30] * 12


def test_cache_and_ledger_may_share_a_database(cache: EmbeddingCache, database_url: str) -> None:
    ledger = Ledger(database_url)
    cache.put({text_hash("a"): make_embedding(1)})
    assert ledger.healthy()
    ledger.close()


def test_dropped_text_leaves_no_byte_in_the_files(tmp_path: Path) -> None:
    cache = EmbeddingCache(f"sqlite:///{tmp_path}/embeddings.sqlite", "minilm")
    secret, kept = text_hash("secret"), text_hash("kept")
    many = {secret: make_embedding(1, tokens=200), kept: make_embedding(2, tokens=200)}
    cache.put(many)
    assert _traces(tmp_path, many[secret]) and _traces(tmp_path, many[kept])
    assert cache.drop([secret]) == 1
    assert not _traces(tmp_path, many[secret])
    assert _traces(tmp_path, many[kept])
    cache.close()
    assert not _traces(tmp_path, many[secret])


def _traces(directory: Path, embedding: CachedEmbedding) -> list[str]:
    """Look for pieces of an embedding in every file: its dense vector, and each 64 bytes of its token vectors."""
    assert embedding.tokens is not None
    tokens = embedding.tokens.tobytes()
    pieces = [embedding.dense.tobytes()[:64], *(tokens[at : at + 64] for at in range(0, len(tokens), 6400))]
    return [file.name for file in directory.iterdir() for piece in pieces if piece in file.read_bytes()]


@pytest.mark.parametrize(
    ("key", "embedding"),
    [
        pytest.param(b"short", make_embedding(1), id="no SHA-256"),
        pytest.param(text_hash("a"), CachedEmbedding(np.zeros(3, np.float64)), id="double precision"),
        pytest.param(text_hash("a"), CachedEmbedding(np.zeros((1, 3), np.float32)), id="matrix for a vector"),
        pytest.param(
            text_hash("a"), CachedEmbedding(np.zeros(3, np.float32), np.zeros((0, 3), np.int8)), id="no tokens"
        ),
    ],
)
def test_wrong_shapes_and_types_are_refused(tmp_path: Path, key: bytes, embedding: CachedEmbedding) -> None:
    cache = EmbeddingCache(f"sqlite:///{tmp_path}/embeddings.sqlite", "minilm")
    with pytest.raises(ValueError, match="kept, not"):
        cache.put({key: embedding})
    cache.close()


def test_text_hash_ignores_how_accents_are_composed_and_nothing_else() -> None:
    assert text_hash("caf\u00e9") == text_hash("cafe\u0301")
    assert text_hash("cafe") != text_hash("Cafe")
    assert len(text_hash("\ud800")) == 32


def test_dropping_a_model_leaves_the_other_ones_vectors(database_url: str) -> None:
    cache = EmbeddingCache(database_url, "old")
    other = cache.of("new")
    many = {text_hash(f"text {number}"): CachedEmbedding(np.full(4, number, np.float32)) for number in range(1203)}
    for each in (cache, other):
        each.put(many)
    assert cache.drop_model() == len(many) and cache.drop_model() == 0
    assert cache.get_dense(list(many)) == {}
    assert len(other.get_dense(list(many))) == len(many)
    cache.close()
