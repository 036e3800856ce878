"""The keys that issuers sign with: in a file, or published and fetched. Nothing here believes a token."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from policies.errors import ConfigurationError, TokenRejected, Unavailable
from policies.secret_files import require_private, require_unchanged

MIN_RSA_BITS = 2048
"""NIST SP 800-131A."""
MAX_KEY_SET_BYTES = 1_000_000
WAITING = 8
"""Tokens of one issuer that wait for its keys side by side: forged ones of a silent issuer hold up no others."""
PAUSE_S = 3.0
"""Nobody asks again for so long after a fetch that failed, where no keys are known."""

PublicKey = RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey

_CURVES: dict[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
ALGORITHMS = _RSA | _CURVES.keys() | {"EdDSA"}

_log = logging.getLogger(__name__)


class KeySource(Protocol):
    """Where an issuer's public keys come from."""

    def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """Find the key. Raises `TokenRejected` where there is none, `Unavailable` where that cannot be known."""
        ...


_FINGERPRINT = {
    prime: frozenset(pow(65_537, power, prime) for power in range(prime))
    for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}
"""ROCA (CVE-2017-15361): the moduli that certain chips made are powers of 65537 modulo all of these; of all others, one
in 240 million is. https://crocs.fi.muni.cz/public/papers/rsa_ccs17"""


def is_sound(key: object) -> bool:
    """Say whether a key fits any algorithm, and is none that can be taken apart."""
    if not any(fits(key, algorithm) for algorithm in ALGORITHMS):
        return False
    if not isinstance(key, RSAPublicKey):
        return True
    numbers = key.public_numbers()
    chips = all(numbers.n % prime in powers for prime, powers in _FINGERPRINT.items())
    return numbers.e >= 65_537 and not chips


def fits(key: object, algorithm: str) -> bool:
    """Say whether a key is of the kind, the curve and the strength that `algorithm` asks for."""
    if isinstance(key, RSAPublicKey):
        return algorithm in _RSA and key.key_size >= MIN_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return algorithm in _CURVES and isinstance(key.curve, _CURVES[algorithm])
    return isinstance(key, Ed25519PublicKey) and algorithm == "EdDSA"


class PemFile:
    """The one key of an issuer, from a PEM file with a public or a private key; read once.

    Raises `ConfigurationError` for a file that is absent, holds no usable key, which others may change, or holds a
    private key which others may read.
    """

    def __init__(self, path: Path) -> None:
        self._key = read_public_key(path)

    def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """Give the key where it suits the algorithm. There is only one, so `kid` chooses nothing."""
        if not fits(self._key, algorithm):
            raise TokenRejected("key_type")
        return self._key


