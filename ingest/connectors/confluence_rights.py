"""Who may read a page of Confluence, in rayrag's terms. Pure; what is unknown gives no right.

Confluence lets somebody read a page who is in *all* of these at once:

    readers of its space  ∩  read restriction of each page above it  ∩  its own read restriction

Each is a set of users and groups; a restriction that names nobody restricts nothing. An attachment is read by whoever
reads its page. Our rule lets in *any* of the names that it allows. So the intersection is worked out here, as names:

- a user or group named in both sets stays as it is: `hr ∩ hr` is the group hr, and follows its members by itself;
- of what only one of them names, the people behind the groups are asked for, and those in both sets are named one by
  one: `{staff} ∩ {hr, user ada}` is whoever is in staff and in hr, and ada if she is in staff.

    (K ∪ A) ∩ (K ∪ B) = K ∪ (A ∩ B),  K what both name, A and B the rest as people

Where Confluence does not tell a group's members, it has none here: the rule then permits fewer people, never more.
People are compared by Confluence's own keys and only named in the end: whoever has no name there (a hidden e-mail)
is left out. Nothing is ever denied by name: what is not allowed is not permitted.

Sources: "Page restrictions" and "Permissions and restrictions" of Confluence's documentation (view restrictions are
inherited, and all must be met); CONFSERVER-45609: the API gives a page's own restrictions, not those it inherits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from policies.access import MAX_NAMES, NOBODY, AccessRule
from policies.errors import InvalidRequest
from policies.principals import EVERYONE

Key = Callable[[Any], str | None]
"""Gives Confluence's own key of a user or a group from its JSON, none where it has none."""
Members = Callable[[str], frozenset[str]]
"""Gives the keys of a group's members, none of them where they cannot be told."""


@dataclass(frozen=True, slots=True)
class Readers:
    """A set of people, by Confluence's keys: these users, and the members of these groups; with `everyone`, all people.

    Whoever is named beside `everyone` is in the set in any case.
    """

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    everyone: bool = False


NO_READERS = Readers()
ANYONE = Readers(everyone=True)
"""Everyone: also what a restriction that names nobody leaves of those who could read anyway."""


def meet(first: Readers, second: Readers, members: Members) -> Readers:
    """Give those who are in both sets, as the module says. `members` is asked only for groups that one alone names."""
    if first.everyone and second.everyone:
        return Readers(first.users | second.users, first.groups | second.groups, everyone=True)
    if first.everyone or second.everyone:
        return second if first.everyone else first
    users, groups = first.users & second.users, first.groups & second.groups
    left = Readers(first.users - users, first.groups - groups)
    right = Readers(second.users - users, second.groups - groups)
    if NO_READERS in (left, right) or not (left.groups or right.groups):
        return Readers(users, groups)
    people = _people(left, members)
    return Readers(users | (people & _people(right, members)) if people else users, groups)


def _people(readers: Readers, members: Members) -> frozenset[str]:
    return readers.users.union(*(members(group) for group in sorted(readers.groups)))


def read_restriction(value: Any, user: Key, group: Key) -> Readers | None:
    """Read a page's own read restriction: `{"restrictions": {"user": {"results": […]}, "group": {…}}}`.

    Gives `ANYONE` where it restricts nothing; none where the answer is not whole: malformed, or only the first of
    several pages. Whoever in it has no key is nobody, but it restricts all the same.
    """
    restrictions = value.get("restrictions") if isinstance(value, dict) else None
    if not isinstance(restrictions, dict):
        return None
    users, groups = _whole(restrictions.get("user")), _whole(restrictions.get("group"))
    return None if users is None or groups is None else restricted_to(users, groups, user, group)


def restricted_to(users: list[Any], groups: list[Any], user: Key, group: Key) -> Readers:
    """Give whom a restriction that names these users and groups (JSON objects) leaves."""
    return Readers(_keys(users, user), _keys(groups, group)) if users or groups else ANYONE


def _whole(part: Any) -> list[Any] | None:
    results = part.get("results") if isinstance(part, dict) else None
    if not isinstance(results, list):
        return None
    size, limit, links = part.get("size", len(results)), part.get("limit"), part.get("_links", {})
    cut = size != len(results) or (isinstance(limit, int) and 0 < limit <= len(results))
    return None if cut or not isinstance(links, dict) or "next" in links else results


def server_space_readers(permissions: Iterable[Any], user: Key, group: Key) -> tuple[Readers, bool]:
    """Give a space's readers, and whether people who are not signed in are among them, from Data Center's list.

    Each is `{"operation": {"targetType": "space", "operationKey": "read"}, "subject": {"type": …}}`. Only permission
    to read the space counts: whoever may do more has that one too.
    """
    subjects = [p.get("subject") for p in permissions if isinstance(p, dict) and _reads(p, "operationKey")]
    known = [subject for subject in subjects if isinstance(subject, dict)]
    users = [subject for subject in known if subject.get("type") in ("user", "known")]
    groups = [subject for subject in known if subject.get("type") == "group"]
    anonymous = any(str(subject.get("type")).lower() == "anonymous" for subject in known)
    return Readers(_keys(users, user), _keys(groups, group)), anonymous


def cloud_space_readers(permissions: Iterable[Any], user: Key, group: Key) -> Readers:
    """Give a space's readers from Cloud's list.

    Each is `{"operation": {"key": "read", "targetType": "space"}, "principal": {"type": …, "id": …}}`. A principal of
    another kind than user and group (a role) is nobody.
    """
    principals = [p.get("principal") for p in permissions if isinstance(p, dict) and _reads(p, "key")]
    known = [principal for principal in principals if isinstance(principal, dict)]
    users = [{"accountId": principal.get("id")} for principal in known if principal.get("type") == "user"]
    groups = [{"id": principal.get("id")} for principal in known if principal.get("type") == "group"]
    return Readers(_keys(users, user), _keys(groups, group))


def _reads(permission: dict[str, Any], key: str) -> bool:
    operation = permission.get("operation")
    return isinstance(operation, dict) and operation.get("targetType") == "space" and operation.get(key) == "read"


def _keys(subjects: Iterable[Any], key: Key) -> frozenset[str]:
    return frozenset(found for subject in subjects if (found := key(subject)) is not None)


def access_rule(
    readers: Readers, user_name: Callable[[str], str | None], group_name: Callable[[str], str | None]
) -> AccessRule:
    """Name readers as tokens do. Whoever has no name, or one that no token can carry, is left out.

    Where there are more names than a rule holds, the groups alone are named, if they fit.
    """
    if readers.everyone:
        return AccessRule(frozenset({EVERYONE}))
    groups = _named("group", readers.groups, group_name)
    if len(groups) > MAX_NAMES:
        return NOBODY
    if len(groups) + len(readers.users) > MAX_NAMES:
        return AccessRule(groups)
    return AccessRule(groups | _named("user", readers.users, user_name))


def _named(kind: str, keys: Iterable[str], name: Callable[[str], str | None]) -> frozenset[str]:
    found: set[str] = set()
    for key in keys:
        called = name(key)
        if called is None:
            continue
        try:
            found |= AccessRule.of([f"{kind}:{called}"]).allow
        except InvalidRequest:
            continue  # no token can carry such a name
    return frozenset(found)
