"""Everything that has a shape, in one recogniser: what one part takes, the next one no longer sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.pii.credentials import Credentials
from policies.pii.findings import Finding, Recogniser
from policies.pii.mentions import Mentions
from policies.pii.numbers import Numbers
from policies.pii.numeric_dates import NumericDates
from policies.pii.online import Online


class Structured:
    """Asks its parts in turn. The characters a sure finding stands on are no more digits for those behind it."""

    def __init__(self, parts: Sequence[Recogniser]) -> None:
        self._parts = tuple(parts)
        self.entities = frozenset[str]().union(*(part.entities for part in self._parts))

    def find(self, text: str) -> Iterator[Finding]:
        """Give what all parts find."""
        rest = text
        for part in self._parts:
            found = list(part.find(rest))
            yield from found
            if found:
                rest = _without(rest, found)


def _without(text: str, found: Sequence[Finding]) -> str:
    """Put NUL in place of the findings; offsets stay."""
    pieces, reached = [], 0
    for start, end in sorted((each.start, each.end) for each in found):
        if end > reached:
            start = max(start, reached)
            pieces.append(text[reached:start])
            pieces.append("\0" * (end - start))
            reached = end
    return "".join((*pieces, text[reached:]))


def recognisers() -> tuple[Recogniser, ...]:
    """Give the recognisers of all identifiers that have a shape."""
    return (Structured((Credentials(), Online(), Mentions(), NumericDates(), Numbers())),)
