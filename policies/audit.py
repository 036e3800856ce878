"""Who asked what, under which policy, what they were shown: an append-only record in SQL, chained by its hashes.

The record holds no question and no answer, no text of documents and no names of files. What it keeps of a question is
a keyed hash (`policies.keyed_hashes`), which says whether a given question was asked to who has the key, and nothing to
who has not. `actor` is the subject of the caller's token: a record that named nobody would hold nobody to account.

One chain for all who write, not one for each. A chain for each writer would let two of them write at the same moment;
but nothing would bind their records to each other until the next checkpoint, so that a writer's newest records could be
cut without a trace for that long, and an auditor could not say which of two came first. What one chain costs is that
writers wait for each other's sync to the disk, and those of one process do not even that: one writes for all who wait,
in one commit. `python -m bench audit` measures it against a bare synced append to a file, with 1, 4 and 8 writers: on
SQLite, on two busy cores, the median append took 1.0 to 2.0 times that. On PostgreSQL an append is some ways to the
server and back while the chain is held, so that many writers wait there longer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from policies.audit_chain import JSON_COLUMNS, AuditIntent, AuditOutcome, AuditRecord, export_line
from policies.audit_checkpoints import Checkpoint, key_hex
from policies.audit_files import rows_before
from policies.audit_tables import (
    COLUMNS,
    checkpoints,
    create,
    key_changes,
    open_engine,
    records,
    segments,
)
from policies.audit_verdict import Link, Place, Verdict, verdict_of
from policies.audit_writing import Draft, Line, Writer, head_of, insert_drafts, now_us
from policies.errors import ConfigurationError, Unavailable

POLICY = "policy.change"
"""The action of the record that names the policies from which on others hold, and those."""
PATIENCE_S = 30.0
PAUSE_EVERY = 200
"""Records between two pauses of a check that steps aside."""

# The word itself, no parameter: else the index over these records alone would not serve.
_LAST_POLICY = text("SELECT detail FROM audit_records WHERE action = 'policy.change' ORDER BY sequence DESC LIMIT 1")


class AuditLog:
    """The record, in SQLite (WAL, synced to the disk at every commit) or PostgreSQL. For many threads and processes.

    `url`: an SQLAlchemy URL. `signing_key` signs checkpoints. Raises `ConfigurationError` for another kind of
    database; every failure of the database, at any time, is `Unavailable`.
    """

    def __init__(self, url: str, signing_key: Ed25519PrivateKey | None = None, patience_s: float = PATIENCE_S) -> None:
        self._signing_key = signing_key
        self._engine = open_engine(url, patience_s)
        self._writer = self._engine.execution_options(audit_writes=True)
        self._chain = Writer(self._writer)
        try:
            create(self._engine)
        except (SQLAlchemyError, OSError) as error:
            self._engine.dispose()
            raise Unavailable("The audit record cannot be opened.") from error

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # ---- writing

    def intent(self, intent: AuditIntent) -> int:
        """Record what is about to happen. Returns its sequence number once it is on the disk."""
        return self.append((intent,))

    def outcome(self, outcome: AuditOutcome) -> int:
        """Record what came of it. Returns its sequence number once it is on the disk."""
        return self.append((outcome,))

    def append(self, lines: Sequence[Line]) -> int:
        """Record several, all or none, in one commit. Returns the last one's sequence number, 0 where there is none."""
        return self._chain.append(lines)

    def note_policy(self, version: str, parts: Mapping[str, str], actor: str) -> bool:
        """Record that from here on another policy version holds, with the former one; false where it is the same.

        `parts`: digests of what makes the version up, by name, so that the record says which of them changed. Of
        several processes that start at once, one records it.
        """
        try:
            with self._writer.begin() as connection:
                head_of(connection)  # one at a time
                kept = connection.execute(_LAST_POLICY).scalar()
                last = json.loads(kept) if kept else {}
                if last.get("new") == version:
                    return False
                changed = sorted(name for name in parts if last.get("parts", {}).get(name) != parts[name])
                detail = {"old": last.get("new", ""), "new": version, "parts": dict(parts)}
                line = AuditOutcome(version, actor, "", POLICY, version, "ok", detail={**detail, "changed": changed})
                insert_drafts(connection, [Draft(line)])
                return True
        except (SQLAlchemyError, ValueError) as error:
            raise Unavailable("The audit record cannot be written.") from error

    # ---- reading and checking

    def records(self, since: int = 0, limit: int = 100, tenant: str | None = None) -> list[AuditRecord]:
        """Read the records after sequence number `since`, newest last; those of one tenant where it is named."""
        query = select(records).where(records.c.sequence > since).order_by(records.c.sequence).limit(limit)
        if tenant is not None:
            query = query.where(records.c.tenant == tenant)
        try:
            with self._engine.connect() as connection:
                return [_record(columns) for columns in connection.execute(query).mappings()]
        except (SQLAlchemyError, ValueError) as error:
            raise Unavailable("The audit record cannot be read.") from error

    def verify(
        self,
        anchored: Sequence[Checkpoint] = (),
        key: Ed25519PublicKey | None = None,
        older: Sequence[Path] = (),
        pause_s: float = 0.0,
    ) -> Verdict:
        """Check every record, the chain, and the checkpoints with their signatures (where there is a key).

        A database that somebody emptied as a whole, checkpoints and all, or took back to an earlier checkpoint, looks
        like a younger one: from inside, nothing is missing. Only what is kept elsewhere uncovers that: `anchored`
        checkpoints (`policies.audit_anchor`), or an earlier export (`policies.audit_files`). `older`: the segments with
        the records that have left the database; without them it is looked at from there on, and `Verdict.begins` says
        so. `pause_s`: how long to step aside for others after every `PAUSE_EVERY` records. Raises `Unavailable`, and
        `ConfigurationError` for a segment that cannot be read.
        """
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(path.open("rb")) for path in older]
                return self._walked(anchored, key, None, pause_s, files)[0]
        except OSError as error:
            raise ConfigurationError(f"{error.filename}: {error.strerror or error}") from error

    def _walked(
        self,
        anchored: Sequence[Checkpoint] = (),
        key: Ed25519PublicKey | None = None,
        after: Place | None = None,
        pause_s: float = 0.0,
        older: Sequence[BinaryIO] = (),
    ) -> tuple[Verdict, Place]:
        """Check the record, and give its last place with the verdict."""
        head = after or Place()

        def noting(links: Iterable[Link | None]) -> Iterator[Link | None]:
            nonlocal head
            link: Link | None = None
            for number, link in enumerate(links, 1):
                if pause_s and number % PAUSE_EVERY == 0:
                    time.sleep(pause_s)
                yield link
            if link is not None:
                head = Place(link.sequence, link.hash)

        key = key or self._public_key()
        try:
            with self._engine.connect() as connection:
                known = [*self._checkpoints(connection), *anchored]
                begins = connection.scalar(select(func.min(records.c.sequence))) or 1
                with closing(_stored(connection, after.sequence if after else 0)) as rows:
                    links = chain(rows_before(begins, older), map(Link.of, rows))
                    verdict = verdict_of(noting(links), known, key, after)
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error
        return verdict, head

    def _checkpoints(self, connection: Connection) -> list[Checkpoint]:
        """Read all of them, changes of the key among them, in their order."""
        rows = [*connection.execute(select(checkpoints)), *connection.execute(select(key_changes))]
        return sorted((Checkpoint(*row) for row in rows), key=lambda checkpoint: checkpoint.order)

    # ---- signing

    def checkpoint(self, after: Checkpoint | None = None) -> Checkpoint | None:
        """Verify the record, then sign its newest line. None where there is no record, or no signing key.

        `after`: a checkpoint up to which this process has verified it: only what came later is looked at. Raises
        `ConfigurationError` where the record does not hold, no longer reaches its last checkpoint, or was handed to
        another key: what was cut or made anew must not get a signature.
        """
        return self._signed(after)

    def hand_over(self, next_key: Ed25519PrivateKey) -> Checkpoint:
        """Let another key sign from here on; this one signs that. Raises as `checkpoint`, and for an empty record."""
        signed = self._signed(None, next_key)
        if signed is None:
            raise ConfigurationError("there is nothing to sign yet, so the key may simply be replaced")
        self._signing_key = next_key
        return signed

    def use_key(self, key: Ed25519PrivateKey) -> None:
        """Sign with another key from here on, which `hand_over` has named."""
        self._signing_key = key

    def signed_checkpoints(self, since: int = 0) -> list[Checkpoint]:
        """Read the checkpoints over records from `since` on, changes of the key among them, in their order."""
        try:
            with self._engine.connect() as connection:
                return [each for each in self._checkpoints(connection) if each.sequence >= since]
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error

    def _signed(self, after: Checkpoint | None, next_key: Ed25519PrivateKey | None = None) -> Checkpoint | None:
        place = Place(after.sequence, after.hash) if after is not None else None
        verdict, head = self._walked(after=place)
        if not verdict.ok:
            raise ConfigurationError(
                f"The audit record is not signed, because record {verdict.first_bad} is not as it was: "
                f"{verdict.reason}. Keep the database as it is, and compare it with an earlier export."
            )
        if head.sequence == 0 or self._signing_key is None:
            return None
        following = key_hex(next_key.public_key()) if next_key is not None else ""
        draft = Checkpoint(head.sequence, now_us(), head.hash, "", following)
        signed = replace(draft, signature=self._signing_key.sign(draft.signed).hex())
        if next_key is not None:
            signed = replace(signed, next_signature=next_key.sign(draft.signed).hex())
        try:
            with self._writer.begin() as connection:
                head_of(connection)  # one at a time
                known = self._checkpoints(connection)
                self._must_be_ours(known)
                if next_key is not None:
                    connection.execute(insert(key_changes), asdict(signed))
                    return signed
                same = next((each for each in known if each.sequence == signed.sequence), None)
                if same is None:
                    row = {name: value for name, value in asdict(signed).items() if name in checkpoints.c}
                    connection.execute(insert(checkpoints), row)
                return same or signed
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be written.") from error

    def _must_be_ours(self, known: Sequence[Checkpoint]) -> None:
        last = next((each.next_key for each in reversed(known) if each.next_key), None)
        own = self._public_key()
        if last is not None and own is not None and last != key_hex(own):
            raise ConfigurationError(
                "The audit record was handed to another key: give that one as store.audit_key_file."
            )

    def public_key_pem(self) -> str:
        """Give the public half of the signing key. Raises `ConfigurationError` where there is no key."""
        key = self._public_key()
        if key is None:
            raise ConfigurationError("this audit record has no signing key")
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def _public_key(self) -> Ed25519PublicKey | None:
        return self._signing_key.public_key() if self._signing_key else None

    # ---- files

    def export(self, file: Path) -> int:
        """Write all records and the signed checkpoints, one JSON object a line. Returns the number of records.

        Records that were moved to segments are in those. Raises `ConfigurationError`, as `checkpoint` does, before
        anything is written.
        """
        latest = self.checkpoint()
        return self.write_lines(file, 0, latest.sequence if latest else None)

    def write_lines(self, file: Path, after: int, until: int | None) -> int:
        """Write the records after `after` up to `until`, None for the end, and their checkpoints. Gives the number."""
        count = 0
        try:
            with self._engine.connect() as connection, file.open("w", encoding="ascii", newline="\n") as lines:
                file.chmod(0o600)
                for columns in _stored(connection, after, until):
                    lines.write(export_line(columns) + "\n")
                    count += 1
                for found in self._checkpoints(connection):
                    if found.sequence >= after and (until is None or found.sequence <= until):
                        lines.write(found.line + "\n")
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error
        except OSError as error:
            raise ConfigurationError(f"{file}: {error.strerror or error}") from error
        return count

    def segment_rows(self) -> list[dict[str, Any]]:
        """Give the segments that were cut, in their order: `sequence` is the last record of each."""
        try:
            with self._engine.connect() as connection:
                found = connection.execute(select(segments).order_by(segments.c.sequence)).mappings()
                return [dict(row) for row in found]
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error

    def add_segment(self, row: Mapping[str, Any], line: AuditOutcome) -> None:
        """Note a segment whose file is on the disk, and put it on the record, both or neither."""
        try:
            with self._writer.begin() as connection:
                insert_drafts(connection, [Draft(line)])
                connection.execute(insert(segments), dict(row))
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be written.") from error

    def remove_until(self, sequence: int) -> int:
        """Remove the records up to `sequence`, which are in segments: the database refuses it for others."""
        try:
            with self._writer.begin() as connection:
                return int(connection.execute(delete(records).where(records.c.sequence <= sequence)).rowcount)
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be written.") from error

    def oldest(self) -> tuple[int, int] | None:
        """Give the first record that is here, its sequence number and time; None where there is none."""
        try:
            with self._engine.connect() as connection:
                query = select(records.c.sequence, records.c.time).order_by(records.c.sequence).limit(1)
                found = connection.execute(query).first()
                return (found.sequence, found.time) if found else None
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error

    def count(self, tenant: str) -> int:
        """Count the records of a tenant that are here."""
        try:
            with self._engine.connect() as connection:
                query = select(func.count()).select_from(records).where(records.c.tenant == tenant)
                return int(connection.scalar(query) or 0)
        except SQLAlchemyError as error:
            raise Unavailable("The audit record cannot be read.") from error


def _record(columns: RowMapping) -> AuditRecord:
    """Make a value of a row. Raises `ValueError` where its JSON is none."""
    return AuditRecord(**{**columns, **{name: json.loads(columns[name]) for name in JSON_COLUMNS}})


def _stored(connection: Connection, after: int = 0, until: int | None = None) -> Generator[Mapping[str, Any]]:
    query = select(records).order_by(records.c.sequence).execution_options(yield_per=1000)
    if after:
        query = query.where(records.c.sequence > after)
    with connection.execute(query if until is None else query.where(records.c.sequence <= until)) as rows:
        for row in rows:
            yield dict(zip(COLUMNS, row, strict=True))
