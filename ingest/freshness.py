"""Keeps sources fresh: one task for each source lists it when that is due, and looks where somebody said to.

    watch, hints in the ledger (webhooks, queues, `rayrag sources sync`) ──▶ look ─┐
    poll_s, full_s ────────────────────────────────────────────────────────▶ list ─┴▶ SourceSync ──▶ Turns ──▶ Worker

An event only says where to look. Listings on schedule are the safety net: a lost event costs time, never a document.
A source that fails keeps its cursor, says why, and is tried again later and later; the others do not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from index.ledger import Ledger
from index.ledger_records import SourceHint, StoredSource
from ingest.report import Report
from ingest.source_settings import QueueSettings, SourceSettings
from policies.errors import RayragError, SourceUnavailable, Unavailable

HINTS_EVERY_S = 0.2
TIDY_EVERY_S = 15.0
REOPEN_S = 15.0
TRIES = 3
"""An id that a source refuses to tell of this often is left to the listings."""
SETTLE_S = 0.05
"""A program that saves a file writes it more than once: hints that come together are followed together."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 300.0
LONGEST_ASKED_S = 3_600.0
MAX_THREADS = 64

T = TypeVar("T")
Follow = Callable[[QueueSettings, Callable[[Sequence[str]], Awaitable[None]]], Coroutine[Any, Any, None]]
log = logging.getLogger(__name__)


class Syncs(Protocol):
    """What can be done with a source: `SourceSync`."""

    def list(self, full: bool = False) -> Report:
        """Follow what changed, or everything."""
        ...

    def look(self, external_ids: Sequence[str], told_at: float | None = None) -> Report:
        """Bring these documents to what the source says."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A source made ready. `watch` yields ids as things change, none of them for "list"; it may be none."""

    settings: SourceSettings
    sync: Syncs
    watch: Callable[[], AsyncIterator[Sequence[str]] | None]


@dataclass(slots=True)
class _Wanted:
    """What is to be done for a source, and since when that is known."""

    ids: dict[str, float] = field(default_factory=dict)
    list_since: float | None = None
    hints: list[SourceHint] = field(default_factory=list)

    def add(self, external_ids: Sequence[str], at: float) -> None:
        for external_id in external_ids:
            self.ids.setdefault(external_id, at)
        if not external_ids and self.list_since is None:
            self.list_since = at

    def follow(self, hint: SourceHint) -> None:
        self.hints.append(hint)
        self.add([hint.external_id] if hint.external_id else [], hint.at)

    def __bool__(self) -> bool:
        return bool(self.ids) or self.list_since is not None


class Freshness:
    """Runs until it is cancelled. Which sources there are is read from the ledger, again and again."""

    def __init__(
        self,
        ledger: Ledger,
        open_source: Callable[[StoredSource], Opened],
        tidy: Callable[[], None],
        follow_queue: Follow,
        hide_overdue: Callable[[StoredSource], None],
    ) -> None:
        """`tidy` is called now and then, and when a source was dropped. `hide_overdue`: where one cannot be opened."""
        self._ledger = ledger
        self._open = open_source
        self._tidy = tidy
        self._follow_queue = follow_queue
        self._hide_overdue = hide_overdue
        self._tidy_at = 0.0
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="source")
        self._own_threads = ThreadPoolExecutor(2, thread_name_prefix="keeper")  # sources may keep all of theirs busy
        self._reopen_at: dict[int, float] = {}
        self._kept: dict[int, tuple[StoredSource, KeptSource, list[asyncio.Task[None]]]] = {}

    async def run(self) -> None:
        """Start and stop sources as the ledger says, and hand each its hints."""
        try:
            while True:
                try:
                    await self._follow_ledger()
                except Exception as error:
                    log.warning("keeping sources fresh: %s", _words(error), exc_info=_unforeseen(error))
                    await asyncio.sleep(FIRST_RETRY_S)
                await asyncio.sleep(HINTS_EVERY_S)
        finally:
            for _, kept, tasks in self._kept.values():
                kept.stop()
                _cancel(tasks)
            for threads in (self._threads, self._own_threads):
                threads.shutdown(wait=False, cancel_futures=True)

    async def _follow_ledger(self) -> None:
        stored = {source.source_id: source for source in await self._own(self._ledger.kept_sources)}
        for source_id, (known, kept, tasks) in list(self._kept.items()):
            if stored.get(source_id) != known or tasks[0].done():  # nothing of ours ends that task but a fault of ours
                if tasks[0].done() and (fault := tasks[0].exception()) is not None:
                    log.error("%s: it is started again after %s", known.name, _words(fault), exc_info=fault)
                kept.stop()
                _cancel(tasks)
                del self._kept[source_id]
                self._tidy_at = 0.0
        for source_id, source in stored.items():
            is_due = time.monotonic() >= self._reopen_at.get(source_id, 0.0)
            if source_id not in self._kept and not source.paused and is_due:
                await self._start(source)
        for hint in await self._own(self._ledger.hints):
            if hint.source_id in self._kept:
                self._kept[hint.source_id][1].follow(hint)
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_EVERY_S
            await self._own(self._tidy)

    async def _start(self, source: StoredSource) -> None:
        try:
            opened = await self._own(partial(self._open, source))
        except Exception as error:
            self._reopen_at[source.source_id] = time.monotonic() + REOPEN_S
            log.warning("%s: %s", source.name, _words(error), exc_info=_unforeseen(error))
            await self._own(partial(self._hide_overdue, source))
            await self._own(partial(self._ledger.run_fails, source.source_id, _words(error), time.time() + REOPEN_S))
            return
        kept = KeptSource(source, opened, self._ledger, self._thread)
        tasks = [asyncio.create_task(kept.run())]
        if opened.settings.watch:
            tasks.append(asyncio.create_task(kept.watch()))
        if opened.settings.queue is not None:
            tasks.append(asyncio.create_task(kept.follow_queue(opened.settings.queue, self._follow_queue)))
        self._kept[source.source_id] = (source, kept, tasks)

    async def _thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _own(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._own_threads, call)


