"""What somebody finds who may read next to nothing of a large index: as much as a search of just that would find.

100,000 passages, of which 1 %, 0.1 % and 0.01 % are visible. Where a store searches first and filters afterwards, the
nearest passages are other people's and nothing is left; here the filter is part of the search. Vectors are drawn around
random centres, as passages gather around subjects; texts are short, since only vectors are searched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.context import Figure, directory, machine, quantile, save, say
from cluster import milvus
from cluster.preflight import free_ports
from index.access_rules import Visible
from index.document import document_id
from index.settings import StoreSettings
from index.vectors import ChunkRow, VectorStore

DIM, TOP, CENTRES, SPREAD = 384, 10, 500, 0.7
SHARES = (0.01, 0.001, 0.0001)
TENANT, OTHERS = 1, 1_000
LEAST_RECALL = 0.95
MODEL = "selectivity"
BATCH = 2_000

Vectors = NDArray[np.float32]


def run(chunks: int, questions: int) -> list[Figure]:
    """Fill a store, ask as people who see ever less, and compare with a search of all that they see by hand."""
    before = machine()
    random = np.random.default_rng(7)
    centres = _unit(random.normal(size=(CENTRES, DIM)).astype(np.float32))
    vectors, asked = _around(centres, chunks, random), _around(centres, questions, random)
    rules = _rules(chunks, random)
    with directory() as home, served(home) as store:
        began = time.perf_counter()
        for start in range(0, chunks, BATCH):
            store.upsert([_row(n, rules[n], vectors[n]) for n in range(start, min(chunks, start + BATCH))])
        store.flush()
        filled_s = time.perf_counter() - began
        say(f"{chunks} passages written in {filled_s:.0f} s")
        results = [_ask(store, place, vectors, rules, asked) for place in range(len(SHARES))]
    save(
        "selectivity",
        {"chunks": chunks, "questions": questions, "fill_s": round(filled_s, 1), "found": results},
        before,
    )
    return [figure for result in results for figure in _figures(result, questions)]


def _ask(
    store: VectorStore, place: int, vectors: Vectors, rules: NDArray[np.int64], asked: Vectors
) -> dict[str, float]:
    mine = np.flatnonzero(rules == place + 1)
    visible = Visible(TENANT, (place + 1,))
    recalls, seconds, starved = [], [], 0
    for question in asked:
        began = time.perf_counter()
        found = store.search_dense(question, visible, TOP)
        seconds.append(time.perf_counter() - began)
        nearest = mine[np.argsort(-(vectors[mine] @ question))[:TOP]]
        expected = {document_id("bench", "selectivity", str(n)) for n in nearest}
        recalls.append(len(expected & {candidate.document_id for candidate in found}) / max(1, len(expected)))
        starved += len(found) < min(TOP, len(mine))
    return {
        "share": SHARES[place],
        "visible": len(mine),
        "recall_at_10": round(float(np.mean(recalls)), 4),
        "starved": starved,
        "p50_ms": round(quantile(seconds, 0.5) * 1e3, 1),
        "p95_ms": round(quantile(seconds, 0.95) * 1e3, 1),
    }


def _figures(result: dict[str, float], questions: int) -> Iterator[Figure]:
    name = f"{result['share']:.2%} of the passages visible ({result['visible']:.0f})"
    recall, starved = result["recall_at_10"], int(result["starved"])
    yield Figure(
        "selectivity", f"{name}: top-10 recall", f"{recall:.3f}", questions, "≥ 0.95", recall >= LEAST_RECALL, True
    )
    yield Figure(
        "selectivity", f"{name}: answers with fewer than there are", str(starved), questions, "0", not starved, True
    )
    yield Figure("selectivity", f"{name}: p50 of the search", f"{result['p50_ms']} ms", questions)


def _rules(chunks: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Rule 1, 2 and 3 for the three shares, spread over the whole; the rest under a thousand others."""
    rules = random.integers(len(SHARES) + 1, OTHERS, size=chunks)
    order, start = random.permutation(chunks), 0
    for place, share in enumerate(SHARES):
        count = max(1, round(chunks * share))
        rules[order[start : start + count]] = place + 1
        start += count
    return rules


def _row(number: int, rule: int, vector: Vectors) -> ChunkRow:
    return ChunkRow(
        document_id=document_id("bench", "selectivity", str(number)),
        version=1,
        tenant_id=TENANT,
        access_id=int(rule),
        position=0,
        start=0,
        end=1,
        page=None,
        context="",
        text=f"passage {number}",
        analysed=f"passage {number % 1_000}",
        text_hash="0" * 64,
        dense={MODEL: vector},
    )


def _around(centres: Vectors, count: int, random: np.random.Generator) -> Vectors:
    chosen = centres[random.integers(0, len(centres), size=count)]
    noise = random.normal(size=(count, DIM)).astype(np.float32) / np.float32(np.sqrt(DIM))
    return _unit(chosen + np.float32(SPREAD) * noise)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@contextmanager
def served(home: Path) -> Iterator[VectorStore]:
    (home / "logs").mkdir(mode=0o700)
    (port,) = free_ports(1)
    server = milvus.start(home, port)
    try:
        milvus.wait_until_up(server, port, home / "logs" / "milvus.log")
        store = VectorStore(StoreSettings(uri=f"http://127.0.0.1:{port}", timeout_s=120), MODEL, DIM)
        store.open()
        yield store
    finally:
        server.terminate()
        server.wait(timeout=60)
