"""What the tagger sees of a word: numbers of rows in its table of weights.

A word is seen by itself, by its beginning, its end, its three-letter parts, its shape (Xx, XX, xx, dd, a mark) and the
lists it stands in. Rows are found by hashing (Weinberger et al., 2009), so that every word has some.
"""

from __future__ import annotations

import zlib

from policies.pii.gazetteers import FEATURES

ROWS = 12_288
_FIRST_HASHED = 16
_MOST_PARTS = 8
_LONG_RUN = 3


def rows_of(word: str, known: int) -> tuple[list[int], list[int], list[int]]:
    """Give the rows of a word: those of its spelling, that of the word itself, those of the lists (`Known` flags).

    Training leaves out the second and third at times, so that names in no list are known by the first.
    """
    low = word.lower()
    if low[0].isdigit():
        return [_row(f"m {shape(word)}"), _row(f"n {low[:2]} {len(low)}")], [], []
    if not low[0].isalpha():
        return [_row(f"m {shape(word)}"), _row(f"x {low}")], [], []
    around = f"^{low}$"
    parts = [f"p {low[:2]}", f"q {low[:3]}", f"s {low[-2:]}", f"t {low[-3:]}", f"u {low[-4:]}", f"m {shape(word)}"]
    parts += [f"g {around[at : at + 3]}" for at in range(min(len(around) - 2, _MOST_PARTS))]
    listed = [1 + bit for bit in range(FEATURES) if known >> bit & 1]
    return [_row(part) for part in parts], [_row(f"w {low}")], listed


def shape(word: str) -> str:
    """Give a word's shape: XX, Xx, xx, xX or d, dd ...; a mark is its own."""
    if word[0].isdigit():
        return "d" * min(len(word), 7)
    if not word[0].isalpha():
        return word
    if word.islower():
        return "xx" if len(word) > _LONG_RUN else "x" * len(word)
    if word.isupper():
        return "X" if len(word) == 1 else "XX" if len(word) <= _LONG_RUN else "XXX"
    return "Xx" if word[1:].islower() else "XxX" if word[0].isupper() else "xX"


def _row(text: str) -> int:
    return _FIRST_HASHED + zlib.crc32(text.encode("utf-8", "replace")) % (ROWS - _FIRST_HASHED)
