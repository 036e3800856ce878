"""Bulk ingestion as one Ray Data pipeline: plan → prepare → embed → write, streaming, with a report.

    entries ──▶ Prepare (child processes) ──▶ Embed (actor pool, GPU or CPU) ──▶ Write (rows, flip) ──▶ outcomes
    columns:  item: Entry      item: Prepared | Outcome     item: Embedded | Outcome     item: Outcome

A document's failure is its outcome and travels on as a value; an exception means that the run cannot go on.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from index.ledger import Ledger
from index.models import live_tokenizer
from index.policy_versions import policy_version
from index.settings import AppArgs
from index.stores import ModelsChanged, Stores
from index.suppressions import open_suppressions
from ingest.chunking import Chunker
from ingest.connector import Entry
from ingest.connectors.filesystem import local_path
from ingest.embedding import CachedEmbedder
from ingest.place import place_settings
from ingest.priority import step_aside
from ingest.report import Outcome, Report
from ingest.sandbox import Parser
from ingest.screening import Screening
from ingest.source_settings import SourceSettings
from ingest.source_sync import Progress, SourceSync
from ingest.sources import open_connector
from ingest.stages import Embedded, Preparation, Prepared, embed, embed_and_write, pipeline_key, write
from policies.access import AccessRule
from policies.audit import AuditLog
from policies.audit_changes import ChangeRecord
from policies.errors import ConfigurationError

if TYPE_CHECKING:
    import ray.data

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
Batch = dict[str, np.ndarray]


class Bulk:
    """One run over one place, as an operator names it, of one tenant."""

    def __init__(self, args: AppArgs, progress: Progress) -> None:
        self._args = args
        self._progress = progress
        self._audit = AuditLog(args.store.audit)
        self._ledger = Ledger(args.store.ledger)
        self._store = Stores(args)

    def run(self, uri: str, tenant: str, rule: AccessRule) -> Report:
        """Bring the index to what the source holds now.

        Raises `SourceUnavailable`, `ConfigurationError` and `Unavailable`.
        """
        self._store.open()
        name = source_name(uri)
        settings = place_settings(uri, tenant, name, rule)
        screening = Screening.of(self._args, self._ledger)
        sync = SourceSync(
            settings,
            uri,
            open_connector(settings),
            self._ledger,
            self._store,
            pipeline_key(screening, tenant, name),
            lambda entries: self._stream(settings, entries),
            self._progress,
            record=ChangeRecord(self._audit, policy_version(self._args), "bulk"),
            title=screening.title,
        )
        return sync.list(full=True)

    def _stream(self, settings: SourceSettings, entries: list[Entry]) -> Iterator[Outcome]:
        yield from stream(entries, self._args, settings)


def stream(entries: list[Entry], args: AppArgs, settings: SourceSettings) -> Iterator[Outcome]:
    """Process entries of a source with Ray Data; outcomes come as they are made."""
    dataset = pipeline(entries, args, settings, run_id=uuid.uuid4().hex)
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


def pipeline(entries: list[Entry], args: AppArgs, source: SourceSettings, run_id: str) -> ray.data.Dataset:
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
        fn_constructor_args=[args, source, settings.niceness],
        batch_size=max(1, size // 4),
        num_cpus=settings.parse_cpus,
        **_pool(1, settings.parse_concurrency),
    )
    dataset = dataset.map_batches(
        Embed,
        fn_constructor_args=[args, settings.niceness],
        batch_size=size,
        num_cpus=settings.embed_cpus,
        num_gpus=settings.embed_gpus,
        **_pool(settings.embed_actors, settings.embed_actors),
    )
    return dataset.map_batches(
        Write,
        fn_constructor_args=[args, run_id, settings.niceness],
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

    def __init__(self, args: AppArgs, source: SourceSettings, niceness: int = 0) -> None:
        step_aside(niceness)  # first: what is started from here on inherits it
        parsing = args.ingest.parsing
        chunker = Chunker(args.ingest.chunking, live_tokenizer(args))
        ledger = Ledger(args.store.ledger)
        self._prepare = Preparation(
            ledger,
            Parser(parsing),
            chunker,
            parsing.max_attempts,
            int(parsing.max_file_mb * 1_000_000),
            open_suppressions(args),
            screen=Screening.of(args, ledger),
        )
        self._fetch = open_connector(source).fetch

    def __call__(self, batch: Batch) -> Batch:
        return _column([self._prepare(entry, self._fetch) for entry in batch["item"]])


class Embed:
    """Stage: item Prepared → Embedded; an Outcome passes."""

    def __init__(self, args: AppArgs, niceness: int = 0) -> None:
        step_aside(niceness)
        self._embed = CachedEmbedder(args)

    def __call__(self, batch: Batch) -> Batch:
        items = list(batch["item"])
        prepared = [item for item in items if isinstance(item, Prepared)]
        rest = [item for item in items if not isinstance(item, Prepared)]
        return _column([*embed(prepared, self._embed), *rest])


class Write:
    """Stage: item Embedded → Outcome; an Outcome passes."""

    def __init__(self, args: AppArgs, run_id: str, niceness: int = 0) -> None:
        step_aside(niceness)
        self._run_id = run_id
        self._ledger = Ledger(args.store.ledger)
        self._store = Stores(args)
        self._store.open()
        self._embed = CachedEmbedder(args)  # loads no model before it is needed
        self._suppressions = open_suppressions(args)

    def __call__(self, batch: Batch) -> Batch:
        items = list(batch["item"])
        embedded = [item for item in items if isinstance(item, Embedded)]
        rest = [item for item in items if not isinstance(item, Embedded)]
        return _column([*self._write(embedded), *rest])

    def _write(self, embedded: list[Embedded]) -> list[Outcome]:
        try:
            return write(embedded, self._ledger, self._store, self._run_id, self._suppressions)
        except ModelsChanged:  # since they were embedded; or what may be written did
            prepared = [item.prepared for item in embedded]
            return embed_and_write(prepared, self._embed, self._ledger, self._store, self._run_id, self._suppressions)


def _column(items: list[Any]) -> Batch:
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return {"item": column}
