"""From `identity.sign_in` to the directories and providers of `policies.signing_in`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from index.settings import IdentitySettings, read_secret
from index.sign_in_settings import LdapSettings, OidcSettings, PersonSettings, SamlSettings
from policies.errors import ConfigurationError
from policies.issuers import ClaimNames, Issuer, NameMap
from policies.issuing import Signer, ensure_private_key
from policies.keys import JwksEndpoint
from policies.principals import bare_name
from policies.sessions import SessionTokens
from policies.signing_in.ldap import LdapDirectory, LdapTree
from policies.signing_in.ldap_server import LdapAddress, LdapServer, check_filter
from policies.signing_in.oidc import OidcClient, OidcProvider
from policies.signing_in.people import Names
from policies.signing_in.saml import SamlAttributeNames, SamlProvider, SamlService
from policies.signing_in.sealing import Sealer

PATH = "/v1/auth"


@dataclass(frozen=True, slots=True)
class Ways:
    """How people sign in here, by name. `tenants`: of a way whose people are all of one tenant, such as `ldap:corp`."""

    oidc: Mapping[str, OidcProvider] = field(default_factory=dict)
    saml: Mapping[str, SamlProvider] = field(default_factory=dict)
    ldap: Mapping[str, LdapDirectory] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)


def ways(identity: IdentitySettings) -> Ways:
    """Build all of them. Raises `ConfigurationError` naming the setting; asks no directory and no provider."""
    settings = identity.sign_in
    _require_apart(identity)
    base = f"{settings.public_url}{PATH}"
    oidc = {name: _oidc(way, f"{base}/oidc/{name}/callback", identity) for name, way in settings.oidc.items()}
    saml = {name: _saml(way, f"{base}/saml/{name}", identity, name) for name, way in settings.saml.items()}
    ldap = {name: _ldap(way, identity, name) for name, way in settings.ldap.items()}
    tenants = {place.removeprefix("sign_in."): way.tenant for place, way in _people(identity) if way.tenant}
    return Ways(oidc, saml, ldap, {place.replace(".", ":"): tenant for place, tenant in tenants.items()})


def session_tokens(identity: IdentitySettings) -> SessionTokens | None:
    """Build what signs session tokens, making its key where there is none; None where nobody signs in here."""
    if not identity.sign_in.any:
        return None
    settings = identity.sessions
    signer = Signer.create(Path(settings.key_file))
    return SessionTokens(signer, settings.issuer, settings.audience, settings.token_s)


def sealer(identity: IdentitySettings) -> Sealer:
    """Build what seals the cookies of sign-ins that have begun."""
    return Sealer(ensure_private_key(Path(identity.sessions.key_file)))


def session_prefixes(identity: IdentitySettings) -> frozenset[str]:
    """Give the prefixes of people who sign in here."""
    return frozenset(way.subject_prefix for _, way in _people(identity) if way.subject_prefix)


def _people(identity: IdentitySettings) -> list[tuple[str, PersonSettings]]:
    settings = identity.sign_in
    kinds: tuple[tuple[str, Mapping[str, PersonSettings]], ...] = (
        ("oidc", settings.oidc),
        ("saml", settings.saml),
        ("ldap", settings.ldap),
    )
    return [(f"sign_in.{kind}.{name}", way) for kind, ways in kinds for name, way in ways.items()]


@dataclass(frozen=True, slots=True)
class _Subjects:
    """Whose subjects: where that stands in the settings, for which tenants (None: any), behind which prefix."""

    place: str
    tenants: frozenset[str] | None
    prefix: str
    shared: bool

    def may_be(self, other: _Subjects) -> bool:
        """Say whether two could call two people by the same name."""
        if self.prefix != other.prefix or (self.shared and other.shared):
            return False
        return self.tenants is None or other.tenants is None or bool(self.tenants & other.tenants)


def _subjects(place: str, each: PersonSettings | Issuer) -> _Subjects:
    tenants = frozenset({each.tenant}) if each.tenant is not None else each.tenants
    known = None if tenants is None else frozenset(bare_name(tenant) for tenant in tenants)
    shared = each.shared_subjects if isinstance(each, Issuer) else each.subjects == "shared"
    return _Subjects(place, known, each.subject_prefix, shared)


def _require_apart(identity: IdentitySettings) -> None:
    """Raise `ConfigurationError` where a way and an issuer, or two ways, could name the same person by accident."""
    ours = [_subjects(place, way) for place, way in _people(identity)]
    theirs = []
    for place, issuer in enumerate(identity.issuers):
        tenants = [issuer.tenant] if issuer.tenant is not None else issuer.tenants
        known = None if tenants is None else _bare(tenants)
        theirs.append(_Subjects(f"issuers.{place}", known, issuer.subject_prefix, issuer.subjects == "shared"))
    for index, one in enumerate(ours):
        for other in (*theirs, *ours[:index]):
            if one.may_be(other):
                raise ConfigurationError(
                    f"identity.{one.place}.subjects: it and identity.{other.place} may name the same subjects of the "
                    "same tenant; give each its own tenant or tenants, give one of them a subject_prefix, or write "
                    "`subjects: shared` in both where equal subjects are the same person"
                )


def _names(settings: PersonSettings, identity: IdentitySettings) -> Names:
    prefixes = {issuer.subject_prefix for issuer in identity.issuers} | session_prefixes(identity)
    groups = settings.groups
    return Names(
        tenant=None if settings.tenant is None else bare_name(settings.tenant),
        tenants=None if settings.tenants is None else _bare(settings.tenants),
        roles=_bare(settings.roles),
        group_roles={bare_name(group): _bare(roles) for group, roles in settings.group_roles.items()},
        groups=NameMap(groups.map, groups.unmapped == "keep", groups.prefix),
        subject_prefix=settings.subject_prefix,
        reserved=frozenset(prefixes - {""}),
    )


def _bare(names: Iterable[str]) -> frozenset[str]:
    return frozenset(bare_name(name) for name in names)


def _oidc(settings: OidcSettings, callback: str, identity: IdentitySettings) -> OidcProvider:
    claims = settings.claims
    names = _names(settings, identity)
    client = OidcClient(
        settings.client_id,
        read_secret(
            settings.client_secret_file, settings.client_secret_env, "identity.sign_in.oidc: client_secret_file"
        ),
        callback,
        tuple(settings.scopes),
        settings.timeout_s,
        identity.leeway_s,
    )

    def issuer_of(keys: JwksEndpoint) -> Issuer:
        return Issuer(
            settings.issuer,
            settings.client_id,
            tuple(settings.algorithms),
            keys,
            # What is not named is a claim that no token has.
            claims=ClaimNames(claims.tenant or "", claims.roles or "", claims.groups or "", claims.subject),
            tenant=names.tenant,
            tenants=names.tenants,
            groups=names.groups,
        )

    return OidcProvider(settings.issuer, client, issuer_of, names)


def _saml(settings: SamlSettings, base: str, identity: IdentitySettings, name: str) -> SamlProvider:
    service = SamlService(
        settings.entity_id or f"{base}/metadata",
        f"{base}/acs",
        settings.metadata_file,
        settings.identity_provider,
        settings.key_file,
        settings.cert_file,
    )
    attributes = SamlAttributeNames(**settings.attributes.model_dump())
    return SamlProvider(service, attributes, _names(settings, identity))


def _ldap(settings: LdapSettings, identity: IdentitySettings, name: str) -> LdapDirectory:
    key = f"identity.sign_in.ldap.{name}"
    password = read_secret(settings.bind_password_file, settings.bind_password_env, f"{key}.bind_password_file")
    address = LdapAddress(settings.url, settings.start_tls, settings.ca_file, settings.timeout_s)
    server = LdapServer(address, settings.bind_dn, password or "")
    check_filter(settings.person_filter.replace("{username}", "x"), f"{key}.person_filter")
    check_filter(settings.group_filter, f"{key}.group_filter")
    if settings.disabled_filter is not None:
        check_filter(settings.disabled_filter, f"{key}.disabled_filter")
    tree = LdapTree(
        base=settings.base,
        person_filter=settings.person_filter,
        subject=settings.attributes.subject,
        disabled_filter=settings.disabled_filter,
        active_directory=settings.active_directory,
        tenant=settings.attributes.tenant,
        roles=settings.attributes.roles,
        group_base=settings.group_base,
        group_filter=settings.group_filter,
        group_name=settings.attributes.groups,
        member=settings.member_attribute,
        nesting=settings.nesting,
    )
    return LdapDirectory(server, tree, _names(settings, identity))
