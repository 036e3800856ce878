"""What every measurement shares: the machine it ran on, a service of its own, and where its result goes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml

from cluster.local import UpOptions, stop, up
from cluster.preflight import free_ports
from cluster.state import State
from deployments.identity import development_issuer
from index.settings import AppArgs, load
from policies.issuing import DevelopmentIssuer

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("ray", "pymilvus", "milvus-lite", "openvino", "numpy", "tokenizers", "sqlalchemy", "fastapi")
READY_S = 300.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `met` is None where there is no target; `must`: a miss is a fault on any machine."""

    bench: str
    name: str
    value: str
    n: int
    target: str = ""
    met: bool | None = None
    must: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A running service of the measurement's own, in a directory of its own."""

    state: State
    config: Path
    args: AppArgs
    issuer: DevelopmentIssuer

    def token(self, tenant: str) -> str:
        """Sign a token for a plain user."""
        return self.issuer.sign("bench", tenant, ["user"], [], 21_600)

    def client(self, tenant: str) -> httpx2.Client:
        """Open a connection that asks as a plain user of the tenant."""
        headers = {"Authorization": f"Bearer {self.token(tenant)}"}
        return httpx2.Client(base_url=self.state.api, headers=headers, timeout=60, trust_env=False)


def machine() -> dict[str, Any]:
    """Describe the machine, what else it is doing, and the versions, at this moment."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def busy_share(seconds: float = 2.0) -> float:
    """Measure which share of all cores others use just now; the load average forgets too slowly."""
    return round(float(psutil.cpu_percent(seconds)) / 100, 2)


@contextmanager
def directory(kept: Path | None = None) -> Iterator[Path]:
    """Give a directory: the one named, which stays, or a temporary one, which goes."""
    if kept is not None:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield kept
        return
    temporary = Path(tempfile.mkdtemp(prefix="rayrag-bench-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def configure(home: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the product's configuration for `home` with `changes` to its `args`, section by section."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    args = document["applications"][0]["args"]
    args["data_dir"] = str(home)
    args["store"]["uri"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    for section, values in (changes or {}).items():
        args[section] = {**args.get(section, {}), **values}
    if args["reranking"]["kind"] == "none":  # the graph has no such deployment then, and Serve refuses its options
        application = document["applications"][0]
        application["deployments"] = [each for each in application["deployments"] if each["name"] != "Reranking"]
    path = home / "bench_config.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@contextmanager
def service(home: Path, changes: Mapping[str, Any] | None = None) -> Iterator[Service]:
    """Run the product's configuration in `home`, with `changes`, on free ports."""
    config = configure(home, changes)
    names = ("port", "gcs_port", "dashboard_port", "metrics_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    state = up(UpOptions(config, str(home), ready_s=READY_S, **ports), say).state
    try:
        settings = load(config, str(home))
        yield Service(state, config, settings, development_issuer(settings.identity))
    finally:
        stop(state)


def save(name: str, result: Mapping[str, Any], before: Mapping[str, Any]) -> Path:
    """Write a result with the machine as it was before, and the load as it is now, to `bench/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    ended = [round(value, 2) for value in os.getloadavg()]
    content = {"machine": {**before, "load_average_after": ended}, **result}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def quantile(values: Sequence[float], share: float) -> float:
    """Give the nearest-rank quantile. Raises `ValueError` for no values."""
    if not values:
        raise ValueError("no values, no quantile")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def say(line: str) -> None:
    """Say on stderr what happens."""
    print(f"  {line}", file=sys.stderr, flush=True)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
