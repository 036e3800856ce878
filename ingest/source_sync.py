"""One sync of one source: list or look → plan → rights and deletions → new text → cursor.

Whoever runs it decides how new text is processed: Ray Data for many documents, warm workers for a few. Two syncs of a
source may run at once: each says when it heard what it brings, and the ledger lets nothing heard earlier undo what was
heard later. A run that dies anywhere leaves what is live alone, and the next one takes its work up.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from urllib.parse import unquote

from index.document import DocumentRef
from index.ledger import Ledger
from index.ledger_records import KnownDocument, RuleSeen
from index.vectors import Rows
from ingest.connector import Connector, Entry, Gone, Mark, Unreadable
from ingest.hiding import EVERYTHING, hide, is_overdue, let_rows_follow
from ingest.plan import SyncPlan, last_words, plan
from ingest.report import Outcome, Report
from ingest.source_settings import SourceSettings
from ingest.stages import change_rights, narrowed, repoint, stamped, sweep
from policies.audit_changes import UNRECORDED, ChangeRecord, ChangeRun
from policies.errors import NotFound, RightsUnreadable, SourceUnavailable
from policies.labels import Label

Process = Callable[[list[Entry]], Iterator[Outcome]]
"""Brings new text into the index: one outcome for each entry, in any order, as they come."""
Progress = Callable[[Report], None]
Observe = Callable[[float], None]
MANY = 3
"""More folders than this: all that is known of the source is read once, in place of once for each."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a listing, or a look, said. `told_at`: when somebody made the change known."""

    items: Iterable[Entry | Gone | Unreadable | Mark]
    known: Mapping[str, KnownDocument]
    began_at: float
    told_at: float | None = None


def quiet(_: object) -> None:
    """Take no notice."""


def as_it_is(_: DocumentRef, title: str) -> str:
    """Change no title."""
    return title


