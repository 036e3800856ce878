"""A small tagger of words: which of them are parts of names, places, addresses, organisations and titles.

Two convolutions over hashed embeddings (the window approach of Collobert et al., 2011), in numpy:

    word -> rows of the table, summed      float32[32]
    5 words side by side -> relu           float32[64]
    5 of those side by side -> relu        float32[64]
    -> softmax over `TAGS`                 float32[7]

so a decision sees four words to either side. `training` makes the weights from sentences that the project writes
itself. What stands for a word before its neighbours are asked is kept for the words seen last.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from io import BytesIO

import numpy as np
import numpy.typing as npt

from policies.pii.features import rows_of
from policies.pii.gazetteers import Gazetteers, Known, gazetteers
from policies.pii.words import BLANK_LINE, Words, part

TAGS = ("O", "PERSON", "LOCATION", "ORGANIZATION", "ADDRESS", "TITLE", "NRP")
WINDOW = 5
CAPITAL, SMALL, NUMBER, END = 1, 2, 4, 8
PLACES = 7
"""What is known of a place in a text besides its word; see `surroundings`."""
_KEPT_WORDS = 40_000
_AT_ONCE = 4_096
_REACH = 4
_ONE_THREAD = 1 << 18
"""OpenBLAS multiplies on one thread where rows × columns × depth is at most this (SMP_THRESHOLD_MIN × 4)."""
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """The numbers of the tagger."""

    table: npt.NDArray[np.int8]
    """int8[rows, 32]"""
    scale: float
    first: _Floats
    """float32[5 * 32 + places, 64]; the places' rows last"""
    first_bias: _Floats
    second: _Floats
    """float32[5 * 64, 64]"""
    second_bias: _Floats
    last: _Floats
    """float32[64, tags]"""
    last_bias: _Floats


@lru_cache(maxsize=1)
def weights() -> Weights:
    """Read the weights that ship with the project, once for a process."""
    content = (files("policies.pii") / "gazetteers" / "tagger.npz").read_bytes()
    with np.load(BytesIO(content), allow_pickle=False) as stored:
        names = ("first", "first_bias", "second", "second_bias", "last", "last_bias")
        floats = [stored[name].astype(np.float32) for name in names]
        return Weights(stored["table"], float(stored["scale"]), *floats)


@dataclass(frozen=True, slots=True)
class Tagged:
    """What the tagger says of a text's words."""

    chances: _Floats
    """float32[words, tags]: how likely each word is which; rows add up to 1."""
    small: npt.NDArray[np.bool_]
    """bool[words]: the word's paragraph has no capital, so that names in it have none either."""


class _Seen:
    """The embeddings, and the flags of the lists, of the words seen so far."""

    def __init__(self, dims: int) -> None:
        self.index: dict[str, int] = {}
        self.embeddings = np.zeros((_KEPT_WORDS, dims), dtype=np.float32)
        self.flags = np.zeros(_KEPT_WORDS, dtype=np.uint16)
        self.kinds = np.zeros(_KEPT_WORDS, dtype=np.uint8)


