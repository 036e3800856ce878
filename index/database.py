"""A SQL database that many processes open at once: short transactions on SQLite or PostgreSQL.

A unit of work is a function of a connection. It may run more than once, so it touches nothing but the database.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Engine,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    cast,
    create_engine,
    event,
    func,
    inspect,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from policies.errors import ConfigurationError, Unavailable

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_TIMEOUT_S = 30
ATTEMPTS = 6
POOL_SIZE = 4
MAX_OVERFLOW = 12
POOL_TIMEOUT_S = 10
CREATE_LOCK = 0x72617972  # any constant that all processes share
PASSING_STATES = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
_BEGIN = "database_begin"

_versions = Table(
    "schema_version",
    MetaData(),
    Column("component", String(32), primary_key=True),
    Column("version", Integer, nullable=False),
)


class Database:
    """One component's tables in one database, created on first use.

    `component` and `version` name the schema; several components may share a database. `pragmas` are for
    SQLite connections. `upgrades` holds, by version, the statements that bring a database to the one after it; missing
    tables need none. Safe to use from many threads.

    Raises `ConfigurationError` for a URL that cannot work and for a schema of another version, `Unavailable`
    when the database cannot be reached.
    """

    def __init__(
        self,
        url: str,
        metadata: MetaData,
        component: str,
        version: int,
        pragmas: Mapping[str, str | int] | None = None,
        upgrades: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self._url = _checked(url, component)
        self._component = component
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self._url, pragmas or {}) if self.is_sqlite else _postgresql_engine(self._url)
        event.listen(self._engine, "begin", _begin)
        # A read is one statement: without a transaction around it, it costs one round trip and not three.
        self._reader = self._engine if self.is_sqlite else self._engine.execution_options(isolation_level="AUTOCOMMIT")
        durable = str((pragmas or {}).get("synchronous", "FULL"))
        self._durable = self._engine.execution_options(**{_BEGIN: _begin_statements(self.is_sqlite, durable)})
        self._hasty = self._engine.execution_options(**{_BEGIN: _begin_statements(self.is_sqlite, "NORMAL")})
        try:
            self._create(metadata, version, upgrades or {})
        except BaseException:
            self._engine.dispose()
            raise

    def read(self, work: Work[T]) -> T:
        """Run `work` without a transaction: each statement sees what is committed when it starts.

        Raises `Unavailable` when the database does not answer.
        """

        def once() -> T:
            with self._reader.connect() as connection:
                return work(connection)

        return self._with_retries(once)

    def write(self, work: Work[T], durable: bool = True) -> T:
        """Run `work` in one transaction and commit it. SQLite takes the write lock at its start.

        Without `durable` the commit outlives the process at once, but a power cut only a moment later; it does
        not wait for the disk, which takes milliseconds.

        Raises `Unavailable` when the database does not answer, or stays locked, or dies while it commits; only
        in the last case may the change have been kept.
        """
        engine = self._durable if durable else self._hasty

        def once() -> T:
            with engine.connect() as connection, connection.begin() as transaction:
                result = work(connection)
                try:
                    transaction.commit()
                except OperationalError as error:
                    # Never retried: whether the first commit arrived is unknown, and work may not be idempotent.
                    raise Unavailable(f"the {self._component} database failed while it committed a change") from error
                return result

        return self._with_retries(once)

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Start an INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def values(self, strings: Collection[str]) -> Select[Any]:
        """Give `strings` as a subquery of one column, for IN.

        They travel as one JSON parameter, so that ten thousand of them need no list of ten thousand
        placeholders, and each statement has one text for any number of them.
        """
        array = literal(json.dumps(list(strings), ensure_ascii=False), Text)
        elements = func.json_each(array) if self.is_sqlite else func.json_array_elements_text(cast(array, JSON))
        return select(elements.table_valued("value").c.value)

    def lists(self, rows: Select[Any], *columns: ColumnElement[Any]) -> list[list[Any]]:
        """Read columns of `rows` as one list each, without nulls, in no order. Raises as `read`.

        They travel as JSON values: as rows they take several times as long.
        """
        aggregate = func.json_group_array if self.is_sqlite else func.json_agg
        found = rows.with_only_columns(*(aggregate(column).filter(column.is_not(None)) for column in columns))
        values = self.read(lambda connection: connection.execute(found).one())
        return [json.loads(value) if isinstance(value, str) else value or [] for value in values]

    def vacuum(self, metadata: MetaData, tries: int = 20) -> None:
        """Write these tables anew without what was deleted, in the file and in its log; all tables of a SQLite file.

        PostgreSQL locks each table for as long as it is rewritten; its log and backups have terms of their own. Raises
        `Unavailable` when readers keep SQLite's log from being emptied: call again.
        """
        if not self.is_sqlite:
            for table in metadata.sorted_tables:
                self.read(lambda connection, name=table.name: connection.exec_driver_sql(f'VACUUM (FULL) "{name}"'))  # type: ignore[misc]
            return
        self.read(lambda connection: connection.exec_driver_sql("PRAGMA secure_delete=ON"))
        self.read(lambda connection: connection.exec_driver_sql("VACUUM"))
        for attempt in range(tries):
            busy, _, _ = self.read(lambda c: c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one())
            if not busy:
                return
            time.sleep(0.05 * (attempt + 1))
        raise Unavailable(f"readers keep the {self._component} database's log from being emptied: try again")

    def dispose(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    def _with_retries(self, once: Callable[[], T]) -> T:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return once()
            except (OperationalError, InterfaceError) as error:
                if attempt == ATTEMPTS or time.monotonic() > deadline or not _passing(error):
                    raise Unavailable(self._sentence(error)) from error
            except PoolTimeout as error:
                raise Unavailable(f"all connections to the {self._component} database are busy") from error
            time.sleep(random.uniform(0.2, 1.0) * 0.01 * 2**attempt)  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def _sentence(self, error: DBAPIError) -> str:
        # Built from parts and not from the URL or the driver's words, which may hold a password.
        place = f"file {self._url.database}" if self.is_sqlite else f"server {self._url.host or 'on its socket'}"
        why = "cannot be reached or written" if error.connection_invalidated or not _passing(error) else "is locked"
        return f"the {self._component} database ({place}) {why}"

    def _create(self, metadata: MetaData, version: int, upgrades: Mapping[int, Sequence[str]]) -> None:
        found = self._found_version()
        if found is None:
            self.write(lambda connection: self._create_all(connection, metadata, version))
            found = self._found_version()
        elif found < version and all(step in upgrades for step in range(found, version)):
            self.write(lambda connection: self._upgrade(connection, metadata, version, upgrades))
            found = self._found_version()
        if found != version:
            raise ConfigurationError(
                f"the {self._component} database has schema version {found}, this program knows {version}: "
                "run the program that wrote it, or a newer one"
            )

    def _found_version(self) -> int | None:
        def work(connection: Connection) -> int | None:
            if not inspect(connection).has_table(_versions.name):
                return None
            component = _versions.c.component == self._component
            return connection.scalar(select(_versions.c.version).where(component))

        try:
            return self.read(work)
        except DBAPIError as error:  # a file that is no SQLite database is neither operational nor an interface error
            raise Unavailable(self._sentence(error)) from error

    def _alone(self, connection: Connection) -> None:
        """Let one process at a time change the schema; SQLite already holds its one write lock."""
        if not self.is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(CREATE_LOCK)))

    def _upgrade(
        self, connection: Connection, metadata: MetaData, version: int, upgrades: Mapping[int, Sequence[str]]
    ) -> None:
        self._alone(connection)
        component = _versions.c.component == self._component
        found = connection.execute(select(_versions.c.version).where(component)).scalar_one()
        for step in range(found, version):  # none where another process was faster
            for statement in upgrades[step]:
                connection.exec_driver_sql(statement)
        metadata.create_all(connection)
        connection.execute(_versions.update().where(component).values(version=version))

    def _create_all(self, connection: Connection, metadata: MetaData, version: int) -> None:
        self._alone(connection)
        _versions.metadata.create_all(connection)
        metadata.create_all(connection)
        row = self.insert(_versions).values(component=self._component, version=version)
        connection.execute(row.on_conflict_do_nothing())


def _checked(url: str, component: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(f"the {component} database's address is no SQLAlchemy URL") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigurationError(
            f"the {component} database's address starts with {parsed.drivername}: "
            "allowed are sqlite and postgresql+psycopg"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(f"the {component} database needs a file: one in memory is not shared between threads")
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(query={"connect_timeout": "5", "application_name": f"rayrag-{component}", **parsed.query})
    return parsed


def _sqlite_engine(url: URL, pragmas: Mapping[str, str | int]) -> Engine:
    Path(str(url.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_SIZE,
        max_overflow=MAX_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver starts no transactions of its own; `_begin` does
        for name, value in pragmas.items():
            connection.execute(f"PRAGMA {name}={value}")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    try:
        return create_engine(
            url,
            hide_parameters=True,
            pool_size=POOL_SIZE,
            max_overflow=MAX_OVERFLOW,
            pool_timeout=POOL_TIMEOUT_S,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigurationError("PostgreSQL needs its driver: pip install 'rayrag[postgres]'") from error


def _begin_statements(is_sqlite: bool, synchronous: str) -> tuple[str, ...]:
    if is_sqlite:
        # IMMEDIATE: a transaction that reads first and writes later fails at once when another writer came between.
        return f"PRAGMA synchronous={synchronous}", "BEGIN IMMEDIATE"
    return () if synchronous != "NORMAL" else ("SET LOCAL synchronous_commit TO off",)


def _begin(connection: Connection) -> None:
    for statement in connection.get_execution_options().get(_BEGIN, ()):
        connection.exec_driver_sql(statement)


def _passing(error: DBAPIError) -> bool:
    """Say whether trying again may help: a lock, a lost race, a connection that the server closed."""
    if error.connection_invalidated:
        return True
    words = str(error.orig)
    return "locked" in words or "busy" in words or getattr(error.orig, "sqlstate", None) in PASSING_STATES
