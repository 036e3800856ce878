from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policies.audit import AuditLog
from policies.audit_chain import AuditIntent, AuditOutcome
from policies.citations import Evidence
from policies.errors import (
    ContentBlocked,
    Forbidden,
    NotFound,
    Overloaded,
    RayragError,
    Unauthenticated,
    Unavailable,
)
from policies.guard import Guard, GuardedRequest, Screens
from policies.principals import Principal
from policies.roles import Roles

ADA = Principal("ada", "acme", frozenset({"user"}))
EVIDENCE = [Evidence("c1", "d1", "Managers approve requests.", 0, 26)]


@dataclass
class Witness:
    """Everything that a guard asks for, in memory: notes who was called, in order, and fails where it is told to."""

    calls: list[str] = field(default_factory=list)
    records: list[AuditIntent | AuditOutcome] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    principal: Principal = ADA
    write_s: float = 0.0

    def verify(self, token: str) -> Principal:
        self.calls.append("verify")
        if token != "good":
            raise Unauthenticated("no")
        return self.principal

    def intent(self, intent: AuditIntent) -> int:
        return self._record("intent", intent)

    def outcome(self, outcome: AuditOutcome) -> int:
        return self._record("outcome", outcome)

    def _record(self, kind: str, record: AuditIntent | AuditOutcome) -> int:
        time.sleep(self.write_s)
        self.calls.append(kind)
        if kind in self.fails:
            raise Unavailable("the record is down")
        self.records.append(record)
        return len(self.records)

    def screen(self, name: str, change: Callable[[str], str] = str) -> Callable[[str, Principal], str]:
        def run(text: str, principal: Principal) -> str:
            assert principal == self.principal
            self.calls.append(name)
            return change(text)

        return run

    @property
    def outcomes(self) -> list[str]:
        return [record.outcome for record in self.records if isinstance(record, AuditOutcome)]


def make_guard(witness: Witness, **parts: Any) -> Guard:
    return Guard(witness, Roles.load(), witness, "policy-7", **parts)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def answered(guard: Guard, token: str = "good", permission: str = "rag:query") -> str:
    caller = await guard.authenticate(token)
    async with guard.request(caller, permission, "query", "r1", {"question_hash": "aa"}) as request:
        question = await request.question("why")
        request.shown(["c1", "c2"], withheld=4)
        context = await request.context("passage")
        output = await request.output(f"{question} {context}")
        return request.cite(output, EVIDENCE).answer


def test_the_order_of_checks() -> None:
    witness = Witness()
    screens = Screens(
        question=(witness.screen("question 1"), witness.screen("question 2")),
        context=(witness.screen("context"),),
        output=(witness.screen("output"),),
    )

    def limit(principal: Principal, action: str) -> None:
        witness.calls.append(f"limit {principal.subject} {action}")

    run(answered(make_guard(witness, screens=screens, limits=[limit])))

    assert witness.calls == [
        "verify", "limit ada query", "intent", "question 1", "question 2", "context", "output", "outcome",
    ]  # fmt: skip


def test_the_record_says_who_what_and_what_was_shown() -> None:
    witness = Witness()
    run(answered(make_guard(witness)))

    detail = {"question_hash": "aa"}
    assert witness.records == [
        AuditIntent("r1", "ada", "acme", "query", "policy-7", {"permission": "rag:query", **detail}),
        AuditOutcome("r1", "ada", "acme", "query", "policy-7", "ok", ("c1", "c2"), 4, detail),
    ]


def test_screens_change_text_one_after_the_other() -> None:
    witness = Witness()
    screens = Screens(output=(witness.screen("a", str.upper), witness.screen("b", lambda text: text + "!")))
    assert run(answered(make_guard(witness, screens=screens))) == "WHY PASSAGE!"


@pytest.mark.parametrize("stage", ["question", "context", "output"])
@pytest.mark.parametrize(
    ("fault", "raised", "outcome"),
    [
        (ContentBlocked("no"), ContentBlocked, "blocked"),
        (ValueError("bug"), Unavailable, "failed"),
        (KeyError("bug"), Unavailable, "failed"),
        (Unavailable("down"), Unavailable, "failed"),
        (None, Unavailable, "failed"),
    ],
)
def test_a_screen_that_fails_lets_nothing_through(
    stage: str, fault: Exception | None, raised: type[Exception], outcome: str
) -> None:
    witness = Witness()

    def broken(text: str, principal: Principal) -> Any:
        if fault is not None:
            raise fault

    screens: dict[str, Any] = {stage: (broken, witness.screen("never"))}
    guard = make_guard(witness, screens=Screens(**screens))

    with pytest.raises(raised) as caught:
        run(answered(guard))

    assert "bug" not in str(caught.value)
    assert "never" not in witness.calls
    assert witness.outcomes == [outcome]


