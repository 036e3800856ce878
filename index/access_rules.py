"""Access rules in the ledger: which rules a caller satisfies, and whether a hit may still be shown to them.

`policies.access.AccessRule.permits` is the definition; the statements here compute the same in SQL, and a
property test holds them equal. Rules are immutable and append-only: a row is never changed and never removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from operator import lt
from threading import Lock
from typing import Any

from cachetools import LRUCache
from sqlalchemy import ColumnElement, Integer, Select, case, false, func, select
from sqlalchemy.engine import Connection

from index.access_ranges import holds
from index.database import Database
from index.ledger_schema import access_members, access_rules, documents, is_storable, source_runs, tenants
from policies.access import AccessRule
from policies.errors import InvalidRequest, NotFound
from policies.labels import Label
from policies.principals import Principal

HitKey = tuple[str, int]
"""What a chunk's row says of itself: document id and version. Its rule is asked of the ledger."""

_CallerKey = tuple[int, Label, str, frozenset[str], frozenset[str]]
MAX_CACHED_RULES = 100_000
MAX_CACHED_TENANTS = 10_000
MAX_CACHED_IDS = 1_000_000  # over all callers, about 36 bytes each


@dataclass(frozen=True, slots=True)
class Visible:
    """What a caller may see: ids of rules in one tenant, ascending. There is no empty one.

    An empty filter means everything to Milvus, so "nothing" must not be expressible here; it is `None` instead.
    """

    tenant_id: int
    access_ids: tuple[int, ...]
    rules_of_tenant: int | None = None
    """How many rules the tenant has; for the choice of a filter."""

    def __post_init__(self) -> None:
        if not self.access_ids:
            raise ValueError("a caller who may see nothing has no Visible")
        if not all(map(lt, self.access_ids, self.access_ids[1:])):
            raise ValueError("the ids of rules ascend: a filter is written by their neighbours")

    def holds(self, access_id: int) -> bool:
        """Say whether a rule is among them."""
        return holds(self.access_ids, access_id)


@dataclass(frozen=True, slots=True)
class LiveDocument:
    """A document as the ledger knows it now. `as_of`: when its source was last listed well; none where none is."""

    document_id: str
    version: int
    access_id: int
    external_id: str
    title: str
    uri: str
    source_id: int
    as_of: float | None = None

    @property
    def key(self) -> HitKey:
        """What a chunk's row must say to belong to this document as it is now."""
        return self.document_id, self.version


