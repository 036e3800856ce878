"""Each question is answered wholly by one embedding model: before, during and after another becomes the live one."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.embedding import Embedding, QuestionVectors
from deployments.retrieval import Retrieval, Search
from index.document import Chunk, DocumentRef
from index.embedders import Embedders
from index.embedding_cache import text_hash
from index.ledger import Ledger
from index.models import LIVE, PREVIOUS, Models
from index.settings import EmbeddingSettings, parse
from index.stores import Live, Stores
from index.suppressions import open_suppressions
from index.vectors import VectorStore
from ingest.embedding import CachedEmbedder
from ingest.stages import Prepared, embed_and_write
from policies.access import AccessRule
from policies.errors import NotFound, Unavailable
from policies.principals import Principal
from tests.tiny_models import write_tiny_model

BOB = Principal("bob", "acme")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
ISSUER = {"issuer": "i", "audience": "a", "algorithms": ["EdDSA"], "key_file": "k"}
TEXTS = [f"The {word} stands by the old mill." for word in ("heron", "otter", "willow", "lantern", "quarry", "thistle")]


class Service:
    """Retrieval and Embedding without Serve, over an index that holds two models. `asked`: models, by stage."""

    def __init__(self, home: Path, uri: str) -> None:
        self.old = EmbeddingSettings(model=str(write_tiny_model(home / "first", 16, 1)))
        self.new = EmbeddingSettings(model=str(write_tiny_model(home / "second", 16, 2)))
        given = {"data_dir": str(home), "store": {"uri": uri}, "identity": {"issuers": [ISSUER]}}
        self.args = parse({**given, "embedding": self.old.model_dump()})
        self.models, self.asked = Models(self.args.store.ledger), []
        self.stores = Stores(self.args)
        self.stores.open()
        embedder, ledger = CachedEmbedder(self.args), Ledger(self.args.store.ledger)
        documents = [_prepared(f"n{number}", text) for number, text in enumerate(TEXTS)]
        embed_and_write(documents, embedder, ledger, self.stores, "run")
        self.models.begin(self.old, self.new)
        self.stores.open()
        embed_and_write(documents, embedder, ledger, self.stores, "again")
        self.stores.flush()
        self.embedders = Embedders(self.args.embedding)
        self.retrieval = self._retrieval(ledger)

    def _retrieval(self, ledger: Ledger) -> Any:
        retrieval: Any = Retrieval.func_or_class.__new__(Retrieval.func_or_class)
        retrieval._settings, retrieval._reranking_settings = self.args.retrieval, self.args.reranking
        retrieval._embedding = SimpleNamespace(question=SimpleNamespace(remote=self._question))
        retrieval._reranking = SimpleNamespace(scores=SimpleNamespace(remote=self._scores))
        retrieval._ledger, retrieval._live, retrieval._metrics = ledger, Live(self.args), _Metrics()
        retrieval._suppressions = open_suppressions(self.args)
        return retrieval

    async def _question(self, tenant: str, text: str, model_id: str, keep: bool) -> QuestionVectors:
        self.asked.append(("embedding", model_id))
        model = self.models.get(model_id)
        assert model is not None
        encoded = self.embedders.get(model).encode_query([text])
        return QuestionVectors(encoded.dense[0], encoded.tokens[0])

    async def _scores(self, question: str, vectors: Any, texts: Any, hashes: Any, model_id: str) -> list[float]:
        self.asked.append(("reranking", model_id))
        return [0.5] * len(texts)

    def promote(self) -> None:
        filling = self.models.find("filling")
        assert filling is not None
        self.models.filled(filling.model_id)
        self.models.promote(self.old)

    def search(self) -> Any:
        return asyncio.run(self.retrieval.search(BOB, Search("which bird stands by the mill?", 3)))


class _Metrics:
    def stage(self, *_: Any) -> Any:
        return nullcontext()

    def withheld(self, *_: Any) -> None: ...

    def degraded(self, *_: Any) -> None: ...


def _prepared(name: str, text: str) -> Prepared:
    ref = DocumentRef("acme", "s", name, f"file:{name}", None, text, AccessRule.of(["everyone"]))
    return Prepared(ref, None, text_hash(text).hex(), (Chunk(0, text, 0, len(text)),))


@pytest.fixture
def service(milvus_uri: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="one-", dir=MEMORY) as home:
        service = Service(Path(home), milvus_uri)
        yield service
        for model in service.models.all():
            VectorStore(service.args.store, model.model_id, model.dim).drop()


def test_a_question_keeps_to_the_model_that_was_live_when_it_came(service, monkeypatch):
    before = service.search()
    old, ask = service.models.live().model_id, service.retrieval._question

    async def promoted_meanwhile(*arguments: Any) -> Any:
        vectors = await ask(*arguments)
        service.promote()
        service.retrieval._live.ask()  # another question of the same replica has seen it
        return vectors

    monkeypatch.setattr(service.retrieval, "_question", promoted_meanwhile)
    during = service.search()
    monkeypatch.undo()
    assert service.models.live().model_id != old == before.model_id == during.model_id
    assert [(hit.chunk_id, hit.score) for hit in during.hits] == [(hit.chunk_id, hit.score) for hit in before.hits]
    assert {model_id for _, model_id in service.asked} == {old}
    service.asked.clear()
    after = service.search()
    new = service.models.live().model_id
    assert after.model_id == new and set(service.asked) == {("embedding", new), ("reranking", new)}
    assert [hit.score for hit in after.hits] != [hit.score for hit in before.hits]


def test_a_question_whose_model_is_dropped_under_it_is_asked_of_the_new_one(service, monkeypatch):
    monkeypatch.setattr("index.stores.KEPT_S", 600.0)
    service.search()
    service.promote()
    previous = service.models.begin_drop(PREVIOUS)
    VectorStore(service.args.store, previous.model_id, previous.dim).drop()
    assert service.retrieval._live.kept().model_id == previous.model_id, "this replica has not heard of it yet"
    found = service.search()
    assert found.model_id == service.models.find(LIVE).model_id and len(found.hits) == 3 and found.degraded == ()


def test_a_store_that_is_down_is_no_change_of_model(service):
    service.search()
    live = service.models.live()
    VectorStore(service.args.store, live.model_id, live.dim).drop()
    with pytest.raises(Unavailable):
        service.search()


def test_one_batch_may_hold_questions_to_two_models(service):
    embedding: Any = Embedding.func_or_class.__new__(Embedding.func_or_class)
    embedding._models, embedding._known, embedding._embedders = service.models, {}, service.embedders
    old, new = (model.model_id for model in service.models.held())
    batch = Embedding.func_or_class._batch.__wrapped__  # what Serve calls with all that came together
    asked = [(old, "a bird"), (new, "a bird"), ("gone", "a bird"), (old, "a mill")]
    found = asyncio.run(batch(embedding, asked))
    assert isinstance(found[2], NotFound)
    for place, (model_id, text) in enumerate(asked):
        if model_id != "gone":
            alone = service.embedders.get(service.models.get(model_id)).encode_query([text])
            assert np.allclose(found[place].dense, alone.dense[0], atol=1e-5)
    assert not np.allclose(found[0].dense, found[1].dense, atol=1e-2)


def test_both_models_are_loaded_before_a_question_needs_the_other(service):
    embedding: Any = Embedding.func_or_class.__new__(Embedding.func_or_class)
    embedding._models, embedding._embedders, embedding._loading = service.models, Embedders(service.old), None

    async def healthy() -> None:
        await embedding.check_health()
        await embedding._loading

    asyncio.run(healthy())
    assert all(embedding._embedders._find(model.model_id) is not None for model in service.models.held())
