"""What a model is asked for."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from deployments.prompting import Message
from deployments.writers import OpenAiWriter, Usage, VllmWriter, Wish, _pieces
from index.settings import GenerationSettings

SETTINGS = GenerationSettings(kind="vllm", model="/m", served_name="tiny", max_tokens=100, temperature=0.5)
PROMPT = [Message(role="user", content="why?")]


def body(**wish: Any) -> dict[str, Any]:
    asked = {"max_tokens": None, "temperature": None, "request_id": "r", "tenant": "acme", **wish}
    llm: Any = SimpleNamespace(options=lambda **_: None)
    return VllmWriter(llm, SETTINGS).body(PROMPT, Wish(**asked))


def test_each_tenant_has_a_prefix_cache_of_its_own() -> None:
    acme, rival = body()["cache_salt"], body(tenant="rival")["cache_salt"]

    assert acme == body(request_id="another")["cache_salt"]
    assert acme != rival
    assert len(acme) == len(rival) == 64


def test_what_leaves_no_trace_shares_its_prefix_cache_with_nobody_and_never_again() -> None:
    salts = {body(keep=keep)["cache_salt"] for keep in (True, True, False, False, False)}

    assert len(salts) == 4


def test_a_wish_stays_within_the_configuration() -> None:
    assert (body()["max_tokens"], body()["temperature"]) == (100, 0.5)
    assert (body(max_tokens=7, temperature=0.0)["max_tokens"], body(temperature=0.0)["temperature"]) == (7, 0.0)
    assert body(max_tokens=500)["max_tokens"] == 100
    assert (body()["model"], body()["messages"], body()["stream"]) == ("tiny", PROMPT, True)


def test_the_model_is_asked_what_it_used_and_says_so_at_the_end() -> None:
    text = json.dumps({"choices": [{"delta": {"content": "Because."}}], "usage": None})
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}})

    assert body()["stream_options"] == {"include_usage": True}
    assert _pieces(f"data: {text}\n\ndata: {usage}\n\ndata: [DONE]\n\n") == ["Because.", Usage(42)]


class Endpoint(BaseHTTPRequestHandler):
    """Speaks OpenAI's chat completions; says what it used where it is asked."""

    asked: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        Endpoint.asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        text = {**head, "choices": [{"index": 0, "delta": {"content": "Because."}, "finish_reason": "stop"}]}
        usage = {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
        events = [text, {**head, "choices": [], "usage": usage}] if self.path.startswith("/says") else [text]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(
            "".join(f"data: {json.dumps(event)}\n\n" for event in [*events]).encode() + b"data: [DONE]\n\n"
        )

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize(("place", "said"), [("says", ["Because.", Usage(42)]), ("silent", ["Because."])])
def test_an_endpoint_that_says_what_it_used_is_heard(place: str, said: list[str | Usage]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = GenerationSettings(kind="openai", model="m", base_url=f"http://127.0.0.1:{server.server_port}/{place}")

    async def written() -> list[str | Usage]:
        return [piece async for piece in OpenAiWriter(settings).write(PROMPT, Wish(None, None, "r", "acme"))]

    try:
        assert asyncio.run(written()) == said
    finally:
        server.shutdown()
        server.server_close()
    assert Endpoint.asked["stream_options"] == {"include_usage": True} and Endpoint.asked["stream"] is True
