"""What the whole service costs on one machine: seconds to the first cited answer, idle memory, listening addresses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.context import ROOT, Figure, busy_share, directory, machine, save, say
from cluster.local import stop
from cluster.processes import ProcessRow, exposed, table
from cluster.state import read_state

CITATION = "[1] "
IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Demo:
    """A run of the demo. `cited_s`: from its start to the first answer with a citation, None where none came."""

    returncode: int
    seconds: float
    cited_s: float | None
    output: str


def run(idle_s: float = IDLE_S) -> list[Figure]:
    """Measure, write `footprint.json`, and give the table's lines."""
    before, busy = machine(), busy_share()
    with directory() as home:
        try:
            demo = run_demo(home)
            say(f"idle for {idle_s:.0f} s")
            time.sleep(idle_s)
            state = read_state(home)
            rows = table(state) if state is not None else []
        finally:
            state = read_state(home)
            if state is not None:
                stop(state)
    if demo.returncode != 0 or demo.cited_s is None or not rows:
        raise RuntimeError(f"the demo failed:\n{demo.output[-4_000:]}")
    result = summary(demo, rows, idle_s)
    save("footprint", {"busy_share_before": busy, **result}, before)
    open_to_others = result["not_loopback"]
    return [
        Figure("footprint", "start to first cited answer", f"{demo.cited_s:.1f} s", 1),
        Figure("footprint", f"idle memory after {idle_s:.0f} s", f"{result['pss_mb']:.0f} MB PSS", len(rows)),
        Figure("footprint", "the same, shared pages in full", f"{result['rss_mb']:.0f} MB RSS", len(rows)),
        Figure("footprint", "processes", str(len(rows)), len(rows)),
        Figure(
            "footprint",
            "addresses beyond loopback",
            ", ".join(open_to_others) or "none",
            result["listening"],
            "none",
            not open_to_others,
            must=True,
        ),
    ]


def run_demo(home: Path) -> Demo:
    """Run `python -m examples.demo` with its data in `home`, on the configuration's own ports."""
    env = {**os.environ, "RAYRAG_DATA_DIR": str(home), "PYTHONUNBUFFERED": "1", "COLUMNS": "240"}
    started = time.perf_counter()
    cited_s = None
    output = []
    command = [sys.executable, "-m", "examples.demo"]
    with subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if cited_s is None and is_citation(line):
                cited_s = time.perf_counter() - started
    return Demo(process.returncode, time.perf_counter() - started, cited_s, "".join(output))


def is_citation(line: str) -> bool:
    """Say whether a line of the demo's output is a citation."""
    return line.strip().startswith(CITATION)


def summary(demo: Demo, rows: Sequence[ProcessRow], idle_s: float) -> dict[str, Any]:
    """Put times, memory and addresses together."""
    return {
        "first_cited_answer_s": None if demo.cited_s is None else round(demo.cited_s, 1),
        "demo_s": round(demo.seconds, 1),
        "idle_s": idle_s,
        "rss_mb": round(sum(row.rss_mb for row in rows), 1),
        "pss_mb": round(sum(_pss(row) for row in rows), 1),
        "by_name": by_name(rows),
        "listening": sum(len(row.listening) for row in rows),
        "not_loopback": [f"{row.name} {address}" for row, address in exposed(rows)],
        "processes": [asdict(row) for row in rows],
    }


def by_name(rows: Iterable[ProcessRow]) -> dict[str, dict[str, float]]:
    """Sum processes of one name, heaviest first."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: {"processes": 0, "rss_mb": 0.0, "pss_mb": 0.0})
    for row in rows:
        line = found[row.name]
        line["processes"] += 1
        line["rss_mb"] = round(line["rss_mb"] + row.rss_mb, 1)
        line["pss_mb"] = round(line["pss_mb"] + _pss(row), 1)
    return dict(sorted(found.items(), key=lambda item: -item[1]["pss_mb"]))


def _pss(row: ProcessRow) -> float:
    return row.rss_mb if row.pss_mb is None else row.pss_mb
