"""Lists of names that ship with the project: what a word may be, before its neighbours are asked.

The lists are in `gazetteers/`, with a NOTICE of their sources; `training/lists.py` makes them. In memory they are one
sorted table of 32-bit hashes (about 2 MB in place of 40): of words that stand in no list, 1 in 20,000 seems to.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from enum import IntFlag
from functools import lru_cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from policies.pii.words import split

_LONGEST_PHRASE = 6
_LONG_PART = 3


class Known(IntFlag):
    """Which lists a word, a phrase of several words, or a word of such a phrase (`..._PART`) stands in."""

    GIVEN = 1
    FAMILY = 2
    PLACE = 4
    PLACE_PART = 8
    COUNTRY = 16
    JOB = 32
    JOB_PART = 64
    ORGANISATION = 128
    ORGANISATION_PART = 256
    NATIONALITY = 512
    COMMON = 1024
    STARTS = 2048
    """The first word, or the first two words, of a phrase."""


FEATURES = 11
"""How many of the flags, from the lowest, say something about the word itself."""
_LISTS = (
    ("given.txt.xz", Known.GIVEN, Known.GIVEN),
    ("family.txt.xz", Known.FAMILY, Known.FAMILY),
    ("places.txt.xz", Known.PLACE, Known.PLACE_PART),
    ("countries.txt.xz", Known.COUNTRY, Known.PLACE_PART),
    ("jobs.txt.xz", Known.JOB, Known.JOB_PART),
    ("organisations.txt", Known.ORGANISATION, Known.ORGANISATION_PART),
    ("common.txt.xz", Known.COMMON, Known.COMMON),
    ("nationalities.txt", Known.NATIONALITY, Known.NATIONALITY),
)


_STARTS = int(Known.STARTS)
_ROW = np.dtype([("key", np.uint32), ("flags", np.uint16)])


class Gazetteers:
    """The lists. Every word asked for must be lower-case."""

    def __init__(self, keys: npt.NDArray[np.uint32], flags: npt.NDArray[np.uint16]) -> None:
        """`keys`: uint32[n], ascending; `flags`: uint16[n], `Known` of each."""
        self._keys = keys
        self._flags = flags

    def known(self, text: str) -> int:
        """Give the flags of a word, or of words joined by single spaces; 0 when no list has it."""
        key = zlib.crc32(text.encode("utf-8", "replace"))
        at = int(self._keys.searchsorted(np.uint32(key)))
        return int(self._flags[at]) if at < len(self._keys) and self._keys[at] == key else 0

    def phrase_at(self, words: list[str], at: int) -> tuple[int, int] | None:
        """Find the longest phrase that begins at `words[at]`: how many words, and its flags; None when none does."""
        if not self.known(" ".join(words[at : at + 2])) & _STARTS:
            return None
        for length in range(min(_LONGEST_PHRASE, len(words) - at), 1, -1):
            flags = self.known(" ".join(words[at : at + length])) & ~_STARTS
            if flags:
                return length, flags
        return None


@lru_cache(maxsize=1)
def gazetteers() -> Gazetteers:
    """Read the lists, once for a process."""
    rows = np.concatenate(
        [
            np.fromiter(((zlib.crc32(text.encode()), flag) for text, flag in entries(*each)), dtype=_ROW)
            for each in _LISTS
        ]
    )
    rows = rows[rows["key"].argsort(kind="stable")]
    keys = rows["key"]
    firsts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    joined = np.bitwise_or.reduceat(np.ascontiguousarray(rows["flags"]), firsts)
    return Gazetteers(np.ascontiguousarray(keys[firsts]), joined)


def entries(name: str, whole: int, part: int) -> Iterator[tuple[str, int]]:
    """Give what a list says, with the flag `whole`, and the longer words of its phrases, with the flag `part`."""
    for entry in _lines(name):
        if entry.isalpha():
            yield entry, whole
            continue
        parts = split(entry)
        yield " ".join(parts), whole
        yield parts[0], Known.STARTS
        yield " ".join(parts[:2]), Known.STARTS
        for each in parts:
            if len(each) > _LONG_PART:
                yield each, part


def _lines(name: str) -> list[str]:
    content = (files("policies.pii") / "gazetteers" / name).read_bytes()
    text = (lzma.decompress(content) if name.endswith(".xz") else content).decode()
    return text.split() if name == "nationalities.txt" else text.splitlines()
