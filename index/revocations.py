"""The list of revocations in the ledger, which every replica reads. `policies.revocation` says what it means."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import BigInteger, Text, and_, cast, delete, or_, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.ledger_schema import index_state, refresh_tokens, revocations, sessions
from policies.errors import InvalidRequest
from policies.principals import bare_name
from policies.revocation import KEEP_S, Kind, Revocation

_VERSION = "revocations_version"
_MARGIN_S = 120.0
"""A token is revoked for longer than it lives: clocks differ."""


@dataclass(frozen=True, slots=True)
class KeptRevocation:
    """An entry with when it was made, by whom, and until when it matters; None: for ever."""

    revocation: Revocation
    at: float
    by: str
    until: float | None


class RevocationList:
    """Entries of all tenants. Every method raises `Unavailable` when the ledger does not answer."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def version(self) -> int:
        """Give a number that every change raises."""
        found = select(index_state.c.value).where(index_state.c.key == _VERSION)
        return int(self._database.read(lambda connection: connection.scalar(found)) or 0)

    def entries(self) -> Sequence[Revocation]:
        """Give all that matter still."""
        return [kept.revocation for kept in self.kept()]

    def kept(self, tenant: str | None = None, kind: Kind | None = None) -> Sequence[KeptRevocation]:
        """List the entries that matter still, oldest first."""
        columns = revocations.c
        query = select(
            columns.kind, columns.tenant, columns.name, columns.before, columns.at, columns.by, columns.until
        )
        query = query.where(or_(columns.until.is_(None), columns.until > self._clock())).order_by(columns.id)
        if tenant is not None:
            query = query.where(columns.tenant == tenant)
        if kind is not None:
            query = query.where(columns.kind == kind)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [KeptRevocation(Revocation(r.kind, r.tenant, r.name, r.before), r.at, r.by, r.until) for r in rows]

    def revoke_token(self, token_id: str, by: str, tenant: str = "") -> None:
        """Revoke the token with this id, of one tenant or of any."""
        entry = Revocation("token", tenant and _checked(tenant), _checked_id(token_id))
        self._add(entry, by, self._clock() + KEEP_S)

    def revoke_person(self, tenant: str, subject: str, by: str, before: float | None = None) -> None:
        """Revoke what a person was given by `before`, now by default: tokens and sessions, with all their tokens."""
        self._add(Revocation("person", _checked(tenant), _checked(subject), self._past(before)), by, past=True)

    def revoke_tenant(self, tenant: str, by: str, before: float | None = None) -> None:
        """Revoke what anyone of a tenant was given by `before`, now by default."""
        self._add(Revocation("tenant", _checked(tenant), "", self._past(before)), by, past=True)

    def disable(self, tenant: str, subject: str, by: str) -> None:
        """Let nothing of a person hold, and nobody sign in as them, until `enable`."""
        self._add(Revocation("person", _checked(tenant), _checked(subject)), by)

    def enable(self, tenant: str, subject: str, by: str) -> bool:
        """Let a disabled person sign in anew; what they had before stays revoked. False: they were not disabled."""
        entry = Revocation("person", _checked(tenant), _checked(subject))
        columns = revocations.c
        disabled = and_(
            columns.kind == "person",
            columns.tenant == entry.tenant,
            columns.name == entry.name,
            columns.before.is_(None),
        )

        def work(connection: Connection) -> bool:
            _raise_version(self._database, connection)
            found = connection.execute(delete(revocations).where(disabled)).rowcount > 0
            if found:
                self._insert(connection, replace(entry, before=self._clock()), by, None)
            return found

        return self._database.write(work)

    def _past(self, before: float | None) -> float | None:
        if before is not None and not 0 <= before <= self._clock():
            raise InvalidRequest("before: a time that lies in the past")
        return before

    def _add(self, entry: Revocation, by: str, until: float | None = None, *, past: bool = False) -> None:
        """Add an entry; `past`: one without a time is up to now, and now is when the lock is held."""

        def work(connection: Connection) -> None:
            _raise_version(self._database, connection)
            now = past and entry.before is None
            self._insert(connection, replace(entry, before=self._clock()) if now else entry, by, until)

        self._database.write(work)

    def _insert(self, connection: Connection, entry: Revocation, by: str, until: float | None) -> None:
        now = self._clock()
        connection.execute(delete(revocations).where(revocations.c.until < now))
        if until is None and entry.before is not None:
            until = entry.before + KEEP_S
        insert_revocation(connection, entry, now, by, until)
        if entry.kind != "token":
            columns = sessions.c
            ended = [columns.tenant == entry.tenant, columns.ended_at.is_(None)]
            ended += [columns.subject == entry.name] if entry.kind == "person" else []
            ended += [columns.started_at <= entry.before] if entry.before is not None else []
            change = sessions.update().where(*ended).values(ended_at=now).returning(columns.session_id)
            # The sessions first: whoever refreshes one holds its row, and by the time it is ours has kept the token.
            revoke_session_tokens(self._database, connection, connection.scalars(change).all(), entry.tenant, now, by)


def revoke_session_tokens(
    database: Database, connection: Connection, session_ids: Sequence[str], tenant: str, at: float, by: str
) -> None:
    """Revoke the session tokens of sessions that end, within a change that goes on and holds their rows."""
    columns = refresh_tokens.c
    alive = select(columns.session_token_id, columns.session_token_expires_at).where(
        columns.session_id.in_(database.values(session_ids)), columns.session_token_expires_at > at - _MARGIN_S
    )
    tokens = connection.execute(alive).all() if session_ids else []
    if tokens:
        _raise_version(database, connection)
    for token_id, until in tokens:
        insert_revocation(connection, Revocation("token", tenant, token_id), at, by, until + _MARGIN_S)


def insert_revocation(connection: Connection, entry: Revocation, at: float, by: str, until: float | None) -> None:
    """Add an entry, within a change that raises the version."""
    row = {"kind": entry.kind, "tenant": entry.tenant, "name": entry.name, "before": entry.before}
    connection.execute(revocations.insert().values(**row, until=until, at=at, by=by))


def refused_since(connection: Connection, tenant: str, subject: str, since: float) -> bool:
    """Say whether what a person was given at `since` is revoked, by their name or their tenant."""
    columns = revocations.c
    named = or_(
        and_(columns.kind == "person", columns.name == subject),
        and_(columns.kind == "tenant", columns.name == ""),
    )
    holds = or_(columns.before.is_(None), columns.before >= since)
    found = select(columns.id).where(columns.tenant == tenant, columns.name.in_((subject, "")), named, holds).limit(1)
    return connection.scalar(found) is not None


def _raise_version(database: Database, connection: Connection) -> None:
    # First of all: its row is the lock under which the changes happen one by one.
    row = database.insert(index_state).values(key=_VERSION, value="1")
    raised = {"value": cast(cast(index_state.c.value, BigInteger) + 1, Text)}
    connection.execute(row.on_conflict_do_update(index_elements=["key"], set_=raised))


def _checked(name: str) -> str:
    try:
        return bare_name(name)
    except ValueError as error:
        raise InvalidRequest(f"{name[:64]!a}: {error}") from error


def _checked_id(token_id: str) -> str:
    if not 0 < len(token_id) <= 1_024 or not token_id.isprintable():
        raise InvalidRequest("a token's id has 1 to 1024 printable characters")
    return token_id
