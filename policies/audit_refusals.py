"""What is refused before a request begins: counted, and the counts put on the record, so that nobody can fill it.

A stranger can send requests without end, and somebody known can send ones that say nothing. A line for each would let
them fill the disk, and with it stop the service. So these are counted by who and why, and once in a while one line is
written for each count. There are few reasons, and `MAX_COUNTED` people at most are told apart in that time; the others
are counted together. What a replica has counted since the last time is lost when it is killed.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from policies.audit_chain import AuditIntent, AuditOutcome, Detail
from policies.errors import Unavailable
from policies.principals import Principal

EVERY_S = 60.0
MAX_COUNTED = 1_000
REFUSED = "http.refused"
UNKNOWN = "unknown"
log = logging.getLogger(__name__)


class Lines(Protocol):
    """Keeps several lines, all or none."""

    def append(self, lines: Sequence[AuditIntent | AuditOutcome]) -> int:
        """Return once they are durable. Raises `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class _Refused:
    status: int
    reason: str
    actor: str = UNKNOWN
    tenant: str = ""


class Refusals:
    """Counts refusals. One for each replica; safe to use from many threads."""

    def __init__(self, audit: Lines, policy_version: str, every_s: float = EVERY_S) -> None:
        self._audit = audit
        self._policy_version = policy_version
        self._every_s = every_s
        self._lock = threading.Lock()
        self._counts: Counter[_Refused] = Counter()
        self._since = 0.0
        self._timer: threading.Timer | None = None

    def count(self, status: int, reason: str, who: Principal | None = None) -> None:
        """Count one. `reason`: a word of ours, never of the request."""
        kind = _Refused(status, reason) if who is None else _Refused(status, reason, who.subject, who.tenant)
        with self._lock:
            if kind not in self._counts and len(self._counts) >= MAX_COUNTED:
                kind = _Refused(0, "others")
            self._counts[kind] += 1
            if self._timer is None:
                self._since = time.monotonic()
                self._timer = threading.Timer(self._every_s, self._write_on_time)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> int:
        """Write a line for each count now. Gives their number. Raises `Unavailable`; then they are kept."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            timer, self._timer = self._timer, None
            seconds = int(time.monotonic() - self._since)
        if timer is not None:
            timer.cancel()
        try:
            self._audit.append([self._line(kind, number, seconds) for kind, number in counts.items()])
        except Unavailable:
            with self._lock:
                for kind, number in counts.items():
                    if kind in self._counts or len(self._counts) < MAX_COUNTED:
                        self._counts[kind] += number
                    else:
                        self._counts[_Refused(0, "others")] += number
            raise
        return len(counts)

    def _write_on_time(self) -> None:
        try:
            self.flush()
        except Unavailable as error:
            log.error("refusals could not be recorded yet: %s", error.detail)

    def _line(self, kind: _Refused, number: int, seconds: int) -> AuditOutcome:
        detail: Detail = {"status": kind.status, "reason": kind.reason, "count": number, "seconds": seconds}
        return AuditOutcome(
            uuid.uuid4().hex, kind.actor, kind.tenant, REFUSED, self._policy_version, "refused", detail=detail
        )
