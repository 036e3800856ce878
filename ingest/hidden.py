"""Text that a file holds and its readers do not see: what was taken of it, and which colours hide it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

TINY_PT = 2.0
"""Type of this size or below cannot be read on a screen or on paper; small print has five points and more."""
SAME_COLOUR = 20
"""How far two colours may be apart in each channel, of 255, and text in the one is still not seen on the other."""
MIN_UNSEEN = 8
"""Fewer characters without a width are left behind by programs in honest texts."""

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
_NAMES: Mapping[str, Colour] = {
    "white": WHITE,
    "snow": (255, 250, 250),
    "ivory": (255, 255, 240),
    "ghostwhite": (248, 248, 255),
    "floralwhite": (255, 250, 240),
    "whitesmoke": (245, 245, 245),
    "azure": (240, 255, 255),
    "mintcream": (245, 255, 250),
    "honeydew": (240, 255, 240),
    "aliceblue": (240, 248, 255),
    "lavenderblush": (255, 240, 245),
    "seashell": (255, 245, 238),
    "window": WHITE,
    "black": BLACK,
    "windowtext": BLACK,
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "silver": (192, 192, 192),
    "yellow": (255, 255, 0),
}
_HEX = re.compile(r"#?([0-9a-f]{6}|[0-9a-f]{3})", re.IGNORECASE)


class Taken:
    """Counts the characters that are taken out of one file, by why nobody sees them; `keep`: they are only counted."""

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self._counts: Counter[str] = Counter()

    def add(self, why: str, text: str | int) -> None:
        """Count a text without its white space, or so many characters."""
        self._counts[why] += text if isinstance(text, int) else len("".join(text.split()))

    def add_unseen(self, count: int) -> None:
        """Count characters that have no width, where there are more of them than programs leave behind."""
        if count >= MIN_UNSEEN:
            self.add("without a width", count)

    def as_pairs(self) -> tuple[tuple[str, int], ...]:
        """The counts, by reason."""
        return tuple(sorted((why, count) for why, count in self._counts.items() if count > 0))


def warning(hidden: tuple[tuple[str, int], ...]) -> str | None:
    """One line that says how much text nobody sees, and why; none where there is nothing of it."""
    if not hidden:
        return None
    return "hidden text: " + ", ".join(f"{count} characters {why}" for why, count in hidden)


def colour_of(text: str) -> Colour | None:
    """Read `white`, `#fff`, `FFFFFF`; None for what is none of these."""
    named = _NAMES.get(text.strip().lower())
    if named:
        return named
    found = _HEX.fullmatch(text.strip())
    if found is None:
        return None
    digits = found[1] if len(found[1]) == 6 else "".join(digit * 2 for digit in found[1])
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def is_same(one: Colour, other: Colour) -> bool:
    """Say whether text in one colour is not seen on the other."""
    return all(abs(a - b) <= SAME_COLOUR for a, b in zip(one, other, strict=True))
