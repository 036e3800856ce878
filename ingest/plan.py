"""What a sync has to do: a source's listing held against the ledger. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from index.ledger_records import KnownDocument
from ingest.listing import Entry
from policies.access import AccessRule


@dataclass(slots=True)
class SyncPlan:
    """`process` must be read; `rights` only change who may read; `unchanged` need nothing.

    Rights come first: a document in both `rights` and `process` loses a reader before its new text is written.
    """

    process: list[Entry] = field(default_factory=list)
    rights: list[Entry] = field(default_factory=list)
    relabelled: list[Entry] = field(default_factory=list)
    rejected: list[Entry] = field(default_factory=list)
    unchanged: int = 0
    deleted: list[str] = field(default_factory=list)

    @property
    def discovered(self) -> int:
        """How many documents the listing named."""
        rights_only = sum(entry.ref.document_id not in self._processed for entry in self.rights)
        return len(self.process) + rights_only + len(self.rejected) + self.unchanged

    @property
    def _processed(self) -> set[str]:
        return {entry.ref.document_id for entry in self.process}


def plan(
    listing: Iterable[Entry], known: Mapping[str, KnownDocument], rule_id: Callable[[AccessRule], int], complete: bool
) -> SyncPlan:
    """Compare a listing with what the ledger knows of the source.

    `known` is keyed by document id; `rule_id` interns a rule; `complete` says whether the listing names the whole
    source: only then is what it does not name deleted.
    """
    result = SyncPlan()
    seen: set[str] = set()
    for entry in listing:
        seen.add(entry.ref.document_id)
        if entry.error is not None:
            result.rejected.append(entry)
            continue
        document = known.get(entry.ref.document_id)
        if document is None or document.version is None:
            result.process.append(entry)
            continue
        other_rights = document.access_id != rule_id(entry.ref.rule)
        if other_rights:
            result.rights.append(entry)
        if document.fingerprint != entry.ref.fingerprint:
            result.process.append(entry)
        elif document.uri != entry.ref.uri:
            result.relabelled.append(entry)
        if document.fingerprint == entry.ref.fingerprint and not other_rights:
            result.unchanged += 1
    if complete:
        result.deleted = sorted(set(known) - seen)
    return result
