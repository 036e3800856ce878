"""Keeping sources fresh: schedules, hints, retries and fairness, over a real ledger and syncs that the test scripts."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from index.ledger import Ledger
from ingest import freshness
from ingest.freshness import Freshness, Opened, retry_wait
from ingest.report import Report
from ingest.source_settings import SourceSettings
from policies.errors import SourceUnavailable


class Script:
    """A sync that notes what it is asked, and does what the test says."""

    def __init__(self, ledger: Ledger, source_id: int) -> None:
        self.ledger, self.source_id = ledger, source_id
        self.done: list[object] = []
        self.fail: list[Exception] = []
        self.unread: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        self.events: asyncio.Queue[list[str]] = asyncio.Queue()

    def list(self, full=False):
        self._do("full" if full else "list")
        report = Report(unread=self.unread.pop(0) if self.unread else 0)
        self.ledger.run_begins(self.source_id)
        self.ledger.run_succeeds(self.source_id, time.time(), full, "{}")
        return report

    def look(self, external_ids, told_at=None):
        self._do(tuple(sorted(external_ids)))
        return Report()

    def _do(self, what) -> None:
        self.hold.wait(10)
        if self.fail:
            raise self.fail.pop(0)
        self.done.append(what)

    async def watch(self):
        while True:
            yield await self.events.get()


class Desk:
    """Runs what keeps sources fresh for as long as a test lasts."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(url)
        self.scripts: dict[str, Script] = {}
        self.tidied = 0
        self.hidden: list[str] = []

    def add(self, name: str, **settings: object) -> Script:
        given = SourceSettings(name=name, tenant="acme", **{"poll_s": 1000, **settings})
        source_id = self.ledger.keep_source("acme", name, name, given.model_dump_json(exclude_unset=True))
        return self.scripts.setdefault(name, Script(self.ledger, source_id))

    def open(self, stored):
        script = self.scripts[stored.name]
        return Opened(SourceSettings.model_validate_json(stored.config), script, script.watch)

    def tidy(self) -> None:
        self.tidied += 1

    def hide(self, stored) -> None:
        self.hidden.append(stored.name)

    async def no_queue(self, settings, hint) -> None: ...

    async def during(self, what) -> None:
        keeper = asyncio.create_task(Freshness(self.ledger, self.open, self.tidy, self.no_queue, self.hide).run())
        try:
            await asyncio.wait_for(what(), 60)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(freshness, "HINTS_EVERY_S", 0.02)
    monkeypatch.setattr(freshness, "FIRST_RETRY_S", 0.02)
    made = Desk(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield made
    made.ledger.close()


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_source_is_listed_as_a_whole_at_first_and_then_by_its_changes(desk):
    script = desk.add("wiki", poll_s=0.05)

    async def what():
        await until(lambda: len(script.done) >= 3)

    asyncio.run(desk.during(what))
    assert script.done[:3] == ["full", "list", "list"]


def test_everything_is_listed_again_when_that_is_due(desk):
    script = desk.add("wiki", poll_s=0.02, full_s=0.3)

    async def what():
        await until(lambda: script.done.count("full") >= 3)

    asyncio.run(desk.during(what))
    assert "list" in script.done


def test_a_hint_is_followed_and_then_forgotten(desk):
    script = desk.add("wiki")

    async def what():
        await until(lambda: script.done)
        desk.ledger.hint(script.source_id, ["b", "a"])
        await until(lambda: len(script.done) == 2 and not desk.ledger.hints())

    asyncio.run(desk.during(what))
    assert script.done == ["full", ("a", "b")]


def test_a_hint_that_failed_is_followed_again(desk):
    script = desk.add("wiki")

    async def what():
        await until(lambda: script.done)
        script.fail = [SourceUnavailable("closed"), SourceUnavailable("closed")]
        desk.ledger.hint(script.source_id, ["a"])
        await until(lambda: ("a",) in script.done and not desk.ledger.hints())

    asyncio.run(desk.during(what))
    assert script.done[1] == ("a",)


def test_a_hint_given_while_it_is_followed_is_followed_once_more(desk):
    script = desk.add("wiki")

    async def what():
        await until(lambda: script.done)
        script.hold.clear()
        desk.ledger.hint(script.source_id, ["a"])
        await asyncio.sleep(0.3)
        desk.ledger.hint(script.source_id, ["a"])
        await asyncio.sleep(0.1)
        script.hold.set()
        await until(lambda: script.done.count(("a",)) == 2 and not desk.ledger.hints())

    asyncio.run(desk.during(what))


def test_what_the_source_says_itself_is_looked_at(desk):
    script = desk.add("wiki")

    async def what():
        await until(lambda: script.done)
        await script.events.put(["a"])
        await until(lambda: ("a",) in script.done)
        await script.events.put([])
        await until(lambda: len(script.done) == 3)

    asyncio.run(desk.during(what))
    assert script.done == ["full", ("a",), "list"]


def test_a_failing_source_says_why_is_tried_again_and_holds_up_nobody(desk):
    bad, good = desk.add("bad"), desk.add("good", poll_s=0.05)
    bad.fail = [SourceUnavailable("the wiki is closed", retry_after_s=8)] + [ValueError("a bug")] * 2
    seen = []

    async def what():
        await until(lambda: (run := desk.ledger.source_run(bad.source_id)) is not None and run.failures)
        run = desk.ledger.source_run(bad.source_id)
        seen.append((run.error, run.retry_at - run.ended_at > 7.9))
        await until(lambda: len(good.done) >= 3)
        seen.append(list(bad.done))
        await until(lambda: bad.done and not desk.ledger.source_run(bad.source_id).failures)

    asyncio.run(desk.during(what))
    assert seen == [("the wiki is closed", True), []]
    run = desk.ledger.source_run(bad.source_id)
    assert (run.failures, run.error) == (0, None) and run.as_of is not None


def test_unread_documents_are_tried_again_soon(desk):
    script = desk.add("wiki")
    script.unread = [2, 1]

    async def what():
        await until(lambda: len(script.done) == 3)

    asyncio.run(desk.during(what))


def test_a_paused_source_rests_and_goes_on(desk):
    script = desk.add("wiki", poll_s=0.03)

    async def what():
        await until(lambda: script.done)
        desk.ledger.pause_source(script.source_id, True)
        await asyncio.sleep(0.3)
        before = len(script.done)
        await asyncio.sleep(0.3)
        assert len(script.done) == before
        desk.ledger.pause_source(script.source_id, False)
        await until(lambda: len(script.done) > before)

    asyncio.run(desk.during(what))


def test_a_source_that_is_added_removed_or_changed_counts_at_once(desk):
    first = desk.add("first")

    async def what():
        await until(lambda: first.done)
        second = desk.add("second")
        await until(lambda: second.done)
        desk.ledger.forget_source(second.source_id)
        desk.add("first", poll_s=0.05)
        await until(lambda: len(first.done) >= 3)
        assert len(second.done) == 1

    asyncio.run(desk.during(what))
    assert desk.tidied >= 1


def test_waiting_grows_with_the_failures_is_never_shorter_than_asked_and_has_an_end():
    assert all(0.5 <= retry_wait(1) <= 2 for _ in range(100))
    assert max(retry_wait(5) for _ in range(200)) > 10
    assert all(retry_wait(100) <= 300 for _ in range(100))
    assert retry_wait(1, retry_after_s=77) == 77


def test_one_id_that_the_source_refuses_holds_up_neither_the_others_nor_the_listings(desk):
    script = desk.add("wiki", poll_s=0.2)
    look = script.look

    def refusing(external_ids, told_at=None):
        if "poison" in external_ids:
            raise SourceUnavailable("500")
        return look(external_ids, told_at)

    script.look = refusing

    async def what():
        await until(lambda: script.done)
        desk.ledger.hint(script.source_id, ["good", "poison"])
        await until(lambda: ("good",) in script.done and not desk.ledger.hints())
        listed = len(script.done)
        await until(lambda: len(script.done) > listed + 1)

    asyncio.run(desk.during(what))
    assert script.done.count(("good",)) == 1 and desk.ledger.source_run(script.source_id).failures == 0


def test_a_source_that_could_not_be_opened_is_opened_later(desk, monkeypatch):
    monkeypatch.setattr(freshness, "REOPEN_S", 0.1)
    script, failures = desk.add("wiki"), [ValueError("a bug"), SourceUnavailable("closed")]
    opened = desk.open

    def open_source(stored):
        if failures:
            raise failures.pop(0)
        return opened(stored)

    desk.open = open_source

    async def what():
        await until(lambda: script.done)

    asyncio.run(desk.during(what))
    assert not failures
    assert desk.hidden == ["wiki", "wiki"], "where its rights are too old"


def test_a_source_whose_task_ended_by_a_fault_of_ours_is_started_again(desk, monkeypatch):
    script, later = desk.add("wiki"), freshness.KeptSource._later
    script.fail = [SourceUnavailable("closed")]

    async def faulty(self, *arguments):
        monkeypatch.setattr(freshness.KeptSource, "_later", later)
        raise ValueError("a bug")

    monkeypatch.setattr(freshness.KeptSource, "_later", faulty)

    async def what():
        await until(lambda: script.done)

    asyncio.run(desk.during(what))
    assert script.done[0] == "full"
