"""How long a question takes: HTTP /v1/retrieve over many chunks, one client, with and without reranking.

The chunks are not embedded one by one, which would take longer than all the rest: their vectors are those of a few
hundred embedded texts with noise, their token vectors are borrowed from these texts, and their words follow Zipf's
law. How long a search takes depends on how many rows there are, how long they are and how common the question's
words are, not on which text owns which vector. Nothing here says how well is ranked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray

from bench.context import Figure, Service, busy_share, directory, machine, quantile, save, say, service
from bench.texts import SEED, Vocabulary, sentences
from bench.usage import cpu_by_name
from index.analysis import analyse
from index.document import Chunk, DocumentRef
from index.embedding import Embedder, Encoded, identify
from index.embedding_cache import CachedEmbedding, EmbeddingCache, text_hash
from index.ledger import Ledger
from index.settings import AppArgs
from index.vectors import VectorStore
from ingest.stages import Embedded, Prepared, write
from policies.access import AccessRule
from policies.principals import Principal

TENANT, SOURCE = "bench", "made"
CHUNKS_OF_DOCUMENT = 4
WORDS_OF_CHUNK = 110
"""About 190 tokens of the packaged model: invented words take more tokens than real ones."""
EMBEDDED_TEXTS = 256
DOCUMENTS_PER_WRITE = 64
NOISE = 0.6
"""Length of the noise on a unit vector: neighbours then have cosines near 0.85, as passages on one subject have."""
TOP_K = 10
WARM_UP = 30
TARGETS_MS = {"none": (60.0, 120.0), "late_interaction": (200.0, 200.0)}
NOTE = (
    "rows with pre-made vectors: what a search costs does not depend on which text owns a vector; "
    "nothing here says how well is ranked"
)


def run(chunks: int, questions: int, kept: Path | None = None) -> list[Figure]:
    """Measure, write `retrieve.json`, and give the table's lines. `kept`: a directory to fill once and to use again."""
    before, results = machine(), dict[str, Any]()
    shape = {"questions": questions, "top_k": TOP_K, "note": NOTE}
    with directory(kept) as home:
        for kind in ("late_interaction", "none"):
            with service(home, {"reranking": {"kind": kind}}) as running:
                filled = fill(running.args, chunks)
                say(f"reranking {kind}: {questions} questions over {filled} chunks")
                results[kind] = ask(running, questions)
            save("retrieve", {"chunks": filled, **shape, "reranking": results}, before)
    return [figure for kind in ("none", "late_interaction") for figure in _figures(kind, results[kind], questions)]


