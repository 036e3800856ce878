"""What a sync has to do: a source's listing held against the ledger. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from index.ledger_records import KnownDocument
from ingest.connector import Entry, Gone, Mark, Unreadable
from policies.access import AccessRule

TWICE = "the same id twice in this source"
_BELOW = re.compile(r"[/#]")


@dataclass(slots=True)
class SyncPlan:
    """`process` must be read; `rights` only change who may read; `unchanged` need nothing; `rejected` cannot be read.

    `narrowed` are documents, of those to process and those rejected, whose live text is another than the one that the
    listing's rule is meant for: they lose the readers whom that rule does not permit, at once, and gain none. Those it
    adds come with the new text.
    """

    process: list[Entry] = field(default_factory=list)
    rights: list[Entry] = field(default_factory=list)
    narrowed: list[Entry] = field(default_factory=list)
    relabelled: list[Entry] = field(default_factory=list)
    rejected: list[Entry] = field(default_factory=list)
    unchanged: int = 0
    deleted: list[str] = field(default_factory=list)
    created: int = 0
    updated: int = 0
    mark: Mark | None = None

    @property
    def discovered(self) -> int:
        """How many documents the listing named."""
        return len(self.process) + len(self.rights) + len(self.rejected) + self.unchanged

    @property
    def access_changed(self) -> int:
        """How many documents only changed their readers."""
        return len(self.rights)


def last_words(items: Iterable[Entry | Gone | Unreadable | Mark]) -> list[Entry | Gone | Unreadable | Mark]:
    """Keep of a listing of changes what it says last of each document: it may tell a history."""
    said: dict[tuple[str, bool], Entry | Gone] = {}
    unreadable: list[Unreadable] = []
    for item in items:
        if isinstance(item, Mark):
            return [*said.values(), *unreadable, item]
        if isinstance(item, Unreadable):
            unreadable.append(item)
            continue
        external_id = item.external_id if isinstance(item, Gone) else item.ref.external_id
        # A file of rows is gone with what lay below it, and then named: an entry does not take that back.
        of_all = isinstance(item, Gone) and item.below
        said.pop((external_id, False), None)
        if of_all:
            said.pop((external_id, True), None)
        said[external_id, of_all] = item
    return [*said.values(), *unreadable]


def plan(
    listing: Iterable[Entry | Gone | Unreadable | Mark],
    known: Mapping[str, KnownDocument],
    rule_id: Callable[[AccessRule], int],
) -> SyncPlan:
    """Compare a listing with what the ledger knows of the source.

    `known` is keyed by document id; `rule_id` interns a rule. Where the listing ends in a mark that it is complete,
    what it does not name is deleted, else only what it says is gone. Entries that share an id are rejected, all of
    them. With what lies below something unreadable nothing is done at all: that is hidden, and none of the plan's.
    """
    result = SyncPlan()
    seen: set[str] = set()
    same: set[str] = set()
    again: dict[str, Entry] = {}
    gone: dict[str, bool] = {}
    unreadable: tuple[str, ...] = ()
    for entry in listing:
        if isinstance(entry, Mark):
            result.mark = entry
            break
        if isinstance(entry, Unreadable):
            unreadable += (entry.below,)
            continue
        if isinstance(entry, Gone):
            gone[entry.external_id] = gone.get(entry.external_id, False) or entry.below
            continue
        document_id = entry.ref.document_id
        if document_id in seen:
            again[document_id] = entry = replace(entry, error=entry.error or TWICE)
        seen.add(document_id)
        if _is_same(entry, known.get(document_id), rule_id, result):
            same.add(document_id)
    _leave_out(unreadable, same, known, result)
    _withdraw(again, same, known, result)
    result.unchanged = len(same)
    unnamed = sorted(key for key in set(known) - seen if not known[key].external_id.startswith(unreadable))
    below = {external_id for external_id, all_below in gone.items() if all_below}
    complete = result.mark is not None and result.mark.complete
    result.deleted = [key for key in unnamed if complete or _is_gone(known[key].external_id, gone, below)]
    result.created = sum(
        known[e.ref.document_id].version is None if e.ref.document_id in known else True for e in result.process
    )
    result.updated = len(result.process) - result.created
    return result


def _is_gone(external_id: str, gone: Collection[str], below: Collection[str]) -> bool:
    if external_id in gone:
        return True
    return any(external_id[: mark.start()] in below for mark in _BELOW.finditer(external_id)) if below else False


def _is_same(
    entry: Entry, document: KnownDocument | None, rule_id: Callable[[AccessRule], int], result: SyncPlan
) -> bool:
    """Put an entry where it belongs in `result`; say whether its document needs nothing."""
    live = document if document is not None and document.version is not None else None
    if entry.error is not None:
        result.rejected.append(entry)
    elif live is None or live.fingerprint != entry.ref.fingerprint:
        result.process.append(entry)
    elif live.uri != entry.ref.uri:
        result.relabelled.append(entry)
    if live is None:
        return False
    same_text = entry.error is None and live.fingerprint == entry.ref.fingerprint
    if live.access_id != rule_id(entry.ref.rule):
        (result.rights if same_text else result.narrowed).append(entry)
        return False
    return same_text


def _leave_out(
    unreadable: tuple[str, ...], same: set[str], known: Mapping[str, KnownDocument], result: SyncPlan
) -> None:
    """Take back what was named below something unreadable before that was found out."""
    if not unreadable:
        return
    same.difference_update([key for key in same if known[key].external_id.startswith(unreadable)])
    for entries in (result.process, result.rights, result.narrowed, result.relabelled, result.rejected):
        entries[:] = [entry for entry in entries if not entry.ref.external_id.startswith(unreadable)]


def _withdraw(again: Mapping[str, Entry], same: set[str], known: Mapping[str, KnownDocument], result: SyncPlan) -> None:
    """Reject the first entry of each id that came again: to choose one would let whoever adds another change the rule.

    The document stays as it is, but for readers whom one of its entries does not permit.
    """
    if not again:
        return
    first = [entry for entry in (*result.process, *result.rights) if entry.ref.document_id in again]
    # What needed nothing was not kept; it is where the ledger says.
    first += [replace(again[key], ref=replace(again[key].ref, uri=known[key].uri)) for key in same & again.keys()]
    result.rejected += [replace(entry, error=TWICE) for entry in first]
    result.narrowed += [entry for entry in result.rights if entry.ref.document_id in again]
    same.difference_update(again)
    for entries in (result.process, result.rights, result.relabelled):
        entries[:] = [entry for entry in entries if entry.ref.document_id not in again]