def test_a_bad_token_stops_at_the_door_and_fills_no_record() -> None:
    witness = Witness()
    with pytest.raises(Unauthenticated):
        run(answered(make_guard(witness), token="bad"))
    assert witness.calls == ["verify"]


def test_a_missing_permission_is_refused_before_the_work_and_recorded() -> None:
    witness = Witness()
    with pytest.raises(Forbidden, match="audit:read"):
        run(answered(make_guard(witness), permission="audit:read"))
    assert witness.calls == ["verify", "outcome"]
    assert witness.outcomes == ["denied"]


def test_what_a_model_used_is_charged_once_and_recorded_however_the_request_ends() -> None:
    charged: list[tuple[str, int]] = []

    async def work(fails: bool) -> None:
        guard = make_guard(witness, charges=[lambda caller, tokens: charged.append((caller.subject, tokens))])
        async with guard.request(ADA, "rag:query", "query", "r1") as request:
            request.spent(0)
            request.spent(300)
            request.spent(45)
            if fails:
                raise asyncio.CancelledError

    for fails in (False, True):
        witness = Witness()
        with suppress(asyncio.CancelledError):
            run(work(fails))
        (outcome,) = [record for record in witness.records if isinstance(record, AuditOutcome)]
        assert outcome.detail is not None and outcome.detail["tokens"] == 345
    assert charged == [("ada", 345), ("ada", 345)]


def test_what_used_no_model_is_not_charged() -> None:
    witness = Witness()
    run(answered(make_guard(witness, charges=[lambda *_: pytest.fail("nothing was used")])))

    assert all("tokens" not in (record.detail or {}) for record in witness.records)


def test_counting_does_not_stop_the_others() -> None:
    threads: list[int] = []
    witness = Witness()
    run(answered(make_guard(witness, limits=[lambda *_: threads.append(threading.get_ident())])))

    assert threads and threads[0] != threading.get_ident()


def test_a_limit_is_recorded_and_stops_before_the_work() -> None:
    witness = Witness()

    def limit(principal: Principal, action: str) -> None:
        raise Overloaded("too many", 7)

    with pytest.raises(Overloaded):
        run(answered(make_guard(witness, limits=[limit])))
    assert (witness.calls, witness.outcomes) == (["verify", "outcome"], ["limited"])


@pytest.mark.parametrize(
    ("permission", "fails"), [("rag:query", "intent"), ("rag:query", "outcome"), ("audit:read", "outcome")]
)
def test_no_record_no_answer(permission: str, fails: str) -> None:
    witness = Witness(fails={fails})
    with pytest.raises(Unavailable):
        run(answered(make_guard(witness), permission=permission))