class SourceSync:
    """Brings the index to what one source says. Used by one thread at a time."""

    def __init__(
        self,
        settings: SourceSettings,
        uri: str,
        connector: Connector,
        ledger: Ledger,
        store: Rows,
        key: str,
        process: Process,
        progress: Progress = quiet,
        observe: Observe = quiet,
        record: ChangeRecord = UNRECORDED,
        title: Callable[[DocumentRef, str], str] = as_it_is,
    ) -> None:
        """`key` names the pipeline (`stages.pipeline_key`). `title` screens one whose document is not read again.

        `record` gets each change, before and after.
        `observe` gets each change's age in seconds when it holds. A change's age counts from when the source says that
        it happened, else from when somebody made it known, else from the listing before; never from earlier than that.
        What the first listing finds has no age.
        """
        self._settings = settings
        self._aliases = settings.aliases
        self._connector = connector
        self._ledger = ledger
        self._store = store
        self._key = key
        self._process = process
        self._progress = progress
        self._observe = observe
        self._record = record
        self._screened_title = title
        self._minima: Mapping[str, Label] = {}
        self.source_id = ledger.source_id(settings.tenant, settings.name, uri)

    def list(self, full: bool = False) -> Report:
        """Follow what changed since the last listing that ended well; with `full`, everything.

        The cursor moves when the index has it all: not while a document could not be read for its source's sake
        (`Report.unread`). Raises as the connector's `list` does, and `Unavailable`; and `RightsUnreadable` where that
        is so of a part of the source, when all is done that the rest asks for.
        """
        began_at = time.time()
        self._ledger.run_begins(self.source_id)
        with self._hiding(began_at) as unreadable:
            heard = self._heard(None if full else self._cursor(), began_at)
            todo = self._plan(heard, unreadable)
            if todo.mark is None:
                raise SourceUnavailable(f"{self._settings.name}: its listing broke off")
        report = self._apply(todo, heard)
        if unreadable:
            more = f"; and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
            raise RightsUnreadable(unreadable[0].reason + more, unreadable[0].below)
        if report.unread:
            first = next((each.reason for each in report.errors), "others were faster")
            self._ledger.run_fails(self.source_id, f"{report.unread} documents could not be read: {first}")
        else:
            self._set_cursor(todo.mark.cursor)
            text = json.dumps(report.as_dict() | {"errors": len(report.errors), "warnings": len(report.warnings)})
            self._ledger.run_succeeds(self.source_id, began_at, todo.mark.complete, text)
        return report

    def look(self, external_ids: Sequence[str], told_at: float | None = None) -> Report:
        """Bring these documents to what the source says of them now. Raises as `list` does."""
        began_at = time.time()
        with self._hiding(began_at):
            items = list(self._connector.look(external_ids))
        heard = _Heard(last_words(items), self._known_of(items), began_at, told_at)
        return self._apply(self._plan(heard, []), heard)

    @contextmanager
    def _hiding(self, began_at: float) -> Iterator[MutableSequence[Unreadable]]:
        """Hide documents from everyone where the source's rights cannot be read, or were not for `rights_s`.

        Gives a list for the parts that are found unreadable. An error goes on: it is the source's state. The next
        listing that ends well names everything, and gives each document its readers back; nothing is embedded for it.
        """
        unreadable: MutableSequence[Unreadable] = []
        settings, ledger = self._settings, self._ledger
        try:
            yield unreadable
        except Exception as error:  # also what nobody foresaw: the source told nothing
            below = [each.below for each in unreadable]
            if isinstance(error, RightsUnreadable):
                below.append(error.below)
            elif is_overdue(ledger, self.source_id, settings.rights_s, began_at):
                below.extend(EVERYTHING)
            if below:
                hide(ledger, settings.tenant, self.source_id, below, began_at, self._record, settings.name)
                let_rows_follow(ledger, self._store, self.source_id)
            raise
        if unreadable:  # the rows follow with those of all others
            below = [each.below for each in unreadable]
            hide(ledger, settings.tenant, self.source_id, below, began_at, self._record, settings.name)

    def _heard(self, cursor: str | None, began_at: float) -> _Heard:
        if cursor is None:
            known = self._known(self._ledger.known(self.source_id))
            return _Heard(self._connector.list(None), known, began_at)
        items = list(self._connector.list(cursor))
        if any(isinstance(item, Mark) and item.complete for item in items):  # it does not know the cursor any more
            return _Heard(items, self._known(self._ledger.known(self.source_id)), began_at)
        return _Heard(last_words(items), self._known_of(items), began_at)

    def _plan(self, heard: _Heard, unreadable: MutableSequence[Unreadable]) -> SyncPlan:
        tenant_id = self._ledger.tenant_id(self._settings.tenant)
        self._minima = self._ledger.classifications.minima(self._settings.tenant, self._settings.name)
        return plan(self._told(heard, unreadable), heard.known, lambda rule: self._ledger.intern_rule(tenant_id, rule))

    def _told(
        self, heard: _Heard, unreadable: MutableSequence[Unreadable]
    ) -> Iterator[Entry | Gone | Unreadable | Mark]:
        for item in heard.items:
            if isinstance(item, Unreadable):
                unreadable.append(item)  # at once: what comes next may be an error
            yield self._ours(item) if isinstance(item, Entry) else item

    def _ours(self, entry: Entry) -> Entry:
        """Spell an entry's rule in the names of tokens, with the label that the document's content demands at least.

        No rule of a source comes any other way.
        """
        stamp = stamped(entry, self._key)
        rule = self._aliases.rule(stamp.ref.rule).at_least(self._minima.get(stamp.ref.document_id))
        return replace(stamp, ref=replace(stamp.ref, rule=rule))

    def _apply(self, todo: SyncPlan, heard: _Heard) -> Report:
        with self._record.run(self._settings.tenant, self.source_id, self._settings.name) as run:
            run.begins(
                index=_ids(todo.process),
                rights=_ids([*todo.rights, *todo.narrowed]),
                rename=_ids(todo.relabelled),
                reject=_ids(todo.rejected),
                delete=todo.deleted,
            )
            return self._applied(todo, heard, run)

    def _applied(self, todo: SyncPlan, heard: _Heard, changes: ChangeRun) -> Report:
        report = Report(discovered=todo.discovered, unchanged=todo.unchanged)
        report.created, report.updated, report.access_changed = todo.created, todo.updated, todo.access_changed
        run = self._ledger.source_run(self.source_id)
        since = run.as_of if run is not None else None
        self._settle(todo, heard, report, changes)
        self._aged([heard.told_at] * len(todo.deleted) + [heard.told_at] * len(todo.rights), since)
        self._progress(report)
        if todo.process:
            entries = {entry.ref.document_id: entry for entry in todo.process}
            for outcome in self._process(todo.process):
                entry = entries[outcome.document_id]
                if outcome.status == "unchanged":
                    self._settle_unchanged(outcome, entry, report)
                report.add(outcome)
                changes.became(outcome.document_id, outcome.status, outcome.version)
                if outcome.status == "indexed":
                    self._aged([entry.changed_at or heard.told_at], since)
                report.seconds = time.time() - heard.began_at
                self._progress(report)
        self._store.flush()
        report.seconds = time.time() - heard.began_at
        return report

    def _settle(self, todo: SyncPlan, heard: _Heard, report: Report, changes: ChangeRun) -> None:
        """Do what needs no pipeline. Rights and deletions come before any new text, and hold in the ledger at once."""
        ledger, store = self._ledger, self._store
        rules = [RuleSeen(e.ref.document_id, e.ref.rule, e.ref.seen_at) for e in todo.rights]
        rules += self._narrowings(todo.narrowed, heard)
        ledger.set_rules(ledger.tenant_id(self._settings.tenant), rules)
        held = ledger.holds.of(todo.deleted)
        todo.deleted[:] = [document_id for document_id in todo.deleted if document_id not in held]
        report.deleted = ledger.delete(todo.deleted, heard.began_at)
        report.indexed += len(todo.rights)
        for document_id in todo.deleted:
            changes.became(document_id, "deleted")
        for rule in rules:
            changes.became(rule.document_id, "rights")
        changes.flush()
        sweep(ledger, store)
        for rows in ledger.unwritten_rules(self.source_id):
            repoint(rows, ledger, store)
        for entry in todo.relabelled:
            title = _title(entry, heard.known[entry.ref.document_id])
            title = title and self._screened_title(entry.ref, title)
            ledger.touch(entry.ref.document_id, entry.ref.fingerprint, entry.ref.uri, title)
            changes.became(entry.ref.document_id, "renamed")
        for entry in todo.rejected:
            reason = entry.error or "no reason was given"
            ledger.reject(entry.ref, reason, 1)
            report.reject(entry.ref.uri, reason)
            changes.became(entry.ref.document_id, "quarantined")

    def _narrowings(self, entries: Sequence[Entry], heard: _Heard) -> Iterable[RuleSeen]:
        """Leave a live document to those of its readers whom each of its new rules permits, and give it to nobody else.

        There is more than one where entries share an id.
        """
        kept: dict[str, RuleSeen] = {}
        for entry in entries:
            document_id = entry.ref.document_id
            before = kept.get(document_id)
            held = self._ledger.rule(heard.known[document_id].access_id) if before is None else before.rule
            kept[document_id] = RuleSeen(document_id, narrowed(held, entry.ref.rule), entry.ref.seen_at)
        return kept.values()

    def _settle_unchanged(self, outcome: Outcome, entry: Entry, report: Report) -> None:
        """Its text was live already, maybe by another sync's doing and under that one's rule: this rule holds now.

        Where another writer was faster, what became of the document is not known: it is listed again.
        """
        if outcome.version is None:
            report.unread += 1
            return
        stored = self._ledger.document(outcome.document_id)
        if stored is None or stored.access_id == self._ledger.intern_rule(stored.tenant_id, entry.ref.rule):
            return
        with suppress(NotFound):  # deleted meanwhile, by a sync that heard later
            change_rights(outcome.document_id, entry.ref.rule, self._ledger, self._store, entry.ref.seen_at)

    def _aged(self, events: Sequence[float | None], since: float | None) -> None:
        if since is None:
            return
        now = time.time()
        for at in events:
            self._observe(max(0.0, now - max(since, at if at is not None else since)))

    # ---- what is known

    def _known(self, documents: Iterable[KnownDocument]) -> dict[str, KnownDocument]:
        return {document.document_id: document for document in documents}

    def _known_of(self, items: Sequence[Entry | Gone | Unreadable | Mark]) -> dict[str, KnownDocument]:
        below = [item.external_id for item in items if isinstance(item, Gone) and item.below]
        if len(below) > MANY:
            return self._known(self._ledger.known(self.source_id))
        named = (item for item in items if isinstance(item, Entry | Gone))
        names = {item.external_id if isinstance(item, Gone) else item.ref.external_id for item in named}
        known = self._known(self._ledger.known_of(self.source_id, sorted(names)))
        for external_id in below:
            known |= self._known(self._ledger.known_below(self.source_id, external_id))
        return known

    # ---- the cursor, which holds only for the pipeline and the settings that it was made with

    def _cursor(self) -> str | None:
        stored = self._ledger.cursor(self.source_id)
        if stored is None:
            return None
        held = json.loads(stored)
        cursor: str | None = held["cursor"]
        return cursor if held["of"] == self._made_with() else None

    def _set_cursor(self, cursor: str | None) -> None:
        self._ledger.set_cursor(self.source_id, json.dumps({"cursor": cursor, "of": self._made_with()}))

    def _made_with(self) -> str:
        shown = f"{self._key}|{self._settings.model_dump_json()}"
        return hashlib.sha256(shown.encode()).hexdigest()[:16]


def _ids(entries: Sequence[Entry]) -> list[str]:
    return [entry.ref.document_id for entry in entries]


def _title(entry: Entry, known: KnownDocument) -> str | None:
    """What a document that was only moved or renamed is called now; none where that stays.

    Whether its title was the file's name, and no content's, is seen by the place it had.
    """
    was_its_name = known.title == unquote(known.uri.rpartition("/")[2])
    return entry.ref.title or (entry.name if was_its_name else None)
