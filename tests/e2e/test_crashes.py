"""kill -9 at any point, run again: the index is what a calm run makes, and each reader saw one whole version."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from index.document import document_id
from index.embedding import identify
from index.ledger import Ledger
from index.settings import load
from index.vectors import VectorStore

ROOT = Path(__file__).resolve().parents[2]
POINTS = {
    "before the version is begun": ("index.ledger:Ledger.begin_versions", "before"),
    "after the version is begun": ("index.ledger:Ledger.begin_versions", "after"),
    "version noted, no row written": ("index.vectors:VectorStore.upsert", "before"),
    "rows written, pointer not flipped": ("index.vectors:VectorStore.upsert", "after"),
    "pointer flipped, old rows still there": ("index.ledger:Ledger.flip_versions", "after"),
    "old rows deleted, versions still noted": ("index.vectors:VectorStore.delete", "after"),
    "attempt counted, nothing parsed": ("ingest.sandbox:Parser.parse", "before"),
    "rights changed in the ledger only": ("index.ledger:Ledger.set_rules", "after"),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return notes(tmp_path / "source")


def notes(directory: Path) -> Path:
    directory.mkdir()
    for number in range(3):
        (directory / f"note {number}.md").write_text(
            f"# Note {number}\n\nThe answer to riddle {number} is {number * 7}."
        )
    return directory


def change(directory: Path) -> None:
    (directory / "note 0.md").write_text("# Note 0\n\nThe answer to riddle 0 is something else now.")
    (directory / "note 2.md").unlink()
    (directory / "note 3.md").write_text("# Note 3\n\nThe answer to riddle 3 is new.")


@pytest.fixture(scope="module")
def calm(service: Any, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[Any, ...]]:
    """What a run leaves that nothing killed."""
    directory = notes(tmp_path_factory.mktemp("calm") / "source")
    change(directory)
    assert run(service, directory, "calm") == 0
    return contents(service, "calm", directory)[0]


def run(service: Any, source: Path, tenant: str, point: tuple[str, str] = ("", ""), acl: str = "everyone") -> int:
    return int(service.run_in_one_process(source, tenant, acl, point).returncode)


def contents(service: Any, tenant: str, source: Path) -> tuple[set[tuple[Any, ...]], int]:
    """What is live, and how many rows of the tenant the store holds in all."""
    args = load(service.config, service.state.data_dir)
    model = identify(args.embedding)
    ledger, store = Ledger(args.store.ledger), VectorStore(args.store, model.model_id, model.dim)
    store.open()
    documents = ledger.find(ledger.tenant_id(tenant))
    live = set()
    for document in documents:
        for row in store.rows(document.document_id, document.version or 0, document.chunk_count):
            assert row.access_id == document.access_id
            live.add((document.external_id, row.position, row.start, row.end, row.text))
    known = {document.document_id for document in documents}
    known |= {document_id(tenant, str(source), f"note {number}.md") for number in range(4)}  # deleted ones, too
    return live, sum(key.split(".")[0] in known for key in store.primary_keys())


@pytest.mark.parametrize("point", list(POINTS))
def test_a_run_after_kill_9_makes_the_index_of_a_calm_run(service, source, calm, point):
    tenant = f"crash-{list(POINTS).index(point)}"
    assert run(service, source, tenant) == 0
    change(source)
    acl = "user:ada" if "rights" in point else "everyone"
    assert run(service, source, tenant, POINTS[point], acl) == -9, "the fault point was not reached"
    assert run(service, source, tenant, acl=acl) == 0
    live, rows = contents(service, tenant, source)
    assert live == calm
    assert rows == len(live), "rows that no reader can reach were left behind"


def test_a_killed_job_that_is_submitted_again_makes_the_index_of_a_calm_run(company, tmp_path):
    source = tmp_path / "documents"
    shutil.copytree(ROOT / "examples" / "documents" / "engineering", source)
    tenant = "killed"
    job = company.job(source, tenant, "everyone")
    driver = wait_for_driver(source)
    time.sleep(random.uniform(1.0, 12.0))
    if driver.is_running():
        driver.kill()
    job.wait(timeout=120)
    report = company.ingest(source, tenant, "everyone")
    assert report["discovered"] == report["indexed"] + report["unchanged"] + report["quarantined"]
    live, rows = contents(company, tenant, source)
    calm = f"{tenant}-calm"
    assert run(company, source, calm) == 0
    assert live == contents(company, calm, source)[0] and rows == len(live)


def wait_for_driver(source: Path) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if line[1:4] == ["-m", "ingest", "bulk"] and str(source) in line:
                return process
        time.sleep(0.1)
    raise AssertionError("the job's driver did not start")
