"""What the ledger keeps of screening: classifications, and what rules did to which documents.

No value that was found is ever kept: entities, rules and numbers are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.ledger_schema import (
    classifications,
    documents,
    reviews,
    screening_actions,
    sources,
    storable,
    tenants,
)
from policies.compliance.actions import Done
from policies.errors import InvalidRequest, NotFound
from policies.labels import Label

SCREENED, QUARANTINED, DROPPED = "screened", "quarantined", "dropped"
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class ScreeningRecord:
    """What screening made of a document. `minimum`: the lowest label that a rule lets it have; Unix seconds.

    `done`: what was done, how often, by which rule.
    """

    document_id: str
    tenant: str
    source: str
    label: Label
    minimum: Label | None
    categories: Mapping[str, Sequence[str]]
    policy_version: str
    outcome: str = SCREENED
    expires_at: float | None = None
    at: float = field(default_factory=time.time)
    done: Mapping[Done, int] = field(default_factory=dict)
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class RuleCount:
    """How many values of an entity a rule changed, in how many documents."""

    tenant: str
    regime: str
    rule: str
    article: str
    action: str
    entity: str
    documents: int
    values: int


class Classifications:
    """What screening found and did, document by document. Raises `Unavailable` when the ledger does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, record: ScreeningRecord) -> None:
        """Keep what screening made of a document, in place of what was kept before."""
        row = {
            "document_id": record.document_id,
            "tenant": record.tenant,
            "source": storable(record.source),
            "label": int(record.label),
            "minimum": None if record.minimum is None else int(record.minimum),
            "categories": json.dumps({name: list(why) for name, why in record.categories.items()}),
            "policy_version": record.policy_version,
            "outcome": record.outcome,
            "expires_at": record.expires_at,
            "at": record.at,
            "content_hash": record.content_hash,
        }
        actions = [
            {
                "document_id": record.document_id,
                "regime": done.by.regime,
                "rule": done.by.rule,
                "article": done.by.article,
                "entity": done.entity,
                "action": done.action.word,
                "count": count,
            }
            for done, count in record.done.items()
        ]

        def work(connection: Connection) -> None:
            fresh = self._database.insert(classifications).values(**row)
            changes = {name: value for name, value in row.items() if name != "document_id"}
            connection.execute(fresh.on_conflict_do_update(index_elements=["document_id"], set_=changes))
            here = screening_actions.c.document_id == record.document_id
            connection.execute(screening_actions.delete().where(here))
            if actions:
                connection.execute(screening_actions.insert(), actions)

        self._database.write(work)

    def get(self, document_id: str) -> ScreeningRecord:
        """Give what is kept of a document, by its id or its beginning. Raises `NotFound`."""
        like = classifications.c.document_id.startswith(document_id, autoescape=True)
        chosen = select(classifications).where(like).order_by(classifications.c.document_id).limit(2)
        rows = self._database.read(lambda connection: connection.execute(chosen).all())
        if len(rows) != 1:
            raise NotFound(f"{document_id[:64]}: {'no document' if not rows else 'several documents'} with that id")
        return _record(rows[0])

    def actions(self, document_id: str) -> Sequence[Mapping[str, Any]]:
        """Give what rules did to a document, in the order of their names."""
        columns = screening_actions.c
        rows = select(screening_actions).where(columns.document_id == document_id)
        rows = rows.order_by(columns.regime, columns.rule, columns.entity, columns.action)
        return self._database.read(lambda connection: [dict(row._mapping) for row in connection.execute(rows)])

    def report(self, regime: str | None, tenant: str | None = None) -> Sequence[RuleCount]:
        """Count what rules did, by tenant, rule and entity."""
        columns = screening_actions.c
        keys = classifications.c.tenant, columns.regime, columns.rule, columns.article, columns.action, columns.entity
        rows = select(*keys, func.count(), func.sum(columns.count)).select_from(screening_actions)
        rows = rows.join(classifications, classifications.c.document_id == columns.document_id).group_by(*keys)
        if regime is not None:
            rows = rows.where(columns.regime == regime)
        if tenant is not None:
            rows = rows.where(classifications.c.tenant == tenant)
        found = rows.order_by(*keys)
        return self._database.read(lambda connection: [RuleCount(*row) for row in connection.execute(found)])

    def documents_of(self, regime: str, rule: str, tenant: str | None = None) -> Sequence[str]:
        """List the documents that a rule changed."""
        columns = screening_actions.c
        rows = select(columns.document_id).distinct().where(columns.regime == regime, columns.rule == rule)
        if tenant is not None:
            rows = rows.join(classifications, classifications.c.document_id == columns.document_id)
            rows = rows.where(classifications.c.tenant == tenant)
        return self._database.read(lambda c: [str(row[0]) for row in c.execute(rows.order_by(columns.document_id))])

    def categories(self, document_ids: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """Give the categories of documents, by id; what was never classified is not among them."""
        found: dict[str, frozenset[str]] = {}
        for start in range(0, len(document_ids), BATCH):
            chosen = self._database.values(document_ids[start : start + BATCH])
            columns = classifications.c
            rows = select(columns.document_id, columns.categories).where(columns.document_id.in_(chosen))
            for row in self._database.read(lambda connection, rows=rows: connection.execute(rows).all()):  # type: ignore[misc]
                found[row.document_id] = frozenset(json.loads(row.categories))
        return found

    def minima(self, tenant: str, source: str | None = None) -> Mapping[str, Label]:
        """Give the lowest label that each document may have, of those for which a rule demands one."""
        columns = classifications.c
        rows = select(columns.document_id, columns.minimum).where(
            columns.tenant == tenant, columns.minimum.is_not(None)
        )
        if source is not None:
            rows = rows.where(columns.source == storable(source))
        return self._database.read(lambda connection: {row[0]: Label(row[1]) for row in connection.execute(rows)})

    def minima_of(self, document_ids: Collection[str]) -> Mapping[str, Label]:
        """`minima` of these documents."""
        found: dict[str, Label] = {}
        ids, columns = sorted(document_ids), classifications.c
        for start in range(0, len(ids), BATCH):
            chosen = columns.document_id.in_(self._database.values(ids[start : start + BATCH]))
            rows = select(columns.document_id, columns.minimum).where(chosen, columns.minimum.is_not(None))
            for row in self._database.read(lambda connection, rows=rows: connection.execute(rows).all()):  # type: ignore[misc]
                found[row.document_id] = Label(row.minimum)
        return found

    def expired(self, now: float, most: int = BATCH) -> Sequence[tuple[str, str, str]]:
        """List documents whose time is over: id, tenant and source; those that are there only."""
        columns = classifications.c
        rows = select(columns.document_id, columns.tenant, columns.source)
        rows = rows.join(documents, documents.c.document_id == columns.document_id)
        rows = rows.where(columns.expires_at <= now, documents.c.deleted.is_(False))
        rows = rows.order_by(columns.expires_at, columns.document_id).limit(most)
        return self._database.read(
            lambda connection: [(str(a), str(b), str(c)) for a, b, c in connection.execute(rows)]
        )

    def release(self, document_id: str, reason: str, by: str) -> None:
        """Let what a document says now pass the rules that held it for review. Raises `NotFound`, `InvalidRequest`."""
        if not reason.strip() or len(reason) > 500:
            raise InvalidRequest("a release says why, in at most 500 characters")
        columns = classifications.c
        chosen = select(columns.content_hash).where(
            columns.document_id == document_id, columns.outcome == QUARANTINED, columns.content_hash != ""
        )

        def work(connection: Connection) -> None:
            content_hash = connection.scalar(chosen)
            if content_hash is None:
                raise NotFound(f"{document_id[:64]}: no document with that id is held for review")
            values = {"content_hash": content_hash, "reason": storable(reason), "by": by, "at": time.time()}
            row = self._database.insert(reviews).values(document_id=document_id, **values)
            connection.execute(row.on_conflict_do_update(index_elements=["document_id"], set_=values))

        self._database.write(work)

    def is_released(self, document_id: str, content_hash: str) -> bool:
        """Say whether somebody looked at this content of the document, and let it pass."""
        columns = reviews.c
        found = select(columns.at).where(columns.document_id == document_id, columns.content_hash == content_hash)
        return self._database.read(lambda connection: connection.scalar(found)) is not None

    def forget(self, document_ids: Collection[str]) -> None:
        """Forget what was kept of these documents."""
        ids = self._database.values(sorted(document_ids))

        def work(connection: Connection) -> None:
            connection.execute(screening_actions.delete().where(screening_actions.c.document_id.in_(ids)))
            connection.execute(classifications.delete().where(classifications.c.document_id.in_(ids)))
            connection.execute(reviews.delete().where(reviews.c.document_id.in_(ids)))

        self._database.write(work)

    def source_names(self) -> Mapping[int, tuple[str, str]]:
        """Give the tenant and the name of every source, by the ledger's number."""
        rows = select(sources.c.id, tenants.c.name, sources.c.name)
        rows = rows.join(tenants, tenants.c.id == sources.c.tenant_id)
        return self._database.read(lambda c: {row[0]: (str(row[1]), str(row[2])) for row in c.execute(rows)})


def _record(row: Any) -> ScreeningRecord:
    minimum = None if row.minimum is None else Label(row.minimum)
    return ScreeningRecord(
        row.document_id,
        row.tenant,
        row.source,
        Label(row.label),
        minimum,
        json.loads(row.categories),
        row.policy_version,
        row.outcome,
        row.expires_at,
        row.at,
    )
