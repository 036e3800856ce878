"""OpenAI's chat completions, mapped to a question and back. Citations stand beside the content."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from deployments.answering import Options, Text
from deployments.contract import ChatMessage, ChatRequest, QueryResponse
from deployments.prompting import Turn
from deployments.streaming import as_json
from index.settings import LimitSettings
from policies.errors import InvalidRequest, NotFound, TooLarge

Answer = AsyncIterator[Text | QueryResponse]


def check_model(asked: str | None, served: str) -> None:
    """Raise `NotFound` for a model that this application does not have."""
    if asked is not None and asked != served:
        raise NotFound(f"no model '{asked[:64]}'")


def question_of(body: ChatRequest, limits: LimitSettings) -> tuple[str, Options]:
    """Take the last user message as the question and what came before as history.

    Raises `InvalidRequest`, and `TooLarge` for more messages, or a longer history, than `limits` let in.
    """
    if len(body.messages) > limits.max_messages:
        raise TooLarge(f"messages: at most {limits.max_messages}")
    users = [place for place, message in enumerate(body.messages) if message.role == "user"]
    if not users:
        raise InvalidRequest("messages: there is no user message")
    question = _text(body.messages[users[-1]])
    if not question.strip():
        raise InvalidRequest("messages: the last user message is empty")
    earlier = body.messages[: users[-1]]
    history = tuple(Turn(m.role, _text(m)) for m in earlier if m.role in ("user", "assistant"))
    if sum(len(turn.content) for turn in history) > limits.max_history_chars:
        raise TooLarge(f"messages: at most {limits.max_history_chars} characters before the last question")
    tokens = body.max_completion_tokens or body.max_tokens
    return question, Options(history, tokens, body.temperature, body.model)


def models(served: str) -> dict[str, Any]:
    """OpenAI's model list."""
    return {"object": "list", "data": [{"id": served, "object": "model", "created": 0, "owned_by": "rayrag"}]}


def completion(body: ChatRequest, answer: QueryResponse) -> dict[str, Any]:
    """A finished chat completion."""
    message = {"role": "assistant", "content": answer.answer, "refusal": None, **_extras(answer)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {**_head(body, answer.request_id, "chat.completion"), "choices": [choice], "usage": usage}


def events(body: ChatRequest) -> Callable[[Answer], AsyncIterator[str]]:
    """Build the stream of chat completion chunks; the last one carries the citations."""

    async def stream(answer: Answer) -> AsyncIterator[str]:
        head = _head(body, "", "chat.completion.chunk")
        yield _chunk(head, {"role": "assistant", "content": ""})
        async for event in answer:
            if isinstance(event, Text):
                yield _chunk(head, {"content": event.text})
            else:
                yield _chunk(head, _extras(event), "stop")
        yield "data: [DONE]\n\n"

    return stream


def _extras(answer: QueryResponse) -> dict[str, Any]:
    return {
        "citations": [citation.model_dump() for citation in answer.citations],
        "abstained": answer.abstained,
        "degraded": answer.degraded,
        "generator": answer.generator,
        "request_id": answer.request_id,
    }


def _head(body: ChatRequest, request_id: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request_id or 'stream'}",
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
    }


def _chunk(head: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return f"data: {as_json({**head, 'choices': [choice]})}\n\n"


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        parts = [part.get("text") for part in message.content if part.get("type") == "text"]
        text = "\n".join(part for part in parts if isinstance(part, str))
    else:
        text = message.content or ""
    if any("\ud800" <= character <= "\udfff" for character in text):  # `question` refuses these by its type
        raise InvalidRequest("messages: a text holds a lone surrogate, which is no character")
    return text
