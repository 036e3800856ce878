"""Document changes that no request asked for, on the record: by sources, bulk jobs, and what expires.

    documents.change   intent    what a run is about to do: which documents it indexes, deletes, gives other readers
    document.indexed   outcome   one for each document: deleted, rights, quarantined, hidden, unchanged …
    documents.change   outcome   how many became what, or that the run failed

Documents are named by their id alone. Names of files, addresses, titles and reasons may be about people: they are in
the ledger. A run that changes nothing leaves no line. One that is killed leaves its intent, and the outcome of all but
its last documents.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from policies.audit_chain import AuditIntent, AuditOutcome, Detail
from policies.guard import outcome_of

NAMED_IN_A_LINE = 200
BUFFERED = 100
"""Outcomes that wait for each other: a sync to the disk for each document would slow a bulk job down."""
CHANGE = "documents.change"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a source that is kept fresh may be called. A bulk job's is called by its path, which may name people."""


class Lines(Protocol):
    """Keeps several lines, all or none."""

    def append(self, lines: Sequence[AuditIntent | AuditOutcome]) -> int:
        """Return once they are durable. Raises `Unavailable`."""
        ...


class Unrecorded:
    """Keeps nothing: for work on a ledger that no audit record belongs to."""

    def append(self, lines: Sequence[AuditIntent | AuditOutcome]) -> int:
        """Take no notice."""
        return 0


class ChangeRecord:
    """Writes what runs do, in the name of `actor`: what runs them, such as `sources` or `bulk`."""

    def __init__(self, audit: Lines, policy_version: str, actor: str) -> None:
        self._audit = audit
        self._policy_version = policy_version
        self._actor = actor

    @contextmanager
    def run(self, tenant: str, source_id: int, source: str) -> Iterator[ChangeRun]:
        """Record one run. Raises `Unavailable` where that cannot be: then nothing may be changed."""
        named: dict[str, str | int] = {"source_id": source_id}
        if _NAME.fullmatch(source):
            named["source"] = source
        run = ChangeRun(self._audit, self._policy_version, self._actor, tenant, named)
        try:
            yield run
        except BaseException as error:
            run._end(outcome_of(error), {"error": type(error).__name__})
            raise
        run._end("ok", {})


class ChangeRun:
    """One run over one source. Used by one thread at a time."""

    def __init__(self, audit: Lines, policy_version: str, actor: str, tenant: str, named: dict[str, str | int]) -> None:
        self._audit = audit
        self._policy_version = policy_version
        self._actor = actor
        self._tenant = tenant
        self._named = named
        self._run_id = uuid.uuid4().hex
        self._began = False
        self._became: Counter[str] = Counter()
        self._waiting: list[AuditOutcome] = []

    def begins(self, **documents: Sequence[str]) -> None:
        """Record what is about to be done to which documents: a word for it, and their ids."""
        lines: list[AuditIntent] = []
        for word, ids in documents.items():
            for start in range(0, len(ids), NAMED_IN_A_LINE):
                detail = {**self._named, word: list(ids[start : start + NAMED_IN_A_LINE])}
                lines.append(AuditIntent(self._run_id, self._actor, self._tenant, CHANGE, self._policy_version, detail))
        if lines:
            self._began = True
            self._audit.append(lines)

    def became(self, document_id: str, what: str, version: int | None = None) -> None:
        """Record what became of a document, together with others."""
        detail: Detail = {**self._named, "document": document_id} | ({} if version is None else {"version": version})
        self._became[what] += 1
        self._waiting.append(self._line(f"document.{what}", "refused" if what == "quarantined" else "ok", detail))
        if len(self._waiting) >= BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._audit.append(waiting)

    def _end(self, outcome: str, detail: Detail) -> None:
        if self._began or self._waiting:
            counts = {**self._named, "became": dict(self._became), **detail}
            self._waiting.append(self._line(CHANGE, outcome, counts))
            self.flush()

    def _line(self, action: str, outcome: str, detail: Detail) -> AuditOutcome:
        return AuditOutcome(
            self._run_id, self._actor, self._tenant, action, self._policy_version, outcome, detail=detail
        )


UNRECORDED = ChangeRecord(Unrecorded(), "", "")
