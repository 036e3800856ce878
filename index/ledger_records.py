"""What the ledger is told and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from index.document import DocumentRef
from policies.access import AccessRule
from policies.labels import Label


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version about to be written: the content's hash and its number of chunks.

    `owner` is kept for a document that is new or was deleted.
    """

    ref: DocumentRef
    content_hash: str
    chunk_count: int
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class WrittenVersion:
    """A version whose chunks are all in the store. `title` comes from the content, if that has one."""

    ref: DocumentRef
    version: int
    title: str | None = None


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """A document of a source, to be compared with the source's listing.

    `version` is None while its first version is being written; `fingerprint` and `content_hash` are then empty.
    """

    document_id: str
    external_id: str
    fingerprint: str
    content_hash: str
    access_id: int
    version: int | None
    uri: str
    title: str
    chunk_count: int


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document as its readers see it. `updated_at`: Unix seconds."""

    document_id: str
    external_id: str
    title: str
    uri: str
    version: int
    chunk_count: int
    updated_at: float
    owner: str | None
    source: str
    label: Label


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document's row as it stands, whoever may see it. `version` is None when nothing of it is visible."""

    document_id: str
    tenant_id: int
    source_id: int
    external_id: str
    uri: str
    title: str
    owner: str | None
    fingerprint: str
    content_hash: str
    version: int | None
    chunk_count: int
    access_id: int
    deleted: bool
    created_at: float
    updated_at: float


class HeldDocument(NamedTuple):
    """A document's row with its source's name and its label. `source_gone_at`: when the source was removed, if so."""

    document: StoredDocument
    source: str
    label: Label
    source_gone_at: float | None


@dataclass(frozen=True, slots=True)
class StaleVersion:
    """A version whose chunks can go from the store."""

    document_id: str
    version: int
    chunk_count: int


class RowsToRepoint(NamedTuple):
    """A live version whose rows should carry `access_id`."""

    document_id: str
    version: int
    chunk_count: int
    access_id: int


class RuleSeen(NamedTuple):
    """The rule that a document's source was heard to give it at `seen_at`, in Unix seconds."""

    document_id: str
    rule: AccessRule
    seen_at: float


class RuleChange(NamedTuple):
    """What `set_rule` did. `version` is None when no chunk is live yet; `holds`: the rule is the document's now."""

    old_access_id: int
    new_access_id: int
    version: int | None
    chunk_count: int
    holds: bool = True


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A document that was given up, with the reason. `at`: Unix seconds."""

    document_id: str
    tenant: str
    source: str
    external_id: str
    fingerprint: str
    uri: str
    reason: str
    attempts: int
    at: float


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """How much the ledger holds, over all tenants. `documents` and `chunks` count what is live."""

    tenants: int
    sources: int
    documents: int
    chunks: int
    access_rules: int
    versions_writing: int
    versions_retired: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A source that is kept fresh. `config` is its settings as JSON, as `ingest.sources` reads them."""

    source_id: int
    tenant: str
    name: str
    config: str
    paused: bool


@dataclass(frozen=True, slots=True)
class SourceRun:
    """How the listings of a source go. Times are Unix seconds; `report` is JSON, of the last that ended well.

    `as_of`: the index holds what the source said then, or later; none before the first listing ended well.
    `failures` counts those in a row.
    """

    source_id: int
    began_at: float
    ended_at: float | None
    as_of: float | None
    full_at: float | None
    failures: int
    error: str | None
    retry_at: float | None
    report: str | None


@dataclass(frozen=True, slots=True)
class SourceHint:
    """Somebody said "look". An empty `external_id` says "list". `at`: when the change was made known."""

    source_id: int
    external_id: str
    at: float
