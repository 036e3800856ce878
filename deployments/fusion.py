"""Two ranked lists into one order, and a reranker's opinion into that order: arithmetic over values.

Scores of different kinds (a cosine, BM25, MaxSim) are brought to the same scale per question, then added with
fixed weights: a convex combination, which needs one weight, few examples to choose it, and beats reciprocal rank
fusion in and out of domain (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval",
ACM TOIS 2023, arXiv:2210.11934).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scored:
    """An id and its score; more is better."""

    id: str
    score: float


def fuse(
    dense: Sequence[Scored],
    keyword: Sequence[Scored],
    dense_weight: float,
    cosines: Mapping[str, float] | None = None,
) -> list[Scored]:
    """Merge the results of dense and keyword search, best first, without duplicates.

    Dense scores are stretched to [0, 1] from the lowest candidate's to the highest's; BM25, whose theoretical
    minimum is 0, is divided by its highest. `dense_weight` in [0, 1] is the share of the former. A passage that
    dense search did not find has the cosine that `cosines` knows, else the lowest; one that keyword search did not
    find has 0. Where one list is empty, the other decides alone. Equal scores are ordered by id, so that the same
    candidates always give the same order.
    """
    if not dense or not keyword:
        return _best_first(_stretched({item.id: item.score for item in dense or keyword}))
    known = {item.id: item.score for item in dense}
    for item in keyword:
        if item.id not in known and cosines and item.id in cosines:
            known[item.id] = cosines[item.id]
    highest = max(item.score for item in keyword)
    meanings = _stretched(known)
    words = {item.id: max(0.0, item.score) / highest if highest > 0 else 0.0 for item in keyword}
    ids = known.keys() | words.keys()
    return _best_first({i: dense_weight * meanings.get(i, 0.0) + (1 - dense_weight) * words.get(i, 0.0) for i in ids})


def rerank(fused: Sequence[Scored], scores: Mapping[str, float], weight: float) -> list[Scored]:
    """Reorder the candidates that a reranker has scored; the others follow in the order they had.

    `weight` in [0, 1] is the share of the reranker's score beside the fused one, both stretched to [0, 1] over the
    reranked candidates. Returned scores never rise from one rank to the next.
    """
    before = _stretched({item.id: item.score for item in fused if item.id in scores})
    opinions = _stretched({key: scores[key] for key in before})
    first = _best_first({key: weight * opinions[key] + (1 - weight) * before[key] for key in before})
    floor = first[-1].score if first else 1.0
    return first + [Scored(item.id, min(item.score, floor)) for item in fused if item.id not in scores]


def _stretched(scores: Mapping[str, float]) -> dict[str, float]:
    """Map scores linearly onto [0, 1]; all become 1 where they do not differ."""
    lowest, highest = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    span = highest - lowest
    return {key: (score - lowest) / span if span > 0 else 1.0 for key, score in scores.items()}


def _best_first(scores: Mapping[str, float]) -> list[Scored]:
    return [Scored(key, score) for key, score in sorted(scores.items(), key=lambda item: (-item[1], item[0]))]
