"""What a model wrote leaves only while the caller may read everything that the model read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import answering
from deployments.answering import Answering, Options, Text
from deployments.contract import QueryRequest, QueryResponse
from deployments.generation import EXTRACTIVE, Delta, Excerpt, Task, Written
from deployments.prompting import UNKNOWN
from deployments.retrieval import Retrieved
from index.document import Hit
from policies.guard import GuardedRequest, Screens
from policies.principals import Principal

SECRET = "The vault opens with bluebell."
HIT = Hit("c", "d", 1, "x", "X", "mem:x", SECRET, 1.0, 0, len(SECRET), None)


class Metrics:
    def stage(self, *_):
        from contextlib import nullcontext

        return nullcontext()

    def degraded(self, _):
        pass


def asked(readable: frozenset[str]) -> QueryResponse:
    async def found(*_):
        return Retrieved((HIT,))

    async def confirm(*_):
        return readable

    def writes(_):
        # No mark: nothing is cited.
        return Stream([Delta("it opens with bluebell", "vllm:tiny"), Written("vllm:tiny", abstained=False)])

    events = run(found, confirm, writes)
    assert isinstance(events[-1], QueryResponse)
    return events[-1]


class Stream:
    """What a deployment streams, and whether it was told to stop."""

    def __init__(self, events: Sequence[Delta | Written], after: Callable[[int], None] = lambda _: None) -> None:
        self._events, self._after, self.sent, self.cancelled = events, after, 0, False

    async def __aiter__(self) -> AsyncIterator[Delta | Written]:
        for event in self._events:
            self.sent += 1
            yield event
            self._after(self.sent)

    def cancel(self) -> None:
        self.cancelled = True


def run(found: Any, confirm: Any, writes: Callable[[Task], Stream]) -> list[Text | QueryResponse]:
    def remote(call):
        return SimpleNamespace(remote=call)

    retrieval = SimpleNamespace(search=remote(found), confirm=remote(confirm))
    generation = SimpleNamespace(options=lambda **_: SimpleNamespace(answer=remote(writes)))
    guarded = GuardedRequest(Principal("p", "t"), "rag:query", "query", "id", Screens())

    async def collected() -> list[Text | QueryResponse]:
        events = Answering(retrieval, generation, Metrics()).answer(guarded, QueryRequest(question="how?"), Options())
        return [event async for event in events]

    return asyncio.run(collected())


SENTENCES = [Delta(f"Said as number {n}. ", "vllm:tiny") for n in range(6)]
END = Written("vllm:tiny", abstained=False)


class Rights:
    """A reader's right to the one passage; counts how often it is asked for."""

    def __init__(self) -> None:
        self.held, self.asked = True, 0

    async def found(self, *_: Any) -> Retrieved:
        return Retrieved((HIT,))

    async def confirm(self, _: Principal, hits: Sequence[Hit]) -> frozenset[str]:
        self.asked += 1
        return frozenset(hit.chunk_id for hit in hits) if self.held else frozenset()

    def gone(self, *_: Any) -> None:
        self.held = False


def told(events: list[Text | QueryResponse]) -> list[str]:
    return [event.text for event in events if isinstance(event, Text)]


def test_a_right_that_went_before_the_first_word_shows_no_word() -> None:
    rights = Rights()
    stream = Stream([*SENTENCES, END])

    async def found(*_: Any) -> Retrieved:
        rights.gone()  # acknowledged between retrieval and the first word
        return Retrieved((HIT,))

    events = run(found, rights.confirm, lambda _: stream)

    assert told(events) == [UNKNOWN]
    last = events[-1]
    assert isinstance(last, QueryResponse)
    assert (last.answer, last.abstained, last.citations, last.generator) == (UNKNOWN, True, [], "vllm:tiny")
    assert stream.cancelled


