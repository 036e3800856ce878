"""Which sources are kept fresh, how that goes, and where somebody said to look.

The ledger is how the parts of the system speak about sources: a webhook, a queue, a command line and another process
write a hint here, and what keeps sources fresh reads it. A hint is gone only when what it asked for is done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from index.database import Database
from index.ledger_records import SourceHint, SourceRun, StoredSource
from index.ledger_schema import (
    cursors,
    documents,
    source_hints,
    source_runs,
    source_settings,
    sources,
    storable,
    tenants,
)
from index.sources import Sources
from policies.errors import Conflict, NotFound

MAX_HINTS = 1_000
"""Of one source: from here on, one hint that says "list" stands for all of them."""
MAX_ERROR_CHARS = 1_000


class SourceRuns:
    """Settings, state and hints of the sources that are kept fresh."""

    def __init__(self, database: Database, places: Sources) -> None:
        self._database = database
        self._places = places

    # ---- settings

    def keep_source(self, tenant: str, name: str, uri: str, config: str) -> int:
        """Add a source, or give a known one new settings. Gives its id.

        Raises `Conflict` where another tenant has a source of that name.
        """
        source_id = self._places.source_id(tenant, name, uri)
        row = self._database.insert(source_settings).values(
            source_id=source_id, name=storable(name), config=config, paused=False
        )
        row = row.on_conflict_do_update(index_elements=["source_id"], set_={"config": config})
        try:
            self._database.write(lambda connection: connection.execute(row))
        except IntegrityError as error:
            raise Conflict(f"another tenant has a source named {name}: choose another name") from error
        return source_id

    def kept_sources(self) -> Sequence[StoredSource]:
        """List the sources that are kept fresh, also those that are paused, by name."""
        rows = select(
            source_settings.c.source_id,
            tenants.c.name,
            source_settings.c.name.label("source"),
            source_settings.c.config,
            source_settings.c.paused,
        )
        rows = rows.join_from(source_settings, sources, source_settings.c.source_id == sources.c.id)
        rows = rows.join(tenants, sources.c.tenant_id == tenants.c.id).order_by(source_settings.c.name)
        return self._database.read(lambda connection: [StoredSource(*row) for row in connection.execute(rows)])

    def kept_source(self, name: str) -> StoredSource:
        """Give one source that is kept fresh. Raises `NotFound`."""
        for source in self.kept_sources():
            if source.name == name:
                return source
        raise NotFound(f"no source is named {name}")

    def is_kept(self, source_id: int, config: str) -> bool:
        """Say whether a source is kept fresh with these settings, and not paused."""
        of_it = source_settings.c.source_id == source_id, source_settings.c.config == config
        found = select(source_settings.c.source_id).where(*of_it, source_settings.c.paused.is_(False))
        return self._database.read(lambda connection: connection.scalar(found)) is not None

    def pause_source(self, source_id: int, paused: bool) -> None:
        """Let a source rest, or go on with it."""
        change = source_settings.update().where(source_settings.c.source_id == source_id).values(paused=paused)
        self._database.write(lambda connection: connection.execute(change))

    def forget_source(self, source_id: int, gone: bool = False) -> None:
        """Keep a source fresh no longer: its settings, hints, cursor and state go, its documents do not.

        `gone`: nothing that was listed before becomes live any more, whoever is still at work on it.
        """

        def work(connection: Connection) -> None:
            if gone:
                connection.execute(sources.update().where(sources.c.id == source_id).values(gone_at=time.time()))
            for table in (source_settings, source_hints, source_runs, cursors):
                connection.execute(table.delete().where(table.c.source_id == source_id))

        self._database.write(work)

    # ---- runs

    def run_begins(self, source_id: int) -> None:
        """Record that a listing begins."""
        row = self._database.insert(source_runs).values(source_id=source_id, began_at=time.time(), failures=0)
        row = row.on_conflict_do_update(
            index_elements=["source_id"], set_={"began_at": row.excluded.began_at, "ended_at": None}
        )
        self._database.write(lambda connection: connection.execute(row), durable=False)

    def run_succeeds(self, source_id: int, as_of: float, full: bool, report: str) -> None:
        """Record that a listing that began at `as_of` ended well, and all it named is in the index."""
        changes: dict[str, Any] = {"ended_at": time.time(), "as_of": as_of, "failures": 0, "report": report}
        changes |= {"error": None, "retry_at": None} | ({"full_at": as_of} if full else {})
        self._update_run(source_id, changes)

    def run_fails(self, source_id: int, error: str, retry_at: float | None = None) -> int:
        """Record why a listing, or a document of it, failed; gives how many did in a row."""
        known = storable(error)[:MAX_ERROR_CHARS]
        row = self._database.insert(source_runs).values(
            source_id=source_id, began_at=time.time(), ended_at=time.time(), failures=1, error=known, retry_at=retry_at
        )
        again = {
            "ended_at": row.excluded.ended_at,
            "failures": source_runs.c.failures + 1,
            "error": known,
            "retry_at": retry_at,
        }
        counted = row.on_conflict_do_update(index_elements=["source_id"], set_=again).returning(source_runs.c.failures)
        return int(self._database.write(lambda connection: connection.execute(counted).scalar_one()))

    def source_run(self, source_id: int) -> SourceRun | None:
        """Give how a source's listings go; none before the first began."""
        rows = select(source_runs).where(source_runs.c.source_id == source_id)
        found = self._database.read(lambda connection: connection.execute(rows).one_or_none())
        return None if found is None else SourceRun(*found)

    def source_documents(self) -> dict[int, int]:
        """Count the live documents of each source."""
        rows = select(documents.c.source_id, func.count()).where(documents.c.version.is_not(None))
        rows = rows.group_by(documents.c.source_id)
        return self._database.read(lambda connection: {row[0]: row[1] for row in connection.execute(rows)})

    # ---- hints

    def hint(self, source_id: int, external_ids: Sequence[str]) -> None:
        """Say that these documents may have changed; none of them: that anything may have. Durable when it returns."""
        names = sorted({storable(name) for name in external_ids if name}) or [""]

        def work(connection: Connection) -> None:
            here = source_hints.c.source_id == source_id
            held = connection.scalar(select(func.count()).select_from(source_hints).where(here)) or 0
            chosen = [""] if held + len(names) > MAX_HINTS else names
            for name in chosen:
                row = self._database.insert(source_hints).values(source_id=source_id, external_id=name, at=time.time())
                # Later than before, whatever the clocks of two hosts say: or it would be cleared with the one before.
                later = case((row.excluded.at > source_hints.c.at, row.excluded.at), else_=source_hints.c.at + 1e-3)
                newer = row.on_conflict_do_update(index_elements=["source_id", "external_id"], set_={"at": later})
                connection.execute(newer)

        self._database.write(work)

    def hints(self) -> Sequence[SourceHint]:
        """List where to look, the oldest hint first."""
        rows = select(source_hints).order_by(source_hints.c.at)
        return self._database.read(lambda connection: [SourceHint(*row) for row in connection.execute(rows)])

    def clear_hints(self, hints: Sequence[SourceHint]) -> None:
        """Forget hints that were followed; one that was given again meanwhile stays."""

        def work(connection: Connection) -> None:
            for item in hints:
                here = source_hints.c.source_id == item.source_id, source_hints.c.external_id == item.external_id
                connection.execute(source_hints.delete().where(*here, source_hints.c.at <= item.at))

        self._database.write(work, durable=False)

    def _update_run(self, source_id: int, changes: dict[str, Any]) -> None:
        change = source_runs.update().where(source_runs.c.source_id == source_id).values(**changes)
        self._database.write(lambda connection: connection.execute(change), durable=False)
