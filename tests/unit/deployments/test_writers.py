"""What a model is asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from deployments.prompting import Message
from deployments.writers import VllmWriter, Wish
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


def test_a_wish_stays_within_the_configuration() -> None:
    assert (body()["max_tokens"], body()["temperature"]) == (100, 0.5)
    assert (body(max_tokens=7, temperature=0.0)["max_tokens"], body(temperature=0.0)["temperature"]) == (7, 0.0)
    assert body(max_tokens=500)["max_tokens"] == 100
    assert (body()["model"], body()["messages"], body()["stream"]) == ("tiny", PROMPT, True)
