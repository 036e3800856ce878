"""The ledger: which documents there are, which version of each is live, and what became of their attempts.

It is the truth; the rows in the vector store are derived from it. A version is written beside the live one, then
`flip` moves the pointer, then the old rows go:

    begin_attempt → (parse) → give_back_attempt
    begin_version → (write chunks) → flip → stale_versions → (delete chunks) → forget_versions

A process may die between any two of these: the live version stays live, and the next run takes the document up
again. Whatever changes a document first locks its row (SQLite: the database), so its changes happen one by one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, and_, case, func, or_, select
from sqlalchemy.engine import Connection

from index.access_rules import AccessRules
from index.compliance import Classifications
from index.consents import ConsentRecords
from index.dead_letters import DeadLetters
from index.document import DocumentRef
from index.documents import Documents, batches
from index.groups import Groups
from index.holds import Holds
from index.ledger_records import (
    LedgerCounts,
    NewVersion,
    RowsToRepoint,
    RuleChange,
    RuleSeen,
    StaleVersion,
    WrittenVersion,
)
from index.ledger_schema import (
    LIVE,
    RETIRED,
    WRITING,
    access_rules,
    dead_letters,
    documents,
    index_state,
    open_database,
    sources,
    storable,
    tenants,
    versions,
)
from index.revocations import RevocationList
from index.sessions import Sessions
from index.source_runs import SourceRuns
from index.sources import Sources
from policies.access import AccessRule
from policies.errors import Conflict, NotFound, Unavailable

Item = TypeVar("Item", NewVersion, WrittenVersion)


class Ledger:
    """The ledger at an SQLAlchemy URL: `sqlite:///file` or `postgresql+psycopg://…`. Safe to use from many threads.

    Every method is one short transaction, except where it says otherwise, and raises `Unavailable` when the
    database does not answer. The constructor creates missing tables and raises `ConfigurationError` for a URL
    that cannot work or a ledger that another version of this program wrote.
    """

    def __init__(self, url: str) -> None:
        self._database = open_database(url)
        self._sources = Sources(self._database)
        self._rules = AccessRules(self._database)
        self._failures = DeadLetters(self._database, self._sources)
        self._documents = Documents(self._database, self._rules)
        self._runs = SourceRuns(self._database, self._sources)
        self.groups = Groups(self._database)
        self.revocations = RevocationList(self._database)
        self.sessions = Sessions(self._database)
        self.holds = Holds(self._database)
        self.classifications = Classifications(self._database)
        self.consents = ConsentRecords(self._database)
        # Each noun has its file; here they are one surface, and the names are the same.
        self.tenant_id = self._sources.tenant_id
        self.find_tenant = self._sources.find_tenant
        self.tenant_name = self._sources.tenant_name
        self.source_id = self._sources.source_id
        self.source_number = self._sources.number
        self.place = self._sources.place
        self.cursor = self._sources.cursor
        self.set_cursor = self._sources.set_cursor
        self.forget_cursor = self._sources.forget_cursor
        self.intern_rule = self._rules.intern_rule
        self.rule = self._rules.rule
        self.visible_rules = self._rules.visible_rules
        self.gate = self._rules.gate
        self.known_of = self._documents.known_of
        self.known_below = self._documents.known_below
        self.known = self._documents.known
        self.first_indexed = self._documents.first_indexed
        self.get = self._documents.get
        self.list = self._documents.list
        self.find = self._documents.find
        self.document = self._documents.document
        self.held = self._documents.held
        self.begin_attempt = self._failures.begin_attempt
        self.give_back_attempt = self._failures.give_back_attempt
        self.reject = self._failures.reject
        self.dead_letters = self._failures.dead_letters
        self.count_dead_letters = self._failures.count_dead_letters
        self.retry_dead_letter = self._failures.retry_dead_letter
        self.keep_source = self._runs.keep_source
        self.kept_sources = self._runs.kept_sources
        self.kept_source = self._runs.kept_source
        self.is_kept = self._runs.is_kept
        self.pause_source = self._runs.pause_source
        self.forget_source = self._runs.forget_source
        self.run_begins = self._runs.run_begins
        self.run_succeeds = self._runs.run_succeeds
        self.run_fails = self._runs.run_fails
        self.source_run = self._runs.source_run
        self.source_documents = self._runs.source_documents
        self.hint = self._runs.hint
        self.hints = self._runs.hints
        self.clear_hints = self._runs.clear_hints

    # ---- writing a document

    def begin_version(
        self, ref: DocumentRef, content_hash: str, chunk_count: int, run_id: str, owner: str | None = None
    ) -> int:
        """Open a document's next version for writing and give its number, as `begin_versions` does."""
        return self.begin_versions([NewVersion(ref, content_hash, chunk_count, owner)], run_id)[0]

    def begin_versions(self, begun: Sequence[NewVersion], run_id: str) -> Sequence[int]:
        """Open the next version of each document for writing and give the numbers; none is ever given twice.

        Nothing becomes visible. An earlier version that is still being written is abandoned: its flip will
        fail. One transaction, thus one wait for the disk, for all of them.
        """
        places = {id(new): self._place(new.ref) for new in begun}

        def work(connection: Connection) -> Sequence[int]:
            numbers = {id(new): self._begin(connection, new, run_id, *places[id(new)]) for new in _in_order(begun)}
            return [numbers[id(new)] for new in begun]

        return self._database.write(work)

    def flip(self, ref: DocumentRef, version: int, title: str | None = None) -> bool:
        """Make `version` the live one, as `flip_versions` does."""
        return self.flip_versions([WrittenVersion(ref, version, title)])[0]

    def flip_versions(self, written: Sequence[WrittenVersion]) -> Sequence[bool]:
        """Make each version the live one, with what its `ref` says of the document; the rule is `ref.rule`.

        A compare-and-set for each, in one transaction for all: it holds only if the version is still the newest
        one, still being written, and the document was neither deleted nor given another rule since
        `begin_version`, nor heard of since its `ref.seen_at` (or a revoked right would come back with the new text).
        Then the former live version is
        retired, and attempts and dead letter are forgotten. The title is the content's, else the source's, else
        the external id.

        False for one that was overtaken: it is stale now, and its writer deletes the chunks that it wrote.
        Calling again after True gives True.
        """
        places = {id(item): self._place(item.ref) for item in written}

        def work(connection: Connection) -> Sequence[bool]:
            done = {id(item): self._flip(connection, item, places[id(item)][2]) for item in _in_order(written)}
            self._failures.clear(connection, [item.ref.document_id for item in written if done[id(item)]])
            return [done[id(item)] for item in written]

        return self._database.write(work)

    def touch(self, document_id: str, fingerprint: str, uri: str, title: str | None = None) -> bool:
        """Record that the content is the same under a new fingerprint, URI or title. False: nothing is live."""
        changes = {"fingerprint": storable(fingerprint), "uri": storable(uri), "updated_at": time.time()}
        if title is not None:
            changes["title"] = storable(title)
        live = documents.c.document_id == document_id, documents.c.version.is_not(None)

        def work(connection: Connection) -> bool:
            touched = connection.execute(documents.update().where(*live).values(**changes)).rowcount > 0
            if touched:
                self._failures.clear(connection, [document_id])
            return touched

        return self._database.write(work)

    def set_rule(
        self, document_id: str, rule: AccessRule, seen_at: float | None = None, instead_of: int | None = None
    ) -> RuleChange:
        """Give a document another rule. It holds at once: chunks that carry the old id no longer pass the gate.

        `seen_at`: when the source said so; what it was heard to say later stays. Without it, it holds whatever the
        clocks say. `instead_of`: the id of the rule that the caller went by; where another holds by now, nothing is
        changed and `Conflict` is raised. Raises `NotFound` for a document that is unknown or deleted.
        """
        stored = self.document(document_id)
        if stored is None or stored.deleted:
            raise NotFound(f"no document {document_id}")
        minimum = self.classifications.minima_of([document_id]).get(document_id)
        access_id = self.intern_rule(stored.tenant_id, rule.at_least(minimum))

        def work(connection: Connection) -> RuleChange:
            document = _lock(connection, document_id)
            if document is None or document.deleted:
                raise NotFound(f"no document {document_id}")
            held: int = document.access_id
            if instead_of is not None and held != instead_of:
                raise Conflict("another rule was given to this document at the same time")
            if seen_at is not None and document.seen_at > seen_at:
                return RuleChange(held, held, document.version, document.chunk_count, held == access_id)
            heard = max(time.time(), document.seen_at) if seen_at is None else seen_at
            _update(connection, document_id, {"access_id": access_id, "updated_at": time.time(), "seen_at": heard})
            return RuleChange(held, access_id, document.version, document.chunk_count)

        return self._database.write(work)

    def set_rules(self, tenant_id: int, rules: Sequence[RuleSeen]) -> None:
        """Give many documents of a tenant other rules, as `set_rule` does, in one transaction.

        What is unknown, deleted or was heard of later is left as it is. `unwritten_rules` then names the rows that are
        to follow.
        """
        alike: dict[tuple[int, float], list[str]] = {}
        minima = self.classifications.minima_of([item.document_id for item in rules])
        for item in rules:
            rule = item.rule.at_least(minima.get(item.document_id))
            alike.setdefault((self.intern_rule(tenant_id, rule), item.seen_at), []).append(item.document_id)

        def work(connection: Connection) -> None:
            for batch in batches(sorted(item.document_id for item in rules)):  # one order of locks: no deadlock
                held = select(documents.c.document_id).where(documents.c.document_id.in_(self._database.values(batch)))
                connection.execute(held.order_by(documents.c.document_id).with_for_update()).all()
            for (access_id, seen_at), document_ids in alike.items():
                change = documents.update().values(access_id=access_id, updated_at=time.time(), seen_at=seen_at)
                change = change.where(documents.c.tenant_id == tenant_id, documents.c.deleted.is_(False))
                change = change.where(documents.c.seen_at <= seen_at)
                for batch in batches(document_ids):
                    connection.execute(change.where(documents.c.document_id.in_(self._database.values(batch))))

        self._database.write(work)

    def rows_carry(self, document_id: str, version: int, access_id: int) -> None:
        """Record that the rows of a live version carry this rule now."""
        here = versions.c.document_id == document_id, versions.c.version == version
        carried = versions.update().where(*here).values(rows_access_id=access_id)
        self._database.write(lambda connection: connection.execute(carried))

    def unwritten_rules(self, source_id: int) -> Sequence[RowsToRepoint]:
        """List live versions whose rows do not carry the document's rule yet: a run died behind `set_rule`."""
        rows = select(documents.c.document_id, versions.c.version, versions.c.chunk_count, documents.c.access_id)
        rows = rows.join_from(versions, documents, versions.c.document_id == documents.c.document_id)
        rows = rows.where(documents.c.source_id == source_id, versions.c.version == documents.c.version)
        return [
            RowsToRepoint(*row) for row in self._rows(rows.where(versions.c.rows_access_id != documents.c.access_id))
        ]

    def delete(self, document_ids: Sequence[str], seen_at: float | None = None) -> int:
        """Delete documents and give how many there were. It holds at once, also against a `flip` on its way.

        Attempts and dead letters of these ids go too, also where no document came of them. `seen_at`: when they were
        seen to be gone; a document that was seen later stays. Without it all go, whatever the clocks say. One
        transaction.
        """
        ids = sorted({storable(document_id) for document_id in document_ids})  # one order of locks: no deadlock
        now = time.time()
        latest = case((documents.c.seen_at > now, documents.c.seen_at), else_=now)
        gone: dict[str, Any] = {"deleted": True, "version": None, "chunk_count": 0, "updated_at": now}
        gone["seen_at"] = latest if seen_at is None else seen_at

        def work(connection: Connection) -> int:
            count = 0
            for batch in batches(ids):
                chosen = self._database.values(batch)
                # All of them, also what is deleted: it may be on its way back, and its new version is live then.
                held = select(documents.c.document_id, documents.c.seen_at)
                held = held.where(documents.c.document_id.in_(chosen)).order_by(documents.c.document_id)
                rows = connection.execute(held.with_for_update()).all()
                seen = {row.document_id for row in rows if seen_at is not None and row.seen_at > seen_at}
                batch = [document_id for document_id in batch if document_id not in seen]
                chosen = self._database.values(batch)
                doomed = documents.c.document_id.in_(chosen), documents.c.deleted.is_(False)
                count += connection.execute(documents.update().where(*doomed).values(**gone)).rowcount
                connection.execute(_state(RETIRED).where(versions.c.document_id.in_(chosen)))
                self._failures.clear(connection, batch)
            return count

        return self._database.write(work)

    def stale_versions(
        self, document_ids: Sequence[str] | None = None, abandoned_after_s: float | None = None
    ) -> Sequence[StaleVersion]:
        """List versions whose chunks can go: retired ones, and those whose writer was overtaken.

        With `abandoned_after_s` also those begun longer ago than that and never finished. That is safe while
        their writer lives: once `forget_versions` was called, its `flip` fails.
        """
        stale = or_(
            versions.c.state == RETIRED,
            and_(versions.c.state == WRITING, versions.c.version < documents.c.last_version),
        )
        if abandoned_after_s is not None:
            begun_before = versions.c.started_at <= time.time() - abandoned_after_s
            stale = or_(stale, and_(versions.c.state == WRITING, begun_before))
        rows = select(versions.c.document_id, versions.c.version, versions.c.chunk_count)
        rows = rows.join_from(versions, documents).where(versions.c.state != LIVE, stale)
        if document_ids is not None:
            rows = rows.where(versions.c.document_id.in_(self._database.values(document_ids)))
        rows = rows.order_by(versions.c.document_id, versions.c.version)
        return self._database.read(lambda connection: [StaleVersion(*row) for row in connection.execute(rows)])

    def forget_versions(self, stale: Sequence[StaleVersion]) -> None:
        """Remove the rows of versions whose chunks the store has deleted. A live version is never forgotten."""

        def work(connection: Connection) -> None:
            for item in sorted(stale, key=lambda item: (item.document_id, item.version)):
                connection.execute(
                    versions.delete().where(
                        versions.c.document_id == item.document_id,
                        versions.c.version == item.version,
                        versions.c.state != LIVE,
                    )
                )

        self._database.write(work)

    # ---- asking

    def counts(self) -> LedgerCounts:
        """Count what the ledger holds. One statement; it reads whole indexes, so it is for status pages."""
        live = documents.c.version.is_not(None)

        def number(table: Any, *where: Any) -> Any:
            return select(func.count()).select_from(table).where(*where).scalar_subquery()

        rows = select(
            number(tenants),
            number(sources),
            number(documents, live),
            select(func.coalesce(func.sum(documents.c.chunk_count), 0)).where(live).scalar_subquery(),
            number(access_rules),
            number(versions, versions.c.state == WRITING),
            number(versions, versions.c.state == RETIRED),
            number(dead_letters),
        )
        return LedgerCounts(*(int(count) for count in self._rows(rows)[0]))

    # ---- the index's own state

    def state(self, key: str) -> str | None:
        """Give a fact about the index, such as the live collection's name; `None` when never set."""
        found = select(index_state.c.value).where(index_state.c.key == key)
        return self._database.read(lambda connection: connection.scalar(found))

    def set_state(self, key: str, value: str) -> None:
        """Record a fact about the index."""
        row = self._database.insert(index_state).values(key=key, value=value)
        row = row.on_conflict_do_update(index_elements=["key"], set_={"value": value})
        self._database.write(lambda connection: connection.execute(row))

    def healthy(self) -> bool:
        """Say whether the database answers."""
        try:
            return self._database.read(lambda connection: connection.scalar(select(1))) == 1
        except Unavailable:
            return False

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._database.dispose()

    def _place(self, ref: DocumentRef) -> tuple[int, int, int]:
        tenant_id, source_id = self._sources.place(ref.tenant, ref.source)
        return tenant_id, source_id, self.intern_rule(tenant_id, ref.rule)

    def _begin(
        self, connection: Connection, new: NewVersion, run_id: str, tenant_id: int, source_id: int, access_id: int
    ) -> int:
        ref, now = new.ref, time.time()
        fresh = {"access_id": access_id, "fingerprint": "", "content_hash": "", "chunk_count": 0, "deleted": False}
        told = {"uri": storable(ref.uri), "title": _title(ref, None), "owner": new.owner and storable(new.owner)}
        place = {"tenant_id": tenant_id, "source_id": source_id, "external_id": storable(ref.external_id)}
        row = self._database.insert(documents).values(
            document_id=ref.document_id, last_version=0, created_at=now, updated_at=now, **place, **fresh, **told
        )
        connection.execute(row.on_conflict_do_nothing())
        document = _lock(connection, ref.document_id)
        changes: dict[str, Any] = {"last_version": document.last_version + 1}
        # Who heard earlier may not become live behind the back of who heard later and is still writing.
        changes["seen_at"] = max(document.seen_at, ref.seen_at)
        if document.version is None:  # nothing is live that these would misdescribe
            changes |= fresh
        if document.deleted:
            changes |= told | {"external_id": place["external_id"]}  # an erasure took it away
        _update(connection, ref.document_id, changes)
        connection.execute(
            versions.insert().values(
                document_id=ref.document_id,
                version=changes["last_version"],
                state=WRITING,
                content_hash=new.content_hash,
                chunk_count=new.chunk_count,
                rows_access_id=changes.get("access_id", document.access_id),
                run_id=run_id,
                started_at=now,
            )
        )
        return int(changes["last_version"])

    def _flip(self, connection: Connection, written: WrittenVersion, access_id: int) -> bool:
        ref, version = written.ref, written.version
        here = versions.c.document_id == ref.document_id
        document = _lock(connection, ref.document_id)
        begun = connection.execute(select(versions).where(here, versions.c.version == version)).one_or_none()
        if document is None or begun is None or begun.state != WRITING:
            return begun is not None and begun.state == LIVE
        changed = document.access_id != begun.rows_access_id or max(document.seen_at, document.gone_at) > ref.seen_at
        if document.last_version != version or changed:
            connection.execute(_state(RETIRED).where(here, versions.c.version == version))
            return False
        connection.execute(_state(RETIRED).where(here, versions.c.state == LIVE))
        live = _state(LIVE).values(rows_access_id=access_id)
        connection.execute(live.where(here, versions.c.version == version))
        changes = {
            "version": version,
            "chunk_count": begun.chunk_count,
            "content_hash": begun.content_hash,
            "fingerprint": storable(ref.fingerprint),
            "access_id": access_id,
            "title": _title(ref, written.title),
            "uri": storable(ref.uri),
            "updated_at": time.time(),
            "seen_at": ref.seen_at,
        }
        _update(connection, ref.document_id, changes)
        return True

    def _rows(self, rows: Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(rows).all())


def _lock(connection: Connection, document_id: str) -> Any:
    fields = ("version", "last_version", "access_id", "deleted", "chunk_count", "seen_at")
    gone_at = select(func.coalesce(sources.c.gone_at, 0.0)).where(sources.c.id == documents.c.source_id)
    found = select(*(documents.c[field] for field in fields), gone_at.scalar_subquery().label("gone_at"))
    return connection.execute(found.where(documents.c.document_id == document_id).with_for_update()).one_or_none()


def _update(connection: Connection, document_id: str, changes: dict[str, Any]) -> None:
    connection.execute(documents.update().where(documents.c.document_id == document_id).values(**changes))


def _state(state: str) -> Any:
    return versions.update().values(state=state)


def _title(ref: DocumentRef, title: str | None) -> str:
    return storable(title or ref.title or ref.name or ref.external_id)


def _in_order(items: Sequence[Item]) -> Sequence[Item]:
    """One order of locks for all writers, so that two batches with the same documents cannot deadlock."""
    return sorted(items, key=lambda item: item.ref.document_id)
