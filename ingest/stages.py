"""The stages a document passes: prepare (read, parse, chunk) → embed → write (rows, then the ledger's pointer).

Plain functions over values, with two executors: Ray Data for many documents (`ingest.bulk`), the warm sync
deployment for a few (`deployments.sync`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from index.analysis import ANALYSIS_VERSION, analyse
from index.document import Chunk, DocumentRef, Extracted, Vectors
from index.embedding_cache import text_hash
from index.ledger import Ledger
from index.ledger_records import NewVersion, RowsToRepoint, StoredDocument, WrittenVersion
from index.stores import ModelsChanged
from index.vectors import MAX_TEXT_BYTES, SCHEMA_VERSION, ChunkRow, Rows
from ingest.chunking import CHUNKER_VERSION, Chunker
from ingest.connector import Entry
from ingest.hidden import MIN_UNSEEN, warning
from ingest.parsing import PARSER_VERSION
from ingest.report import Outcome
from ingest.sandbox import Parser
from ingest.screening import Screen, ScreeningFailed, Withheld
from ingest.suppressing import is_kept_out, kept_out, suppressed, suppressed_chunks
from policies.access import AccessRule
from policies.errors import (
    DocumentRejected,
    Held,
    RayragError,
    SourceUnavailable,
    TooLarge,
    Unavailable,
    UnsupportedType,
)
from policies.principals import EVERYONE
from policies.privacy.suppression import Suppressions

Fetch = Callable[[Entry, int], bytes]
"""Gives an entry's bytes, as a connector's `fetch` does."""
WRITE_TRIES = 5
"""Each time something changed in between that is seldom changed."""
BAD_DOCUMENT = (DocumentRejected, TooLarge, UnsupportedType, SourceUnavailable, Held)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document cut into chunks. `title` is the one its content or its source gives, not the file's name."""

    ref: DocumentRef
    title: str | None
    content_hash: str
    chunks: tuple[Chunk, ...]
    owner: str | None = None
    warning: str | None = None
    listed: int = 0
    """The revision of the suppression list that its text was held against."""

    @property
    def texts(self) -> list[str]:
        """What the model and the keyword index read, one for each chunk."""
        return [chunk.embedded_text(self.title) for chunk in self.chunks]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A prepared document with `vectors` for each chunk, one under each model; `computed` were not in the cache."""

    prepared: Prepared
    vectors: tuple[Vectors, ...]
    computed: int


class Embed(Protocol):
    """Turns texts into vectors, through the cache."""

    def __call__(self, texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
        """Give each text's vectors, under all models that the index holds, and whether one had to be computed."""
        ...


PIPELINE_KEY = f"{PARSER_VERSION}.{CHUNKER_VERSION}.{ANALYSIS_VERSION}.{SCHEMA_VERSION}"
"""Names what decides a document's rows, but for the document: a change of any makes every document new.

The embedding model is not among it: `rayrag reindex` changes that for all rows at once, and reads no document again.
The policy of the document's source is, by `pipeline_key`.
"""


def pipeline_key(screen: Screen, tenant: str, source: str) -> str:
    """Name all that decides the rows of a source's documents, its policy on personal data included."""
    return f"{PIPELINE_KEY}.{screen.key(tenant, source)}"


def stamped(entry: Entry, key: str) -> Entry:
    """Make the pipeline a part of the fingerprint, and the name a part of what the ledger is told."""
    return replace(entry, ref=replace(entry.ref, fingerprint=f"{entry.ref.fingerprint}|{key}", name=entry.name))


class ListGrew(ModelsChanged):
    """Somebody's data were erased since these texts were held against the list: do that again, then embed and write."""


