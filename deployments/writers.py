"""Models that write: vLLM inside the cluster, or any OpenAI-compatible endpoint outside of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.prompting import Message
from index.settings import GenerationSettings, read_secret
from policies.errors import Unavailable


class ModelFailed(Unavailable):
    """The model did not answer, or broke off."""


class Writer(Protocol):
    """Turns messages into text, piece by piece."""

    @property
    def name(self) -> str:
        """What an answer names as its generator."""
        ...

    def write(
        self, prompt: Sequence[Message], max_tokens: int | None, temperature: float | None, request_id: str
    ) -> AsyncIterator[str]:
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

    async def write(
        self, prompt: Sequence[Message], max_tokens: int | None, temperature: float | None, request_id: str
    ) -> AsyncIterator[str]:
        from ray.serve.llm.openai_api_models import ChatCompletionRequest, ErrorResponse

        request = ChatCompletionRequest.model_validate(
            {
                "model": self._settings.served_name,
                "messages": list(prompt),
                "stream": True,
                "max_tokens": min(max_tokens or self._settings.max_tokens, self._settings.max_tokens),
                "temperature": self._settings.temperature if temperature is None else temperature,
            }
        )
        try:
            stream: Any = self._llm.chat.remote(request)
            async for item in stream:
                if isinstance(item, ErrorResponse):
                    raise ModelFailed(f"the model refused: {item.error.message}")
                for event in item if isinstance(item, list) else [item]:
                    for text in _texts(event):
                        yield text
        except (RayError, RayServeException) as error:
            raise ModelFailed(f"the model's replica failed: {type(error).__name__}") from error


class OpenAiWriter:
    """Any endpoint that speaks OpenAI's chat completions."""

    def __init__(self, settings: GenerationSettings) -> None:
        from openai import AsyncOpenAI

        key = read_secret(settings.api_key_file, settings.api_key_env) or "none"
        self._client = AsyncOpenAI(base_url=settings.base_url, api_key=key, timeout=settings.timeout_s, max_retries=1)
        self._settings = settings

    @property
    def name(self) -> str:
        return f"openai:{self._settings.model}"

    async def write(
        self, prompt: Sequence[Message], max_tokens: int | None, temperature: float | None, request_id: str
    ) -> AsyncIterator[str]:
        from openai import OpenAIError

        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": list(prompt),
            "max_tokens": min(max_tokens or self._settings.max_tokens, self._settings.max_tokens),
            "temperature": self._settings.temperature if temperature is None else temperature,
        }
        try:
            stream = await self._client.chat.completions.create(
                **body, stream=True, extra_headers={"x-request-id": request_id} if request_id else None
            )
            async for event in stream:
                for choice in event.choices[:1]:
                    if choice.delta.content:
                        yield choice.delta.content
        except OpenAIError as error:
            raise ModelFailed(f"the endpoint failed: {type(error).__name__}") from error


def _texts(event: str) -> list[str]:
    texts = []
    for line in event.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not data or data == "[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise ModelFailed("the model broke off")
        texts += [c["delta"]["content"] for c in chunk.get("choices", [])[:1] if c.get("delta", {}).get("content")]
    return texts
