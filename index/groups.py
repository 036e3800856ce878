"""Memberships of groups in the ledger: who sets them, and of which groups a person is a member now.

`policies.groups` is the definition; the statement here computes the same, and a property test holds them equal. Every
change of a tenant's edges raises the tenant's version in the same transaction, and every question reads the version
first: what is remembered under it can therefore not be stale, in any process.

An origin (`ldap`, `hr-export`, `command`) owns its edges: to import replaces all of them and nobody else's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from cachetools import LRUCache
from sqlalchemy import CTE, ColumnElement, Text, literal, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.ledger_schema import group_members, group_versions, is_storable
from policies.errors import InvalidRequest, Unavailable
from policies.groups import MAX_GROUPS, Membership, paths
from policies.principals import bare_name

MAX_CACHED_NAMES = 1_000_000  # over all callers
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class KeptMembership:
    """An edge with the origin that set it."""

    group: str
    member: str
    origin: str


class Groups:
    """Memberships of all tenants. Raises `Unavailable` from every method when the ledger does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expanded: LRUCache[tuple[str, str, frozenset[str]], tuple[int, frozenset[str]]] = LRUCache(
            MAX_CACHED_NAMES, getsizeof=lambda entry: 64 + len(entry[1])
        )
        self._lock = Lock()

    # ---- asking

    def expand(self, tenant: str, groups: frozenset[str], subject: str) -> frozenset[str]:
        """Give the bare names of all groups that a person with these groups is in, these among them.

        Raises `Unavailable` when that cannot be told: never fewer groups than there are.
        """
        version = self.version(tenant)
        if version is None:
            return groups
        key = tenant, subject, groups
        with self._lock:
            cached = self._expanded.get(key)
        if cached is not None and cached[0] == version:
            return cached[1]
        # Read after the version: it may already hold what comes later, and is then asked for again under that.
        entry = version, self._expanded_now(tenant, groups, subject)
        if 64 + len(entry[1]) <= MAX_CACHED_NAMES:
            with self._lock:
                self._expanded[key] = entry
        return entry[1]

    def explain(self, tenant: str, groups: frozenset[str], subject: str) -> Mapping[str, tuple[str, ...]]:
        """Give each group that the person is in with a shortest way there, as `policies.groups.paths`."""
        return paths(self._reachable(tenant, groups, subject), groups, subject)

    def version(self, tenant: str) -> int | None:
        """Give the number that every change of a tenant's memberships raises; none before the first."""
        if not is_storable(tenant):
            return None
        found = select(group_versions.c.version).where(group_versions.c.tenant == tenant)
        return self._database.read(lambda connection: connection.scalar(found))

    def memberships(self, tenant: str, group: str | None = None, origin: str | None = None) -> Sequence[KeptMembership]:
        """List memberships by group and member; all of them, or of one group or origin."""
        columns = group_members.c
        rows = select(columns.group_name, columns.member, columns.origin).where(*_chosen(tenant, group, origin))
        rows = rows.order_by(columns.group_name, columns.member, columns.origin)
        return self._database.read(lambda connection: [KeptMembership(*row) for row in connection.execute(rows)])

    # ---- changing

    def replace(self, tenant: str, origin: str, edges: Collection[Membership], group: str | None = None) -> int:
        """Let an origin say just this: all of its edges, or those into one `group`, are replaced in one transaction.

        Gives how many it says now. Raises `InvalidRequest` for a name that cannot be, and changes nothing then.
        """
        where = _checked(tenant), _checked(origin)
        names = sorted({(edge.group, edge.member) for edge in edges})
        if group is not None and any(name != group for name, _ in names):
            raise InvalidRequest(f"only members of {group[:64]!a} can be set here")
        rows = [{"tenant": where[0], "group_name": g, "member": m, "origin": where[1]} for g, m in names]

        def work(connection: Connection) -> int:
            self._raise_version(connection, where[0])
            connection.execute(group_members.delete().where(*_chosen(where[0], group, where[1])))
            for start in range(0, len(rows), BATCH):
                connection.execute(group_members.insert(), rows[start : start + BATCH])
            return len(rows)

        return self._database.write(work)

    def remove(
        self, tenant: str, group: str | None = None, member: str | None = None, origin: str | None = None
    ) -> int:
        """Remove memberships that are all of what is named, and give how many there were."""
        tenant = _checked(tenant)
        where = _chosen(tenant, group, origin)
        if member is not None:
            where = (*where, group_members.c.member == member)

        def work(connection: Connection) -> int:
            self._raise_version(connection, tenant)
            return connection.execute(group_members.delete().where(*where)).rowcount

        return self._database.write(work)

    def _raise_version(self, connection: Connection, tenant: str) -> None:
        # First of all: its row is the lock under which a tenant's changes happen one by one.
        row = self._database.insert(group_versions).values(tenant=tenant, version=1)
        raised = {"version": group_versions.c.version + 1}
        connection.execute(row.on_conflict_do_update(index_elements=["tenant"], set_=raised))

    def _expanded_now(self, tenant: str, groups: frozenset[str], subject: str) -> frozenset[str]:
        name = self._reached(tenant, groups, subject).c.name
        (names,) = self._database.lists(select(name), name)
        found = groups | {name.removeprefix("group:") for name in names if name.startswith("group:")}
        if len(found) > MAX_GROUPS:
            raise Unavailable(f"a person is in more than {MAX_GROUPS} groups: their rights cannot be worked out")
        return found

    def _reached(self, tenant: str, groups: Collection[str], subject: str) -> CTE:
        """Build the names from a person and their groups upwards, in one statement: one moment for all of them."""
        start = [name for name in (f"user:{subject}", *(f"group:{group}" for group in groups)) if is_storable(name)]
        values = self._database.values(start).subquery()
        reached = select(values.c.value.cast(Text).label("name")).cte("reached", recursive=True)
        above = select((literal("group:") + group_members.c.group_name).label("name"))
        above = above.where(group_members.c.tenant == tenant, group_members.c.member == reached.c.name)
        return reached.union(above)  # and not `union_all`: what was reached once is not followed again

    def _reachable(self, tenant: str, groups: Collection[str], subject: str) -> list[Membership]:
        reached = self._reached(tenant, groups, subject)
        edges = select(group_members.c.member, group_members.c.group_name).distinct()
        edges = edges.where(group_members.c.tenant == tenant, group_members.c.member == reached.c.name)
        return self._database.read(lambda connection: [Membership(*row) for row in connection.execute(edges)])


def _chosen(tenant: str, group: str | None, origin: str | None) -> tuple[ColumnElement[bool], ...]:
    columns = group_members.c
    named = ((columns.tenant, tenant), (columns.group_name, group), (columns.origin, origin))
    return tuple(column == value for column, value in named if value is not None)


def _checked(name: str) -> str:
    try:
        return bare_name(name)
    except ValueError as error:
        raise InvalidRequest(f"{name[:64]!a}: {error}") from error
