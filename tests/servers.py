"""Servers from the distribution that tests start themselves: on loopback, with a port and a folder of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def program(name: str) -> str:
    """Find a program; the test is left out, visibly, where it is not installed, and fails where CI=true."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if found is None:
        missing = f"{name} is not installed: sh tests/install_system.sh, as root, installs it"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return found


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


class Server:
    """A process that answers on `port`; it may be stopped, started again, and frozen. `home` keeps its data."""

    def __init__(self, home: Path, command: Callable[[int, Path], list[str]]) -> None:
        self.home = home
        self.port = free_port()
        self._command = command(self.port, home)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self.home, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{self._command[0]} did not start: {(self.home / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def freeze(self) -> None:
        """Let it hold its connections and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0


def redis_server(home: Path) -> Server:
    found = program("redis-server")
    options = ["--bind", "127.0.0.1", "--save", "3600 1", "--appendonly", "no", "--protected-mode", "yes"]
    return Server(home, lambda port, home: [found, "--port", str(port), "--dir", str(home), *options])


def nats_server(home: Path) -> Server:
    found = program("nats-server")
    return Server(home, lambda port, home: [found, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(home)])
