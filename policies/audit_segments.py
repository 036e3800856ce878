"""Rotation: the record's older part goes to files, segments, and may then leave the database.

    records 1 … 1,000,000            audit-000000000000001-000000001000000.jsonl
    record 1,000,001                 its `previous_hash` is the hash of record 1,000,000
    a record `audit.segment`         names the file, its last record and its SHA-256

The first record behind a segment names the hash of the segment's last, so that the chain goes on over the files; each
ends in a signed checkpoint over its last record. The verifier follows (`rayrag audit verify --segments DIRECTORY`).
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from policies.audit import AuditLog
from policies.audit_chain import AuditOutcome, Detail
from policies.audit_checkpoints import Checkpoint
from policies.audit_verdict import SEGMENT
from policies.errors import ConfigurationError, Unavailable

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Segment:
    """A file with the records `first` to `last`; `sha256` is its own."""

    file: Path
    first: int
    last: int
    sha256: str


class Segments:
    """Cuts segments of one record, and removes from the database what is in them. One process at a time."""

    def __init__(self, audit: AuditLog, directory: Path, policy_version: str) -> None:
        self._audit = audit
        self._directory = directory
        self._policy_version = policy_version

    def all(self) -> list[Segment]:
        """Give the segments that were cut, in their order."""
        return [
            Segment(self._directory / row["file"], row["first"], row["sequence"], row["sha256"])
            for row in self._audit.segment_rows()
        ]

    def cut(self, until: Checkpoint, actor: str) -> Segment | None:
        """Write what came since the last segment to a file, up to a signed checkpoint, and put that on the record.

        None where there is nothing new. Dies it in between, the next one writes the same file anew. Raises
        `ConfigurationError` where the directory cannot be written, `Unavailable` where the database fails.
        """
        cut = self.all()
        first = cut[-1].last + 1 if cut else 1
        if until.sequence < first:
            return None
        file = self._directory / f"audit-{first:015d}-{until.sequence:015d}.jsonl"
        draft = file.with_suffix(".draft")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            count = self._audit.write_lines(draft, first - 1, until.sequence)
            sha256 = _synced(draft)
            draft.rename(file)
            _sync_directory(self._directory)
        except OSError as error:
            raise ConfigurationError(f"store.audit_segments: {file}: {error.strerror or error}") from error
        if count != until.sequence - first + 1:
            raise Unavailable("the audit record lacks lines that belong to a segment")
        segment = Segment(file, first, until.sequence, sha256)
        row = {"sequence": segment.last, "first": first, "time": until.time, "file": file.name, "sha256": sha256}
        self._audit.add_segment(row, self._line(segment, actor))
        return segment

    def remove(self, keep_s: float, now: float | None = None) -> int:
        """Remove the segments' records that were signed more than `keep_s` ago. Gives how many records went.

        Only those whose file is there, whole: raises `ConfigurationError` for one that is not.
        """
        oldest, limit = self._audit.oldest(), (time.time() if now is None else now) - keep_s
        last = 0
        for row, segment in zip(self._audit.segment_rows(), self.all(), strict=True):
            if oldest is None or segment.last < oldest[0]:
                continue
            if row["time"] / 1e6 > limit:
                break
            if not segment.file.exists() or _sha256(segment.file) != segment.sha256:
                raise ConfigurationError(f"{segment.file}: missing, or not as it was written; nothing is removed")
            last = segment.last
        return self._audit.remove_until(last) if last else 0

    def _line(self, segment: Segment, actor: str) -> AuditOutcome:
        detail: Detail = {"first": segment.first, "last": segment.last, "sha256": segment.sha256}
        detail = {**detail, "file": segment.file.name}
        return AuditOutcome(uuid.uuid4().hex, actor, "", SEGMENT, self._policy_version, "ok", detail=detail)


def _synced(file: Path) -> str:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return _sha256(file)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
