"""Names found by a model of language, in addition to the offline method: Presidio's recognisers over mounted weights.

Behind the extra `presidio`: it imports spaCy, and that torch (hundreds of MB in each process). Nothing is downloaded:
the weights lie in a directory that is given. A spaCy directory has a `meta.json` (`nlp.to_disk`), any other one is
taken for GLiNER's, which needs the package `gliner` besides.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policies.errors import ConfigurationError
from policies.pii.findings import ENTITIES, PROVEN, Finding

_LANGUAGE = "en"
"""A label Presidio needs; the directory decides which language it is."""
_ENTITIES = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "DATE_TIME", "NRP"})
_LABELS = {
    "person": "PERSON",
    "address": "ADDRESS",
    "location": "LOCATION",
    "organization": "ORGANIZATION",
    "nationality": "NRP",
    "religion": "NRP",
    "job title": "TITLE",
}
"""What GLiNER is asked for, and what that is here."""
_MOST_CHARS = 100_000
"""Of a text, given to the model at once: spaCy takes no million."""
_OVERLAP_CHARS = 200
_HIGHEST = 0.94


class NamedEntities:
    """A recogniser over mounted weights. Thread-safe: one text at a time."""

    def __init__(self, directory: Path, key: str = "compliance.detection.model") -> None:
        """Load the weights. Raises `ConfigurationError` that names `key` where the extra or the weights are missing."""
        if not directory.is_dir():
            raise ConfigurationError(f"{key}: {directory} is no directory with weights of spaCy or GLiNER")
        if importlib.util.find_spec("presidio_analyzer") is None:
            raise ConfigurationError(f"{key}: install rayrag[presidio]")
        self._engine: Any = None
        if (directory / "meta.json").is_file():
            self._engine, self._recogniser = _spacy(directory, key)
            self.entities = _ENTITIES
        else:
            self._recogniser = _gliner(directory, key)
            self.entities = frozenset(_LABELS.values())
        self._name = "spacy" if self._engine is not None else "gliner"
        self._asking = threading.Lock()

    def find(self, text: str) -> Iterator[Finding]:
        """Give what the model finds."""
        for start in range(0, len(text), _MOST_CHARS):
            for found in self._results(text[start : start + _MOST_CHARS + _OVERLAP_CHARS]):
                if found.entity_type in ENTITIES:
                    score = min(_HIGHEST, PROVEN, float(found.score))
                    yield Finding(found.entity_type, start + found.start, start + found.end, score, self._name)

    def _results(self, text: str) -> list[Any]:
        with self._asking:
            artifacts = self._engine.process_text(text, _LANGUAGE) if self._engine is not None else None
            return list(self._recogniser.analyze(text, sorted(self.entities), artifacts))


def _spacy(directory: Path, key: str) -> tuple[Any, Any]:
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    names = NerModelConfiguration(labels_to_ignore=[], model_to_presidio_entity_mapping=_SPACY_LABELS)
    engine = SpacyNlpEngine([{"lang_code": _LANGUAGE, "model_name": str(directory)}], names)
    try:
        engine.load()
    except (OSError, ValueError, KeyError) as error:
        said = f"{key}: {directory} holds no pipeline spaCy can read ({type(error).__name__})"
        raise ConfigurationError(said) from error
    return engine, SpacyRecognizer(supported_language=_LANGUAGE, supported_entities=sorted(_ENTITIES))


_SPACY_LABELS = {
    "PERSON": "PERSON",
    "PER": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "LOCATION": "LOCATION",
    "ORG": "ORGANIZATION",
    "ORGANIZATION": "ORGANIZATION",
    "NORP": "NRP",
    "NRP": "NRP",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
    "DATE_TIME": "DATE_TIME",
}


def _gliner(directory: Path, key: str) -> Any:
    if importlib.util.find_spec("gliner") is None:
        raise ConfigurationError(f"{key}: {directory} is no spaCy pipeline (no meta.json); for GLiNER, install gliner")
    from presidio_analyzer.predefined_recognizers import GLiNERRecognizer

    return GLiNERRecognizer(
        entity_mapping=dict(_LABELS), model_name=str(directory), map_location="cpu", local_files_only=True
    )
