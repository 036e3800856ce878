"""Bulk ingestion, and a change of model, as jobs of the cluster: submit them, follow them, read their reports."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.dashboard import ray_headers
from cluster.ray_head import PROJECT_ROOT
from cluster.state import State
from policies.errors import ConfigurationError, InvalidRequest, Unavailable

EXCLUDES = [
    ".git",
    ".venv",
    ".rayrag",
    "*.suppressions.sqlite*",
    "bench",
    "examples",
    "tests",
    "*.pyc",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
]
"""What a job has no need of; the rest of the project travels with it, but for the data directory (`excludes`)."""
POLL_S = 0.5
_PROGRESS = re.compile(r"progress (\d+)/(\d+) documents, (\d+) chunks, ([\d.]+) s")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingestion is."""

    done: int
    total: int
    chunks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class JobResult:
    """A finished job. `report` is what it printed, None where it came to none; `reason` says why it failed."""

    job_id: str
    succeeded: bool
    report: dict[str, Any] | None
    reason: str | None


def source_uri(source: str) -> str:
    """Spell a source so that it means the same in the job's directory. Raises `InvalidRequest` for a missing path."""
    if "://" in source:
        return source
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise InvalidRequest(
            f"{path} does not exist: give a directory, a file, or an address such as s3://bucket/path."
        )
    return str(path)


def reindex_entrypoint(config: Path, model: Path, given: Mapping[str, Any], sample: int, seed: int) -> str:
    """Give the command line of a change of model; `given` are the model's own settings, by name."""
    words = ["python", "-m", "ingest", "reindex", "--config", str(config), "--model", str(model)]
    words += ["--sample", str(sample), "--seed", str(seed)]
    # One word each: a prefix may begin with a dash.
    return shlex.join([*words, *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())])


def entrypoint(config: Path, source: str, tenant: str, acl: str, label: str = "") -> str:
    """Give the job's command line."""
    words = ["python", "-m", "ingest", "bulk", "--config", str(config), "--source", source, "--tenant", tenant]
    given = [*(("--acl", acl) if acl else ()), *(("--label", label) if label else ())]
    return shlex.join([*words, *given])


def excludes(data_dir: Path, project: Path = PROJECT_ROOT) -> list[str]:
    """List what stays behind, as patterns of .gitignore: a data directory in the project, with its secrets, too.

    Raises `ConfigurationError` where the project itself is the data directory.
    """
    within = {path.relative_to(project) for path in (data_dir, data_dir.resolve()) if path.is_relative_to(project)}
    if Path() in within:
        raise ConfigurationError(f"{data_dir} holds the program as well as its data: give another with --data-dir.")
    return [*EXCLUDES, *("/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path.as_posix()) for path in sorted(within))]


class Job:
    """One submitted job. Raises `Unavailable` wherever the cluster does not take it or loses it."""

    def __init__(self, state: State, command: str, metadata: dict[str, str]) -> None:
        from ray.job_submission import JobSubmissionClient

        # Ray tells of every file that it packs or leaves out.
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            self._client = JobSubmissionClient(state.dashboard, headers=ray_headers(state))
            self.job_id: str = self._client.submit_job(
                entrypoint=command,
                runtime_env={"working_dir": str(PROJECT_ROOT), "excludes": excludes(Path(state.data_dir))},
                metadata=metadata,
            )
        except (ConnectionError, RuntimeError, OSError) as error:
            raise Unavailable(
                f"The cluster does not take the job ({_first_line(error)}): see rayrag status."
            ) from error

    def follow(self, on_progress: Callable[[Progress], None]) -> JobResult:
        """Wait until the job is over, reporting its progress."""
        report: dict[str, Any] | None = None
        last = ""
        try:
            for line in self._lines():
                last = line or last
                progress = read_progress(line)
                if progress is not None:
                    on_progress(progress)
                if line.startswith("report {"):
                    report = json.loads(line.removeprefix("report "))
            succeeded, message = self._outcome()
        except (ConnectionError, RuntimeError, OSError) as error:
            raise Unavailable(f"The cluster lost sight of job {self.job_id} ({_first_line(error)}).") from error
        reason = None if succeeded else (last.removeprefix("ingest: ") or message)
        return JobResult(self.job_id, succeeded, report, reason)

    def stop(self) -> None:
        """Stop the job; what it has written whole stays written."""
        self._client.stop_job(self.job_id)

    def _outcome(self) -> tuple[bool, str]:
        while True:
            info = self._client.get_job_info(self.job_id)
            if info.status.is_terminal():
                return str(info.status.value) == "SUCCEEDED", str(info.message or "no reason was given")
            time.sleep(POLL_S)

    def _lines(self) -> Iterator[str]:
        """Yield the log line by line, whole lines only, as they come."""
        rest = ""
        chunks = self._client.tail_job_logs(self.job_id)

        async def following() -> str:
            return str(await anext(chunks))

        with asyncio.Runner() as runner:
            while True:
                try:
                    chunk = runner.run(following())
                except StopAsyncIteration:
                    break
                *lines, rest = (rest + chunk).split("\n")
                yield from lines
        if rest:
            yield rest


class IngestJob(Job):
    """Bulk ingestion of one source."""

    def __init__(self, state: State, source: str, tenant: str, acl: str = "", label: str = "") -> None:
        super().__init__(state, entrypoint(_config(state), source_uri(source), tenant, acl, label), {"tenant": tenant})


class ReindexJob(Job):
    """Filling the index for another embedding model, and comparing the two."""

    def __init__(self, state: State, model: Path, given: Mapping[str, Any], sample: int, seed: int) -> None:
        command = reindex_entrypoint(_config(state), model, given, sample, seed)
        super().__init__(state, command, {"model": model.name})


def _config(state: State) -> Path:
    return Path(state.data_dir) / "serve_config.yaml"


def read_progress(line: str) -> Progress | None:
    """Read a progress line of `python -m ingest`; None for any other line."""
    found = _PROGRESS.search(line)
    return Progress(int(found[1]), int(found[2]), int(found[3]), float(found[4])) if found else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
