"""Rows of a SQL table, view or query as documents.

Rows are listed in pages, each a short statement of its own, in the order of their ids. Ids do not change, so no row
slips past a page's border or comes twice while others are changed, added or removed, which an order by time of change
cannot promise. A listing of changes is the same walk, over the rows that `database_watermark` asks for.
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Engine, Select
from sqlalchemy.engine import Connection

from index.settings import read_secret
from ingest.connector import Entry, Gone, Mark
from ingest.connectors import database_rows as rows
from ingest.connectors.database_documents import Found, RowReader, each_once
from ingest.connectors.database_engine import clock, open_engine, parse_url, run
from ingest.connectors.database_notify import notified
from ingest.connectors.database_settings import DatabaseSettings
from ingest.connectors.database_table import Place, SourceTable, checked_id_type
from ingest.connectors.database_watermark import Highest, Watermark, unix_us
from ingest.connectors.listed_version import changed, is_listed
from policies.errors import ConfigurationError, DocumentRejected, RightsUnreadable, SourceUnavailable, TooLarge

__all__ = ["DatabaseConnector", "DatabaseSettings"]

T = TypeVar("T")
ROWS_AT_ONCE = 20
"""Rows that the driver holds; of a page, only entries are kept, without texts that are over `inline_bytes`."""
IDS_AT_ONCE = 500


class DatabaseConnector:
    """Reads one source of kind `database`. It connects with its first call, and keeps a connection for the next one."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._reader = RowReader(settings)
        self._opened: tuple[Engine, SourceTable, str] | None = None
        self._id_type: type | None = None

    def check(self) -> None:
        settings, table = self._settings, self._table
        self.watch()
        self._run(table.check)
        one_row = table.page(self._find_id_type() or int, None, None, 1)
        self._run(lambda connection: connection.execute(one_row).all())
        value = self._one(table.some_update())
        if value is not None and settings.watermark.read(value) is None:
            raise ConfigurationError(
                f"{settings.updated_column!r} holds {type(value).__name__} that is neither a time (text: ISO 8601) nor "
                "a whole number"
            )

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        try:
            yield from self._list(cursor)
        except ConfigurationError as error:
            if self._is_readable_but_for_rights():
                raise RightsUnreadable(error.detail) from error
            raise

    def _list(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        since = self._since(cursor)
        clock_us = self._clock_us()  # before the first page: what is written from here on is at or above it
        highest = Highest(since)
        for found in self._walk(since, clock_us):
            highest.add(found.updated)
            yield found.item
        if since is None and self._one(self._table.without_id()) is not None:
            yield self._reader.without_id()
        yield Mark(self._cursor(highest.watermark(clock_us)), complete=since is None)

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        asked = list(dict.fromkeys(external_ids))
        for start in range(0, len(asked), IDS_AT_ONCE):
            values = {text: self._id_values(text) for text in asked[start : start + IDS_AT_ONCE]}
            there = set()
            for found in self._with_ids([value for several in values.values() for value in several]):
                there.add(rows.id_text(found.key))
                yield found.item
            for text, several in values.items():
                if there.isdisjoint(rows.id_text(value) for value in several):
                    yield Gone(text)

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        values = self._id_values(entry.location or entry.ref.external_id)
        id_type = self._find_id_type()
        if id_type is None or not values:
            raise DocumentRejected("deleted while reading")
        statement = self._table.with_ids(id_type, values).limit(ROWS_AT_ONCE)
        found = self._run(lambda connection: connection.execute(statement).all())
        text = self._reader.content(found)
        # What is new in the row may be meant for other readers than the rule that was listed.
        now = next(seen.item for seen in each_once([self._reader.found(row, time.time()) for row in found]))
        if isinstance(now, Gone) or not is_listed(entry, now.ref.fingerprint):
            raise changed()
        if self._settings.aliases.rule(now.ref.rule) != entry.ref.rule:
            raise changed()
        data = text.encode("utf-8", "replace")
        if len(data) > max_bytes:
            raise TooLarge(f"the row's text is larger than {max_bytes / 1_000_000:g} MB")
        return data

    def watch(self) -> AsyncIterator[Sequence[str]] | None:
        channel = self._settings.notify_channel
        if channel is None:
            return None
        url = parse_url(self._url())
        if url.get_backend_name() != "postgresql":
            raise ConfigurationError(f"notify_channel: {url.get_backend_name()} has no LISTEN, only PostgreSQL has")
        return notified(url, channel)

    def _is_readable_but_for_rights(self) -> bool:
        """Say whether the columns of rights are what cannot be read: they are gone, or refused to this user."""
        for statement, is_readable in ((self._table.some_id(), True), (self._table.some_rights(), False)):
            try:
                self._one(statement)
            except (ConfigurationError, SourceUnavailable):
                return not is_readable
        return False

    # ---- rows

    def _walk(self, since: Watermark | None, clock_us: int) -> Iterator[Found]:
        """All rows, or those that may have changed since a watermark, each once."""
        id_type = self._find_id_type()
        if id_type is None:
            return
        changed = self._changed(since, clock_us)
        size, place = self._settings.page_rows, None
        while True:
            page = self._read(self._table.page(id_type, place, changed, size + 1))
            if len(page) <= size:
                yield from each_once(page)
                return
            # Rows of one id, where a query has such, must be seen together: the page ends before its last id.
            last = page[-1].key
            kept = [found for found in page if found.key != last]
            yield from each_once(kept or page)
            ended, place = place, Place(last, inclusive=bool(kept))
            if place == ended:
                raise SourceUnavailable(f"the order of {self._settings.id_column!r} is not that of its values")

    def _changed(self, since: Watermark | None, clock_us: int) -> ColumnElement[bool] | None:
        updated = self._table.updated
        if since is None or updated is None:
            return None
        return self._settings.watermark.since(updated, since, clock_us, self._table.binary_order)

    def _with_ids(self, values: Sequence[object]) -> Sequence[Found]:
        id_type = self._find_id_type()
        if id_type is None or not values:
            return []
        return each_once(self._read(self._table.with_ids(id_type, values)))

    def _read(self, statement: Select[Any]) -> Sequence[Found]:
        def work(connection: Connection) -> Sequence[Found]:
            asked_at = time.time()  # what the rows hold was so when the statement began, however long it is read
            streamed = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(statement)
            return [self._reader.found(row, asked_at) for row in streamed]

        return self._run(work)

    def _id_values(self, text: str) -> Sequence[Any]:
        """The values of the id column that may be meant; SQLite keeps numbers and text in one column."""
        id_type = self._find_id_type()
        if id_type is None:
            return []
        kinds = {int: None, str: None, id_type: None} if self._dialect == "sqlite" else {id_type: None}
        values = [rows.id_value(text, kind) for kind in kinds]
        return [value for value in values if value is not None]

    def _find_id_type(self) -> type | None:
        """The Python type of the ids; none while there are no rows."""
        if self._id_type is None:
            value = self._one(self._table.some_id())
            if value is not None:
                self._id_type = checked_id_type(value, self._settings.id_column)
        return self._id_type

    # ---- cursors

    def _since(self, cursor: str | None) -> Watermark | None:
        """The watermark of a cursor that was written under these settings; none for any other."""
        if cursor is None or self._table.updated is None:
            return None
        try:
            said = json.loads(cursor)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or said.get("settings") != self._digest:
            return None
        return Watermark.from_json(said.get("watermark"))

    def _cursor(self, mark: Watermark | None) -> str | None:
        return None if mark is None else json.dumps({"settings": self._digest, "watermark": asdict(mark)})

    def _clock_us(self) -> int:
        if self._table.updated is None:
            return 0
        return unix_us(self._one(sa.select(clock(self._dialect))))

    # ---- the database

    @property
    def _table(self) -> SourceTable:
        return self._open()[1]

    @property
    def _digest(self) -> str:
        return self._open()[2]

    @property
    def _dialect(self) -> str:
        return self._open()[0].dialect.name

    def _open(self) -> tuple[Engine, SourceTable, str]:
        if self._opened is None:
            url = parse_url(self._url())
            engine = open_engine(url, self._settings.timeout_s)
            weakref.finalize(self, engine.dispose)
            place = f"{engine.dialect.name} {url.host} {url.port} {url.database} {url.query.get('host')}"
            self._opened = engine, SourceTable(self._settings, engine.dialect.name), self._settings.digest(place)
        return self._opened

    def _url(self) -> str:
        secret = read_secret(self._settings.url_file, self._settings.url_env, "url_file")
        if not secret:
            raise ConfigurationError("the file with the database's address is empty")
        return secret

    def _run(self, work: Callable[[Connection], T]) -> T:
        return run(self._open()[0], self._settings.what, work)

    def _one(self, statement: Select[Any] | None) -> Any:
        """The first column of the first row; none where there is none."""
        return None if statement is None else self._run(lambda connection: connection.scalar(statement))
