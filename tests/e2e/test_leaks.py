"""Nobody sees a document outside their rights, and nobody is wrongly kept from one: in hits, prompt, answer, citations,
errors or logs. Random people, groups, rules with deny, and a canary word in each document; real ledger, real Milvus.

5,000 (person, question) cases: 50 worlds x 10 people x 10 questions, and 500 whole answers by a model that repeats
everything it is shown.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.answering import Answering, Options, collect
from deployments.contract import QueryRequest
from deployments.retrieval import Search
from index.document import Chunk, DocumentRef
from index.settings import load, parse
from ingest.stages import Prepared, embed, write
from policies.access import AccessRule
from policies.principals import Principal

PEOPLE, GROUPS, DOCUMENTS, QUESTIONS = 10, 6, 10, 10
WORLDS = int(os.environ.get("RAYRAG_LEAK_WORLDS", "50"))
world_numbers = itertools.count()


class Echo(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint whose model repeats its whole prompt and cites everything."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = (
            "\n".join(message["content"] for message in body["messages"]) + " " + "".join(f"[{n}]" for n in range(1, 9))
        )
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        choice = {"index": 0, "delta": {"content": said}, "finish_reason": "stop"}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "echo", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class Application:
    """The deployments in this process, on the service's ledger and Milvus."""

    args: Any
    retrieval: Any
    answering: Answering
    guard: Any
    issuer: Any
    ledger: Any
    store: Any
    embedder: Any


@pytest.fixture(scope="module")
def application(service) -> Iterator[Application]:
    from ray import serve

    from deployments.embedding import Embedding
    from deployments.generation import Generation
    from deployments.identity import audit_log, policy_version, verifier
    from deployments.metrics import Metrics
    from deployments.reranking import Reranking
    from deployments.retrieval import Retrieval
    from index.embedding import identify
    from index.ledger import Ledger
    from index.vectors import VectorStore
    from ingest.embedding import CachedEmbedder
    from policies.guard import Guard
    from policies.roles import Roles

    echo = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    given_args = load(service.config, service.state.data_dir).model_dump()
    generation = {"kind": "openai", "model": "echo", "base_url": f"http://127.0.0.1:{echo.server_port}/v1"}
    args = parse({**given_args, "generation": generation})
    embedding = Embedding.bind(args)
    retrieval = serve.run(
        Retrieval.bind(args, embedding, Reranking.bind(args)),
        name="leak-r",
        route_prefix=None,
        _local_testing_mode=True,
    )
    writer = serve.run(
        Generation.bind(args, embedding, None), name="leak-g", route_prefix=None, _local_testing_mode=True
    )
    model = identify(args.embedding)
    store = VectorStore(args.store, model.model_id, model.dim)
    store.open()
    guard = Guard(verifier(args.identity), Roles.load({}), audit_log(args), policy_version(args))
    answering = Answering(retrieval, writer, Metrics("test"))
    yield Application(
        args, retrieval, answering, guard, service.issuer, Ledger(args.store.ledger), store, CachedEmbedder(args)
    )
    echo.shutdown()


@st.composite
def worlds(draw: Any) -> tuple[list[frozenset[str]], list[AccessRule]]:
    """People by their groups, and documents by their rules."""
    groups = st.frozensets(st.sampled_from([f"g{n}" for n in range(GROUPS)]), max_size=GROUPS)
    people = draw(st.lists(groups, min_size=PEOPLE, max_size=PEOPLE))
    names = [f"group:g{n}" for n in range(GROUPS)] + [f"user:p{n}" for n in range(PEOPLE)] + ["everyone", "role:user"]
    some = st.frozensets(st.sampled_from(names), max_size=4)
    rules = st.builds(AccessRule, allow=some, deny=some)
    return people, draw(st.lists(rules, min_size=DOCUMENTS, max_size=DOCUMENTS))


def canary(world: int, document: int) -> str:
    return f"canary{world}x{document}x"


def fill(app: Application, tenant: str, world: int, rules: list[AccessRule]) -> None:
    documents = []
    for number, rule in enumerate(rules):
        text = f"The password of vault {number} is {canary(world, number)}."
        ref = DocumentRef(tenant, "leaks", f"{number}", f"mem:{number}", None, text, rule)
        documents.append(Prepared(ref, None, text, (Chunk(0, text, 0, len(text)),)))
    outcomes = write(embed(documents, app.embedder), app.ledger, app.store, f"w{world}")
    assert [outcome.status for outcome in outcomes] == ["indexed"] * len(rules)
    app.store.flush()  # what is not sealed, Milvus Lite indexes anew for every search


async def ask(app: Application, token: str, question: str) -> Any:
    async def stream() -> Any:
        async with app.guard.request(token, ("rag:query",), "query", "leak-test") as guarded:
            async for event in app.answering.answer(guarded, QueryRequest(question=question), Options()):
                yield event

    return await collect(stream())


@settings(
    max_examples=WORLDS,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(world=worlds())
def check_world(app: Application, caplog: Any, world: Any) -> None:
    people, rules = world
    number = next(world_numbers)
    tenant = f"leak-{number}"
    fill(app, tenant, number, rules)
    for place, groups in enumerate(people):
        person = Principal(f"p{place}", tenant, frozenset({"user"}), groups)
        permitted = {canary(number, n) for n, rule in enumerate(rules) if rule.permits(person)}
        forbidden = {canary(number, n) for n in range(len(rules))} - permitted
        searches = [
            Search(f"What is the password of vault {question}?", 50, mode="keyword" if question % 2 else "hybrid")
            for question in range(QUESTIONS)
        ]
        for found in [app.retrieval.search.remote(person, search) for search in searches]:  # all at once
            shown = " ".join(hit.text for hit in found.result().hits)
            assert not [word for word in forbidden if word in shown], "shown outside rights"
            assert all(word in shown for word in permitted), "wrongly hidden"
        token = app.issuer.sign(person.subject, tenant, person.roles, person.groups)
        answer = asyncio.run(ask(app, token, "What is the password of the vault?"))
        everything = answer.model_dump_json() + caplog.text
        assert not [word for word in forbidden if word in everything], "told outside rights"
        if permitted:
            assert any(word in answer.answer for word in permitted), "the model was shown nothing"
    caplog.clear()


def test_no_canary_leaves_its_rights_and_none_is_wrongly_hidden(application, caplog):
    caplog.set_level(logging.DEBUG)
    for noisy in ("pymilvus", "httpcore2", "httpx2", "openai", "asyncio", "ray", "urllib3", "grpc"):
        logging.getLogger(noisy).setLevel(logging.INFO)
    check_world(application, caplog)
