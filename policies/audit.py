"""Who asked what, under which policy, what they were shown: an append-only record in SQL, chained by its hashes.

The record holds no question and no answer. What it keeps of a question is `question_sha256`: enough to say
whether a given question was asked, not to read it back. The hash has no key, so that a short or common
question can be found by guessing: treat the record as confidential.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from policies.audit_chain import (
    GENESIS,
    JSON_COLUMNS,
    AuditIntent,
    AuditOutcome,
    AuditRecord,
    Checkpoint,
    Verdict,
    canonical,
    checkpoint_line,
    export_line,
    record_hash,
    verdict_of,
)
from policies.errors import ConfigurationError, Unavailable

_LOCK_ID = 0x7261_7961_7564
_metadata = MetaData()
_records = Table(
    "audit_records",
    _metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
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
_checkpoints = Table(
    "audit_checkpoints",
    _metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
)

_NEWEST = select(_records.c.sequence, _records.c.hash).order_by(_records.c.sequence.desc()).limit(1)
_INSERT = insert(_records)
_PATIENCE = text("SET LOCAL lock_timeout = '10s'")
_LOCK = text(f"SELECT pg_advisory_xact_lock({_LOCK_ID})")

_COLUMNS = tuple(column.name for column in _records.columns)


class _Draft:
    """A record that waits for its place in the chain, and then for the disk."""

    __slots__ = ("columns", "done", "error", "sequence")

    def __init__(self, columns: dict[str, Any]) -> None:
        for name, value in columns.items():
            if isinstance(value, str) and ("\x00" in value or not _encodes(value)):
                raise ValueError(f"the audit field {name} cannot be stored")
        self.columns = columns
        self.sequence = 0
        self.error: Exception | None = None
        self.done = False


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class AuditLog:
    """The record, in SQLite (WAL, synced to the disk at every commit) or PostgreSQL. For many threads and processes.

    `url`: an SQLAlchemy URL. `signing_key` signs checkpoints. Raises `ConfigurationError` for another kind of
    database; every failure of the database, at any time, is `Unavailable`.
    """

    def __init__(self, url: str, signing_key: Ed25519PrivateKey | None = None) -> None:
        self._signing_key = signing_key
        self._engine = _engine(url)
        self._writer = self._engine.execution_options(audit_writes=True)
        self._waiting: deque[_Draft] = deque()
        self._turn = threading.Condition()
        self._writing = False
        try:
            _create(self._engine)
        except (SQLAlchemyError, OSError) as error:
            self._engine.dispose()
            raise Unavailable("The audit record cannot be opened.") from error

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def intent(self, intent: AuditIntent) -> int:
        """Record what is about to happen. Returns its sequence number once it is on the disk."""
        return self._append(
            {
                "kind": "intent",
                "request_id": intent.request_id,
                "actor": intent.actor,
                "tenant": intent.tenant,
                "action": intent.action,
                "outcome": "",
                "policy_version": intent.policy_version,
                "chunks_shown": "[]",
                "chunks_withheld": 0,
                "detail": canonical(dict(intent.detail)),
            }
        )

    def outcome(self, outcome: AuditOutcome) -> int:
        """Record what came of it. Returns its sequence number once it is on the disk."""
        return self._append(
            {
                "kind": "outcome",
                "request_id": outcome.request_id,
                "actor": outcome.actor,
                "tenant": outcome.tenant,
                "action": outcome.action,
                "outcome": outcome.outcome,
                "policy_version": outcome.policy_version,
                "chunks_shown": canonical(outcome.chunks_shown),
                "chunks_withheld": outcome.chunks_withheld,
                "detail": canonical(dict(outcome.detail)),
            }
        )

    def records(self, since: int = 0, limit: int = 100, tenant: str | None = None) -> list[AuditRecord]:
        """Read the records after sequence number `since`, newest last; those of one tenant where it is named."""
        query = select(_records).where(_records.c.sequence > since).order_by(_records.c.sequence).limit(limit)
        if tenant is not None:
            query = query.where(_records.c.tenant == tenant)
        try:
            with self._engine.connect() as connection:
                return [_record(columns) for columns in connection.execute(query).mappings()]
        except (SQLAlchemyError, ValueError) as error:
            raise Unavailable("The audit record cannot be read.") from error

    def verify(self) -> Verdict:
        """Check every record, the chain, and the checkpoints with their signatures (where there is a signing key).

        A database that somebody emptied as a whole, checkpoints and all, or took back to an earlier checkpoint, looks
        like a younger one: from inside, nothing is missing. Only an export that is kept elsewhere uncovers that
        (`audit_chain.verify_export` with `since`).
        """
        return self._walked()[0]

    def checkpoint(self) -> Checkpoint | None:
        """Verify the record, then sign its newest line. None where there is no record, or no signing key.

        Raises `ConfigurationError` where the record does not hold or no longer reaches its last checkpoint: what was
        cut or made anew must not get a signature.
        """
        verdict, head = self._walked()
        if not verdict.ok:
            raise ConfigurationError(
                f"The audit record is not signed, because record {verdict.first_bad} is not as it was: "
                f"{verdict.reason}. Keep the database as it is, and compare it with an earlier export."
            )
        if verdict.count == 0 or self._signing_key is None:
            return None
        draft = Checkpoint(verdict.count, _now(), head, "")
        signed = replace(draft, signature=self._signing_key.sign(draft.signed).hex())
        try:
            with self._writer.begin() as connection:
                _head(connection)  # one at a time
                known = {found.sequence: found for found in self._checkpoints(connection)}
                if signed.sequence not in known:
                    connection.execute(insert(_checkpoints), asdict(signed))
                return known.get(signed.sequence, signed)
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be written.") from error

    def export(self, file: Path) -> int:
        """Write all records and the signed checkpoints, one JSON object a line. Returns the number of records.

        Raises `ConfigurationError`, as `checkpoint` does, before anything is written.
        """
        latest = self.checkpoint()
        count = 0
        try:
            with self._engine.connect() as connection, file.open("w", encoding="ascii", newline="\n") as lines:
                file.chmod(0o600)
                for columns in _stored(connection, latest.sequence if latest else None):
                    lines.write(export_line(columns) + "\n")
                    count += 1
                for found in self._checkpoints(connection):
                    lines.write(canonical(checkpoint_line(found)) + "\n")
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error
        except OSError as error:
            raise ConfigurationError(f"{file}: {error.strerror or error}") from error
        return count

    def public_key_pem(self) -> str:
        """Give the public half of the signing key. Raises `ConfigurationError` where there is no key."""
        key = self._public_key()
        if key is None:
            raise ConfigurationError("this audit record has no signing key")
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def _walked(self) -> tuple[Verdict, str]:
        """Check the whole record, and give its last hash with the verdict."""
        head = GENESIS

        def noting(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
            nonlocal head
            for columns in rows:
                head = columns["hash"]
                yield columns

        try:
            with self._engine.connect() as connection:
                checkpoints = self._checkpoints(connection)
                with closing(_stored(connection)) as rows:
                    return verdict_of(noting(rows), checkpoints, self._public_key()), head
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error

    def _public_key(self) -> Ed25519PublicKey | None:
        return self._signing_key.public_key() if self._signing_key else None

    def _checkpoints(self, connection: Connection) -> list[Checkpoint]:
        rows = connection.execute(select(_checkpoints).order_by(_checkpoints.c.sequence))
        return [Checkpoint(row.sequence, row.time, row.hash, row.signature) for row in rows]

    def _append(self, columns: dict[str, Any]) -> int:
        draft = _Draft(columns)
        batch: list[_Draft] = []
        # One writes for all who wait, in one commit: the sync to the disk is what costs.
        with self._turn:
            self._waiting.append(draft)
            while self._writing and not draft.done:
                self._turn.wait()
            if not draft.done:
                self._writing = True
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if batch:
            self._write(batch)
        if draft.error is not None:
            raise Unavailable("The audit record cannot be written.") from draft.error
        return draft.sequence

    def _write(self, batch: Sequence[_Draft]) -> None:
        first = 0
        failure: Exception | None = Unavailable("the write did not finish")
        try:
            with self._writer.begin() as connection:
                first = _insert(connection, batch)
            failure = None
        except SQLAlchemyError as error:
            failure = error
        finally:
            for sequence, draft in enumerate(batch, start=first):
                draft.sequence, draft.error, draft.done = sequence, failure, True
            with self._turn:
                self._writing = False
                self._turn.notify_all()


def _now() -> int:
    return time.time_ns() // 1000


def _head(connection: Connection) -> tuple[int, str]:
    """Read the newest record's sequence number and hash, held until the transaction ends: nobody else can append."""
    if connection.dialect.name == "postgresql":
        connection.execute(_PATIENCE)
        connection.execute(_LOCK)
    newest = connection.execute(_NEWEST).first()
    return (newest.sequence, newest.hash) if newest else (0, GENESIS)


