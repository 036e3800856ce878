"""Sessions: opened for who signed in, refreshed, ended, revoked; each with its line on the record.

What costs nothing to invent or to repeat, such as a refresh token that never was, or one of a session that is over, is
refused without a line: strangers must not be able to fill the record.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deployments.directory_threads import DirectoryThreads
from deployments.sign_in_ways import Ways
from index.ledger import Ledger
from index.revocations import RevocationList
from index.sessions import Refresh, Session
from index.sign_in_settings import SessionSettings
from policies.audit_chain import AuditIntent, AuditOutcome, Detail
from policies.errors import InvalidRequest, RayragError, SignInRefused, Unavailable
from policies.guard import Recorder, outcome_of
from policies.principals import Principal
from policies.revocation import Revocations
from policies.sessions import REFRESH, SessionTokens, hashed, new_refresh_token
from policies.signing_in.attempts import AddressAttempts
from policies.signing_in.people import Person
from policies.tokens import TokenVerifier, VerifiedToken

HAND_OVER_S = 60
"""How long the refresh token holds that a browser brings back to its page."""
MAX_REFRESH_CHARS = 128
_OVER = frozenset({"ended", "expired", "revoked"})
"""Why a refresh token is dead for good: what killed it is on the record, or it was time alone."""
UNKNOWN = "unknown"
"""The actor of a sign-in that told us no name to believe."""
CountAttempt = Callable[[str, str | None], None]
"""Takes the place, such as a directory, and the user name, where it is known; raises `Overloaded` for one too many."""


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """What a person gets. Seconds from now on; no session token where the refresh token is to fetch the first."""

    refresh_token: str
    refresh_s: int
    session_token: str = ""
    session_token_s: int = 0


@dataclass(frozen=True, slots=True)
class SignInRecord:
    """Writes lines on the record for what the guard does not see: who signs in has no token yet."""

    audit: Recorder
    policy_version: str

    async def write(self, request_id: str, action: str, outcome: str, actor: str, tenant: str, detail: Detail) -> None:
        """Write a line. Raises `Unavailable` where it cannot be written: then nothing may be handed out."""
        line = AuditOutcome(request_id, actor, tenant, action, self.policy_version, outcome, detail=detail)
        await asyncio.to_thread(self.audit.outcome, line)

    async def intent(self, request_id: str, action: str, actor: str, tenant: str, detail: Detail) -> None:
        """Write what is about to happen. Raises `Unavailable` where it cannot be written: then nothing may happen."""
        line = AuditIntent(request_id, actor, tenant, action, self.policy_version, detail)
        await asyncio.to_thread(self.audit.intent, line)

    async def failed(
        self, request_id: str, action: str, error: RayragError, actor: str, tenant: str, detail: Detail
    ) -> None:
        """Write a line for what was refused, or could not be done."""
        reason = error.reason if isinstance(error, SignInRefused) else type(error).__name__
        await self.write(request_id, action, outcome_of(error), actor, tenant, {**detail, "reason": reason})
        error.recorded = True


class SessionDesk:
    """Opens and ends sessions. One for each replica of the ingress."""

    def __init__(
        self,
        settings: SessionSettings,
        ledger: Ledger,
        signer: SessionTokens | None,
        verifier: TokenVerifier,
        revocations: Revocations,
        ways: Ways,
        threads: DirectoryThreads,
        record: SignInRecord,
        count: CountAttempt,
        addresses: AddressAttempts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._sessions = ledger.sessions
        self._revoked = ledger.revocations
        self._signer = signer
        self._verifier = verifier
        self._revocations = revocations
        self._ways = ways
        self._threads = threads
        self._record = record
        self._count = count
        self._addresses = addresses
        self._clock = clock

    async def open(self, person: Person, way: str, request_id: str, *, hand_over: bool = False) -> OpenedSession:
        """Open a session. `hand_over`: give only a refresh token, which a browser brings to its page.

        Raises `SignInRefused` for who is disabled here, and `Unavailable`.
        """
        now, session_id, who = self._clock(), secrets.token_hex(16), person.principal
        until = now + self._settings.longest_s
        session = Session(session_id, who, way, person.handle, now, now, until)
        opened, refresh = self._next(who, session, now, hand_over)
        await self._record.intent(request_id, "auth.sign_in", who.subject, who.tenant, {"way": way})
        try:
            await asyncio.to_thread(self._sessions.start, session, refresh)
        except (SignInRefused, Unavailable) as error:
            detail = {"way": way}
            await self._record.failed(request_id, "auth.sign_in", error, who.subject, who.tenant, detail)
            raise
        noted: Detail = {"way": way, "session": session_id, "groups": len(who.groups)}
        await self._record.write(request_id, "auth.sign_in", "ok", who.subject, who.tenant, noted)
        return opened

    async def refresh(self, refresh_token: str, address: str, request_id: str) -> OpenedSession:
        """Use a refresh token: give the next one, and a session token of who the person is now.

        Raises `SignInRefused`, `Overloaded`, and `Unavailable`: then the token may have been used or not, and nobody
        but the ledger knows.
        """
        self._addresses.take(address)
        if not refresh_token.startswith(REFRESH) or len(refresh_token) > MAX_REFRESH_CHARS:
            raise SignInRefused("unknown")
        used = hashed(refresh_token)
        known = await asyncio.to_thread(self._sessions.peek, used)
        if known is None:
            raise SignInRefused("unknown")
        # Each session is a place of its own: nobody's refreshes take anything from others'.
        await asyncio.to_thread(self._count, f"session:{known.session_id}", "refresh")
        who, detail = known.principal, {"way": known.way, "session": known.session_id}
        try:
            opened = await self._refreshed(used, request_id)
        except (SignInRefused, Unavailable) as error:
            if not isinstance(error, SignInRefused) or error.reason not in _OVER:
                await self._record.failed(request_id, "auth.refresh", error, who.subject, who.tenant, detail)
            raise
        await self._record.write(request_id, "auth.refresh", "ok", who.subject, who.tenant, detail)
        return opened

    async def _refreshed(self, used: str, request_id: str) -> OpenedSession:
        try:
            session = await asyncio.to_thread(self._sessions.find, used)
        except SignInRefused:
            self._revocations.forget()  # it may have been used before, and ended the session
            raise
        try:
            who = await self._threads.run(self._again, session)
        except SignInRefused:
            await asyncio.to_thread(self._sessions.end, session.session_id, "directory")
            self._revocations.forget()
            raise
        # Not before it is known that the session goes on: what is over can be repeated without end.
        noted = {"way": session.way, "session": session.session_id}
        await self._record.intent(request_id, "auth.refresh", who.subject, who.tenant, noted)
        opened, refresh = self._next(who, session, self._clock(), False)
        try:
            await asyncio.to_thread(self._sessions.rotate, used, who, refresh)
        except SignInRefused:
            self._revocations.forget()
            raise
        return opened

    def _again(self, session: Session) -> Principal:
        """Say who the person is now, where that can be asked; else who they were when they signed in."""
        kind, _, name = session.way.partition(":")
        known = {"ldap": self._ways.ldap, "oidc": self._ways.oidc, "saml": self._ways.saml}.get(kind, {})
        if name not in known:
            raise SignInRefused("way_gone")
        if kind != "ldap":
            return session.principal
        who = self._ways.ldap[name].again(session.handle).principal
        if (who.subject, who.tenant) != (session.principal.subject, session.principal.tenant):
            raise SignInRefused("another_person")
        return who

    def _next(self, who: Principal, session: Session, now: float, hand_over: bool) -> tuple[OpenedSession, Refresh]:
        text = new_refresh_token()
        until = min(now + (HAND_OVER_S if hand_over else self._settings.idle_s), session.expires_at)
        if hand_over:
            return OpenedSession(text, int(until - now)), Refresh(hashed(text), until)
        assert self._signer is not None, "who signs in has a way to, and then there is a signer"
        token = self._signer.sign(who, session.session_id, now, session.expires_at)
        opened = OpenedSession(text, int(until - now), token.text, int(token.expires_at - now))
        return opened, Refresh(hashed(text), until, token)

    async def verified(self, token: str) -> VerifiedToken:
        """Read a token that the guard has let in: its id, and until when it holds."""
        return await asyncio.to_thread(self._verifier.verify, token)

    async def log_out(self, token: str, request_id: str) -> None:
        """End the session of a session token; of another issuer's token, revoke the token.

        Raises `InvalidRequest` for a token without an id: nothing can name it.
        """
        verified = await self.verified(token)
        who = verified.principal
        detail: dict[str, str] = {"issuer": verified.issuer}
        ours = self._signer is not None and verified.issuer == self._signer.issuer.issuer
        if ours and verified.token_id is not None:
            session_id = await asyncio.to_thread(self._sessions.of_token, verified.token_id)
            detail |= {"session": session_id} if session_id is not None else {}
            await self._record.intent(request_id, "auth.logout", who.subject, who.tenant, detail)
            if session_id is not None:
                await asyncio.to_thread(self._sessions.end, session_id, who.subject)
        elif verified.token_id is not None:
            await self._record.intent(request_id, "auth.logout", who.subject, who.tenant, detail)
            await asyncio.to_thread(self._revoked.revoke_token, verified.token_id, who.subject, who.tenant)
        else:
            raise InvalidRequest("this token has no id, so it cannot be revoked: it ends by itself")
        self._revocations.forget()
        await self._record.write(request_id, "auth.logout", "ok", who.subject, who.tenant, detail)

    async def revoke(self, caller: Principal, order: RevocationOrder) -> None:
        """Revoke within the caller's tenant. Raises `InvalidRequest` for an order that says too little or too much."""
        await asyncio.to_thread(carry_out, self._revoked, caller.tenant, caller.subject, order)
        self._revocations.forget()


