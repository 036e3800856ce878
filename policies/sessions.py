"""Tokens of people who signed in here: a short-lived one that we sign, and an opaque one that gets the next.

The signed one is a bearer token like any other issuer's and goes through the same checks. Where a person is in more
groups than a token should carry, it carries none and says so; they are then read from the session.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Protocol

from policies.errors import TokenRejected
from policies.issuers import Issuer
from policies.issuing import Signer
from policies.principals import Principal
from policies.tokens import VerifiedToken

MAX_TOKEN_BYTES = 8_192
"""Longer ones do not pass some proxies; from here on the groups stay behind."""
KIND = "at+jwt"
REFRESH = "rr_"
"""What a refresh token begins with, so that one which was left somewhere is found."""
_SESSION = "sid"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A session token. Times in Unix seconds."""

    text: str
    token_id: str
    expires_at: float


class SessionTokens:
    """Signs session tokens. `token_s`: how long one holds, at most to the session's end."""

    def __init__(self, signer: Signer, issuer: str, audience: str, token_s: int) -> None:
        self._signer = signer
        self._audience = audience
        self._token_s = token_s
        self.issuer = Issuer(
            issuer,
            audience,
            (signer.algorithm,),
            signer.keys,
            types=frozenset({KIND}),
            completes_groups=True,
            directory_id=_SESSION,
        )
        """What the verifier must know to believe these tokens."""

    def sign(self, who: Principal, session_id: str, now: float, until: float) -> IssuedToken:
        """Sign a token of a session that ends at `until`."""
        expires = int(min(now + self._token_s, until))
        token_id = secrets.token_hex(16)
        claims: dict[str, Any] = {
            "iss": self.issuer.issuer,
            "aud": self._audience,
            "sub": who.subject,
            "iat": min(int(now), expires - 1),
            "exp": expires,
            "jti": token_id,
            "tenant": who.tenant,
            "roles": sorted(who.roles),
            "groups": sorted(who.groups),
            _SESSION: session_id,
        }
        text = self._signer.sign(claims, KIND)
        if len(text) > MAX_TOKEN_BYTES:
            del claims["groups"]
            text = self._signer.sign({**claims, "hasgroups": True}, KIND)
        return IssuedToken(text, token_id, expires)


class SessionGroupsSource(Protocol):
    """Where sessions are kept."""

    def groups(self, session_id: str) -> frozenset[str] | None:
        """Give the groups of a session that goes on; None where it does not. Raises `Unavailable`."""
        ...


class OtherGroups(Protocol):
    """Who knows the groups that other issuers' tokens keep back."""

    def complete(self, token: VerifiedToken) -> frozenset[str]:
        """Give all of them. Raises `Unauthenticated` or `Unavailable`."""
        ...


class SessionGroups:
    """Reads the groups that session tokens keep back, and leaves other issuers' tokens to `others`."""

    def __init__(self, source: SessionGroupsSource, issuer: str, others: OtherGroups) -> None:
        self._source = source
        self._issuer = issuer
        self._others = others

    def complete(self, token: VerifiedToken) -> frozenset[str]:
        """Give all of them. Raises `TokenRejected` where the session is over, `Unavailable` where nobody can tell."""
        if token.issuer != self._issuer:
            return self._others.complete(token)
        groups = self._source.groups(token.directory_id or "")
        if groups is None:
            raise TokenRejected("session_over")
        return groups


def new_refresh_token() -> str:
    """Draw a refresh token: 256 random bits."""
    return REFRESH + secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """Give what is kept of a refresh token, or of anything random and as long: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
