"""Signing in: from a password, or from what a browser brings back from an identity provider, to a session.

Whoever is not let in learns nothing: the same words after the same time, whether nobody has that name, the password is
wrong, or the account is disabled.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from deployments.directory_threads import DirectoryThreads
from deployments.session_desk import UNKNOWN, CountAttempt, OpenedSession, SessionDesk, SignInRecord
from deployments.sign_in_ways import PATH, Ways
from index.sessions import Sessions
from policies.errors import NotFound, RayragError, SignInRefused, Unavailable
from policies.keyed_hashes import KeyedHashes
from policies.sessions import hashed
from policies.signing_in.attempts import AddressAttempts, counted_name
from policies.signing_in.ldap import TOO_MANY
from policies.signing_in.people import Person
from policies.signing_in.sealing import LIFETIME_S, Pending, Sealer, own_path

REFUSED_AFTER_S = 0.5
"""When a wrong sign-in is answered, whatever was wrong: a directory's own time would tell."""
_STATE_S = LIFETIME_S + 120.0
"""What began is remembered for longer than it holds: replicas' clocks differ."""
_OF_A_KNOWN_PERSON = frozenset({"password", "disabled"})

T = TypeVar("T")
Kind = Literal["oidc", "saml", "ldap"]


@dataclass(frozen=True, slots=True)
class BegunSignIn:
    """Where to send the browser, and the cookie that it must bring back to `path`."""

    location: str
    cookie: str
    sealed: str
    path: str


@dataclass(frozen=True, slots=True)
class FinishedSignIn:
    """Who came back has a session. `return_to`: the page that waits for them; `cookie` has served."""

    session: OpenedSession
    return_to: str | None
    cookie: str
    path: str


