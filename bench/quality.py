"""How well the product ranks: nDCG@10 on collections in BEIR's layout, and what reranking costs.

    python -m bench.quality DATA --set scifact:135:1000 --set cisi --cache /var/tmp/vectors --curve

DATA (or `RAYRAG_EVAL_DATA`) holds one folder a collection: `corpus.jsonl`, `queries.jsonl`, `qrels.tsv`. A set is
`name[:questions[:documents]]`: every n-th question, and all relevant documents among a random choice of others. One
vector stands for a document (its first 256 tokens), so that the figures compare with published ones. Writes
`bench/results/quality.json` and, with `--curve`, `quality_curve.json` and `quality_curve.svg`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from deployments.fusion import Scored, fuse, rerank
from index.analysis import STOP_WORDS, analyse
from index.embedding import Embedder
from index.late_interaction import maxsim
from index.settings import EmbeddingSettings, RerankingSettings, RetrievalSettings

RESULTS = Path(__file__).parent / "results"
DEPTHS = (0, 10, 20, 30, 50, 100)
GRID = [(dense, weight) for dense in (0.4, 0.5, 0.6) for weight in (0.0, 0.2, 0.3, 0.4, 0.5)]
K1, B = 1.2, 0.75  # as the index is created with

Order = list[str]
Ranking = Callable[["Question"], Order]


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents with ids and texts, questions with ids and texts, and judgements question → document → grade."""

    name: str
    ids: list[str]
    texts: list[str]
    questions: dict[str, str]
    judgements: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """A collection's passages: dense float32[n, dim]; tokens int8[all, dim], those of i at offsets[i:i + 2]."""

    dense: NDArray[np.float32]
    tokens: NDArray[np.int8]
    offsets: NDArray[np.int64]

    def of(self, row: int) -> NDArray[np.int8]:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What both searches found for a question, best first, and how each kind of token vector scores it."""

    id: str
    dense: list[Scored]
    keyword: list[Scored]
    cosines: dict[str, float]
    late: dict[str, dict[str, float]]


def read_collection(root: Path, name: str, questions: int = 0, documents: int = 0) -> Collection:
    """Read a folder in BEIR's layout; 0 takes all. Only questions with a relevant document count."""
    judgements: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (root / name / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        question, document, grade = line.split("\t")
        judgements[question][document] = int(grade)
    asked = _records(root / name / "queries.jsonl")
    asked = asked[:: max(1, math.ceil(len(asked) / questions))] if questions else asked
    kept = {q["_id"]: q["text"] for q in asked if any(grade > 0 for grade in judgements[q["_id"]].values())}
    corpus = _records(root / name / "corpus.jsonl")
    if documents:
        relevant = {document for question in {q["_id"] for q in asked} for document in judgements[question]}
        others = [record for record in corpus if record["_id"] not in relevant]
        random.Random(7).shuffle(others)
        needed = [record for record in corpus if record["_id"] in relevant]
        corpus = needed + others[: max(0, documents - len(relevant))]
    texts = ["\n".join(filter(None, (record.get("title"), record["text"]))) for record in corpus]
    ids = [record["_id"] for record in corpus]
    return Collection(name, ids, texts, kept, {question: judgements[question] for question in kept})


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def embed(collection: Collection, embedder: Embedder, cache: Path) -> Vectors:
    """Embed a collection's passages, once: the vectors are kept under `cache`."""
    path = cache / f"{collection.name}.{len(collection.ids)}.{embedder.model_id}.npz"
    if not path.is_file():
        encoded = embedder.encode(collection.texts)
        assert encoded.tokens is not None
        offsets = np.cumsum([0, *map(len, encoded.tokens)])
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, dense=encoded.dense, tokens=np.concatenate(encoded.tokens), offsets=offsets)
    with np.load(path) as kept:
        return Vectors(kept["dense"], kept["tokens"], kept["offsets"])


