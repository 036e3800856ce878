"""What is live in the ledger, row by row: what another model's collection must hold, and what it must not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select

from index.document import chunk_id
from index.ledger_schema import WRITING, documents, open_database, versions

PAGE_ROWS = 1_000


class LiveVersion(NamedTuple):
    """A document's live version, its number of chunks and the access rule that its rows should carry."""

    document_id: str
    version: int
    chunk_count: int
    access_id: int
    tenant_id: int

    @property
    def keys(self) -> list[str]:
        """The primary keys of its rows."""
        return [chunk_id(self.document_id, self.version, position) for position in range(self.chunk_count)]


class LiveVersions:
    """Reads the ledger at an SQLAlchemy URL. Every method raises `Unavailable` when the database does not answer."""

    def __init__(self, url: str) -> None:
        self._database = open_database(url)

    def count(self) -> int:
        """How many documents are live."""
        rows = select(func.count()).select_from(documents).where(documents.c.version.is_not(None))
        return int(self._database.read(lambda connection: connection.scalar(rows)) or 0)

    def pages(self, after: str = "") -> Iterator[list[LiveVersion]]:
        """Go through all that is live by document id, from behind `after`, in pages of one short read each."""
        rows = _live().order_by(documents.c.document_id).limit(PAGE_ROWS)
        while page := self._read(rows.where(documents.c.document_id > after)):
            yield page
            after = page[-1].document_id

    def of(self, document_ids: Sequence[str]) -> dict[str, LiveVersion]:
        """Give what is live of these documents now."""
        rows = _live().where(documents.c.document_id.in_(self._database.values(document_ids)))
        return {found.document_id: found for found in self._read(rows)}

    def at_or_after(self, document_id: str) -> LiveVersion | None:
        """Give the first live document from here on, by id: for a sample, as ids are spread evenly."""
        rows = _live().where(documents.c.document_id >= document_id).order_by(documents.c.document_id).limit(1)
        return next(iter(self._read(rows)), None)

    def writing(self) -> set[tuple[str, int]]:
        """Give the versions (document, number) that are being written and may still become live."""
        rows = select(versions.c.document_id, versions.c.version).join_from(versions, documents)
        rows = rows.where(versions.c.state == WRITING, versions.c.version == documents.c.last_version)
        found = self._database.read(lambda connection: connection.execute(rows).all())
        return {(row.document_id, row.version) for row in found}

    def known(self, some: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        """Give those of these versions that the ledger knows, in whatever state; no other can ever become live."""
        ids = self._database.values(sorted({document_id for document_id, _ in some}))
        rows = select(versions.c.document_id, versions.c.version).where(versions.c.document_id.in_(ids))
        found = self._database.read(lambda connection: connection.execute(rows).all())
        return {(row.document_id, row.version) for row in found} & set(some)

    def rules_of(self, tenant_id: int) -> tuple[int, ...]:
        """Give the access rules of a tenant's live documents, ascending."""
        rows = select(documents.c.access_id).where(documents.c.tenant_id == tenant_id, documents.c.version.is_not(None))
        return tuple(
            self._database.read(
                lambda connection: connection.scalars(rows.distinct().order_by(documents.c.access_id)).all()
            )
        )

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._database.dispose()

    def _read(self, rows: Select[Any]) -> list[LiveVersion]:
        return self._database.read(lambda connection: [LiveVersion(*row) for row in connection.execute(rows)])


def by_chunks(found: Sequence[LiveVersion], most: int) -> Iterator[tuple[LiveVersion, ...]]:
    """Group versions so that each group has about `most` chunks: at least one version, and no more than needed."""
    rest = iter(found)
    group: list[LiveVersion] = []
    for item in rest:
        group.append(item)
        if sum(each.chunk_count for each in group) >= most:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def _live() -> Select[Any]:
    return select(*(documents.c[field] for field in LiveVersion._fields)).where(documents.c.version.is_not(None))
