"""Two ranked lists into one order, and a reranker's opinion into that order: arithmetic over values.

Scores of different kinds (a cosine, BM25, MaxSim) are brought to the same scale per question, then added with
fixed weights: a convex combination, which needs one weight, few examples to choose it, and beats reciprocal rank
fusion in and out of domain (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval",
ACM TOIS 2023, arXiv:2210.11934).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scored:
    """An id and its score; more is better."""

    id: str
    score: float


def fuse(dense: Sequence[Scored], keyword: Sequence[Scored], dense_weight: float) -> list[Scored]:
    """Merge the results of dense and keyword search, best first, without duplicates.

    Both scores are stretched to [0, 1] over their list, and `dense_weight` in [0, 1] is the share of the dense one.
    What only one list found gets 0 from the other; where one list is empty, the other decides alone. Equal scores
    are ordered by id, so that the same candidates always give the same order.
    """
    if not dense or not keyword:
        dense_weight = 1.0 if dense else 0.0
    dense_parts, keyword_parts = _stretched(dense), _stretched(keyword)
    return _best_first(
        Scored(key, dense_weight * dense_parts.get(key, 0.0) + (1 - dense_weight) * keyword_parts.get(key, 0.0))
        for key in dense_parts.keys() | keyword_parts.keys()
    )


def rerank(fused: Sequence[Scored], scores: Mapping[str, float], weight: float) -> list[Scored]:
    """Reorder the candidates that a reranker has scored; the others follow in the order they had.

    `weight` in [0, 1] is the share of the reranker's score beside the fused one, both stretched to [0, 1] over the
    reranked candidates. Returned scores never rise from one rank to the next.
    """
    first = [item for item in fused if item.id in scores]
    opinions = _stretched([Scored(item.id, scores[item.id]) for item in first])
    before = _stretched(first)
    reranked = _best_first(
        Scored(item.id, weight * opinions[item.id] + (1 - weight) * before[item.id]) for item in first
    )
    floor = reranked[-1].score if reranked else 1.0
    return reranked + [Scored(item.id, min(item.score, floor)) for item in fused if item.id not in scores]


def _stretched(items: Sequence[Scored]) -> dict[str, float]:
    """Scores mapped linearly onto [0, 1] by id; all 1 where they do not differ."""
    if not items:
        return {}
    lowest = min(item.score for item in items)
    span = max(item.score for item in items) - lowest
    return {item.id: (item.score - lowest) / span if span > 0 else 1.0 for item in items}


def _best_first(items: Iterable[Scored]) -> list[Scored]:
    return sorted(items, key=lambda item: (-item.score, item.id))
