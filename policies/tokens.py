"""Who a bearer token speaks for. Everything about it is checked before anything else runs.

RFC 8725 is the model: algorithms are pinned by issuer and by key, every claim that matters is required and
typed, and nothing that a token's header points to is ever fetched. A caller learns one sentence, whatever was
wrong; the reason is an attribute of the exception, for logs and metrics. The token is in neither.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import logging
import math
import os
import re
import secrets
import ssl
import stat
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from policies.errors import ConfigurationError, InvalidRequest, RayragError, Unauthenticated, Unavailable
from policies.principals import Principal, bare_name

DETAIL = "A valid bearer token is required."
MAX_NAMES = 10_000
MIN_RSA_BITS = 2048
"""NIST SP 800-131A."""
MAX_KEY_SET_BYTES = 1_000_000

PublicKey = RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey

_CURVES: dict[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
ALGORITHMS = _RSA | _CURVES.keys() | {"EdDSA"}

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_KID = re.compile(r"[\x20-\x7e]{1,256}")
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_REFUSED_HEADERS = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty"})
_REFUSED_KINDS = frozenset({"id", "refresh", "offline", "logout"})

_log = logging.getLogger(__name__)


class TokenRejected(Unauthenticated):
    """A token that does not hold. `detail` is always the same; `reason` is for the operator alone."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, reason)
        self.detail = DETAIL
        self.reason = reason


class KeySource(Protocol):
    """Where an issuer's public keys come from."""

    def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """Find the key. Raises `TokenRejected` where there is none, `Unavailable` where that cannot be known."""
        ...


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Which claims carry what. A name with dots also finds nested claims, such as Keycloak's `realm_access.roles`."""

    tenant: str = "tenant"
    roles: str = "roles"
    groups: str = "groups"


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer. `tenant`, where given, is the tenant of all its tokens, whatever they claim."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    keys: KeySource
    claims: ClaimNames = ClaimNames()
    tenant: str | None = None
    development: bool = False

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for values with which no token, or any token, would hold."""
        unknown = sorted(set(self.algorithms) - ALGORITHMS)
        if unknown or not self.algorithms:
            allowed = ", ".join(sorted(ALGORITHMS))
            raise ConfigurationError(f"issuer {self.issuer}: algorithms {unknown} are not allowed; allowed: {allowed}")
        if not self.issuer or not self.audience:
            raise ConfigurationError("an issuer needs a non-empty issuer and audience")
        if self.tenant is not None:
            try:
                bare_name(self.tenant)
            except ValueError as error:
                raise ConfigurationError(f"issuer {self.issuer}: tenant {self.tenant[:64]!a}: {error}") from error


class TokenVerifier:
    """Turns a token into a `Principal`, or refuses it. Safe to share between threads.

    `verify` may wait for an issuer's key endpoint: call it in a thread. A token lives `max_lifetime_s` at most.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        leeway_s: float = 30,
        max_token_bytes: int = 16_384,
        max_lifetime_s: float = 86_400,
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers) or not issuers:
            raise ConfigurationError("identity.issuers: give at least one issuer, and each only once")
        self._leeway_s = leeway_s
        self._max_token_bytes = max_token_bytes
        self._max_lifetime_s = max_lifetime_s

    def verify(self, token: str) -> Principal:
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

    def _verify(self, token: str) -> Principal:
        if not isinstance(token, str) or len(token) > self._max_token_bytes:
            raise TokenRejected("size")
        segments = token.split(".")
        if len(segments) != 3 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise TokenRejected("shape")
        algorithm, kid = _read_header(_json_object(segments[0], "header"))
        claims = _json_object(segments[1], "payload")
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise TokenRejected("issuer")
        if algorithm not in issuer.algorithms:
            raise TokenRejected("algorithm")
        self._check_times(claims)
        principal = _principal(claims, issuer)
        self._check_signature(token, issuer, algorithm, kid)
        return principal

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = time.time()
        expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
        starts = _seconds(claims, "nbf") if "nbf" in claims else issued
        if expires <= now - self._leeway_s:
            raise TokenRejected("expired")
        if issued > now + self._leeway_s or starts > now + self._leeway_s:
            raise TokenRejected("not_yet_valid")
        if not 0 < expires - issued <= self._max_lifetime_s:
            raise TokenRejected("lifetime")

    def _check_signature(self, token: str, issuer: Issuer, algorithm: str, kid: str | None) -> None:
        key = issuer.keys.key(kid, algorithm)
        try:
            # The library repeats the claim checks: a hole would have to be in both.
            jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=issuer.audience,
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