def test_no_work_begins_before_the_intent_is_written() -> None:
    witness = Witness(fails={"intent"})
    begun = False

    async def work() -> None:
        nonlocal begun
        async with make_guard(witness).request(ADA, "rag:query", "query", "r1"):
            begun = True

    with pytest.raises(Unavailable):
        run(work())
    assert not begun
    assert witness.calls == ["intent"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotFound("x"), "not_found"),
        (Overloaded("x"), "limited"),
        (Unavailable("x"), "failed"),
        (RayragError("x"), "refused"),
        (ValueError("secret"), "failed"),
        (ExceptionGroup("x", [ValueError()]), "failed"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_what_the_work_raises_goes_on_and_is_recorded(error: BaseException, outcome: str) -> None:
    witness = Witness()

    async def work() -> None:
        async with make_guard(witness).request(ADA, "rag:query", "query", "r1") as request:
            request.shown(["c1"])
            raise error

    async def scene() -> BaseException | None:
        task = asyncio.ensure_future(work())
        await asyncio.wait((task,))
        return asyncio.CancelledError() if task.cancelled() else task.exception()

    assert type(run(scene())) is type(error)
    last = witness.records[-1]
    assert isinstance(last, AuditOutcome)
    assert (last.outcome, last.chunks_shown, last.detail["error"]) == (outcome, ("c1",), type(error).__name__)
    assert "secret" not in str(last), "a message may quote the text"


def test_a_fault_is_not_hidden_by_a_record_that_fails_as_well() -> None:
    async def work(error: BaseException) -> None:
        async with make_guard(Witness(fails={"outcome"})).request(ADA, "rag:query", "query", "r1"):
            raise error

    fault = ValueError("bug")
    with pytest.raises(ValueError, match="bug"):
        run(work(fault))
    assert "audit" in fault.__notes__[0]
    with pytest.raises(Unavailable, match="record"):
        run(work(NotFound("a refusal without a record is an answer, too")))


async def cancelled_when(started: asyncio.Event, work: Awaitable[Any], times: int = 1) -> BaseException | None:
    task = asyncio.ensure_future(work)
    await started.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((task,))
    return asyncio.CancelledError() if task.cancelled() else task.exception()


@pytest.mark.parametrize("times", [1, 5])
def test_a_client_that_leaves_is_recorded_and_the_cancellation_goes_on(times: int) -> None:
    witness = Witness(write_s=0.02)

    async def scene() -> BaseException | None:
        started = asyncio.Event()

        async def work() -> None:
            async with make_guard(witness).request(ADA, "rag:query", "query", "r1"):
                started.set()
                await asyncio.sleep(60)

        return await cancelled_when(started, work(), times)

    assert isinstance(run(scene()), asyncio.CancelledError)
    assert (witness.calls, witness.outcomes) == (["intent", "outcome"], ["cancelled"])


def test_a_client_that_leaves_while_the_record_is_down_is_still_cancelled() -> None:
    witness = Witness(fails={"outcome"})

    async def scene() -> BaseException | None:
        started = asyncio.Event()

        async def work() -> None:
            async with make_guard(witness).request(ADA, "rag:query", "query", "r1"):
                started.set()
                await asyncio.sleep(60)

        return await cancelled_when(started, work())

    assert isinstance(run(scene()), asyncio.CancelledError)


@pytest.mark.parametrize("fails", [set[str](), {"intent"}])
def test_a_client_that_leaves_during_the_intent_starts_no_work(fails: set[str]) -> None:
    witness = Witness(write_s=0.05, fails=fails)
    begun = False

    async def scene() -> BaseException | None:
        started = asyncio.Event()

        async def work() -> None:
            nonlocal begun
            async with make_guard(witness).request(ADA, "rag:query", "query", "r1"):
                begun = True

        task = cancelled_when(started, work())
        asyncio.get_running_loop().call_later(0.02, started.set)
        return await task

    assert isinstance(run(scene()), asyncio.CancelledError)
    assert not begun
    assert witness.calls == ["intent", "outcome"]


def test_a_client_that_leaves_as_the_outcome_is_written_finds_it_written() -> None:
    witness = Witness(write_s=0.05)

    async def scene() -> BaseException | None:
        started = asyncio.Event()

        async def work() -> None:
            async with make_guard(witness).request(ADA, "rag:query", "query", "r1"):
                started.set()

        return await cancelled_when(started, work(), 3)

    assert isinstance(run(scene()), asyncio.CancelledError)
    assert witness.outcomes == ["ok"]


def test_a_stream_holds_the_request_open_to_its_end() -> None:
    witness = Witness()

    async def stream() -> AsyncIterator[str]:
        async with make_guard(witness).request(ADA, "rag:query", "query", "r1") as request:
            checker = request.citing(EVIDENCE)
            for piece in ("Managers approve [1]. ", "Bananas [1]."):
                yield checker.feed(await request.output(piece))
            yield checker.finish()
        yield "done"

    async def scene() -> list[str]:
        seen = []
        async for piece in stream():
            assert (piece == "done") == (witness.outcomes == ["ok"]), "done is said when the record is whole"
            seen.append(piece)
        return seen

    assert run(scene()) == ["", "Managers approve [1]. ", "Bananas.", "done"]
    assert witness.records[-1].chunks_shown == ("c1",)  # type: ignore[union-attr]


def test_a_stream_that_is_closed_half_way_is_recorded_as_cancelled() -> None:
    witness = Witness()

    async def stream() -> AsyncIterator[str]:
        async with make_guard(witness).request(ADA, "rag:query", "query", "r1") as request:
            request.shown(["c1"])
            yield "first"
            yield "second"

    async def scene() -> None:
        pieces = stream()
        assert await anext(pieces) == "first"
        await pieces.aclose()  # type: ignore[attr-defined]

    run(scene())
    assert witness.outcomes == ["cancelled"]


def test_steps_go_forward_only() -> None:
    async def work(steps: list[str]) -> None:
        async with make_guard(Witness()).request(ADA, "rag:query", "query", "r1") as request:
            for step in steps:
                await getattr(request, step)("text")

    run(work(["question", "context", "context", "output", "output"]))
    for steps in (["output", "context"], ["context", "question"], ["output", "question"]):
        with pytest.raises(RuntimeError):
            run(work(steps))


def test_nothing_is_screened_after_it_was_cited() -> None:
    async def work() -> None:
        async with make_guard(Witness()).request(ADA, "rag:query", "query", "r1") as request:
            request.cite("x", EVIDENCE)
            await request.output("y")

    with pytest.raises(RuntimeError):
        run(work())


def test_what_is_cited_counts_as_shown() -> None:
    witness = Witness()

    async def work() -> None:
        async with make_guard(witness).request(ADA, "rag:query", "query", "r1") as request:
            request.shown(["c9"])
            request.cite("Managers approve requests [1].", EVIDENCE)
            request.note({"generator": "vllm"}, outcome="degraded")

    run(work())
    last = witness.records[-1]
    assert isinstance(last, AuditOutcome)
    assert (last.outcome, last.chunks_shown, last.detail) == ("degraded", ("c9", "c1"), {"generator": "vllm"})


@pytest.mark.parametrize(("role", "read_only"), [("user", False), ("readonly", True), ("admin", False)])
def test_who_may_only_read_is_told_apart(role: str, read_only: bool) -> None:
    witness = Witness(principal=Principal("ada", "acme", frozenset({role})))

    async def work() -> GuardedRequest:
        either = ("rag:query", "rag:query:readonly")
        async with make_guard(witness).request(witness.principal, either, "query", "r1") as request:
            return request

    assert run(work()).read_only == read_only


def test_the_event_loop_runs_on_while_keys_and_records_are_waited_for() -> None:
    witness = Witness(write_s=0.2)
    waits: list[float] = []

    async def scene() -> None:
        async def tick() -> None:
            while True:
                begun = time.perf_counter()
                await asyncio.sleep(0.005)
                waits.append(time.perf_counter() - begun)

        ticking = asyncio.ensure_future(tick())
        await answered(make_guard(witness))
        ticking.cancel()

    run(scene())
    assert len(waits) > 10


def test_a_real_record_holds_after_many_requests_at_once(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    guard = Guard(Witness(), Roles.load(), log, "policy-7")

    async def scene() -> None:
        async def one(number: int) -> None:
            async with guard.request(ADA, "rag:query", "query", f"r{number}") as request:
                request.shown([f"c{number}"])
                if number % 5 == 0:
                    raise NotFound("x")

        await asyncio.gather(*(one(number) for number in range(50)), return_exceptions=True)

    run(scene())
    records = log.records(limit=1000)
    assert log.verify().ok
    assert len(records) == 100
    for number in range(50):
        own = [record for record in records if record.request_id == f"r{number}"]
        assert [record.kind for record in own] == ["intent", "outcome"]
        assert own[1].outcome == ("not_found" if number % 5 == 0 else "ok")
    assert threading.active_count() < 40
    log.close()


def test_records_are_written_while_everybody_at_the_door_waits_for_an_identity_provider() -> None:
    witness = Witness()
    let_in = threading.Event()

    def slow(token: str) -> Principal:
        let_in.wait(20)
        return ADA

    async def scene() -> None:
        guard = make_guard(witness)
        guard._verifier = SlowVerifier(slow)
        waiting = [asyncio.ensure_future(guard.authenticate("slow")) for _ in range(100)]
        try:
            async with asyncio.timeout(5), guard.request(ADA, "rag:query", "query", "r1"):
                pass
        finally:
            let_in.set()
        await asyncio.gather(*waiting)

    run(scene())
    assert witness.outcomes == ["ok"]


@dataclass
class SlowVerifier:
    verify: Callable[[str], Principal]
