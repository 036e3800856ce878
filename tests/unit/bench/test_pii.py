"""What `bench pii` counts, and that the texts it makes say rightly where their labels are."""

import json

import pytest

from bench.pii import evaluate, read, wilson
from bench.pii_samples import Labelled, Sample, generate
from policies.pii.detector import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(frozenset({"EMAIL_ADDRESS", "FAX_NUMBER", "PHONE_NUMBER", "US_SSN"}))


def test_the_same_seed_makes_the_same_texts_and_labels_lie_on_their_values():
    samples = generate(40, seed=3)

    assert samples == generate(40, seed=3)
    assert samples != generate(40, seed=4)
    for sample in samples:
        assert all(sample.text[span.start : span.end].strip() for span in sample.spans)
        assert all("@" in sample.text[s.start : s.end] for s in sample.spans if s.entity == "EMAIL_ADDRESS")


def test_a_finding_counts_by_class_and_overlap_and_one_without_a_label_counts_apart(detector):
    sample = Sample(
        "Fax 030 1234567, a@b.org, 536-32-3065",
        (Labelled("PHONE_NUMBER", 4, 8), Labelled("EMAIL_ADDRESS", 0, 3)),
    )

    counts, other = evaluate(detector, [sample])

    assert (counts["PHONE_NUMBER"].recall, counts["PHONE_NUMBER"].precision) == (1, 1)
    assert (counts["EMAIL_ADDRESS"].recall, counts["EMAIL_ADDRESS"].precision) == (0, 0)
    assert counts["all"].recall == counts["all"].precision == counts["all"].f2 == 0.5
    assert other == {"US_SSN": 1}


def test_wilson_intervals_are_those_of_the_formula():
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps([{"text": "x"}]))

    with pytest.raises(ValueError, match="presidio-research"):
        read(path)
