"""Where the audit record is kept: tables of SQLite or PostgreSQL that take new rows and let none be changed."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError

from policies.errors import ConfigurationError, Unavailable

_LOCK_ID = 0x7261_7961_7564
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
_metadata = MetaData()
records = Table(
    "audit_records",
    _metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("request_id", Text, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("tenant", Text, nullable=False, index=True),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("chunks_shown", Text, nullable=False),
    Column("chunks_withheld", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
checkpoints = Table(
    "audit_checkpoints",
    _metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
)
key_changes = Table(
    "audit_key_changes",
    _metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
    Column("next_key", String(64), nullable=False),
    Column("next_signature", String(128), nullable=False),
)
segments = Table(
    "audit_segments",
    _metadata,
    # Its last record, and the first; the file's name below `store.audit_segments`, and its SHA-256.
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("first", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("file", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
)
COLUMNS = tuple(column.name for column in records.columns)
LOCK_TIMEOUT_S = 10
LOCK = text(f"SELECT pg_advisory_xact_lock({_LOCK_ID})")


def open_engine(url: str, patience_s: float) -> Engine:
    """Open the database at an SQLAlchemy URL; SQLite waits `patience_s` for who writes.

    Raises `ConfigurationError` for another kind of database, and `Unavailable`.
    """
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("store.audit: no database address; give sqlite:///FILE or postgresql://...") from error
    if address.get_backend_name() == "postgresql":
        return _postgresql(address)
    if address.get_backend_name() != "sqlite" or not address.database or address.database == ":memory:":
        raise ConfigurationError("store.audit: give sqlite:///FILE or postgresql://...")
    _private_file(Path(address.database))
    engine = create_engine(address, connect_args={"timeout": patience_s})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        # Damaged bytes must reach the check of the hashes, not stop it.
        connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        connection.execute(f"PRAGMA busy_timeout={int(patience_s * 1000)}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock before it reads the head, or two would continue from the same record.
        writes = connection.get_execution_options().get("audit_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(address: URL) -> Engine:
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(
            address, pool_pre_ping=True, pool_size=2, max_overflow=4, connect_args={"connect_timeout": 5}
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError("store.audit: PostgreSQL needs its driver: pip install 'rayrag[postgres]'") from error

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # Once, not with each append: each statement is a way to the server and back.
        connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
        connection.commit()

    return engine


def _private_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise Unavailable("The audit record cannot be opened.") from error


def create(engine: Engine) -> None:
    """Create what is missing, and what keeps rows from being changed; a whole segment that is in a file may go."""
    with engine.execution_options(audit_writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(LOCK)
        _metadata.create_all(connection)
        for table in (records.name, checkpoints.name, key_changes.name, segments.name):
            holds = _SEGMENTS_HOLD if table == records.name else _ALL_HOLD
            statements = _POSTGRESQL_GUARD if connection.dialect.name == "postgresql" else (*_SQLITE_GUARD, *holds)
            in_a_file = _IN_A_FILE if table == records.name else ""
            for statement in statements:
                connection.exec_driver_sql(statement.format(table=table, in_a_file=in_a_file))
        connection.exec_driver_sql(_POLICY_INDEX)


_SQLITE_GUARD = (
    "CREATE TRIGGER IF NOT EXISTS {table}_keep BEFORE UPDATE ON {table} "
    "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
    # INSERT OR REPLACE deletes without firing the trigger above.
    "CREATE TRIGGER IF NOT EXISTS {table}_once BEFORE INSERT ON {table} "
    "WHEN EXISTS (SELECT 1 FROM {table} WHERE sequence = NEW.sequence) "
    "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
)
_ALL_HOLD = (
    "CREATE TRIGGER IF NOT EXISTS {table}_hold BEFORE DELETE ON {table} "
    "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
)
_SEGMENTS_HOLD = (
    "DROP TRIGGER IF EXISTS {table}_hold",  # of databases from before there were segments
    "CREATE TRIGGER IF NOT EXISTS {table}_held BEFORE DELETE ON {table} "
    "WHEN OLD.sequence > COALESCE((SELECT MAX(sequence) FROM audit_segments), 0) "
    "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
)
_IN_A_FILE = (
    "IF TG_OP = 'DELETE' THEN IF OLD.sequence <= (SELECT MAX(sequence) FROM audit_segments) "
    "THEN RETURN OLD; END IF; END IF;"
)
_POLICY_INDEX = (
    "CREATE INDEX IF NOT EXISTS audit_policy_changes ON audit_records (sequence) WHERE action = 'policy.change'"
)
_POSTGRESQL_GUARD = (
    "CREATE OR REPLACE FUNCTION {table}_keep() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN {in_a_file} RAISE EXCEPTION '{table} is append-only'; END $$",
    "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgname = '{table}_keep' "
    "AND tgrelid = '{table}'::regclass) THEN "
    "CREATE TRIGGER {table}_keep BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_keep(); "
    "CREATE TRIGGER {table}_hold BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {table}_keep(); "
    "END IF; END $$",
)
