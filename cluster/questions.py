"""A question from the terminal: over HTTP, as any other caller asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from policies.errors import Forbidden, InvalidRequest, RayragError, Unauthenticated, Unavailable

TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    name: str
    data: Any


def ask(base_url: str, token: str, question: str, top_k: int) -> dict[str, Any]:
    """Ask, and give the answer's body. Raises the `RayragError` that the service's refusal stands for."""
    body = {"question": question, "top_k": top_k}
    try:
        answer = httpx2.post(
            f"{base_url}/v1/query", json=body, headers=_headers(token), timeout=TIMEOUT_S, trust_env=False
        )
    except httpx2.HTTPError as error:
        raise _silent(base_url, error) from error
    if answer.status_code != 200:
        raise problem(answer.status_code, answer.text)
    body_: dict[str, Any] = answer.json()
    return body_


def ask_streaming(
    base_url: str, token: str, question: str, top_k: int, on_text: Callable[[str], None]
) -> dict[str, Any]:
    """Ask, hand over the text as it comes, and give the whole answer's body at the end. Raises as `ask` does."""
    body = {"question": question, "top_k": top_k, "stream": True}
    result: dict[str, Any] = {"answer": "", "citations": []}
    try:
        with httpx2.stream(
            "POST", f"{base_url}/v1/query", json=body, headers=_headers(token), timeout=TIMEOUT_S, trust_env=False
        ) as answer:
            if answer.status_code != 200:
                raise problem(answer.status_code, answer.read().decode("utf-8", "replace"))
            for event in events(answer.iter_lines()):
                if _take(event, result, on_text):
                    return result
    except httpx2.HTTPError as error:
        raise _silent(base_url, error) from error
    raise Unavailable("The answer was cut off: ask again.")


def _take(event: Event, result: dict[str, Any], on_text: Callable[[str], None]) -> bool:
    """Add an event to the answer. True when it was the last. Raises for an `error` event."""
    if event.name == "error":
        detail = event.data.get("detail") if isinstance(event.data, dict) else None
        raise Unavailable(str(detail or "The service ended the answer with an error: ask again."))
    if event.name == "token":
        text = event.data if isinstance(event.data, str) else str(event.data.get("text", ""))
        result["answer"] += text
        on_text(text)
    elif event.name == "citations":
        result["citations"] = event.data if isinstance(event.data, list) else event.data.get("citations", [])
    elif event.name == "done" and isinstance(event.data, dict):
        result.update(event.data)
    return event.name == "done"


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Read server-sent events (HTML standard, 9.2.6); data that is JSON is decoded."""
    name, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Event(name, _decoded("\n".join(data)))
            name, data = "message", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)


def problem(status: int, body: str) -> RayragError:
    """Turn an `application/problem+json` answer into the error that it stands for."""
    try:
        detail = str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"The service answered with status {status}."
    if status == 401:
        return Unauthenticated(
            f"{detail.rstrip('.')}. Make one with rayrag token and give it with --token or RAYRAG_TOKEN."
        )
    if status == 403:
        return Forbidden(detail)
    return InvalidRequest(detail) if status < 500 else Unavailable(detail)


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _silent(base_url: str, error: Exception) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable(f"The service at {base_url} does not answer ({reason}): start it with rayrag up.")
