"""What a stranger on this machine finds: only what the checked-in list names, and nothing that answers without a token.

A stranger has no token of Ray's and none of ours. Whoever reaches a Ray that asks for none runs code (RAY_AUTH_MODE).
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import psutil
import pytest
import yaml

from cluster import processes
from cluster.dashboard import ray_headers
from cluster.ray_head import environment

ROOT = Path(__file__).resolve().parents[2]
LISTED = yaml.safe_load((ROOT / "cluster" / "listening.yaml").read_text())
OPEN_HTTP = {"/healthz", "/readyz", "/v1/auth"}
"""Our routes that need no token (API contract): the probes, and the ways to sign in, as what is below /v1/auth/."""
OPEN_RAY = {"/api/authentication_mode", "/api/authenticate", "/api/healthz", "/api/gcs_healthz"} | {
    "/api/local_raylet_healthz"
}
"""What Ray's dashboard answers to everybody: whether it lives, and that it wants a token."""


def sockets(service: Any) -> Iterator[tuple[str, str, str, int]]:
    """Name, protocol, address and port of each socket that a process of the service listens on."""
    state = service.state
    for process in (*processes.milvus_processes(state), *processes.ray_processes(state)):
        try:
            name = processes._name(process)
            for each in process.net_connections(kind="inet"):
                if each.status == psutil.CONN_LISTEN or (each.type == socket.SOCK_DGRAM and not each.raddr):
                    yield name, "tcp" if each.type == socket.SOCK_STREAM else "udp", each.laddr.ip, each.laddr.port
        except psutil.NoSuchProcess:
            continue


def test_what_listens_is_what_the_list_names(service: Any) -> None:
    found = set(sockets(service))
    used = set()
    unknown = []
    for name, protocol, address, port in sorted(found):
        rows = [
            number
            for number, row in enumerate(LISTED)
            if row["protocol"] == protocol and fnmatch.fnmatch(name, row["process"]) and processes.is_loopback(address)
        ]
        used.update(rows[:1])
        if not rows:
            unknown.append(f"{name} {protocol} {address}:{port}")

    assert unknown == []
    assert used == set(range(len(LISTED))), "the list names what does not listen"


def ray_routes() -> set[tuple[str, str]]:
    """Every route that Ray's dashboard has, from Ray itself: one that is new is tested, too."""
    import ray.dashboard.modules
    from ray.dashboard import optional_utils
    from ray.dashboard.subprocesses.routes import SubprocessRouteTable

    for module in pkgutil.walk_packages(ray.dashboard.modules.__path__, "ray.dashboard.modules."):
        if "test" not in module.name:
            importlib.import_module(module.name)
    tables = (optional_utils.DashboardHeadRouteTable, SubprocessRouteTable)
    return {(each.method, each.path) for table in tables for each in table.routes() if hasattr(each, "path")}


CANARY = {"entrypoint": "touch {canary}", "runtime_env": {}}
STRANGERS: dict[str, dict[str, str]] = {
    "no token": {},
    "a wrong token": {"authorization": "Bearer wrong"},
    "a wrong token in Ray's own header": {"x-ray-authorization": "Bearer wrong"},
    "a wrong cookie": {"cookie": "ray-authentication-token=wrong"},
    "an empty token": {"authorization": "Bearer"},
    "another scheme": {"authorization": "Basic cmF5OnJheQ=="},
    "a browser's page": {"origin": "http://evil.example", "referer": "http://evil.example/", "user-agent": "Mozilla/5"},
    "a rebound name": {"host": "evil.example:8265", "origin": "http://127.0.0.1:8265"},
    "said to be local": {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "host": "localhost"},
}


def jobs(service: Any) -> list[dict[str, Any]]:
    answer = httpx2.get(f"{service.state.dashboard}/api/jobs/", headers=ray_headers(service.state), timeout=30)
    assert answer.status_code == 200
    return list(answer.json())