class Preparation:
    """The first stage, for one process: it keeps the parser's child alive between documents."""

    def __init__(
        self,
        ledger: Ledger,
        parser: Parser,
        chunker: Chunker,
        max_attempts: int,
        max_bytes: int,
        suppressions: Suppressions | None = None,
        *,
        screen: Screen,
    ) -> None:
        """Without `suppressions` nothing is held against the list: for what never sees a person's data."""
        self._screen = screen
        self._ledger = ledger
        self._parser = parser
        self._chunker = chunker
        self._max_attempts = max_attempts
        self._max_bytes = max_bytes
        self._suppressions = suppressions

    def __call__(self, entry: Entry, fetch: Fetch, owner: str | None = None) -> Prepared | Outcome:
        """Read, parse and chunk. What is wrong with the document becomes its outcome; anything else rises.

        `fetch` gives the bytes. The attempt is counted first, for a document may take the process with it. It is given
        back as soon as the document stood it, so that nothing which happens later counts against it, and where it
        failed for a reason outside of it. An error that nobody foresaw counts: the likeliest cause is the document.
        """
        ref = entry.ref
        if self._suppressions is not None and is_kept_out(ref, matcher := self._suppressions.matcher(ref.tenant)):
            return kept_out(ref, matcher)  # before anything is noted of it: its name is what was erased
        attempt = self._ledger.begin_attempt(ref, self._max_attempts)
        if attempt is None:
            tried = f"given up after {self._max_attempts} attempts; see the dead letters"
            return quarantined(ref, DocumentRejected(tried))
        try:
            prepared = self._prepare(entry, fetch, owner)
        except BAD_DOCUMENT as error:
            if isinstance(error, Withheld):
                self._withdraw(ref, error)
            self._ledger.reject(ref, error.detail, attempt)
            if isinstance(error, SourceUnavailable):
                self._ledger.give_back_attempt(ref)
            return quarantined(ref, error)
        except Unavailable:
            self._ledger.give_back_attempt(ref)
            raise
        if isinstance(prepared, Prepared) or prepared.status == "quarantined":  # kept out, which is no failure
            self._ledger.give_back_attempt(ref)
        return prepared

    def _prepare(self, entry: Entry, fetch: Fetch, owner: str | None) -> Prepared | Outcome:
        ref = entry.ref
        data = self._content(entry, fetch)
        content_hash = _content_hash(data, ref.fingerprint)
        stored = self._ledger.document(ref.document_id)
        if stored is not None and stored.version is not None and stored.content_hash == content_hash:
            self._ledger.touch(ref.document_id, ref.fingerprint, ref.uri)
            return Outcome(ref.document_id, ref.external_id, ref.uri, "unchanged", stored.version)
        self._require_changeable(stored, data)
        if entry.inline is None:
            extracted = self._parser.parse(data, entry.name or ref.external_id)
        else:
            unseen = entry.inline.unseen
            hidden = (("without a width", unseen),) if unseen >= MIN_UNSEEN else ()
            extracted = Extracted(entry.inline.text, entry.inline.title, hidden=hidden)
        listed = 0
        if self._suppressions is not None:
            listed = self._suppressions.revision()  # before the list itself: it may be newer than that, never older
            matcher = self._suppressions.matcher(ref.tenant)
            if is_kept_out(ref, matcher, extracted.title):
                return kept_out(ref, matcher)
            extracted = suppressed(extracted, matcher)
        screened = self._screen(entry, extracted, None if stored is None else stored.created_at)
        ref, extracted, title = screened.ref, screened.extracted, screened.title
        chunks = self._chunker.split(extracted)
        if not chunks:
            raise DocumentRejected("no text in it")
        if any(len(chunk.text.encode("utf-8", "replace")) > MAX_TEXT_BYTES for chunk in chunks):
            # Passages are measured in tokens, and white space has none: the store would refuse the whole batch.
            raise DocumentRejected(f"over {MAX_TEXT_BYTES} bytes of it hold hardly a word")
        if title and self._suppressions is not None:
            title = self._suppressions.redact(ref.tenant, title)[0]
        return Prepared(ref, title, content_hash, chunks, owner, warning(extracted.hidden), listed)

    def _require_changeable(self, stored: StoredDocument | None, data: bytes) -> None:
        """Raise `Held` where a record must stay as it is, and this is another text; not for another pipeline's sake."""
        if stored is None or stored.version is None or stored.content_hash == _content_hash(data, stored.fingerprint):
            return
        why = self._ledger.holds.immutable(stored.document_id)
        if why is not None:
            raise Held(why)

    def _withdraw(self, ref: DocumentRef, error: Withheld) -> None:
        """Take away the version that is live, for it is not known to be what may be shown; but not what is held.

        Where nothing could be found out about the new text, one that was screened under the same policy stays.
        """
        stored = self._ledger.document(ref.document_id)
        if stored is None or stored.version is None or self._ledger.holds.of([ref.document_id]):
            return
        under = stored.fingerprint.rpartition("|")[2]
        if not isinstance(error, ScreeningFailed) or under != ref.fingerprint.rpartition("|")[2]:
            self._ledger.delete([ref.document_id])

    def _content(self, entry: Entry, fetch: Fetch) -> bytes:
        if entry.inline is not None:
            return f"{entry.inline.title or ''}\n{entry.inline.text}".encode("utf-8", "surrogatepass")
        if entry.location is None:
            raise DocumentRejected("nothing to read")
        return fetch(entry, self._max_bytes)


