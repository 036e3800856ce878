"""The processes of one running service: which they are, what they weigh, where they listen, how they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.state import StartedProcess, State

MILVUS = "milvus-lite"
MARK = "RAYRAG_RAY"
"""The variable in the environment of a Ray, and of all that it starts, which says whose it is: its directory."""
RAY_TITLES = ("ray::", "ray-dashboard-")
RAY_STOP_S = 15.0
MILVUS_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process. `rss_mb` counts shared pages in full, `pss_mb` by share (None where the system does not tell)."""

    pid: int
    name: str
    rss_mb: float
    pss_mb: float | None
    listening: tuple[str, ...]


def mark(name: str, pid: int) -> StartedProcess | None:
    """Note a process for later; None when it is gone already."""
    try:
        return StartedProcess(name, pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def alive(started: StartedProcess) -> psutil.Process | None:
    """Find the very process that was started, not a later one with its id."""
    try:
        process = psutil.Process(started.pid)
        same = abs(process.create_time() - started.created) < 0.05
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def milvus_processes(state: State) -> list[psutil.Process]:
    """Find the Milvus Lite server that we started, where it lives."""
    found = [alive(started) for started in state.processes if started.name == MILVUS]
    return [process for process in found if process is not None]


def ray_processes(state: State) -> list[psutil.Process]:
    """Find every process of this Ray, its jobs' drivers and their children included, also after its parents died.

    Its own are those that `up` noted, those that carry its mark, and what descends from these. Who merely reads or
    writes below its directory is somebody else: an operator with a log on the screen.
    """
    roots = [alive(started) for started in state.processes if started.name != MILVUS]
    found = {process.pid: process for process in roots if process is not None}
    if state.ray_temp:
        found.update({process.pid: process for process in psutil.process_iter() if _is_marked(process, state.ray_temp)})
    for process in list(found.values()):
        try:
            found.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.NoSuchProcess:
            continue
    # `rayrag up` may itself be a descendant's parent, never one of Ray's.
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _lives(process)]


def table(state: State) -> list[ProcessRow]:
    """List all processes of the service, heaviest first."""
    rows = (_row(process) for process in (*milvus_processes(state), *ray_processes(state)))
    return sorted((row for row in rows if row is not None), key=lambda row: -row.rss_mb)


def exposed(rows: Iterable[ProcessRow], allowed_ports: Collection[int] = ()) -> list[tuple[ProcessRow, str]]:
    """Find the addresses that other machines could reach, but for `allowed_ports`."""
    return [
        (row, address)
        for row in rows
        for address in row.listening
        if not is_loopback(address.rsplit(":", 1)[0]) and int(address.rsplit(":", 1)[1]) not in allowed_ports
    ]


def is_loopback(host: str) -> bool:
    """Say whether an address, as the system spells it, is this machine's own."""
    return host.startswith(("127.", "::ffff:127.")) or host in ("::1", "localhost")


def listener(port: int) -> psutil.Process | None:
    """Find who listens on a port of this machine; None where that cannot be known."""
    for process in psutil.process_iter():
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return process
    return None


def stop_ray(state: State, wait_s: float = RAY_STOP_S) -> int:
    """End all processes of this Ray. Returns how many there were."""
    processes = ray_processes(state)
    _end(processes, signal.SIGTERM, wait_s)
    # What was being started while the others ended.
    late = ray_processes(state)
    _end(late, signal.SIGKILL, wait_s)
    return len({process.pid for process in (*processes, *late)})


def stop_milvus(state: State, wait_s: float = MILVUS_STOP_S) -> bool:
    """End Milvus Lite. True when it closed its files itself: SIGINT is the only signal after which it does."""
    processes = milvus_processes(state)
    return _end(processes, signal.SIGINT, wait_s)


def _end(processes: Collection[psutil.Process], first: signal.Signals, wait_s: float) -> bool:
    """Send a signal, then SIGKILL to who is left. True when nobody was."""
    for process in processes:
        _send(process, first)
    _, left = psutil.wait_procs(list(processes), timeout=wait_s)
    for process in left:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=wait_s)
    return not left


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_marked(process: psutil.Process, ray_temp: str) -> bool:
    try:
        if process.environ().get(MARK) == ray_temp:
            return True
        # Ray writes its processes' titles over their environment where the command line is too short for them.
        titled = process.cmdline()[:1] and process.cmdline()[0].startswith(RAY_TITLES)
        return bool(titled) and any(file.path.startswith(f"{ray_temp}/") for file in process.open_files())
    except (psutil.Error, OSError):
        return False


def _row(process: psutil.Process) -> ProcessRow | None:
    try:
        memory = process.memory_info().rss
        listening = {
            f"{connection.laddr.ip}:{connection.laddr.port}"
            for connection in process.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        name = _name(process)
        return ProcessRow(process.pid, name, round(memory / 1e6, 1), _pss_mb(process), tuple(sorted(listening)))
    except psutil.NoSuchProcess:
        return None


def _pss_mb(process: psutil.Process) -> float | None:
    try:
        return float(round(process.memory_full_info().pss / 1e6, 1))
    except (psutil.AccessDenied, AttributeError):
        return None


def _name(process: psutil.Process) -> str:
    """Name a process as an operator knows it: Ray's title, the module, or the program's file."""
    words: list[str] = process.cmdline()
    if not words:
        return str(process.name())
    if len(words) == 1 or words[0].startswith(("ray::", "ray-dashboard-")):
        return words[0].split(" ")[0]
    if "-c" in words[:-1]:
        code = words[words.index("-c") + 1]
        return next((part for part in ("forkserver", "resource_tracker") if part in code), "python -c")
    if Path(words[0]).name.startswith("python"):
        rest = [word for word in words[1:] if not word.startswith("-") or word == "-m"]
        return Path(rest[1] if rest[:1] == ["-m"] and len(rest) > 1 else rest[0]).name if rest else "python"
    return Path(words[0]).name
