"""The whole service on one machine: what `rayrag up`, `down` and `status` do."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2

from cluster import milvus, processes, ray_head
from cluster.closing import faults_before, faults_of, refuse
from cluster.dashboard import applications, deploy, failure
from cluster.preflight import prepare_directory, require_disk, require_free
from cluster.serve_file import ServeFile, read_serve_file, write_effective
from cluster.state import Ports, State, ray_token_file, read_state
from deployments.identity import development_issuers
from index.ledger import Ledger
from index.models import Models, is_behind
from index.settings import AppArgs, load
from ingest.source_states import source_states
from policies.errors import ConfigurationError, RayragError, Unavailable

READY_S = 600.0
GCS_PORT, DASHBOARD_PORT, METRICS_PORT = 6379, 8265, 8266

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line may say about a start. `ready_s`: how long to wait for the deployments."""

    config: Path
    data_dir: str | None = None
    port: int | None = None
    gcs_port: int = GCS_PORT
    dashboard_port: int = DASHBOARD_PORT
    metrics_port: int = METRICS_PORT
    ready_s: float = READY_S
    insecure_dev: bool = False


@dataclass(frozen=True, slots=True)
class UpResult:
    """A running service. `already`: it was running before. `warnings` are for the operator's eyes."""

    state: State
    already: bool
    seconds: float
    warnings: tuple[str, ...] = ()


def up(options: UpOptions, progress: Progress) -> UpResult:
    """Start what does not run yet and wait until the service answers. Running already is no error.

    Raises `ConfigurationError` for what the operator can put right, `Unavailable` for a part that does not come
    up; what was started until then is ended again.
    """
    started = time.monotonic()
    data_dir = Path(load(options.config, options.data_dir).data_dir)
    prepare_directory(data_dir)
    with _alone(data_dir):
        state = read_state(data_dir)
        if state is not None and _is_whole(state):
            open_parts = refuse(faults_of(state), options.insecure_dev and state.insecure_dev)
            return UpResult(state, True, time.monotonic() - started, open_parts)
        if state is not None:
            _require_remains_gone(state)
        file = read_serve_file(options.config, options.data_dir, options.port)
        tolerated = refuse(faults_before(file, version("ray"), os.environ), options.insecure_dev)
        state = _checked(file, options)
        make_secrets(file.args)
        behind = settle_model(file.args)
        write_effective(file)
        state = State(**{**_fields(state), "ray_temp": str(ray_head.temp_directory(data_dir))})
        state.save()
        try:
            state = _start_parts(state, file, progress)
            deploy(state, file.document)
            _wait_until_ready(state, options.ready_s, progress)
            tolerated += refuse(faults_of(state), options.insecure_dev)
        except BaseException:
            # Also on Ctrl-C: nothing half started stays behind.
            stop(state)
            raise
        warnings = [*tolerated, *([behind] if behind else [])]
        return UpResult(state, False, time.monotonic() - started, tuple(warnings))


def down(data_dir: Path) -> int:
    """End what `up` started and nothing else, however much of it is dead already. Returns how many processes ended."""
    state = read_state(data_dir)
    return 0 if state is None else stop(state)


def stop(state: State) -> int:
    """End the processes of a service, writers before the store, and forget it. Returns how many there were."""
    # `up` may have been interrupted between a start and its note.
    state = read_state(Path(state.data_dir)) or state
    ended = processes.stop_ray(state)
    running = len(processes.milvus_processes(state))
    if processes.stop_milvus(state) and running:
        milvus.closed_cleanly(Path(state.data_dir))
    ray_head.remove_temp_directory(state)
    state.forget()
    return ended + running


def addresses(state: State) -> dict[str, str]:
    """Give the addresses that an operator wants to know."""
    return {
        "api": state.api,
        "metrics": f"{state.api}/metrics",
        "ray_dashboard": state.dashboard,
        "ray_metrics": f"http://127.0.0.1:{state.ports.metrics}/metrics",
    }


def status(state: State) -> dict[str, Any]:
    """Describe a service: addresses, readiness, deployments, documents, dead letters, processes with memory."""
    rows = processes.table(state)
    found: dict[str, Any] = {
        "running": _is_whole(state),
        "ready": is_ready(state),
        "data_dir": state.data_dir,
        "config": state.config,
        "insecure_dev": state.insecure_dev,
        "started_at": state.started_at,
        "addresses": addresses(state),
        "applications": [],
        "index": None,
        "sources": [],
        "memory": {
            "rss_mb": round(sum(row.rss_mb for row in rows), 1),
            "pss_mb": round(sum(row.pss_mb if row.pss_mb is not None else row.rss_mb for row in rows), 1),
        },
        "processes": [asdict(row) for row in rows],
        "errors": [],
    }
    for key, ask in (("applications", _applications), ("index", _index), ("sources", _sources)):
        try:
            found[key] = ask(state)
        except RayragError as error:
            found["errors"].append(error.detail)
    return found


