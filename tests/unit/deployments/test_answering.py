"""What a model wrote leaves only while the caller may read everything that the model read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from deployments.answering import Answering, Options
from deployments.contract import QueryRequest, QueryResponse
from deployments.generation import Delta, Written
from deployments.prompting import UNKNOWN
from deployments.retrieval import Retrieved
from index.document import Hit
from policies.guard import GuardedRequest, Screens
from policies.principals import Principal

SECRET = "The vault opens with bluebell."
HIT = Hit("c", "d", 1, 1, "x", "X", "mem:x", SECRET, 1.0, 0, len(SECRET), None)


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

    async def writes(*_):
        yield Delta("it opens with bluebell")  # no mark: nothing is cited
        yield Written("vllm:tiny", abstained=False)

    def remote(call):
        return SimpleNamespace(remote=call)

    retrieval = SimpleNamespace(search=remote(found), confirm=remote(confirm))
    generation = SimpleNamespace(options=lambda **_: SimpleNamespace(answer=remote(writes)))
    guarded = GuardedRequest(Principal("p", "t"), "rag:query", "query", "id", Screens())

    async def run() -> QueryResponse:
        events = Answering(retrieval, generation, Metrics()).answer(guarded, QueryRequest(question="how?"), Options())
        return [event async for event in events][-1]

    return asyncio.run(run())


@pytest.mark.parametrize(("readable", "told"), [(frozenset("c"), True), (frozenset(), False)])
def test_an_uncited_answer_is_withheld_when_a_right_went_meanwhile(readable, told):
    answer = asked(readable)
    assert ("bluebell" in answer.answer) is told
    assert told or answer.answer == UNKNOWN
