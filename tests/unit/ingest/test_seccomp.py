from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BEFORE = (
    "import os, signal, socket, sys, threading; from ingest import seccomp\nif not seccomp.confine(): sys.exit(77)\n"
)


def run(code: str) -> str:
    """What code prints once it is confined."""
    command = [sys.executable, "-c", BEFORE + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("this machine's kernel has no seccomp")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_a_parser_needs_stays_allowed() -> None:
    code = """
found = []
for _ in range(3):
    threading.Thread(target=lambda: found.append(1)).start()
for end in socket.socketpair(): end.close()
signal.signal(signal.SIGUSR1, lambda *_: found.append(2))
os.kill(os.getpid(), signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1)
print(sorted(found), len(open("/proc/self/stat").read()) > 0)
"""
    assert run(code) == "[1, 1, 1, 2, 2] True"


@pytest.mark.parametrize(
    "act",
    [
        *("os.fork()", "os.execv('/bin/true', ['true'])", "os.posix_spawn('/bin/true', ['true'], {})"),
        *("socket.socket()", "socket.socket(socket.AF_UNIX)", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"),
        *("os.kill(os.getppid(), 0)", "os.kill(-1, 0)", "os.kill(0, 0)", "os.chmod(name, 0o777)", "os.utime(name)"),
        *("os.chown(name, 1, 1)", "os.lchown(name, 1, 1)", "os.setxattr(name, 'user.a', b'b')", "os.truncate(name, 0)"),
        "signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0)",
    ],
)
def test_what_a_parser_has_no_use_for_is_refused(tmp_path: Path, act: str) -> None:
    path = tmp_path / "file"
    path.write_text("as it was")
    mode = path.stat().st_mode
    code = f"name = {str(path)!r}\ntry: {act}\nexcept PermissionError: print('refused')\nelse: print('done')"
    assert run(code) == "refused"
    assert (path.read_text(), path.stat().st_mode) == ("as it was", mode)


def test_it_holds_for_threads_that_start_later() -> None:
    code = """
def act():
    try: socket.socket()
    except PermissionError: print('refused')
thread = threading.Thread(target=act); thread.start(); thread.join()
"""
    assert run(code) == "refused"
