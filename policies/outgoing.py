"""The one way out for an answer's words: marks are checked against the evidence, links against what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from policies.citations import Citation, CitationChecker, Evidence
from policies.links import CONTROL, LinkFilter, Links, without_links
from policies.unseen import UnseenFilter


class Outgoing:
    """An answer on its way out, in pieces: each is held back until its marks and links are complete.

    What nobody sees goes first: a mark with such a character within it must not become one behind the check.
    """

    def __init__(self, evidence: Sequence[Evidence], links: Links) -> None:
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
        return self._filter.feed(self._checker.feed(self._seen.feed(CONTROL.sub(" ", piece))))

    def finish(self) -> str:
        """Return the rest."""
        last = self._checker.feed(self._seen.finish()) + self._checker.finish()
        return self._filter.feed(last) + self._filter.finish()

    def quoting(self, answer: str) -> str:
        """Take an answer that is made of quotes, whose marks hold already. Returns what may leave."""
        return without_links(answer, self._links)
