"""People's requests in the ledger's database: what was asked, how far it is, and what came of it.

    queued ──▶ running ──▶ done          physical (of what erases): pending ──▶ done
                  │
                  └──▶ refused

What names the person is kept sealed while the request runs and is gone when it is over; keyed hashes of it stay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Column, Double, ForeignKey, Index, LargeBinary, MetaData, String, Table, Text, or_, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.ledger_schema import PRAGMAS, storable
from policies.errors import NotFound

Type = Literal["access", "rectification", "erasure", "portability", "restriction", "objection"]
State = Literal["queued", "running", "done", "refused"]
Physical = Literal["none", "pending", "done"]
VERSION = 1
DEAD_S = 60.0
"""A request that runs and was not heard of for this long has lost its worker."""

metadata = MetaData()
requests = Table(
    "privacy_requests",
    metadata,
    Column("privacy_request_id", String(32), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("type", String(16), nullable=False),
    Column("state", String(8), nullable=False),
    Column("reason", Text),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Double, nullable=False),
    Column("heard_at", Double, nullable=False),  # of its worker
    Column("done_at", Double),
    Column("sealed", Text),  # the subject and what is wanted; null as soon as it is over
    Column("subject", Text, nullable=False),  # JSON: keyed hashes
    Column("found", Text, nullable=False),  # JSON: counts by place
    Column("physical", String(8), nullable=False),
    Column("receipt", Text),  # JSON, signed
    Index("privacy_requests_by_tenant", "tenant", "requested_at"),
    Index("privacy_requests_by_state", "state"),
)
exports = Table(
    "privacy_exports",
    metadata,
    Column("privacy_request_id", ForeignKey("privacy_requests.privacy_request_id"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("until", Double, nullable=False),
)


@dataclass(frozen=True, slots=True)
class PrivacyRequest:
    """A request as it stands. Times are Unix seconds; `subject`: keyed hashes; `found`: counts by place."""

    privacy_request_id: str
    tenant: str
    type: Type
    state: State
    reason: str | None
    requested_by: str
    requested_at: float
    heard_at: float
    done_at: float | None
    sealed: str | None
    subject: Sequence[str]
    found: Mapping[str, Any]
    physical: Physical
    receipt: Mapping[str, Any] | None


class PrivacyRequests:
    """All requests, at an SQLAlchemy URL. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url, metadata, "privacy", VERSION, PRAGMAS)
        self._clock = clock

    def add(
        self, request_id: str, tenant: str, kind: Type, by: str, sealed: str | None, subject: Sequence[str]
    ) -> None:
        """Keep a new request; it is queued."""
        now = self._clock()
        row = {
            "privacy_request_id": request_id,
            "tenant": storable(tenant),
            "type": kind,
            "state": "queued",
            "requested_by": storable(by),
            "requested_at": now,
            "heard_at": now,
            "sealed": sealed,
            "subject": json.dumps(list(subject)),
            "found": "{}",
            "physical": "pending" if kind in ("erasure", "rectification") else "none",
        }
        self._database.write(lambda connection: connection.execute(requests.insert().values(**row)))

    def get(self, tenant: str, request_id: str) -> PrivacyRequest:
        """Give a tenant's request. Raises `NotFound`, also for another tenant's."""
        found = self._all(requests.c.privacy_request_id == storable(request_id), requests.c.tenant == storable(tenant))
        if not found:
            raise NotFound("no such request")
        return found[0]

    def of_tenant(self, tenant: str | None = None) -> list[PrivacyRequest]:
        """List requests, newest first; those of one tenant where it is named."""
        return self._all(*([] if tenant is None else [requests.c.tenant == storable(tenant)]))

    def known(self) -> set[str]:
        """Give the ids of all requests."""
        rows = select(requests.c.privacy_request_id)
        return set(self._database.read(lambda connection: connection.scalars(rows).all()))

    def claim(self) -> PrivacyRequest | None:
        """Take up the request that waits longest; one whose worker was lost goes on. None: there is none."""

        def work(connection: Connection) -> str | None:
            lost = (requests.c.state == "running") & (requests.c.heard_at < self._clock() - DEAD_S)
            waiting = select(requests.c.privacy_request_id).where(or_(requests.c.state == "queued", lost))
            waiting = waiting.order_by(requests.c.heard_at).limit(1).with_for_update(skip_locked=True)
            found: str | None = connection.scalar(waiting)
            if found is not None:
                here = requests.c.privacy_request_id == found
                taken = requests.update().where(here).values(state="running", heard_at=self._clock())
                connection.execute(taken)
            return found

        taken = self._database.write(work)
        return None if taken is None else self._all(requests.c.privacy_request_id == taken)[0]

    def heard(self, request_id: str, found: Mapping[str, Any] | None = None) -> None:
        """Note that its worker lives, and what it found so far."""
        changes: dict[str, Any] = {"heard_at": self._clock()}
        self._update(request_id, changes | ({} if found is None else {"found": json.dumps(found)}))

    def finish(self, request_id: str, state: State, found: Mapping[str, Any], reason: str | None = None) -> None:
        """End a request: what named the person goes."""
        now = self._clock()
        changes = {"state": state, "done_at": now, "heard_at": now, "sealed": None, "reason": reason}
        changes |= {"found": json.dumps(found)}
        if state == "refused":
            changes["physical"] = "none"
        self._update(request_id, changes)

    def requeue(self, request_id: str) -> None:
        """Let it be taken up again: something outside of it failed."""
        self._update(request_id, {"state": "queued", "heard_at": self._clock()})

    def pending(self, done_before: float | None = None) -> list[PrivacyRequest]:
        """Give what is erased but still on the disk; of those that ended by then, where it is said."""
        where = [requests.c.state == "done", requests.c.physical == "pending"]
        return self._all(*where, *([] if done_before is None else [requests.c.done_at <= done_before]))

    def purged(self, request_id: str, receipt: Mapping[str, Any]) -> None:
        """Keep the receipt: nothing is left on the disk."""
        self._update(request_id, {"physical": "done", "receipt": json.dumps(receipt)})

    def keep_export(self, request_id: str, sealed: bytes, until: float) -> None:
        """Keep an export, sealed, for a while."""
        row = self._database.insert(exports).values(privacy_request_id=request_id, sealed=sealed, until=until)
        row = row.on_conflict_do_update(index_elements=["privacy_request_id"], set_={"sealed": sealed, "until": until})
        self._database.write(lambda connection: connection.execute(row))

    def export(self, request_id: str) -> bytes | None:
        """Give an export as it was sealed; None where there is none, or no longer."""
        found = select(exports.c.sealed).where(
            exports.c.privacy_request_id == request_id, exports.c.until > self._clock()
        )
        return self._database.read(lambda connection: connection.scalar(found))

    def count_exports(self, about: Sequence[str]) -> int:
        """Count the exports about one of these subjects (keyed hashes)."""
        rows = select(requests.c.subject).join_from(exports, requests)
        found = self._database.read(lambda connection: connection.scalars(rows).all())
        return sum(1 for each in found if not set(about).isdisjoint(json.loads(each)))

    def drop_exports(self, about: Sequence[str] = ()) -> int:
        """Remove exports that are past their time, and those about one of these subjects (keyed hashes)."""
        wanted = set(about)
        of = {each.privacy_request_id for each in self._all() if wanted.intersection(each.subject)} if wanted else set()
        gone = exports.delete().where(
            or_(exports.c.until <= self._clock(), exports.c.privacy_request_id.in_(self._database.values(sorted(of))))
        )
        return self._database.write(lambda connection: connection.execute(gone).rowcount)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._database.dispose()

    def _update(self, request_id: str, changes: Mapping[str, Any]) -> None:
        change = requests.update().where(requests.c.privacy_request_id == request_id).values(**changes)
        self._database.write(lambda connection: connection.execute(change))

    def _all(self, *where: Any) -> list[PrivacyRequest]:
        rows = select(requests).where(*where).order_by(requests.c.requested_at.desc())
        return [_request(row) for row in self._database.read(lambda connection: connection.execute(rows).all())]


def _request(row: Any) -> PrivacyRequest:
    fields = {name: getattr(row, name) for name in PrivacyRequest.__slots__}
    read = {name: json.loads(fields[name]) for name in ("subject", "found")}
    receipt = None if fields["receipt"] is None else json.loads(fields["receipt"])
    return PrivacyRequest(**{**fields, **read, "receipt": receipt})
