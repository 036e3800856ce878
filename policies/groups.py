"""Groups within groups: of which groups a person is a member, by way of others too.

A membership is an edge from a member (`user:ada`, `group:controllers`) to a group. Groups may hold each other in a
circle; everyone in the circle is then in all of it. Whoever is in very many groups is refused and not cut short: a list
that was cut would also forget the groups by which somebody is denied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.errors import InvalidRequest, Unavailable
from policies.principals import bare_name

MAX_GROUPS = 20_000
"""Of one person."""


@dataclass(frozen=True, slots=True)
class Membership:
    """An edge: `member` is `user:NAME` or `group:NAME`, `group` a bare name, as in `Principal.groups`."""

    member: str
    group: str

    @classmethod
    def of(cls, member: str, group: str) -> Membership:
        """Build a checked edge, its names spelt as in tokens. Raises `InvalidRequest`."""
        kind, _, name = member.partition(":")
        if kind not in ("user", "group"):
            raise InvalidRequest(f"{member[:64]!a} is no member of a group: use user:NAME or group:NAME")
        try:
            edge = cls(f"{kind}:{bare_name(name)}", bare_name(group.removeprefix("group:")))
        except ValueError as error:
            raise InvalidRequest(f"{member[:64]!a} in {group[:64]!a}: {error}") from error
        if edge.member == f"group:{edge.group}":
            raise InvalidRequest(f"{edge.member[:64]!a} cannot be a member of itself")
        return edge


def expand(edges: Iterable[Membership], groups: Iterable[str], subject: str) -> frozenset[str]:
    """Give the bare names of all groups that a person with these groups is in, these among them.

    Linear in the edges; a circle ends. Raises `Unavailable` for more than `MAX_GROUPS`.
    """
    return frozenset(paths(edges, groups, subject))


def paths(edges: Iterable[Membership], groups: Iterable[str], subject: str) -> Mapping[str, tuple[str, ...]]:
    """Give each group that a person is in with the way that leads there: a shortest one, from the person on.

    `("user:ada", "group:controllers", "group:finance")`; for a group that the person has by token, only that group.
    Raises `Unavailable` for more than `MAX_GROUPS`.
    """
    above: dict[str, list[str]] = {}
    for edge in edges:
        above.setdefault(edge.member, []).append(edge.group)
    found: dict[str, tuple[str, ...]] = {group: (f"group:{group}",) for group in groups}
    person = f"user:{subject}"
    waiting = deque([*found.values(), (person,)])
    while waiting:
        way = waiting.popleft()
        for group in above.get(way[-1], ()):
            if group not in found:
                found[group] = (*way, f"group:{group}")
                waiting.append(found[group])
        if len(found) > MAX_GROUPS:
            raise Unavailable(f"a person is in more than {MAX_GROUPS} groups: their rights cannot be worked out")
    return found
