"""Sessions of people who signed in here, in the ledger: refresh tokens, each for one use, and their end.

A refresh token is kept as its hash. Using it gives the next one. One that comes a second time was stolen, or its answer
was lost: nobody can tell which, so the session ends, and its session tokens are revoked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Row, delete, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.ledger_schema import refresh_tokens, sessions, spent_sign_ins
from index.revocations import refused_since, revoke_session_tokens
from policies.errors import SignInRefused
from policies.principals import Principal
from policies.sessions import IssuedToken

T = TypeVar("T")

FORGET_S = 86_400.0
"""How long a session that is over is remembered."""


@dataclass(frozen=True, slots=True)
class Session:
    """Someone who signed in. `way`: how, such as `ldap:corp`; `handle`: how that directory knows them."""

    session_id: str
    principal: Principal
    way: str
    handle: str
    started_at: float
    seen_at: float
    expires_at: float
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """A new refresh token, by its hash, with the session token that comes with it, if one does."""

    token_hash: str
    expires_at: float
    session_token: IssuedToken | None = None


class Sessions:
    """Every method is one short transaction and raises `Unavailable` when the ledger does not answer."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def start(self, session: Session, refresh: Refresh) -> None:
        """Keep a new session. Raises `SignInRefused` for a person who is disabled, or whose tenant was just revoked."""
        who = session.principal

        def work(connection: Connection) -> bool:
            connection.execute(delete(sessions).where(sessions.c.expires_at < self._clock() - FORGET_S))
            if refused_since(connection, who.tenant, who.subject, session.started_at):
                return False
            connection.execute(sessions.insert().values(**_row(session)))
            self._keep(connection, session.session_id, refresh)
            return True

        if not self._database.write(work):
            raise SignInRefused("disabled")

    def peek(self, token_hash: str) -> Session | None:
        """Say whose a refresh token is, or was. None: nobody's."""
        ours = select(refresh_tokens.c.session_id).where(refresh_tokens.c.token_hash == token_hash)
        found = select(sessions).where(sessions.c.session_id.in_(ours))
        row = self._database.read(lambda connection: connection.execute(found).first())
        return None if row is None else _session(row)

    def find(self, token_hash: str) -> Session:
        """Find the session of a refresh token that may be used now, without using it.

        Raises `SignInRefused` for one that is unknown, expired, revoked or used; in the last case the session ends.
        """
        return self._held(token_hash, lambda connection, session: session)

    def rotate(self, token_hash: str, principal: Principal, refresh: Refresh) -> None:
        """Use a refresh token: keep the next one, and the person as they are now. Raises as `find` does."""

        def use(connection: Connection, session: Session) -> None:
            now = self._clock()
            changed = {"seen_at": now, "roles": _names(principal.roles), "groups": _names(principal.groups)}
            ours = sessions.c.session_id == session.session_id
            connection.execute(sessions.update().where(ours).values(**changed))
            used = refresh_tokens.update().where(refresh_tokens.c.token_hash == token_hash)
            connection.execute(used.values(used_at=now))
            self._keep(connection, session.session_id, refresh)

        self._held(token_hash, use)

    def end(self, session_id: str, by: str) -> Session | None:
        """End a session and revoke its session tokens. None where there is none, or it is over."""

        def work(connection: Connection) -> Session | None:
            row = connection.execute(_locked().where(sessions.c.session_id == session_id)).first()
            if row is None or row.ended_at is not None:
                return None
            self._end(connection, row, by)
            return _session(row)

        return self._database.write(work)

    def of_token(self, token_id: str) -> str | None:
        """Find the id of the session that a session token belongs to."""
        found = select(refresh_tokens.c.session_id).where(refresh_tokens.c.session_token_id == token_id)
        return self._database.read(lambda connection: connection.scalar(found))

    def groups(self, session_id: str) -> frozenset[str] | None:
        """Give the groups of a session that goes on; None where it does not."""
        columns = sessions.c
        found = select(columns.groups).where(
            columns.session_id == session_id, columns.ended_at.is_(None), columns.expires_at > self._clock()
        )
        text = self._database.read(lambda connection: connection.scalar(found))
        return None if text is None else frozenset(json.loads(text))

    def alive(self, tenant: str | None = None, subject: str | None = None, limit: int = 1_000) -> Sequence[Session]:
        """List the sessions that go on, newest first."""
        columns = sessions.c
        query = select(sessions).where(columns.ended_at.is_(None), columns.expires_at > self._clock())
        for column, value in ((columns.tenant, tenant), (columns.subject, subject)):
            query = query if value is None else query.where(column == value)
        query = query.order_by(columns.started_at.desc()).limit(limit)
        return [_session(row) for row in self._database.read(lambda connection: connection.execute(query).all())]

    def spend(self, key_hash: str, until: float) -> bool:
        """Note what may be used once, such as an assertion's id, until it expires. False: it was used before."""

        def work(connection: Connection) -> bool:
            connection.execute(delete(spent_sign_ins).where(spent_sign_ins.c.until < self._clock()))
            row = self._database.insert(spent_sign_ins).values(key_hash=key_hash, until=until)
            first = row.on_conflict_do_nothing().returning(spent_sign_ins.c.key_hash)
            return connection.scalar(first) is not None

        return self._database.write(work)

    def _held(self, token_hash: str, then: Callable[[Connection, Session], T]) -> T:
        def work(connection: Connection) -> T | str:
            wanted = select(refresh_tokens.c.session_id).where(refresh_tokens.c.token_hash == token_hash)
            session_id = connection.scalar(wanted)
            if session_id is None:
                return "unknown"
            # The session's row is the lock; what became of the token is read after it is held.
            row = connection.execute(_locked().where(sessions.c.session_id == session_id)).one()
            token = connection.execute(select(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash)).one()
            reason = self._fault(connection, row, token)
            if reason == "reused":
                self._end(connection, row, "reuse")
            return reason or then(connection, _session(row))

        found = self._database.write(work)
        if isinstance(found, str):
            raise SignInRefused(found)
        return found

    def _fault(self, connection: Connection, session: Row[Any], token: Row[Any]) -> str:
        if session.ended_at is not None:
            return "ended"
        if token.used_at is not None:
            return "reused"
        if min(token.expires_at, session.expires_at) <= self._clock():
            return "expired"
        revoked = refused_since(connection, session.tenant, session.subject, session.started_at)
        return "revoked" if revoked else ""

    def _keep(self, connection: Connection, session_id: str, refresh: Refresh) -> None:
        token = refresh.session_token
        connection.execute(
            refresh_tokens.insert().values(
                token_hash=refresh.token_hash,
                session_id=session_id,
                expires_at=refresh.expires_at,
                session_token_id=token.token_id if token else None,
                session_token_expires_at=token.expires_at if token else None,
            )
        )

    def _end(self, connection: Connection, row: Row[Any], by: str) -> None:
        now = self._clock()
        revoke_session_tokens(self._database, connection, [row.session_id], row.tenant, now, by)
        connection.execute(sessions.update().where(sessions.c.session_id == row.session_id).values(ended_at=now))


def _locked() -> Any:
    return select(sessions).with_for_update()


def _row(session: Session) -> dict[str, Any]:
    who = session.principal
    return {
        "session_id": session.session_id,
        "tenant": who.tenant,
        "subject": who.subject,
        "roles": _names(who.roles),
        "groups": _names(who.groups),
        "way": session.way,
        "handle": session.handle,
        "started_at": session.started_at,
        "seen_at": session.seen_at,
        "expires_at": session.expires_at,
    }


def _session(row: Row[Any]) -> Session:
    who = Principal(row.subject, row.tenant, frozenset(json.loads(row.roles)), frozenset(json.loads(row.groups)))
    times = row.started_at, row.seen_at, row.expires_at, row.ended_at
    return Session(row.session_id, who, row.way, row.handle, *times)


def _names(names: frozenset[str]) -> str:
    return json.dumps(sorted(names), ensure_ascii=False)
