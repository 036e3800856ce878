"""Signing: the key that is ours alone, and the tokens that a development issuer makes with it."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from policies.claims import read_claims
from policies.errors import ConfigurationError, InvalidRequest, TokenRejected
from policies.issuers import ClaimNames, Issuer
from policies.keys import PemFile, fits, load_private_key

MAX_LIFETIME_S = 86_400

_log = logging.getLogger(__name__)


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
    key = load_private_key(path)
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


class Signer:
    """Signs tokens with one key file: Ed25519 (EdDSA) or P-256 (ES256).

    Raises `ConfigurationError` for a file that is absent, that others may read, or that holds another key.
    """

    def __init__(self, key_file: Path) -> None:
        self._key = load_private_key(key_file)
        self.algorithm = "EdDSA" if isinstance(self._key, Ed25519PrivateKey) else "ES256"
        public = self._key.public_key()
        if not fits(public, self.algorithm):
            raise ConfigurationError(f"{key_file}: a signing key of ours is Ed25519 or P-256")
        self.keys = PemFile(key_file)
        """What verifies these signatures, for an `Issuer`."""
        encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.kid = hashlib.sha256(encoded).hexdigest()[:16]

    @classmethod
    def create(cls, key_file: Path, algorithm: str = "EdDSA") -> Signer:
        """Make the key where there is none (see `ensure_private_key`)."""
        ensure_private_key(key_file, algorithm)
        return cls(key_file)

    def sign(self, claims: Mapping[str, Any], kind: str = "JWT") -> str:
        """Sign these claims as they are; `kind` is the header's `typ`."""
        headers = {"kid": self.kid, "typ": kind}
        return jwt.encode(dict(claims), self._key, algorithm=self.algorithm, headers=headers)


class DevelopmentIssuer:
    """Signs tokens with a key on this machine: for development, tests and a first look, never for production."""

    def __init__(self, key_file: Path, issuer: str, audience: str, claims: ClaimNames | None = None) -> None:
        self._signer = Signer(key_file)
        algorithms = (self._signer.algorithm,)
        self._issuer = Issuer(issuer, audience, algorithms, self._signer.keys, claims or ClaimNames())
        self._audience = audience

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
        if not 1 <= ttl_s <= MAX_LIFETIME_S:
            raise InvalidRequest(f"a token lives between 1 and {MAX_LIFETIME_S} seconds")
        now, names = int(time.time()), self._issuer.claims
        claims: dict[str, Any] = {
            "iss": self._issuer.issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": now,
            "exp": now + ttl_s,
            "jti": secrets.token_hex(16),
            names.subject: subject,
            names.tenant: tenant,
            names.roles: sorted(set(roles)),
            names.groups: sorted(set(groups)),
        }
        try:
            read_claims(claims, self._issuer)
        except TokenRejected as error:
            raise InvalidRequest(f"no token can be signed for these names: {error.reason}") from error
        return self._signer.sign(claims)