def bm25(passages: Sequence[Sequence[str]], questions: Iterable[Sequence[str]]) -> NDArray[np.float32]:
    """Score every passage for every question, float32[questions, passages].

    Milvus' formula: idf = ln(1 + (N - df + 0.5) / (df + 0.5)); a question's repeated terms count repeatedly.
    """
    lengths = np.array([len(terms) for terms in passages], np.float32)
    saturation = K1 * (1 - B + B * lengths / lengths.mean())
    postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, terms in enumerate(passages):
        for term, count in Counter(terms).items():
            postings[term].append((row, count))
    scores = []
    for question in questions:
        line = np.zeros(len(passages), np.float32)
        for term, repeats in Counter(question).items():
            found = np.array(postings.get(term, np.empty((0, 2))), np.int64)
            rows, counts = found[:, 0], found[:, 1]
            idf = math.log(1 + (len(passages) - len(rows) + 0.5) / (len(rows) + 0.5))
            line[rows] += repeats * idf * counts * (K1 + 1) / (counts + saturation[rows])
        scores.append(line)
    return np.array(scores)


def search(collection: Collection, vectors: Vectors, embedder: Embedder, depth: int) -> list[Question]:
    """Search both ways, `depth` deep, and score what was found with whole and with pruned token vectors."""
    asked = embedder.encode_query(list(collection.questions.values()))
    keyword = bm25([analyse(text).split() for text in collection.texts],
                   (analyse(text).split() for text in collection.questions.values()))  # fmt: skip
    cosine = asked.dense @ vectors.dense.T
    telling = _telling_tokens(collection.texts, embedder)
    found = []
    for line, question in enumerate(collection.questions):
        first = _top(cosine[line], depth)
        second = [row for row in _top(keyword[line], depth) if keyword[line][row] > 0]
        rows = sorted({*first, *second})
        ids = [collection.ids[row] for row in rows]
        whole = [vectors.of(row) for row in rows]
        pruned = [tokens[telling[row]] for row, tokens in zip(rows, whole, strict=True)]
        late = {
            name: dict(zip(ids, map(float, maxsim(asked.tokens[line], tokens)), strict=True))
            for name, tokens in (("int8", whole), ("int8, telling words", pruned))
        }
        found.append(
            Question(
                question,
                [Scored(collection.ids[row], float(cosine[line][row])) for row in first],
                [Scored(collection.ids[row], float(keyword[line][row])) for row in second],
                {collection.ids[row]: float(cosine[line][row]) for row in rows},
                late,
            )
        )
    return found


def _top(scores: NDArray[np.float32], depth: int) -> list[int]:
    return [int(row) for row in np.lexsort((np.arange(len(scores)), -scores))[:depth]]


def _telling_tokens(texts: Sequence[str], embedder: Embedder) -> list[NDArray[np.int64]]:
    """The places of tokens that are neither stop words nor punctuation."""
    tokenizer = Tokenizer.from_file(str(embedder.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(EmbeddingSettings().max_tokens)
    places = []
    for encoding in tokenizer.encode_batch(list(texts)):
        words = [t for t, special in zip(encoding.tokens, encoding.special_tokens_mask, strict=True) if not special]
        places.append(np.flatnonzero([any(map(str.isalnum, word)) and word not in STOP_WORDS for word in words]))
    return places


def dense_only(question: Question) -> Order:
    return [item.id for item in question.dense]


def keyword_only(question: Question) -> Order:
    return [item.id for item in question.keyword]


def reciprocal_ranks(question: Question) -> Order:
    """Reciprocal rank fusion with k = 60 (Cormack, Clarke and Büttcher, SIGIR 2009)."""
    scores: dict[str, float] = defaultdict(float)
    for items in (question.dense, question.keyword):
        for rank, item in enumerate(items, 1):
            scores[item.id] += 1 / (60 + rank)
    return sorted(scores, key=lambda key: (-scores[key], key))


def reciprocal_ranks_then_late(question: Question) -> Order:
    """Reorder the best 30 of the above by MaxSim alone."""
    order = reciprocal_ranks(question)
    late = question.late["int8"]
    return sorted(order[:30], key=lambda key: -late[key]) + order[30:]


def product(dense_weight: float, weight: float, depth: int, vectors: str = "int8", found: int = 0) -> Ranking:
    """The product's own order: its fusion of the best `found` of each search, its reranking of the best `depth`."""
    found = found or RetrievalSettings().depth

    def order(question: Question) -> Order:
        fused = fuse(question.dense[:found], question.keyword[:found], dense_weight, question.cosines)
        scores = {item.id: question.late[vectors][item.id] for item in fused[:depth]}
        return [item.id for item in rerank(fused, scores, weight)]

    return order


def quality(collection: Collection, questions: Sequence[Question], ranking: Ranking) -> float:
    """Mean nDCG@10 over the questions."""
    run = {q.id: {key: 1 / rank for rank, key in enumerate(ranking(q)[:10], 1)} for q in questions}
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], collection.judgements, run)[ir_measures.nDCG @ 10])


