"""A Ray head on this machine: everything on loopback, token authentication on, nothing that stays unused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import psutil

from cluster.preflight import free_ports
from cluster.processes import MARK, mark, ray_processes
from cluster.serve_file import SERVE_ENVIRONMENT
from cluster.state import StartedProcess, State
from cluster.worker_setup import HOOK, HOOK_VARIABLE
from deployments.closed import INSECURE_VARIABLE
from policies.errors import Unavailable

PROJECT_ROOT = Path(__file__).resolve().parent.parent
MAX_TEMP_CHARS = 40
"""A socket's path holds 107 bytes, and Ray adds up to 64 of its own."""
OBJECT_STORE_BYTES = 300_000_000
MIN_CPUS = 4
"""Ray's CPUs are bookings, not cores: fewer would leave no room for an ingestion beside the service."""
START_S = 300.0
REASON_LINES = 3
"""How much of its log tells why Ray did not start: its errors end with a hint, after what went wrong."""


def temp_directory(data_dir: Path) -> Path:
    """Give Ray's directory: below `data_dir` where sockets fit there, else a new one with a short name."""
    inside = data_dir / "ray"
    if len(str(inside)) <= MAX_TEMP_CHARS and not any(letter.isspace() for letter in str(inside)):
        shutil.rmtree(inside, ignore_errors=True)  # the logs of the time before
        inside.mkdir(mode=0o700)
        return inside
    # Ray opens its directory to everyone; the one around it stays closed.
    inside = Path(tempfile.mkdtemp(prefix="rayrag-", dir="/tmp" if Path("/tmp").is_dir() else None)) / "r"  # noqa: S108
    inside.mkdir(mode=0o700)
    return inside


def remove_temp_directory(state: State) -> None:
    """Remove Ray's directory where it is not below `data_dir`; there, its logs stay until the next start."""
    outside = Path(state.ray_temp).parent
    if state.ray_temp and outside != Path(state.data_dir):
        shutil.rmtree(outside, ignore_errors=True)


def environment(state: State) -> dict[str, str]:
    """Give the environment of Ray and of everything that it starts."""
    data_dir = Path(state.data_dir)
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(PROJECT_ROOT),
        "RAYRAG_DATA_DIR": str(data_dir),
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": (os.environ.get("RAY_AUTH_MODE") if state.insecure_dev else None) or "token",
        INSECURE_VARIABLE: "1" if state.insecure_dev else "0",
        "RAY_AUTH_TOKEN_PATH": str(state.ray_token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # By its name for other systems, but this is what keeps Ray from turning 127.0.0.1 into the host's
        # address on the network (ray/_private/services.py: get_node_ip_address).
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        HOOK_VARIABLE: HOOK,
        # Idle workers of a job that is over hold about 90 MB each.
        "RAY_num_workers_soft_limit": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        **SERVE_ENVIRONMENT,
        # Serve's controller looks ten times a second by default, which takes a tenth of a core while nothing happens;
        # so it takes a twentieth (top over 10 s, one look each).
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
        "RAY_COLOR_PREFIX": "0",
    }
    # Settings of another Ray, or of the shell's, do not leak into this one.
    foreign = {
        "RAY_GCS_SERVER_PORT",
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_NAMESPACE",
        "PYTHONHOME",
    }
    return {**{name: value for name, value in os.environ.items() if name not in foreign}, **own}


def interpreter(state: State) -> Path:
    """Give this Python by a path without spaces: Ray starts a job's workers by a shell line that quotes nothing."""
    python = Path(sys.executable)
    if not any(letter.isspace() for letter in str(python)):
        return python
    link = Path(state.ray_temp) / "venv"
    if not link.is_symlink():
        link.symlink_to(python.parent.parent, target_is_directory=True)
    return link / "bin" / python.name


def command(state: State) -> list[str]:
    """Give the command line that starts the head."""
    ports = state.ports
    agent, client_server = free_ports(2, taken={port for port in asdict(ports).values() if port is not None})
    return [
        str(interpreter(state)),
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--disable-usage-stats",
        "--log-style=record",
        "--node-ip-address=127.0.0.1",
        f"--port={ports.gcs}",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--metrics-export-port={ports.metrics}",
        f"--ray-client-server-port={client_server}",
        # Any free port: the default range holds Milvus' own.
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--num-cpus={max(MIN_CPUS, os.cpu_count() or 1)}",
        f"--object-store-memory={object_store_bytes()}",
        f"--temp-dir={state.ray_temp}",
        # Neither copying workers' output to drivers nor the autoscaler has a use on one machine: 170 MB.
        "--include-log-monitor=false",
        "--no-monitor",
    ]


def object_store_bytes() -> int:
    """Size the shared memory: modest, and below what the machine's has."""
    available: int = psutil.virtual_memory().available // 4
    shared = Path("/dev/shm")  # noqa: S108
    if shared.is_dir():
        available = min(available, shutil.disk_usage(shared).free * 8 // 10)
    return max(80_000_000, min(OBJECT_STORE_BYTES, available))


def start(state: State, timeout_s: float = START_S) -> tuple[StartedProcess, ...]:
    """Start the head and name its processes. Raises `Unavailable` with Ray's last words when it does not come up."""
    log = Path(state.data_dir) / "logs" / "ray_start.log"
    # Once more where nothing of it stayed: another program may take a port between its choice and its use.
    if _start(state, log, timeout_s) != 0 and (ray_processes(state) or _start(state, log, timeout_s) != 0):
        raise Unavailable(f"Ray did not start: {_reason(log)} (see {log}).")
    _end_client_server(state)
    return roots(state)


def _start(state: State, log: Path, timeout_s: float) -> int:
    """Run `ray start` to its end. Gives its exit code."""
    with log.open("wb") as output:
        log.chmod(0o600)
        starter = subprocess.Popen(  # noqa: S603 - our own program, no shell
            command(state),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**environment(state), MARK: state.ray_temp},
            start_new_session=True,
            cwd=PROJECT_ROOT,
        )
    try:
        return starter.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        starter.kill()
        starter.wait()
        raise Unavailable(f"Ray did not start within {timeout_s:.0f} s: see {log}.") from error


def roots(state: State) -> tuple[StartedProcess, ...]:
    """Mark the processes without which this Ray is none: those that no other of its processes started."""
    found = ray_processes(state)
    ids = {process.pid for process in found}
    marks = []
    for process in found:
        try:
            name = "dashboard" if any(word.endswith("dashboard.py") for word in process.cmdline()) else process.name()
            marks.append(mark(name, process.pid) if process.ppid() not in ids else None)
        except psutil.NoSuchProcess:
            continue
    return tuple(each for each in marks if each is not None)


def _end_client_server(state: State) -> None:
    """End the server for Ray Client, which nobody uses here and which cannot be switched off: 95 MB and a port."""
    for process in ray_processes(state):
        try:
            if "ray.util.client.server" in process.cmdline():
                process.terminate()
                process.wait(10)
        except psutil.NoSuchProcess:
            continue


def _reason(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-REASON_LINES:])[-600:] if lines else "it said nothing"
