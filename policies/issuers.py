"""Whose tokens are believed, for which tenants, and how their names are called here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from policies.errors import ConfigurationError
from policies.keys import ALGORITHMS, KeySource
from policies.principals import bare_name

SERVICE = "service:"
"""What the subject of a service begins with; no person's may."""
TYPES = {"JWT": frozenset({"jwt"}), "at+jwt": frozenset({"at+jwt", "application/at+jwt"})}
"""The types (RFC 8725, 3.11) that an access token has, and their spellings; at+jwt is RFC 9068's."""
ANY_TYPE = frozenset().union(*TYPES.values())

PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}:")


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Which claims carry what. A name with dots also finds nested claims, such as Keycloak's `realm_access.roles`."""

    tenant: str = "tenant"
    roles: str = "roles"
    groups: str = "groups"
    subject: str = "sub"


@dataclass(frozen=True, slots=True)
class NameMap:
    """What an issuer's groups, or roles, are called here.

    A name without an entry is kept, behind `prefix`, or dropped. A kept one never becomes what an entry leads to:
    whoever may name a group at the issuer could otherwise take the rights of another. So none may begin with one of
    `reserved` either, behind which the names of other issuers stand.
    """

    entries: Mapping[str, str] = field(default_factory=dict)
    keep_unmapped: bool = True
    prefix: str = ""
    reserved: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raise `ValueError` for an entry that leads to no name."""
        for name in self.entries.values():
            bare_name(name)

    def named_here(self, names: Iterable[str]) -> frozenset[str]:
        """Translate. Raises `ValueError` where a name with its prefix is none, or is another issuer's."""
        taken = frozenset(self.entries.values())
        kept = [bare_name(self.prefix + name) for name in names if self.keep_unmapped and name not in self.entries]
        if any(name.startswith(tuple(self.reserved)) for name in kept):
            raise ValueError("a name begins as another issuer's do")
        mapped = {self.entries[name] for name in names if name in self.entries}
        return frozenset(name for name in kept if name not in taken) | mapped


@dataclass(frozen=True, slots=True)
class ServiceMark:
    """What one claim of a service's token says that a person's does not: exactly one of the tests."""

    claim: str
    equals: str | None = None
    starts_with: str | None = None
    same_as: str | None = None
    """The name of another claim, with the same value."""
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    """Programs that ask with a token of their own (client credentials): which are known, and what they may do.

    One mark is enough. `client_id` names the claim with the client's id. A service has the roles that stand here and no
    others; one that does not stand here is refused, for at many issuers any registered program gets a token.
    """

    marks: tuple[ServiceMark, ...]
    client_id: str
    roles: Mapping[str, frozenset[str]]