def fill(args: AppArgs, chunks: int) -> int:
    """Put rows into ledger, store and cache until there are `chunks`, and give how many there are."""
    ledger, model = Ledger(args.store.ledger), identify(args.embedding)
    store = VectorStore(args.store, model.model_id, model.dim)
    store.open()
    there = min(ledger.counts().chunks, store.count())  # a collection of another schema is empty
    if there < chunks:
        say(f"filling {chunks - there} chunks")
        cache = EmbeddingCache(args.store.embeddings, model.model_id)
        for batch in _batches(args, there // CHUNKS_OF_DOCUMENT, -(-chunks // CHUNKS_OF_DOCUMENT), cache):
            write(batch, ledger, store, "bench")
        cache.close()
        store.flush()
        there = ledger.counts().chunks
    ledger.close()
    return there


def ask(running: Service, questions: int) -> dict[str, Any]:
    """Ask distinct questions one after another, after a warm-up, and take the times apart."""
    vocabulary = Vocabulary(sentences(), seed=SEED + 1)
    texts = list(dict.fromkeys(vocabulary.question() for _ in range(2 * (questions + WARM_UP))))[: questions + WARM_UP]
    floor = store_alone(running.args, texts)
    with running.client(TENANT) as client:
        for text in texts[:WARM_UP]:
            retrieve(client, text)
        busy, before = busy_share(), cpu_by_name(running)
        answers = [retrieve(client, text) for text in texts[WARM_UP:]]
        after = cpu_by_name(running)
    times = [milliseconds for milliseconds, _ in answers]
    stages = split(answers)
    return {
        "n": len(answers),
        "busy_share_before": busy,
        "p50_ms": round(quantile(times, 0.5), 1),
        "p95_ms": round(quantile(times, 0.95), 1),
        "max_ms": round(max(times), 1),
        "store_alone_p50_ms": round(quantile(floor, 0.5), 1),
        "hits": round(float(np.mean([len(body["hits"]) for _, body in answers])), 2),
        "degraded": sum(bool(body["degraded"]) for _, body in answers),
        "stages": stages,
        "cpu_ms_per_question": cpu_ms(before, after, len(answers)),
    }


def store_alone(args: AppArgs, texts: list[str]) -> list[float]:
    """Time the two searches of each question by themselves: what any service over this store takes at least.

    Both go at once, on connections of their own, as retrieval sends them. Milliseconds, after the warm-up.
    """
    ledger = Ledger(args.store.ledger)
    visible = ledger.visible_rules(Principal("bench", TENANT))
    ledger.close()
    assert visible is not None, "the bench's tenant has documents"
    model, depth = identify(args.embedding), args.retrieval.depth
    dense, keyword = (VectorStore(args.store, model.model_id, model.dim) for _ in range(2))
    vectors = Embedder(args.embedding).encode(texts).dense
    times = []
    with ThreadPoolExecutor(1) as other:
        for text, vector in zip(texts, vectors, strict=True):
            started = time.perf_counter()
            words = other.submit(keyword.search_keyword, analyse(text), visible, depth)
            dense.search_dense(vector, visible, depth)
            words.result()
            times.append((time.perf_counter() - started) * 1e3)
    return times[WARM_UP:]


def retrieve(client: httpx2.Client, question: str) -> tuple[float, dict[str, Any]]:
    """Ask once: milliseconds at the client, and the answer."""
    started = time.perf_counter()
    answer = client.post("/v1/retrieve", json={"question": question, "top_k": TOP_K})
    body: dict[str, Any] = answer.raise_for_status().json()
    return (time.perf_counter() - started) * 1e3, body


def split(answers: list[tuple[float, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Take times apart by stage; `rest` is what no stage has: HTTP, proxy, token, audit and calls between replicas."""
    whole = sum(milliseconds for milliseconds, _ in answers)
    stages: dict[str, list[float]] = {}
    for milliseconds, body in answers:
        timings: dict[str, float] = body["timings_ms"]
        for name, value in {**timings, "rest": milliseconds - sum(timings.values())}.items():
            stages.setdefault(name, []).append(value)
    return {
        name: {"p50_ms": round(quantile(values, 0.5), 1), "share": round(sum(values) / whole, 3)}
        for name, values in stages.items()
    }


def cpu_ms(before: Mapping[str, float], after: Mapping[str, float], n: int) -> dict[str, float]:
    """Give CPU milliseconds for one question by part, most first; what else runs matters less to them than to times."""
    used = {name: (seconds - before.get(name, 0.0)) / n * 1e3 for name, seconds in after.items()}
    return {name: round(value, 1) for name, value in sorted(used.items(), key=lambda item: -item[1]) if value >= 0.5}


def noisy(base: NDArray[np.float32], chance: np.random.Generator) -> NDArray[np.float32]:
    """Move each row, float32[n, dim] of unit length, by a random vector of length `NOISE`; unit length again."""
    noise = chance.standard_normal(base.shape).astype(np.float32)
    moved = base + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _batches(args: AppArgs, first: int, last: int, cache: EmbeddingCache) -> Iterator[list[Embedded]]:
    chance, model_id = np.random.default_rng(SEED + first), identify(args.embedding).model_id
    vocabulary = Vocabulary(sentences(), seed=SEED + first)
    originals = Embedder(args.embedding).encode([vocabulary.text(WORDS_OF_CHUNK) for _ in range(EMBEDDED_TEXTS)])
    for start in range(first, last, DOCUMENTS_PER_WRITE):
        numbers = range(start, min(start + DOCUMENTS_PER_WRITE, last))
        batch, kept = [], dict[bytes, CachedEmbedding]()
        for number in numbers:
            made = _document(number, vocabulary, originals, chance, model_id)
            batch.append(made[0])
            kept |= made[1]
        cache.put(kept)
        yield batch


def _document(
    number: int, vocabulary: Vocabulary, originals: Encoded, chance: np.random.Generator, model_id: str
) -> tuple[Embedded, dict[bytes, CachedEmbedding]]:
    rows = chance.integers(len(originals.dense), size=CHUNKS_OF_DOCUMENT)
    vectors = noisy(originals.dense[rows], chance)
    chunks, start = [], 0
    for position in range(CHUNKS_OF_DOCUMENT):
        text = vocabulary.text(WORDS_OF_CHUNK)
        chunks.append(Chunk(position, text, start, start + len(text)))
        start += len(text) + 1
    rule = AccessRule.of(["everyone"])
    name = f"note-{number:06d}"
    ref = DocumentRef(TENANT, SOURCE, name, f"bench:{name}", f"Note {number}", str(number), rule)
    prepared = Prepared(ref, None, text_hash(name).hex(), tuple(chunks))
    assert originals.tokens is not None, "the configuration keeps token vectors"
    kept = {
        text_hash(text): CachedEmbedding(vector, originals.tokens[row])
        for text, vector, row in zip(prepared.texts, vectors, rows, strict=True)
    }
    return Embedded(prepared, tuple({model_id: vector} for vector in vectors), len(chunks)), kept


def _figures(kind: str, result: dict[str, Any], n: int) -> list[Figure]:
    name = "no reranking" if kind == "none" else "default reranking"
    median, tail = TARGETS_MS[kind]
    share = ", ".join(f"{stage} {values['share']:.0%}" for stage, values in result["stages"].items())
    lines = [
        Figure(
            "retrieve", f"{name}, p50", f"{result['p50_ms']:.0f} ms", n, f"≤ {median:.0f}", result["p50_ms"] <= median
        ),
        Figure("retrieve", f"{name}, p95", f"{result['p95_ms']:.0f} ms", n, f"≤ {tail:.0f}", result["p95_ms"] <= tail),
    ]
    floor = result["store_alone_p50_ms"]
    alone = f"{floor:.0f} ms, ×{result['p50_ms'] / floor:.2f}"
    return [
        *lines,
        Figure("retrieve", f"{name}, the store alone", alone, n),
        Figure("retrieve", f"{name}, share", share, n),
    ]
