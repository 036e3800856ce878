"""Nothing starts on a Ray that is open to whoever reaches it; `--insecure-dev` goes on, and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster import cli, closing, local
from cluster.closing import faults_before, faults_of, refuse
from cluster.local import UpOptions, up
from cluster.preflight import free_ports, prepare_directory
from cluster.processes import ProcessRow
from cluster.ray_head import environment
from cluster.serve_file import ServeFile, read_serve_file
from cluster.state import Ports, State, read_state
from deployments.closed import faults, require_closed_cluster
from policies.errors import ConfigurationError, Unavailable

ROOT = Path(__file__).resolve().parents[3]
TOKEN = {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize(
    ("version", "mode", "said"),
    [
        ("2.60.0", "token", None),
        ("2.56.0", "token", None),
        ("2.55.9", "token", "Ray 2.55.9 has known holes: install 2.56 or later"),
        ("1.13.0", "token", "known holes"),
        ("3.0.0.dev0", "token", None),
        ("2.60.0", "disabled", "RAY_AUTH_MODE is disabled"),
        ("2.60.0", "", "RAY_AUTH_MODE is not set"),
        ("2.60.0", None, "RAY_AUTH_MODE is not set"),
        ("2.60.0", "TOKEN", "RAY_AUTH_MODE is TOKEN"),
        ("2.60.0", "k8s", "RAY_AUTH_MODE is k8s"),
    ],
)
def test_a_ray_that_is_old_or_open_is_named(version: str, mode: str | None, said: str | None) -> None:
    found = list(faults(version, {} if mode is None else {"RAY_AUTH_MODE": mode}))

    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.fixture
def in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: True)


@pytest.mark.usefixtures("in_a_cluster")
def test_the_application_is_not_built_on_an_open_cluster(caplog: pytest.LogCaptureFixture) -> None:
    require_closed_cluster(TOKEN)
    with pytest.raises(ConfigurationError, match=r"RAY_AUTH_MODE=token; .* --insecure-dev"):
        require_closed_cluster({"RAY_AUTH_MODE": "disabled"})
    with pytest.raises(ConfigurationError):
        require_closed_cluster({"RAYRAG_INSECURE_DEV": "0"})
    require_closed_cluster({"RAYRAG_INSECURE_DEV": "1"})
    assert "INSECURE: Ray asks nobody for a token" in caplog.text


@pytest.mark.usefixtures("in_a_cluster")
def test_building_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.app import build

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAYRAG_INSECURE_DEV", raising=False)
    args = read_serve_file(ROOT / "serve_config.yaml").args
    monkeypatch.setattr(
        "deployments.closed.require_closed_cluster.__defaults__", ({"RAY_AUTH_MODE": "disabled"},), raising=True
    )
    with pytest.raises(ConfigurationError, match="asks nobody for a token"):
        build(args)


def serve_file(tmp_path: Path, host: str, **http: Any) -> ServeFile:
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    document["http_options"]["host"] = host
    if http:
        document["applications"][0]["args"]["http"] = http
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(document))
    return read_serve_file(tmp_path / "serve.yaml", str(tmp_path / "data"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "rag.example"])
def test_http_beyond_this_machine_must_be_asked_for(tmp_path: Path, host: str) -> None:
    (fault,) = faults_before(serve_file(tmp_path, host), "2.60.0", {})

    assert "http_options.host" in fault and host in fault and "args.http.beyond_loopback: true" in fault
    assert not list(faults_before(serve_file(tmp_path, host, beyond_loopback=True), "2.60.0", {}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_alone_is_fine(tmp_path: Path, host: str) -> None:
    assert not list(faults_before(serve_file(tmp_path, host), "2.60.0", {}))


def test_an_environment_that_opens_ray_is_a_fault_and_one_that_is_silent_is_not(tmp_path: Path) -> None:
    file = serve_file(tmp_path, "127.0.0.1")

    assert not list(faults_before(file, "2.60.0", {"PATH": "/bin"}))
    assert list(faults_before(file, "2.60.0", {"RAY_AUTH_MODE": "disabled"}))


def test_nothing_is_started_where_something_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_file(tmp_path, "127.0.0.1")
    options = UpOptions(tmp_path / "serve.yaml", str(tmp_path / "data"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(local, "_start_parts", lambda *_: pytest.fail("it was started"))

    with pytest.raises(ConfigurationError, match=r"RAY_AUTH_MODE is disabled.*--insecure-dev"):
        up(options, lambda _: None)
    assert read_state(tmp_path / "data") is None


def test_tolerated_faults_are_said_loudly() -> None:
    assert refuse(iter(["one", "two"]), tolerated=True) == ("INSECURE: one.", "INSECURE: two.")
    with pytest.raises(ConfigurationError, match="one; for development alone"):
        refuse(iter(["one", "two"]), tolerated=False)
    assert refuse(iter([]), tolerated=False) == ()


def state(tmp_path: Path, dashboard: int = 1, insecure: bool = False, host: str = "127.0.0.1") -> State:
    ports = Ports(8000, 2, dashboard, 4, None)
    return State(str(tmp_path), "serve.yaml", host, ports, "", 0.0, insecure_dev=insecure)


def test_ray_asks_for_its_token_unless_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")

    assert environment(state(tmp_path))["RAY_AUTH_MODE"] == "token"
    assert environment(state(tmp_path))["RAYRAG_INSECURE_DEV"] == "0"
    assert environment(state(tmp_path, insecure=True))["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert environment(state(tmp_path, insecure=True))["RAY_AUTH_MODE"] == "token"


@pytest.fixture
def dashboard() -> Iterator[Callable[[int], int]]:
    """Starts something that answers everybody with one status, and gives its port."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> int:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "open_"), [(200, True), (404, True), (500, True), (401, False), (403, False)])
