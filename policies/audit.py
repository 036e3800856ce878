"""Who asked what, under which policy, what they were shown: an append-only, hash-chained record in SQL.

Each record's hash covers all its fields and the hash before it, so that a record which is changed, moved,
removed or slipped in breaks the chain at its place. A chain that is cut at its end, or made anew as a whole,
is still a chain: signed checkpoints, exported and kept elsewhere, uncover that.

The record holds no question and no answer. What it keeps of a question is `question_sha256`: enough to say
whether a given question was asked, not to read it back. The hash has no key, so that a short or common
question can be found by guessing: treat the record as confidential.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
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

from policies.errors import ConfigurationError, Unavailable

GENESIS = "0" * 64
"""The `previous_hash` of record 1."""

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

Detail = Mapping[str, "str | int | bool | Sequence[str] | None"]

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().decode


def question_sha256(question: str) -> str:
    """Give what the record keeps of a question: 64 hex digits. See above for what that does not protect."""
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class AuditIntent:
    """What a caller is about to do. `detail` holds no fractions: they have no one spelling in JSON."""

    request_id: str
    actor: str
    tenant: str
    action: str
    policy_version: str
    detail: Detail = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditOutcome:
    """What came of it: which chunks were shown, how many withheld."""

    request_id: str
    actor: str
    tenant: str
    action: str
    policy_version: str
    outcome: str
    chunks_shown: tuple[str, ...] = ()
    chunks_withheld: int = 0
    detail: Detail = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A line of the record. `sequence` counts from 1 without gaps; `time` is in microseconds since 1970, UTC."""

    sequence: int
    time: int
    kind: Literal["intent", "outcome"]
    request_id: str
    actor: str
    tenant: str
    action: str
    outcome: str
    policy_version: str
    chunks_shown: list[str]
    chunks_withheld: int
    detail: dict[str, Any]
    previous_hash: str
    hash: str

    def values(self) -> dict[str, Any]:
        """All fields, as the HTTP response and the export show them."""
        return {name: getattr(self, name) for name in _FIELDS}


