"""The routes below /v1/audit: an auditor reads the lines of their tenant, and asks whether the record holds.

To read the record is on the record, too.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict

from deployments.callers import Caller, RequestId
from deployments.contract import Problem
from policies.audit import AuditLog
from policies.audit_chain import AuditRecord
from policies.audit_verdict import Verdict
from policies.guard import Guard

READ = "audit:read"
WAIT_S = 15.0
"""How long a caller waits for a check; it goes on behind that, and who asks again gets its verdict."""
AGAIN_S = 60.0
"""A verdict of so long ago is given again: whoever asks all the time must not have the record read all the time."""
PAUSE_S = 0.004
"""A check steps aside for so long after each 200 records: questions come first."""
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "content": {"application/problem+json": {}}} for code in (401, 403, 422, 429, 503)
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AuditLine(_Body):
    """A line of the record. `time`: microseconds since 1970, UTC."""

    sequence: int
    time: int
    kind: Literal["intent", "outcome"]
    request_id: str
    actor: str
    tenant: str
    action: str
    outcome: str
    policy_version: str
    chunks_shown: list[str]
    chunks_withheld: int
    detail: dict[str, Any]
    previous_hash: str
    hash: str

    @classmethod
    def of(cls, record: AuditRecord) -> AuditLine:
        """Show a record."""
        return cls(**record.values())


class AuditPage(_Body):
    """Lines of the caller's tenant, newest last; more are behind the last one's `sequence`."""

    records: list[AuditLine]


class AuditVerdict(_Body):
    """Whether the whole record holds, as this replica found. `first_bad`: the first line that does not.

    `begins`: the first line that was looked at; older ones are in files, which `rayrag audit verify` follows.
    `state` running: the check is in work still; ask again. `lines`: those of the caller's tenant.
    """

    state: Literal["done", "running"]
    ok: bool | None = None
    first_bad: int | None = None
    reason: str | None = None
    begins: int | None = None
    lines: int | None = None
    checked_s_ago: int | None = None


class AuditDesk:
    """Reads and checks the record. One for each replica: one check at a time, in a thread of its own."""

    def __init__(self, guard: Guard, audit: AuditLog, wait_s: float = WAIT_S, again_s: float = AGAIN_S) -> None:
        self.guard = guard
        self.audit = audit
        self._wait_s = wait_s
        self._again_s = again_s
        self._thread = ThreadPoolExecutor(1, "audit-check")
        self._checking: asyncio.Future[Verdict] | None = None
        self._verdict: tuple[float, Verdict] | None = None

    async def verdict(self) -> tuple[float, Verdict] | None:
        """Give a verdict and its age in seconds; None while the check is in work still. Raises `Unavailable`."""
        if self._verdict is not None and time.monotonic() - self._verdict[0] < self._again_s:
            return time.monotonic() - self._verdict[0], self._verdict[1]
        if self._checking is None:
            loop = asyncio.get_running_loop()
            self._checking = loop.run_in_executor(self._thread, lambda: self.audit.verify(pause_s=PAUSE_S))
        checking = self._checking
        done, _ = await asyncio.wait((checking,), timeout=self._wait_s)
        if not done:
            return None
        if self._checking is checking:
            self._checking = None
        verdict = checking.result()
        self._verdict = time.monotonic(), verdict
        return 0.0, verdict


def _desk(request: Request) -> AuditDesk:
    desk: AuditDesk = request.app.state.audit
    return desk


Desk = Annotated[AuditDesk, Depends(_desk)]
router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", response_model=AuditPage, responses=_PROBLEMS)
async def read_audit(
    desk: Desk,
    caller: Caller,
    request_id: RequestId,
    since: Annotated[int, Query(ge=0, le=2**62, description="lines after this sequence number")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """Read lines of the caller's tenant."""
    detail = {"since": since, "limit": limit}
    async with desk.guard.request(caller, READ, "audit.read", request_id, detail) as guarded:
        tenant = guarded.principal.tenant
        found = await asyncio.to_thread(desk.audit.records, since, limit, tenant)
        guarded.note({"lines": len(found)})
    return AuditPage(records=[AuditLine.of(record) for record in found])


@router.get("/verify", response_model=AuditVerdict, responses=_PROBLEMS)
async def verify_audit(desk: Desk, caller: Caller, request_id: RequestId) -> AuditVerdict:
    """Say whether the record was changed: all its lines, the chain, and the checkpoints' places in it."""
    async with desk.guard.request(caller, READ, "audit.verify", request_id) as guarded:
        said = await desk.verdict()
        if said is None:
            guarded.note({"state": "running"})
            return AuditVerdict(state="running")
        age_s, verdict = said
        lines = await asyncio.to_thread(desk.audit.count, guarded.principal.tenant)
        guarded.note({"state": "done", "ok": verdict.ok})
    return AuditVerdict(
        state="done",
        ok=verdict.ok,
        first_bad=verdict.first_bad,
        reason=verdict.reason,
        begins=verdict.begins,
        lines=lines,
        checked_s_ago=int(age_s),
    )
