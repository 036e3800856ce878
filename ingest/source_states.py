"""How each source is doing, in words and numbers: for the command line and for `GET /v1/sources`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from index.ledger import Ledger
from index.ledger_records import SourceRun, StoredSource
from ingest.sources import parse_source, uri_of
from policies.errors import ConfigurationError

CHANGES = ("discovered", "created", "updated", "deleted", "access_changed", "unchanged", "quarantined")
State = Literal["waiting", "syncing", "current", "failing", "paused"]


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source. `lag_s`: for so long the index may miss what changed; none before the first good listing."""

    name: str
    kind: str
    uri: str
    state: State
    documents: int
    dead_letters: int
    as_of: str | None
    lag_s: float | None
    behind: bool
    failures: int
    last_error: str | None
    retry_in_s: float | None
    hints: int
    changes: dict[str, int]


def source_states(ledger: Ledger, tenant: str | None = None) -> Sequence[SourceState]:
    """Describe the sources of a tenant, or of all, that are kept fresh."""
    documents, dead = ledger.source_documents(), ledger.count_dead_letters()
    hints = Counter(hint.source_id for hint in ledger.hints())
    return [
        _state(source, ledger.source_run(source.source_id), documents, dead, hints)
        for source in ledger.kept_sources()
        if tenant in (None, source.tenant)
    ]


def _state(
    source: StoredSource, run: SourceRun | None, documents: dict[int, int], dead: dict[int, int], hints: Counter[int]
) -> SourceState:
    kind, uri, allowed_s = _described(source)
    now = time.time()
    lag = None if run is None or run.as_of is None else max(0.0, now - run.as_of)
    report = json.loads(run.report) if run is not None and run.report else {}
    return SourceState(
        name=source.name,
        kind=kind,
        uri=uri,
        state=_word(source, run),
        documents=documents.get(source.source_id, 0),
        dead_letters=dead.get(source.source_id, 0),
        as_of=None if run is None or run.as_of is None else _iso(run.as_of),
        lag_s=None if lag is None else round(lag, 1),
        behind=not source.paused and (lag is None or lag > allowed_s),
        failures=run.failures if run is not None else 0,
        last_error=run.error if run is not None else None,
        retry_in_s=round(max(0.0, run.retry_at - now), 1) if run is not None and run.retry_at is not None else None,
        hints=hints.get(source.source_id, 0),
        changes={key: int(report[key]) for key in CHANGES if key in report},
    )


def _described(source: StoredSource) -> tuple[str, str, float]:
    """Kind, place, and the longest lag that is as it should be, in seconds."""
    try:
        settings = parse_source(source.config, source.name)
    except ConfigurationError:  # settings of another version: `last_error` says so
        return "unknown", "", 0.0
    return str(settings.model_dump()["kind"]), uri_of(settings), settings.poll_s * 1.1 + settings.objective_s


def _word(source: StoredSource, run: SourceRun | None) -> State:
    if source.paused:
        return "paused"
    if run is None:
        return "waiting"
    if run.failures:
        return "failing"
    return "syncing" if run.ended_at is None else "current"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
