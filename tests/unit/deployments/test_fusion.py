"""Fusion and reranking as arithmetic."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.fusion import Scored, fuse, rerank

lists = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e3, 1e3), max_size=8).map(
    lambda scores: [Scored(key, score) for key, score in sorted(scores.items(), key=lambda item: -item[1])]
)
weights = st.floats(0, 1)


def make_list(**scores: float) -> list[Scored]:
    return [Scored(key, score) for key, score in scores.items()]


def ids(items: list[Scored]) -> str:
    return "".join(item.id for item in items)


def test_what_both_lists_praise_comes_first() -> None:
    dense = make_list(a=0.8, b=0.7, c=0.2)
    keyword = make_list(d=20.0, b=18.0, e=3.0)
    assert ids(fuse(dense, keyword, 0.5))[0] == "b"


@pytest.mark.parametrize(("weight", "order"), [(0.0, "cba"), (1.0, "abc"), (0.9, "abc"), (0.1, "cba")])
def test_the_weight_decides_between_opposite_lists(weight: float, order: str) -> None:
    dense, keyword = make_list(a=0.9, b=0.6, c=0.3), make_list(c=9.0, b=6.0, a=3.0)
    assert ids(fuse(dense, keyword, weight)) == order


def test_the_scale_of_a_list_does_not_matter() -> None:
    dense, keyword = make_list(a=0.9, b=0.5, c=0.1), make_list(b=7.0, c=6.0, d=1.0)
    larger = [Scored(item.id, item.score * 1000 + 5) for item in keyword]
    assert ids(fuse(dense, keyword, 0.5)) == ids(fuse(dense, larger, 0.5))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_one_list_alone_keeps_its_order(weight: float) -> None:
    only = make_list(a=5.0, b=4.0, c=-1.0)
    assert ids(fuse(only, [], weight)) == ids(fuse([], only, weight)) == "abc"
    assert fuse(only, [], weight)[0].score == 1.0
    assert fuse([], [], weight) == []


def test_equal_scores_are_ordered_by_id() -> None:
    assert ids(fuse(make_list(c=1.0, a=1.0, b=1.0), [], 0.5)) == "abc"
    assert ids(rerank(make_list(c=1.0, a=1.0), {"a": 2.0, "c": 2.0}, 0.5)) == "ac"


def test_keyword_never_counts_less_than_nothing() -> None:
    # BM25's minimum is 0 by theory: the last passage of a good keyword list still gains from being in it.
    dense, keyword = make_list(a=0.9, b=0.5, c=0.5), make_list(a=10.0, c=9.0)
    assert ids(fuse(dense, keyword, 0.5)) == "acb"


def test_known_cosines_place_what_only_keyword_search_found() -> None:
    dense, keyword = make_list(a=0.8, b=0.6), make_list(c=10.0, d=9.9)
    assert ids(fuse(dense, keyword, 0.5)) == "acdb"
    assert ids(fuse(dense, keyword, 0.5, {"c": 0.1, "d": 0.59})) == "dacb"
    assert fuse(dense, keyword, 0.5, {"a": -1.0, "x": 2.0}) == fuse(dense, keyword, 0.5)


@given(lists, lists, weights)
def test_fusion_loses_and_repeats_nothing(dense: list[Scored], keyword: list[Scored], weight: float) -> None:
    fused = fuse(dense, keyword, weight)
    assert sorted(ids(fused)) == sorted({item.id for item in (*dense, *keyword)})
    assert all(0 <= item.score <= 1 + 1e-9 for item in fused)
    assert all(first.score >= second.score for first, second in itertools.pairwise(fused))
    assert fuse(dense[::-1], keyword[::-1], weight) == fused


@given(lists, st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 1)), weights)
def test_reranking_loses_nothing_and_scores_fall(fused: list[Scored], scores: dict[str, float], weight: float) -> None:
    fused = fuse(fused, [], 1.0)
    ranked = rerank(fused, scores, weight)
    assert sorted(ids(ranked)) == sorted(ids(fused))
    assert all(first.score >= second.score for first, second in itertools.pairwise(ranked))


def test_reranker_alone_decides_at_full_weight_and_not_at_all_at_none() -> None:
    fused, scores = make_list(a=0.9, b=0.5, c=0.1), {"a": 0.2, "b": 0.3, "c": 0.4}
    assert ids(rerank(fused, scores, 1.0)) == "cba"
    assert ids(rerank(fused, scores, 0.0)) == "abc"


def test_candidates_without_an_opinion_follow_in_their_order() -> None:
    fused = make_list(a=0.9, b=0.8, c=0.7, d=0.6)
    assert ids(rerank(fused, {"b": 0.1, "d": 0.9}, 1.0)) == "dbac"


def test_reranking_without_opinions_changes_nothing() -> None:
    fused = make_list(a=0.9, b=0.8)
    assert rerank(fused, {}, 0.5) == fused
    assert rerank([], {"a": 1.0}, 0.5) == []
