"""The detector as others use it: what it looks for, in which order it answers, and what it does not load."""

import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from policies.pii.detector import Detector
from policies.pii.findings import Finding

TEXT = "Ada Byron (ada@example.org, 536-32-3065) lives at 42 Maple Street; card 4111 1111 1111 1111, born 3/31/1982."


class Shouting:
    """A model that takes each word in capitals for an organisation."""

    entities = frozenset({"ORGANIZATION"})

    def find(self, text: str) -> Iterable[Finding]:
        return [
            Finding("ORGANIZATION", text.index(w), text.index(w) + len(w), 0.8, "m")
            for w in text.split()
            if w.isupper()
        ]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def test_findings_ascend_and_do_not_overlap(detector: Detector) -> None:
    spans = [(each.start, each.end) for each in detector.find(TEXT)]

    assert len(spans) >= 5
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


def test_only_the_entities_asked_for_are_found() -> None:
    found = Detector(frozenset({"CREDIT_CARD", "US_SSN"})).find(TEXT)

    assert [each.entity for each in found] == ["US_SSN", "CREDIT_CARD"]


def test_an_unknown_entity_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="SHOE_SIZE"):
        Detector(frozenset({"SHOE_SIZE"}))


def test_a_model_adds_to_what_is_found() -> None:
    found = Detector(frozenset({"ORGANIZATION"}), model=Shouting()).find("the QXZV paid")

    assert ("ORGANIZATION", 4, 8) in [(each.entity, each.start, each.end) for each in found]


def test_threads_find_what_one_alone_finds(detector: Detector) -> None:
    texts = [TEXT, TEXT.upper(), "", "nothing here", TEXT * 3] * 8

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.find, texts)) == detector.find_many(texts)


def test_no_large_library_is_loaded() -> None:
    code = (
        "import sys; from policies.pii.detector import Detector; Detector().find('Ada, 536-32-3065'); "
        "print(sorted({'presidio_analyzer', 'spacy', 'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
