"""The service in this process: the deployments' own code, a real ledger, audit record and Milvus Lite; no Ray cluster.

What stands between the deployments in production, Serve's handles and its HTTP proxy, is replaced by `Direct` and by
calls of the ASGI application. Everything that decides who sees what is the product's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import jwt
import pytest
import yaml
from ray.serve import context
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.config import DeploymentConfig
from ray.serve.schema import ReplicaRank
from ray.util import metrics

import policies
from deployments import ingress
from deployments.embedding import Embedding
from deployments.generation import Generation
from deployments.identity import development_issuer
from deployments.prompting import Message
from deployments.reranking import Reranking
from deployments.retrieval import Retrieval
from deployments.sync import Sync
from deployments.writers import Wish
from index.analysis import analyse
from index.document import Chunk, DocumentRef
from index.embedding_cache import text_hash
from index.ledger import Ledger
from index.settings import AppArgs, parse
from index.stores import Live, Stores
from index.vectors import ChunkRow
from ingest.report import Outcome
from ingest.stages import Prepared, embed, write
from policies.groups import Membership
from policies.principals import Principal
from policies.roles import Roles
from tests.leaks.worlds import LABELS, Person
from tests.tiny_models import write_tiny_model

T = TypeVar("T")
ISSUER, AUDIENCE = "rayrag-leaks", "rayrag"
LIFETIME_S = 3_600


def settings(home: Path, uri: str, **changes: Any) -> AppArgs:
    """The configuration: a tiny embedding model, a development issuer, everything else as the product has it."""
    model = home / "model"
    if not model.exists():
        write_tiny_model(model)
    (home / "secrets").mkdir(mode=0o700, exist_ok=True)
    issuer = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ["EdDSA"],
        "key_file": str(home / "secrets" / "issuer.pem"),
        "development": True,
        "services": {
            "known_by": [{"claim": "kind", "equals": "service"}],
            "client_id": "client_id",
            "clients": {"crawler": ["power_user", "cleared-internal"]},
        },
    }
    given: dict[str, Any] = {
        "data_dir": str(home),
        "store": {"uri": uri},
        "identity": {"issuers": [issuer], "roles": _roles()},
        "limits": {what: {"person": [], "tenant": []} for what in ("ask", "upload", "other", "tokens")},
        "embedding": {"model": str(model), "batch_wait_s": 0.0},
    }
    return parse({**given, **{name: {**given.get(name, {}), **part} for name, part in changes.items()}})


def _roles() -> dict[str, Any]:
    """The default roles, each with the least clearance, and roles that give more of it and nothing else."""
    roles = Roles.load({})
    lowest, cleared = LABELS[0], {f"cleared-{label}": {"permissions": [], "clearance": label} for label in LABELS}
    elsewhere = {"elsewhere": {"permissions": ["*"], "tenants": ["elsewhere"]}}
    defaults = yaml.safe_load((Path(policies.__file__).parent / "roles.yaml").read_text(encoding="utf-8"))
    assert defaults.keys() == {role.name for role in roles.all()}
    return {
        **{name: {"permissions": given, "clearance": lowest} for name, given in defaults.items()},
        **cleared,
        **elsewhere,
    }


class Direct:
    """What a deployment's handle does, without Serve: `handle.method.remote(...)`, awaited or iterated."""

    def __init__(self, instance: Any, streams: bool = False) -> None:
        self._instance = instance
        self._streams = streams

    def options(self, stream: bool = False) -> Direct:
        return Direct(self._instance, stream)

    def __getattr__(self, name: str) -> Any:
        return _Method(getattr(self._instance, name), self._streams)


class _Method:
    def __init__(self, work: Callable[..., Any], streams: bool) -> None:
        self._work = work
        self._streams = streams

    def remote(self, *arguments: Any) -> Any:
        return _Stream(self._work(*arguments)) if self._streams else asyncio.ensure_future(self._work(*arguments))


class _Stream:
    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._events = events
        self._cancelled = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for event in self._events:
            yield event
            if self._cancelled:
                return

    def cancel(self) -> None:
        self._cancelled = True


