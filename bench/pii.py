"""How much personal data the detector finds, how much of what it finds is none, and how fast.

A label counts as found when a finding of the same class overlaps it, and a finding as right when it overlaps a label
of its class: the span overlap of Presidio's evaluator. Classes: those of `CLASSES`; places, addresses and postcodes are
one, a fax number is a telephone number, a domain a URL. Findings of a class that a file never labels are counted apart.
F2 weighs recall four times as much as precision; the overall figure is over all labels and findings together.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import multiprocessing
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.context import Figure, machine, save, say
from bench.pii_samples import Labelled, Sample, generate
from policies.pii.detector import Detector
from policies.pii.findings import NAMES

CLASSES: Mapping[str, str] = {
    **dict.fromkeys(("LOCATION", "GPE", "ADDRESS", "STREET_ADDRESS", "ZIP_CODE", "FAC"), "PLACE"),
    "FAX_NUMBER": "PHONE_NUMBER",
    "DOMAIN_NAME": "URL",
    "PREFIX": "TITLE",
}
_GUESSED = {CLASSES.get(name, name) for name in NAMES}
TEXT_CHARS = 1_700
WANTED_A_SECOND = 1_000
TEXTS = 400
PEER_TEXTS = 60
_WORDS = re.compile(r"\w+")
_OF_PROCESS: dict[str, Detector] = {}
"""One detector for each process that measures."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Labels found of those there are, and findings that are right of those made."""

    found: int
    labels: int
    right: int
    findings: int

    @property
    def recall(self) -> float:
        return self.found / self.labels if self.labels else math.nan

    @property
    def precision(self) -> float:
        return self.right / self.findings if self.findings else math.nan

    @property
    def f2(self) -> float:
        """(1 + 4) P R / (4 P + R)."""
        below = 4 * self.precision + self.recall
        return 5 * self.precision * self.recall / below if below else 0.0


def run(path: Path | None, samples: int) -> list[Figure]:
    """Measure on texts made here, and on a file in presidio-research's format where one is given; then the speed."""
    before = machine()
    detector = Detector()
    made = generate(samples)
    sets = {"generated": made, **({path.stem: read(path)} if path else {})}
    figures: list[Figure] = []
    result: dict[str, Any] = {}
    for name, each in sets.items():
        say(f"looking through {len(each)} texts of {name}")
        by_class, other = evaluate(detector, each)
        figures += _figures(name, by_class, other)
        result[name] = {entity: _row(counts) for entity, counts in by_class.items()} | {"not labelled": other}
    speeds, rates = speed([sample.text for each in sets.values() for sample in each])
    save("pii", {**result, "speed": rates}, before)
    return figures + speeds


