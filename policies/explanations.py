"""Why somebody may or may not: the reasons behind `Roles.allows` and `AccessRule.permits`, in words.

They decide nothing. The answer is always that of the function which decides; tests hold reasons and answer together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.access import AccessRule
from policies.grants import BY_SOURCE, Grant, covers
from policies.labels import Label
from policies.principals import Principal
from policies.roles import Role, Roles


@dataclass(frozen=True, slots=True)
class PermissionExplanation:
    """Whether a caller holds a permission, and why. `would_give`: roles with which they would."""

    allowed: bool
    permission: str
    resource: str | None
    clearance: Label
    reasons: tuple[str, ...]
    would_give: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One of the things that must hold before a document is shown."""

    name: str
    holds: bool
    why: str


def explain_permission(
    roles: Roles, caller: Principal, permission: str, resource: str | None = None
) -> PermissionExplanation:
    """Say whether `roles` let the caller do something, which line of which role does, and which role would."""
    allowed = roles.allows(caller, permission, resource)
    held = [role for role in roles.all() if role.name in caller.roles]
    known = {role.name for role in held}
    reasons = [why for role in held for why in _of_role(role, caller.tenant, permission, resource, allowed)]
    reasons += [f"role {name} is not known: it gives nothing" for name in sorted(caller.roles - known)]
    if not caller.roles:
        reasons.append("the caller has no role")
    if not allowed and resource is None and permission in BY_SOURCE and roles.scope(caller, permission).patterns:
        reasons.append("it is held for some sources only: ask with one (source/NAME)")
    would = [
        role.name for role in roles.all() if not allowed and _would_give(role, caller.tenant, permission, resource)
    ]
    return PermissionExplanation(
        allowed, permission, resource, roles.clearance(caller), tuple(reasons), tuple(sorted(would))
    )


def explain_rule(rule: AccessRule, caller: Principal, ways: Mapping[str, Sequence[str]] | None = None) -> list[Check]:
    """Say of each part of a rule whether it lets the caller read.

    `ways`: by group, how the caller comes to be in it, from the outermost word on (`policies.groups.paths`).
    """
    allowed, denied = (sorted(caller.names & names) for names in (rule.allow, rule.deny))
    cleared = rule.label <= caller.clearance
    label = f"the document is {rule.label.word}, the caller's clearance is {caller.clearance.word}"
    not_allowed = "the rule allows nobody" if not rule.allow else "none of the caller's names is allowed"
    not_denied = "none of the caller's names is denied"
    return [
        Check("label", cleared, label),
        Check("allow", bool(allowed), f"allowed by {_named(allowed, ways)}" if allowed else not_allowed),
        Check("deny", not denied, f"denied by {_named(denied, ways)}" if denied else not_denied),
    ]


def _of_role(role: Role, tenant: str, permission: str, resource: str | None, allowed: bool) -> Iterable[str]:
    if not role.holds_in(tenant):
        tenants = ", ".join(sorted(role.tenants or ()))
        yield f"role {role.name} gives nothing in the tenant {tenant}: it holds in {tenants}"
        return
    giving = [grant for grant in role.grants if grant.gives(permission, resource)]
    yield from (f"role {role.name} gives it: {_line(grant, permission)}" for grant in giving)
    if allowed:
        return
    near = [grant for grant in role.grants if covers(grant.permission, permission)]
    yield from (f"role {role.name} gives it elsewhere: {_line(grant, permission)}" for grant in near)
    if not near:
        written = ", ".join(grant.written for grant in role.grants) or "nothing"
        yield f"role {role.name} does not give it: it gives {written}"


def _line(grant: Grant, permission: str) -> str:
    notes = []
    if grant.permission != permission:
        notes.append("a wildcard")
    if grant.pattern is not None:
        notes.append(f"for {grant.pattern} only")
    return f"{grant.written} ({', '.join([*notes, grant.where])})"


def _would_give(role: Role, tenant: str, permission: str, resource: str | None) -> bool:
    return role.holds_in(tenant) and any(grant.gives(permission, resource) for grant in role.grants)


def _named(names: Sequence[str], ways: Mapping[str, Sequence[str]] | None) -> str:
    return ", ".join(_way(name, (ways or {}).get(name.removeprefix("group:"), ())) for name in names)


def _way(name: str, way: Sequence[str]) -> str:
    return f"{name} (by way of {' > '.join(way[:-1])})" if name.startswith("group:") and len(way) > 1 else name
