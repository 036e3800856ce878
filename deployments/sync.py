"""The sync deployment: single documents, through the same stages as bulk, without a job's start."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.calls import idempotent
from index.document import DocumentRef
from index.ledger import Ledger
from index.ledger_records import StoredDocument
from index.models import live_tokenizer
from index.settings import AppArgs
from index.stores import ModelsChanged, Stores
from ingest.chunking import Chunker
from ingest.connector import Entry, InlineDocument
from ingest.report import Outcome
from ingest.sandbox import Parser
from ingest.stages import PIPELINE_KEY, Embedded, Preparation, Prepared, change_rights, stamped, sweep, write
from policies.access import AccessRule
from policies.errors import Conflict, NotFound
from policies.principals import Principal

UPLOADS = "uploads"


@dataclass(frozen=True, slots=True)
class Upload:
    """One document from a caller: `inline` text, or a file's bytes in `data` under the name `external_id`."""

    external_id: str
    uri: str
    rule: AccessRule
    title: str | None = None
    inline: InlineDocument | None = None
    data: bytes | None = None


@serve.deployment(name="Sync")
class Sync:
    """Applies changes one document at a time. What it acknowledges is searchable, and gone is gone."""

    def __init__(self, args: AppArgs, embedding: DeploymentHandle[Any]) -> None:
        parsing = args.ingest.parsing
        self._embedding = embedding
        self._key = PIPELINE_KEY
        self._ledger = Ledger(args.store.ledger)
        self._store = Stores(args)
        self._store.open()
        self._prepare = Preparation(
            self._ledger,
            Parser(parsing),
            Chunker(args.ingest.chunking, live_tokenizer(args)),
            parsing.max_attempts,
            int(parsing.max_file_mb * 1_000_000),
        )
        self._parsing = asyncio.Lock()  # one parser child

    async def put(self, caller: Principal, upload: Upload, may_overwrite: bool) -> Outcome:
        """Index a document, or its next version. `may_overwrite`: also what others uploaded and the caller may read.

        An id belongs to its uploader: the same id from somebody else is another document, so that nobody can
        overwrite, or learn of, what they may not see. Raises `Conflict` when a newer writer of the same document was
        faster: neither the text nor the rule of this one holds then.
        """
        entry = await asyncio.to_thread(self._entry, caller, upload, may_overwrite)
        async with self._parsing:
            prepared = await asyncio.to_thread(self._prepare, entry, lambda *_: upload.data or b"", caller.subject)
        if isinstance(prepared, Outcome):
            return await self._unchanged(prepared, entry)
        try:
            outcome = await self._write(prepared)
        except ModelsChanged:  # between the embedding and the writing
            outcome = await self._write(prepared)
        if outcome.status != "indexed":
            raise Conflict("another version of this document was written at the same time; send it again")
        return outcome

    async def set_rule(self, caller: Principal, document_id: str, rule: AccessRule) -> StoredDocument:
        """Change who may read. Raises `NotFound` unless the caller may read the document or uploaded it."""
        stored = await asyncio.to_thread(self._managed, caller, document_id)
        await asyncio.to_thread(change_rights, document_id, rule, self._ledger, self._store)
        return stored

    async def delete(self, caller: Principal, document_id: str) -> StoredDocument:
        """Delete. From the ledger's commit on no reader sees it; its rows go right after. Raises as `set_rule`."""
        stored = await asyncio.to_thread(self._managed, caller, document_id)
        await asyncio.to_thread(self._ledger.delete, [document_id])
        await asyncio.to_thread(sweep, self._ledger, self._store, [document_id])
        return stored

    async def check_health(self) -> None:
        """Raise when the store does not answer."""
        await asyncio.to_thread(self._store.healthy)

    async def _write(self, prepared: Prepared) -> Outcome:
        vectors, computed = await idempotent(lambda: self._embedding.passages.remote(prepared.texts))
        embedded = Embedded(prepared, tuple(vectors), sum(computed))
        run_id = f"upload-{uuid.uuid4().hex}"
        (outcome,) = await asyncio.to_thread(write, [embedded], self._ledger, self._store, run_id)
        return outcome

    async def _unchanged(self, outcome: Outcome, entry: Entry) -> Outcome:
        if outcome.status == "unchanged":  # the same text may come under other rights
            await asyncio.to_thread(change_rights, outcome.document_id, entry.ref.rule, self._ledger, self._store)
        return outcome

    def _entry(self, caller: Principal, upload: Upload, may_overwrite: bool) -> Entry:
        content = upload.data if upload.inline is None else f"{upload.title}\n{upload.inline.text}".encode()
        source, external_id = self._place(caller, upload.external_id, may_overwrite)
        ref = DocumentRef(
            tenant=caller.tenant,
            source=source,
            external_id=external_id,
            uri=upload.uri,
            title=upload.title,
            fingerprint=hashlib.sha256(content or b"").hexdigest(),
            rule=upload.rule,
            size_bytes=len(content or b""),
        )
        return stamped(Entry(ref=ref, location=upload.uri, inline=upload.inline), self._key)

    def _place(self, caller: Principal, external_id: str, may_overwrite: bool) -> tuple[str, str]:
        own = f"{UPLOADS}/{caller.subject}"
        if not may_overwrite:
            return own, external_id
        found = self._ledger.find(self._ledger.tenant_id(caller.tenant), external_id=external_id)
        if any(stored.owner == caller.subject for stored in found):
            return own, external_id
        for stored in found:
            record = self._ledger.get(caller, stored.document_id)
            if record is not None and record.source.startswith(f"{UPLOADS}/"):
                return record.source, external_id
        return own, external_id

    def _managed(self, caller: Principal, document_id: str) -> StoredDocument:
        # All is looked up before anything is decided: how long it takes must not tell what is hidden from what is not.
        stored = self._ledger.document(document_id)
        tenant_id = self._ledger.find_tenant(caller.tenant)
        readable = self._ledger.get(caller, document_id) is not None
        if stored is None or stored.deleted or stored.tenant_id != tenant_id:
            raise NotFound("no such document")
        if stored.owner != caller.subject and not readable:
            raise NotFound("no such document")
        return stored
