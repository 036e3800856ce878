"""The one way out for an answer's words: marks are checked against the evidence, links against what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from policies.citations import Citation, CitationChecker, Evidence
from policies.links import CONTROL, LinkFilter, Links, without_links
from policies.unseen import UnseenFilter


class Redaction(Protocol):
    """Takes personal data out of a text in pieces. `before_word`: what left ended a sentence, and a word comes next."""

    @property
    def before_word(self) -> bool:
        """Whether that is so now."""
        ...

    def feed(self, piece: str) -> str:
        """Give what may leave by now."""
        ...

    def finish(self) -> str:
        """Give the rest."""
        ...


class Outgoing:
    """An answer on its way out, in pieces: each is held back until its marks and links are complete.

    What nobody sees goes first: a mark with such a character within it must not become one behind the check. Personal
    data go before that, out of the words as the model wrote them.
    """

    def __init__(
        self, evidence: Sequence[Evidence], links: Links, redact: Callable[[], Redaction] | None = None
    ) -> None:
        """`redact` begins to take personal data out of a text."""
        self._redact = redact
        self._redaction = None if redact is None else redact()
        self._seen = UnseenFilter()
        self._checker = CitationChecker(evidence)
        self._links = links
        self._filter = LinkFilter(links)

    @property
    def citations(self) -> list[Citation]:
        """What the answer cites by now; its `[n]` count these from 1."""
        return self._checker.citations

    @property
    def removed(self) -> int:
        """How many marks did not hold."""
        return self._checker.removed

    def feed(self, piece: str) -> str:
        """Take the next piece of what a model writes. Returns what may leave by now, possibly nothing."""
        return self._passed(piece if self._redaction is None else self._redaction.feed(piece))

    def finish(self) -> str:
        """Return the rest."""
        held = "" if self._redaction is None else self._passed(self._redaction.finish())
        last = self._checker.feed(self._seen.finish()) + self._checker.finish()
        return held + self._filter.feed(last) + self._filter.finish()

    def quoting(self, answer: str) -> str:
        """Take an answer that is made of quotes, whose marks hold already. Returns what may leave."""
        if self._redact is not None:
            redaction = self._redact()  # a text of its own: what a model began to say is not before it
            answer = redaction.feed(answer) + redaction.finish()
        return without_links(answer, self._links)

    def _passed(self, piece: str) -> str:
        seen = self._seen.feed(CONTROL.sub(" ", piece))
        before_word = self._redaction is not None and self._redaction.before_word
        return self._filter.feed(self._checker.feed(seen, before_word))
