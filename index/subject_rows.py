"""The ledger's rows that may name a person: a table of places, so that another one is one line more.

Each place finds, erases and exports what mentions somebody. What is kept in spite of an erasure says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy import ColumnElement, Table, and_, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.ledger_schema import (
    access_members,
    consents,
    dead_letters,
    documents,
    group_members,
    revocations,
    sessions,
    source_hints,
    source_runs,
    source_settings,
    sources,
)
from policies.privacy.suppression import Matcher

Treatment = Literal["delete", "redact", "keep"]
UPLOADS = "uploads/"


@dataclass(frozen=True, slots=True)
class Sought:
    """Whom a place is searched for. `subject`: keyed hashes; `owned`: what the person uploaded is theirs as well."""

    tenant: str
    tenant_id: int
    matcher: Matcher
    subject: frozenset[str] = frozenset()
    owned: bool = False


class Place(Protocol):
    """Somewhere that a person may be named. Raises `Unavailable` where it cannot be looked at."""

    name: str
    kept: str | None
    """Why it is not erased; None: it is."""

    def find(self, who: Sought) -> int:
        """Count what mentions the person."""
        ...

    def erase(self, who: Sought) -> int:
        """Erase that, and count it."""
        ...

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        """Give that, for the person."""
        ...


Of = Callable[[Sought], ColumnElement[bool]]


class LedgerPlace:
    """One table of the ledger: rows of the tenant whose `columns` mention the person."""

    def __init__(
        self,
        database: Database,
        name: str,
        table: Table,
        columns: Sequence[str],
        of: Of,
        treatment: Treatment,
        kept: str | None = None,
    ) -> None:
        self.name = name
        self.kept = kept
        self._database = database
        self._table = table
        self._columns = columns
        self._of = of
        self._treatment = treatment

    def find(self, who: Sought) -> int:
        return sum(1 for _ in self._rows(who))

    def erase(self, who: Sought) -> int:
        rows = list(self._rows(who))
        if not rows or self._treatment == "keep":
            return 0

        def work(connection: Connection) -> None:
            for row in rows:
                connection.execute(self._change(row, who))

        self._database.write(work)
        return len(rows)

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        for row in self._rows(who):
            yield {name: getattr(row, name) for name in self._columns}

    def _rows(self, who: Sought) -> Iterator[Any]:
        names = dict.fromkeys([*(column.name for column in self._table.primary_key), *self._columns])
        rows = select(*(self._table.c[name] for name in names)).where(self._of(who))
        for row in self._database.read(lambda connection: connection.execute(rows).all()):
            if any(_mentions(getattr(row, name), who.matcher) for name in self._columns):
                yield row

    def _change(self, row: Any, who: Sought) -> Any:
        here = and_(*(column == getattr(row, column.name) for column in self._table.primary_key))
        if self._treatment == "delete":
            return self._table.delete().where(here)
        told = {name: getattr(row, name) for name in self._columns}
        new = {name: _redacted(value, who.matcher) for name, value in told.items()}
        if self._table is sources:  # names are unique in a tenant
            new["name"] = f"{new['name']} {row.id}" if new["name"] != told["name"] else told["name"]
        return self._table.update().where(here).values(**new)


class ConsentPlace:
    """Consents, which are kept by keyed hash: those that were given go, those that were refused go on refusing."""

    name = "consents"
    kept: str | None = None

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, who: Sought) -> int:
        return len(list(self.export(who)))

    def erase(self, who: Sought) -> int:
        gone = consents.delete().where(self._of(who))
        return self._database.write(lambda connection: connection.execute(gone).rowcount)

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        rows = select(consents.c.purpose, consents.c.granted, consents.c.at, consents.c.until).where(self._of(who))
        for row in self._database.read(lambda connection: connection.execute(rows).all()):
            yield row._asdict()

    def _of(self, who: Sought) -> ColumnElement[bool]:
        scopes = self._database.values(sorted(f"subject:{each}" for each in who.subject))
        return and_(consents.c.tenant == who.tenant, consents.c.scope.in_(scopes), consents.c.granted)


class GonePlace:
    """Documents that were deleted: their rows stay, for their version numbers, and must not go on naming anybody."""

    name = "deleted_documents"
    kept: str | None = None

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, who: Sought) -> int:
        return len(self._ids(who))

    def erase(self, who: Sought) -> int:
        ids = self._ids(who)

        def work(connection: Connection) -> None:
            for document_id in ids:
                gone = documents.update().where(documents.c.document_id == document_id, documents.c.deleted)
                told = {"external_id": f"erased:{document_id}", "uri": "", "title": "", "owner": None}
                connection.execute(gone.values(**told, fingerprint="", content_hash=""))

        if ids:
            self._database.write(work)
        return len(ids)

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        return iter(())  # what is deleted is nobody's any more

    def _ids(self, who: Sought) -> list[str]:
        rows = _named(who).where(documents.c.deleted)
        found = self._database.read(lambda connection: connection.execute(rows).all())
        return [row.document_id for row in found if is_named(row, who) or _owns(row, who)]


class OwnerPlace:
    """Who uploaded a document that stays: the name goes, the document has no uploader any more."""

    name = "owners"
    kept: str | None = None

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, who: Sought) -> int:
        return len(list(self.export(who)))

    def erase(self, who: Sought) -> int:
        ids = [row["document_id"] for row in self.export(who)]
        chosen = documents.c.document_id.in_(self._database.values(ids))
        change = documents.update().where(chosen).values(owner=None)
        return self._database.write(lambda connection: connection.execute(change).rowcount) if ids else 0

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        rows = _named(who).where(documents.c.owner.is_not(None), documents.c.deleted.is_(False))
        for row in self._database.read(lambda connection: connection.execute(rows).all()):
            if _owns(row, who):
                yield {"document_id": row.document_id, "title": row.title, "uri": row.uri}


def ledger_places(database: Database) -> list[Place]:
    """All places of the ledger but the documents themselves (`ingest.subjects`)."""
    directory = "accounts and groups are the directory's: they are removed there, and go from here with its next sync"
    security = "it keeps somebody out, or lets nobody else in; it goes when the account is gone"
    configured = "it is an operator's setting: rename the source, or remove it"
    uploaded = sources.c.name.startswith(UPLOADS, autoescape=True)
    return [
        LedgerPlace(
            database, "dead_letters", dead_letters, ("external_id", "uri", "reason"), _of_source(dead_letters), "delete"
        ),
        LedgerPlace(database, "source_hints", source_hints, ("external_id",), _of_source(source_hints), "delete"),
        LedgerPlace(database, "source_reports", source_runs, ("error", "report"), _of_source(source_runs), "redact"),
        LedgerPlace(
            database, "uploaders", sources, ("name", "uri"), lambda who: and_(_of_sources(who), uploaded), "redact"
        ),
        LedgerPlace(database, "sessions", sessions, ("subject", "handle"), _of_name(sessions), "delete"),
        OwnerPlace(database),
        GonePlace(database),
        ConsentPlace(database),
        LedgerPlace(database, "groups", group_members, ("member",), _of_name(group_members), "keep", directory),
        LedgerPlace(database, "revocations", revocations, ("name",), _of_name(revocations), "keep", security),
        LedgerPlace(database, "access_rules", access_members, ("name",), _of_number, "keep", security),
        LedgerPlace(
            database,
            "source_settings",
            source_settings,
            ("name", "config"),
            _of_source(source_settings),
            "keep",
            configured,
        ),
    ]


class NamedDocuments:
    """Documents that are named after a person: by title, address or id, or by who uploaded them where that counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, who: Sought) -> list[Any]:
        """Give the rows of those that are not deleted: document_id, external_id, uri, title, owner."""
        rows = _named(who).where(documents.c.deleted.is_(False))
        found = self._database.read(lambda connection: connection.execute(rows).all())
        return [row for row in found if is_named(row, who) or (who.owned and _owns(row, who))]


