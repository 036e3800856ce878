"""Names of people, places and organisations, addresses, titles, dates in words and ages, found offline.

One pass over a text's words: the tagger says what each may be, then rules say what its spans are (`spans`, `titles`,
`addresses`), and words that nothing else has lead to dates, ages and post boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.pii.addresses import boxes, whole_addresses
from policies.pii.dates import ages, dates
from policies.pii.findings import Finding, Recogniser
from policies.pii.spans import Span, spans
from policies.pii.tagger import TAGS, tagger
from policies.pii.titles import with_titles
from policies.pii.words import Words, words

_LEAST = 0.5
_TRUST = 0.84
"""The score of a name the tagger is sure of: below `PROVEN`, and below a model of language's."""


class Names:
    """Finds all that has no shape. The scores of names are the tagger's chances, times `_TRUST`."""

    entities = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "ADDRESS", "TITLE", "NRP", "DATE_TIME", "AGE"})

    def find(self, text: str) -> Iterator[Finding]:
        """Give findings in any order; an address and a name may overlap with a date or a post box."""
        found = words(text)
        vocabulary = set(found.lows)
        tagged = tagger().tag(found)
        named = with_titles(found, spans(found, tagged, _LEAST), bool(tagged.small.any()))
        for span in whole_addresses(found, named):
            yield _finding(span, found)
        yield from boxes(text, vocabulary)
        yield from dates(text, found, vocabulary)
        yield from ages(text, found)


def _finding(span: Span, found: Words) -> Finding:
    score = _TRUST * span.score
    return Finding(TAGS[span.tag], found.starts[span.first], found.ends[span.last], score, "tagger")


def recognisers() -> tuple[Recogniser, ...]:
    """Give the recognisers of what has no shape."""
    return (Names(),)
