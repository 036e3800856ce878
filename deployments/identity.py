"""From the configuration's values to the objects of `policies`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployments.sign_in_ways import session_prefixes, session_tokens
from index.issuer_settings import IssuerSettings, NameMapSettings, OverageSettings, ServiceSettings
from index.ledger import Ledger
from index.policy_versions import policy_version as policy_version
from index.settings import AppArgs, IdentitySettings, StoreSettings, read_secret
from policies.audit import AuditLog
from policies.audit_signing import signing_key
from policies.errors import ConfigurationError
from policies.identity import Clearances, Identity
from policies.issuers import TYPES, ClaimNames, Issuer, NameMap, ServiceMark, Services
from policies.issuing import DevelopmentIssuer
from policies.keys import JwksEndpoint, PemFile
from policies.overage import Directory, EntraGroups, KeptGroups
from policies.revocation import Revocations
from policies.secret_files import read_secret_file
from policies.sessions import SessionGroups, SessionTokens
from policies.tokens import TokenVerifier


@dataclass(frozen=True, slots=True)
class Credentials:
    """What says who calls, and its parts that signing in and out works with. `sessions`: None, nobody signs in here."""

    identity: Identity
    tokens: TokenVerifier
    revocations: Revocations
    sessions: SessionTokens | None


def credentials(identity: IdentitySettings, ledger: Ledger, clearances: Clearances) -> Credentials:
    """Build what says who calls. Raises `ConfigurationError`."""
    sessions = session_tokens(identity)
    issuers = [_issuer(settings) for settings in identity.issuers]
    tokens = TokenVerifier(
        issuers,
        identity.leeway_s,
        identity.max_token_bytes,
        identity.max_lifetime_s,
        sessions.issuer if sessions else None,
        session_prefixes(identity),
    )
    ours = {sessions.issuer.issuer} if sessions else set()
    revocations = Revocations(ledger.revocations, identity.leeway_s, ours)
    kept_groups: KeptGroups | SessionGroups = _kept_groups(identity)
    if sessions is not None:
        kept_groups = SessionGroups(ledger.sessions, sessions.issuer.issuer, kept_groups)
    who = Identity(tokens, revocations, kept_groups, ledger.groups, clearances)
    return Credentials(who, tokens, revocations, sessions)


def verifier(identity: IdentitySettings) -> Identity:
    """Build what says who calls where there is no ledger: nothing is ever revoked. Raises `ConfigurationError`."""
    issuers = [_issuer(settings) for settings in identity.issuers]
    tokens = TokenVerifier(issuers, identity.leeway_s, identity.max_token_bytes, identity.max_lifetime_s)
    return Identity(tokens, kept_groups=_kept_groups(identity))


def development_issuers(identity: IdentitySettings) -> list[DevelopmentIssuer]:
    """Give the issuers that `rayrag token` signs for, making their keys where there are none."""
    return [
        DevelopmentIssuer.create(
            Path(settings.key_file),
            settings.issuer,
            settings.audiences[0],
            ClaimNames(**settings.claims.model_dump()),
            settings.algorithms,
        )
        for settings in identity.issuers
        if settings.development and settings.key_file
    ]


def development_issuer(identity: IdentitySettings) -> DevelopmentIssuer:
    """Give the first of them. Raises `ConfigurationError` where the configuration trusts only external issuers."""
    found = development_issuers(identity)
    if not found:
        raise ConfigurationError(
            "The configuration trusts only external issuers (identity.issuers has none with development: true): "
            "get a token from your identity provider."
        )
    return found[0]


def scrape_token(identity: IdentitySettings) -> str | None:
    """Read the token that may read /metrics; None where no file is configured."""
    if identity.scrape_token_file is None:
        return None
    token = read_secret_file(Path(identity.scrape_token_file), "identity.scrape_token_file")
    if len(token) < 16:
        raise ConfigurationError("identity.scrape_token_file: at least 16 characters")
    return token


def audit_log(args: AppArgs) -> AuditLog:
    """Open the audit record."""
    return AuditLog(args.store.audit)


def signing_audit_log(store: StoreSettings) -> AuditLog:
    """Open the audit record with the key that signs its checkpoints, making one where there is none.

    Only who signs and exports needs the key: what serves requests never holds it. Raises `ConfigurationError`.
    """
    return AuditLog(store.audit, signing_key(Path(store.audit_key_file)))


def _issuer(settings: IssuerSettings) -> Issuer:
    keys = PemFile(Path(settings.key_file)) if settings.key_file else JwksEndpoint(str(settings.jwks_uri))
    return Issuer(
        settings.issuer,
        settings.audiences,
        tuple(settings.algorithms),
        keys,
        claims=ClaimNames(**settings.claims.model_dump()),
        tenant=settings.tenant,
        development=settings.development,
        tenants=None if settings.tenants is None else frozenset(settings.tenants),
        types=frozenset(spelling for kind in settings.types for spelling in TYPES[kind]),
        required=settings.required,
        subject_prefix=settings.subject_prefix,
        shared_subjects=settings.subjects == "shared",
        groups=_name_map(settings.groups),
        roles=_name_map(settings.roles),
        services=_services(settings.services) if settings.services else None,
        completes_groups=settings.overage is not None,
        directory_id=settings.overage.person if settings.overage else "oid",
    )


def _name_map(settings: NameMapSettings) -> NameMap:
    return NameMap(settings.map, settings.unmapped == "keep", settings.prefix)


def _services(settings: ServiceSettings) -> Services:
    marks = tuple(ServiceMark(**mark.model_dump()) for mark in settings.known_by)
    return Services(marks, settings.client_id, {name: frozenset(roles) for name, roles in settings.clients.items()})


def _kept_groups(identity: IdentitySettings) -> KeptGroups:
    return KeptGroups(
        {
            settings.issuer: (_entra_groups(settings.overage, place), _name_map(settings.groups))
            for place, settings in enumerate(identity.issuers)
            if settings.overage is not None
        }
    )


def _entra_groups(settings: OverageSettings, place: int) -> EntraGroups:
    def secret() -> str:
        key = f"identity.issuers.{place}.overage.client_secret_file"
        found = read_secret(settings.client_secret_file, settings.client_secret_env, key)
        if not found:
            raise ConfigurationError(f"identity.issuers.{place}.overage: the client secret is empty")
        return found

    secret()  # one that is missing stops the start; it is read again for each token, as secrets are rotated
    directory = Directory(settings.directory, settings.client_id, secret, settings.authority, settings.graph)
    return EntraGroups(
        directory,
        security_groups_only=settings.security_groups_only,
        cache_s=settings.cache_s,
        deadline_s=settings.deadline_s,
    )
