"""What a caller may do: roles give permissions, and nothing else does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from policies.errors import ConfigurationError, Forbidden
from policies.principals import Principal, bare_name

_PERMISSION = re.compile(r"\*|[a-z][a-z0-9_-]*(:[a-z][a-z0-9_-]*)+|[a-z][a-z0-9_-]*(:[a-z][a-z0-9_-]*)*:\*")
_DEFAULTS = Path(__file__).with_name("roles.yaml")


class Roles:
    """The permissions of every known role. A role that is not known gives none."""

    def __init__(self, permissions: Mapping[str, Sequence[str]]) -> None:
        self._permissions = {_role(role): _checked(role, granted) for role, granted in permissions.items()}

    @classmethod
    def load(cls, extra: Mapping[str, Sequence[str]] | None = None) -> Roles:
        """Take the default roles, and `extra` on top: a role named there replaces the default of that name.

        Raises `ConfigurationError` naming the role whose permissions are malformed.
        """
        defaults = yaml.safe_load(_DEFAULTS.read_text(encoding="utf-8"))
        return cls({**defaults, **(extra or {})})

    def permissions(self, principal: Principal) -> frozenset[str]:
        """Everything the caller's roles grant, wildcards as they are written."""
        return frozenset().union(*(self._permissions.get(role, frozenset()) for role in principal.roles))

    def allows(self, principal: Principal, permission: str) -> bool:
        """Say whether the caller holds `permission`, by its name or by a wildcard."""
        granted = self.permissions(principal)
        parts = permission.split(":")
        wildcards = {"*"} | {":".join(parts[:count]) + ":*" for count in range(1, len(parts))}
        return permission in granted or not wildcards.isdisjoint(granted)

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
        raise Forbidden(f"This needs the permission {' or '.join(permissions)}.")


def _role(role: object) -> str:
    if not isinstance(role, str):
        raise ConfigurationError(f"identity.roles: {role!a} is no role name: it is no text")
    try:
        return bare_name(role)
    except ValueError as error:
        raise ConfigurationError(f"identity.roles: {role[:64]!a} is no role name: {error}") from error


def _checked(role: str, granted: object) -> frozenset[str]:
    if isinstance(granted, str) or not isinstance(granted, Sequence):
        raise ConfigurationError(f"identity.roles.{role}: give a list of permissions")
    for permission in granted:
        if not isinstance(permission, str) or not _PERMISSION.fullmatch(permission):
            raise ConfigurationError(
                f"identity.roles.{role}: '{str(permission)[:64]}' is no permission; "
                "write resource:action, resource:* or *"
            )
    return frozenset(granted)
