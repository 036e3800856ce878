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

MAX_CANDIDATES = 8
"""Twice as many cost twice the model's time and found an answer in one question of a hundred more."""
MAX_QUOTES = 3
MIN_SUPPORT = 0.5
"""Below this, no answer. Measured on 127 factual questions (XQuAD, ClapNQ, the examples): with the answering document
out of sight 94 % abstain, with it in sight 73 % quote the answer; 97 % and 65 % at 0.6, 86 % and 79 % at 0.35."""
_LEAD_CHARS = 60
_RANK_SHARE = 0.5
"""What the first passage's place is worth, in shares of the question's words, when candidates are taken."""


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
    """Choose by words alone, in milliseconds, which units are worth embedding: at most `limit`, in reading order."""
    units = [(index, span) for index, passage in enumerate(passages) for span in sentences(passage.text)]
    if not units:
        return []
    terms = _question_terms(question)
    found = [_terms(passages[index].text[span.start : span.end] + "\n" + span.lead) for index, span in units]
    shares = _shares(terms, found)
    order = sorted(
        range(len(units)), key=lambda place: (shares[place] + _RANK_SHARE / (1 + units[place][0]), -place), reverse=True
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
        "name named list tell please explain describe give show find know mean kind "
        "type sort thing way use used also get got may might shall must want need happen one"
    ).split()
)
# What is asked for, by the question's words; those in the group say how one asks and stand in no answer.
_KINDS = (
    (
        "count",
        r"\bhow (?P<asked>many|much|long|far|old|often|big|large|high|low|tall|deep|fast|heavy|wide)\b"
        r"|\b(?:what|which) (?P<noun>percentage|percent|number|amount)\b"
        r"|\b(?:what|which)(?: \w+)? (?:price|cost|rate|share|limit|fee|age)\b",
    ),
    ("time", r"\bwhen\b|\b(?:what|which) (?P<asked>(?:year|date|day|month|quarter|century|decade|time)s?)\b"),
    ("name", r"\b(?:who|whom|whose|where)\b|\b(?:what|which) (?P<asked>city|country|person)\b"),
)
_ASKED_FOR = tuple((kind, re.compile(pattern)) for kind, pattern in _KINDS)
_NUMBER_WORDS = (
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|hundred|thousand|"
    r"million|billion|half|quarter|third|dozen|once|twice|daily|weekly|monthly|yearly|annually|none|unlimited"
)
_SHAPES: Mapping[str, re.Pattern[str]] = {
    "count": re.compile(rf"\d|\b(?:{_NUMBER_WORDS})\b", re.IGNORECASE),
    "time": re.compile(
        r"\b\d{3,4}\b|\d{1,2}[:./-]\d{1,2}|\b(?:(?-i:March|May)|january|february|april|june|july|august|september|"
        r"october|november|december|jan|feb|mar|apr|jun|jul|aug|sep|oct|nov|dec|quarter|monday|tuesday|wednesday|thursday|friday|"
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
    asked = [
        group for _, pattern in _ASKED_FOR for match in pattern.finditer(question.lower()) for group in match.groups()
    ]
    return terms - _ASKING - _terms(" ".join(filter(None, asked))) or terms


def _shares(
    terms: frozenset[str], texts: Sequence[frozenset[str]], corpus: Sequence[frozenset[str]] | None = None
) -> list[float]:
    """The share of the question that each text holds, [0, 1]; a term counts as much as it is rare in the corpus.

    Rarity is BM25's inverse document frequency. A term that no text holds counts most: it may be what is asked about.
    """
    corpus = texts if corpus is None else corpus
    held = {term: sum(term in text for text in corpus) for term in terms}
    rarity = {term: math.log(1 + (len(corpus) - count + 0.5) / (count + 0.5)) for term, count in held.items()}
    total = sum(rarity.values())
    return [sum(rarity[term] for term in terms & text) / total if total else 0.0 for text in texts]


def _shape(question: str) -> re.Pattern[str] | None:
    """What the answer must hold, where the question's words tell: a number, a time, a name."""
    folded = question.lower()
    return next((_SHAPES[kind] for kind, pattern in _ASKED_FOR if pattern.search(folded)), None)


# ---- support ----

_SIGNALS = {
    "cosine": 5.0,  # the question's cosine with the unit
    "share": 2.0,  # of the question's words, by rarity, that the unit and what introduces it hold
    "context": 1.0,  # the same for the whole passage and its title
    "order": 1.0,  # share of the question's neighbouring words that are neighbours here
    "rank": 1.0,  # 1 / (1 + the passage's place)
    "nameless": -1.0,  # a name or number of the question is nowhere in the passage
    "kindless": -1.0,  # asked for a number, a time or a name, the unit holds none
    "pointing": -1.0,  # it says where to look ("see below"), not what is asked
}
"""Weights of the logistic curve, rounded from a regression over labelled units of five public question sets."""
_BIAS = -5.75

_POINTING = re.compile(
    r"\b(?:below|above|following|as follows)\b"
    r"|^\W*(?:for (?:more|further|additional|any|details|assistance|queries)|please (?:visit|refer|see|contact)"
    r"|see (?:also|section|table)|follow )",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_][\w'\u2019.-]*")


def supports(
    question: str, passages: Sequence[Passage], candidates: Sequence[Candidate], cosines: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How well each candidate answers: float32[m] in [0, 1], by a logistic curve over the weighted signals."""
    signals = _signals(question, passages, candidates, cosines)
    total = sum(weight * signals[name] for name, weight in _SIGNALS.items()) + _BIAS
    return np.asarray(1 / (1 + np.exp(-total)), np.float32)


def _signals(
    question: str, passages: Sequence[Passage], candidates: Sequence[Candidate], cosines: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Measure each candidate: every array is float32[m], in [0, 1]."""
    terms = _question_terms(question)
    names = _names(question) & terms
    pairs = frozenset(pairwise(term for term in analyse(question).split() if term in terms))
    shape = _shape(question)
    whole = [_terms("\n".join((passage.title, *passage.headings, passage.text))) for passage in passages]
    contexts = _shares(terms, whole)
    quotes = [passages[item.passage].text[item.start : item.end] for item in candidates]
    read = [analyse(item.embedded).split() for item in candidates]
    return {
        "cosine": np.clip(cosines, 0, 1),
        "share": _array(_shares(terms, [frozenset(words) for words in read], whole)),
        "context": _array(contexts[item.passage] for item in candidates),
        "order": _array(len(pairs.intersection(pairwise(words))) / max(len(pairs), 1) for words in read),
        "rank": _array(1 / (1 + item.passage) for item in candidates),
        "nameless": _array(not names <= whole[item.passage] for item in candidates),
        "kindless": _array(shape is not None and not shape.search(quote) for quote in quotes),
        "pointing": _array(_POINTING.search(quote) is not None for quote in quotes),
    }


def _names(question: str) -> frozenset[str]:
    """Stems of what is written with a capital, but for the first word, or holds a digit."""
    words = [match.group() for match in _WORD.finditer(question)]
    marked = [word for place, word in enumerate(words) if (place and word[0].isupper()) or _has_digit(word)]
    return _terms(" ".join(marked))


def _has_digit(word: str) -> bool:
    return any(char.isdigit() for char in word)


def _array(values: Iterable[float | bool]) -> NDArray[np.float32]:
    return np.fromiter(values, np.float32)


# ---- the answer ----

_CLOSE = 0.7
"""The odds of a second quote, as a share of the best one's, from which it adds something."""
_SAME = 0.7
"""Shared words, as a share of the shorter quote's, from which two quotes say the same."""
_MARK_LIKE = re.compile(r"[\[\u3010]([\d\s,;^\u2013-]+)[\]\u3011]")


def _selected(passages: Sequence[Passage], candidates: Sequence[Candidate], support: NDArray[np.float32]) -> list[int]:
    """The best candidate and at most two more that come close to it and say something else, in reading order."""
    order = [int(place) for place in np.argsort(-support, kind="stable")]
    chosen: list[int] = []
    said: list[frozenset[str]] = []
    for place in order:
        if len(chosen) == MAX_QUOTES or _odds(support[place]) < _CLOSE * _odds(support[order[0]]):
            break
        item = candidates[place]
        words = _terms(passages[item.passage].text[item.start : item.end])
        if not any(len(words & other) >= _SAME * max(min(len(words), len(other)), 1) for other in said):
            chosen.append(place)
            said.append(words)
    # The best quote's passage first, each passage's quotes as they stand in it.
    passage_order = list(dict.fromkeys(candidates[place].passage for place in chosen))
    return sorted(chosen, key=lambda place: (passage_order.index(candidates[place].passage), candidates[place].start))


def _odds(support: float) -> float:
    return float(support) / max(1e-6, 1 - float(support))


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