def test_a_right_that_goes_while_a_model_writes_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "CONFIRM_S", 0.0)
    rights = Rights()
    stream = Stream([*SENTENCES, END], after=lambda sent: rights.gone() if sent == 3 else None)

    events = run(rights.found, rights.confirm, lambda _: stream)

    assert told(events) == ["Said as number 0. ", "Said as number 1. ", UNKNOWN]
    assert events[-1].abstained and stream.cancelled and stream.sent == 4


def test_rights_are_asked_for_once_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    clock = dict.fromkeys(("monotonic", "perf_counter", "time"), lambda: now[0])
    monkeypatch.setattr(answering, "time", SimpleNamespace(**clock))
    rights = Rights()

    def later(_: int) -> None:
        now[0] += 0.4

    events = run(rights.found, rights.confirm, lambda _: Stream([*SENTENCES, END], after=later))

    assert "".join(told(events)) == "".join(delta.text for delta in SENTENCES)
    assert rights.asked == 3, "before the first piece, a second later, and at the end"


def test_quotes_are_confirmed_before_they_leave() -> None:
    rights = Rights()
    quoted = Written(EXTRACTIVE, False, f"{SECRET} [1]", (Excerpt(0, 0, len(SECRET)),))

    assert told(run(rights.found, rights.confirm, lambda _: Stream([quoted]))) == [f"{SECRET} [1]"]
    assert rights.asked == 1
    rights.gone()
    assert told(run(rights.found, rights.confirm, lambda _: Stream([quoted]))) == [UNKNOWN]


def test_a_model_is_told_the_tenant_and_its_broken_characters_are_replaced() -> None:
    tasks: list[Task] = []

    def writes(task: Task) -> Stream:
        tasks.append(task)
        return Stream([Delta("Half a \ud83d smile. ", "m"), Delta("End", "m"), Written("m", abstained=False)])

    events = run(Rights().found, Rights().confirm, writes)

    assert tasks[0].tenant == "t"
    assert events[-1].answer == "Half a ? smile. End"


@pytest.mark.parametrize(("readable", "told"), [(frozenset("c"), True), (frozenset(), False)])
def test_an_uncited_answer_is_withheld_when_a_right_went_meanwhile(readable, told):
    answer = asked(readable)
    assert ("bluebell" in answer.answer) is told
    assert told or answer.answer == UNKNOWN


def spent(events: Sequence[Delta | Written], stop_after: int = 99) -> int:
    """The tokens that an answer cost whose reader leaves after so many pieces."""

    def remote(call: Any) -> Any:
        return SimpleNamespace(remote=call)

    rights = Rights()
    retrieval = SimpleNamespace(search=remote(rights.found), confirm=remote(rights.confirm))
    generation = SimpleNamespace(options=lambda **_: SimpleNamespace(answer=remote(lambda _: Stream(events))))
    guarded = GuardedRequest(Principal("p", "t"), "rag:query", "query", "id", Screens())

    async def read() -> None:
        answer = Answering(retrieval, generation, Metrics()).answer(guarded, QueryRequest(question="how?"), Options())
        async with aclosing(answer) as pieces:  # type: ignore[type-var]
            for _ in range(stop_after):
                if await anext(pieces, None) is None:
                    return

    asyncio.run(read())
    return guarded._tokens


def test_an_answer_costs_what_its_model_says() -> None:
    assert spent([*SENTENCES, Written("vllm:tiny", abstained=False, tokens=1234)]) == 1234


def test_where_the_model_says_nothing_its_characters_are_counted() -> None:
    said = sum(len(delta.text) for delta in SENTENCES)

    assert spent([*SENTENCES, END]) == -(-(len("how?") + len(SECRET) + said) // 4)


def test_who_leaves_in_the_middle_pays_for_what_was_written() -> None:
    whole = spent([*SENTENCES, END])

    assert 0 < spent([*SENTENCES, Written("vllm:tiny", abstained=False, tokens=1234)], stop_after=2) < whole


def test_an_answer_that_quotes_costs_nothing() -> None:
    assert spent([Written(EXTRACTIVE, False, SECRET, (Excerpt(0, 0, len(SECRET)),))]) == 0
