"""Answers made of quotes: the sentences of the visible passages that answer a question, or none.

    passages ── candidates ──▶ candidates ── embedded by the caller ──▶ cosines ── choose ──▶ Extraction | None

Pure functions over values: the model runs elsewhere, between `candidates` and `choose`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deployments.sentences import Span, sentences
from index.analysis import analyse

__all__ = ["Candidate", "Extraction", "Passage", "Quote", "Span", "candidates", "choose", "sentences"]

MAX_CANDIDATES = 16
MAX_QUOTES = 3
MIN_SUPPORT = 0.5
"""Below this, no answer. See bench/ for the trade-off it was chosen from."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that the caller may read, in order of rank. `score` is the retrieval's, higher is better."""

    chunk_id: str
    document_id: str
    title: str
    text: str
    score: float
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit that may be quoted: characters `[start, end)` of the passage at index `passage`.

    `embedded` is what the model should read: the unit, and what introduces it.
    """

    passage: int
    start: int
    end: int
    embedded: str


@dataclass(frozen=True, slots=True)
class Quote:
    """Characters `[start, end)` of the text of the passage at index `passage`; `[n]` in the answer, n from 1."""

    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer of at most three quotes, each followed by its `[n]`; `quotes[n - 1]` is where it stands.

    In the answer, line ends within a quote are spaces, and numbers in brackets, which would read as marks, stand in
    round ones. `support` in [0, 1] says how well the best quote answers.
    """

    answer: str
    quotes: tuple[Quote, ...]
    support: float


def candidates(question: str, passages: Sequence[Passage], limit: int = MAX_CANDIDATES) -> list[Candidate]:
    """Choose by words alone, in microseconds, which units are worth embedding: at most `limit`, in reading order."""
    units = [(index, span) for index, passage in enumerate(passages) for span in sentences(passage.text)]
    if not units:
        return []
    terms = _question_terms(question)
    found = [_terms(passages[index].text[span.start : span.end] + "\n" + span.lead) for index, span in units]
    rarity = _rarity(terms, found)
    order = sorted(
        range(len(units)),
        key=lambda place: (_share(terms, found[place], rarity) + 0.5 / (1 + units[place][0]), -place),
        reverse=True,
    )
    return [_candidate(passages[units[place][0]], *units[place]) for place in sorted(order[:limit])]


def choose(
    question: str,
    passages: Sequence[Passage],
    candidates: Sequence[Candidate],
    cosines: NDArray[np.float32],
    min_support: float = MIN_SUPPORT,
) -> Extraction | None:
    """Answer with at most three of the candidates; None where no candidate answers well enough.

    `cosines` float32[m]: the question's cosine with each candidate's `embedded`. Raises `ValueError` when their
    number is not that of the candidates.
    """
    if len(cosines) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates, {len(cosines)} cosines")
    if not candidates:
        return None
    support = supports(question, passages, candidates, cosines)
    best = int(np.argmax(support))
    if support[best] < min_support:
        return None
    chosen = _selected(passages, candidates, support)
    return _extraction(passages, [candidates[place] for place in chosen], float(support[best]))


# ---- words ----

_ASKING = frozenset(
    analyse(
        "many much long often far old big name named list tell please explain describe give show find know mean kind "
        "type sort thing way use used also get got may might shall must want need happen one called call"
    ).split()
)
_KIND = (
    ("count", re.compile(r"\bhow (?:many|much|long|far|old|often|big|large|high|tall|deep|fast|heavy|wide)\b")),
    (
        "count",
        re.compile(r"\b(?:what|which)(?: \w+)? (?:percentage|percent|number|amount|price|cost|rate|share|limit)\b"),
    ),
    ("time", re.compile(r"\b(?:when|(?:what|which|in what|in which) (?:year|date|day|month|century|decade|time))\b")),
    ("name", re.compile(r"\b(?:who|whom|whose|where|(?:what|which) (?:city|country|state|company|person|team))\b")),
)
_NUMBER_WORDS = (
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|hundred|thousand|"
    r"million|billion|half|quarter|third|dozen|once|twice|daily|weekly|monthly|yearly|annually|none|unlimited"
)
_SHAPES: Mapping[str, re.Pattern[str]] = {
    "count": re.compile(rf"\d|\b(?:{_NUMBER_WORDS})\b", re.IGNORECASE),
    "time": re.compile(
        r"\b\d{3,4}\b|\d{1,2}[:./-]\d{1,2}|\b(?:january|february|march|april|may|june|july|august|september|october|"
        r"november|december|jan|feb|mar|apr|jun|jul|aug|sep|oct|nov|dec|monday|tuesday|wednesday|thursday|friday|"
        r"saturday|sunday|century|centuries|today|morning|evening|night|noon|midnight|spring|summer|autumn|winter|"
        r"hours?|days?|weeks?|months?|years?|minutes?|annually|monthly|weekly|daily|once|after|before|until|when)\b",
        re.IGNORECASE,
    ),
    "name": re.compile(r"(?<=[a-z,;:(|\d] )[^\W\d_a-z]\w+|^[^\W\d_a-z]\w+ [^\W\d_a-z]\w+|@"),
}


def _terms(text: str) -> frozenset[str]:
    return frozenset(analyse(text).split())


def _question_terms(question: str) -> frozenset[str]:
    """The stems that an answer should be about; those of the asking itself only where there is nothing else."""
    terms = _terms(question)
    return terms - _ASKING or terms