class SigningIn:
    """The ways to sign in. One for each replica of the ingress. `secure`: browsers reach us by https."""

    def __init__(
        self,
        ways: Ways,
        desk: SessionDesk,
        sessions: Sessions,
        sealer: Sealer,
        record: SignInRecord,
        threads: DirectoryThreads,
        count: CountAttempt,
        addresses: AddressAttempts,
        secure: bool,
        hashes: KeyedHashes,
        refused_after_s: float = REFUSED_AFTER_S,
    ) -> None:
        self._ways = ways
        self._desk = desk
        self._sessions = sessions
        self._sealer = sealer
        self._record = record
        self._threads = threads
        self._count = count
        self._addresses = addresses
        self.secure = secure
        self._hashes = hashes
        self._refused_after_s = refused_after_s

    def ways(self) -> list[tuple[Kind, str]]:
        """Name the ways: kind and name."""
        kinds: tuple[tuple[Kind, Iterable[str]], ...] = (
            ("oidc", self._ways.oidc),
            ("saml", self._ways.saml),
            ("ldap", self._ways.ldap),
        )
        return [(kind, name) for kind, named in kinds for name in sorted(named)]

    # ---- with a password

    async def with_password(
        self, name: str, username: str, password: str, address: str, request_id: str
    ) -> OpenedSession:
        """Sign in at a directory. Raises `SignInRefused`, `Overloaded`, `Unavailable`, or `NotFound`: no such way."""
        directory, way = _named(self._ways.ldap, name), f"ldap:{name}"
        self._addresses.take(address)
        counted = counted_name(username)
        await asyncio.to_thread(self._count, way, counted)
        began = time.monotonic()
        # Not the name as it was typed: people type passwords there.
        tenant = self._ways.tenants.get(way, "")
        detail = {"way": way, "username_hash": self._hashes.of(tenant, "username", counted)}
        try:
            person = await self._threads.run(
                directory.sign_in, username, password, partial(self._count, f"{way}:entry")
            )
        except (SignInRefused, Unavailable) as error:
            if not isinstance(error, SignInRefused) or error.reason != TOO_MANY:  # else strangers could fill the record
                await self._failed(error, request_id, way, detail, username)
            if isinstance(error, SignInRefused):
                await asyncio.sleep(self._refused_after_s - (time.monotonic() - began))
            raise
        try:
            return await self._desk.open(person, way, request_id)
        except SignInRefused:
            await asyncio.sleep(self._refused_after_s - (time.monotonic() - began))
            raise

    async def _failed(
        self, error: RayragError, request_id: str, way: str, detail: Mapping[str, str], username: str = ""
    ) -> None:
        known = isinstance(error, SignInRefused) and error.reason in _OF_A_KNOWN_PERSON
        actor, tenant = (username if known else UNKNOWN), self._ways.tenants.get(way, "")
        await self._record.failed(request_id, "auth.sign_in", error, actor, tenant, detail)

    # ---- at an identity provider

    async def begin_oidc(self, name: str, return_to: str | None, address: str) -> BegunSignIn:
        """Send the browser to an OpenID provider.

        Raises `InvalidRequest` for a page to return to that is not ours, `Overloaded`, `Unavailable` and `NotFound`.
        """
        provider = _named(self._ways.oidc, name)
        self._addresses.take(address)
        await asyncio.to_thread(self._count, f"oidc:{name}", None)
        pending = Pending(
            way=f"oidc:{name}",
            state=secrets.token_urlsafe(24),
            return_to=own_path(return_to),
            nonce=secrets.token_urlsafe(24),
            secret=secrets.token_urlsafe(48),
        )
        return self._begun(pending, await provider.begin(pending), f"{PATH}/oidc/{name}/callback")

    async def finish_oidc(
        self, name: str, answer: Mapping[str, str], cookies: Mapping[str, str], address: str, request_id: str
    ) -> FinishedSignIn:
        """Take what the browser brings back from an OpenID provider. Raises as `with_password` does."""
        provider, way = _named(self._ways.oidc, name), f"oidc:{name}"
        self._addresses.take(address)
        pending = await self._pending(way, answer.get("state", ""), cookies)
        try:
            person = await provider.finish(pending, answer)
        except (SignInRefused, Unavailable) as error:
            await self._failed(error, request_id, way, {"way": way})
            raise
        return await self._finished(person, pending, f"{PATH}/oidc/{name}/callback", request_id)

    async def begin_saml(self, name: str, return_to: str | None, address: str) -> BegunSignIn:
        """Send the browser to a SAML provider. Raises as `begin_oidc` does."""
        provider, state = _named(self._ways.saml, name), secrets.token_urlsafe(24)
        self._addresses.take(address)
        await asyncio.to_thread(self._count, f"saml:{name}", None)
        path = own_path(return_to)
        request_id, location = await self._threads.run(provider.begin, state)
        pending = Pending(way=f"saml:{name}", state=state, return_to=path, request_id=request_id)
        return self._begun(pending, location, f"{PATH}/saml/{name}/acs")

    async def finish_saml(
        self, name: str, answer: Mapping[str, str], cookies: Mapping[str, str], address: str, request_id: str
    ) -> FinishedSignIn:
        """Take what the browser brings back from a SAML provider. Raises as `with_password` does."""
        provider, way = _named(self._ways.saml, name), f"saml:{name}"
        self._addresses.take(address)
        pending = await self._pending(way, answer.get("RelayState", ""), cookies)
        try:
            said = await self._threads.run(provider.finish, answer.get("SAMLResponse", ""), pending.request_id)
            spent = hashed(f"{way} {said.assertion_id}")
            if not await asyncio.to_thread(self._sessions.spend, spent, said.until):
                raise SignInRefused("replayed")
        except (SignInRefused, Unavailable) as error:
            await self._failed(error, request_id, way, {"way": way})
            raise
        return await self._finished(said.person, pending, f"{PATH}/saml/{name}/acs", request_id)

    async def saml_metadata(self, name: str) -> str:
        """Describe us to a SAML provider."""
        return await self._threads.run(_named(self._ways.saml, name).metadata)

    def _begun(self, pending: Pending, location: str, path: str) -> BegunSignIn:
        return BegunSignIn(location, self._cookie(pending.state), self._sealer.seal(pending), path)

    async def _pending(self, way: str, state: str, cookies: Mapping[str, str]) -> Pending:
        """Find the sign-in that began, for once. What is refused here leaves no line: it can be had without end."""
        pending = self._sealer.open(cookies.get(self._cookie(state)), way, state)
        await asyncio.to_thread(self._count, way, None)
        spent, until = hashed(f"begun {way} {state}"), time.time() + _STATE_S
        if not await asyncio.to_thread(self._sessions.spend, spent, until):
            raise SignInRefused("state")
        return pending

    async def _finished(self, person: Person, pending: Pending, path: str, request_id: str) -> FinishedSignIn:
        hand_over = pending.return_to is not None
        session = await self._desk.open(person, pending.way, request_id, hand_over=hand_over)
        return FinishedSignIn(session, pending.return_to, self._cookie(pending.state), path)

    def _cookie(self, state: str) -> str:
        """Name the cookie of one sign-in: several may go on in one browser."""
        digest = hashlib.sha256(state.encode("utf-8", "replace")).hexdigest()[:16]
        return f"{'__Secure-' if self.secure else ''}rayrag_sign_in_{digest}"


def _named(ways: Mapping[str, T], name: str) -> T:
    found = ways.get(name)
    if found is None:
        raise NotFound("no such way to sign in")
    return found
