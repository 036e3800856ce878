"""A tenant's questions are answered from its own cache: how fast an answer comes tells nothing of another's."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from cachetools import LRUCache

from deployments.embedding import Embedding
from deployments.retrieval import Retrieval, Search
from policies.principals import Principal


@pytest.fixture
def embedding() -> Any:
    """The deployment without its model: `asked` are the texts that the model had to embed."""
    deployment: Any = Embedding.func_or_class.__new__(Embedding.func_or_class)
    deployment.asked = []

    async def embed(asked: tuple[str, str]) -> str:
        deployment.asked.append(asked)
        return f"vector of {asked[1]} under {asked[0]}"

    deployment._questions = LRUCache(100)
    deployment._metrics = SimpleNamespace(cache=lambda *_, **__: None)
    deployment._batch = embed
    return deployment


def test_a_question_is_embedded_once_for_each_tenant(embedding: Any) -> None:
    async def ask() -> None:
        for tenant in ("acme", "acme", "rival", "rival", "acme"):
            found = await embedding.question(tenant, "is project x closed", "minilm")
            assert found == "vector of is project x closed under minilm"

    asyncio.run(ask())

    assert len(embedding.asked) == 2


def test_a_question_that_leaves_no_trace_is_not_kept(embedding: Any) -> None:
    async def ask() -> None:
        await embedding.question("acme", "q", "minilm", keep=False)
        await embedding.question("acme", "q", "minilm")

    asyncio.run(ask())

    assert len(embedding.asked) == 2


def test_a_question_that_leaves_no_trace_does_not_even_touch_the_cache(embedding: Any) -> None:
    embedding._questions = LRUCache(2)
    counted: list[Any] = []
    embedding._metrics = SimpleNamespace(cache=lambda *_, **__: counted.append(1))

    async def ask() -> None:
        for text in ("older", "newer"):
            await embedding.question("acme", text, "minilm")
        before = list(embedding._questions.items()), len(counted)
        await embedding.question("acme", "older", "minilm", keep=False)
        assert (list(embedding._questions.items()), len(counted)) == before
        await embedding.question("acme", "newest", "minilm")

    asyncio.run(ask())

    assert {text for _, _, text in embedding._questions} == {"newer", "newest"}, "the oldest goes first"


def test_a_question_is_never_answered_with_another_models_vector(embedding: Any) -> None:
    async def ask() -> list[str]:
        return [await embedding.question("acme", "q", model) for model in ("minilm", "other", "minilm")]

    assert asyncio.run(ask()) == [f"vector of q under {model}" for model in ("minilm", "other", "minilm")]
    assert embedding.asked == [("minilm", "q"), ("other", "q")]


def test_retrieval_says_for_which_tenant_and_model_it_asks() -> None:
    calls: list[tuple[Any, ...]] = []

    async def question(*arguments: Any) -> None:
        calls.append(arguments)

    retrieval: Any = Retrieval.func_or_class.__new__(Retrieval.func_or_class)
    retrieval._embedding = SimpleNamespace(question=SimpleNamespace(remote=question))

    index: Any = SimpleNamespace(model_id="minilm")
    asyncio.run(retrieval._question(index, Principal("ada", "acme"), Search("why", 3, keep=False), []))

    assert calls == [("acme", "why", "minilm", False)]