def compare(sets: Mapping[str, tuple[Collection, list[Question]]]) -> dict[str, Any]:
    """One row a set, one column a way to rank, and the means."""
    retrieval, reranking = RetrievalSettings(), RerankingSettings()
    ways: dict[str, Ranking] = {
        "dense": dense_only,
        "keyword": keyword_only,
        "rrf": reciprocal_ranks,
        "rrf, late interaction": reciprocal_ranks_then_late,
        "fusion": product(retrieval.dense_weight, 0.0, 0),
        "product": product(retrieval.dense_weight, reranking.weight, reranking.depth),
    }
    rows = {
        name: {"questions": len(questions), "documents": len(collection.ids)}
        | {way: round(quality(collection, questions, ranking), 4) for way, ranking in ways.items()}
        for name, (collection, questions) in sets.items()
    }
    means = {way: round(statistics.mean(row[way] for row in rows.values()), 4) for way in ways}
    return {"measure": "nDCG@10", "sets": rows, "mean": means}


def leave_one_out(sets: Mapping[str, tuple[Collection, list[Question]]]) -> dict[str, Any]:
    """For each set, the weights that are best on the others, and what they give on it."""
    depth = RerankingSettings().depth
    table = {pair: {name: quality(*found, product(*pair, depth)) for name, found in sets.items()} for pair in GRID}
    chosen = {}
    for name in sets:
        others = [other for other in sets if other != name]
        best = max(GRID, key=lambda pair: statistics.mean(table[pair][other] for other in others or [name]))
        chosen[name] = {"dense_weight": best[0], "weight": best[1], "nDCG@10": round(table[best][name], 4)}
    means = {f"{dense}, {weight}": round(statistics.mean(table[dense, weight].values()), 4) for dense, weight in GRID}
    return {"chosen on the other sets": chosen, "mean by dense_weight, weight": means}


def curve(sets: Mapping[str, tuple[Collection, list[Question]]], vectors: Mapping[str, Vectors], embedder: Embedder
          ) -> dict[str, Any]:  # fmt: skip
    """Quality against milliseconds and bytes, by how many candidates are reranked and which vectors are kept."""
    chunk = max((of.of(row) for of in vectors.values() for row in range(len(of.dense))), key=_nearness_to_200)
    telling = statistics.mean(_share_telling(collection, embedder) for collection, _ in sets.values())
    query = embedder.encode_query(["what is the effect of oxidation on the contacts of a circuit breaker"]).tokens[0]
    short = chunk[: round(len(chunk) * telling)]
    kinds: dict[str, Any] = {"int8": chunk, "int8, telling words": short, "float16": chunk.astype(np.float16)}
    weights = RetrievalSettings().dense_weight, RerankingSettings().weight
    text = max((t for collection, _ in sets.values() for t in collection.texts), key=lambda t: -abs(len(t) - 950))
    points = []
    for depth in DEPTHS:
        measured = {
            kind: statistics.mean(quality(*found, product(*weights, depth, kind, 100)) for found in sets.values())
            for kind in ("int8", "int8, telling words")
        }
        for kind, kept in kinds.items():
            milliseconds = _best_ms(partial(maxsim, query, [kept] * depth))
            points.append(_point(kind, depth, measured.get(kind, measured["int8"]), milliseconds, kept.nbytes))
        if depth <= 30:
            anew = _best_ms(partial(embedder.encode, [text] * depth), 5)
            points.append(_point("encoded anew", depth, measured["int8"], anew, 0))
    note = "float16 and encoded anew: time and size are measured, nDCG@10 is int8's; ms is the best of several runs"
    return {"tokens of a chunk": len(chunk), "question tokens": len(query), "note": note, "points": points}


def _point(kind: str, depth: int, ndcg: float, milliseconds: float, size: int) -> dict[str, Any]:
    rounded = round(ndcg, 4), round(milliseconds, 2)
    return {"vectors": kind, "depth": depth, "nDCG@10": rounded[0], "ms": rounded[1], "bytes_per_chunk": size}


