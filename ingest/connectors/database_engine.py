"""Connections to other people's databases: read-only, each wait with its limit, each failure with a class of its own.

No detail here quotes a driver's words about a connection: they hold addresses. What it says of a statement names tables
and columns, and is quoted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import ColumnElement, Engine, create_engine, event, func
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from policies.errors import ConfigurationError, RayragError, SourceUnavailable

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
ATTEMPTS = 4
RETRY_S = 20.0
IDLE_S = 240
"""A connection that lay idle for longer is replaced: firewalls forget it."""
NO_DRIVER = "PostgreSQL needs its driver: pip install 'rayrag[postgres]'"
_PASSING_CLASSES = ("08", "40", "53", "55", "57P")  # connection, rolled back, resources, lock, shutdown
_CANCELLED = "57014"  # by statement_timeout
_REFUSED = ("authentication failed", "no pg_hba.conf entry", "no password supplied", "access denied for user")
_SESSION: dict[str, tuple[str, ...]] = {
    "mysql": ("SET SESSION TRANSACTION READ ONLY",),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY",),
    "sqlite": ("PRAGMA query_only = ON",),
}
_CLOCKS: dict[str, Callable[[], ColumnElement[Any]]] = {
    "mysql": func.utc_timestamp,
    "mariadb": func.utc_timestamp,
    "mssql": func.sysutcdatetime,
}


def parse_url(text: str) -> URL:
    """Check the address. Raises `ConfigurationError`, which quotes nothing of it."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            "the database's address is no SQLAlchemy URL: dialect://user:password@host/db"
        ) from error
    if url.drivername in ("postgresql", "postgres", "postgresql+asyncpg"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ConfigurationError("a SQLite database must be a file: sqlite:////path/to/file.sqlite")
        if not str(url.database).startswith("file:"):
            # As a URI with a mode: the driver would make an empty database where there is none.
            path = quote(str(Path(str(url.database)).expanduser().absolute()))
            url = url.set(database=f"file:{path}", query={**url.query, "mode": "rw", "uri": "true"})
    if url.drivername == "postgresql+psycopg":
        keep = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
        wait = {"connect_timeout": str(CONNECT_TIMEOUT_S), "application_name": "rayrag"}
        url = url.set(query={**wait, **keep, **url.query})
    return url


def open_engine(url: URL, timeout_s: float) -> Engine:
    """An engine for one reader; it connects when it is used first. Raises `ConfigurationError` without a driver."""
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        arguments = {"timeout": min(CONNECT_TIMEOUT_S, timeout_s), "check_same_thread": False}
    elif url.drivername == "postgresql+psycopg":
        arguments = {"prepare_threshold": None}  # a pooler between us and the server knows no prepared statements
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            connect_args=arguments,
            pool_size=1,
            max_overflow=3,
            pool_recycle=IDLE_S,
        )
    except NoSuchModuleError as error:
        raise ConfigurationError(f"{url.drivername}: SQLAlchemy knows no such dialect; install what adds it") from error
    except ImportError as error:
        missing = f"the driver for {url.drivername} is not installed: {error.name}"
        raise ConfigurationError(NO_DRIVER if "psycopg" in url.drivername else missing) from error
    if engine.dialect.is_async:
        raise ConfigurationError(f"{url.drivername} is an asynchronous driver: name one that is not")

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        _prepare_session(connection, url, timeout_s)

    return engine


def clock(dialect: str) -> ColumnElement[Any]:
    """The database's own time: with a zone, or in UTC without one."""
    return _CLOCKS.get(dialect, func.current_timestamp)()


def run(engine: Engine, what: str, work: Callable[[Connection], T]) -> T:
    """Run `work`, which only reads, on a connection; again where a fault passes. `what` names the source's rows.

    Raises `SourceUnavailable` and `ConfigurationError`.
    """
    import stamina

    try:
        for attempt in stamina.retry_context(
            on=is_passing, attempts=ATTEMPTS, timeout=RETRY_S, wait_initial=0.1, wait_max=3.0, wait_jitter=0.2
        ):
            with attempt, engine.connect() as connection:
                return work(connection)
    except SQLAlchemyError as error:
        raise failure(error, what) from error
    raise AssertionError("unreachable")


