"""Ascending ids as ranges: exactly, or as a few that hold more. Pure.

Ids of rules are given out in ascending order, so what one source brought in one run has neighbouring ids. Where they
are scattered, ranges that hold a little more are still a short expression, and what they hold more is sifted out after
the search (`index.vectors`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Range = tuple[int, int]
"""From the first to the last id, both among them."""


def runs(ids: Sequence[int]) -> list[Range]:
    """Give ascending, distinct ids as the fewest ranges that hold just them."""
    array = np.asarray(ids, dtype=np.int64)
    return _cut(array, np.flatnonzero(np.diff(array) > 1))


def cover(ids: Sequence[int], most: int) -> list[Range]:
    """Give at most `most` ranges that hold all of these ascending, distinct ids, and as few others as can be.

    Left out are the widest gaps: with so many ranges no other choice holds fewer others.
    """
    array = np.asarray(ids, dtype=np.int64)
    gaps = np.diff(array)
    count = min(most - 1, len(gaps))
    widest = np.sort(np.argpartition(gaps, len(gaps) - count)[len(gaps) - count :]) if count else np.empty(0, np.int64)
    return _cut(array, widest[gaps[widest] > 1])


def width(ranges: Sequence[Range]) -> int:
    """Count the integers that these ranges hold."""
    return sum(last - first + 1 for first, last in ranges)


def holds(ids: Sequence[int], wanted: int) -> bool:
    """Say whether an id is among ascending ones."""
    at = bisect_left(ids, wanted)
    return at < len(ids) and ids[at] == wanted


def _cut(array: NDArray[np.int64], behind: NDArray[np.int64]) -> list[Range]:
    """Cut behind these places."""
    firsts = array[np.concatenate(([0], behind + 1))]
    lasts = array[np.concatenate((behind, [len(array) - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
