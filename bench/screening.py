"""What screening adds: to a question's passages, to an answer's words, and to the time of its first word.

In this process: GDPR's rules over passages as the chunker cuts them, personal data among them, and answers as a model
writes them, a word at a time. How long a model takes for a word is given, not waited for; what is added to it is work
that is measured and words that are held back.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence

from bench.context import Figure, machine, quantile, save
from bench.texts import sentences
from index.compliance_settings import DetectionSettings
from index.regimes import LazyFinder
from policies.citations import Evidence
from policies.compliance.combining import Applied, Policies
from policies.compliance.consent import Consents
from policies.compliance.screening import Passage, PersonalData, Screening
from policies.keyed_hashes import KeyedHashes
from policies.links import Links
from policies.outgoing import Outgoing
from policies.principals import Principal
from policies.roles import Roles

PASSAGES = 16
PASSAGE_CHARS = 900
ANSWER_SENTENCES = 4
WORD_S = 0.03
"""A model's time for a word: about what a small one needs on a processor."""
ANSWER_MS, FIRST_MS = 5.0, 100.0
SEED = 7
VALUES = (
    "ada.lovelace@example.org",
    "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
    "+49 30 1234567",
    "Ada Byron",
)


class _NoConsents:
    def consents(self, tenant: str, purpose: str) -> Consents:
        return Consents()


def run(answers: int) -> list[Figure]:
    """Measure `answers` questions, one after another."""
    before = machine()
    personal = PersonalData(
        Policies(Applied(regimes=("gdpr",))),
        LazyFinder(DetectionSettings()),
        KeyedHashes(bytes(32)),
        _NoConsents(),
        lambda ids: {each: frozenset({"personal_data"}) for each in ids},
        Roles.load(),
    )
    chance, pool = random.Random(SEED), sentences()
    personal.finder.find("warm")
    words, passages, again, first, plain = [], [], [], [], []
    for _ in range(answers):
        screening = personal.begin(Principal("ada", "acme", frozenset({"user"})), None)
        found = [
            Passage("d", "s", _text(chance, pool, PASSAGE_CHARS), ("A title", "file:///a")) for _ in range(PASSAGES)
        ]
        passages.append(_seconds(lambda screening=screening, found=found: screening.passages(found)))
        again.append(_seconds(lambda screening=screening, found=found: screening.passages(found)))
        answer = _answer(chance, pool)
        words.append(_answered(screening, answer))
        first.append(_first_word(_outgoing(screening), answer))
        plain.append(_first_word(Outgoing(_EVIDENCE, Links()), answer))
    added = [one - other for one, other in zip(first, plain, strict=True)]
    figures = [
        _figure("an answer's words, all of them", [s * 1e3 for s in words], ANSWER_MS),
        _figure("first word, added", [s * 1e3 for s in added], FIRST_MS),
        _figure(f"{PASSAGES} passages of {PASSAGE_CHARS} characters, never seen", [s * 1e3 for s in passages], None),
        _figure(f"{PASSAGES} passages, seen before", [s * 1e3 for s in again], ANSWER_MS),
    ]
    result = {figure.name: figure.value for figure in figures}
    save("screening", {"figures": result, "word_s": WORD_S, "answers": answers}, before)
    return figures


_EVIDENCE = [Evidence("c", "d", "The heron counts its fish.", 0, 26, "T", "u")]


def _outgoing(screening: Screening) -> Outgoing:
    return Outgoing(_EVIDENCE, Links(), screening.window)


def _answered(screening: Screening, answer: str) -> float:
    """Seconds of work for a whole answer, a word at a time, over those without screening."""

    def all_of_it(outgoing: Outgoing) -> Callable[[], object]:
        return lambda: [*(outgoing.feed(piece) for piece in _pieces(answer)), outgoing.finish()]

    with_it = _seconds(all_of_it(_outgoing(screening)))
    return max(0.0, with_it - _seconds(all_of_it(Outgoing(_EVIDENCE, Links()))))


def _first_word(outgoing: Outgoing, answer: str) -> float:
    """Seconds until the first of an answer leaves: the model's time for what it wrote by then, and our work."""
    began = time.perf_counter()
    for number, piece in enumerate(_pieces(answer), 1):
        if outgoing.feed(piece).strip():
            return number * WORD_S + time.perf_counter() - began
    outgoing.finish()
    return len(_pieces(answer)) * WORD_S + time.perf_counter() - began


def _pieces(answer: str) -> list[str]:
    return [word + " " for word in answer.split(" ")]


def _answer(chance: random.Random, pool: Sequence[str]) -> str:
    return " ".join(_with_value(chance, chance.choice(pool)) for _ in range(ANSWER_SENTENCES))


def _text(chance: random.Random, pool: Sequence[str], length: int) -> str:
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        parts.append(_with_value(chance, chance.choice(pool)))
    return " ".join(parts)[:length]


def _with_value(chance: random.Random, sentence: str) -> str:
    """One sentence in five holds something."""
    if chance.random() > 0.2:
        return sentence
    words = sentence.split(" ")
    words.insert(chance.randrange(len(words)), chance.choice(VALUES))
    return " ".join(words)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _figure(name: str, taken: Sequence[float], target: float | None) -> Figure:
    p50 = statistics.median(taken)
    value = f"p50 {p50:.2f} ms, p95 {quantile(taken, 0.95):.2f} ms"
    met = None if target is None else p50 <= target
    return Figure("screening", name, value, len(taken), "" if target is None else f"p50 <= {target:g} ms", met)