def read(path: Path) -> list[Sample]:
    """Read a file in presidio-research's format. Raises `ValueError` where it is another one."""
    try:
        return [
            Sample(
                each["full_text"],
                tuple(Labelled(s["entity_type"], s["start_position"], s["end_position"]) for s in each["spans"]),
            )
            for each in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of presidio-research: a list of full_text and spans") from error


def evaluate(detector: Detector, samples: Sequence[Sample]) -> tuple[dict[str, Counts], dict[str, int]]:
    """Count by class, with `all` and `structured` over several; and the findings of classes without a label."""
    labelled = {_class(span.entity) for sample in samples for span in sample.spans}
    found, labels, right, findings, other = (
        Counter[str](),
        Counter[str](),
        Counter[str](),
        Counter[str](),
        Counter[str](),
    )
    for sample in samples:
        made = [(_class(each.entity), each.start, each.end) for each in detector.find(sample.text)]
        there = [(_class(span.entity), span.start, span.end) for span in sample.spans]
        for each in there:
            labels[each[0]] += 1
            found[each[0]] += _overlaps(each, made)
        for each in made:
            if each[0] in labelled:
                findings[each[0]] += 1
                right[each[0]] += _overlaps(each, there)
            else:
                other[each[0]] += 1
    counts = {name: Counts(found[name], labels[name], right[name], findings[name]) for name in sorted(labelled)}
    structured = [each for name, each in counts.items() if name not in _GUESSED]
    return {**counts, "structured": _sum(structured), "all": _sum(list(counts.values()))}, dict(other)


def _overlaps(one: tuple[str, int, int], others: Sequence[tuple[str, int, int]]) -> bool:
    return any(each[0] == one[0] and each[1] < one[2] and one[1] < each[2] for each in others)


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(
        sum(each.found for each in counts),
        sum(each.labels for each in counts),
        sum(each.right for each in counts),
        sum(each.findings for each in counts),
    )


def _class(entity: str) -> str:
    return CLASSES.get(entity, entity)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Give the 95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.959964, hits / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def _row(counts: Counts) -> dict[str, Any]:
    return {
        "recall": round(counts.recall, 4),
        "recall_95": [round(each, 4) for each in wilson(counts.found, counts.labels)],
        "precision": round(counts.precision, 4),
        "precision_95": [round(each, 4) for each in wilson(counts.right, counts.findings)],
        "f2": round(counts.f2, 4),
        "labels": counts.labels,
        "findings": counts.findings,
    }


def _figures(name: str, by_class: Mapping[str, Counts], other: Mapping[str, int]) -> list[Figure]:
    figures = []
    for entity, counts in by_class.items():
        low, high = wilson(counts.found, counts.labels)
        value = f"R {counts.recall:.3f} [{low:.3f}, {high:.3f}] P {counts.precision:.3f} F2 {counts.f2:.3f}"
        target, met = "", None
        if entity == "structured":
            target, met = "R >= .99, P >= .95", counts.recall >= 0.99 and counts.precision >= 0.95
        elif entity == "all":
            target, met = "F2 >= .85", counts.f2 >= 0.85
        figures.append(Figure("pii", f"{name}: {entity}", value, counts.labels, target, met))
    unlabelled = " ".join(f"{entity} {count}" for entity, count in sorted(other.items())) or "none"
    return [*figures, Figure("pii", f"{name}: findings of classes without a label", unlabelled, sum(other.values()))]


def speed(texts: Sequence[str]) -> tuple[list[Figure], dict[str, float]]:
    """Measure texts of 1.7 kB a second on all cores, beside one pass of `re` and, where installed, Presidio's own."""
    whole = "\n\n".join(texts)
    pieces = [whole[at : at + TEXT_CHARS] for at in range(0, max(1, len(whole) - TEXT_CHARS), TEXT_CHARS)]
    pieces = (pieces * (TEXTS // len(pieces) + 1))[:TEXTS]
    cores = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("spawn").Pool(cores, _prepare) as pool:
        pool.map(_find_all, [pieces[:8]] * cores * 2, chunksize=1)
        started = time.perf_counter()
        pool.map(_find_all, [pieces[core::cores] for core in range(cores)], chunksize=1)
        ours = len(pieces) / (time.perf_counter() - started)
    limit = _rate(lambda text: _WORDS.findall(text), pieces) * cores
    rates = {"texts_a_second": round(ours, 1), "one_pass_of_re": round(limit, 1), "cores": cores, "texts": len(pieces)}
    figures = [
        Figure("pii", f"texts of 1.7 kB a second, {cores} cores", f"{ours:.0f}", len(pieces), f">= {WANTED_A_SECOND}",
               ours >= WANTED_A_SECOND),
        Figure("pii", "time, as passes of re.findall(words)", f"{limit / ours:.0f}", len(pieces)),
    ]  # fmt: skip
    if importlib.util.find_spec("presidio_analyzer") is not None:
        say("asking Presidio's stock recognisers")
        peer = presidio_rate(pieces[:PEER_TEXTS])
        detector = Detector()
        detector.find(pieces[0])
        alone = _rate(detector.find, pieces[:PEER_TEXTS])
        rates |= {"presidio_one_core": round(peer, 1), "ours_one_core": round(alone, 1)}
        figures.append(Figure("pii", "one core, times Presidio's stock recognisers", f"{alone / peer:.1f}", PEER_TEXTS))
    return figures, rates


def _prepare() -> None:
    _OF_PROCESS["detector"] = Detector()


def _find_all(texts: Sequence[str]) -> int:
    return sum(map(len, _OF_PROCESS["detector"].find_many(texts)))


def _rate(work: Any, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    for text in texts:
        work(text)
    return len(texts) / (time.perf_counter() - started)


def presidio_rate(texts: Sequence[str]) -> float:
    """Measure Presidio's stock recognisers for English, without a model of language: those with patterns only."""
    from presidio_analyzer import RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpArtifacts

    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # it asks for a list that is not needed
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    stock: list[Any] = [each for each in registry.recognizers if "Spacy" not in each.name]
    nothing: Any = NlpArtifacts([], [], [], [], None, "en")

    def analyse(text: str) -> None:
        for each in stock:
            each.analyze(text, each.supported_entities, nothing)

    analyse(texts[0])
    return _rate(analyse, texts)
