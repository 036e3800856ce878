"""Whatever happens, a stream ends in `done` or `error`, and each of its events can be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments import openai_api
from deployments.answering import Text
from deployments.contract import ChatRequest, QueryResponse
from deployments.streaming import as_json, query_events, streamed
from policies.errors import Unavailable

CHAT = ChatRequest.model_validate({"model": "rayrag", "messages": [{"role": "user", "content": "why?"}]})
DONE = QueryResponse(
    request_id="r", answer="Broken \ud83d here", abstained=False, citations=[], degraded=[], generator="m",
    timings_ms={}, as_of="now",
)  # fmt: skip


def sent(events: Any, *answer: Any) -> bytes:
    """Run a stream as the server does, and give the body that left."""

    async def stream() -> AsyncIterator[Any]:
        for event in answer:
            if isinstance(event, Exception):
                raise event
            yield event

    async def run() -> bytes:
        response = await streamed(stream(), events, "r")
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        async def receive() -> Any:
            await asyncio.sleep(60)

        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
        assert messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}, "it was cut"
        return b"".join(message.get("body", b"") for message in messages)

    return asyncio.run(run())


def read(body: bytes) -> list[tuple[str, Any]]:
    blocks = [block.partition("\ndata: ") for block in body.decode().strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data)) for name, _, data in blocks]


def test_text_that_utf8_cannot_hold_does_not_cut_the_stream() -> None:
    events = read(sent(query_events, Text("A \ud83d b. "), DONE))

    assert [name for name, _ in events] == ["token", "citations", "done"]
    assert events[0][1] == {"text": "A ? b. "}
    assert events[-1][1]["answer"] == "Broken ? here"


def test_an_openai_stream_ends_whatever_its_text() -> None:
    body = sent(openai_api.events(CHAT), Text("A \ud83d b. "), DONE).decode()

    assert body.endswith("data: [DONE]\n\n")
    assert '"content": "A ? b. "' in body


@pytest.mark.parametrize("failure", [Unavailable("the ledger \ud83d is away"), ValueError("x"), UnicodeError("y")])
def test_what_fails_in_the_middle_is_an_error_event(failure: Exception) -> None:
    events = read(sent(query_events, Text("A. "), failure))

    assert [name for name, _ in events] == ["token", "error"]
    assert set(events[-1][1]) == {"type", "title", "status", "detail", "request_id"}


def test_events_that_cannot_be_encoded_end_in_an_error_event() -> None:
    async def broken(answer: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for event in answer:
            yield event.text

    assert sent(broken, Text("\ud800")).decode().startswith("event: error\ndata: ")


def test_what_fails_before_the_first_event_is_an_http_error() -> None:
    with pytest.raises(Unavailable):
        sent(query_events, Unavailable("no"))


def test_other_scripts_stay_readable() -> None:
    assert as_json({"a": "Łódź 北京"}) == '{"a": "Łódź 北京"}'
