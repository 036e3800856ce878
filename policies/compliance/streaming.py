"""Screening a text that arrives in pieces: no part of a value leaves before the value is known to be one.

What comes out depends on the text alone, never on how it was cut into pieces. A beginning may leave when a sentence
ends behind it in a plain word, or when `HOLD` characters stand behind it and no value reaches over the place. What
cannot be told apart for too long, such as a key that never ends, is masked as a whole: the memory is bounded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from policies.compliance.actions import Done, Screened

Screen = Callable[[str], Screened]
HOLD = 160
"""Longer than any value that is found without a mark at its beginning and its end."""
STEP = 64
CONTEXT = 160
"""Characters before a part that are read with it again: a label may stand in an earlier sentence."""
LONGEST = 8_192
TOO_LONG = "[withheld]"
_MARKS = r"(?:[ ]?\[\d{1,3}\])*"
_SENTENCE = re.compile(
    rf"(?:(?<![^\W_])(?:[^\W\d_]{{3,}}|\d{{1,4}})[)\]\"'*_]*{_MARKS}[.!?]{_MARKS}[\"')\]*_]*\s+|\n[ \t]*\n\s*)"
    r"(?=[^\W\d_])"
)
"""A sentence that ends in a word or a short number, or a paragraph, before another word: no value reaches over it."""
_ABBREVIATED = re.compile(
    r"\b(?:approx|apt|ave|blvd|bldg|capt|col|dept|dipl|ext|fax|gen|hon|inc|incl|ing|jr|ltd|maj|mrs|mme|nos|prof|resp"
    r"|rev|rue|sen|sgt|sir|sra|sr|str|tel|univ|vol)[.]\s+\Z",
    re.IGNORECASE,
)
"""A name, a street or a number may go on behind these."""
_KEY = re.compile(r"-{5}BEGIN ")
_KEY_ENDS = re.compile(r"-{5}END [A-Z0-9 ]{1,40}-{5}")
_SPACE = re.compile(r"\s")


class Window:
    """Holds back the end of a text until it is known what of it may leave.

    `feed` and `finish` raise whatever `screen` raises, and give nothing any more once it did.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._before = ""
        """The end of what left, as it came."""
        self._held = ""
        self._seen = 0
        self._skipping: re.Pattern[str] | None = None
        self._broken = False
        self.before_word = False
        """Whether what left last ended a sentence, and a word comes next."""
        self.counts: Counter[Done] = Counter()

    def feed(self, piece: str) -> str:
        """Take the next piece. Returns what may leave by now, possibly nothing."""
        left = []
        # One step after another, wherever the pieces end: what leaves depends on the text alone.
        while piece:
            take = STEP - self._seen % STEP
            part, piece = piece[:take], piece[take:]
            self._held += part
            self._seen += len(part)
            if self._skipping is not None:
                self._skip(self._skipping)
            if self._skipping is None:
                left.append(self._sentences())
                left.append(self._ticked() if self._seen % STEP == 0 else "")
        return "".join(left)

    def finish(self) -> str:
        """Return the rest, screened."""
        self.before_word = False
        return "" if self._skipping is not None else self._leave(len(self._held))

    def _sentences(self) -> str:
        left = []
        while (end := self._sentence_end()) is not None:
            left.append(self._leave(end))
            self.before_word = True
        return "".join(left)

    def _sentence_end(self) -> int | None:
        """Give where the first sentence ends that no value can go on behind."""
        for found in _SENTENCE.finditer(self._held):
            head = self._held[: found.end()]
            if not _ABBREVIATED.search(head[-24:]) and not _is_open(head):
                return found.end()
        return None

    def _ticked(self) -> str:
        if len(self._held) <= HOLD:
            return ""
        done = self._screened(self._held)
        cut = self._safe(done)
        if cut:
            self.before_word = False
            return self._left(done, cut)
        if len(self._held) <= LONGEST:
            return ""
        self._skipping = _KEY_ENDS if _is_open(self._held) else _SPACE
        self._before = self._held = ""
        self.before_word = False
        return TOO_LONG

    def _safe(self, done: Screened) -> int:
        """Give the last place, `HOLD` before the end, over which no value reaches; 0: there is none."""
        cut = len(self._held) - HOLD
        if _is_open(self._held):
            cut = min(cut, [found.start() for found in _KEY.finditer(self._held)][-1])
        shift = len(self._before)
        spans = [(edit.start - shift, edit.end - shift) for edit in done.edits]
        while cut > 0:
            over = next((start for start, end in spans if start < cut < end), None)
            if over is not None:
                cut = over
            elif _breaks(self._held, cut):
                return cut
            else:
                cut -= 1
        return 0

    def _skip(self, until: re.Pattern[str]) -> None:
        found = until.search(self._held)
        self._held = self._held[found.end() :] if found else self._held[-STEP:]
        self._skipping = None if found else until

    def _leave(self, cut: int) -> str:
        """Screen what is held up to `cut`, without what stands behind it, and let it leave."""
        return self._left(self._screened(self._held[:cut]), cut) if cut else ""

    def _left(self, done: Screened, cut: int) -> str:
        shift, offsets = len(self._before), done.offsets
        ready, self._held = self._held[:cut], self._held[cut:]
        self._before = (self._before + ready)[-CONTEXT:]
        edits = [edit for edit in done.edits if shift < edit.end <= shift + cut]
        self.counts.update(each for edit in edits for each in edit.of)
        return done.text[offsets.after(shift) : offsets.after(shift + cut)]

    def _screened(self, text: str) -> Screened:
        if self._broken:
            raise RuntimeError("what screens is broken")
        try:
            return self._screen(self._before + text)
        except BaseException:
            self._broken = True
            self._held = ""
            raise


def _is_open(text: str) -> bool:
    """Say whether a key begins in it, and does not end."""
    begins = [found.end() for found in _KEY.finditer(text)]
    return bool(begins) and _KEY_ENDS.search(text, begins[-1]) is None


def _breaks(text: str, cut: int) -> bool:
    """Say whether a part may end here: behind white space, or between characters of scripts without spaces."""
    before = text[cut - 1]
    return bool(_SPACE.match(before)) or before > "\u2e80"
