from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.access_ranges import Range, cover, holds, runs, width

ids = st.sets(st.integers(1, 60), min_size=1, max_size=20).map(sorted)


def held(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(ids)
def test_runs_hold_just_the_ids_and_do_not_touch(ids: list[int]) -> None:
    found = runs(ids)
    assert held(found) == set(ids)
    assert all(last + 1 < first for (_, last), (first, _) in zip(found, found[1:], strict=False))


@given(ids, st.integers(1, 25))
def test_a_cover_holds_every_id_in_no_more_ranges_than_it_may(ids: list[int], most: int) -> None:
    found = cover(ids, most)
    assert set(ids) <= held(found) and len(found) <= most
    assert len(held(found)) == width(found)
    if most >= len(runs(ids)):
        assert found == runs(ids)


@given(st.sets(st.integers(1, 40), min_size=2, max_size=8).map(sorted), st.integers(1, 4))
def test_no_other_ranges_as_few_hold_fewer_ids(ids: list[int], most: int) -> None:
    cuts = range(1, len(ids))
    least = min(
        sum(part[-1] - part[0] + 1 for part in (ids[a:b] for a, b in zip((0, *at), (*at, len(ids)), strict=True)))
        for count in range(min(most, len(ids)))
        for at in combinations(cuts, count)
    )
    assert width(cover(ids, most)) == least


@given(ids, st.integers(0, 61))
def test_an_id_is_found_among_ascending_ones(ids: list[int], wanted: int) -> None:
    assert holds(ids, wanted) == (wanted in ids)


@pytest.mark.parametrize("most", [1, 2, 100])
def test_one_id_is_one_range(most: int) -> None:
    assert cover([7], most) == runs([7]) == [(7, 7)]
