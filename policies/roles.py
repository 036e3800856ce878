"""What a caller may do, and how sensitive a document they may see: roles say both, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policies.errors import ConfigurationError, Forbidden, InvalidRequest
from policies.grants import SOMEWHERE, Grant, Scope, covers
from policies.labels import DEFAULT_LABEL, Label
from policies.principals import Principal, bare_name

_DEFAULTS = Path(__file__).with_name("roles.yaml")
_KEYS = ("permissions", "clearance", "tenants")


@dataclass(frozen=True, slots=True)
class Role:
    """A role: its permissions, a clearance, and the tenants outside of which it gives neither (none: in all)."""

    name: str
    grants: tuple[Grant, ...]
    clearance: Label = DEFAULT_LABEL
    tenants: frozenset[str] | None = None

    def holds_in(self, tenant: str) -> bool:
        """Say whether the role gives anything in this tenant."""
        return self.tenants is None or tenant in self.tenants


class Roles:
    """All known roles. A role that is not known gives nothing."""

    def __init__(self, roles: Mapping[str, Any], where: str = "identity.roles") -> None:
        """Take roles as the configuration writes them: a list of permissions, or `{permissions, clearance, tenants}`.

        Raises `ConfigurationError` naming the role that is malformed.
        """
        self._roles = {role.name: role for role in (_role(name, said, where) for name, said in roles.items())}

    @classmethod
    def load(cls, extra: Mapping[str, Any] | None = None) -> Roles:
        """Take the default roles, and `extra` on top: a role named there replaces the default of that name."""
        roles = cls(yaml.safe_load(_DEFAULTS.read_text(encoding="utf-8")), "policies/roles.yaml")
        roles._roles |= cls(extra or {})._roles
        return roles

    def permissions(self, principal: Principal) -> frozenset[str]:
        """Everything the caller's roles grant, as it is written."""
        return frozenset(grant.written for grant in self._grants(principal))

    def allows(self, principal: Principal, permission: str, resource: str | None = None) -> bool:
        """Say whether the caller holds `permission` on `resource` (`source/NAME`); without one, on everything.

        `permission` may end in `SOMEWHERE`: whether they hold it on anything at all.
        """
        somewhere = permission.endswith(SOMEWHERE)
        permission = permission.removesuffix(SOMEWHERE)
        grants = self._grants(principal)
        if somewhere:
            return any(covers(grant.permission, permission) for grant in grants)
        return any(grant.gives(permission, resource) for grant in grants)

    def scope(self, principal: Principal, permission: str) -> Scope:
        """Give the sources for which the caller holds `permission`."""
        held = [grant for grant in self._grants(principal) if covers(grant.permission, permission)]
        everything = any(grant.pattern is None for grant in held)
        return Scope(everything, frozenset(grant.pattern for grant in held if grant.pattern is not None))

    def clearance(self, principal: Principal) -> Label:
        """Give the highest clearance of the caller's roles in their tenant, the default one without such a role."""
        return max((role.clearance for role in self.held(principal)), default=DEFAULT_LABEL)

    def require(self, principal: Principal, permission: str) -> None:
        """Raise `Forbidden`, naming the permission, unless the caller holds it."""
        self.require_any(principal, (permission,))

    def require_any(self, principal: Principal, permissions: Sequence[str]) -> str:
        """Give the first of `permissions` that the caller holds. Raises `Forbidden` naming them where it is none.

        The order matters: `("rag:query", "rag:query:readonly")` gives the second to those alone who may only
        query in read-only mode.
        """
        for permission in permissions:
            if self.allows(principal, permission):
                return permission
        named = dict.fromkeys(permission.removesuffix(SOMEWHERE) for permission in permissions)
        raise Forbidden(f"This needs the permission {' or '.join(named)}.")

    def held(self, principal: Principal) -> Iterator[Role]:
        """Give those of the caller's roles that are known and hold in their tenant, by name."""
        return (role for role in self.all() if role.name in principal.roles and role.holds_in(principal.tenant))

    def all(self) -> Iterator[Role]:
        """Give every known role, by name."""
        return (self._roles[name] for name in sorted(self._roles))

    def _grants(self, principal: Principal) -> list[Grant]:
        found = (self._roles.get(name) for name in principal.roles)
        return [grant for role in found if role and role.holds_in(principal.tenant) for grant in role.grants]


def _role(name: object, said: object, where: str) -> Role:
    if not isinstance(name, str):
        raise ConfigurationError(f"{where}: {name!a} is no role name: it is no text")
    try:
        role = bare_name(name)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {name[:64]!a} is no role name: {error}") from error
    where = f"{where}.{role}"
    if not isinstance(said, Mapping):
        return Role(role, _grants_of(said, where))
    unknown = [key for key in said if key not in _KEYS]
    if unknown:
        raise ConfigurationError(f"{where}.{str(unknown[0])[:64]}: no such key; allowed here: {', '.join(_KEYS)}")
    return Role(
        role,
        _grants_of(said.get("permissions", ()), f"{where}.permissions"),
        _clearance(said["clearance"], where) if "clearance" in said else DEFAULT_LABEL,
        _tenants(said["tenants"], where) if "tenants" in said else None,
    )


def _grants_of(written: object, where: str) -> tuple[Grant, ...]:
    if isinstance(written, str) or not isinstance(written, Sequence):
        raise ConfigurationError(f"{where}: give a list of permissions")
    grants = []
    for number, permission in enumerate(written):
        try:
            grants.append(Grant.of(permission, f"{where}[{number}]"))
        except ValueError as error:
            raise ConfigurationError(f"{where}: '{str(permission)[:64]}' is no permission; {error}") from error
    return tuple(grants)


def _clearance(written: object, where: str) -> Label:
    try:
        return Label.of(written)
    except InvalidRequest as error:
        raise ConfigurationError(f"{where}.clearance: {error.detail.removeprefix('label: ')}") from error


def _tenants(written: object, where: str) -> frozenset[str]:
    if not isinstance(written, list) or not written or not all(isinstance(name, str) for name in written):
        raise ConfigurationError(f"{where}.tenants: give a list of tenants, or leave it out for all of them")
    try:
        return frozenset(map(bare_name, written))
    except ValueError as error:
        raise ConfigurationError(f"{where}.tenants: {error}") from error
