"""The ledger's documents as they stand: whoever may see them, and as their readers see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, func, select

from index.access_rules import AccessRules
from index.database import Database
from index.ledger_records import DocumentRecord, HeldDocument, KnownDocument, StoredDocument
from index.ledger_schema import access_rules, documents, sources, storable
from policies.labels import Label
from policies.principals import Principal

PAGE_ROWS = 5_000
BATCH = 1_000
FEW_RULES = 500  # up to here their documents are looked up; beyond, walking all documents soon finds a page


class Documents:
    """Reads documents; nothing here changes one."""

    def __init__(self, database: Database, rules: AccessRules) -> None:
        self._database = database
        self._rules = rules

    def known_of(self, source_id: int, external_ids: Sequence[str]) -> Iterator[KnownDocument]:
        """Give those of a source's documents that are not deleted and have one of these ids."""
        rows = _known(source_id)
        for batch in batches(sorted({storable(name) for name in external_ids})):
            these = documents.c.external_id.in_(self._database.values(batch))
            yield from (KnownDocument(*row) for row in self._rows(rows.where(these)))

    def known_below(self, source_id: int, external_id: str) -> Iterator[KnownDocument]:
        """Give those of a source's documents that are not deleted and lie in this folder or this file of rows.

        Goes through all of the source's documents.
        """
        rows = _known(source_id)
        for mark in ("/", "#"):
            inside = rows.where(documents.c.external_id.startswith(storable(external_id) + mark, autoescape=True))
            yield from (KnownDocument(*row) for row in self._rows(inside))

    def known(self, source_id: int) -> Iterator[KnownDocument]:
        """Go through a source's documents that are not deleted, by id, in pages of one short read each."""
        rows = _known(source_id)
        rows = rows.order_by(documents.c.document_id).limit(PAGE_ROWS)
        after = ""
        while page := self._rows(rows.where(documents.c.document_id > after)):
            yield from (KnownDocument(*row) for row in page)
            after = page[-1].document_id

    def first_indexed(self, source_id: int) -> float | None:
        """When the first of a source's documents that are not deleted came, in Unix seconds; none: it has none."""
        first = select(func.min(documents.c.created_at))
        first = first.where(documents.c.source_id == source_id, documents.c.deleted.is_(False))
        found: float | None = self._database.read(lambda connection: connection.scalar(first))
        return found

    def get(self, caller: Principal, document_id: str) -> DocumentRecord | None:
        """Give a document that the caller may read; `None` for unknown and forbidden alike."""
        rows = self._rows(self._records(caller).where(documents.c.document_id == storable(document_id)))
        return _record(rows[0]) if rows else None

    def list(self, caller: Principal, limit: int, after: str | None = None) -> Sequence[DocumentRecord]:
        """Give up to `limit` documents that the caller may read, by document id, from behind `after`."""
        rows = self._records(caller).order_by(documents.c.document_id).limit(limit)
        visible = self._rules.visible_rules(caller)
        if visible is None:
            return []
        if len(visible.access_ids) <= FEW_RULES:
            rows = rows.where(documents.c.access_id.in_(visible.access_ids))
        if after is not None:
            rows = rows.where(documents.c.document_id > storable(after))
        return [_record(row) for row in self._rows(rows)]

    def find(
        self, tenant_id: int, source_id: int | None = None, external_id: str | None = None
    ) -> Sequence[StoredDocument]:
        """Give a tenant's documents that are not deleted, whoever may see them, by document id."""
        rows = _stored().where(documents.c.tenant_id == tenant_id, documents.c.deleted.is_(False))
        if source_id is not None:
            rows = rows.where(documents.c.source_id == source_id)
        if external_id is not None:
            rows = rows.where(documents.c.external_id == storable(external_id))
        return [StoredDocument(*row) for row in self._rows(rows.order_by(documents.c.document_id))]

    def document(self, document_id: str) -> StoredDocument | None:
        """Give a document's row in whatever state it is, whoever may see it."""
        rows = self._rows(_stored().where(documents.c.document_id == storable(document_id)))
        return StoredDocument(*rows[0]) if rows else None

    def held(self, document_id: str) -> HeldDocument | None:
        """Give a document in whatever state it is, with its source's name and its label. One statement."""
        rows = _stored().add_columns(sources.c.name.label("source"), access_rules.c.label, sources.c.gone_at)
        rows = rows.join_from(documents, sources, documents.c.source_id == sources.c.id)
        rows = rows.join(access_rules, documents.c.access_id == access_rules.c.id)
        found = self._rows(rows.where(documents.c.document_id == storable(document_id)))
        if not found:
            return None
        *row, source, label, gone_at = found[0]
        return HeldDocument(StoredDocument(*row), source, Label(label), gone_at)

    def _records(self, caller: Principal) -> Select[Any]:
        fields = [documents.c[field] for field in DocumentRecord.__slots__ if field not in ("source", "label")]
        rows = select(*fields, sources.c.name, access_rules.c.label)
        rows = rows.join_from(documents, sources, documents.c.source_id == sources.c.id)
        rows = rows.join(access_rules, documents.c.access_id == access_rules.c.id)
        return rows.where(self._rules.shown_to(caller))

    def _rows(self, rows: Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(rows).all())


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut ids into parts of a size for one statement."""
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _record(row: Any) -> DocumentRecord:
    *fields, label = row
    return DocumentRecord(*(*fields, Label(label)))


def _known(source_id: int) -> Select[Any]:
    rows = select(*(documents.c[field] for field in KnownDocument.__slots__))
    return rows.where(documents.c.source_id == source_id, documents.c.deleted.is_(False))


def _stored() -> Select[Any]:
    return select(*(documents.c[field] for field in StoredDocument.__slots__))