def is_ready(state: State) -> bool:
    """Ask the service whether it answers questions."""
    try:
        return httpx2.get(f"{state.api}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def make_secrets(args: AppArgs) -> None:
    """Make the development issuers' keys, the scrape token and Ray's token where there are none; files 0600."""
    development_issuers(args.identity)
    data_dir = Path(args.data_dir)
    _make_token(ray_token_file(data_dir))
    scrape = Path(args.identity.scrape_token_file) if args.identity.scrape_token_file else None
    if scrape is not None and scrape.is_relative_to(data_dir):
        _make_token(scrape)


def settle_model(args: AppArgs) -> str | None:
    """Check that the configuration's embedding model is the index's, before anything starts.

    Says what to put into the file where it still names the one before a promotion. Raises `ConfigurationError`.
    """
    models = Models(args.store.ledger)
    try:
        return is_behind(models.settle(args.embedding), args.embedding)
    finally:
        models.close()


def _make_token(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32))


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Keep a second `rayrag up` of the same directory out."""
    with (data_dir / "up.lock").open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"Another rayrag up is at work in {data_dir}: wait until it is done.") from error
        yield


def _is_whole(state: State) -> bool:
    """Say whether every process that `up` marked still lives. A start that was cut short has marked too few."""
    names = {started.name for started in state.processes}
    complete = {"raylet", "gcs_server"} <= names and (state.ports.milvus is None or processes.MILVUS in names)
    return complete and all(processes.alive(started) for started in state.processes)


def _require_remains_gone(state: State) -> None:
    left = [*processes.milvus_processes(state), *processes.ray_processes(state)]
    if left:
        raise ConfigurationError(
            f"A part of what was started in {state.data_dir} still runs ({len(left)} processes): "
            "run rayrag down, then rayrag up."
        )
    stop(state)


def _checked(file: ServeFile, options: UpOptions) -> State:
    """Check the machine, and plan what will run where."""
    data_dir = Path(file.args.data_dir)
    require_disk(data_dir)
    port = milvus.local_port(file.args.store)
    ports = Ports(file.port, options.gcs_port, options.dashboard_port, options.metrics_port, port)
    if len({*asdict(ports).values()}) < len(asdict(ports)):
        raise ConfigurationError("Two parts would listen on one port: give each of them its own.")
    wanted = {
        "HTTP": (file.host, ports.http, "end that program or give another port with --port"),
        "Ray": ("127.0.0.1", ports.gcs, "end that program or give another with --ray-port"),
        "Ray's dashboard": ("127.0.0.1", ports.dashboard, "end that program or give another with --dashboard-port"),
        "Ray's metrics": ("127.0.0.1", ports.metrics, "end that program or give another with --metrics-port"),
    }
    if port is not None:
        remedy = "end that program, which is not ours, or give another port in store.uri"
        wanted["Milvus Lite (store.uri)"] = ("127.0.0.1", port, remedy)
    require_free(wanted)
    path, insecure = str(file.path.absolute()), options.insecure_dev
    return State(str(data_dir), path, file.host, ports, "", time.time(), insecure_dev=insecure)


def _fields(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in State.__slots__}


def _start_parts(state: State, file: ServeFile, progress: Progress) -> State:
    data_dir = Path(state.data_dir)
    server = None
    if state.ports.milvus is not None:
        server = milvus.start(data_dir, state.ports.milvus)
        noted = processes.mark(processes.MILVUS, server.pid)
        state = state.having(noted) if noted else state
        state.save()
    else:
        milvus.require_answer(file.args.store)
    # Ray takes longest, and needs no Milvus to start.
    progress("starting Ray and Milvus Lite" if server else "starting Ray")
    state = state.having(*ray_head.start(state))
    state.save()
    if server is not None and state.ports.milvus is not None:
        milvus.wait_until_up(server, state.ports.milvus, data_dir / "logs" / "milvus.log")
    progress("Ray runs; deploying")
    return state


def _wait_until_ready(state: State, timeout_s: float, progress: Progress) -> None:
    deadline = time.monotonic() + timeout_s
    said = ""
    while time.monotonic() < deadline:
        if is_ready(state):
            return
        for application in _statuses(state):
            if application.failed:
                raise Unavailable(failure(application))
            if application.progress != said:
                said = application.progress
                progress(said)
        if not _is_whole(state):
            raise Unavailable(f"A process ended while the service started: see {state.ray_temp}/session_latest/logs.")
        time.sleep(0.5)
    raise Unavailable(f"The service was not ready within {timeout_s:.0f} s ({said}): see rayrag status.")


def _statuses(state: State) -> list[Any]:
    try:
        return list(applications(state))
    except Unavailable:
        # Serve's controller is on its way; the deadline is the judge.
        return []


def _applications(state: State) -> list[dict[str, Any]]:
    return [asdict(application) for application in applications(state)]


def _index(state: State) -> dict[str, Any]:
    args = read_serve_file(Path(state.data_dir) / "serve_config.yaml", state.data_dir).args
    ledger = Ledger(args.store.ledger)
    try:
        return asdict(ledger.counts())
    finally:
        ledger.close()


def _sources(state: State) -> list[dict[str, Any]]:
    ledger = Ledger(load(Path(state.config), state.data_dir).store.ledger)
    try:
        return [asdict(source) for source in source_states(ledger)]
    finally:
        ledger.close()