def _content_hash(data: bytes, fingerprint: str) -> str:
    return hashlib.sha256(data + b"\x00" + fingerprint.rpartition("|")[2].encode()).hexdigest()


def quarantined(ref: DocumentRef, error: RayragError) -> Outcome:
    """The outcome of a document that cannot be indexed."""
    return Outcome(ref.document_id, ref.external_id, ref.uri, "quarantined", reason=error.detail, failure=type(error))


def embed(documents: Sequence[Prepared], embedder: Embed) -> list[Embedded]:
    """Embed the chunks of several documents in one go."""
    texts = [text for document in documents for text in document.texts]
    vectors, computed = embedder(texts)
    result: list[Embedded] = []
    start = 0
    for document in documents:
        end = start + len(document.chunks)
        result.append(Embedded(document, tuple(vectors[start:end]), sum(computed[start:end])))
        start = end
    return result


def embed_and_write(
    documents: Sequence[Prepared],
    embedder: Embed,
    ledger: Ledger,
    store: Rows,
    run_id: str,
    suppressions: Suppressions | None = None,
) -> list[Outcome]:
    """Embed and write, again where the index came to hold another model, or the suppression list grew, in between.

    Raises as `write`.
    """
    outcomes: list[Outcome] = []
    for left in reversed(range(WRITE_TRIES)):
        documents, kept = held_against(documents, suppressions)
        outcomes += kept
        try:
            return [*write(embed(documents, embedder), ledger, store, run_id, suppressions), *outcomes]
        except ModelsChanged:
            if not left:
                raise
    raise AssertionError("unreachable")


def held_against(
    documents: Sequence[Prepared], suppressions: Suppressions | None
) -> tuple[list[Prepared], list[Outcome]]:
    """Hold texts against the suppression list where it grew since; and give apart what is not taken in any more."""
    if suppressions is None:
        return list(documents), []
    kept: list[Prepared] = []
    outcomes: list[Outcome] = []
    revision = suppressions.revision()
    for item in documents:
        matcher = suppressions.matcher(item.ref.tenant)
        if item.listed == revision or not matcher:
            kept.append(replace(item, listed=revision))
        elif is_kept_out(item.ref, matcher, item.title):
            outcomes.append(kept_out(item.ref, matcher))
        else:
            title = item.title and matcher.redact(item.title)[0]
            chunks = suppressed_chunks(item.chunks, matcher)
            kept.append(replace(item, title=title, chunks=chunks, listed=revision))
    return kept, outcomes


def write(
    documents: Sequence[Embedded],
    ledger: Ledger,
    store: Rows,
    run_id: str,
    suppressions: Suppressions | None = None,
) -> list[Outcome]:
    """Write each document's next version beside the live one, count it, flip the pointer, then clear the old rows.

    Raises `Unavailable` when the store acknowledges fewer rows than were sent, `ModelsChanged` as `Stores.upsert`, and
    `ListGrew` where `suppressions` is not what the texts were held against; the live versions then stay. That is asked
    when the versions are begun: whoever adds to the list waits for those that were begun before (`ingest.erasure`).
    """
    prepared = [document.prepared for document in documents]
    numbers = ledger.begin_versions(
        [NewVersion(item.ref, item.content_hash, len(item.chunks), item.owner) for item in prepared], run_id
    )
    if suppressions is not None and prepared:
        revision = suppressions.revision()
        if any(item.listed != revision for item in prepared):
            raise ListGrew("the list of what was erased grew: hold these texts against it again")
    rows = [row for document, n in zip(documents, numbers, strict=True) for row in _rows(document, n, ledger)]
    acknowledged = store.upsert(rows)
    if acknowledged != len(rows):
        raise Unavailable(f"the vector store took {acknowledged} of {len(rows)} rows")
    written = [WrittenVersion(item.ref, n, item.title) for item, n in zip(prepared, numbers, strict=True)]
    flipped = ledger.flip_versions(written)
    for item, n, live in zip(prepared, numbers, flipped, strict=True):
        if not live:  # also where the ledger forgot the version, as it does with those of writers taken for dead
            store.delete(item.ref.document_id, n, len(item.chunks))
    sweep(ledger, store, [item.ref.document_id for item in prepared])
    return [_outcome(document, n, live) for document, n, live in zip(documents, numbers, flipped, strict=True)]


