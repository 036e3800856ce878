"""The sync deployment: single documents, through the same stages as bulk, without a job's start."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.calls import idempotent
from deployments.privacy_desk import PrivacyDesk
from index.document import DocumentRef, Vectors, document_id
from index.ledger import Ledger
from index.ledger_records import HeldDocument, StoredDocument
from index.models import live_tokenizer
from index.privacy_requests import PrivacyRequest
from index.settings import AppArgs
from index.stores import ModelsChanged, Stores
from index.suppressions import open_suppressions
from ingest.chunking import Chunker
from ingest.connector import Entry, InlineDocument
from ingest.privacy_work import Asked
from ingest.report import Outcome
from ingest.sandbox import Parser
from ingest.screening import Screening
from ingest.stages import (
    Embedded,
    Preparation,
    Prepared,
    change_rights,
    held_against,
    pipeline_key,
    stamped,
    sweep,
    write,
)
from policies.access import AccessRule
from policies.errors import Conflict, Held, InvalidRequest, NotFound
from policies.grants import Scope
from policies.labels import Label
from policies.principals import Principal

UPLOADS = "uploads"
RULE_TRIES = 5
_OVERTAKEN = "another version of this document was written at the same time; send it again"


@dataclass(frozen=True, slots=True)
class Upload:
    """One document from a caller: `inline` text, or a file's bytes in `data` under the name `external_id`.

    `label`: none where the caller says none; a document that is there keeps its own, and a new one gets the default.
    """

    external_id: str
    uri: str
    rule: AccessRule
    title: str | None = None
    inline: InlineDocument | None = None
    data: bytes | None = None
    label: Label | None = None


@serve.deployment(name="Sync")
class Sync:
    """Applies changes one document at a time. What it acknowledges is searchable, and gone is gone."""

    def __init__(self, args: AppArgs, embedding: DeploymentHandle[Any]) -> None:
        parsing = args.ingest.parsing
        self._embedding = embedding
        self._default_label = args.identity.default_label
        self._ledger = Ledger(args.store.ledger)
        self._screening = Screening.of(args, self._ledger)
        self._suppressions = open_suppressions(args)
        self._store = Stores(args)
        self._store.open()
        self._prepare = Preparation(
            self._ledger,
            Parser(parsing),
            Chunker(args.ingest.chunking, live_tokenizer(args)),
            parsing.max_attempts,
            int(parsing.max_file_mb * 1_000_000),
            self._suppressions,
            screen=self._screening,
        )
        self._parsing = asyncio.Lock()  # one parser child
        self._privacy = PrivacyDesk(args, self._passages)

    async def put(self, caller: Principal, upload: Upload, overwrite: Scope) -> Outcome:
        """Index a document, or its next version. `overwrite`: also what others uploaded there and the caller may read.

        An id belongs to its uploader: the same id from somebody else is another document, so that nobody can
        overwrite, or learn of, what they may not see. Raises `Conflict` when a newer writer of the same document was
        faster: neither the text nor the rule of this one holds then. Raises `NotFound` for a document whose label is
        above the caller's clearance, and `InvalidRequest` for such a label.
        """
        entry = await asyncio.to_thread(self._entry, caller, upload, overwrite)
        async with self._parsing:
            prepared = await asyncio.to_thread(self._prepare, entry, lambda *_: upload.data or b"", caller.subject)
        if isinstance(prepared, Outcome):
            if prepared.failure is Held:
                raise Held(prepared.reason or "held")
            return await self._unchanged(prepared, entry)
        try:
            outcome = await self._write(prepared)
        except ModelsChanged:  # between the embedding and the writing; or what may be written did
            outcome = await self._write(prepared)
        if outcome.status == "unchanged":
            raise Conflict(_OVERTAKEN)
        return outcome

    async def set_rule(
        self, caller: Principal, document_id: str, rule: AccessRule, label: Label | None, scope: Scope
    ) -> StoredDocument:
        """Change who may read; the label stays where none is given. `scope`: the sources for which the caller may.

        Raises `NotFound` for a document of another source, for one whose label is above the caller's clearance, and
        unless the caller may read the document or uploaded it; `InvalidRequest` for a label above their clearance;
        `Conflict` where others change the document's rule again and again.
        """
        return await asyncio.to_thread(self._set_rule, caller, document_id, rule, label, scope)

    async def delete(self, caller: Principal, document_id: str, scope: Scope) -> StoredDocument:
        """Delete. From the ledger's commit on no reader sees it; its rows go right after. Raises as `set_rule`."""
        stored = (await asyncio.to_thread(self._managed, caller, document_id, scope)).document
        held = await asyncio.to_thread(self._ledger.holds.of, [document_id])
        if document_id in held:
            raise Held(held[document_id])
        await asyncio.to_thread(self._ledger.delete, [document_id])
        await asyncio.to_thread(sweep, self._ledger, self._store, [document_id])
        return stored

    async def open_privacy(self, tenant: str, by: str, asked: Asked) -> PrivacyRequest:
        """Take a person's request. Raises `InvalidRequest` for an unclear one, `Conflict` for data that are held."""
        return await self._privacy.open(tenant, by, asked)

    async def privacy(self, tenant: str, request_id: str) -> PrivacyRequest:
        """Give a tenant's request. Raises `NotFound`, also for another tenant's."""
        return await self._privacy.get(tenant, request_id)

    async def privacy_export(self, tenant: str, request_id: str) -> bytes | None:
        """Give the zip of an access or a portability request; None where there is none, or no longer."""
        return await self._privacy.export(tenant, request_id)

    async def check_health(self) -> None:
        """Raise when the store does not answer. As often, look after people's requests that lost their worker."""
        await asyncio.to_thread(self._store.healthy)
        self._privacy.look()

    async def _passages(self, texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
        return await idempotent(lambda: self._embedding.passages.remote(list(texts)))

    async def _write(self, prepared: Prepared) -> Outcome:
        held, kept_out = await asyncio.to_thread(held_against, [prepared], self._suppressions)
        if kept_out:
            return kept_out[0]
        prepared = held[0]
        vectors, computed = await idempotent(lambda: self._embedding.passages.remote(prepared.texts))
        embedded = Embedded(prepared, tuple(vectors), sum(computed))
        run_id = f"upload-{uuid.uuid4().hex}"
        (outcome,) = await asyncio.to_thread(write, [embedded], self._ledger, self._store, run_id, self._suppressions)
        return outcome

    async def _unchanged(self, outcome: Outcome, entry: Entry) -> Outcome:
        if outcome.status != "unchanged":
            return outcome
        ref = entry.ref  # the same text may come under other rights, but not over those that were given meanwhile
        if not await asyncio.to_thread(
            change_rights, ref.document_id, ref.rule, self._ledger, self._store, ref.seen_at
        ):
            raise Conflict(_OVERTAKEN)
        return outcome

    def _set_rule(
        self, caller: Principal, document_id: str, rule: AccessRule, label: Label | None, scope: Scope
    ) -> StoredDocument:
        # What the caller may do, and the label that stays, are those of the rule that is replaced, and of no earlier.
        for _ in range(RULE_TRIES):
            held = self._managed(caller, document_id, scope)
            told = replace(rule, label=_within(caller, held.label if label is None else label))
            with suppress(Conflict):
                change_rights(document_id, told, self._ledger, self._store, instead_of=held.document.access_id)
                return held.document
        raise Conflict("the document's rule is being changed by others; send it again")

    def _entry(self, caller: Principal, upload: Upload, overwrite: Scope) -> Entry:
        content = upload.data if upload.inline is None else f"{upload.title}\n{upload.inline.text}".encode()
        seen_at = time.time()  # before the label is read: what is changed from here on is later than this upload
        source, external_id = self._place(caller, upload.external_id, overwrite)
        label = self._label(caller, upload, document_id(caller.tenant, source, external_id))
        ref = DocumentRef(
            tenant=caller.tenant,
            source=source,
            external_id=external_id,
            uri=upload.uri,
            title=upload.title,
            fingerprint=hashlib.sha256(content or b"").hexdigest(),
            rule=replace(upload.rule, label=label),
            size_bytes=len(content or b""),
            seen_at=seen_at,
        )
        key = pipeline_key(self._screening, caller.tenant, source)
        return stamped(Entry(ref=ref, location=upload.uri, inline=upload.inline), key)

    def _label(self, caller: Principal, upload: Upload, document_id: str) -> Label:
        held = self._ledger.held(document_id)
        there = held is not None and not held.document.deleted
        if held is not None and there and held.label > caller.clearance:
            raise NotFound("no such document")
        present = held.label if held is not None and there else self._default_label
        return _within(caller, present if upload.label is None else upload.label)

    def _place(self, caller: Principal, external_id: str, overwrite: Scope) -> tuple[str, str]:
        own = f"{UPLOADS}/{caller.subject}"
        if overwrite.is_nothing:
            return own, external_id
        found = self._ledger.find(self._ledger.tenant_id(caller.tenant), external_id=external_id)
        if any(stored.owner == caller.subject for stored in found):
            return own, external_id
        for stored in found:
            record = self._ledger.get(caller, stored.document_id)
            if record and record.source.startswith(f"{UPLOADS}/") and overwrite.covers(record.source):
                return record.source, external_id
        return own, external_id

    def _managed(self, caller: Principal, document_id: str, scope: Scope) -> HeldDocument:
        # All is looked up before anything is decided: how long it takes must not tell what is hidden from what is not.
        held = self._ledger.held(document_id)
        tenant_id = self._ledger.find_tenant(caller.tenant)
        readable = self._ledger.get(caller, document_id) is not None
        if held is None or held.document.deleted or held.document.tenant_id != tenant_id:
            raise NotFound("no such document")
        if not scope.covers(held.source) or held.label > caller.clearance:
            raise NotFound("no such document")
        if held.document.owner != caller.subject and not readable:
            raise NotFound("no such document")
        return held


def _within(caller: Principal, label: Label) -> Label:
    """Give the label back unless it is above the caller's clearance: they could not take it back."""
    if label > caller.clearance:
        raise InvalidRequest(f"label: {label.word} is above your clearance, {caller.clearance.word}")
    return label
