"""Who reads an item, from what Microsoft Graph says of its permissions. Pure; what is unknown gives no right.

    permissions (JSON) ──read_grants──▶ Grants ──names (asked of Graph)──▶ access_rule ──▶ AccessRule

Sources: the permission, sharingLink and sharePointIdentitySet resources of Microsoft Graph v1.0. An item's permissions
are its effective ones, inherited ones among them. SharePoint has no permission that denies.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from policies.access import MAX_NAMES, NOBODY, AccessRule
from policies.errors import InvalidRequest
from policies.principals import EVERYONE

# What gives at least the content; names with `sp.` are SharePoint's own levels. "sp.limited access", file requests and
# levels that an administrator made up are not among them.
READING_ROLES = frozenset({"read", "write", "owner", "sp.owner", "sp.member", "sp.full control"})
_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_IS_GUID = re.compile(_GUID)
# How SharePoint spells those whom it knows by a claim: https://learn.microsoft.com/sharepoint/dev, "claim encoding".
_USER_LOGIN = re.compile(r"i:0#\.f\|membership\|([^|\s/?#\\]{1,256})", re.IGNORECASE)
_GROUP_LOGIN = re.compile(rf"c:0(?:t\.c\|tenant|o\.c\|federateddirectoryclaimprovider)\|({_GUID})", re.IGNORECASE)
_ALL_LOGIN = re.compile(rf"c:0\(\.s\|true|c:0-\.f\|rolemanager\|spo-grid-all-users/{_GUID}", re.IGNORECASE)
_NO_END = datetime(1, 1, 2, tzinfo=UTC)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How grants that name nobody in particular are read, and who stands behind a site's groups."""

    organization: bool = True
    anonymous: bool = True
    site_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grants:
    """Who reads an item, in Graph's terms: `users` by id or sign-in name, `groups` by id, `principals` in ours.

    `until` is when the first of them ends, Unix seconds. `unmapped` are SharePoint groups that nobody stands behind.
    """

    everyone: bool = False
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    principals: frozenset[str] = frozenset()
    until: float | None = None
    unmapped: frozenset[str] = frozenset()


def read_grants(permissions: Iterable[Any], policy: Policy, now: float) -> Grants:
    """Read an item's permissions (JSON objects) as they hold at `now`, Unix seconds."""
    everyone, found, ends = False, [], []
    for permission in permissions:
        if not isinstance(permission, dict) or not _reads(permission):
            continue
        end = _end(permission.get("expirationDateTime"))
        if end is not None and end <= now:
            continue
        all_of_them, identities = _granted(permission, policy)
        everyone |= all_of_them
        found += identities
        if end is not None and (all_of_them or identities):
            ends.append(end)
    readers = [_reader(identity, policy) for identity in found if isinstance(identity, dict)]
    named = {kind: frozenset(name for of, name in readers if of == kind) for kind in ("user", "group", "site")}
    return Grants(
        everyone or ("all", "") in readers,
        named["user"],
        named["group"],
        frozenset(name for title in named["site"] for name in policy.site_groups.get(title, ())),
        min(ends, default=None),
        named["site"] - policy.site_groups.keys(),
    )


def access_rule(names: Iterable[str], everyone: bool) -> AccessRule:
    """Build the rule that allows these principals. A name that no token can hold is left out; too many allow nobody."""
    allowed = {EVERYONE} if everyone else set()
    for name in names:
        try:
            allowed |= AccessRule.of([name]).allow
        except InvalidRequest as error:
            _log.warning("a reader is left out: %s", error.detail)
    if len(allowed) > MAX_NAMES:
        _log.warning("over %d readers of one item: nobody may read it", MAX_NAMES)
        return NOBODY
    return AccessRule(frozenset(allowed))


def _reads(permission: Mapping[str, Any]) -> bool:
    roles = permission.get("roles")
    return isinstance(roles, list) and any(isinstance(role, str) and role.lower() in READING_ROLES for role in roles)


def _end(value: Any) -> float | None:
    """When a permission ends: none where it does not, the distant past where that cannot be read."""
    if value is None or value == "":
        return None
    try:
        end = datetime.fromisoformat(value)
        end = end if end.tzinfo else end.replace(tzinfo=UTC)
        return None if end < _NO_END else end.timestamp()
    except (ValueError, TypeError, OverflowError):
        return float("-inf")


def _granted(permission: Mapping[str, Any], policy: Policy) -> tuple[bool, list[Any]]:
    """Say whether everyone is meant, and give the identity sets that are.

    A sharing link names whom it was sent to, or who has used it, beside its scope. One with a password is opened by
    those who know it, whom nobody here knows.
    """
    link = permission.get("link")
    if link is None:
        granted = permission.get("grantedToV2")
        return False, [granted] if isinstance(granted, dict) else []
    if not isinstance(link, dict) or link.get("type") == "createOnly" or permission.get("hasPassword"):
        return False, []
    scope = link.get("scope")
    if scope not in (None, "users", "organization", "anonymous"):
        return False, []  # "existingAccess" gives nothing; what is new is not known
    named = permission.get("grantedToIdentitiesV2")
    everyone = (scope == "organization" and policy.organization) or (scope == "anonymous" and policy.anonymous)
    return everyone, named if isinstance(named, list) else []


def _reader(identity: Mapping[str, Any], policy: Policy) -> tuple[str, str]:
    """Give the kind (`user`, `group`, `site`, `all`, or none) and the name of whom one identity set means.

    It tells of one reader in several ways: the directory's comes first. Applications and devices read nothing here.
    """
    group, user = _text(identity, "group", "id"), _text(identity, "user", "id")
    if group is not None:
        return ("group", group.lower()) if _IS_GUID.fullmatch(group) else ("", "")
    if user is not None:
        return "user", user
    title = _text(identity, "siteGroup", "displayName") or _text(identity, "sharePointGroup", "title")
    if title is not None:
        return "site", title
    login = _text(identity, "siteUser", "loginName") or ""
    if match := _USER_LOGIN.fullmatch(login):
        return "user", match[1]
    if match := _GROUP_LOGIN.fullmatch(login):
        return "group", match[1].lower()
    return ("all" if policy.organization and _ALL_LOGIN.fullmatch(login) else ""), ""


def _text(identity: Mapping[str, Any], kind: str, key: str) -> str | None:
    inner = identity.get(kind)
    value = inner.get(key) if isinstance(inner, dict) else None
    return value if isinstance(value, str) and value else None