def _read_header(header: Mapping[str, Any]) -> tuple[str, str | None]:
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRejected("algorithm")
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise TokenRejected("header")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRejected("type")
    if "kid" in header and not (isinstance(kid, str) and _KID.fullmatch(kid)):
        raise TokenRejected("key_id")
    return algorithm, kid


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(f"claim_{name}")
    if not 0 <= value < 2**53:  # false for NaN and infinity, too
        raise TokenRejected(f"claim_{name}")
    return float(value)


def _principal(claims: Mapping[str, Any], issuer: Issuer) -> Principal:
    """Read the claims. Raises `TokenRejected` naming the claim; names are spelt in NFC, nothing is cut or dropped."""
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        raise TokenRejected("claim_aud")
    if issuer.audience not in audiences:
        raise TokenRejected("audience")
    for marker in ("typ", "token_use"):
        if str(claims.get(marker, "")).lower() in _REFUSED_KINDS:
            raise TokenRejected("kind")
    if _left_out(claims, issuer.claims):
        raise TokenRejected("distributed_claims")
    return Principal(
        subject=_name(claims.get("sub"), "sub"),
        tenant=_name(issuer.tenant or _claim(claims, issuer.claims.tenant), "tenant"),
        roles=_names(_claim(claims, issuer.claims.roles, []), "roles"),
        groups=_names(_claim(claims, issuer.claims.groups, []), "groups"),
    )


def _left_out(claims: Mapping[str, Any], names: ClaimNames) -> bool:
    """Say whether the token says that the tenant, roles or groups are not in it, but kept elsewhere.

    Where there are too many groups, Entra ID leaves them out and points elsewhere (OpenID Connect 5.6.2, distributed
    claims), or says only `hasgroups`. To go on without them would be to ignore every rule that denies one of them.
    """
    elsewhere = claims.get("_claim_names", {})
    if not isinstance(elsewhere, dict):
        return True
    if claims.get("hasgroups", False) is not False and _claim(claims, names.groups) is None:
        return True
    # Of a nested claim, such as Keycloak's, any object around it may be what is elsewhere.
    wanted = (name.split(".") for name in (names.tenant, names.roles, names.groups))
    return any(".".join(parts[:count]) in elsewhere for parts in wanted for count in range(1, len(parts) + 1))


def _claim(claims: Mapping[str, Any], name: str, absent: Any = None) -> Any:
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return absent
        value = value[part]
    return value


def _name(value: Any, claim: str) -> str:
    try:
        if isinstance(value, str):
            return bare_name(value)
    except ValueError:
        raise TokenRejected(f"claim_{claim}") from None
    raise TokenRejected(f"claim_{claim}")


def _names(value: Any, claim: str) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise TokenRejected(f"claim_{claim}")
    return frozenset(_name(item, claim) for item in value)


def fits(key: object, algorithm: str) -> bool:
    """Say whether a key is of the kind, the curve and the strength that `algorithm` asks for."""
    if isinstance(key, RSAPublicKey):
        return algorithm in _RSA and key.key_size >= MIN_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return algorithm in _CURVES and isinstance(key.curve, _CURVES[algorithm])
    return isinstance(key, Ed25519PublicKey) and algorithm == "EdDSA"


class PemFile:
    """The one key of an issuer, from a PEM file with a public or a private key; read once.

    Raises `ConfigurationError` for a file that is absent, holds no usable key, or holds a private key which
    others may read.
    """

    def __init__(self, path: Path) -> None:
        self._key = read_public_key(path)

    def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """Give the key where it suits the algorithm. There is only one, so `kid` chooses nothing."""
        if not fits(self._key, algorithm):
            raise TokenRejected("key_type")
        return self._key


@dataclass(frozen=True, slots=True)
class _PublishedKey:
    kid: str | None
    algorithm: str | None
    key: PublicKey