def test_no_route_of_rays_answers_a_stranger_and_no_job_starts(service: Any, tmp_path: Path) -> None:
    routes = ray_routes()
    assert {("POST", "/api/jobs/"), ("PUT", "/api/serve/applications/"), ("GET", "/api/v0/tasks")} <= routes
    canary, before = tmp_path / "canary", len(jobs(service))
    body = {"entrypoint": f"touch {canary}"}
    user = service.token("alice")
    strangers = {**STRANGERS, "a token of the application": {"authorization": f"Bearer {user}"}}
    answered = []
    with httpx2.Client(timeout=30) as client:
        for path in sorted({path for _, path in routes} - OPEN_RAY):
            url = service.state.dashboard + path.replace("{", "").replace("}", "").replace(":.*", "")
            own = {method for method, route in routes if route == path}
            for who, headers in strangers.items():
                # All methods where somebody without a token comes; of the others, those that there are.
                for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} if who == "no token" else own:
                    status = client.request(method, url, headers=headers, json=body).status_code
                    if status not in (401, 403):
                        answered.append(f"{method} {path} by {who}: {status}")

    assert answered == []
    assert len(jobs(service)) == before and not canary.exists()


def test_rays_open_routes_say_nothing(service: Any) -> None:
    for path in sorted(OPEN_RAY):
        answer = httpx2.get(service.state.dashboard + path, timeout=30)
        assert len(answer.content) < 200, path
        assert not [word for word in ("/", "token=", service.state.data_dir) if word in answer.text], path


UNASKED = """
import sys
from ray._raylet import GcsClient
try:
    print("keys", GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=10))
except Exception as error:
    print("refused", type(error).__name__, str(error)[:300])
"""
UNASKED_DRIVER = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", namespace="stranger")
    print("nodes", ray.nodes())
except BaseException as error:
    print("refused", type(error).__name__, str(error)[:300])
"""


UNINVITED = [(code, mode) for code in (UNASKED, UNASKED_DRIVER) for mode in ("disabled", "token")]


@pytest.fixture(scope="module")
def strangers(service: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Any]]:
    """Who comes without the token, all at once: Ray's client takes long to give up."""
    wrong = tmp_path_factory.mktemp("stranger") / "token"
    wrong.write_text("0" * 43)
    wrong.chmod(0o600)
    address = f"127.0.0.1:{service.state.ports.gcs}"
    begun = {}
    for code, mode in UNINVITED:
        env = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": str(wrong)}
        env |= {"RAY_gcs_rpc_server_connect_timeout_s": "5", "RAY_gcs_rpc_server_reconnect_timeout_s": "10"}
        begun[code, mode] = subprocess.Popen(
            [sys.executable, "-c", code, address], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    yield begun
    for process in begun.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "stranger", UNINVITED, ids=lambda who: f"{'driver' if who[0] == UNASKED_DRIVER else 'store'}-{who[1]}"
)
def test_rays_head_takes_nobody_without_its_token(strangers: Any, stranger: tuple[str, str]) -> None:
    done = strangers[stranger]
    told, complaint = done.communicate(timeout=240)
    said = told.strip().splitlines()

    # Ray's own client ends its process where it is refused, before Python hears of it.
    assert not [line for line in said if line.startswith(("keys", "nodes"))], told
    assert [line for line in said if line.startswith("refused")] or done.returncode != 0, complaint[-2000:]


GRPC = {
    "gcs_server": "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "raylet": "/ray.rpc.NodeManagerService/GetNodeStats",
    "ray::*": "/ray.rpc.CoreWorkerService/PushTask",
}
"""A call for each kind of process; what it carries does not matter, since a stranger is refused before it is read."""


def test_rays_grpc_refuses_who_brings_no_token(service: Any) -> None:
    answers: dict[str, set[str]] = {}
    for name, _, address, port in sorted(set(sockets(service))):
        for pattern, method in GRPC.items():
            if fnmatch.fnmatch(name, pattern):
                with grpc.insecure_channel(
                    f"{address.removeprefix('::ffff:')}:{port}", [("grpc.enable_http_proxy", 0)]
                ) as channel:
                    call: Any = channel.unary_unary(method, lambda body: body, lambda body: body)
                    try:
                        call(b"", timeout=5, metadata=(("authorization", "Bearer wrong"),))
                        answers.setdefault(pattern, set()).add(f"{name}:{port} answered")
                    except grpc.RpcError as error:
                        failed: Any = error
                        answers.setdefault(pattern, set()).add(failed.code().name)

    assert set(answers) == set(GRPC)
    # A port that is no gRPC of Ray's (HTTP, the object store, Serve's own) does not know the call, or does not answer.
    harmless = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"}
    assert {pattern: found - harmless for pattern, found in answers.items()} == {pattern: set() for pattern in GRPC}
    assert all("UNAUTHENTICATED" in found for found in answers.values()), answers