def test_a_running_ray_that_answers_without_a_token_is_open(
    tmp_path: Path, dashboard: Callable[[int], int], status: int, open_: bool
) -> None:
    found = list(faults_of(state(tmp_path, dashboard(status))))

    assert [("answers without its token" in fault) for fault in found] == ([True] if open_ else [])


def test_a_dashboard_that_does_not_answer_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        list(faults_of(state(tmp_path, *free_ports(1)), wait_s=0.3))


@pytest.mark.parametrize(
    ("host", "listening", "faults"),
    [
        ("127.0.0.1", ("127.0.0.1:8000", "::1:9"), 0),
        ("127.0.0.1", ("0.0.0.0:8000",), 1),
        ("0.0.0.0", ("0.0.0.0:8000",), 0),
        ("0.0.0.0", ("0.0.0.0:8000", ":::10001"), 1),
    ],
)
def test_a_socket_that_others_reach_is_a_fault_but_for_http_that_was_asked_for(
    tmp_path: Path,
    dashboard: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    listening: tuple[str, ...],
    faults: int,
) -> None:
    monkeypatch.setattr(closing, "table", lambda _: [ProcessRow(7, "ray::Part", 1.0, None, listening)])

    assert len(list(faults_of(state(tmp_path, dashboard(401), host=host)))) == faults


def test_status_and_start_say_that_a_service_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_directory(tmp_path / "data")
    open_ = state(tmp_path / "data", insecure=True)
    open_.save()
    assert read_state(tmp_path / "data") == open_
    result = SimpleNamespace(state=open_, already=False, seconds=1.0, warnings=("INSECURE: one.",))
    monkeypatch.setattr(local, "up", lambda *_: result)
    runner = CliRunner()

    started = runner.invoke(cli.app, ["up", "--insecure-dev", "--data-dir", str(tmp_path / "data")])
    shown = runner.invoke(cli.app, ["status", "--data-dir", str(tmp_path / "data")])
    as_json = runner.invoke(cli.app, ["status", "--json", "--data-dir", str(tmp_path / "data")])

    assert cli.INSECURE in started.output and "warning: INSECURE: one." in started.output
    assert cli.INSECURE in shown.output
    assert '"insecure_dev": true' in as_json.output


def test_a_data_directory_that_was_open_is_closed(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "secrets").mkdir(parents=True)
    for path in (data_dir, data_dir / "secrets"):
        path.chmod(0o777)

    prepare_directory(data_dir)
    assert [path.stat().st_mode & 0o777 for path in (data_dir, data_dir / "secrets")] == [0o700, 0o700]
