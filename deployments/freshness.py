"""The deployment that keeps sources fresh: watches, hints and schedules, with workers of its own; it signs the audit.

One replica: two would do the same work twice, and no harm. Many documents at once go through Ray Data, as in bulk.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.audit_signing import audit_signing
from deployments.calls import REPLICA_LOST
from deployments.identity import audit_log, policy_version
from deployments.metrics import Metrics
from index.document import Vectors
from index.ledger import Ledger
from index.ledger_records import StoredSource
from index.models import live_tokenizer
from index.settings import AppArgs
from index.stores import Stores
from index.suppressions import open_suppressions
from ingest.bulk import stream
from ingest.chunking import Chunker
from ingest.connector import Entry
from ingest.expiry import expire
from ingest.freshness import Freshness as Keeper
from ingest.freshness import Opened
from ingest.hiding import hide_overdue
from ingest.queues import follow_queue
from ingest.report import Outcome
from ingest.sandbox import Parser
from ingest.screening import Screening
from ingest.source_settings import SourceSettings
from ingest.source_states import source_states
from ingest.source_sync import SourceSync
from ingest.sources import open_connector, parse_source, read_sources_file, uri_of
from ingest.stages import Fetch, Preparation, pipeline_key, process, sweep
from ingest.turns import Turns
from policies.audit_changes import ChangeRecord
from policies.errors import SourceUnavailable, Unavailable

EMBEDDING_TIMEOUT_S = 120.0
log = logging.getLogger("ray.serve")


@serve.deployment(name="Freshness")
class Freshness:
    """Runs `ingest.freshness` on a thread and an event loop of its own."""

    def __init__(self, args: AppArgs, embedding: DeploymentHandle[Any]) -> None:
        self._args = args
        self._embedding = embedding
        self._ledger = Ledger(args.store.ledger)
        self._screening = Screening.of(args, self._ledger)
        self._expire_at = 0.0
        self._store = Stores(args)
        self._store.open()
        self._metrics = Metrics("freshness")
        self._record = ChangeRecord(audit_log(args), policy_version(args), "sources")
        self._signing = audit_signing(args, self._metrics)
        self._suppressions = open_suppressions(args)
        self._turns = Turns([self._worker() for _ in range(args.sync.workers)])
        self._bulk = threading.Lock()  # one pipeline at a time
        self._keep_named()
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)
        self._thread.start()

    async def check_health(self) -> None:
        """Raise when nothing keeps the sources fresh any more."""
        if not self._thread.is_alive():
            raise Unavailable("nothing keeps the sources fresh")
        if not self._signing.alive:
            raise Unavailable("nothing signs the audit record")

    async def running(self) -> bool:
        """Say whether the sources are kept fresh."""
        return self._thread.is_alive()

    def _worker(self) -> Preparation:
        parsing = self._args.ingest.parsing
        chunker = Chunker(self._args.ingest.chunking, live_tokenizer(self._args))
        max_bytes = int(parsing.max_file_mb * 1_000_000)
        return Preparation(
            self._ledger,
            Parser(parsing),
            chunker,
            parsing.max_attempts,
            max_bytes,
            self._suppressions,
            screen=self._screening,
        )

    def _keep_named(self) -> None:
        if self._args.sync.sources_file:
            for settings in read_sources_file(Path(self._args.sync.sources_file)):
                config = settings.model_dump_json(exclude_unset=True)
                self._ledger.keep_source(settings.tenant, settings.name, uri_of(settings), config)

    def _run(self) -> None:
        hide = partial(hide_overdue, ledger=self._ledger, store=self._store, record=self._record)
        keeper = Keeper(self._ledger, self._open, self._tidy, follow_queue, hide)
        try:
            asyncio.run(keeper.run())
        except Exception:
            log.exception("the sources are kept fresh no longer")
            raise

    def _open(self, source: StoredSource) -> Opened:
        settings = parse_source(source.config, source.name).with_label(self._args.identity.default_label)
        sync = SourceSync(
            settings,
            uri_of(settings),
            connector := open_connector(settings),
            self._ledger,
            self._store,
            pipeline_key(self._screening, settings.tenant, settings.name),
            partial(self._process, source, settings, connector.fetch),
            observe=lambda seconds: self._metrics.fresh(settings.name, seconds, settings.objective_s),
            record=self._record,
            title=self._screening.title,
        )
        return Opened(settings, sync, lambda: open_connector(settings).watch())

    def _process(
        self, source: StoredSource, settings: SourceSettings, fetch: Fetch, entries: list[Entry]
    ) -> Iterator[Outcome]:
        sync = self._args.sync
        if len(entries) > sync.bulk_over:
            with self._bulk:
                for outcome in stream(entries, self._args, settings):
                    self._still_wanted(source)
                    yield outcome
            return
        run_id = f"sync-{uuid.uuid4().hex}"
        for start in range(0, len(entries), sync.slice_documents):
            few = entries[start : start + sync.slice_documents]
            self._still_wanted(source)
            with self._turns.turn() as prepare:
                outcomes = process(
                    few, fetch, prepare, self._embed, self._ledger, self._store, run_id, self._suppressions
                )
            yield from outcomes

    def _still_wanted(self, source: StoredSource) -> None:
        if not self._ledger.is_kept(source.source_id, source.config):
            raise SourceUnavailable(f"{source.name} was paused, changed or removed meanwhile")

    def _tidy(self) -> None:
        """Remove what no reader can reach any more, and show how the sources are doing."""
        sweep(self._ledger, self._store)
        if time.monotonic() >= self._expire_at:
            self._expire_at = time.monotonic() + self._args.compliance.expire_every_s
            expire(self._ledger, self._store, self._record)
        for state in source_states(self._ledger):
            self._metrics.dead_letters(state.name, state.dead_letters)
            if state.lag_s is not None:
                self._metrics.lag(state.name, state.lag_s)

    def _embed(self, texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
        """Embed through the embedding deployment, a batch at a time so that questions come in between."""
        vectors: list[Vectors] = []
        computed: list[bool] = []
        size = self._args.embedding.batch_size
        for start in range(0, len(texts), size):
            some = list(texts[start : start + size])
            try:
                made = self._embedding.passages.remote(some).result(timeout_s=EMBEDDING_TIMEOUT_S)
            except REPLICA_LOST:
                made = self._embedding.passages.remote(some).result(timeout_s=EMBEDDING_TIMEOUT_S)
            vectors += made[0]
            computed += made[1]
        return vectors, computed
