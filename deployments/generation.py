"""The generation deployment: who writes the answer is a choice in the configuration.

    vllm        `ray.serve.llm`'s LLMServer in this cluster, called by handle
    openai      any OpenAI-compatible endpoint
    extractive  quotes the sentences that answer; also the fallback while a model is down

Every answer is a stream of `Delta` that ends in one `Written`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.extractive import Passage, candidates, choose
from deployments.prompting import Turn, is_unknown, messages
from deployments.writers import ModelFailed, OpenAiWriter, Usage, VllmWriter, Wish, Writer
from index.document import Hit
from index.settings import AppArgs

EXTRACTIVE = "extractive"
"""The generator of an answer that no model wrote."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to answer, from which passages, for whom. `max_tokens` and `temperature` override the configuration's.

    `model_id`: the embedding model that found the passages; None: none did. `keep=False`: leave no trace in caches.
    """

    question: str
    passages: tuple[Hit, ...]
    tenant: str
    history: tuple[Turn, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    request_id: str = ""
    model_id: str | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a model's answer, unchecked: its marks `[n]` count the task's passages from 1."""

    text: str
    generator: str = ""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A verbatim quote: characters `[start, end)` of the text of passage number `passage`, counted from 0."""

    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Written:
    """The end of an answer. `quotes` stand for an extractive one, as many as the answer's marks."""

    generator: str
    abstained: bool
    answer: str = ""
    quotes: tuple[Excerpt, ...] = ()
    degraded: tuple[str, ...] = ()
    tokens: int | None = None
    """What the model says that this took, prompt and answer; None: it does not say."""


@serve.deployment(name="Generation")
class Generation:
    """Writes answers. Needs no model library: the models are behind handles and endpoints."""

    def __init__(self, args: AppArgs, embedding: DeploymentHandle[Any], llm: DeploymentHandle[Any] | None) -> None:
        self._settings = args.generation
        self._embedding = embedding
        self._writer = _writer(args, llm)

    async def answer(self, task: Task) -> AsyncIterator[Delta | Written]:
        """Stream an answer. Raises `ModelFailed` when the model fails and nothing may stand in, or it spoke already."""
        if self._writer is None or not task.passages:
            yield await self._extract(task, ())
            return
        spoken: list[str] = []
        tokens: int | None = None
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                prompt = self._prompt(task)
                wish = Wish(task.max_tokens, task.temperature, task.request_id, task.tenant, task.keep)
                async for piece in self._writer.write(prompt, wish):
                    if isinstance(piece, Usage):
                        tokens = piece.tokens
                        continue
                    spoken.append(piece)
                    yield Delta(piece, self._writer.name)
        except (ModelFailed, TimeoutError) as error:
            if spoken or self._settings.fallback == "none":
                raise ModelFailed(str(error) or "the model took too long") from error
            yield await self._extract(task, ("generation",))
            return
        yield Written(self._writer.name, abstained=is_unknown("".join(spoken)), tokens=tokens)

    def _prompt(self, task: Task) -> list[Any]:
        return list(messages(task.question, task.passages[: self._settings.context_chunks], task.history))

    async def _extract(self, task: Task, degraded: tuple[str, ...]) -> Written:
        passages = [Passage(hit.chunk_id, hit.document_id, hit.title, hit.text, hit.score) for hit in task.passages]
        found = candidates(task.question, passages)
        try:
            similarity = await self._similarity(task, [candidate.embedded for candidate in found])
        except (RayError, RayServeException):
            similarity = np.zeros(len(found), np.float32)
            degraded = (*degraded, "embedding")
        chosen = choose(task.question, passages, found, similarity, self._settings.min_support)
        if chosen is None:
            return Written(EXTRACTIVE, abstained=True, degraded=degraded)
        quotes = tuple(Excerpt(quote.passage, quote.start, quote.end) for quote in chosen.quotes)
        return Written(EXTRACTIVE, False, chosen.answer, quotes, degraded)

    async def _similarity(self, task: Task, sentences: Sequence[str]) -> NDArray[np.float32]:
        if not sentences:
            return np.zeros(0, np.float32)
        vectors = await self._embedding.sentences.remote([task.question, *sentences], task.model_id)
        similarity: NDArray[np.float32] = vectors[1:] @ vectors[0]
        return similarity


def _writer(args: AppArgs, llm: DeploymentHandle[Any] | None) -> Writer | None:
    if args.generation.kind == "vllm":
        assert llm is not None
        return VllmWriter(llm, args.generation)
    if args.generation.kind == "openai":
        return OpenAiWriter(args.generation)
    return None