_FIELDS = tuple(item.name for item in fields(AuditRecord))
_SORTED = tuple(sorted(_FIELDS))
_COLUMNS = tuple(column.name for column in _records.columns)
_COVERED = tuple(name for name in _SORTED if name != "hash")
_JSON_COLUMNS = frozenset({"chunks_shown", "detail"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement that record `sequence` had this hash. `signature`: Ed25519 over the other fields."""

    sequence: int
    time: int
    hash: str
    signature: str

    @property
    def signed(self) -> bytes:
        """The bytes that the signature covers."""
        return canonical({"checkpoint": self.sequence, "hash": self.hash, "time": self.time}).encode()

    def holds(self, key: Ed25519PublicKey) -> bool:
        """Say whether the signature is that of `key`."""
        try:
            key.verify(bytes.fromhex(self.signature), self.signed)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the chain holds; else the sequence number of the first record that is wrong or missing, and why."""

    ok: bool
    count: int
    first_bad: int | None = None
    reason: str | None = None


def canonical(value: Any) -> str:
    """Spell a value in the one way: sorted keys, no spaces, ASCII. Raises `TypeError` for fractions."""
    _refuse_fractions(value)
    return _encode(value)


def _refuse_fractions(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("keys of an audit record's detail are text")
            _refuse_fractions(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_fractions(item)
    elif not (value is None or isinstance(value, str | int)):
        raise TypeError(f"an audit record holds no {type(value).__name__}")


def record_hash(columns: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the canonical JSON of all fields but `hash`, `previous_hash` among them.

    `columns` is a row as it is stored: `chunks_shown` and `detail` are canonical JSON text already.
    """
    return hashlib.sha256(_line(columns, _COVERED).encode("utf-8", "surrogatepass")).hexdigest()


def _line(columns: Mapping[str, Any], names: Sequence[str]) -> str:
    # The same text as `canonical` of the parsed record, without parsing it: verification is 20 times faster.
    return "{" + ",".join(f'"{name}":{_json_text(name, columns[name])}' for name in names) + "}"


def _json_text(name: str, value: Any) -> str:
    if name in _JSON_COLUMNS:
        return str(value)
    return encode_basestring_ascii(value) if isinstance(value, str) else str(value)


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
        """Check every record, the chain, and the checkpoints with their signatures (where there is a signing key)."""
        try:
            with self._engine.connect() as connection:
                checkpoints = self._checkpoints(connection)
                with closing(_stored(connection)) as rows:
                    return _verdict(rows, checkpoints, self._public_key())
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error

    def checkpoint(self) -> Checkpoint | None:
        """Sign the newest record. None where there is no record, or no signing key."""
        try:
            with self._writer.begin() as connection:
                sequence, head = _head(connection)
                known = {found.sequence: found for found in self._checkpoints(connection)}
                if sequence in known or self._signing_key is None or sequence == 0:
                    return known.get(sequence)
                draft = Checkpoint(sequence, _now(), head, "")
                signature = self._signing_key.sign(draft.signed).hex()
                signed = Checkpoint(draft.sequence, draft.time, draft.hash, signature)
                connection.execute(
                    insert(_checkpoints),
                    {"sequence": sequence, "time": signed.time, "hash": head, "signature": signature},
                )
                return signed
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be written.") from error

    def export(self, file: Path) -> int:
        """Write all records and the signed checkpoints, one JSON object a line. Returns the number of records."""
        latest = self.checkpoint()
        count = 0
        try:
            with self._engine.connect() as connection, file.open("w", encoding="ascii", newline="\n") as lines:
                file.chmod(0o600)
                for columns in _stored(connection, latest.sequence if latest else None):
                    lines.write(_line(columns, _SORTED) + "\n")
                    count += 1
                for found in self._checkpoints(connection):
                    lines.write(canonical(_checkpoint_line(found)) + "\n")
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error
        except OSError as error:
            raise ConfigurationError(f"{file}: {error.strerror or error}") from error
        return count

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
    return AuditRecord(**{**columns, **{name: json.loads(columns[name]) for name in _JSON_COLUMNS}})


def _stored(connection: Connection, until: int | None = None) -> Generator[Mapping[str, Any]]:
    query = select(_records).order_by(_records.c.sequence).execution_options(yield_per=1000)
    with connection.execute(query if until is None else query.where(_records.c.sequence <= until)) as rows:
        for row in rows:
            yield dict(zip(_COLUMNS, row, strict=True))


def _verdict(
    found: Iterable[Mapping[str, Any] | None], checkpoints: Sequence[Checkpoint], key: Ed25519PublicKey | None
) -> Verdict:
    """Walk the chain. `found`: rows as they are stored, None for what is no record at all."""
    signed = {checkpoint.sequence: checkpoint.hash for checkpoint in checkpoints}
    count, previous = 0, GENESIS
    for columns in found:
        expected = count + 1
        reason = "not as it was written" if columns is None else _fault(columns, expected, previous)
        if columns is None or reason is not None:
            return Verdict(False, count, expected, reason)
        count, previous = expected, columns["hash"]
        if signed.get(count, previous) != previous:
            return Verdict(False, count, count, "the signed checkpoint has another hash")
    if signed and max(signed) > count:
        return Verdict(False, count, count + 1, f"the record ends before the checkpoint at {max(signed)}")
    forged = [checkpoint.sequence for checkpoint in checkpoints if key is not None and not checkpoint.holds(key)]
    if forged:
        return Verdict(False, count, min(forged), "a checkpoint's signature does not hold")
    return Verdict(True, count)


def _fault(columns: Mapping[str, Any], expected: int, previous: str) -> str | None:
    if columns["sequence"] != expected:
        return "missing or out of order"
    if columns["previous_hash"] != previous:
        return "does not follow from the record before"
    return None if record_hash(columns) == columns["hash"] else "its hash does not match"


def _checkpoint_line(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.sequence,
        "time": checkpoint.time,
        "hash": checkpoint.hash,
        "signature": checkpoint.signature,
    }


def verify_export(path: Path, key: Ed25519PublicKey | None = None) -> Verdict:
    """Check an exported record without any database: each line byte by byte, the chain, and its end.

    With `key`, the export must end in a checkpoint which that key signed over its last record; without, the
    signatures are not checked and an export whose end was cut off, checkpoints and all, passes. Raises
    `ConfigurationError` for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            checkpoints = [found for line in file if isinstance(found := _checkpoint_of(line), Checkpoint)]
            file.seek(0)
            verdict = _verdict(_exported(file), checkpoints, key)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    covered = checkpoints[-1].sequence if checkpoints else 0
    if verdict.ok and key is not None and covered != verdict.count:
        return Verdict(False, verdict.count, covered + 1, "no signed checkpoint covers it")
    return verdict


def _exported(file: Iterable[bytes]) -> Iterator[Mapping[str, Any] | None]:
    """Give the records as they were stored, and None for any line that is none; the checkpoints stand at the end."""
    ended = False
    for line in file:
        if _checkpoint_of(line) is not None:
            ended = True
        else:
            yield None if ended else _columns_of(line)


def _columns_of(line: bytes) -> Mapping[str, Any] | None:
    """Read a record, as it was stored. None for a line that is not byte for byte as `export` writes it."""
    try:
        values = _decode(line.decode("ascii"))
        columns = {**values, **{name: _encode(values[name]) for name in _JSON_COLUMNS}}
        return columns if f"{_line(columns, _SORTED)}\n".encode() == line else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _checkpoint_of(line: bytes) -> Checkpoint | None:
    if not line.startswith(b'{"checkpoint":'):
        return None
    try:
        values = _decode(line.decode("ascii"))
        found = Checkpoint(values["checkpoint"], values["time"], values["hash"], values["signature"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    typed = type(found.sequence) is int and isinstance(found.hash, str) and isinstance(found.signature, str)
    return found if typed and f"{_encode(_checkpoint_line(found))}\n".encode() == line else None


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
