"""Characters that nobody sees, and that a model reads all the same: what of them may stay in a text.

Text can be smuggled past a person's eyes in Unicode tags, runs of variation selectors and zero-width characters, and
written backwards by direction overrides. Some of these are needed: joiners within words of Arabic and Indic scripts,
selectors behind an emoji or an ideograph, the tags of three flags. Those stay, one at a time; all others go.
"""

from __future__ import annotations

import re

_FLAG = (
    r"\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074"
    r"|\U000e0077\U000e006c\U000e0073)\U000e007f"
)
"""England, Scotland and Wales: the only sequences of tags that Unicode recommends for interchange (UTS #51)."""
_JOINERS = "\u200b-\u200d"
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_PLAIN = "\u00ad\u200e\u200f\u061c\ufeff"
"""Soft hyphens, direction marks, byte order marks: any word processor leaves them behind."""
_OTHERS = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180e\u202a-\u202e\u2060-\u206f\u3164\uffa0\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_UNSEEN = re.compile(rf"({_FLAG})|[{_JOINERS}{_SELECTORS}{_PLAIN}{_OTHERS}]+")
_ONE = re.compile(rf"[{_JOINERS}{_SELECTORS}{_PLAIN}{_OTHERS}]")
_MOST_HELD = 64
"""No more of a run than its first characters may stay."""
_UNREMARKABLE = re.compile(rf"[{_PLAIN}]")
_JOINING = re.compile(
    # Arabic, Syriac, N'Ko, Indic, Thai, Lao, Tibetan, Myanmar; Khmer, Mongolian; Tai Tham, Balinese and others
    "[\u0600-\u109f\u1780-\u18af\u1a20-\u1c4f\ua840-\ua8ff\ua930-\uaaff\uabc0-\uabff\ufb50-\ufdff\ufe70-\ufefc]"
)
_PICTURE = re.compile("[\u00a9\u00ae\u2000-\u3300\U0001f000-\U0001faff\ufe0f]")
_KEYCAP = "0123456789#*"
_SELECTED = re.compile("[\u1800-\u18af\u2190-\u2bff\u3000-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def without_unseen(text: str) -> tuple[str, int]:
    """Take out what nobody sees. Also gives how many of them no word processor leaves behind. Linear in the text."""
    if text.isascii():
        return text, 0
    remarkable = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal remarkable
        if match.group(1):
            return match.group()
        before = text[match.start() - 1 : match.start()]
        kept = _kept(match.group(), before, text[match.end() : match.end() + 1])
        remarkable += len(_UNREMARKABLE.sub("", match.group())) - len(kept)
        return kept

    return _UNSEEN.sub(replaced, text), remarkable


class UnseenFilter:
    """`without_unseen` for a text that arrives in pieces: what it gives back, joined, is what the whole would give.

    Only unseen characters at a piece's end are held back: what stands behind them decides whether they stay.
    """

    def __init__(self) -> None:
        self._before = ""
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take the next piece. Returns the text that is complete by now, possibly none."""
        text = self._before + self._held + piece
        cut = len(text)
        while cut and _ONE.match(text, cut - 1):
            cut -= 1
        if cut and text[cut - 1] == "\U0001f3f4":  # a flag may follow
            cut -= 1
        self._held = text[cut : cut + _MOST_HELD]
        ready = without_unseen(text[:cut])[0][len(self._before) :]
        self._before = text[max(cut - 1, 0) : cut]
        return ready

    def finish(self) -> str:
        """Return the rest."""
        rest = without_unseen(self._before + self._held)[0][len(self._before) :]
        self._before = self._held = ""
        return rest


def _kept(run: str, before: str, after: str) -> str:
    """What of a run stays: at most one character, or an emoji's selector with the joiner to the next emoji."""
    if (
        len(run) == 1
        and run in "\u200b\u200c\u200d"
        and _JOINING.match(before)
        and (_JOINING.match(after) or not after)
    ):
        return run
    picture = _PICTURE.match(before) is not None
    if picture and run in ("\u200d", "\ufe0f\u200d") and _PICTURE.match(after):
        return run
    first = run[0]
    if first in "\ufe0e\ufe0f" and (picture or before in tuple(_KEYCAP)):
        return first
    if first > "\u180a" and first not in "\ufe0e\ufe0f" and _SELECTED.match(before) and _is_selector(first):
        return first
    return ""


def _is_selector(character: str) -> bool:
    return "\u180b" <= character <= "\u180f" or "\ufe00" <= character <= "\ufe0f" or character >= "\U000e0100"