class KeptSource:
    """One source: what is wanted of it, and doing that, one thing at a time."""

    def __init__(
        self,
        source: StoredSource,
        opened: Opened,
        ledger: Ledger,
        thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._source = source
        self._opened = opened
        self._ledger = ledger
        self._thread = thread
        self._wanted = _Wanted()
        self._following: set[tuple[str, float]] = set()
        self._refused: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._stopped = False

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped = True

    def want(self, external_ids: Sequence[str]) -> None:
        """Look at these documents, or list where none is named."""
        self._wanted.add(external_ids, time.time())
        self._wake.set()

    def follow(self, hint: SourceHint) -> None:
        """Do what a hint says, once, however often it is read from the ledger meanwhile."""
        if (hint.external_id, hint.at) in self._following:
            return
        self._following.add((hint.external_id, hint.at))
        self._wanted.follow(hint)
        self._wake.set()

    async def run(self) -> None:
        """List when it is due, look when somebody said so."""
        failures, due_at = 0, 0.0
        while not self._stopped:
            await self._until(due_at)
            wanted, self._wanted = self._wanted, _Wanted()
            listing = wanted.list_since is not None or time.monotonic() >= due_at
            try:
                unread = await self._do(wanted, listing)
            except Exception as error:  # noqa: BLE001 - a connector's fault must not end the others' freshness
                failures += 1
                due_at = await self._later(error, failures, wanted)
                continue
            if listing:
                failures = failures + 1 if unread else 0
                wait = retry_wait(failures) if unread else self._opened.settings.poll_s * random.uniform(0.9, 1.1)  # noqa: S311
                due_at = time.monotonic() + wait

    async def watch(self) -> None:
        """Follow what the source itself says, for as long as it can."""
        failures = 0
        while not self._stopped:
            try:
                events = self._opened.watch()
                if events is None:
                    return
                async for external_ids in events:
                    failures = 0
                    self.want(external_ids)
                return
            except Exception as error:
                failures += 1
                log.warning("%s: watching failed: %s", self._source.name, _words(error), exc_info=_unforeseen(error))
                await asyncio.sleep(retry_wait(failures))
                self.want([])  # something may have been missed

    async def follow_queue(self, settings: QueueSettings, follow: Follow) -> None:
        """Take messages of a queue for hints; each is in the ledger before it is acknowledged."""

        async def hint(external_ids: Sequence[str]) -> None:
            await self._thread(partial(self._ledger.hint, self._source.source_id, list(external_ids)))

        failures = 0
        settings = settings.model_copy(update={"group": settings.group or f"rayrag-{self._source.name}"})
        while not self._stopped:
            try:
                await follow(settings, hint)
                return
            except Exception as error:
                failures += 1
                log.warning("%s: its queue failed: %s", self._source.name, _words(error), exc_info=_unforeseen(error))
                await asyncio.sleep(retry_wait(failures))

    async def _until(self, due_at: float) -> None:
        if not self._wanted:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.0, due_at - time.monotonic()))
            except TimeoutError:
                return
            await asyncio.sleep(SETTLE_S)

    async def _do(self, wanted: _Wanted, listing: bool) -> int:
        """Look and list, and forget the hints that were followed; gives how many documents are to be read again."""
        unread = refused = 0
        if wanted.ids:
            refused = await self._look(wanted)
        if listing or wanted.list_since is not None:
            full = await self._thread(self._is_full_due)
            unread = (await self._thread(partial(self._opened.sync.list, full=full))).unread
        await self._thread(partial(self._ledger.clear_hints, wanted.hints))
        self._following.difference_update((hint.external_id, hint.at) for hint in wanted.hints)
        wanted.ids, wanted.hints = {}, []
        if refused:
            raise SourceUnavailable(f"{refused} of the documents that it was asked for could not be read")
        return unread

    async def _look(self, wanted: _Wanted) -> int:
        """Look at all ids, then at each one alone where that failed: one bad id must not hold up the others.

        Those that fail are wanted again, with their hints, until `TRIES`; then a listing takes their place.
        """
        look, told_at = self._opened.sync.look, min(wanted.ids.values())
        try:
            if not (await self._thread(partial(look, list(wanted.ids), told_at))).unread:
                return 0
        except Unavailable:
            raise
        except RayragError as error:
            log.info("%s: %s", self._source.name, error.detail)
        failed = {external_id for external_id, at in wanted.ids.items() if not await self._is_told(external_id, at)}
        for external_id in failed:
            self._refused[external_id] = self._refused.get(external_id, 0) + 1
            if self._refused[external_id] >= TRIES:
                del self._refused[external_id]
                wanted.add([], wanted.ids[external_id])
            else:
                self._wanted.add([external_id], wanted.ids[external_id])
        again = {external_id for external_id in failed if external_id in self._refused}
        self._wanted.hints += [hint for hint in wanted.hints if hint.external_id in again]
        wanted.hints = [hint for hint in wanted.hints if hint.external_id not in again]
        wanted.ids = {external_id: at for external_id, at in wanted.ids.items() if external_id not in failed}
        return len(failed)

    async def _is_told(self, external_id: str, told_at: float) -> bool:
        try:
            return not (await self._thread(partial(self._opened.sync.look, [external_id], told_at))).unread
        except Unavailable:
            raise
        except RayragError as error:
            log.warning("%s: one document: %s", self._source.name, error.detail)
            return False

    def _is_full_due(self) -> bool:
        run = self._ledger.source_run(self._source.source_id)
        return run is None or run.full_at is None or time.time() - run.full_at >= self._opened.settings.full_s

    async def _later(self, error: Exception, failures: int, wanted: _Wanted) -> float:
        """Say why, put back what was wanted, and wait; gives when the next listing is due."""
        wait = retry_wait(failures, getattr(error, "retry_after_s", None))
        log.warning("%s: %s; again in %.1f s", self._source.name, _words(error), wait, exc_info=_unforeseen(error))
        failed = partial(self._ledger.run_fails, self._source.source_id, _words(error), time.time() + wait)
        try:
            await self._thread(failed)
        except RayragError as unrecorded:
            log.warning("%s: that could not be recorded: %s", self._source.name, unrecorded.detail)
        for external_id, at in wanted.ids.items():
            self._wanted.add([external_id], at)
        unfollowed = [hint for hint in wanted.hints if (hint.external_id, hint.at) in self._following]
        self._wanted.hints += unfollowed
        await asyncio.sleep(wait)
        return time.monotonic()


def retry_wait(failures: int, retry_after_s: float | None = None) -> float:
    """Seconds to wait after so many failures in a row: doubling with full jitter, and never sooner than was asked."""
    longest = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, 16))
    asked = min(retry_after_s or 0.0, LONGEST_ASKED_S)
    return max(random.uniform(FIRST_RETRY_S / 2, longest), asked)  # noqa: S311 - jitter, not a secret


def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _words(error: BaseException) -> str:
    return error.detail if isinstance(error, RayragError) else f"an unforeseen error: {type(error).__name__}"


def _unforeseen(error: Exception) -> bool:
    return not isinstance(error, RayragError)