class JwksEndpoint:
    """An issuer's published key set, fetched over https (or http from this machine) and cached.

    A key set is used for `lifespan_s`. A key id that it does not hold leads to one new fetch, though not within
    `cooldown_s` of the last one, so that invented ids cannot become a flood. When the endpoint fails, the known
    keys serve on, for `max_stale_s` at most. Redirects are not followed. A fetch waits `timeout_s` for each step and
    `deadline_s` for all of them, and takes 1 MB at most.
    """

    def __init__(
        self,
        uri: str,
        *,
        lifespan_s: float = 300,
        cooldown_s: float = 30,
        timeout_s: float = 3,
        deadline_s: float = 5,
        max_stale_s: float = 86_400,
    ) -> None:
        _require_private_channel(uri)
        self._uri, self._tls = uri, ssl.create_default_context()
        self._host = urlsplit(uri).hostname
        self._lifespan_s, self._cooldown_s = lifespan_s, cooldown_s
        self._timeout_s, self._deadline_s, self._max_stale_s = timeout_s, deadline_s, max_stale_s
        self._lock = threading.Lock()
        self._keys: tuple[_PublishedKey, ...] = ()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._failed = False
        self._running: threading.Event | None = None

    def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """Find the key with this id, or the only suitable one where the token names none.

        Raises `TokenRejected` for an unknown id, `Unavailable` when no key set can be had.
        """
        age_s = time.monotonic() - self._fetched_at
        if age_s > self._lifespan_s:
            # After a failure nobody waits for the next try: the known keys serve while it runs.
            self._refresh(wait=not self._failed or age_s > self._max_stale_s)
        if time.monotonic() - self._fetched_at > self._max_stale_s:
            raise Unavailable("The identity provider's keys are unavailable.")
        found = self._find(kid, algorithm)
        if found is None and self._refresh(wait=not self._failed):
            found = self._find(kid, algorithm)
        if found is None:
            raise TokenRejected("unknown_key")
        return found

    def _find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        suitable = [
            known.key
            for known in self._keys
            if (kid is None or known.kid == kid) and known.algorithm in (None, algorithm) and fits(known.key, algorithm)
        ]
        return suitable[0] if suitable and (kid is not None or len(suitable) == 1) else None

    def _refresh(self, *, wait: bool) -> bool:
        """Start a fetch, or join the running one. False where the last one is too recent."""
        with self._lock:
            done = self._running
            if done is None:
                now = time.monotonic()
                if now - self._tried_at < (self._cooldown_s if self._keys else min(1.0, self._cooldown_s)):
                    return False
                self._tried_at = now
                self._running = done = threading.Event()
                threading.Thread(target=self._fetch, args=(done,), name="jwks-fetch", daemon=True).start()
        if wait:
            done.wait(self._deadline_s)
        return True

    def _fetch(self, done: threading.Event) -> None:
        try:
            self._keys = _published_keys(json.loads(asyncio.run(self._download())))
            self._fetched_at = time.monotonic()
            self._failed = False
        except (OSError, ValueError, RecursionError) as error:
            self._failed = True
            reason = str(error) or type(error).__name__
            _log.warning("keys of %s could not be fetched (%s); known keys: %d", self._host, reason, len(self._keys))
        finally:
            with self._lock:
                self._running = None
            done.set()

    async def _download(self) -> bytes:
        """Get the body, within the deadline however slowly it drips. Raises `OSError` or `ValueError`."""
        import httpx2

        body = bytearray()
        plain = {"accept-encoding": "identity"}  # a packed body would be small here and large unpacked
        client = httpx2.AsyncClient(verify=self._tls, timeout=self._timeout_s, headers=plain)
        try:
            async with asyncio.timeout(self._deadline_s), client, client.stream("GET", self._uri) as answer:
                if answer.status_code != 200:
                    raise ValueError(f"status {answer.status_code}")
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > MAX_KEY_SET_BYTES:
                        raise ValueError(f"over {MAX_KEY_SET_BYTES} bytes")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        return bytes(body)


def _require_private_channel(uri: str) -> None:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not host or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ConfigurationError("jwks_uri: give an https address without user name (http only for this machine)")


def _published_keys(document: Any) -> tuple[_PublishedKey, ...]:
    """Read a JWK set (RFC 7517). Keys for other uses are passed over; raises `ValueError` when none is left."""
    entries = document.get("keys") if isinstance(document, dict) else None
    keys = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("kty") in ("RSA", "EC", "OKP") and _for_signatures(entry):
            key = _published_key(entry)
            if key is not None:
                keys.append(key)
    if not keys:
        raise ValueError("the key set holds no usable key")
    return tuple(keys)