def _insert(connection: Connection, batch: Sequence[_Draft]) -> int:
    sequence, previous = _head(connection)
    rows, first = [], sequence + 1
    for sequence, draft in enumerate(batch, start=first):
        columns = {**draft.columns, "sequence": sequence, "time": _now(), "previous_hash": previous}
        columns["hash"] = previous = record_hash(columns)
        rows.append(columns)
    connection.execute(_INSERT, rows)
    return first


def _record(columns: RowMapping) -> AuditRecord:
    """Make a value of a row. Raises `ValueError` where its JSON is none."""
    return AuditRecord(**{**columns, **{name: json.loads(columns[name]) for name in JSON_COLUMNS}})


def _stored(connection: Connection, until: int | None = None) -> Generator[Mapping[str, Any]]:
    query = select(_records).order_by(_records.c.sequence).execution_options(yield_per=1000)
    with connection.execute(query if until is None else query.where(_records.c.sequence <= until)) as rows:
        for row in rows:
            yield dict(zip(_COLUMNS, row, strict=True))


def _engine(url: str) -> Engine:
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("store.audit: no database address; give sqlite:///FILE or postgresql://...") from error
    if address.get_backend_name() == "postgresql":
        return _postgresql(address)
    if address.get_backend_name() != "sqlite" or not address.database or address.database == ":memory:":
        raise ConfigurationError("store.audit: give sqlite:///FILE or postgresql://...")
    _private_file(Path(address.database))
    engine = create_engine(address, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        # Damaged bytes must reach the check of the hashes, not stop it.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        connection.execute("PRAGMA busy_timeout=30000")
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
        return create_engine(
            address, pool_pre_ping=True, pool_size=2, max_overflow=4, connect_args={"connect_timeout": 5}
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError("store.audit: PostgreSQL needs its driver: pip install 'rayrag[postgres]'") from error


def _private_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise Unavailable("The audit record cannot be opened.") from error


def _create(engine: Engine) -> None:
    with engine.execution_options(audit_writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(_LOCK)
        _metadata.create_all(connection)
        for table in (_records.name, _checkpoints.name):
            statements = _POSTGRESQL_GUARD if connection.dialect.name == "postgresql" else _SQLITE_GUARD
            for statement in statements:
                connection.exec_driver_sql(statement.format(table=table))


_SQLITE_GUARD = (
    "CREATE TRIGGER IF NOT EXISTS {table}_keep BEFORE UPDATE ON {table} "
    "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
    "CREATE TRIGGER IF NOT EXISTS {table}_hold BEFORE DELETE ON {table} "
    "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
    # INSERT OR REPLACE deletes without firing the trigger above.
    "CREATE TRIGGER IF NOT EXISTS {table}_once BEFORE INSERT ON {table} "
    "WHEN EXISTS (SELECT 1 FROM {table} WHERE sequence = NEW.sequence) "
    "BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END",
)
_POSTGRESQL_GUARD = (
    "CREATE OR REPLACE FUNCTION {table}_keep() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$",
    "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgname = '{table}_keep' "
    "AND tgrelid = '{table}'::regclass) THEN "
    "CREATE TRIGGER {table}_keep BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_keep(); "
    "CREATE TRIGGER {table}_hold BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {table}_keep(); "
    "END IF; END $$",
)
