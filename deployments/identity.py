"""From the configuration's values to the objects of `policies`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from index.settings import AppArgs, IdentitySettings, IssuerSettings, StoreSettings
from policies.audit import AuditLog
from policies.errors import ConfigurationError
from policies.tokens import (
    ClaimNames,
    DevelopmentIssuer,
    Issuer,
    JwksEndpoint,
    PemFile,
    TokenVerifier,
    ensure_private_key,
)


def verifier(identity: IdentitySettings) -> TokenVerifier:
    """Build the verifier of all configured issuers. Raises `ConfigurationError`."""
    issuers = [_issuer(settings) for settings in identity.issuers]
    return TokenVerifier(issuers, identity.leeway_s, identity.max_token_bytes)


def development_issuer(identity: IdentitySettings) -> DevelopmentIssuer:
    """Give the issuer that `rayrag token` signs for, making its key where there is none.

    Raises `ConfigurationError` where the configuration trusts only external issuers.
    """
    for settings in identity.issuers:
        if settings.development and settings.key_file:
            claims = ClaimNames(**settings.claims.model_dump())
            return DevelopmentIssuer.create(
                Path(settings.key_file), settings.issuer, settings.audience, claims, settings.algorithms
            )
    raise ConfigurationError("identity.issuers has no development issuer: ask your identity provider for a token")


def scrape_token(identity: IdentitySettings) -> str | None:
    """Read the token that may read /metrics; None where no file is configured."""
    if identity.scrape_token_file is None:
        return None
    try:
        token = Path(identity.scrape_token_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"identity.scrape_token_file: {error.strerror or error}") from error
    if len(token) < 16:
        raise ConfigurationError("identity.scrape_token_file: at least 16 characters")
    return token


def audit_log(args: AppArgs) -> AuditLog:
    """Open the audit record."""
    return AuditLog(args.store.audit)


def signing_audit_log(store: StoreSettings) -> AuditLog:
    """Open the audit record with the key that signs its checkpoints, making one where there is none.

    Only who exports needs the key: what serves requests never holds it. Raises `ConfigurationError`.
    """
    key = ensure_private_key(Path(store.audit_key_file))
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"store.audit_key_file: {store.audit_key_file} is no Ed25519 key")
    return AuditLog(store.audit, key)


def policy_version(args: AppArgs) -> str:
    """Name the policies in force: equal for equal identity settings and roles, 16 hex digits."""
    roles = (Path(__file__).parent.parent / "policies" / "roles.yaml").read_text(encoding="utf-8")
    return hashlib.sha256((args.identity.model_dump_json() + roles).encode()).hexdigest()[:16]


def _issuer(settings: IssuerSettings) -> Issuer:
    keys = PemFile(Path(settings.key_file)) if settings.key_file else JwksEndpoint(str(settings.jwks_uri))
    return Issuer(
        settings.issuer,
        settings.audience,
        tuple(settings.algorithms),
        keys,
        ClaimNames(**settings.claims.model_dump()),
        settings.tenant,
        settings.development,
    )
