"""How well a running service finds what a collection's judges found relevant: what `rayrag eval` does.

A collection is a folder in BEIR's layout (Thakur et al., NeurIPS Datasets 2021): `queries.jsonl`, `qrels/test.tsv`
(or `qrels.tsv`), and either `corpus.jsonl` or the documents themselves below `files/`. It is ingested by the bulk job
into a tenant of its own; then its questions go over HTTP like anyone's. A document's place is that of its best passage.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
import yaml

from cluster.jobs import IngestJob, Progress
from cluster.questions import problem
from cluster.state import State
from policies.errors import InvalidRequest, Unavailable
from policies.issuing import DevelopmentIssuer

PASSAGES = 50
CLIENTS = 2
TIMEOUT_S = 60.0
TOKEN_S = 21_600
CUTOFFS = ("nDCG@10", "Recall@5", "Recall@10", "MRR")

Judgements = dict[str, dict[str, int]]
"""Question id → document id → grade."""
Ranking = list[str]
"""Document ids, best first."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A collection. `questions` are those with a relevant document; `files`: documents are files, not rows."""

    folder: Path
    questions: dict[str, str]
    judgements: Judgements
    files: bool

    @property
    def name(self) -> str:
        """The folder's name, in letters that a tenant's name may have."""
        return re.sub(r"[^a-z0-9]+", "-", self.folder.resolve().name.lower()).strip("-") or "dataset"

    @property
    def tenant(self) -> str:
        return f"eval-{self.name}"


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody of the collection's tenant who asks. `token` is theirs."""

    base_url: str
    token: str


def read_dataset(folder: Path) -> Dataset:
    """Read a collection's questions and judgements. Raises `InvalidRequest` that names the file and what is wrong."""
    files = (folder / "files").is_dir()
    if not files and not (folder / "corpus.jsonl").is_file():
        raise InvalidRequest(f"{folder} holds neither corpus.jsonl nor files/: give a folder in BEIR's layout.")
    split = folder / "qrels" / "test.tsv"
    judgements = read_judgements(split if split.is_file() else folder / "qrels.tsv")
    asked = {str(row["_id"]): str(row["text"]) for row in _rows(folder / "queries.jsonl", ("_id", "text"))}
    questions = {
        key: text for key, text in asked.items() if any(grade > 0 for grade in judgements.get(key, {}).values())
    }
    if not questions:
        raise InvalidRequest(f"{folder}: no question of queries.jsonl has a relevant document in the judgements.")
    return Dataset(folder, questions, {key: judgements[key] for key in questions}, files)


def read_judgements(path: Path) -> Judgements:
    """Read judgements: a heading, then question, document and grade. Raises `InvalidRequest`."""
    judgements: Judgements = {}
    for number, line in enumerate(_lines(path), 1):
        parts = line.rstrip("\n").split("\t")
        if number == 1 and parts[-1] == "score":
            continue
        try:
            question, document, grade = parts
            judgements.setdefault(question, {})[document] = int(grade)
        except ValueError as error:
            raise InvalidRequest(f"{path}, line {number}: must be question, document, whole grade, by tabs.") from error
    return judgements


def bulk_rows(rows: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, str]]:
    """Turn BEIR's corpus rows into rows of bulk ingestion; a row without text has its title as text, or is left out."""
    for row in rows:
        title, text = str(row.get("title") or ""), str(row.get("text") or "")
        if text.strip() or title.strip():
            yield {"id": str(row["_id"]), "text": text if text.strip() else title} | (
                {"title": title} if title.strip() and text.strip() else {}
            )


