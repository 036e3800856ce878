"""Documents a second from end to end, beside what the bare embedder does on the same cores in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.context import ROOT, Figure, Service, busy_share, configure, directory, machine, save, say, service
from bench.texts import documents, sentences
from bench.usage import Usage, sampled
from cluster.evaluation import bulk_rows
from cluster.jobs import read_progress
from cluster.ray_head import environment
from index.document import Extracted
from index.embedding import Embedder, bulk_streams, identify
from index.settings import AppArgs, load
from ingest.chunking import Chunker

TENANT = "bench"
TARGET = 0.80
BATCH = 64


def run(count: int, data: Path | None) -> list[Figure]:
    """Measure, write `ingest.json`, and give the table's lines."""
    before, busy = machine(), busy_share()
    with directory() as home:
        source = home / "corpus.jsonl"
        total = write_corpus(source, count, data)
        settings = load(configure(home), str(home))
        texts = chunk_texts(source, settings)
        say(f"bare embedder: {len(texts)} chunks of {total} documents")
        bare_s = bare_seconds(texts, settings)
        with service(home) as running, sampled(running) as usage:
            job = run_job(running, source)
    result = summary(total, len(texts), bare_s, job, usage)
    save("ingest", {"busy_share_before": busy, **result}, before)
    ratio = result["ratio"]
    return [
        Figure("ingest", "end to end", f"{result['documents_per_s']:.1f} documents/s", total),
        Figure("ingest", "bare embedder", f"{result['bare_documents_per_s']:.1f} documents/s", total),
        Figure("ingest", "end to end / bare", f"{ratio:.2f}", total, f"≥ {TARGET:.2f}", ratio >= TARGET),
        Figure("ingest", "once it flows / bare", f"{result['steady_ratio']:.2f}", total),
        Figure("ingest", "whole job with its start", f"{result['job_s']:.1f} s", total),
        Figure("ingest", "peak memory of the workers", f"{result['peak_workers_pss_mb']:.0f} MB PSS", total),
    ]


def write_corpus(path: Path, count: int, data: Path | None) -> int:
    """Write a JSONL for the bulk job: made of the examples' sentences, or a corpus in BEIR's layout."""
    if data is None:
        rows: Any = ({"id": f"d{n}", "text": text} for n, text in enumerate(documents(count, sentences())))
    else:
        lines = (data / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
        rows = bulk_rows(json.loads(line) for line in lines[: count or None])
    written = 0
    with path.open("w", encoding="utf-8") as output:
        for row in rows:
            output.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written


def chunk_texts(source: Path, args: AppArgs) -> list[str]:
    """Cut the corpus as the job will, so that the bare embedder gets the very same texts."""
    chunker = Chunker(args.ingest.chunking, identify(args.embedding).tokenizer_file)
    rows = (json.loads(line) for line in source.read_text(encoding="utf-8").splitlines())
    pairs = ((row.get("title"), chunker.split(Extracted(row["text"], row.get("title")))) for row in rows)
    return [chunk.embedded_text(title) for title, chunks in pairs for chunk in chunks]


def bare_seconds(texts: list[str], args: AppArgs) -> float:
    """Embed all texts with nothing else going on: model loaded and warm, vectors thrown away."""
    embedder = Embedder(args.embedding, streams=bulk_streams(args.embedding))
    embedder.encode(texts[:BATCH])
    started = time.perf_counter()
    for start in range(0, len(texts), BATCH):
        embedder.encode(texts[start : start + BATCH])
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Job:
    """A finished bulk job. `steps`: seconds since the pipeline's start, documents done by then."""

    seconds: float
    report: Mapping[str, Any]
    steps: list[tuple[float, int]]


def run_job(running: Service, source: Path) -> Job:
    """Submit the job as an operator does, and follow it to its end."""
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", running.state.dashboard]
    command += ["--working-dir", str(ROOT), "--", "python", "-m", "ingest", "bulk"]
    command += ["--config", str(running.config), "--source", str(source), "--tenant", TENANT, "--acl", "everyone"]
    env = {**os.environ, **environment(running.state), "PYTHONUNBUFFERED": "1"}
    started = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        output = []
        steps: list[tuple[float, int]] = []
        for line in process.stdout:
            output.append(line)
            progress = read_progress(line)
            if progress is not None:
                steps.append((progress.seconds, progress.done))
    seconds = time.perf_counter() - started
    reports = [line.removeprefix("report ") for line in output if line.startswith("report ")]
    if process.returncode != 0 or not reports:
        raise RuntimeError(f"the job failed:\n{''.join(output[-30:])}")
    return Job(seconds, json.loads(reports[-1]), steps)


def summary(total: int, chunks: int, bare_s: float, job: Job, usage: Usage) -> dict[str, Any]:
    """Put rates, memory and CPU time together. `steady`: between the first tenth of the documents and the last."""
    seconds = float(job.report["seconds"])
    steady = steady_rate(job.steps, total)
    bare = total / bare_s
    return {
        "documents": total,
        "chunks": chunks,
        "documents_per_s": round(total / seconds, 2),
        "bare_documents_per_s": round(bare, 2),
        "bare_texts_per_s": round(chunks / bare_s, 2),
        "ratio": round(total / seconds / bare, 3),
        "steady_documents_per_s": round(steady, 2),
        "steady_ratio": round(steady / bare, 3),
        "pipeline_s": round(seconds, 2),
        "first_documents_after_s": job.steps[0][0] if len(job.steps) < 2 else next(s for s, n in job.steps if n),
        "job_s": round(job.seconds, 2),
        "job_documents_per_s": round(total / job.seconds, 2),
        "report": {key: value for key, value in job.report.items() if key != "errors"},
        "peak_workers_pss_mb": usage.peak_workers_mb,
        "processes": usage.by_name(),
    }


def steady_rate(steps: list[tuple[float, int]], total: int) -> float:
    """Give documents a second while documents flow: what starting and stopping the stages takes is left out."""
    flowing = [(seconds, done) for seconds, done in steps if done >= total * 0.1]
    if len(flowing) < 2 or flowing[-1][0] == flowing[0][0]:
        return 0.0
    (first_s, first), (last_s, last) = flowing[0], flowing[-1]
    return (last - first) / (last_s - first_s)
