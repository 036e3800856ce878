"""Bulk ingestion as one Ray Data pipeline: plan → prepare → embed → write, streaming, with a report.

    entries ──▶ Prepare (child processes) ──▶ Embed (actor pool, GPU or CPU) ──▶ Write (rows, flip) ──▶ outcomes
    columns:  item: Entry      item: Prepared | Outcome     item: Embedded | Outcome     item: Outcome

A document's failure is its outcome and travels on as a value; an exception means that the run cannot go on.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from index.embedding import identify
from index.ledger import Ledger
from index.settings import AppArgs
from index.vectors import VectorStore
from ingest.chunking import Chunker
from ingest.connector import Entry
from ingest.embedding import CachedEmbedder
from ingest.listing import list_source, local_path
from ingest.plan import SyncPlan, plan
from ingest.report import Outcome, Report
from ingest.sandbox import Parser
from ingest.stages import (
    Embedded,
    Preparation,
    Prepared,
    change_rights,
    embed,
    narrow_rights,
    pipeline_key,
    repoint,
    stamped,
    sweep,
    write,
)
from policies.access import AccessRule
from policies.errors import ConfigurationError

if TYPE_CHECKING:
    import ray.data

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
Batch = dict[str, np.ndarray]
Progress = Callable[[Report], None]


class Bulk:
    """One run over one source of one tenant."""

    def __init__(self, args: AppArgs, progress: Progress) -> None:
        self._args = args
        self._progress = progress
        self._model = identify(args.embedding)
        self._ledger = Ledger(args.store.ledger)
        self._store = VectorStore(args.store, self._model.model_id, self._model.dim)

    def run(self, uri: str, tenant: str, rule: AccessRule) -> Report:
        """Bring the index to what the source holds now.

        Raises `SourceUnavailable`, `ConfigurationError` and `Unavailable`.
        """
        started = time.monotonic()
        self._store.open()
        source_id = self._ledger.source_id(tenant, source_name(uri), uri)
        todo = self._plan(uri, tenant, rule, source_id)
        report = Report(discovered=todo.discovered, unchanged=todo.unchanged)
        self._settle(todo, source_id, report)
        self._progress(report)
        if todo.process:
            awaited = {entry.ref.document_id: entry.ref.rule for entry in todo.narrowed}
            for outcome in self._stream(todo.process):
                self._open(outcome, awaited)
                report.add(outcome)
                report.seconds = time.monotonic() - started
                self._progress(report)
        self._store.flush()
        report.seconds = time.monotonic() - started
        return report

    def _plan(self, uri: str, tenant: str, rule: AccessRule, source_id: int) -> SyncPlan:
        tenant_id = self._ledger.tenant_id(tenant)
        source = source_name(uri)
        key = pipeline_key(self._model.model_id)
        listing = (stamped(entry, key) for entry in list_source(uri, tenant, source, rule))
        known = {document.document_id: document for document in self._ledger.known(source_id)}
        return plan(listing, known, lambda wanted: self._ledger.intern_rule(tenant_id, wanted), complete=True)

    def _settle(self, todo: SyncPlan, source_id: int, report: Report) -> None:
        """Do what needs no pipeline. Rights and deletions come before any new text."""
        report.deleted = self._ledger.delete(todo.deleted)
        sweep(self._ledger, self._store)
        for rows in self._ledger.unwritten_rules(source_id):
            repoint(rows, self._ledger, self._store)
        for entry in todo.narrowed:
            narrow_rights(entry.ref.document_id, entry.ref.rule, self._ledger, self._store)
        for entry in todo.rights:
            change_rights(entry.ref.document_id, entry.ref.rule, self._ledger, self._store)
            report.indexed += 1
        for entry in todo.relabelled:
            self._ledger.touch(entry.ref.document_id, entry.ref.fingerprint, entry.ref.uri, entry.ref.title)
        for entry in todo.rejected:
            reason = entry.error or "no reason was given"
            self._ledger.reject(entry.ref, reason, 1)
            report.reject(entry.ref.uri, reason)

    def _open(self, outcome: Outcome, awaited: Mapping[str, AccessRule]) -> None:
        """Give a narrowed document the whole rule where its text turned out to be the one that is live."""
        is_live = outcome.status == "unchanged" and outcome.version is not None
        if is_live and outcome.document_id in awaited:
            change_rights(outcome.document_id, awaited[outcome.document_id], self._ledger, self._store)

    def _stream(self, entries: list[Entry]) -> Iterator[Outcome]:
        dataset = pipeline(entries, self._args, run_id=uuid.uuid4().hex)
        for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            yield from batch["item"]


def source_name(uri: str) -> str:
    """Name a bulk source by its place, so that the next run over it finds what this one wrote.

    A path from the root, or a URL: never the name of a source that is none of these, such as somebody's uploads. A run
    deletes what its listing does not name. Raises `ConfigurationError`.
    """
    local = local_path(uri)
    if local is not None:
        return str(local.absolute())
    if not _URL.match(uri):
        raise ConfigurationError(f"{uri}: the source is neither a path nor a URL")
    return uri.rstrip("/")


def pipeline(entries: list[Entry], args: AppArgs, run_id: str) -> ray.data.Dataset:
    """Build the streaming dataset; its rows are one `Outcome` for each entry, in no particular order."""
    import ray.data

    settings = args.ingest
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = max(300, int(settings.parsing.timeout_s * 4))
    size = settings.batch_documents
    blocks = max(1, -(-len(entries) // size))
    dataset: ray.data.Dataset = ray.data.from_items([{"item": entry} for entry in entries], override_num_blocks=blocks)
    dataset = dataset.map_batches(
        Prepare,
        fn_constructor_args=[args],
        batch_size=max(1, size // 4),
        num_cpus=settings.parse_cpus,
        **_pool(1, settings.parse_concurrency),
    )
    dataset = dataset.map_batches(
        Embed,
        fn_constructor_args=[args],
        batch_size=size,
        num_cpus=settings.embed_cpus,
        num_gpus=settings.embed_gpus,
        **_pool(settings.embed_actors, settings.embed_actors),
    )
    return dataset.map_batches(
        Write,
        fn_constructor_args=[args, run_id],
        batch_size=size,
        num_cpus=settings.write_cpus,
        **_pool(1, settings.write_concurrency),
    )


def _pool(smallest: int, largest: int) -> dict[str, Any]:
    from ray.data import ActorPoolStrategy

    # Ray restarts map actors and repeats their tasks without end by default; a stage that keeps dying must end the run.
    return {
        "compute": ActorPoolStrategy(min_size=smallest, max_size=largest),
        "max_restarts": 3,
        "max_task_retries": 3,
    }


class Prepare:
    """Stage: item Entry → Prepared | Outcome."""

    def __init__(self, args: AppArgs) -> None:
        parsing = args.ingest.parsing
        chunker = Chunker(args.ingest.chunking, identify(args.embedding).tokenizer_file)
        self._prepare = Preparation(
            Ledger(args.store.ledger),
            Parser(parsing),
            chunker,
            parsing.max_attempts,
            int(parsing.max_file_mb * 1_000_000),
        )

    def __call__(self, batch: Batch) -> Batch:
        return _column([self._prepare(entry) for entry in batch["item"]])


class Embed:
    """Stage: item Prepared → Embedded; an Outcome passes."""

    def __init__(self, args: AppArgs) -> None:
        self._embed = CachedEmbedder(args)

    def __call__(self, batch: Batch) -> Batch:
        items = list(batch["item"])
        prepared = [item for item in items if isinstance(item, Prepared)]
        rest = [item for item in items if not isinstance(item, Prepared)]
        return _column([*embed(prepared, self._embed), *rest])


class Write:
    """Stage: item Embedded → Outcome; an Outcome passes."""

    def __init__(self, args: AppArgs, run_id: str) -> None:
        model = identify(args.embedding)
        self._run_id = run_id
        self._ledger = Ledger(args.store.ledger)
        self._store = VectorStore(args.store, model.model_id, model.dim)
        self._store.open()

    def __call__(self, batch: Batch) -> Batch:
        items = list(batch["item"])
        embedded = [item for item in items if isinstance(item, Embedded)]
        rest = [item for item in items if not isinstance(item, Embedded)]
        return _column([*write(embedded, self._ledger, self._store, self._run_id), *rest])


def _column(items: list[Any]) -> Batch:
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return {"item": column}