def process(
    entries: Sequence[Entry],
    fetch: Fetch,
    prepare: Preparation,
    embedder: Embed,
    ledger: Ledger,
    store: Rows,
    run_id: str,
    suppressions: Suppressions | None = None,
) -> list[Outcome]:
    """Bring a few documents into the index, in this process."""
    made = [prepare(entry, fetch) for entry in entries]
    prepared = [item for item in made if isinstance(item, Prepared)]
    written = embed_and_write(prepared, embedder, ledger, store, run_id, suppressions) if prepared else []
    return [*written, *(item for item in made if isinstance(item, Outcome))]


def sweep(ledger: Ledger, store: Rows, document_ids: Sequence[str] | None = None) -> None:
    """Remove rows that no reader can reach any more: retired versions and those whose writer was overtaken.

    Without `document_ids`: those of every document, also what runs left behind that died.
    """
    stale = ledger.stale_versions(document_ids)
    for version in stale:
        store.delete(version.document_id, version.version, version.chunk_count)
    if stale:
        ledger.forget_versions(stale)


def change_rights(
    document_id: str,
    rule: AccessRule,
    ledger: Ledger,
    store: Rows,
    seen_at: float | None = None,
    instead_of: int | None = None,
) -> bool:
    """Give a document another access rule. The ledger's gate holds at once; then its rows follow, embedding nothing.

    `seen_at`: when the source said so; none: now. What it said later stays, and false is given where that is another
    rule. `instead_of` and what is raised: as `Ledger.set_rule`.
    """
    change = ledger.set_rule(document_id, rule, seen_at, instead_of)
    if change.version is not None and change.new_access_id != change.old_access_id:
        repoint(RowsToRepoint(document_id, change.version, change.chunk_count, change.new_access_id), ledger, store)
    return change.holds


def narrowed(held: AccessRule, rule: AccessRule) -> AccessRule:
    """A rule that permits only whom both permit: by the names that both allow, so it may permit fewer."""
    if EVERYONE in rule.allow:
        allow = held.allow
    elif EVERYONE in held.allow:
        allow = rule.allow
    else:
        allow = held.allow & rule.allow
    return AccessRule(allow, held.deny | rule.deny, max(held.label, rule.label))


def repoint(rows: RowsToRepoint, ledger: Ledger, store: Rows) -> None:
    """Let a version's rows carry the rule that the ledger names."""
    store.set_access(rows.document_id, rows.version, rows.chunk_count, rows.access_id)
    ledger.rows_carry(rows.document_id, rows.version, rows.access_id)


def _outcome(document: Embedded, version: int, live: bool) -> Outcome:
    ref = document.prepared.ref
    if not live:
        return Outcome(ref.document_id, ref.external_id, ref.uri, "unchanged")  # a newer writer has it
    chunks = len(document.prepared.chunks)
    told = document.prepared.warning
    return Outcome(
        ref.document_id, ref.external_id, ref.uri, "indexed", version, chunks, document.computed, warning=told
    )


def _rows(document: Embedded, version: int, ledger: Ledger) -> list[ChunkRow]:
    prepared = document.prepared
    ref = prepared.ref
    tenant_id = ledger.tenant_id(ref.tenant)
    access_id = ledger.intern_rule(tenant_id, ref.rule)
    return [
        ChunkRow(
            document_id=ref.document_id,
            version=version,
            tenant_id=tenant_id,
            access_id=access_id,
            position=chunk.position,
            start=chunk.start,
            end=chunk.end,
            page=chunk.page,
            text=chunk.text,
            context=chunk.context(prepared.title),
            analysed=analyse(text),
            text_hash=text_hash(text).hex(),
            dense=vectors,
        )
        for chunk, text, vectors in zip(prepared.chunks, prepared.texts, document.vectors, strict=True)
    ]