def test_ray_client_is_not_there(service: Any) -> None:
    assert not [
        process for process in processes.ray_processes(service.state) if "ray.util.client.server" in process.cmdline()
    ]


def test_every_route_of_ours_needs_a_token_but_the_probes(service: Any, alice: str) -> None:
    paths = service.call("GET", "/openapi.json", alice).json()["paths"]
    assert set(paths) >= OPEN_HTTP
    answered = []
    for path, methods in paths.items():
        url = path.replace("{", "").replace("}", "")
        for method in methods:
            for token in (None, "wrong"):
                answer = service.call(method.upper(), url, token)
                if answer.status_code != 401 and path not in OPEN_HTTP and not path.startswith("/v1/auth/"):
                    answered.append(f"{method} {path}: {answer.status_code}")

    assert answered == []


def test_serves_own_routes_tell_a_stranger_nothing(service: Any) -> None:
    for path in ("/-/routes", "/-/", "/-/nothing"):
        answer = service.call("GET", path, None)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
        assert "rayrag" not in answer.text
    assert service.call("GET", "/-/healthz", None).text == "success"


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/-/healthz", "/-/routes", "/v1/query", "/nothing", "/metrics"]
)
def test_no_answer_names_its_server_and_each_has_the_headers(service: Any, path: str) -> None:
    answer = service.call("GET", path, None)

    assert not {"server", "x-powered-by", "location"} & set(answer.headers)
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert len(answer.headers.get_list("x-content-type-options")) == 1


def secrets_of(service: Any) -> dict[str, str]:
    """Everything of this service that must be nowhere but in its file or in a caller's hand."""
    home = Path(service.state.data_dir) / "secrets"
    found = {}
    for path in sorted(home.iterdir()):
        text = path.read_text(errors="replace").strip()
        lines = [line for line in text.splitlines() if not line.startswith("-----")]
        found[path.name] = max(lines, key=len)
    assert {"ray_token", "scrape_token", "issuer.pem"} <= set(found)
    return found


def test_no_secret_is_in_a_log_a_job_or_a_process(company: Any, alice: str, bob: str) -> None:
    service = company
    bearer = service.token("j10-secret-holder", ("engineering",))
    service.query(bearer, "Where is the quiet room?")
    service.call("GET", f"/v1/documents/x?token={bearer[-40:]}", "x" * 50)
    secrets = {**secrets_of(service), "a bearer token": bearer.rsplit(".", 1)[1], "alice's": alice.rsplit(".", 1)[1]}
    secrets["bob's"] = bob.rsplit(".", 1)[1]
    assert all(len(secret) >= 32 for secret in secrets.values()), {name: len(s) for name, s in secrets.items()}
    time.sleep(2)  # logs are written in batches
    places = {f"log {path}": path.read_bytes() for path in log_files(service)}
    assert len(places) > 20, list(places)
    places["/api/jobs"] = json.dumps(jobs(service)).encode()
    for route in (
        "/api/v0/tasks?detail=1",
        "/api/v0/actors?detail=1",
        "/api/v0/runtime_envs",
        "/api/serve/applications/",
    ):
        answer = httpx2.get(service.state.dashboard + route, headers=ray_headers(service.state), timeout=60)
        places[route] = answer.content
    for process in processes.ray_processes(service.state):
        try:
            places[f"ps {process.pid}"] = " ".join(process.cmdline()).encode()
            places[f"environment {process.pid}"] = " ".join(process.environ().values()).encode()
        except psutil.Error:
            continue

    found = [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, text in places.items()
        if secret.encode() in text
    ]
    assert found == []
    assert b"ray_token" in b" ".join(text for place, text in places.items() if place.startswith("environment"))


def log_files(service: Any) -> list[Path]:
    state = service.state
    folders = [Path(state.data_dir) / "logs", Path(state.ray_temp)]
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and "runtime_resources" not in path.parts
        and path.stat().st_size < 50_000_000
    ]


def test_jobs_of_the_command_line_carry_no_secret(service: Any) -> None:
    shown = environment(service.state)
    token = service.state.ray_token_file.read_text()

    assert token not in " ".join(shown.values())
    assert shown["RAY_AUTH_MODE"] == "token"