def read_public_key(path: Path) -> PublicKey:
    """Read the public key from a PEM file, or derive it from the private key there.

    Raises `ConfigurationError` as `PemFile` does.
    """
    content = _read(path)
    try:
        private = b"PRIVATE KEY" in content
        if not private:
            require_unchanged(path, "a public key")
        key = load_private_key(path).public_key() if private else load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: no PEM key of a known kind") from error
    if not is_sound(key):
        raise ConfigurationError(f"{path}: use RSA with {MIN_RSA_BITS} bits or more, P-256, P-384 or Ed25519")
    return cast(PublicKey, key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error


def load_private_key(path: Path) -> Any:
    """Read a private key from a PEM file. Raises `ConfigurationError` where others may read it, too."""
    require_private(path, "a private key")
    content = _read(path)
    try:
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: no unencrypted PEM private key of a known kind") from error


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """One key of a set, and for what it is meant: None where the set does not say."""

    kid: str | None
    algorithm: str | None
    key: PublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """An issuer's published keys (RFC 7517)."""

    keys: tuple[PublishedKey, ...] = ()

    @classmethod
    def of(cls, document: Any) -> KeySet:
        """Read a set. Keys for other uses are passed over; raises `ValueError` when none is left."""
        entries = document.get("keys") if isinstance(document, dict) else None
        keys = []
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("kty") in ("RSA", "EC", "OKP") and _for_signatures(entry):
                key = _published_key(entry)
                if key is not None:
                    keys.append(key)
        if not keys:
            raise ValueError("the key set holds no usable key")
        return cls(tuple(keys))

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Give the key with this id, or the only suitable one; of two, nobody says which one is meant."""
        suitable = [
            known.key
            for known in self.keys
            if (kid is None or known.kid == kid) and known.algorithm in (None, algorithm) and fits(known.key, algorithm)
        ]
        return suitable[0] if len(suitable) == 1 else None


class JwksEndpoint:
    """An issuer's published key set, fetched over https (or http from this machine) and cached.

    A key set is used for `lifespan_s`. A key id that it does not hold leads to one new fetch, though not within
    `cooldown_s` of the last one, so that invented ids cannot become a flood. When the endpoint fails, the known
    keys serve on, for `max_stale_s` at most. Redirects are not followed. A fetch waits `timeout_s` for each step and
    `deadline_s` for all of them, and takes 1 MB at most. `WAITING` threads wait for one; whom the known keys
    do not serve is refused at once beyond that, and where none are known so is everybody for `PAUSE_S` after a failure.
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
        require_private_channel(uri, "jwks_uri")
        self._uri, self._tls = uri, ssl.create_default_context()
        self._host = urlsplit(uri).hostname
        self._lifespan_s, self._cooldown_s = lifespan_s, cooldown_s
        self._timeout_s, self._deadline_s, self._max_stale_s = timeout_s, deadline_s, max_stale_s
        self._lock = threading.Lock()
        self._keys = KeySet()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._failed_at = -math.inf
        self._failed = False
        self._waiting = threading.BoundedSemaphore(WAITING)
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
        found = self._keys.find(kid, algorithm)
        if found is None:
            looked = self._refresh(wait=not self._failed)
            found = self._keys.find(kid, algorithm)  # in any case: another thread's fetch may have ended meanwhile
            if found is None and not looked:
                raise Unavailable("The identity provider's keys are unavailable.")
        if found is None:
            raise TokenRejected("unknown_key")
        return found

    def _refresh(self, *, wait: bool) -> bool:
        """Start a fetch, or join the running one; neither where the last one is too recent.

        Gives False where it was to wait, and too many do already.
        """
        with self._lock:
            done = self._running
            if done is None:
                now = time.monotonic()
                if self._keys.keys and now - self._tried_at < self._cooldown_s:
                    return True
                # A slow failure is timed from its end: else one would follow the other, with somebody waiting always.
                if not self._keys.keys and now - self._failed_at < min(PAUSE_S, self._cooldown_s):
                    return True
                self._tried_at = now
                self._running = done = threading.Event()
                threading.Thread(target=self._fetch, args=(done,), name="jwks-fetch", daemon=True).start()
        if not wait:
            return True
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            done.wait(self._deadline_s)
        finally:
            self._waiting.release()
        return True

    def _fetch(self, done: threading.Event) -> None:
        try:
            self._keys = KeySet.of(json.loads(asyncio.run(self._download())))
            self._fetched_at = time.monotonic()
            self._failed = False
        except (OSError, ValueError, RecursionError) as error:
            self._failed, self._failed_at = True, time.monotonic()
            reason = str(error) or type(error).__name__
            _log.warning(
                "keys of %s could not be fetched (%s); known keys: %d", self._host, reason, len(self._keys.keys)
            )
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


def require_private_channel(uri: str, key: str) -> None:
    """Raise `ConfigurationError`, naming the setting, for an address where others could read or answer."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not host or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ConfigurationError(f"{key}: give an https address without user name (http only for this machine)")


def _for_signatures(entry: Mapping[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _published_key(entry: dict[str, Any]) -> PublishedKey | None:
    kid, algorithm = entry.get("kid"), entry.get("alg")
    try:
        key = jwt.PyJWK.from_dict(entry).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as error:
        _log.info("a published key is of no use here: %s", type(error).__name__)
        return None
    if hasattr(key, "public_key"):
        key = key.public_key()
    if not (kid is None or isinstance(kid, str)) or not is_sound(key):
        return None
    return PublishedKey(kid, algorithm, cast(PublicKey, key))