class Tagger:
    """Tags words. Deterministic and thread-safe."""

    def __init__(self, of: Weights, lists: Gazetteers) -> None:
        self._weights = of
        self._lists = lists
        self._dims = of.table.shape[1]
        self._hidden = of.first.shape[1]
        each_place = of.first[: WINDOW * self._dims].reshape(WINDOW, self._dims, self._hidden)
        self._each_place = np.ascontiguousarray(each_place.transpose(1, 0, 2).reshape(self._dims, -1))
        self._surroundings = of.first[WINDOW * self._dims :]
        self._seen = _Seen(self._dims)
        self._adding = threading.Lock()

    def tag(self, words: Words) -> Tagged:
        """Tag the words of a text."""
        count = len(words.texts)
        chances = np.empty((count, len(TAGS)), dtype=np.float32)
        small = np.empty(count, dtype=np.bool_)
        for start in range(0, count, _AT_ONCE):
            low, high = max(0, start - _REACH), min(count, start + _AT_ONCE + _REACH)
            tagged = self._tag(part(words, low, high))
            until = min(count, start + _AT_ONCE)
            chances[start:until] = tagged.chances[start - low : until - low]
            small[start:until] = tagged.small[start - low : until - low]
        return Tagged(chances, small)

    def _tag(self, words: Words) -> Tagged:
        seen, ids = self._ids(words.texts)
        count = len(ids)
        around = surroundings(words, seen.flags[ids], seen.kinds[ids], self._lists)
        small = around[:, 5] == 1
        hidden = _product(around.astype(np.float32), self._surroundings)
        hidden += self._weights.first_bias
        rows = _product(seen.embeddings[ids], self._each_place).reshape(count, WINDOW, self._hidden)
        for place in range(WINDOW):
            _add_shifted(hidden, rows[:, place], place - WINDOW // 2)
        np.maximum(hidden, 0, out=hidden)
        padded = np.zeros((count + WINDOW - 1, self._hidden), dtype=np.float32)
        padded[WINDOW // 2 : WINDOW // 2 + count] = hidden
        beside = np.lib.stride_tricks.as_strided(
            padded, (count, WINDOW * self._hidden), padded.strides, writeable=False
        )
        asked = _may_be_named(seen.kinds[ids], small)
        deeper = np.maximum(_product(beside[asked], self._weights.second) + self._weights.second_bias, 0)
        scores = _product(deeper, self._weights.last) + self._weights.last_bias
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        chances = np.zeros((count, len(TAGS)), dtype=np.float32)
        chances[:, 0] = 1.0
        chances[asked] = scores / scores.sum(axis=1, keepdims=True)
        return Tagged(chances, small)

    def _ids(self, texts: list[str]) -> tuple[_Seen, npt.NDArray[np.int64]]:
        seen = self._seen
        missing = {text for text in texts if text not in seen.index}
        if missing:
            with self._adding:
                seen = self._seen
                missing = {text for text in texts if text not in seen.index}
                if len(seen.index) + len(missing) > _KEPT_WORDS:
                    seen = self._seen = _Seen(self._dims)
                    missing = set(texts)
                for text in sorted(missing):
                    self._add(seen, text)
        index = seen.index
        return seen, np.array([index[text] for text in texts], dtype=np.int64)

    def _add(self, seen: _Seen, text: str) -> None:
        known = self._lists.known(text.lower())
        spelling, itself, listed = rows_of(text, known)
        rows = self._weights.table[spelling + itself + listed]
        at = len(seen.index)
        seen.embeddings[at] = rows.sum(axis=0, dtype=np.int32) * self._weights.scale
        seen.flags[at] = known
        seen.kinds[at] = kind_of(text)
        seen.index[text] = at


@lru_cache(maxsize=1)
def tagger() -> Tagger:
    """Give the tagger of this process."""
    return Tagger(weights(), gazetteers())


def kind_of(text: str) -> int:
    """Say how a word is written: flags `CAPITAL`, `SMALL`, `NUMBER` and `END` (of a paragraph)."""
    if text[0].isalpha():
        return (CAPITAL if text[0].isupper() else 0) | (SMALL if text.upper() != text else 0)
    return NUMBER if text[0].isdigit() else END if text == BLANK_LINE else 0


def surroundings(
    words: Words, flags: npt.NDArray[np.uint16], kinds: npt.NDArray[np.uint8], lists: Gazetteers
) -> npt.NDArray[np.uint8]:
    """Give uint8[words, PLACES]: what each word's place tells, besides the words themselves.

    0 is part of a known place of several words, 1 of a known organisation, 2 of a known job, 3 no space before it,
    4 none after it, 5 its paragraph has no capital, 6 its paragraph has nothing but capitals.
    """
    count = len(words.texts)
    out = np.zeros((count, PLACES), dtype=np.uint8)
    if not count:
        return out
    touching = np.array(words.ends[:-1], dtype=np.int64) == np.array(words.starts[1:], dtype=np.int64)
    out[1:, 3] = touching
    out[:-1, 4] = touching
    letters = _of_paragraphs(kinds & np.uint8(CAPITAL | SMALL), kinds)
    out[:, 5] = letters == SMALL
    out[:, 6] = letters == CAPITAL
    after = 0
    starts = (flags & int(Known.STARTS) != 0) & ((kinds & CAPITAL != 0) | (out[:, 5] == 1))
    for at in np.flatnonzero(starts).tolist():
        phrase = lists.phrase_at(words.lows, at) if at >= after else None
        if phrase is not None:
            after = at + phrase[0]
            for bit, listed in enumerate(_PHRASES):
                if phrase[1] & listed:
                    out[at:after, bit] = 1
    return out


_PHRASES = tuple(int(kind) for kind in (Known.PLACE | Known.COUNTRY, Known.ORGANISATION, Known.JOB))


def _of_paragraphs(marks: npt.NDArray[np.uint8], kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Give each word all marks of its paragraph: of what stands between blank lines."""
    starts = np.concatenate(([0], np.flatnonzero(kinds & END)))
    starts = starts[np.concatenate(([True], starts[1:] != starts[:-1]))]
    lengths = np.diff(np.concatenate((starts, [len(marks)])))
    return np.repeat(np.bitwise_or.reduceat(marks, starts), lengths)


def _may_be_named(kinds: npt.NDArray[np.uint8], small: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Give the places of words with a capital or a number and of their neighbours; of all where none has a capital."""
    named = (kinds & (CAPITAL | NUMBER) != 0) | small
    asked = named.copy()
    asked[1:] |= named[:-1]
    asked[:-1] |= named[1:]
    return np.flatnonzero(asked)


def _product(rows: _Floats, by: _Floats) -> _Floats:
    """Multiply in blocks for which BLAS starts no threads: those wait for one another where all cores are busy."""
    step = max(1, _ONE_THREAD // by.size)
    if len(rows) <= step:
        return rows @ by
    out = np.empty((len(rows), by.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), step):
        np.matmul(rows[start : start + step], by, out=out[start : start + step])
    return out


def _add_shifted(to: _Floats, rows: _Floats, shift: int) -> None:
    """Add to each word's row that of the word `shift` places on."""
    if shift < 0:
        to[-shift:] += rows[:shift]
    elif shift > 0:
        to[:-shift] += rows[shift:]
    else:
        to += rows
