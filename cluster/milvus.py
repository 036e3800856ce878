"""The store: a Milvus Lite server of our own on loopback, or one that is only asked whether it answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from cluster.processes import is_loopback
from index.settings import StoreSettings, read_secret
from policies.errors import ConfigurationError, Unavailable

DEFAULT_PORT = 19530
ANSWER_S = 5.0
START_S = 120.0
MEMTABLE_BYTES = 4 * 2**20
"""Rows that are not yet in a segment are searched one by one, in Python: keep them few."""


def local_port(store: StoreSettings) -> int | None:
    """Give the port for a server of our own; None where `store.uri` names another machine's or an https one."""
    address = urlsplit(store.uri)
    if address.scheme != "http" or not is_loopback(address.hostname or ""):
        return None
    return address.port or DEFAULT_PORT


def start(data_dir: Path, port: int) -> subprocess.Popen[bytes]:
    """Start Milvus Lite on loopback, in a process group of its own; it logs to `<data_dir>/logs/milvus.log`."""
    home = data_dir / "milvus"
    home.mkdir(mode=0o700, exist_ok=True)
    home.chmod(0o700)
    if _unclean(data_dir).exists():
        remove_indexes(home)
    _unclean(data_dir).touch(mode=0o600)
    program = Path(sys.executable).parent / "milvus-lite"
    command = [str(program), "server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(home)]
    environment = {**os.environ, "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(MEMTABLE_BYTES)}
    log = os.open(data_dir / "logs" / "milvus.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - our own program, no shell
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    except OSError as error:
        raise ConfigurationError(
            f"{program}: {error.strerror}: install milvus-lite beside {sys.executable}."
        ) from error
    finally:
        os.close(log)


def closed_cleanly(data_dir: Path) -> None:
    """Note that the server closed its files itself."""
    _unclean(data_dir).unlink(missing_ok=True)


def remove_indexes(home: Path) -> int:
    """Remove index files. After a kill one may be half written, with which nothing loads; they are rebuilt."""
    files = [file for end in ("idx", "sidx") for file in home.rglob(f"*.{end}") if file.parent.name == "indexes"]
    for file in files:
        file.unlink()
    return len(files)


def wait_until_up(server: subprocess.Popen[bytes], port: int, log: Path, timeout_s: float = START_S) -> None:
    """Wait for the server to listen. Raises `Unavailable` with its last words when it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Unavailable(f"Milvus Lite did not start: {_last_line(log)} (see {log}).")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Unavailable(f"Milvus Lite did not listen within {timeout_s:.0f} s: see {log}.")


def require_answer(store: StoreSettings) -> None:
    """Ask a Milvus that we did not start whether it answers. Raises `Unavailable` when it does not within 5 s."""
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    token = read_secret(None, store.token_env) if store.token_env else None
    try:
        client = MilvusClient(uri=store.uri, token=token or "", db_name=store.database, timeout=ANSWER_S)
        try:
            client.list_collections(timeout=ANSWER_S)
        finally:
            client.close()
    except (MilvusException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Unavailable(
            f"The Milvus of store.uri does not answer ({reason}): start it or correct the URI."
        ) from error


def _unclean(data_dir: Path) -> Path:
    return data_dir / "milvus.open"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
