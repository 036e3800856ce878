"""What a person gets who asks what is kept about them: a zip with `subject.json` and the passages that say it.

    subject.json               who, when, from which sources, shown to whom, kept how long, and every place's rows
    documents/<id>.json        a document's passages that mention the person; all of them where it is named after them
    documents/<id>.txt         the same, to be read

Passages that do not mention the person are others' affairs and are left out. Those that do may name others as well:
the officer reads the zip before it leaves.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from index.ledger import Ledger
from index.subject_rows import Sought
from index.vectors import ChunkRow
from ingest.erasure import Erasure
from policies.audit_chain import AuditRecord

MOST_RECIPIENTS = 10_000
RECORDS_AT_ONCE = 1_000
Records = Callable[[int, int, str], list[AuditRecord]]
"""Gives the audit record of a tenant: after this number, so many."""


class AccessExport:
    """Makes exports. Raises `Unavailable` where a place does not answer."""

    def __init__(self, erasure: Erasure, ledger: Ledger, records: Records | None) -> None:
        self._erasure = erasure
        self._ledger = ledger
        self._records = records

    def make(
        self, who: Sought, subject: Mapping[str, Any], kind: str, retention: str, beat: Callable[[], None]
    ) -> tuple[bytes, dict[str, int]]:
        """Give the zip and how many documents and chunks are in it."""
        found = self._erasure.find(who, beat)
        named = set(self._erasure.named(who))
        documents = []
        for start in range(0, len(found.document_ids), 100):
            beat()
            documents += list(self._documents(who, found.document_ids[start : start + 100], named))
        chunks = sum(len(each["passages"]) for each in documents)
        about = {
            "request": kind,
            "made_at": _iso(datetime.now(UTC).timestamp()),
            "tenant": who.tenant,
            "subject": dict(subject),
            "sources": sorted({each["source"] for each in documents}),
            "retention": retention,
            "recipients": self._recipients(who, {each["document_id"] for each in documents}, beat),
            "documents": [{name: each[name] for name in each if name != "passages"} for each in documents],
            "elsewhere": {place.name: list(place.export(who)) for place in self._erasure.places},
        }
        return _zip(about, documents), {"documents": len(documents), "chunks": chunks}

    def _documents(self, who: Sought, ids: list[str], named: set[str]) -> Iterator[dict[str, Any]]:
        mentions = {each.version.document_id: each for each in self._erasure.of(who, ids)}
        whole = self._erasure.rows([each for each in ids if each in named])
        for document_id in ids:
            held = self._ledger.held(document_id)
            if held is None or held.document.deleted:
                continue
            rows = whole.get(document_id) or (mentions[document_id].chunks if document_id in mentions else [])
            stored = held.document
            yield {
                "document_id": document_id,
                "source": held.source,
                "external_id": stored.external_id,
                "title": stored.title,
                "uri": stored.uri,
                "named_after_the_subject": document_id in named,
                "indexed_at": _iso(stored.created_at),
                "updated_at": _iso(stored.updated_at),
                "passages": [_passage(row) for row in rows],
            }

    def _recipients(self, who: Sought, ids: set[str], beat: Callable[[], None]) -> list[dict[str, str]]:
        """List who was shown passages of these documents, and when, as the audit record says."""
        shown: list[dict[str, str]] = []
        after = 0
        while self._records is not None and len(shown) < MOST_RECIPIENTS:
            beat()
            records = self._records(after, RECORDS_AT_ONCE, who.tenant)
            if not records:
                break
            for record in records:
                of = sorted({chunk.split(".")[0] for chunk in record.chunks_shown} & ids)
                at = _iso(record.time / 1e6)
                shown += [{"who": record.actor, "at": at, "document_id": each} for each in of]
            after = records[-1].sequence
        return shown


def _passage(row: ChunkRow) -> dict[str, Any]:
    return {
        "position": row.position,
        "page": row.page,
        "start": row.start,
        "end": row.end,
        "under": row.context,
        "text": row.text,
    }


def _zip(about: Mapping[str, Any], documents: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("subject.json", _json(about))
        for each in documents:
            archive.writestr(f"documents/{each['document_id']}.json", _json(each))
            texts = [passage["text"] for passage in each["passages"]]
            archive.writestr(f"documents/{each['document_id']}.txt", "\n\n".join([str(each["title"]), *texts]))
    return buffer.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
