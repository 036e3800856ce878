"""A text as patterns want it: plain digits, spaces and hyphens, nothing invisible, with the way back to its offsets.

Full-width and other scripts' digits become ASCII ones, every kind of space a space, every kind of hyphen a hyphen,
and characters that nobody sees (zero width, soft hyphen, direction marks) are left out.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

_ZEROS = (
    *(0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0E50),
    *(0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6),
)
"""Where the ten digits of other scripts, and those of mathematics, begin."""
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_BREAKS = "\u0085\u2028\u2029"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff"
)
_WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_SAME_LENGTH: dict[int, str] = {
    **{zero + value: str(value) for zero in _ZEROS for value in range(10)},
    **_WIDE,
    **{ord(each): " " for each in _SPACES},
    **{ord(each): "\n" for each in _BREAKS},
    **{ord(each): "-" for each in _HYPHENS},
}
_ODD = re.compile("[" + "".join(re.escape(chr(code)) for code in sorted(_SAME_LENGTH)) + "]")
_PERHAPS = re.compile("[\u0085\u00a0\u00ad\u034f\u0590-\U0010ffff]")
"""One look that most texts of Latin, Greek and Cyrillic script pass."""
_LEFT_OUT = re.compile("[" + re.escape(_UNSEEN) + "]+")


@dataclass(frozen=True, slots=True)
class Plain:
    """`text` without what disguises it. `at` and `left_out`: where in `text` so many characters so far are missing."""

    text: str
    at: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Give the same span in the text that was given to `plain`."""
        if not self.at:
            return start, end
        return self._offset(start), self._offset(end - 1) + 1

    def _offset(self, place: int) -> int:
        index = bisect_right(self.at, place)
        return place + (self.left_out[index - 1] if index else 0)


def plain(text: str) -> Plain:
    """Make a text plain. ASCII text is given back as it is."""
    if text.isascii() or not _PERHAPS.search(text):
        return Plain(text)
    text = _ODD.sub(_same, text)
    gaps = list(_LEFT_OUT.finditer(text))
    if not gaps:
        return Plain(text)
    at, left_out, total = [], [], 0
    for gap in gaps:
        at.append(gap.start() - total)
        total += gap.end() - gap.start()
        left_out.append(total)
    return Plain(_LEFT_OUT.sub("", text), tuple(at), tuple(left_out))


def _same(odd: re.Match[str]) -> str:
    return _SAME_LENGTH[ord(odd.group())]