def stage(dataset: Dataset, room: Path) -> Path:
    """Lay out below `room` what the bulk job ingests, and say where.

    Rows: one JSONL. Files: a copy, in which those of each extension can be read by a group of their own, so that one
    index answers for each format alone as well.
    """
    room.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not dataset.files:
        path = room / "corpus.jsonl"
        with path.open("w", encoding="utf-8") as output:
            for row in bulk_rows(_rows(dataset.folder / "corpus.jsonl", ("_id",))):
                output.write(json.dumps(row, ensure_ascii=False) + "\n")
        return path
    target = room / "files"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dataset.folder / "files", target, copy_function=shutil.copy2)
    for folder in (target, *target.rglob("*")):
        folder.chmod(0o700 if folder.is_dir() else 0o600)
    rules = [
        {"path": f"**/*.{end}", "allow": [f"group:{format_group(end)}"]} for end in extensions(dataset.folder / "files")
    ]
    (target / "acl.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    return target


def extensions(folder: Path) -> list[str]:
    """List the extensions, as they are spelt, of the files below a folder."""
    return sorted({path.suffix[1:] for path in folder.rglob("*") if path.is_file() and path.suffix[1:].isalnum()})


def format_group(extension: str) -> str:
    """Name the group that may read the files of an extension."""
    return f"format-{extension.lower()}"


def judged_id(external_id: str, judged: Collection[str]) -> str:
    """Find the name under which the judges know a document: its id, or its path without extension and format folder.

    `ZX Bank/pdf/Awards.pdf` is judged as itself, as `ZX Bank/pdf/Awards` or as `ZX Bank/Awards`.
    """
    path = PurePosixPath(external_id)
    bare = path.with_suffix("") if path.suffix else path
    inner = bare.parent.parent / bare.name if bare.parent.name == path.suffix[1:] and path.suffix else bare
    return next((name for name in (external_id, str(bare), str(inner)) if name in judged), str(inner))


def ranking(external_ids: Iterable[str], judged: Collection[str]) -> Ranking:
    """Order documents by their best passage; `external_ids` are those of the passages, best first."""
    return list(dict.fromkeys(judged_id(external_id, judged) for external_id in external_ids))


def measure(judgements: Judgements, rankings: Mapping[str, Ranking]) -> dict[str, float]:
    """Compute the means over all judged questions; a question without a ranking counts 0."""
    import ir_measures

    measures = dict(
        zip(CUTOFFS, (ir_measures.nDCG @ 10, ir_measures.R @ 5, ir_measures.R @ 10, ir_measures.RR), strict=True)
    )
    run = {key: {name: 1 / rank for rank, name in enumerate(order, 1)} for key, order in rankings.items()}
    found = ir_measures.calc_aggregate(list(measures.values()), judgements, run)
    return {name: round(float(found[each]), 4) for name, each in measures.items()}


def evaluate(
    dataset: Path,
    state: State,
    issuer: DevelopmentIssuer,
    report: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Ingest a collection, ask its questions, and compare with its judgements; writes the result to `report` too.

    Raises `InvalidRequest` for a folder that is none of BEIR's layout and `Unavailable` where the service fails.
    """
    collection = read_dataset(dataset)
    source = stage(collection, Path(state.data_dir) / "eval" / collection.name)
    ingested = _ingest(state, str(source), collection, on_progress)
    formats = extensions(dataset / "files") if collection.files else []
    groups = {end: format_group(end) for end in formats}
    everyone = _reader(state, issuer, collection, groups.values())
    rankings, times = ask(collection, everyone)
    result: dict[str, Any] = {
        "dataset": collection.name,
        "documents": ingested["discovered"],
        "quarantined": ingested["quarantined"],
        "chunks_indexed": ingested["chunks"],
        "questions": len(collection.questions),
        "measures": measure(collection.judgements, rankings),
        "retrieve_ms": _quantiles(times),
        "ingest_seconds": ingested["seconds"],
    }
    if groups:
        result["by_extension"] = {
            end: measure(collection.judgements, ask(collection, _reader(state, issuer, collection, [group]))[0])
            for end, group in sorted(groups.items())
        }
    if report is not None:
        report.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def ask(dataset: Dataset, reader: Reader) -> tuple[dict[str, Ranking], list[float]]:
    """Ask every question. Gives a ranking for each, and how many milliseconds each answer took."""
    judged = {name for grades in dataset.judgements.values() for name in grades}
    with (
        httpx2.Client(timeout=TIMEOUT_S, trust_env=False) as client,
        ThreadPoolExecutor(CLIENTS, thread_name_prefix="ask") as pool,
    ):
        answers = list(pool.map(lambda text: _retrieve(client, reader, text), dataset.questions.values()))
    rankings = {key: ranking(found, judged) for key, (found, _) in zip(dataset.questions, answers, strict=True)}
    return rankings, [milliseconds for _, milliseconds in answers]


def table(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Lay a result out: one row for the whole collection, one for each format of its files."""
    rows = {result["dataset"]: result["measures"], **result.get("by_extension", {})}
    return [(name, str(result["questions"]), *(f"{row[key]:.3f}" for key in CUTOFFS)) for name, row in rows.items()]


def _ingest(state: State, source: str, dataset: Dataset, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
    acl = "" if dataset.files else "everyone"
    done = IngestJob(state, source, dataset.tenant, acl, "public").follow(on_progress)  # whatever the default label is
    if not done.succeeded or done.report is None:
        raise Unavailable(f"Job {done.job_id} failed: {done.reason or 'it ended without a report'}")
    return done.report


def _reader(state: State, issuer: DevelopmentIssuer, dataset: Dataset, groups: Collection[str]) -> Reader:
    token = issuer.sign("evaluator", dataset.tenant, ["user"], list(groups), TOKEN_S)
    return Reader(state.api, token)


def _retrieve(client: httpx2.Client, reader: Reader, question: str) -> tuple[list[str], float]:
    started = time.perf_counter()
    try:
        answer = client.post(
            f"{reader.base_url}/v1/retrieve",
            json={"question": question, "top_k": PASSAGES},
            headers={"Authorization": f"Bearer {reader.token}"},
        )
    except httpx2.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"The service at {reader.base_url} does not answer ({reason}): see rayrag status.") from error
    if answer.status_code != 200:
        raise problem(answer.status_code, answer.text)
    return [hit["external_id"] for hit in answer.json()["hits"]], (time.perf_counter() - started) * 1e3


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": round(statistics.median(ordered), 1), "p95": round(ordered[int(len(ordered) * 0.95)], 1)}


def _rows(path: Path, required: Collection[str]) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidRequest(f"{path}, line {number}: no JSON.") from error
        if not isinstance(row, dict) or any(key not in row for key in required):
            raise InvalidRequest(f"{path}, line {number}: must be an object with {' and '.join(required)}.")
        yield row


def _lines(path: Path) -> Iterable[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise InvalidRequest(f"{path}: {reason}: a collection has queries.jsonl and qrels/test.tsv.") from error