DEFAULT_MARKS = (
    ServiceMark("idtyp", equals="app"),  # Entra ID
    ServiceMark("gty", equals="client-credentials"),  # Auth0
    ServiceMark("preferred_username", starts_with="service-account-"),  # Keycloak
    ServiceMark("client_id", same_as="sub"),  # RFC 9068, 2.2
    ServiceMark("cid", same_as="sub"),  # Okta
)
"""Services' tokens that are refused where no services are configured: they are nobody's."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer. `tenant`, where given, is the tenant of all its tokens, whatever they claim.

    `audience`: one of them must be the token's. `tenants`: which ones may be claimed; None means any. `subject_prefix`
    stands before each subject; `shared_subjects` says that the same subject is the same person as at other issuers that
    say so. `required`: what claims of a person's token must say, or list. `completes_groups`: groups that the token
    keeps elsewhere are asked for, by the person's id in the claim `directory_id`.
    """

    issuer: str
    audience: str | tuple[str, ...]
    algorithms: tuple[str, ...]
    keys: KeySource
    claims: ClaimNames = ClaimNames()
    tenant: str | None = None
    development: bool = False
    tenants: frozenset[str] | None = None
    types: frozenset[str] = ANY_TYPE
    required: Mapping[str, str] = field(default_factory=dict)
    subject_prefix: str = ""
    shared_subjects: bool = False
    groups: NameMap = field(default_factory=NameMap)
    roles: NameMap = field(default_factory=NameMap)
    services: Services | None = None
    completes_groups: bool = False
    directory_id: str = "oid"

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for values with which no token, or any token, would hold."""
        unknown = sorted(set(self.algorithms) - ALGORITHMS)
        if unknown or not self.algorithms:
            allowed = ", ".join(sorted(ALGORITHMS))
            raise ConfigurationError(f"issuer {self.issuer}: algorithms {unknown} are not allowed; allowed: {allowed}")
        if not self.issuer or not self.audiences or not all(self.audiences):
            raise ConfigurationError("an issuer needs a non-empty issuer and audience")
        if self.tenant is not None and self.tenants is not None:
            raise ConfigurationError(f"issuer {self.issuer}: give tenant or tenants, not both")
        if self.subject_prefix and (not PREFIX.fullmatch(self.subject_prefix) or self.subject_prefix == SERVICE):
            raise ConfigurationError(
                f"issuer {self.issuer}: subject_prefix: letters, digits, dots and hyphens, then a colon; not {SERVICE}"
            )
        # In the one spelling, in which tokens' tenants are compared with them, and one issuer's with another's.
        if self.tenant is not None:
            object.__setattr__(self, "tenant", self._named(self.tenant))
        if self.tenants is not None:
            object.__setattr__(self, "tenants", frozenset(self._named(tenant) for tenant in self.tenants))

    def _named(self, tenant: str) -> str:
        try:
            return bare_name(tenant)
        except ValueError as error:
            raise ConfigurationError(f"issuer {self.issuer}: tenant {tenant[:64]!a}: {error}") from error

    @property
    def audiences(self) -> tuple[str, ...]:
        """The audiences, one or more."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience

    @property
    def spoken_for(self) -> frozenset[str] | None:
        """The tenants whose people it names; None: any."""
        return self.tenants if self.tenant is None else frozenset({self.tenant})


def require_apart(issuers: Sequence[Issuer]) -> None:
    """Raise `ConfigurationError` where two issuers could name the same person by accident.

    `policies.principals.Principal.subject` is unique within a tenant: what one issuer calls "ada" and another does must
    be one person, or two names.
    """
    for (first, one), (second, other) in combinations(enumerate(issuers), 2):
        if one.subject_prefix != other.subject_prefix or (one.shared_subjects and other.shared_subjects):
            continue
        if _share_a_tenant(one, other):
            raise ConfigurationError(
                f"identity.issuers.{second}.subjects: {other.issuer} and {one.issuer} (identity.issuers.{first}) may "
                "name the same subjects of the same tenant; give each its own tenant or tenants, give one of them a "
                "subject_prefix, or write `subjects: shared` in both where equal subjects are the same person"
            )


def with_reserved_names(issuers: Sequence[Issuer]) -> list[Issuer]:
    """Give the issuers, the prefixes of groups and roles of each reserved against all others of the same tenant."""
    found = []
    for one in issuers:
        beside = [other for other in issuers if other is not one and _share_a_tenant(one, other)]
        groups = frozenset(other.groups.prefix for other in beside) - {"", one.groups.prefix}
        roles = frozenset(other.roles.prefix for other in beside) - {"", one.roles.prefix}
        mine = replace(one.groups, reserved=groups), replace(one.roles, reserved=roles)
        found.append(replace(one, groups=mine[0], roles=mine[1]))
    return found


def _share_a_tenant(one: Issuer, other: Issuer) -> bool:
    tenants, others = one.spoken_for, other.spoken_for
    return tenants is None or others is None or bool(tenants & others)


def is_service(claims: Mapping[str, Any], marks: Iterable[ServiceMark]) -> bool:
    """Say whether one of the marks is on a token with these claims."""
    return any(_shows(claims, mark) for mark in marks)


def _shows(claims: Mapping[str, Any], mark: ServiceMark) -> bool:
    value = claim(claims, mark.claim)
    if mark.absent:
        return value is None
    if not isinstance(value, str):
        return False
    if mark.starts_with is not None:
        return value.startswith(mark.starts_with)
    return value == (mark.equals if mark.same_as is None else claim(claims, mark.same_as))


def claim(claims: Mapping[str, Any], name: str, absent: Any = None) -> Any:
    """Find a claim by its name, else by the path that its name's dots give."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return absent
        value = value[part]
    return value
