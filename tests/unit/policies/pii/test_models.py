"""Names by a model of language whose weights are mounted: a real spaCy pipeline, and what is said without one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from policies.errors import ConfigurationError
from policies.pii.detector import Detector
from policies.pii.findings import PROVEN
from policies.pii.models import NamedEntities

needs_presidio = pytest.mark.skipif(
    importlib.util.find_spec("presidio_analyzer") is None, reason="the extra presidio is not installed"
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PERSON", "pattern": "Zaphod Beeblebrox"},
            {"label": "GPE", "pattern": "Betelgeuse"},
            {"label": "ORG", "pattern": "Sirius Cybernetics"},
            {"label": "CARDINAL", "pattern": "forty-two"},
        ]
    )
    directory = tmp_path_factory.mktemp("weights") / "pipeline"
    nlp.to_disk(directory)
    return directory


@needs_presidio
def test_a_mounted_spacy_pipeline_finds_names(pipeline: Path) -> None:
    text = "zaphod? No: Zaphod Beeblebrox of Sirius Cybernetics, from Betelgeuse, aged forty-two."
    said = [(each.entity, text[each.start : each.end]) for each in NamedEntities(pipeline).find(text)]
    assert said == [
        ("PERSON", "Zaphod Beeblebrox"),
        ("ORGANIZATION", "Sirius Cybernetics"),
        ("LOCATION", "Betelgeuse"),
    ]


@needs_presidio
def test_the_detector_takes_a_model_beside_its_own_method(pipeline: Path) -> None:
    text = "write to zaphod@example.org or Zaphod Beeblebrox"
    findings = Detector(model=NamedEntities(pipeline)).find(text)
    assert {each.entity for each in findings} >= {"EMAIL_ADDRESS", "PERSON"}


@needs_presidio
def test_a_long_text_is_read_in_parts_with_offsets_of_the_whole(pipeline: Path) -> None:
    text = "word " * 30_000 + "Zaphod Beeblebrox"
    said = list(NamedEntities(pipeline).find(text))
    assert [(each.start, each.end) for each in said] == [(150_000, 150_017)]
    assert all(each.score < PROVEN for each in said)


def test_a_directory_that_is_none_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"compliance\.detection\.model: .*missing"):
        NamedEntities(tmp_path / "missing")


@needs_presidio
def test_a_broken_pipeline_is_a_start_up_error(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"detection\.model: .*spaCy"):
        NamedEntities(tmp_path)


@needs_presidio
@pytest.mark.skipif(importlib.util.find_spec("gliner") is not None, reason="gliner is installed here")
def test_other_weights_need_gliner(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="install gliner"):
        NamedEntities(tmp_path)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"install rayrag\[presidio\]"):
        NamedEntities(tmp_path)