def is_passing(error: Exception) -> bool:
    """Whether trying again may help: a lock, a lost race, a server that restarts or has no connection left."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True  # it lay idle for too long, or was cut: the next one is a new one
    if not isinstance(error, OperationalError | InterfaceError) or connection_failure(error.orig) is not None:
        return False
    state = _state(error.orig)
    if state is None:
        return "no such" not in str(error.orig)  # SQLite's missing tables; all else is the connection
    return state != _CANCELLED and state.startswith(_PASSING_CLASSES)


def failure(error: SQLAlchemyError, what: str) -> RayragError:
    """What an error of the database means to the caller."""
    if isinstance(error, PoolTimeout):
        return SourceUnavailable("all connections to the database are busy")
    if not isinstance(error, DBAPIError):
        return ConfigurationError(f"{what}: the database cannot do this: {type(error).__name__}")
    known = connection_failure(error.orig)
    if known is not None:
        return known
    state = _state(error.orig)
    if state == _CANCELLED:
        return SourceUnavailable(f"{what}: the database took longer than timeout_s")
    if state == "42501":
        return ConfigurationError(f"no permission to read {what}: grant SELECT on it, and USAGE on its schema")
    if isinstance(error, ProgrammingError) or "no such" in str(error.orig) or "syntax error" in str(error.orig):
        return ConfigurationError(f"{what}: the database refuses the statement: {_first_line(error)}")
    if isinstance(error, OperationalError | InterfaceError):
        return SourceUnavailable("the database does not answer, or is locked")
    # A value that a query's own expression cannot take; the driver's words quote it.
    return ConfigurationError(f"{what}: the database fails at a row: {type(error).__name__} {state or ''}".rstrip())


def connection_failure(error: BaseException | None) -> ConfigurationError | None:
    """What a driver's error says of an address that is wrong; none for all else, which may pass."""
    words, state = str(error).lower(), _state(error) or ""
    if state.startswith("28") or any(phrase in words for phrase in _REFUSED):
        return ConfigurationError("the database refuses the user or the password of the address")
    if state == "3D000" or ("does not exist" in words and "fatal:" in words):
        return ConfigurationError("the database does not know the user or the database of the address")
    return None


def _state(error: BaseException | None) -> str | None:
    """SQLSTATE, as the drivers of several databases give it; some give none for an error of connecting."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["it says nothing"])[0][:300]


def _prepare_session(connection: Any, url: URL, timeout_s: float) -> None:
    """Let the session do nothing but read, for `timeout_s` a statement, and let no value stop a listing."""
    statements = _SESSION.get(url.get_backend_name(), ())
    if url.get_backend_name() == "postgresql":
        milliseconds = max(1, int(timeout_s * 1_000))
        statements = ("SET default_transaction_read_only = on", f"SET statement_timeout = {milliseconds}")
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
    connection.commit()
    if url.drivername == "postgresql+psycopg":
        _load_any_value(connection)
    elif url.get_backend_name() == "sqlite":
        connection.text_factory = _decode


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")  # SQLite takes any bytes for text


def _load_any_value(connection: Any) -> None:
    """Give as text what Python's types do not hold: `infinity`, the year 12000, 24:00, JSON nested without end."""
    from psycopg.types.datetime import DateLoader, TimestampLoader, TimestamptzLoader
    from psycopg.types.string import TextLoader

    for name in ("json", "jsonb", "interval", "time", "timetz"):
        connection.adapters.register_loader(name, TextLoader)
    for name, loader in (("date", DateLoader), ("timestamp", TimestampLoader), ("timestamptz", TimestamptzLoader)):
        connection.adapters.register_loader(name, _or_text(loader))


def _or_text(loader: Any) -> Any:
    from psycopg import DataError

    class OrText(loader):  # type: ignore[misc]
        def load(self, data: Any) -> Any:
            try:
                return super().load(data)
            except DataError:
                return bytes(data).decode("utf-8", "replace")

    return OrText
