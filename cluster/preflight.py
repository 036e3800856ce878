"""What must hold before anything starts. Each failure is one sentence that says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Container, Mapping
from pathlib import Path

import psutil

from cluster.processes import listener
from policies.errors import ConfigurationError

MIN_FREE_BYTES = 1_000_000_000


def prepare_directory(data_dir: Path) -> None:
    """Make the data directory and its parts, for this user only. Raises `ConfigurationError` where that fails."""
    try:
        for directory in (data_dir, data_dir / "secrets", data_dir / "logs"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        # A data directory inside a project must not travel with `ray job submit --working-dir`, secrets and all.
        if not (ignored := data_dir / ".gitignore").exists():
            ignored.write_text("*\n", encoding="ascii")
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"The data directory {data_dir} cannot be written ({reason}): give another with --data-dir."
        ) from error


def require_disk(data_dir: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Raise `ConfigurationError` where too little disk is free."""
    free = shutil.disk_usage(data_dir).free
    if free < min_free_bytes:
        raise ConfigurationError(
            f"Only {free / 1e9:.1f} GB are free at {data_dir}, {min_free_bytes / 1e9:.0f} GB are needed: "
            "free some, or give another directory with --data-dir."
        )


def require_free(ports: Mapping[str, tuple[str, int, str]]) -> None:
    """Raise `ConfigurationError` for the first port in use. `ports`: what it is for → (host, port, what to do)."""
    for purpose, (host, port, remedy) in ports.items():
        if in_use(host, port):
            raise ConfigurationError(f"Port {port}, wanted for {purpose}, is in use{_by(port)}: {remedy}.")


def in_use(host: str, port: int) -> bool:
    """Say whether a port cannot be bound. Raises `ConfigurationError` for a host that is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # With SO_REUSEADDR a bind next to another's listening socket may pass; listening beside it does not.
            probe.listen(1)
        except PermissionError as error:
            raise ConfigurationError(f"Port {port} is reserved for the administrator: give one above 1023.") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise ConfigurationError(f"Port {port} on {host} cannot be used: {error.strerror}.") from error
    return False


def free_ports(number: int, taken: Container[int] = ()) -> list[int]:
    """Give ports of 127.0.0.1 that nobody listens on now: each another, and none of those in `taken`.

    All are held until the last is found, since a port that is let go may be the next one that the system gives.
    """
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < number:
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port not in taken:
                found.append(port)
    return found


def _by(port: int) -> str:
    process = listener(port)
    if process is None:
        return ""
    if process.pid == os.getpid():
        return f" by this process ({process.pid})"
    try:
        return f" by {process.name()} (process {process.pid})"
    except psutil.Error:
        return f" by process {process.pid}"
