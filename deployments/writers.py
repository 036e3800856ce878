"""Models that write: vLLM inside the cluster, or any OpenAI-compatible endpoint outside of it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.prompting import Message
from index.settings import GenerationSettings, read_secret
from policies.errors import Unavailable


class ModelFailed(Unavailable):
    """The model did not answer, or broke off."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How one answer is wanted, and for which tenant; None: as configured. `keep=False`: leave no trace in caches."""

    max_tokens: int | None
    temperature: float | None
    request_id: str
    tenant: str
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """What a model says that an answer took, in its tokens: prompt and answer together."""

    tokens: int


class Writer(Protocol):
    """Turns messages into text, piece by piece, and says what that took where the model does."""

    @property
    def name(self) -> str:
        """What an answer names as its generator."""
        ...

    def write(self, prompt: Sequence[Message], wish: Wish) -> AsyncIterator[str | Usage]:
        """Stream the text. Raises `ModelFailed`."""
        ...


class VllmWriter:
    """`ray.serve.llm`'s LLMServer by handle."""

    def __init__(self, llm: DeploymentHandle[Any], settings: GenerationSettings) -> None:
        self._llm = llm.options(stream=True)
        self._settings = settings

    @property
    def name(self) -> str:
        return f"vllm:{self._settings.served_name}"

    async def write(self, prompt: Sequence[Message], wish: Wish) -> AsyncIterator[str | Usage]:
        from ray.serve.llm.openai_api_models import ChatCompletionRequest, ErrorResponse

        request = ChatCompletionRequest.model_validate(self.body(prompt, wish))
        try:
            stream: Any = self._llm.chat.remote(request)
            async for item in stream:
                if isinstance(item, ErrorResponse):
                    raise ModelFailed(f"the model refused: {item.error.message}")
                for event in item if isinstance(item, list) else [item]:
                    for piece in _pieces(event):
                        yield piece
        except (RayError, RayServeException) as error:
            raise ModelFailed(f"the model's replica failed: {type(error).__name__}") from error

    def body(self, prompt: Sequence[Message], wish: Wish) -> dict[str, Any]:
        """Build the request, in the terms of vLLM's chat completions.

        Its prefix cache is kept apart by tenant: else how soon the first word comes would tell one tenant that a
        passage, the same as its own, was read for another. What is to leave no trace has one that nobody shares.
        """
        apart = "" if wish.keep else f"\n{secrets.token_hex(16)}"
        salt = hashlib.sha256(f"tenant:{wish.tenant}{apart}".encode()).hexdigest()
        return {**_body(self._settings, self._settings.served_name, prompt, wish), "cache_salt": salt}


class OpenAiWriter:
    """Any endpoint that speaks OpenAI's chat completions."""

    def __init__(self, settings: GenerationSettings) -> None:
        from openai import AsyncOpenAI

        key = read_secret(settings.api_key_file, settings.api_key_env, "generation.api_key_file") or "none"
        self._client = AsyncOpenAI(base_url=settings.base_url, api_key=key, timeout=settings.timeout_s, max_retries=1)
        self._settings = settings

    @property
    def name(self) -> str:
        return f"openai:{self._settings.model}"

    async def write(self, prompt: Sequence[Message], wish: Wish) -> AsyncIterator[str | Usage]:
        from openai import OpenAIError

        headers = {"x-request-id": wish.request_id} if wish.request_id else None
        body = _body(self._settings, str(self._settings.model), prompt, wish)
        try:
            stream = await self._client.chat.completions.create(**body, extra_headers=headers)
            async for event in stream:
                for choice in event.choices[:1]:
                    if choice.delta.content:
                        yield choice.delta.content
                if event.usage is not None:
                    yield Usage(event.usage.total_tokens)
        except OpenAIError as error:
            raise ModelFailed(f"the endpoint failed: {type(error).__name__}") from error


def _body(settings: GenerationSettings, model: str, prompt: Sequence[Message], wish: Wish) -> dict[str, Any]:
    return {
        "model": model,
        "messages": list(prompt),
        "max_tokens": min(wish.max_tokens or settings.max_tokens, settings.max_tokens),
        "temperature": settings.temperature if wish.temperature is None else wish.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _pieces(event: str) -> list[str | Usage]:
    pieces: list[str | Usage] = []
    for line in event.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not data or data == "[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise ModelFailed("the model broke off")
        pieces += [c["delta"]["content"] for c in chunk.get("choices", [])[:1] if c.get("delta", {}).get("content")]
        if chunk.get("usage"):
            pieces.append(Usage(int(chunk["usage"]["total_tokens"])))
    return pieces
