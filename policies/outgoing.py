"""The one way out for an answer's words: marks are checked against the evidence, links against what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from policies.citations import Citation, CitationChecker, Evidence
from policies.links import LinkFilter, Links, without_links


class Outgoing:
    """An answer on its way out, in pieces: each is held back until its marks and links are complete."""

    def __init__(self, evidence: Sequence[Evidence], links: Links) -> None:
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
        return self._filter.feed(self._checker.feed(piece))

    def finish(self) -> str:
        """Return the rest."""
        return self._filter.feed(self._checker.finish()) + self._filter.finish()

    def quoting(self, answer: str) -> str:
        """Take an answer that is made of quotes, whose marks hold already. Returns what may leave."""
        return without_links(answer, self._links)