@dataclass(frozen=True, slots=True)
class RevocationOrder:
    """What is to be revoked: a token by its id, a person, or all of a tenant; `before`: Unix seconds, None: now."""

    action: Literal["revoke", "disable", "enable"] = "revoke"
    subject: str | None = None
    token_id: str | None = None
    everyone: bool = False
    before: float | None = None

    def __post_init__(self) -> None:
        """Raise `InvalidRequest` for what cannot be meant."""
        named = [self.subject is not None, self.token_id is not None, self.everyone]
        if sum(named) != 1:
            raise InvalidRequest("name one: a person, a token's id, or everyone of the tenant")
        if self.action != "revoke" and (self.subject is None or self.before is not None):
            raise InvalidRequest(f"{self.action}: name a person, and no time")
        if self.token_id is not None and self.before is not None:
            raise InvalidRequest("before: a token is revoked whenever it was issued")


def carry_out(revocations: RevocationList, tenant: str, by: str, order: RevocationOrder) -> bool:
    """Do it in the ledger. Gives False where a person was to be enabled and was not disabled."""
    if order.token_id is not None:
        revocations.revoke_token(order.token_id, by, tenant)
    elif order.subject is None:
        revocations.revoke_tenant(tenant, by, order.before)
    elif order.action == "disable":
        revocations.disable(tenant, order.subject, by)
    elif order.action == "enable":
        return revocations.enable(tenant, order.subject, by)
    else:
        revocations.revoke_person(tenant, order.subject, by, order.before)
    return True
