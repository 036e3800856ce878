"""`down` ends what `up` started, all of it, and nothing else: real processes, real files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.local import down, stop
from cluster.processes import MARK, MILVUS, alive, exposed, mark, ray_processes, stop_ray, table
from cluster.state import Ports, StartedProcess, State, read_state
from policies.errors import ConfigurationError

Start = Callable[..., subprocess.Popen[bytes]]

SLEEP = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
HOLDER = "import sys, time; log = open(sys.argv[1], 'w'); print(1, flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, sys, time; log = open(sys.argv[1], 'w');"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True); time.sleep(600)"
)
CLOSER = (
    "import signal, sys, time\n"
    "def close(*_): open(sys.argv[1], 'w').write('closed'); sys.exit(0)\n"
    "signal.signal(signal.SIGINT, close); print(1, flush=True); time.sleep(600)"
)
LISTENER = (
    "import socket, sys, time; server = socket.create_server(('127.0.0.1', 0)); log = open(sys.argv[1], 'w');"
    "print(server.getsockname()[1], flush=True); time.sleep(600)"
)


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(
        code: str, *arguments: str, of: State | None = None, title: str = sys.executable
    ) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **({MARK: of.ray_temp} if of else {})}
        command = [title, "-c", code, *arguments]
        process = subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE, env=environment)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def state(tmp_path: Path) -> State:
    temp = tmp_path / "ray"
    temp.mkdir()
    found = State(str(tmp_path), "serve.yaml", "127.0.0.1", Ports(1, 2, 3, 4, 5), str(temp), time.time())
    found.save()
    return found


def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def marked(name: str, process: subprocess.Popen[bytes]) -> StartedProcess:
    found = mark(name, process.pid)
    assert found is not None
    return found


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_what_carries_this_rays_mark_is_ended_and_nobody_else(state: State, start: Start) -> None:
    ours, other = start(SLEEP, of=state), start(SLEEP)

    assert [process.pid for process in ray_processes(state)] == [ours.pid]
    assert stop(state) == 1

    assert ours.poll() is not None
    assert other.poll() is None


def test_who_looks_at_rays_logs_is_left_alone(state: State, start: Start) -> None:
    reader = start(HOLDER, f"{state.ray_temp}/log")
    said(reader)

    assert ray_processes(state) == []
    assert stop(state) == 0

    assert reader.poll() is None


@pytest.mark.parametrize("title", ["ray::IDLE", "ray-dashboard-JobHead-0"])
def test_rays_own_are_known_by_title_and_log_where_the_title_covers_the_mark(
    state: State, start: Start, title: str
) -> None:
    ours, elsewhere = (start(HOLDER, f"{place}/log", title=title) for place in (state.ray_temp, state.data_dir))
    said(ours), said(elsewhere)

    assert [process.pid for process in ray_processes(state)] == [ours.pid]


def test_a_neighbour_whose_directory_only_starts_alike_is_left_alone(state: State, start: Start) -> None:
    neighbours = [start(SLEEP, of=replace(state, ray_temp=f"{state.ray_temp}2"))]
    neighbours += [start(HOLDER, f"{state.ray_temp}2", title="ray::IDLE")]
    said(neighbours[1])

    stop(state)

    assert [neighbour.poll() for neighbour in neighbours] == [None, None]


def test_without_a_directory_nobody_is_ended_but_who_was_noted(state: State, start: Start) -> None:
    nowhere = replace(state, ray_temp="")
    noted, marked_empty = start(SLEEP), start(SLEEP, of=nowhere)

    assert ray_processes(nowhere) == []
    assert [process.pid for process in ray_processes(nowhere.having(marked("raylet", noted)))] == [noted.pid]
    assert marked_empty.poll() is None


def test_children_end_with_their_parents(state: State, start: Start) -> None:
    parent = start(PARENT, f"{state.data_dir}/log")
    child = psutil.Process(int(said(parent)))

    state.having(marked("raylet", parent)).save()

    stop(state)

    assert ended(child)


def test_workers_end_also_when_their_parents_died(state: State, start: Start) -> None:
    parent = start(PARENT, f"{state.ray_temp}/log", of=state)
    child = psutil.Process(int(said(parent)))
    state.having(marked("raylet", parent)).save()
    parent.kill()
    parent.wait()

    assert stop(state) == 1

    assert ended(child)


def test_who_ignores_sigterm_is_killed(state: State, start: Start) -> None:
    deaf = start(DEAF)
    said(deaf)

    assert stop_ray(state.having(marked("raylet", deaf)), wait_s=0.3) == 1

    assert deaf.poll() is not None


def test_the_store_closes_its_files_itself(state: State, start: Start, tmp_path: Path) -> None:
    (tmp_path / "milvus.open").touch()
    server = start(CLOSER, str(tmp_path / "closed"))
    said(server)
    state.having(marked(MILVUS, server)).save()

    assert down(tmp_path) == 1

    assert (tmp_path / "closed").read_text() == "closed"
    assert not (tmp_path / "milvus.open").exists()


def test_a_store_that_died_by_itself_counts_as_unclean(state: State, start: Start, tmp_path: Path) -> None:
    (tmp_path / "milvus.open").touch()
    server = start(SLEEP)
    note = marked(MILVUS, server)
    server.kill()
    server.wait()
    state.having(note).save()

    assert down(tmp_path) == 0

    assert (tmp_path / "milvus.open").exists()


def test_a_later_process_with_the_same_id_is_not_ours(state: State, start: Start) -> None:
    stranger = start(SLEEP)
    old = StartedProcess("raylet", stranger.pid, psutil.Process(stranger.pid).create_time() - 3600)

    assert alive(old) is None
    stop(state.having(old))

    assert stranger.poll() is None


def test_half_dead_is_no_obstacle_and_the_state_is_forgotten(state: State, start: Start, tmp_path: Path) -> None:
    dead, living = start(SLEEP), start(HOLDER, f"{state.ray_temp}/log", of=state)
    said(living)
    both = state.having(marked("gcs_server", dead), marked("raylet", living))
    dead.kill()
    dead.wait()
    both.save()

    assert down(tmp_path) == 1
    assert read_state(tmp_path) is None
    assert down(tmp_path) == 0


def test_the_table_has_memory_and_addresses(state: State, start: Start) -> None:
    port = said(start(LISTENER, f"{state.ray_temp}/log", of=state))

    (row,) = table(state)

    assert row.rss_mb > 1
    assert row.pss_mb is None or 0 < row.pss_mb <= row.rss_mb
    assert row.listening == (f"127.0.0.1:{port}",)
    assert exposed([row]) == []


def test_the_state_survives_a_round_trip_and_is_private(state: State, tmp_path: Path) -> None:
    more = state.having(StartedProcess("raylet", os.getpid(), 1.5))
    more.save()

    assert read_state(tmp_path) == more
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"ports": {}, "processes": []}'])
def test_a_damaged_state_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)

    with pytest.raises(ConfigurationError, match="end what still runs and remove it"):
        read_state(tmp_path)
