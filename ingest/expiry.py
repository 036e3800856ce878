"""What has been kept long enough goes: documents whose retention is over, unless somebody holds them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from index.ledger import Ledger
from index.vectors import Rows
from ingest.stages import sweep
from policies.audit_changes import UNRECORDED, ChangeRecord

BATCH = 500


@dataclass(slots=True)
class Expired:
    """What went, by id, and what stayed though its time is over, with the reason."""

    removed: list[str] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)


def expire(ledger: Ledger, store: Rows, record: ChangeRecord = UNRECORDED, now: float | None = None) -> Expired:
    """Remove what has expired by `now`. Each removal is on the record; what is held stays, and stays found.

    A document's time counts from when it was indexed first, whatever its later versions: a source that still has it
    does not bring it back (`ingest.screening`). Raises `Unavailable`.
    """
    moment = time.time() if now is None else now
    result = Expired()
    due = ledger.classifications.expired(moment, most=100_000)
    places: dict[tuple[str, str], list[str]] = {}
    for document_id, tenant, source in due:
        places.setdefault((tenant, source), []).append(document_id)
    for (tenant, source), ids in places.items():
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            held = ledger.holds.of(batch, moment)
            result.held |= held
            _remove(ledger, record, tenant, source, [each for each in batch if each not in held], result)
    if result.removed:
        sweep(ledger, store, result.removed)
    return result


def _remove(ledger: Ledger, record: ChangeRecord, tenant: str, source: str, ids: list[str], result: Expired) -> None:
    if not ids:
        return
    with record.run(tenant, ledger.source_number(tenant, source), source) as run:
        run.begins(expire=ids)
        ledger.delete(ids)
        for document_id in ids:
            run.became(document_id, "expired")
    result.removed += ids


def held_of(ledger: Ledger, source_id: int) -> Mapping[str, str]:
    """Give what of a source is held, with the reasons: it cannot be removed with the source."""
    return ledger.holds.of([document.document_id for document in ledger.known(source_id)])
