"""The suppression list's own database, beside the data directory: backups of that do not take it back.

It holds keyed hashes and no name; what stands in place of a corrected value is sealed. A list that was made with
another key would keep nobody out, so it is not opened with one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Double, Integer, MetaData, SmallInteger, String, Table, Text, select
from sqlalchemy.engine import Connection, make_url

from index.database import Database
from index.ledger_schema import index_state, open_database, storable
from index.settings import AppArgs
from policies.errors import ConfigurationError
from policies.keyed_hashes import KeyedHashes
from policies.privacy.sealing import Sealing
from policies.privacy.suppression import USE, Suppression, Suppressions

VERSION = 1
PRAGMAS: dict[str, str | int] = {"journal_mode": "WAL", "synchronous": "FULL", "secure_delete": "ON"}
STATE = "suppressions"
"""Under this key the ledger's state has the revision that the list had reached."""
_REVISION, _KEY = "revision", "key"

metadata = MetaData()
suppressions = Table(
    "suppressions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("request_id", String(32), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("gate", String(16), nullable=False),
    Column("gate_chars", SmallInteger, nullable=False),
    Column("length", Integer, nullable=False),
    Column("words", Integer, nullable=False),
    Column("kind", String(10), nullable=False),
    Column("action", String(8), nullable=False),
    Column("replacement", Text),  # sealed
    Column("at", Double, nullable=False),
)
facts = Table(
    "suppression_facts",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("value", Text, nullable=False),
)


def suppressions_url(args: AppArgs) -> str:
    """Name the list's database: the configured one, else a file beside the data directory, or a server's ledger."""
    if args.store.suppressions is not None:
        return args.store.suppressions
    if make_url(args.store.ledger).get_backend_name() == "sqlite":
        return f"sqlite:///{args.data_dir}.suppressions.sqlite"
    return args.store.ledger


def open_suppressions(args: AppArgs) -> Suppressions:
    """Give the list as texts are held against it.

    Raises `ConfigurationError` as `KeyedHashes.load`, and for a list that lacks what the ledger knows to be on it.
    """
    keyed = KeyedHashes.load(Path(args.compliance.key_file))
    listed = SuppressionList(suppressions_url(args), keyed)
    if listed.revision() < _known_revision(args.store.ledger):
        listed.close()
        raise ConfigurationError(
            "store.suppressions: the list of what was erased is missing, or older than the ledger: put it back, or "
            "what was erased would come back"
        )
    return Suppressions(listed, keyed)


def _known_revision(ledger_url: str) -> int:
    database = open_database(ledger_url)
    try:
        known = select(index_state.c.value).where(index_state.c.key == STATE)
        return int(database.read(lambda connection: connection.scalar(known)) or 0)
    finally:
        database.dispose()


class SuppressionList:
    """The list (a `SuppressionSource`). Safe to use from many threads; every method raises `Unavailable`.

    No file is made before there is an entry. Raises `ConfigurationError` for a list that another key made.
    """

    def __init__(self, url: str, keyed: KeyedHashes) -> None:
        self._url = url
        self._keyed = keyed
        self._sealing = Sealing(keyed)
        parsed = make_url(url)
        self._file = Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None
        self._database: Database | None = None
        self._open(make=False)

    def revision(self) -> int:
        """Give a number that rises with every change; 0 for a list that never had an entry."""
        database = self._open(make=False)
        if database is None:
            return 0
        found = select(facts.c.value).where(facts.c.name == _REVISION)
        return int(database.read(lambda connection: connection.scalar(found)) or 0)

    def entries(self, tenant: str) -> list[Suppression]:
        """Give a tenant's entries."""
        return self._entries(suppressions.c.tenant == storable(tenant))

    def of_request(self, tenant: str, request_id: str) -> list[Suppression]:
        """Give what one request put there."""
        return self._entries(suppressions.c.tenant == storable(tenant), suppressions.c.request_id == request_id)

    def requests(self) -> list[tuple[str, str]]:
        """Give the tenant and the id of every request that has entries."""
        database = self._open(make=False)
        if database is None:
            return []
        rows = select(suppressions.c.tenant, suppressions.c.request_id).distinct().order_by(suppressions.c.request_id)
        return [(row.tenant, row.request_id) for row in database.read(lambda c: c.execute(rows).all())]

    def add(self, tenant: str, entries: Sequence[Suppression]) -> None:
        """Add entries; those that are there stay as they are. On the disk when this returns."""
        database = self._open(make=True)
        assert database is not None, "it was asked to be made"
        rows = [self._row(tenant, entry) for entry in entries]

        def work(connection: Connection) -> None:
            connection.execute(database.insert(suppressions).on_conflict_do_nothing(), rows)
            self._raise_revision(connection, database)

        if rows:
            database.write(work)

    def lift(self, tenant: str, request_id: str) -> int:
        """Remove what a request put there, and give how many entries that were."""
        database = self._open(make=False)
        if database is None:
            return 0
        gone = suppressions.delete().where(
            suppressions.c.tenant == storable(tenant), suppressions.c.request_id == request_id
        )

        def work(connection: Connection) -> int:
            count = connection.execute(gone).rowcount
            self._raise_revision(connection, database)
            return count

        return database.write(work)

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._database is not None:
            self._database.dispose()

    def _open(self, make: bool) -> Database | None:
        if self._database is not None:
            return self._database
        if self._file is not None and not make and not self._file.exists():
            return None
        database = Database(self._url, metadata, "suppressions", VERSION, PRAGMAS)
        self._check_key(database)
        if self._file is not None:
            self._file.chmod(0o600)
        self._database = database
        return database

    def _check_key(self, database: Database) -> None:
        mark = self._keyed.of("", USE, _KEY)
        row = database.insert(facts).values(name=_KEY, value=mark).on_conflict_do_nothing()

        def work(connection: Connection) -> str | None:
            connection.execute(row)
            return connection.scalar(select(facts.c.value).where(facts.c.name == _KEY))

        known = database.read(lambda connection: connection.scalar(select(facts.c.value).where(facts.c.name == _KEY)))
        if (known or database.write(work)) != mark:
            database.dispose()
            raise ConfigurationError(
                "store.suppressions: this list of what was erased was made with another key: put back the file of "
                "compliance.key_file, or what was erased would come back"
            )

    def _raise_revision(self, connection: Connection, database: Database) -> None:
        connection.execute(database.insert(facts).values(name=_REVISION, value="0").on_conflict_do_nothing())
        held = select(facts.c.value).where(facts.c.name == _REVISION).with_for_update()
        number = int(connection.execute(held).scalar_one()) + 1
        connection.execute(facts.update().where(facts.c.name == _REVISION).values(value=str(number)))

    def _entries(self, *where: Any) -> list[Suppression]:
        database = self._open(make=False)
        if database is None:
            return []
        rows = select(suppressions).where(*where).order_by(suppressions.c.at, suppressions.c.digest)
        return [self._entry(row) for row in database.read(lambda connection: connection.execute(rows).all())]

    def _entry(self, row: Any) -> Suppression:
        fields = {name: getattr(row, name) for name in Suppression.__slots__}
        sealed = fields["replacement"]
        opened = None if sealed is None else self._sealing.open(row.tenant, sealed)
        return replace(Suppression(**fields), replacement=opened)

    def _row(self, tenant: str, entry: Suppression) -> dict[str, Any]:
        fields = {name: getattr(entry, name) for name in Suppression.__slots__}
        sealed = None if entry.replacement is None else self._sealing.seal(tenant, entry.replacement)
        return {**fields, "replacement": sealed, "tenant": storable(tenant), "at": time.time()}
