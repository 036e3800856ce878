"""How records get onto the disk: one after the other in one chain, those that wait together in one commit."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import SQLAlchemyError

from policies.audit_chain import GENESIS, AuditIntent, AuditOutcome, canonical, record_hash
from policies.audit_tables import LOCK, records
from policies.errors import Unavailable

Line = AuditIntent | AuditOutcome
_NEWEST = select(records.c.sequence, records.c.hash).order_by(records.c.sequence.desc()).limit(1)
_INSERT = insert(records)


class Draft:
    """A record that waits for its place in the chain, and then for the disk."""

    __slots__ = ("columns", "done", "error", "sequence")

    def __init__(self, line: Line) -> None:
        self.columns = _columns(line)
        for name, value in self.columns.items():
            if isinstance(value, str) and ("\x00" in value or not _encodes(value)):
                raise ValueError(f"the audit field {name} cannot be stored")
        self.sequence = 0
        self.error: Exception | None = None
        self.done = False


class Writer:
    """Appends to the chain, for many threads. `engine` begins transactions that write."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[Draft] = deque()
        self._turn = threading.Condition()
        self._writing = False

    def append(self, lines: Sequence[Line]) -> int:
        """Record several, all or none, in one commit. Returns the last one's sequence number, 0 where there is none."""
        drafts = [Draft(line) for line in lines]
        if not drafts:
            return 0
        last = drafts[-1]
        batch: list[Draft] = []
        # One writes for all who wait, in one commit: the sync to the disk is what costs.
        with self._turn:
            self._waiting.extend(drafts)
            while self._writing and not last.done:
                self._turn.wait()
            if not last.done:
                self._writing = True
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if batch:
            self._write(batch)
        if last.error is not None:
            raise Unavailable("The audit record cannot be written.") from last.error
        return last.sequence

    def _write(self, batch: Sequence[Draft]) -> None:
        first = 0
        failure: Exception | None = Unavailable("the write did not finish")
        try:
            with self._engine.begin() as connection:
                first = insert_drafts(connection, batch)
            failure = None
        except SQLAlchemyError as error:
            failure = error
        finally:
            for sequence, draft in enumerate(batch, start=first):
                draft.sequence, draft.error, draft.done = sequence, failure, True
            with self._turn:
                self._writing = False
                self._turn.notify_all()


def now_us() -> int:
    """Give the time in microseconds since 1970."""
    return time.time_ns() // 1000


def head_of(connection: Connection) -> tuple[int, str]:
    """Read the newest record's sequence number and hash, held until the transaction ends: nobody else can append."""
    if connection.dialect.name == "postgresql":
        connection.execute(LOCK)
    newest = connection.execute(_NEWEST).first()
    return (newest.sequence, newest.hash) if newest else (0, GENESIS)


def insert_drafts(connection: Connection, batch: Sequence[Draft]) -> int:
    """Append them behind the newest record. Gives the first one's sequence number."""
    sequence, previous = head_of(connection)
    rows, first = [], sequence + 1
    for sequence, draft in enumerate(batch, start=first):
        columns = {**draft.columns, "sequence": sequence, "time": now_us(), "previous_hash": previous}
        columns["hash"] = previous = record_hash(columns)
        rows.append(columns)
    connection.execute(_INSERT, rows)
    return first


def _columns(line: Line) -> dict[str, Any]:
    return {
        "kind": "outcome" if isinstance(line, AuditOutcome) else "intent",
        "request_id": line.request_id,
        "actor": line.actor,
        "tenant": line.tenant,
        "action": line.action,
        "outcome": line.outcome if isinstance(line, AuditOutcome) else "",
        "policy_version": line.policy_version,
        "chunks_shown": canonical(line.chunks_shown) if isinstance(line, AuditOutcome) else "[]",
        "chunks_withheld": line.chunks_withheld if isinstance(line, AuditOutcome) else 0,
        "detail": canonical(line.detail),
    }


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
