"""Consents, objections and opt-outs in the ledger. People stand there as keyed hashes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select

from index.database import Database
from index.ledger_schema import consents, storable
from policies.compliance.consent import Consents


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """What is on record for a scope. `granted=False`: withdrawn, or opted out."""

    tenant: str
    purpose: str
    scope: str
    granted: bool
    at: float
    until: float | None
    by: str


class ConsentRecords:
    """Consents, objections and opt-outs. Raises `Unavailable` when the ledger does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def consents(self, tenant: str, purpose: str) -> Consents:
        """Give what holds for a purpose now. A consent that has run out is none; a withdrawal does not run out."""
        columns, now = consents.c, time.time()
        chosen = columns.tenant == tenant, columns.purpose == purpose
        alive = or_(columns.granted.is_(False), columns.until.is_(None), columns.until > now)
        rows = select(columns.scope, columns.granted).where(and_(*chosen, alive))
        found = self._database.read(lambda connection: connection.execute(rows).all())
        return Consents(
            frozenset(row.scope for row in found if row.granted),
            frozenset(row.scope for row in found if not row.granted),
        )

    def set(
        self, tenant: str, purpose: str, scope: str, granted: bool, by: str, until: float | None = None
    ) -> ConsentRecord:
        """Record that consent was given, or withdrawn; what was recorded last for a scope holds."""
        record = ConsentRecord(tenant, purpose, storable(scope), granted, time.time(), until, by)
        values = {name: getattr(record, name) for name in ConsentRecord.__slots__}
        row = self._database.insert(consents).values(**values)
        changes = {name: value for name, value in values.items() if name not in ("tenant", "purpose", "scope")}
        row = row.on_conflict_do_update(index_elements=["tenant", "purpose", "scope"], set_=changes)
        self._database.write(lambda connection: connection.execute(row))
        return record

    def all(self, tenant: str | None = None) -> Sequence[ConsentRecord]:
        """List what is on record."""
        columns = consents.c
        rows = select(consents).order_by(columns.tenant, columns.purpose, columns.scope)
        if tenant is not None:
            rows = rows.where(columns.tenant == tenant)
        return self._database.read(lambda connection: [ConsentRecord(*row) for row in connection.execute(rows)])