def is_named(row: Any, who: Sought) -> bool:
    """Say whether a document's row is named after the person."""
    return any(who.matcher.names(name) for name in (row.title, row.uri, row.external_id) if name)


def _owns(row: Any, who: Sought) -> bool:
    return bool(row.owner) and who.matcher.is_exactly(row.owner)


def _named(who: Sought) -> Any:
    names = ("document_id", "external_id", "uri", "title", "owner")
    return select(*(documents.c[name] for name in names)).where(documents.c.tenant_id == who.tenant_id)


def _of_sources(who: Sought) -> ColumnElement[bool]:
    return sources.c.tenant_id == who.tenant_id


def _of_source(table: Table) -> Of:
    return lambda who: table.c.source_id.in_(select(sources.c.id).where(sources.c.tenant_id == who.tenant_id))


def _of_number(who: Sought) -> ColumnElement[bool]:
    return access_members.c.tenant_id == who.tenant_id


def _of_name(table: Table) -> Of:
    return lambda who: table.c.tenant == who.tenant


def _mentions(value: Any, matcher: Matcher) -> bool:
    return value is not None and any(matcher.names(text) for text in _texts(str(value)))


def _texts(value: str) -> Iterator[str]:
    """Give a column's texts: where it holds JSON, those in it, as they are read."""
    if value[:1] in "{[":
        try:
            yield from _strings(json.loads(value))
            return
        except ValueError:
            pass  # it only looks like JSON
    yield value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _redacted(value: Any, matcher: Matcher) -> Any:
    if not isinstance(value, str):
        return value
    if value[:1] in "{[":
        try:
            return json.dumps(_redacted_json(json.loads(value), matcher))
        except ValueError:
            pass  # it only looks like JSON
    return matcher.masked(value)


def _redacted_json(value: Any, matcher: Matcher) -> Any:
    if isinstance(value, str):
        return matcher.masked(value)
    if isinstance(value, dict):
        return {matcher.masked(key): _redacted_json(each, matcher) for key, each in value.items()}
    if isinstance(value, list):
        return [_redacted_json(each, matcher) for each in value]
    return value
