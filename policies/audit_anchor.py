"""Where signed checkpoints are kept out of reach of whoever keeps the record: a file, or a directory, also elsewhere.

    /mnt/worm/checkpoints.jsonl      a file: a line is added for each checkpoint, and synced
    s3://evidence/rayrag             any address that fsspec knows, or a directory: a new file for each checkpoint

Nothing is ever changed there. It is worth what keeps it from being changed: an append-only file or an object lock,
under an account of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from policies.audit_checkpoints import Checkpoint, read_checkpoint
from policies.errors import ConfigurationError, Unavailable

_NAME = "checkpoint-{sequence:015d}{change}.json"
_KEY = "-key"


class Anchor(Protocol):
    """Keeps checkpoints, in the order in which they were signed."""

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep one more. Raises `Unavailable`."""
        ...

    def all(self) -> list[Checkpoint]:
        """Read all. Raises `Unavailable`, and `ConfigurationError` for what is no checkpoint."""
        ...


def open_anchor(place: str) -> Anchor:
    """Open the anchor at a path or an address; a path that ends in .jsonl is a file."""
    if "://" not in place and place.endswith(".jsonl"):
        return AnchorFile(Path(place))
    return AnchorDirectory(place)


class AnchorFile:
    """A file on this machine, or mounted here. One process writes to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, checkpoint: Checkpoint) -> None:
        """Add a line, and wait until it is on the disk."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, checkpoint.line.encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Unavailable("The audit anchor cannot be written.") from error

    def all(self) -> list[Checkpoint]:
        """Read all lines; one that was not finished, at the end, was never acknowledged and does not count."""
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise Unavailable("The audit anchor cannot be read.") from error
        whole = content[: content.rfind(b"\n") + 1]
        return list(_read(((str(number), line) for number, line in enumerate(whole.splitlines(), 1)), str(self._path)))


class AnchorDirectory:
    """A directory, or a bucket: each checkpoint is a file that is written once."""

    def __init__(self, place: str) -> None:
        self._place = place

    def add(self, checkpoint: Checkpoint) -> None:
        """Write a new file; one of the same checkpoint that is there stays as it is."""
        files, root = self._open()
        name = _NAME.format(sequence=checkpoint.sequence, change=_KEY if checkpoint.next_key else "")
        try:
            files.makedirs(root, exist_ok=True)
            if not files.exists(f"{root}/{name}"):
                files.pipe_file(f"{root}/{name}", checkpoint.line.encode() + b"\n")
        except Exception as error:  # each kind of store has errors of its own
            raise Unavailable("The audit anchor cannot be written.") from error

    def all(self) -> list[Checkpoint]:
        """Read all files, in their order."""
        files, root = self._open()
        try:
            names = sorted(files.glob(f"{root}/checkpoint-*.json")) if files.exists(root) else []
            content = files.cat(names) if names else {}
        except Exception as error:  # as above
            raise Unavailable("The audit anchor cannot be read.") from error
        found = _read(((name, content[name].rstrip(b"\n")) for name in names), self._place)
        return sorted(found, key=lambda checkpoint: checkpoint.order)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(self._place)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"store.audit_anchor: {self._place[:64]}: {error}") from error
        return files, str(root).rstrip("/")


def _read(lines: Iterator[tuple[str, bytes]], place: str) -> Iterator[Checkpoint]:
    for name, line in lines:
        found = read_checkpoint(line)
        if found is None:
            raise ConfigurationError(f"the audit anchor {place} is not as it was written: {name}")
        yield found