def _for_signatures(entry: Mapping[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _published_key(entry: dict[str, Any]) -> _PublishedKey | None:
    kid, algorithm = entry.get("kid"), entry.get("alg")
    try:
        key = jwt.PyJWK.from_dict(entry).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as error:
        _log.info("a published key is of no use here: %s", type(error).__name__)
        return None
    if hasattr(key, "public_key"):
        key = key.public_key()
    if not (kid is None or isinstance(kid, str)) or not any(fits(key, name) for name in ALGORITHMS):
        return None
    return _PublishedKey(kid, algorithm, cast(PublicKey, key))


def read_public_key(path: Path) -> PublicKey:
    """Read the public key from a PEM file, or derive it from the private key there.

    Raises `ConfigurationError` as `PemFile` does.
    """
    content = _read(path)
    private = b"PRIVATE KEY" in content
    try:
        key = _load_private(path, content).public_key() if private else load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: no PEM key of a known kind") from error
    if not any(fits(key, algorithm) for algorithm in ALGORITHMS):
        raise ConfigurationError(f"{path}: use RSA with {MIN_RSA_BITS} bits or more, P-256, P-384 or Ed25519")
    return cast(PublicKey, key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error


def _load_private(path: Path, content: bytes) -> Any:
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(f"{path}: a private key that others may read; run chmod 600 on it, or replace it")
    try:
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: no unencrypted PEM private key of a known kind") from error


def ensure_private_key(path: Path, algorithm: str = "EdDSA") -> Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
    """Read the key at `path`, or make one there: Ed25519 for EdDSA, P-256 for ES256; file 0600, directory 0700.

    Of many processes that start at once, one writes its key whole and the others read that. Raises
    `ConfigurationError` for a key which others may read, or a directory where they may replace it.
    """
    directory = path.parent
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    if directory.stat().st_mode & 0o022:
        raise ConfigurationError(f"{directory}: others may write here; run chmod 700 on it")
    if not path.exists():
        _write_new_key(path, algorithm)
    key = _load_private(path, _read(path))
    if not isinstance(key, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path}: a signing key of ours is Ed25519 or P-256")
    return key


def _write_new_key(path: Path, algorithm: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and never over another's key.
        os.link(draft, path)
    except FileExistsError:
        _log.info("%s: another process was first", path)
    finally:
        draft.unlink()


class DevelopmentIssuer:
    """Signs tokens with a key on this machine: for development, tests and a first look, never for production."""

    def __init__(self, key_file: Path, issuer: str, audience: str, claims: ClaimNames | None = None) -> None:
        content = _read(key_file)
        self._key = _load_private(key_file, content)
        self._algorithm = "EdDSA" if isinstance(self._key, Ed25519PrivateKey) else "ES256"
        public = self._key.public_key()
        if not fits(public, self._algorithm):
            raise ConfigurationError(f"{key_file}: a development issuer signs with Ed25519 or P-256")
        encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._kid = hashlib.sha256(encoded).hexdigest()[:16]
        self._issuer = Issuer(issuer, audience, (self._algorithm,), PemFile(key_file), claims or ClaimNames())

    @classmethod
    def create(
        cls,
        key_file: Path,
        issuer: str,
        audience: str,
        claims: ClaimNames | None = None,
        algorithms: Collection[str] = ("EdDSA",),
    ) -> DevelopmentIssuer:
        """Make the key where there is none (see `ensure_private_key`) of a kind that the issuer's settings allow."""
        algorithm = next((name for name in ("EdDSA", "ES256") if name in algorithms), None)
        if algorithm is None:
            raise ConfigurationError(f"issuer {issuer}: a development issuer needs EdDSA or ES256 in algorithms")
        ensure_private_key(key_file, algorithm)
        return cls(key_file, issuer, audience, claims)

    def sign(
        self,
        subject: str,
        tenant: str,
        roles: Collection[str] = (),
        groups: Collection[str] = (),
        ttl_s: int = 3600,
    ) -> str:
        """Sign a token. Raises `InvalidRequest` for names or a lifetime that the verifier would refuse."""
        if not 1 <= ttl_s <= 86_400:
            raise InvalidRequest("a token lives between 1 and 86400 seconds")
        now, names = int(time.time()), self._issuer.claims
        claims: dict[str, Any] = {
            "iss": self._issuer.issuer,
            "aud": self._issuer.audience,
            "sub": subject,
            "iat": now,
            "exp": now + ttl_s,
            "jti": secrets.token_hex(16),
            names.tenant: tenant,
            names.roles: sorted(set(roles)),
            names.groups: sorted(set(groups)),
        }
        try:
            _principal(claims, self._issuer)
        except TokenRejected as error:
            raise InvalidRequest(f"no token can be signed for these names: {error.reason}") from error
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers={"kid": self._kid})