def _rarity(terms: frozenset[str], texts: Sequence[frozenset[str]]) -> dict[str, float]:
    """BM25's inverse document frequency over the texts; highest for a term that none of them holds."""
    count = len(texts)
    held = {term: sum(term in text for text in texts) for term in terms}
    return {term: math.log(1 + (count - held[term] + 0.5) / (held[term] + 0.5)) for term in terms}


def _share(terms: frozenset[str], text: frozenset[str], rarity: Mapping[str, float]) -> float:
    """The share of the question, by rarity, that a text holds: [0, 1]."""
    total = sum(rarity.values())
    return sum(rarity[term] for term in terms & text) / total if total else 0.0


def _kind(question: str) -> str | None:
    folded = question.lower()
    return next((kind for kind, pattern in _KIND if pattern.search(folded)), None)


# ---- support ----


@dataclass(frozen=True, slots=True)
class Signals:
    """What speaks for each candidate, each float32[m] in [0, 1]."""

    cosine: NDArray[np.float32]
    unit_share: NDArray[np.float32]
    passage_share: NDArray[np.float32]
    order: NDArray[np.float32]
    kind: NDArray[np.float32]
    rank: NDArray[np.float32]

    def matrix(self) -> NDArray[np.float32]:
        """All of them as float32[m, 6]."""
        parts = (self.cosine, self.unit_share, self.passage_share, self.order, self.kind, self.rank)
        return np.stack(parts, axis=1).astype(np.float32)


def signals(
    question: str, passages: Sequence[Passage], candidates: Sequence[Candidate], cosines: NDArray[np.float32]
) -> Signals:
    """Measure each candidate."""
    terms = _question_terms(question)
    pairs = frozenset(pairwise(term for term in analyse(question).split() if term in terms))
    kind = _kind(question)
    shape = _SHAPES[kind] if kind else None
    whole = [_terms("\n".join((passage.title, *passage.headings, passage.text))) for passage in passages]
    quotes = [passages[item.passage].text[item.start : item.end] for item in candidates]
    led = [analyse(item.embedded) for item in candidates]
    held = [frozenset(line.split()) for line in led]
    unit_rarity, passage_rarity = _rarity(terms, held), _rarity(terms, whole)
    shares = {index: _share(terms, whole[index], passage_rarity) for index in {item.passage for item in candidates}}
    return Signals(
        cosine=np.clip(cosines, 0, 1),
        unit_share=_array(_share(terms, text, unit_rarity) for text in held),
        passage_share=_array(shares[item.passage] for item in candidates),
        order=_array(len(pairs & set(pairwise(line.split()))) / max(len(pairs), 1) for line in led),
        kind=_array(0.5 if shape is None else float(shape.search(quote) is not None) for quote in quotes),
        rank=_array(1 / (1 + item.passage) for item in candidates),
    )


def supports(
    question: str, passages: Sequence[Passage], candidates: Sequence[Candidate], cosines: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How well each candidate answers: float32[m] in [0, 1], by a logistic curve over the weighted signals."""
    matrix = signals(question, passages, candidates, cosines).matrix()
    return (1 / (1 + np.exp(-(matrix @ _WEIGHTS + _BIAS)))).astype(np.float32)


_WEIGHTS = np.array([4.0, 2.0, 3.0, 0.5, 1.0, 0.5], np.float32)
_BIAS = np.float32(-6.0)


def _array(values: Iterable[float]) -> NDArray[np.float32]:
    return np.fromiter(values, np.float32)


# ---- the answer ----

_LEAD_CHARS = 60
_CLOSE = 0.8
"""A second quote's support, as a share of the best one's, from which it adds something."""
_SAME = 0.7
"""Shared words, as a share of the shorter quote's, from which two quotes say the same."""
_MARK_LIKE = re.compile(r"[\[\u3010]([\d\s,;^\u2013-]+)[\]\u3011]")


def _selected(passages: Sequence[Passage], candidates: Sequence[Candidate], support: NDArray[np.float32]) -> list[int]:
    """The best candidate and at most two more that come close to it and say something else, in reading order."""
    order = [int(place) for place in np.argsort(-support, kind="stable")]
    chosen: list[int] = []
    said: list[frozenset[str]] = []
    for place in order:
        if len(chosen) == MAX_QUOTES or support[place] < _CLOSE * support[order[0]]:
            break
        item = candidates[place]
        words = _terms(passages[item.passage].text[item.start : item.end])
        if not any(len(words & other) >= _SAME * max(min(len(words), len(other)), 1) for other in said):
            chosen.append(place)
            said.append(words)
    # The best quote's passage first, each passage's quotes as they stand in it.
    passage_order = list(dict.fromkeys(candidates[place].passage for place in chosen))
    return sorted(chosen, key=lambda place: (passage_order.index(candidates[place].passage), candidates[place].start))


def _extraction(passages: Sequence[Passage], chosen: Sequence[Candidate], support: float) -> Extraction:
    parts = []
    for n, item in enumerate(chosen, start=1):
        quote = " ".join(passages[item.passage].text[item.start : item.end].split())
        quote = _MARK_LIKE.sub(r"(\1)", quote)
        parts.append(f"{quote} [{n}]")
    return Extraction(" ".join(parts), tuple(Quote(item.passage, item.start, item.end) for item in chosen), support)


def _candidate(passage: Passage, index: int, span: Span) -> Candidate:
    """What is read is kept short, since each token costs: the title, the nearest line above, the unit."""
    nearest = span.lead.rpartition(" > ")[2] or (passage.headings[-1] if passage.headings else "")
    lead = [line[:_LEAD_CHARS] for line in (passage.title, nearest) if line]
    return Candidate(index, span.start, span.end, "\n".join([*lead, passage.text[span.start : span.end]]))
