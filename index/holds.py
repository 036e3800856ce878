"""Legal holds and records that may not change: what nobody erases, expires or overwrites, and why.

A hold is on a document, a source or a person (by keyed hashes of what names them). A record that a regime keeps
unchanged for a time is a hold that ends by itself. Whoever removes documents asks `of` first.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.engine import Connection, Row

from index.database import Database
from index.ledger_schema import documents, holds, sources, storable, tenants
from policies.errors import InvalidRequest, NotFound

Kind = Literal["document", "source", "subject"]
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold. Times are Unix seconds. `immutable`: put there by a regime's rule; the document may not change, too."""

    hold_id: str
    tenant: str
    kind: str
    target: str
    reason: str
    by: str
    at: float
    until: float | None = None
    immutable: bool = False
    released_at: float | None = None
    released_by: str | None = None


class Holds:
    """Holds of all tenants. Raises `Unavailable` from every method when the ledger does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, document_ids: Collection[str], now: float | None = None) -> dict[str, str]:
        """Give, of these documents, those that are held, each with the reason. None of them may be removed.

        A person's hold is not among them: ask `any_for` before a person's data are erased.
        """
        ids = sorted(set(document_ids))
        found: dict[str, str] = {}
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            rows = self._database.read(lambda connection, batch=batch: self._held(connection, batch, now))  # type: ignore[misc]
            for row in rows:
                found.setdefault(row.document_id, row.reason)
        return found

    def immutable(self, document_id: str, now: float | None = None) -> str | None:
        """Give why this document's text may not change; None where it may."""
        rows = self._database.read(lambda connection: self._held(connection, [document_id], now))
        return next((str(row.reason) for row in rows), None)

    def any_for(self, tenant: str, subject: Collection[str], now: float | None = None) -> str | None:
        """Give why nothing of this person may be erased; None where it may.

        `subject`: keyed hashes of all that names them (`KeyedHashes.subjects`).
        """
        chosen = holds.c.tenant == tenant, holds.c.kind == "subject", holds.c.target.in_(sorted(set(subject)))
        rows = select(holds.c.reason).where(*chosen, _in_force(now)).order_by(holds.c.at).limit(1)
        return self._database.read(lambda connection: connection.scalar(rows))

    def all(self, tenant: str | None = None, released: bool = False) -> Sequence[Hold]:
        """List holds, newest first; with `released`, also those that are over."""
        rows = select(holds).order_by(holds.c.at.desc(), holds.c.hold_id)
        if tenant is not None:
            rows = rows.where(holds.c.tenant == tenant)
        if not released:
            rows = rows.where(_in_force(None))
        return self._database.read(lambda connection: [Hold(*row) for row in connection.execute(rows)])

    def add(
        self,
        tenant: str,
        kind: Kind,
        target: str,
        reason: str,
        by: str,
        until: float | None = None,
    ) -> Hold:
        """Hold a document (by id), a source (by name) or a person (by a keyed hash). Raises `InvalidRequest`."""
        if not reason.strip() or len(reason) > 500:
            raise InvalidRequest("a hold says why, in at most 500 characters")
        now = time.time()
        if until is not None and until <= now:
            raise InvalidRequest("a hold ends in the future, or never")
        hold = Hold(uuid.uuid4().hex, tenant, kind, storable(target), storable(reason.strip()), by, now, until)
        self._database.write(lambda connection: _insert(connection, hold))
        return hold

    def keep(self, tenant: str, document_id: str, reason: str, until: float) -> None:
        """Let a record stand unchanged until then, once: what keeps it already goes on, and is not made shorter."""

        def work(connection: Connection) -> None:
            mine = and_(holds.c.target == document_id, holds.c.immutable, holds.c.released_at.is_(None))
            held = connection.execute(select(holds.c.hold_id, holds.c.until).where(mine)).first()
            if held is None:
                text = storable(reason)
                _insert(
                    connection,
                    Hold(uuid.uuid4().hex, tenant, "document", document_id, text, "rule", time.time(), until, True),
                )
            elif held.until is not None and held.until < until:
                connection.execute(holds.update().where(holds.c.hold_id == held.hold_id).values(until=until))

        self._database.write(work)

    def release(self, hold_id: str, by: str) -> Hold:
        """End a hold; it stays on the record. Raises `NotFound`, and `InvalidRequest` for one that a rule set."""

        def work(connection: Connection) -> Hold:
            row = connection.execute(select(holds).where(holds.c.hold_id == hold_id)).one_or_none()
            if row is None or row.released_at is not None:
                raise NotFound(f"no hold {hold_id[:64]!a}")
            if row.immutable:
                raise InvalidRequest("a record that a rule keeps unchanged ends with its time; change the rule")
            changes = {"released_at": time.time(), "released_by": by}
            connection.execute(holds.update().where(holds.c.hold_id == hold_id).values(**changes))
            return Hold(*row[:-2], **changes)  # type: ignore[arg-type]

        return self._database.write(work)

    def _held(self, connection: Connection, ids: Sequence[str], now: float | None) -> Sequence[Row[Any]]:
        rows = select(documents.c.document_id, holds.c.reason).select_from(documents)
        rows = rows.join(tenants, tenants.c.id == documents.c.tenant_id)
        rows = rows.join(sources, sources.c.id == documents.c.source_id)
        on_document = and_(holds.c.kind == "document", holds.c.target == documents.c.document_id)
        on_source = and_(holds.c.kind == "source", holds.c.target == sources.c.name)
        rows = rows.join(holds, and_(holds.c.tenant == tenants.c.name, or_(on_document, on_source)))
        chosen = documents.c.document_id.in_(self._database.values(ids))
        return list(connection.execute(rows.where(chosen, _in_force(now)).order_by(holds.c.at, holds.c.hold_id)))


def _in_force(now: float | None) -> ColumnElement[bool]:
    moment = time.time() if now is None else now
    return and_(holds.c.released_at.is_(None), or_(holds.c.until.is_(None), holds.c.until > moment))


def _insert(connection: Connection, hold: Hold) -> None:
    names = holds.c.keys()
    values = (getattr(hold, name) for name in names)
    connection.execute(holds.insert().values(**dict(zip(names, values, strict=True))))
