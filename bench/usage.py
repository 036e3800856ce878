"""What the processes of a service use: CPU seconds and memory, by the part they have."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from bench.context import Service
from cluster.processes import MILVUS, milvus_processes, ray_processes

SAMPLE_S = 5.0
"""Weighing twenty processes takes 0.2 s of a core."""
_STAGE = re.compile(r"\b(Prepare|Embed|Write)\b")


@dataclass(slots=True)
class Usage:
    """What processes used, by name: CPU seconds over the whole time, and their highest memory in MB."""

    cpu_s: dict[int, tuple[str, float]] = field(default_factory=dict)
    peak_mb: dict[int, tuple[str, float]] = field(default_factory=dict)
    peak_workers_mb: float = 0.0

    def by_name(self) -> dict[str, dict[str, float]]:
        """Sum CPU seconds, and take the highest memory of one process, for each name."""
        names: dict[str, dict[str, float]] = {}
        for pid, (name, seconds) in self.cpu_s.items():
            row = names.setdefault(name, {"cpu_s": 0.0, "peak_pss_mb": 0.0})
            row["cpu_s"] = round(row["cpu_s"] + seconds, 1)
            row["peak_pss_mb"] = max(row["peak_pss_mb"], self.peak_mb.get(pid, (name, 0.0))[1])
        return dict(sorted(names.items(), key=lambda item: -item[1]["cpu_s"]))


@contextmanager
def sampled(running: Service) -> Iterator[Usage]:
    """Watch the service's processes until the block ends."""
    usage, over = Usage(), threading.Event()
    first = {process.pid: _cpu_s(process) for process in _all(running)}

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            note(usage, _all(running), first)

    thread = threading.Thread(target=watch, name="usage", daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        over.set()
        thread.join()


def note(usage: Usage, processes: list[psutil.Process], first: Mapping[int, float]) -> None:
    """Take one sample. A process that is gone keeps its last one."""
    workers = 0.0
    for process in processes:
        try:
            title = " ".join(process.cmdline()) or process.name()
            name, memory = process_name(title), process.memory_full_info().pss / 1e6
            usage.cpu_s[process.pid] = name, _cpu_s(process) - first.get(process.pid, 0.0)
        except psutil.Error:
            continue
        highest = max(memory, usage.peak_mb.get(process.pid, (name, 0.0))[1])
        usage.peak_mb[process.pid] = name, round(highest, 1)
        workers += memory if name.startswith("worker ") else 0.0
    usage.peak_workers_mb = max(usage.peak_workers_mb, round(workers, 1))


def process_name(title: str) -> str:
    """Name a process by the part it has in an ingestion."""
    found = _STAGE.findall(title)
    if title.startswith("ray::ServeReplica"):
        return "replica " + title.split(":")[-1].split(".")[0].split(" ")[0]
    if title.startswith("ray::"):
        return f"worker {found[-1]}" if found else title.split(" ")[0].split(".")[0][:40]
    if "-m ingest bulk" in title:
        return "the job's driver"
    for word in ("milvus-lite", "raylet", "gcs_server", "dashboard"):
        if word in title:
            return MILVUS if word == "milvus-lite" else word
    return "other"


def cpu_by_name(running: Service) -> dict[str, float]:
    """Sum the CPU seconds that the processes living now have used, by name."""
    names: dict[str, float] = defaultdict(float)
    for process in _all(running):
        try:
            names[process_name(" ".join(process.cmdline()) or process.name())] += _cpu_s(process)
        except psutil.Error:
            continue
    return dict(names)


def _all(running: Service) -> list[psutil.Process]:
    return [*milvus_processes(running.state), *ray_processes(running.state)]


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
