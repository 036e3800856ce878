"""A parser that does what a file tells it to, as one would that a file has taken over. Runs in the sandbox's child.

Any other file it reads as the real parser does.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from index.document import Extracted
from ingest.parsing import parse as honest

kept: list[object] = []


def parse(data: bytes, name: str) -> Extracted:
    """Read a file; one that begins with `poison:` says what is done, and to what."""
    if not data.startswith(b"poison: "):
        return honest(data, name)
    act, _, rest = data.decode().removeprefix("poison: ").partition(" ")
    return Extracted(f"{act} was done: {ACTS[act](*rest.split())}")


def _spin() -> None:
    while True:
        pass


def _wait_in_c() -> None:
    ctypes.CDLL(None).pause()


def _deaf() -> None:
    import signal

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)


def _segfault() -> None:
    ctypes.string_at(0)


def _eat() -> None:
    while True:
        kept.append(bytearray(10_000_000))


def _map() -> None:
    while True:
        kept.append(mmap.mmap(-1, 10_000_000))


def _fork() -> None:
    """Leave a process behind, in a session of its own, where killing this one's group does not reach it."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(30)


def _spawn() -> None:
    os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 30"], {})


def _threads() -> None:
    import threading

    while True:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def _read(path: str) -> str:
    return Path(path).read_text()


def _write(path: str) -> None:
    Path(path).write_text("written by poison")


def _truncate(path: str) -> None:
    os.truncate(path, 0)


def _mode(path: str) -> None:
    os.chmod(path, 0o777)


def _times(path: str) -> None:
    os.utime(path, (0, 0))


def _attribute(path: str) -> None:
    os.setxattr(path, "user.poison", b"x")


def _tcp(address: str) -> None:
    host, port = address.split(":")
    socket.create_connection((host, int(port)), 5).sendall(b"poison")


def _udp(address: str) -> None:
    host, port = address.split(":")
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"poison", (host, int(port)))


def _unix(path: str) -> None:
    socket.socket(socket.AF_UNIX).connect(path)


def _shared_memory() -> None:
    if ctypes.CDLL(None, use_errno=True).shmget(0x706F6973, 4096, 0o1666) < 0:
        raise OSError(ctypes.get_errno(), "shmget")


def _kill_parent() -> None:
    os.kill(os.getppid(), 9)


def _each(canary: str, address: str, path: str) -> str:
    """Try all that reaches out of the sandbox, and name what was not refused."""
    done = []
    for act, whom in DENIED.items():
        try:
            ACTS[act](*whom.format(canary=canary, address=address, path=path).split())
        except PermissionError:
            continue
        except OSError as error:
            done.append(f"{act} ({error})")
        else:
            done.append(act)
    return f"{len(DENIED)} tried, not refused: {', '.join(done) or 'none'}"


def _keep_files() -> None:
    while True:
        kept.append(os.open(os.devnull, os.O_RDONLY))


DENIED = {
    **dict.fromkeys(("read", "write", "append", "remove", "rename", "link", "symlink", "folder", "pipe"), "{canary}"),
    **dict.fromkeys(("truncate", "mode", "owner", "times", "attribute"), "{canary}"),
    **dict.fromkeys(("tcp", "udp"), "{address}"),
    "unix": "{path}",
    **dict.fromkeys(("fork", "spawn", "shared-memory", "kill-parent"), ""),
    **dict.fromkeys(("environment", "memory-of-parent"), ""),
}
ACTS: dict[str, Callable[..., object]] = {
    "each": _each,
    "hang": lambda: time.sleep(600),
    "spin": _spin,
    "wait-in-c": _wait_in_c,
    "deaf": _deaf,
    "segfault": _segfault,
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "eat": _eat,
    "map": _map,
    "fork": _fork,
    "spawn": _spawn,
    "threads": _threads,
    "read": _read,
    "write": _write,
    "append": lambda path: os.open(path, os.O_WRONLY | os.O_APPEND),
    "remove": os.unlink,
    "rename": lambda path: os.rename(path, path + ".gone"),
    "link": lambda path: os.link(path, path + ".link"),
    "symlink": lambda path: os.symlink(path, path + ".link"),
    "folder": lambda path: os.mkdir(path + ".folder"),
    "pipe": lambda path: os.mkfifo(path + ".pipe"),
    "truncate": _truncate,
    "mode": _mode,
    "owner": lambda path: os.chown(path, 12345, 12345),
    "times": _times,
    "attribute": _attribute,
    "tcp": _tcp,
    "udp": _udp,
    "unix": _unix,
    "shared-memory": _shared_memory,
    "kill-parent": _kill_parent,
    "keep-files": _keep_files,
    "environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "memory-of-parent": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
    "long-text": lambda: "x" * 70_000_000,
}
