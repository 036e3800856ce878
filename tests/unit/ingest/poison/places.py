"""Hostile names and places: links, pipes and devices, files that change under the reader, rows that mean harm."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from .case import Bait, End, Place

KEPT = "The heron stays."
OUTSIDE, NO_FILE = "points outside the source", "no regular file"
DEEP = "/".join(["d" * 100] * 30)
"""More than 3,000 bytes of path."""


def named(name: str, end: End | None = None) -> Place:
    """A good file of a bad name."""
    return Place(name, lambda folder, _: _write(folder / name), {name: end or End(text=KEPT)})


def made(name: str, reason: str, make: Callable[[Path, Bait], object]) -> Place:
    """Something that is no file."""
    return Place(name, lambda folder, bait: (make(folder / name, bait), None)[1], {name: End(reason=reason)})


def replaced(name: str, reason: str, change: Callable[[Path, Bait], object]) -> Place:
    """A good file that something else stands in the place of, once it was listed."""
    return Place(
        name,
        lambda folder, _: _write(folder / name),
        {name: End(reason=reason)},
        lambda folder, bait: (change(folder / name, bait), None)[1],
    )


def rows(name: str, ends: dict[str, End], *lines: bytes) -> Place:
    """A JSONL; `ends` by the rows' ids."""
    ends = {f"{name}#{key}": end for key, end in ends.items()}
    return Place(name, lambda folder, _: _write(folder / name, b"\n".join(lines)), ends)


def _write(path: Path, content: bytes = KEPT.encode()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _socket(path: Path, _: Bait) -> None:
    """Bound by a short path: a socket's holds 107 bytes."""
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _device(path: Path, _: Bait) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        os.mkfifo(path)  # only root makes devices: another thing that is no file


def _sparse(path: Path, _: Bait) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _hard_link(folder: Path, _: Bait) -> None:
    _write(folder / "first name.txt")
    os.link(folder / "first name.txt", folder / "second name.txt")


def _not_utf8(folder: Path, _: Bait) -> None:
    with open(os.fsencode(folder) + b"/bad \xff name.txt", "wb") as file:
        file.write(KEPT.encode())


def _deep_path(folder: Path, _: Bait) -> None:
    """Made step by step: as a whole the path is too long for some calls."""
    at = os.open(folder, os.O_RDONLY)
    for name in DEEP.split("/"):
        os.mkdir(name, dir_fd=at)
        deeper = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    with open(os.open("file.txt", os.O_CREAT | os.O_WRONLY, dir_fd=at), "wb") as file:
        file.write(KEPT.encode())
    os.close(at)


def _folder_becomes_link(folder: Path, bait: Bait) -> None:
    (folder / "folder" / "inside.txt").unlink()
    (folder / "folder").rmdir()
    (folder / "folder").symlink_to(bait.canary.parent)


ROW_OK = b'{"id": "ok", "text": "The heron stays."}'

PLACES: list[Place] = [
    made("link-out.txt", OUTSIDE, lambda path, bait: path.symlink_to(bait.canary)),
    made("link-out-by-steps.txt", OUTSIDE, lambda path, bait: path.symlink_to("../" * 30 + str(bait.canary)[1:])),
    made("link-to-folder", OUTSIDE, lambda path, bait: path.symlink_to(bait.canary.parent)),
    made("link-to-system.txt", OUTSIDE, lambda path, _: path.symlink_to("/proc/self/environ")),
    made("link-to-nothing.txt", "a link to nothing", lambda path, _: path.symlink_to("nothing")),
    made("link-to-itself.txt", "cannot be read: .*", lambda path, _: path.symlink_to(path.name)),
    made("pipe.txt", NO_FILE, lambda path, _: os.mkfifo(path)),
    made("socket.txt", NO_FILE, _socket),
    made("device.txt", NO_FILE, _device),
    made("sparse.txt", "the file is larger than 20 MB", _sparse),
    Place("hard-link", _hard_link, {f"{name} name.txt": End(text=KEPT) for name in ("first", "second")}),
    named("\u202egnp.exe.txt"),
    named("zero\u200bwidth\u2060.txt"),
    named("line\nfeed\r\tand\x1b[2Jescape.txt"),
    named("n" * 251 + ".txt"),
    named("a..%2f..%2fetc%2fpasswd.txt"),
    named("a\\..\\..\\slipped.txt"),
    named("$(touch slipped); `touch slipped` | -rf .txt"),
    named("null%00.txt"),
    named("file:/host/a.txt"),
    Place("not-utf8", _not_utf8, {"bad ? name.txt": End(reason="the file's name is not UTF-8")}),
    Place("deep", _deep_path, {f"{DEEP}/file.txt": End(text=KEPT)}),
    replaced("vanishes.txt", "deleted while reading", lambda path, _: path.unlink()),
    replaced("grows.txt", "the file is larger than 20 MB", lambda path, _: os.truncate(path, 30_000_000)),
    replaced("becomes-empty.txt", "changed while it was read", lambda path, _: os.truncate(path, 0)),
    replaced("becomes-pipe.txt", NO_FILE, lambda path, _: _instead(path, os.mkfifo)),
    replaced(
        "becomes-link.txt",
        "cannot be read: Too many levels of symbolic links",
        lambda path, bait: _instead(path, lambda here: here.symlink_to(bait.canary)),
    ),
    Place(
        "folder",
        lambda folder, _: _write(folder / "folder" / "inside.txt"),
        {"folder/inside.txt": End(reason="cannot be read: .*")},
        _folder_becomes_link,
    ),
    rows(
        "rows.jsonl",
        {
            "ok": End(text=KEPT),
            "line-2": End(reason="line 2: no valid JSON: .*"),
            "line-3": End(reason="line 3: no valid JSON: .*"),
            "line-4": End(reason="line 4: no valid JSON: number out of range .*"),
            "ok2": End(text="second"),
            "line-6": End(reason="line 6: no valid JSON: .*"),
            "nan": End(text="x"),
        },
        ROW_OK,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"id": "deep", "text": "x", "metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"id": "huge number", "text": "x", "metadata": {"n": ' + b"9" * 100_000 + b"}}",
        b'{"id": "ok2", "text": "first", "text": "second"}',
        b'{"id": "cut", "text": "x',
        b'{"id": "nan", "text": "x", "metadata": {"n": NaN}}',
    ),
    rows(
        "long-row.jsonl",
        {"line-1": End(reason="line 1: longer than 64000000 bytes"), "ok": End(text=KEPT)},
        b'{"id": "long", "text": "' + b"x" * 70_000_000 + b'"}',
        ROW_OK,
    ),
]
