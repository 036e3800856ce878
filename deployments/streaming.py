"""Server-sent events: every stream ends in `done` or `error`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

from fastapi.responses import StreamingResponse

from deployments.answering import Text
from deployments.contract import QueryResponse
from deployments.problems import answer_for


async def streamed(
    answer: AsyncIterator[Text | QueryResponse],
    events: Callable[[AsyncIterator[Text | QueryResponse]], AsyncIterator[str]],
    request_id: str,
) -> StreamingResponse:
    """Send server-sent events. What fails before the first event is an ordinary HTTP error; later, an `error` event."""
    first = await anext(answer)

    async def body() -> AsyncIterator[bytes]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(answer.aclose)  # type: ignore[attr-defined]
            try:
                async for event in events(_chain(first, answer)):
                    yield event.encode()  # here, where a failure still ends in an event
            except Exception as error:  # noqa: BLE001 - the head has left: the error must travel in the stream
                problem = answer_for(error, request_id).body(request_id)
                yield f"event: error\ndata: {as_json(problem)}\n\n".encode()

    return StreamingResponse(body(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _chain(first: Text | QueryResponse, rest: AsyncIterator[Text | QueryResponse]) -> AsyncIterator[Any]:
    yield first
    async for event in rest:
        yield event


async def query_events(answer: AsyncIterator[Text | QueryResponse]) -> AsyncIterator[str]:
    """Send an answer as token events, then citations, then done."""
    async for event in answer:
        if isinstance(event, Text):
            yield f"event: token\ndata: {as_json({'text': event.text})}\n\n"
        else:
            citations = [citation.model_dump() for citation in event.citations]
            yield f"event: citations\ndata: {as_json({'citations': citations})}\n\n"
            yield f"event: done\ndata: {as_json(event.model_dump())}\n\n"


def as_json(value: Any) -> str:
    """Write JSON on one line that every encoder takes: lone surrogates, which UTF-8 cannot hold, become `?`."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