class AccessRules:
    """Interned rules of all tenants, and the two gates in front of the documents that carry them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: LRUCache[tuple[int, str], int] = LRUCache(MAX_CACHED_RULES)
        self._visible: LRUCache[_CallerKey, tuple[int, Visible | None]] = LRUCache(MAX_CACHED_IDS, getsizeof=_size)
        self._counts: LRUCache[int, tuple[int, int]] = LRUCache(MAX_CACHED_TENANTS)
        self._lock = Lock()

    def intern_rule(self, tenant_id: int, rule: AccessRule) -> int:
        """Give the rule's id in this tenant: equal rules have one id, whoever asks first."""
        key = tenant_id, _key_hash(rule)
        with self._lock:
            known = self._ids.get(key)
        if known is None:
            known = self._find(*key)
            if known is None:
                known = self._database.write(lambda connection: self._add(connection, *key, rule))
            with self._lock:
                self._ids[key] = known
        return known

    def rule(self, access_id: int) -> AccessRule:
        """Give the rule with this id. Raises `NotFound`."""
        members = select(access_rules.c.label, access_members.c.name, access_members.c.deny)
        members = members.outerjoin_from(access_rules, access_members).where(access_rules.c.id == access_id)
        rows = self._database.read(lambda connection: connection.execute(members).all())
        if not rows:
            raise NotFound(f"no access rule {access_id}")
        return AccessRule(
            frozenset(row.name for row in rows if row.name is not None and not row.deny),
            frozenset(row.name for row in rows if row.deny),
            Label(rows[0].label),
        )

    def visible_rules(self, caller: Principal) -> Visible | None:
        """Give the rules that permit the caller; `None` when there is none, or no such tenant.

        The answer is a function of four things only: the tenant, the caller's names and clearance, and the tenant's
        highest rule id. Rules never change; ids of one tenant are committed in ascending order (`_add` holds a lock
        from the id's allocation to the commit), so all rules up to the highest id are there, complete, when that
        id can be read. An answer cached under these four can therefore not be stale: a new rule has a higher
        id and misses the cache.
        """
        newest = select(func.max(access_rules.c.id)).where(access_rules.c.tenant_id == tenants.c.id).scalar_subquery()
        tenant = select(tenants.c.id, newest.label("newest")).where(_is_tenant_of(caller))
        row = self._database.read(lambda connection: connection.execute(tenant).one_or_none())
        if row is None or row.newest is None:
            return None
        # What `names` is made of: these sets keep their hash, and a thousand names need not be spelt to ask again.
        key = row.id, caller.clearance, caller.subject, caller.roles, caller.groups
        with self._lock:
            cached = self._visible.get(key)
        if cached is not None and cached[0] == row.newest:
            return cached[1]
        visible = self._compute(row.id, row.newest, caller)
        entry = row.newest, visible
        if _size(entry) <= MAX_CACHED_IDS:
            with self._lock:
                self._visible[key] = entry
        return visible

    def gate(self, hits: Iterable[HitKey], caller: Principal) -> dict[str, LiveDocument]:
        """Give the documents that may be shown now, by id: the second gate, after the store's filter.

        A document is there only if some hit names its live version, it is in the caller's tenant, and the rule that it
        has at this moment permits the caller (read from the rule's members again, not from what `visible_rules`
        remembers). A hit passes if `live[document_id].key` equals its own key. Which rule the row carries is for the
        search alone: it follows a change, and who may read before and after it must not miss the document meanwhile.
        One statement.
        """
        keys = set(hits)
        # A plain list and not `values`: PostgreSQL must see that they are few, and look up just these.
        ids = sorted({document_id for document_id, _ in keys})
        fields = [documents.c[field] for field in LiveDocument.__slots__ if field != "as_of"]
        live: Select[Any] = select(*fields, source_runs.c.as_of)
        live = live.outerjoin_from(documents, source_runs, documents.c.source_id == source_runs.c.source_id)
        live = live.where(documents.c.document_id.in_(ids), self.shown_to(caller))
        if not keys:
            return {}
        rows = self._database.read(lambda connection: connection.execute(live).all())
        found = (LiveDocument(*row) for row in rows)
        return {document.document_id: document for document in found if document.key in keys}

    def shown_to(self, caller: Principal) -> ColumnElement[bool]:
        """Build the condition on `documents`: live, of the caller's tenant, carrying a rule that permits the caller."""
        tenant = select(tenants.c.id).where(_is_tenant_of(caller)).scalar_subquery()
        # `name || ''` hides the index on names: a rule has few members to look at, a caller may have many names.
        named = (access_members.c.name + "").in_(self._names(caller))
        denied = select(_is_denied()).where(access_members.c.access_id == documents.c.access_id, named)
        # No row: not allowed. Any denial: 1, deny wins. Only allowances: 0.
        permitted = denied.correlate(documents).scalar_subquery() == 0
        label = select(access_rules.c.label).where(access_rules.c.id == documents.c.access_id)
        cleared = label.correlate(documents).scalar_subquery() <= int(caller.clearance)
        live = documents.c.version.is_not(None) & documents.c.deleted.is_(False)
        return (documents.c.tenant_id == tenant) & live & permitted & cleared

    def _compute(self, tenant_id: int, newest: int, caller: Principal) -> Visible | None:
        members = access_members.c
        named = select(members.access_id).where(
            members.tenant_id == tenant_id,
            members.access_id <= newest,
            members.name.in_(self._names(caller)),
            members.label <= int(caller.clearance),
        )
        allowing, denying = (case((members.deny == deny, members.access_id)) for deny in (False, True))
        allowed, denied = self._database.lists(named, allowing, denying)
        ids = sorted(set(allowed) - set(denied))  # deny wins
        return Visible(tenant_id, tuple(ids), self._count(tenant_id, newest)) if ids else None

    def _count(self, tenant_id: int, newest: int) -> int:
        """Count the tenant's rules up to this one: what was counted once is still there, so only later ones are."""
        with self._lock:
            until, known = self._counts.get(tenant_id, (0, 0))
        if until > newest:
            until, known = 0, 0
        between = access_rules.c.tenant_id == tenant_id, access_rules.c.id > until, access_rules.c.id <= newest
        later = select(func.count()).select_from(access_rules).where(*between)
        count = known + self._database.read(lambda connection: connection.execute(later).scalar_one())
        with self._lock:
            self._counts[tenant_id] = newest, count
        return count

    def _names(self, caller: Principal) -> Select[Any]:
        # A name that no text column can hold is in no rule; PostgreSQL would refuse the whole statement for it.
        return self._database.values([name for name in caller.names if is_storable(name)])

    def _find(self, tenant_id: int, key_hash: str) -> int | None:
        found = select(access_rules.c.id).where(
            access_rules.c.tenant_id == tenant_id, access_rules.c.key_hash == key_hash
        )
        return self._database.read(lambda connection: connection.scalar(found))

    def _add(self, connection: Connection, tenant_id: int, key_hash: str, rule: AccessRule) -> int:
        # Holds the tenant's row (SQLite: the database) so that ids are committed in the order of their allocation.
        connection.execute(select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update(key_share=True)).one()
        row = self._database.insert(access_rules).values(tenant_id=tenant_id, key_hash=key_hash, label=int(rule.label))
        added: int | None = connection.scalar(
            row.on_conflict_do_nothing(index_elements=["tenant_id", "key_hash"]).returning(access_rules.c.id)
        )
        if added is None:  # another process was first
            same = access_rules.c.tenant_id == tenant_id, access_rules.c.key_hash == key_hash
            return int(connection.execute(select(access_rules.c.id).where(*same)).scalar_one())
        members = [
            {"access_id": added, "name": name, "deny": deny, "tenant_id": tenant_id, "label": int(rule.label)}
            for deny, names in ((False, rule.allow), (True, rule.deny))
            for name in sorted(names)
        ]
        if members:
            connection.execute(access_members.insert(), members)
        return added


def _is_tenant_of(caller: Principal) -> ColumnElement[bool]:
    return tenants.c.name == caller.tenant if is_storable(caller.tenant) else false()


def _is_denied() -> ColumnElement[int]:
    return func.max(case((access_members.c.deny, 1), else_=0), type_=Integer)


def _key_hash(rule: AccessRule) -> str:
    for name in rule.allow | rule.deny:
        if not is_storable(name):
            raise InvalidRequest(f"a principal's name holds a character that cannot be stored: {ascii(name)[:64]}")
    return hashlib.sha256(rule.key.encode()).hexdigest()


def _size(entry: tuple[int, Visible | None]) -> int:
    return 64 + (len(entry[1].access_ids) if entry[1] else 0)  # the key's names count as much as 64 ids