class Obedient:
    """A model that repeats everything it was shown and cites all of it: what it may not tell, it may not be shown."""

    name = "obedient"

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.while_writing: Callable[[], None] = lambda: None

    async def write(self, prompt: Sequence[Message], wish: Wish) -> AsyncIterator[str]:
        said = "\n".join(str(message["content"]) for message in prompt)
        self.prompts.append(said)
        yield said[: len(said) // 2]
        self.while_writing()
        yield said[len(said) // 2 :] + " " + "".join(f"[{n}]" for n in range(1, 9))


class _Reranked:
    """Keeps what the reranker was given."""

    def __init__(self, reranking: Any) -> None:
        self._reranking = reranking
        self.texts: list[str] = []
        self.before: Callable[[], None] = lambda: None

    async def scores(self, question: str, vectors: Any, texts: Any, hashes: Any, model_id: str) -> Any:
        self.texts += texts
        self.before()
        return await self._reranking.scores(question, vectors, texts, hashes, model_id)


class _Kept:
    async def running(self) -> bool:
        return True


class Service:
    """All deployments on one ledger and one store, and people who ask."""

    def __init__(self, home: Path, uri: str, **changes: Any) -> None:
        self.args = settings(home, uri, **changes)
        self.wide: Any = None  # what `dense_world` makes once
        self.issuer = development_issuer(self.args.identity)
        self.key = _signing_key(home)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="leaks", daemon=True)
        self._thread.start()
        self.run(self._build())

    async def _build(self) -> None:
        args = self.args
        self.embedding: Any = Embedding.func_or_class(args)
        embedding = Direct(self.embedding)
        self.reranked = _Reranked(Reranking.func_or_class(args))
        self.retrieval: Any = Retrieval.func_or_class(args, embedding, Direct(self.reranked))
        self.generation: Any = Generation.func_or_class(args, embedding, None)
        self.obedient = Obedient()
        self.sync: Any = Sync.func_or_class(args, embedding)
        kind: Any = next(c for c in ingress.Ingress.func_or_class.__mro__ if "query" in vars(c))
        self.ingress: Any = object.__new__(kind)
        handles = [Direct(each) for each in (self.retrieval, self.generation, self.sync, _Kept())]
        # Serve froze a copy of the application together with the class: its state is the one that the class fills.
        self.api: Any = kind.__init__.__globals__["api"]
        kind.__init__(self.ingress, args, *handles)
        self.ledger = self.retrieval._ledger
        self.store = self.sync._store
        transport = httpx2.ASGITransport(app=self.api, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://leaks", timeout=60)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the service's loop, to the end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def writes(self, obedient: bool) -> None:
        """Choose who writes answers: the model that tells all it was shown, or the extractive writer."""
        self.generation._writer = self.obedient if obedient else None

    def empty(self) -> None:
        """Remove all rows, and begin with an empty collection; the ledger keeps what it has."""
        for store in self.stores():
            store.drop()
            store.open()

    def flush(self) -> None:
        """Seal what was written: what is not, Milvus Lite searches row by row."""
        self.store.flush()

    def stores(self) -> list[Any]:
        """The collection of the live model."""
        return [self.retrieval._live.ask().store]

    def use(self, ledger: Ledger) -> None:
        """Go on with another connection to the same ledger, as after a restart: nothing of it is remembered."""
        for part in (self, self.retrieval, self.sync, self.ingress):
            part._ledger = part.ledger = ledger
        self.sync._prepare._ledger = ledger

    def restart(self) -> None:
        """Go on as a process that was started anew: nothing remembered, other connections to the ledger and store."""
        self.ledger.close()
        self.use(Ledger(self.args.store.ledger))
        self.retrieval._live = Live(self.args)
        self.retrieval._live.ask()
        self.store = self.sync._store = Stores(self.args)
        self.embedding._questions.clear()

    def write_rows(self, ref: DocumentRef, version: int, text: str) -> None:
        """Write a version's only row as `ref` says, and nothing to the ledger: as far as a run came that died then."""
        tenant = self.ledger.tenant_id(ref.tenant)
        vectors, _ = self.embedding._passages([text])
        row = ChunkRow(
            document_id=ref.document_id,
            version=version,
            tenant_id=tenant,
            access_id=self.ledger.intern_rule(tenant, ref.rule),
            position=0,
            start=0,
            end=len(text),
            page=None,
            context="",
            text=text,
            analysed=analyse(text),
            text_hash=text_hash(text).hex(),
            dense=vectors[0],
        )
        self.store.upsert([row])

    def forget_revocations(self) -> None:
        """Read the list of revocations anew with the next token, as each replica does once in a while."""
        self.ingress._guard._verifier._revocations.forget()

    def question(self, text: str) -> Any:
        """A question's vector under the live model."""
        model = self.retrieval._live.ask().model_id
        return self.run(self.embedding.question("anyone", text, model, False)).dense

    def write(self, documents: Sequence[DocumentRef], texts: Sequence[str]) -> list[Outcome]:
        """Bring documents in as ingestion does: embedded, written, made live. One passage each."""
        prepared = [
            Prepared(ref, ref.title, hashlib.sha256(text.encode()).hexdigest(), (Chunk(0, text, 0, len(text)),))
            for ref, text in zip(documents, texts, strict=True)
        ]
        return write(embed(prepared, self.embedding._passages), self.ledger, self.store, "leaks")

    def token(self, subject: str, tenant: str, roles: Sequence[str] = ("user",), groups: Sequence[str] = ()) -> str:
        return self.issuer.sign(subject, tenant, roles, groups)

    def token_of(self, person: Person, subject: str | None = None) -> str:
        """A token as the person's issuer would write it; their clearance comes with a role that has it."""
        roles = [*person.roles, f"cleared-{LABELS[person.clearance]}"]
        return self.token(subject or person.subject, person.tenant, roles, person.groups)

    def know(self, parents: Mapping[str, Mapping[str, frozenset[str]]]) -> None:
        """Tell the directory of groups which groups of each tenant are members of which."""
        for tenant, above in parents.items():
            edges = [Membership(f"group:{member}", group) for member, groups in above.items() for group in groups]
            self.ledger.groups.replace(tenant, "leaks", edges)

    async def authenticate(self, token: str) -> Principal:
        """Who the service takes the bearer for: every step between a token and a caller."""
        caller: Principal = await self.api.state.authenticate(token)
        return caller

    def sign(self, claims: dict[str, Any]) -> str:
        """Sign any claims, also those that no honest issuer would."""
        return jwt.encode(claims, self.key, algorithm="EdDSA", headers=jwt.get_unverified_header(self.token("x", "x")))

    def principal(self, token: str) -> Principal:
        """`authenticate`, from outside of the loop."""
        return self.run(self.authenticate(token))

    async def ask(self, method: str, path: str, token: str | None, **kwargs: Any) -> httpx2.Response:
        headers = {**kwargs.pop("headers", {}), **({"authorization": f"Bearer {token}"} if token else {})}
        return await self.client.request(method, path, headers=headers, **kwargs)

    def call(self, method: str, path: str, token: str | None, **kwargs: Any) -> httpx2.Response:
        return self.run(self.ask(method, path, token, **kwargs))

    def close(self) -> None:
        self.run(self.client.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


@contextmanager
def serving(home: Path, uri: str, **changes: Any) -> Iterator[Service]:
    """Run a service in `home`."""
    before = context._INTERNAL_REPLICA_CONTEXT
    service = Service(home, uri, **changes)
    # Routes and batches ask Serve in which replica they run.
    context._set_internal_replica_context(
        replica_id=ReplicaID("leaks", DeploymentID("Ingress", "leaks")),
        servable_object=service.ingress,
        _deployment_config=DeploymentConfig(),
        rank=ReplicaRank(rank=0, node_rank=0, local_rank=0),
        world_size=1,
    )
    try:
        yield service
    finally:
        context._INTERNAL_REPLICA_CONTEXT = before
        service.close()


class Told:
    """Everything that goes to operators: log lines of every logger, and the labels of every metric."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        handler = logging.Handler(logging.DEBUG)
        handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
        handler.emit = lambda record: self.lines.append(handler.format(record))  # type: ignore[method-assign]
        for name in ("", "ray", "ray.serve", "ray.data"):
            logger = logging.getLogger(name)
            patch.setattr(logger, "handlers", [*logger.handlers, handler])
            patch.setattr(logger, "level", logging.DEBUG)
        for noisy in ("asyncio", "grpc", "pymilvus", "httpx2", "httpcore2"):
            logging.getLogger(noisy).setLevel(logging.INFO)
        for kind, method in ((metrics.Counter, "inc"), (metrics.Gauge, "set"), (metrics.Histogram, "observe")):
            patch.setattr(kind, method, self._labels(getattr(kind, method)))

    def _labels(self, original: Any) -> Any:
        def recorded(instrument: Any, value: Any = 1.0, tags: Any = None) -> None:
            self.lines.append(f"{instrument._name} {tags}")
            original(instrument, value, tags)

        return recorded

    def take(self) -> str:
        """Give what was told since the last time."""
        told, self.lines = "\n".join(self.lines), []
        return told


def _signing_key(home: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key((home / "secrets" / "issuer.pem").read_bytes(), None)


def routes_of(api: Any) -> list[Any]:
    """Every route of an application, also those in routers that were included."""
    found: list[Any] = []
    for route in api.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        found += [route] if hasattr(route, "dependant") else routes_of(inner) if inner is not None else []
    return found
