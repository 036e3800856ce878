"""Who a bearer token speaks for. Everything about it is checked before anything else runs.

RFC 8725 is the model: algorithms are pinned by issuer and by key, every claim that matters is required and
typed, and nothing that a token's header points to is ever fetched. A caller learns one sentence, whatever was
wrong; the reason is an attribute of the exception, for logs and metrics. The token is in neither.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt

from policies.claims import read_claims
from policies.errors import ConfigurationError, RayragError, TokenRejected
from policies.issuers import Issuer, require_apart, with_reserved_names
from policies.keys import ALGORITHMS
from policies.principals import Principal

MAX_ID_CHARS = 256

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_KID = re.compile(r"[\x20-\x7e]{1,256}")
_REFUSED_HEADERS = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that holds: whom it names, who signed it, and from when to when (seconds since the epoch).

    `directory_id`: the token keeps the caller's groups back; under this id their issuer's directory tells them.
    """

    principal: Principal
    issuer: str
    token_id: str | None
    issued_at: float
    expires_at: float
    directory_id: str | None = None


class TokenVerifier:
    """Says whom a token names, or refuses it. Safe to share between threads.

    `verify` may wait for an issuer's key endpoint: call it in a thread. A token lives `max_lifetime_s` at most.
    `sessions` is our own issuer, for people who signed in here: their names were checked then, and may begin with
    `session_prefixes`, which no other issuer's do.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        leeway_s: float = 30,
        max_token_bytes: int = 16_384,
        max_lifetime_s: float = 86_400,
        sessions: Issuer | None = None,
        session_prefixes: Collection[str] = (),
    ) -> None:
        issuers = with_reserved_names(issuers)
        trusted = [*issuers, *([sessions] if sessions else [])]
        self._issuers = {issuer.issuer: issuer for issuer in trusted}
        if len(self._issuers) != len(trusted) or not issuers:
            raise ConfigurationError("identity.issuers: give at least one issuer, and each only once")
        require_apart(issuers)
        self._sessions = sessions
        self._prefixes = frozenset(issuer.subject_prefix for issuer in issuers if issuer.subject_prefix)
        self._prefixes |= frozenset(session_prefixes)
        self._leeway_s = leeway_s
        self._max_token_bytes = max_token_bytes
        self._max_lifetime_s = max_lifetime_s

    def verify(self, token: str) -> VerifiedToken:
        """Check everything and say who calls.

        Raises `Unauthenticated` for any token that does not hold, however malformed, and `Unavailable` when an
        issuer's keys cannot be had.
        """
        try:
            return self._verify(token)
        except RayragError:
            raise
        except Exception as error:  # noqa: BLE001 - see below
            # Hostile input must never become a server error. The cause is not chained: it may quote the token.
            _log.warning("a token was refused after an unexpected %s", type(error).__name__)
            raise TokenRejected(f"unexpected_{type(error).__name__}") from None

    def _verify(self, token: str) -> VerifiedToken:
        if not isinstance(token, str) or len(token) > self._max_token_bytes:
            raise TokenRejected("size")
        head = read_head(token)
        claims = _json_object(head.claims, "payload")
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise TokenRejected("issuer")
        if head.algorithm not in issuer.algorithms:
            raise TokenRejected("algorithm")
        if head.kind not in issuer.types:
            raise TokenRejected("type")
        issued, expires = self._check_times(claims)
        reserved = () if issuer is self._sessions else self._prefixes
        named = read_claims(claims, issuer, reserved)
        token_id = _token_id(claims)
        self._check_signature(token, issuer, head.algorithm, head.kid)
        return VerifiedToken(named.principal, issuer.issuer, token_id, issued, expires, named.directory_id)

    def _check_times(self, claims: Mapping[str, Any]) -> tuple[float, float]:
        now = time.time()
        expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
        starts = _seconds(claims, "nbf") if "nbf" in claims else issued
        if expires <= now - self._leeway_s:
            raise TokenRejected("expired")
        if issued > now + self._leeway_s or starts > now + self._leeway_s:
            raise TokenRejected("not_yet_valid")
        if not 0 < expires - issued <= self._max_lifetime_s:
            raise TokenRejected("lifetime")
        return issued, expires

    def _check_signature(self, token: str, issuer: Issuer, algorithm: str, kid: str | None) -> None:
        key = issuer.keys.key(kid, algorithm)
        try:
            # The library repeats the claim checks: a hole would have to be in both.
            jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=issuer.audiences,
                issuer=issuer.issuer,
                leeway=self._leeway_s,
                options={"require": ["exp", "iat", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.InvalidSignatureError:
            raise TokenRejected("signature") from None
        except jwt.PyJWTError as error:
            raise TokenRejected(f"library_{type(error).__name__}") from None


def _json_object(segment: str, part: str) -> dict[str, Any]:
    """Decode one segment. Unlike `json.loads` alone: no repeated keys, no NaN, no encoding but UTF-8."""
    try:
        text = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise TokenRejected(f"{part}_json") from None
    if not isinstance(value, dict):
        raise TokenRejected(f"{part}_json")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise TokenRejected("repeated_key")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


@dataclass(frozen=True, slots=True)
class Head:
    """What a token says about itself before anything is believed. `claims` is its middle part, as it came."""

    algorithm: str
    kid: str | None
    kind: str
    claims: str


def read_head(token: str) -> Head:
    """Check a token's shape and its header (RFC 7515). Raises `TokenRejected`; looks at no key and no claim."""
    segments = token.split(".")
    if len(segments) != 3 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise TokenRejected("shape")
    header = _json_object(segments[0], "header")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRejected("algorithm")
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise TokenRejected("header")
    if not isinstance(kind, str):
        raise TokenRejected("type")
    if "kid" in header and not (isinstance(kid, str) and _KID.fullmatch(kid)):
        raise TokenRejected("key_id")
    return Head(algorithm, kid, kind.lower(), segments[1])


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(f"claim_{name}")
    if not 0 <= value < 2**53:  # false for NaN and infinity, too
        raise TokenRejected(f"claim_{name}")
    return float(value)


def _token_id(claims: Mapping[str, Any]) -> str | None:
    value = claims.get("jti")
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS):
        raise TokenRejected("claim_jti")
    return value
