"""Attempts at documents, counted before each starts and given back unless it failed for the document's sake."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import case, func, or_, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.document import DocumentRef
from index.ledger_records import DeadLetter
from index.ledger_schema import attempts, dead_letters, sources, storable, tenants
from index.sources import Sources

MAX_REASON_CHARS = 2_000


class DeadLetters:
    """A poison document's record: it may kill its worker, and is still counted."""

    def __init__(self, database: Database, places: Sources) -> None:
        self._database = database
        self._places = places

    def begin_attempt(self, ref: DocumentRef, max_attempts: int) -> int | None:
        """Count an attempt, committed before the caller starts it, and give its number.

        `None` when this content (by fingerprint) has used up its attempts; it is then a dead letter, also if
        every attempt took its worker with it and nobody could say why. A new fingerprint starts again at 1.
        """
        fingerprint = storable(ref.fingerprint)
        row = self._database.insert(attempts).values(
            document_id=ref.document_id, fingerprint=fingerprint, count=1, last_at=time.time()
        )
        # Evaluated on the old row, so the count starts again when the fingerprint changed.
        same = attempts.c.fingerprint == fingerprint
        counted = row.on_conflict_do_update(
            index_elements=["document_id"],
            set_={
                "count": case((same, attempts.c.count + 1), else_=1),
                "fingerprint": fingerprint,
                "last_at": row.excluded.last_at,
            },
            where=or_(~same, attempts.c.count < max_attempts),
        ).returning(attempts.c.count)
        # Must outlive the worker, which this document may kill; a power cut may take one attempt back.
        number: int | None = self._database.write(lambda connection: connection.scalar(counted), durable=False)
        if number is None:
            reason = f"the worker ended, without saying why, in each of {max_attempts} attempts"
            self._put(ref, reason, max_attempts, replace=False)
        return number

    def give_back_attempt(self, ref: DocumentRef) -> None:
        """Uncount the attempt begun last: the document stood it, or what failed was not the document.

        What happens to the job or to the other services from then on can never make it a dead letter.
        """
        here = attempts.c.document_id == ref.document_id, attempts.c.fingerprint == storable(ref.fingerprint)
        fewer = attempts.update().where(*here, attempts.c.count > 0).values(count=attempts.c.count - 1)
        self._database.write(lambda connection: connection.execute(fewer), durable=False)

    def reject(self, ref: DocumentRef, reason: str, tried: int) -> None:
        """Put a document into the dead letters, or its newest reason in place of an older one."""
        self._put(ref, reason, tried, replace=True)

    def dead_letters(self, tenant: str | None = None) -> Sequence[DeadLetter]:
        """List the dead letters, newest first."""
        rows = (
            select(
                dead_letters.c.document_id,
                tenants.c.name.label("tenant"),
                sources.c.name.label("source"),
                *(dead_letters.c[field] for field in ("external_id", "fingerprint", "uri", "reason", "attempts", "at")),
            )
            .join_from(dead_letters, sources, dead_letters.c.source_id == sources.c.id)
            .join(tenants, sources.c.tenant_id == tenants.c.id)
            .order_by(dead_letters.c.at.desc(), dead_letters.c.document_id)
        )
        if tenant is not None:
            rows = rows.where(tenants.c.name == storable(tenant))
        return self._database.read(lambda connection: [DeadLetter(*row) for row in connection.execute(rows)])

    def count_dead_letters(self) -> dict[int, int]:
        """Count the dead letters of each source that has some."""
        rows = select(dead_letters.c.source_id, func.count()).group_by(dead_letters.c.source_id)
        return self._database.read(lambda connection: {row[0]: row[1] for row in connection.execute(rows)})

    def retry_dead_letter(self, document_id: str) -> bool:
        """Give a document all its attempts again; it stays a dead letter until one succeeds. False: it is none."""

        def work(connection: Connection) -> bool:
            here = dead_letters.c.document_id == storable(document_id)
            if connection.scalar(select(dead_letters.c.document_id).where(here)) is None:
                return False
            connection.execute(attempts.delete().where(attempts.c.document_id == storable(document_id)))
            return True

        return self._database.write(work)

    def clear(self, connection: Connection, document_ids: Sequence[str]) -> None:
        """Forget attempts and dead letters, as a part of the caller's transaction."""
        for table in (attempts, dead_letters):
            connection.execute(table.delete().where(table.c.document_id.in_(self._database.values(document_ids))))

    def _put(self, ref: DocumentRef, reason: str, tried: int, replace: bool) -> None:
        _, source_id = self._places.place(ref.tenant, ref.source)
        row = self._database.insert(dead_letters).values(
            document_id=ref.document_id,
            source_id=source_id,
            external_id=storable(ref.external_id),
            fingerprint=storable(ref.fingerprint),
            uri=storable(ref.uri),
            reason=storable(reason)[:MAX_REASON_CHARS],
            attempts=tried,
            at=time.time(),
        )
        newest = {field: row.excluded[field] for field in ("fingerprint", "uri", "reason", "attempts", "at")}
        # A reason that a parser gave for this very content says more than "the worker ended".
        other = None if replace else dead_letters.c.fingerprint != row.excluded.fingerprint
        put = row.on_conflict_do_update(index_elements=["document_id"], set_=newest, where=other)
        self._database.write(lambda connection: connection.execute(put))
