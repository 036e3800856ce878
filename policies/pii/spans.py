"""From the chances of words to spans: neighbours that are parts of the same thing, put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.pii.tagger import TAGS, Tagged
from policies.pii.words import Words

PERSON, LOCATION, ORGANIZATION, ADDRESS, TITLE, NRP = (
    TAGS.index(tag) for tag in ("PERSON", "LOCATION", "ORGANIZATION", "ADDRESS", "TITLE", "NRP")
)
_NAMES = frozenset({PERSON, ORGANIZATION, NRP})
_BETWEEN = frozenset(
    "de da do di del della du des van von der den la le el al bin y und e of the & - ' ’ .".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Span:
    """Words `first` to `last` (inclusive) are a `tag` (a number of `TAGS`)."""

    tag: int
    first: int
    last: int
    score: float
    """The mean chance of its words to be anything but `O`."""


def spans(words: Words, tagged: Tagged, least: float) -> list[Span]:
    """Give spans, ascending. A word belongs to one when its chance to be anything but `O` is `least` or more."""
    candidates = np.flatnonzero(1.0 - tagged.chances[:, 0] >= least)
    if not len(candidates):
        return []
    chances = tagged.chances[candidates]
    best = (chances[:, 1:].argmax(axis=1) + 1).tolist()
    at = candidates.tolist()
    starts = [0, *(each for each in range(1, len(at)) if not _joined(words, at, best, each))]
    ends = [*starts[1:], len(at)]
    sums = np.add.reduceat(chances, starts, axis=0)
    tags = (sums[:, 1:].argmax(axis=1) + 1).tolist()
    others = sums[:, 0].tolist()
    found = (
        Span(tag, at[start], at[end - 1], 1.0 - other / (end - start))
        for tag, other, start, end in zip(tags, others, starts, ends, strict=True)
    )
    return [span for span in found if _can_be_named(words, span, tagged.small)]


def _joined(words: Words, at: list[int], best: list[int], each: int) -> bool:
    """Say whether a word goes on with what the one before it is a part of. `at`: places; `best`: tags."""
    one, two = at[each - 1], at[each]
    if two > one + 2 or (two == one + 2 and words.lows[one + 1] not in _BETWEEN):
        return False
    return best[each - 1] == best[each] or (best[each - 1] in _NAMES and best[each] in _NAMES)


def _can_be_named(words: Words, span: Span, small: npt.NDArray[np.bool_]) -> bool:
    """Names have a capital, or a number (addresses) where their paragraph has capitals at all; marks name nothing."""
    inside = words.texts[span.first : span.last + 1]
    if not any(text[0].isalnum() for text in inside):
        return False
    if span.tag == TITLE or small[span.first]:
        return True
    return any(text[0].isupper() or text[0].isdigit() or not text.islower() for text in inside if text[0].isalnum())