def _nearness_to_200(tokens: NDArray[np.int8]) -> int:
    return -abs(len(tokens) - 200)


def _share_telling(collection: Collection, embedder: Embedder) -> float:
    sample = collection.texts[:200]
    tokenizer = Tokenizer.from_file(str(embedder.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(EmbeddingSettings().max_tokens)
    total = sum(len(encoding.ids) - 2 for encoding in tokenizer.encode_batch(sample))
    return sum(map(len, _telling_tokens(sample, embedder))) / total


def _best_ms(work: Callable[[], object], repeats: int = 30) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return min(times)  # other load on the machine only adds


def draw(points: Sequence[Mapping[str, Any]]) -> str:
    """Draw the curve: milliseconds on a logarithmic axis, nDCG@10 upwards, one line a kind of vectors."""
    width, height, left, bottom = 720, 420, 70, 360
    low = min(point["nDCG@10"] for point in points) - 0.002
    high = max(point["nDCG@10"] for point in points) + 0.002
    kinds = dict.fromkeys(point["vectors"] for point in points)
    colours = dict(zip(kinds, ("#1b6ca8", "#2a9d55", "#8a5fb5", "#c4472b"), strict=False))

    def place(point: Mapping[str, Any]) -> tuple[float, float]:
        across = (math.log10(max(point["ms"], 0.1)) + 1) / 5
        return left + across * (width - left - 30), bottom - (point["nDCG@10"] - low) / (high - low) * (bottom - 40)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
             f'font-size="12"><rect width="100%" height="100%" fill="white"/>']  # fmt: skip
    for exponent in range(-1, 5):
        x = left + (exponent + 1) / 5 * (width - left - 30)
        parts.append(f'<path d="M{x:.0f} 40V{bottom}" stroke="#ddd"/><text x="{x:.0f}" y="{bottom + 18}" '
                     f'text-anchor="middle">{10.0**exponent:g} ms</text>')  # fmt: skip
    for step in range(6):
        value = low + (high - low) * step / 5
        y = bottom - step / 5 * (bottom - 40)
        parts.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{value:.3f}</text>')
    for line, (kind, colour) in enumerate(colours.items()):
        places = [(place(point), point["depth"]) for point in points if point["vectors"] == kind]
        path = " ".join(f"{x:.1f},{y:.1f}" for (x, y), _ in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/><text x="{x + 4:.1f}" y="{y - 5:.1f}" '
                  f'fill="{colour}" font-size="10">{depth}</text>' for (x, y), depth in places]  # fmt: skip
        parts.append(f'<text x="{left + 10 + 160 * line}" y="24" fill="{colour}">{kind}</text>')
    parts.append(f'<text x="{left}" y="{height - 14}">time to score the candidates of one question; a point\'s figure: '
                 f"candidates reranked; upwards: mean nDCG@10</text></svg>")  # fmt: skip
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("RAYRAG_EVAL_DATA"))
    parser.add_argument("--set", action="append", dest="sets", help="name[:questions[:documents]]; default: all")
    parser.add_argument("--cache", type=Path, default=Path(".rayrag/bench"), help="where vectors are kept")
    parser.add_argument("--curve", action="store_true", help="measure quality against milliseconds too")
    options = parser.parse_args()
    if options.data is None:
        parser.error("give the folder of the collections, or set RAYRAG_EVAL_DATA")
    embedder = Embedder(EmbeddingSettings())
    names = options.sets or sorted(path.parent.name for path in options.data.glob("*/corpus.jsonl"))
    sets, vectors = {}, {}
    for name in names:
        folder, *limits = name.split(":")
        collection = read_collection(options.data, folder, *map(int, limits))
        vectors[folder] = embed(collection, embedder, options.cache)
        sets[folder] = collection, search(collection, vectors[folder], embedder, max(DEPTHS))
    RESULTS.mkdir(exist_ok=True)
    table = compare(sets) | {"weights": leave_one_out(sets)}
    (RESULTS / "quality.json").write_text(json.dumps(table, indent=2) + "\n")
    print(json.dumps(table, indent=2))
    if options.curve:
        measured = curve(sets, vectors, embedder)
        (RESULTS / "quality_curve.json").write_text(json.dumps(measured, indent=2) + "\n")
        (RESULTS / "quality_curve.svg").write_text(draw(measured["points"]))
        print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
