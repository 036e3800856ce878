"""The pure parts of the measurements: texts, rates, quantiles, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import footprint, quality_eval
from bench.__main__ import main, show
from bench.context import Figure, quantile
from bench.ingest import Job, steady_rate, summary
from bench.retrieve import noisy, split
from bench.texts import Vocabulary, documents, sentences
from bench.usage import Usage, process_name
from cluster.processes import ProcessRow

POOL = sentences()


def test_made_documents_are_the_same_in_every_run_and_all_different() -> None:
    made = list(documents(300, POOL))

    assert made == list(documents(300, POOL))
    assert len(set(made)) == 300
    assert 120 <= np.mean([len(text.split()) for text in made]) <= 180


def test_another_seed_makes_other_documents() -> None:
    assert list(documents(3, POOL)) != list(documents(3, POOL, seed=7))


def test_words_follow_zipfs_law() -> None:
    vocabulary = Vocabulary(POOL, size=5_000)
    drawn = vocabulary.text(40_000).lower().replace(".", "").split()
    counts = sorted((drawn.count(word) for word in set(drawn[:2_000])), reverse=True)

    # Frequencies of rank r and s are as (s + 2.7) / (r + 2.7).
    assert counts[0] / counts[9] == pytest.approx(12.7 / 3.7, rel=0.35)
    assert len(set(drawn)) > 3_000


def test_questions_differ() -> None:
    vocabulary = Vocabulary(POOL)

    assert len({vocabulary.question() for _ in range(500)}) > 495


def test_noise_keeps_unit_length_and_stays_near() -> None:
    base = np.eye(8, 64, dtype=np.float32)
    moved = noisy(base, np.random.default_rng(1))

    assert moved.dtype == np.float32
    assert np.linalg.norm(moved, axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    assert (moved * base).sum(axis=1) == pytest.approx(np.full(8, 0.86), abs=0.12)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.95, 5.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 3.0), (list(map(float, range(100))), 0.95, 95.0)],
)
def test_quantiles_are_values_that_were_measured(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_no_values_have_no_quantile() -> None:
    with pytest.raises(ValueError, match="no quantile"):
        quantile([], 0.5)


def test_a_questions_time_is_split_with_nothing_lost() -> None:
    answers: list[tuple[float, dict[str, Any]]] = [
        (100.0, {"timings_ms": {"search": 60.0, "gate": 10.0}}),
        (50.0, {"timings_ms": {"search": 30.0, "gate": 10.0}}),
    ]
    stages = split(answers)

    assert {name: row["share"] for name, row in stages.items()} == {"search": 0.6, "gate": 0.133, "rest": 0.267}


def test_the_steady_rate_leaves_the_start_out() -> None:
    assert steady_rate([(0.0, 0), (10.0, 0), (12.0, 100), (14.0, 300), (16.0, 500)], 500) == pytest.approx(100)
    assert steady_rate([(3.0, 500)], 500) == 0.0


def test_ratios_compare_with_the_bare_embedder() -> None:
    job = Job(20.0, {"seconds": 10.0, "errors": [], "indexed": 500}, [(0.0, 0), (5.0, 100), (9.0, 500)])

    result = summary(500, 600, 8.0, job, Usage())

    assert result["bare_documents_per_s"] == 62.5
    assert result["ratio"] == 0.8
    assert result["steady_ratio"] == 1.6
    assert result["first_documents_after_s"] == 5.0


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("ray::MapWorker(MapBatches(Embed)).submit", "worker Embed"),
        ("ray::ServeReplica:rayrag:Embedding.handle_request", "replica Embedding"),
        ("ray::ServeController.listen_for_change", "ray::ServeController"),
        ("python -m ingest bulk --config x", "the job's driver"),
        ("/x/bin/python /x/bin/milvus-lite server --host 127.0.0.1", "milvus-lite"),
        ("/x/raylet --a", "raylet"),
    ],
)
def test_processes_have_the_name_of_their_part(title: str, name: str) -> None:
    assert process_name(title) == name


def test_the_highest_memory_and_all_cpu_time_of_a_name_count() -> None:
    usage = Usage({1: ("worker Embed", 3.0), 2: ("worker Embed", 4.0)}, {1: ("worker Embed", 90.0), 2: ("x", 120.0)})

    assert usage.by_name() == {"worker Embed": {"cpu_s": 7.0, "peak_pss_mb": 120.0}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    [1] engineering/manual.pdf, page 3: “tested”\n", True),
        ("  The brake is tested monthly [1].\n", False),
        ("    [2] engineering/manual.pdf\n", False),
    ],
)
def test_the_first_citation_is_recognised(line: str, expected: bool) -> None:
    assert footprint.is_citation(line) is expected


def test_an_address_beyond_loopback_is_told() -> None:
    rows = [
        ProcessRow(1, "raylet", 10.0, 5.0, ("127.0.0.1:1", "::ffff:127.0.0.1:2")),
        ProcessRow(2, "replica", 20.0, None, ("0.0.0.0:3",)),
    ]
    result = footprint.summary(footprint.Demo(0, 9.0, 8.0, ""), rows, 1.0)

    assert result["not_loopback"] == ["replica 0.0.0.0:3"]
    assert (result["pss_mb"], result["rss_mb"], result["listening"]) == (25.0, 30.0, 3)


def test_quality_without_data_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYRAG_EVAL_DATA", raising=False)

    (line,) = quality_eval.run([])

    assert "RAYRAG_EVAL_DATA" in line.value
    assert line.met is None


def test_quality_compares_a_part_with_its_collection() -> None:
    measures = {"nDCG@10": 0.7, "Recall@5": 0.5, "Recall@10": 0.6, "MRR": 0.8}

    assert quality_eval.figure("musique100", {"measures": measures, "questions": 3}).met is True
    assert quality_eval.figure("scifact", {"measures": measures, "questions": 3}).met is False
    assert quality_eval.figure("xquad", {"measures": measures, "questions": 3}).met is None


def test_an_unknown_measurement_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])

    assert "'speed' is none of ingest, retrieve" in capsys.readouterr().err


def test_the_table_says_what_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    show([Figure("retrieve", "p50", "90 ms", 200, "≤ 60", met=False), Figure("footprint", "processes", "20", 20)])

    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "retrieve\tp50\t90 ms\t200\t≤ 60\tNO"
    assert lines[2] == "footprint\tprocesses\t20\t20\t\t"
