"""The HTTP ingress: routes only. Who may pass is `policies.guard`, what fails is `deployments.problems`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from deployments import openai_api
from deployments.answering import Answering, Options, Text, as_of, collect
from deployments.audit_routes import AuditDesk
from deployments.audit_routes import router as audit_router
from deployments.boundary import Boundary
from deployments.callers import BearerToken, Caller, RequestId
from deployments.contract import (
    ChatRequest,
    DocumentBody,
    DocumentPage,
    DocumentStatus,
    HitBody,
    Problem,
    QueryRequest,
    QueryResponse,
    RetrieveResponse,
    RuleChange,
    SourceBody,
    SourcesResponse,
    StatusWord,
    UploadResponse,
    WebhookResponse,
)
from deployments.exposition import exposition
from deployments.identity import audit_log, credentials, policy_version, scrape_token
from deployments.limits import limits
from deployments.metrics import Metrics
from deployments.privacy_routes import PrivacyRoutes
from deployments.privacy_routes import router as privacy_router
from deployments.screens import SourceNames, personal_data
from deployments.sign_in_desk import sign_in_desk
from deployments.sign_in_routes import router as sign_in_router
from deployments.streaming import query_events, streamed
from deployments.uploads import read_uploads, upload_response
from deployments.webhooks import PATH as WEBHOOKS
from deployments.webhooks import Webhooks
from index.document import Hit
from index.ledger import Ledger
from index.ledger_records import DocumentRecord
from index.policy_versions import policy_parts
from index.settings import AppArgs
from ingest.report import Outcome
from ingest.source_states import source_states
from policies.access import AccessRule
from policies.audit_refusals import Refusals
from policies.compliance.screening import Passage
from policies.errors import InvalidRequest, NotFound, RayragError, TooLarge
from policies.grants import SOMEWHERE
from policies.guard import Guard, GuardedRequest, Screens
from policies.keyed_hashes import KeyedHashes
from policies.links import Links
from policies.principals import Principal
from policies.roles import Roles

log = logging.getLogger("ray.serve")
_DOCUMENT_ID = re.compile(r"[0-9a-f]{32}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
"""What a purpose looks like that has a name; other text may hold anything, and does not go on the record."""

ASK = ("rag:query", "rag:query:readonly")
# Whoever holds one for some sources only passes the door, and finds nothing of the other sources behind it.
WRITE = ("documents:write", "documents:write" + SOMEWHERE)
DELETE = ("documents:delete", "documents:delete" + SOMEWHERE)
MONITOR = ("system:monitor", "system:monitor" + SOMEWHERE)

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "content": {"application/problem+json": {}}} for code in (401, 403, 413, 422, 429, 503)
}
_signature = APIKeyHeader(name="webhook-signature", scheme_name="StandardWebhooks", auto_error=False)
api = FastAPI(
    title="rayrag",
    version="1",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,  # behind a token, below
    redirect_slashes=False,  # a redirect would name the host that the caller claims, before asking who they are
    description="Questions and cited answers over a company's documents, within each person's rights.",
)


def _raise(_: Request, error: Exception) -> Response:
    raise error


# The boundary answers for every error, so that one table decides; these two would be answered inside of it.
api.add_exception_handler(RequestValidationError, _raise)
api.add_exception_handler(HTTPException, _raise)
api.add_middleware(Boundary)
api.include_router(sign_in_router)
api.include_router(privacy_router)
api.include_router(audit_router)


# Ray freezes the routes when the class is decorated: what they use must stand above it.


@api.get("/openapi.json", include_in_schema=False)
async def _openapi(request: Request, _: Caller) -> JSONResponse:
    """Describe the routes, to whoever has a token: the same to all, and about nobody, so that it needs no record."""
    return JSONResponse(request.app.openapi())


def _id(text: str) -> str:
    """Spell a document's id as the record does: what is none may be any text, and people's names in it."""
    return text if _DOCUMENT_ID.fullmatch(text) else "?"


def _hit(hit: Hit) -> HitBody:
    return HitBody(**{name: getattr(hit, name) for name in HitBody.model_fields})


def _document(record: DocumentRecord) -> DocumentBody:
    return DocumentBody(
        document_id=record.document_id,
        external_id=record.external_id,
        title=record.title,
        uri=record.uri,
        version=record.version,
        chunks=record.chunk_count,
        updated_at=datetime.fromtimestamp(record.updated_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        source=record.source,
        label=record.label,
    )


@serve.deployment(name="Ingress")
@serve.ingress(api)
class Ingress:
    """Turns HTTP into guarded calls of the other deployments."""

    def __init__(
        self,
        args: AppArgs,
        retrieval: DeploymentHandle[Any],
        generation: DeploymentHandle[Any],
        sync: DeploymentHandle[Any],
        freshness: DeploymentHandle[Any],
    ) -> None:
        self._args = args
        # The middleware was built before the configuration was known.
        api.state.limits, api.state.http = args.limits, args.http
        self._sync = sync
        self._freshness = freshness
        self._metrics = Metrics("ingress")
        self._ledger = Ledger(args.store.ledger)
        sources = SourceNames(self._ledger.classifications.source_names)
        self._answering = Answering(retrieval, generation, self._metrics, args.generation.context_chunks, sources)
        self._retrieval = retrieval
        self._scrape_token = scrape_token(args.identity)
        self._roles = Roles.load(args.identity.roles)
        audit, policies = audit_log(args), policy_version(args)
        # Before the first request under it.
        audit.note_policy(policies, policy_parts(args), "service")
        self._hashes = KeyedHashes.load(Path(args.compliance.key_file))
        counted = limits(args.limits, self._metrics)
        known = credentials(args.identity, self._ledger, self._roles)
        screens = Screens(
            links=Links.to(args.generation.link_hosts), personal=personal_data(args, self._ledger, self._roles)
        )
        self._guard = Guard(
            known.identity, self._roles, audit, policies, screens, limits=[counted], charges=[counted.charge]
        )
        api.state.sign_in = sign_in_desk(
            args.identity, known, self._ledger, self._guard, audit, policies, counted.sign_in, self._hashes
        )
        self._webhooks = Webhooks(self._ledger, audit, policies)
        api.state.audit, api.state.refusals = AuditDesk(self._guard, audit), Refusals(audit, policies)
        api.state.privacy = PrivacyRoutes(self._guard, sync)
        api.state.authenticate = self._guard.authenticate

    # ---- questions

    @api.post("/v1/query", response_model=QueryResponse, responses=_PROBLEMS)
    async def query(self, body: QueryRequest, caller: Caller, request_id: RequestId) -> Any:
        """Answer a question with citations. `stream`: server-sent events token, citations, done or error."""
        answer = self._answer(body, Options(), caller, request_id)
        if body.stream:
            return await streamed(answer, query_events, request_id)
        return await collect(answer)

    @api.post("/v1/retrieve", response_model=RetrieveResponse, responses=_PROBLEMS)
    async def retrieve(self, body: QueryRequest, caller: Caller, request_id: RequestId) -> RetrieveResponse:
        """Give the passages that would answer, best first."""
        noted = self._noted(body, caller)
        async with self._guard.request(caller, ASK, "retrieve", request_id, noted) as guarded:
            self._check(body)
            found = await self._answering.retrieve(guarded, body, body.top_k)
            guarded.shown(hit.chunk_id for hit in found.hits)
        return RetrieveResponse(
            request_id=request_id,
            hits=[_hit(hit) for hit in found.hits],
            degraded=list(found.degraded),
            timings_ms=found.timings_ms,
            as_of=as_of(found.hits),
        )

    @api.post("/v1/chat/completions", responses=_PROBLEMS)
    async def chat(self, body: ChatRequest, caller: Caller, request_id: RequestId) -> Any:
        """OpenAI's chat completions: the last user message is the question; citations come with the message."""
        question, options = openai_api.question_of(body, self._args.limits)
        purpose = body.metadata.get("purpose") if body.metadata else None
        answer = self._answer(QueryRequest(question=question, purpose=purpose), options, caller, request_id)
        if body.stream:
            return await streamed(answer, openai_api.events(body), request_id)
        return openai_api.completion(body, await collect(answer))

    @api.get("/v1/models", responses=_PROBLEMS)
    async def models(self, caller: Caller, request_id: RequestId) -> dict[str, Any]:
        """OpenAI's list: the one name that this application answers to."""
        async with self._guard.request(caller, ASK, "models", request_id):
            return openai_api.models(self._args.generation.served_name)

    # ---- documents

    @api.post("/v1/documents", status_code=201, response_model=UploadResponse, responses=_PROBLEMS)
    async def upload(self, request: Request, caller: Caller, request_id: RequestId) -> UploadResponse:
        """Index one JSON document or the files of a multipart form; searchable when this answers."""
        async with self._guard.request(caller, "rag:upload", "upload", request_id) as guarded:
            uploads = await read_uploads(request, int(self._args.limits.max_upload_mb * 1_000_000))
            overwrite = self._roles.scope(guarded.principal, "documents:write")
            outcomes: list[Outcome] = []
            for upload in uploads:
                outcomes.append(await self._sync.put.remote(guarded.principal, upload, overwrite))
                guarded.note({"documents": [outcome.document_id for outcome in outcomes]})  # also where the next fails
            return upload_response(outcomes)

    @api.get("/v1/documents", response_model=DocumentPage, responses=_PROBLEMS)
    async def documents(
        self,
        caller: Caller,
        request_id: RequestId,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> DocumentPage:
        """List the documents that the caller may see, in order of their id."""
        async with self._guard.request(caller, "rag:view_sources", "documents.list", request_id) as guarded:
            found = await asyncio.to_thread(self._ledger.list, guarded.principal, limit + 1, after)
            page = found[:limit]
            shown = await self._named(guarded, page)
        more = page[-1].document_id if len(found) > limit else None
        return DocumentPage(documents=shown, next=more)

    @api.get("/v1/documents/{document_id}", response_model=DocumentBody, responses=_PROBLEMS)
    async def document(self, document_id: str, caller: Caller, request_id: RequestId) -> DocumentBody:
        """Give one document; 404 for unknown and for not yours."""
        async with self._guard.request(caller, "rag:view_sources", "documents.get", request_id) as guarded:
            found = await asyncio.to_thread(self._ledger.get, guarded.principal, document_id)
            if found is None:
                raise NotFound("no such document")
            shown = await self._named(guarded, [found])
        if not shown:
            raise NotFound("no such document")
        return shown[0]

    @api.put("/v1/documents/{document_id}/acl", response_model=DocumentStatus, responses=_PROBLEMS)
    async def set_rule(
        self, document_id: str, body: RuleChange, caller: Caller, request_id: RequestId
    ) -> DocumentStatus:
        """Change who may read, and the label; when this answers, no reader sees the old state."""
        rule = AccessRule.of(body.allow, body.deny)
        detail = {"document": _id(document_id)} | ({} if body.label is None else {"label": body.label.word})
        async with self._guard.request(caller, WRITE, "documents.acl", request_id, detail) as guarded:
            scope = self._roles.scope(guarded.principal, WRITE[0])
            stored = await self._sync.set_rule.remote(guarded.principal, document_id, rule, body.label, scope)
        return DocumentStatus(document_id=document_id, version=stored.version, status="updated")

    @api.delete("/v1/documents/{document_id}", response_model=DocumentStatus, responses=_PROBLEMS)
    async def delete(self, document_id: str, caller: Caller, request_id: RequestId) -> DocumentStatus:
        """Delete; when this answers, no reader sees it."""
        detail = {"document": _id(document_id)}
        async with self._guard.request(caller, DELETE, "documents.delete", request_id, detail) as guarded:
            scope = self._roles.scope(guarded.principal, DELETE[0])
            await self._sync.delete.remote(guarded.principal, document_id, scope)
        return DocumentStatus(document_id=document_id, version=None, status="deleted")

    # ---- sources

    @api.get("/v1/sources", response_model=SourcesResponse, responses=_PROBLEMS)
    async def sources(self, caller: Caller, request_id: RequestId) -> SourcesResponse:
        """Give the state, the lag and the last error of each source of the caller's tenant that is kept fresh."""
        async with self._guard.request(caller, MONITOR, "sources", request_id) as guarded:
            scope = self._roles.scope(guarded.principal, MONITOR[0])
            states = await asyncio.to_thread(source_states, self._ledger, guarded.principal.tenant)
            found = [state for state in states if scope.covers(state.name)]
            try:
                running = bool(await self._freshness.running.remote())
            except (RayError, RayServeException):
                running = False  # nothing keeps them fresh: that is what the caller asks about
        return SourcesResponse(kept_fresh=running, sources=[SourceBody(**asdict(state)) for state in found])

    @api.post(
        WEBHOOKS + "{source}",
        status_code=202,
        response_model=WebhookResponse,
        responses=_PROBLEMS,
        dependencies=[Depends(_signature)],
    )
    async def webhook(self, source: str, request: Request, request_id: RequestId) -> WebhookResponse:
        """Have documents looked at, or the source listed: JSON or CloudEvents, signed as Standard Webhooks says."""
        accepted = await self._webhooks.accept(source, request.headers, await request.body(), request_id)
        return WebhookResponse(request_id=request_id, accepted=accepted)

    # ---- probes and metrics

    @api.get("/healthz", response_model=StatusWord)
    async def healthz(self) -> StatusWord:
        """Say that this process answers."""
        return StatusWord(status="ok")

    @api.get("/readyz", response_model=StatusWord)
    async def readyz(self, response: Response) -> StatusWord:
        """Say whether questions can be answered: ledger and vector store are there."""
        try:
            async with asyncio.timeout(5):
                await self._retrieval.check_health.remote()
                if await asyncio.to_thread(self._ledger.healthy):
                    return StatusWord(status="ok")
        except (RayError, RayServeException, RayragError, TimeoutError) as error:
            log.warning("not ready: %s", type(error).__name__)
        response.status_code = 503
        return StatusWord(status="unavailable")

    @api.get("/metrics", responses=_PROBLEMS)
    async def metrics(self, token: BearerToken, request_id: RequestId) -> Response:
        """Prometheus text of all nodes, for the scrape token or `system:monitor`."""
        if self._scrape_token is None or not hmac.compare_digest(token.encode(), self._scrape_token.encode()):
            caller = await self._guard.authenticate(token)
            async with self._guard.request(caller, "system:monitor", "metrics", request_id):
                pass
        return Response(await asyncio.to_thread(exposition), media_type="text/plain; version=0.0.4; charset=utf-8")

    # ---- the middle

    async def _named(self, guarded: GuardedRequest, records: Sequence[DocumentRecord]) -> list[DocumentBody]:
        """Give documents as this caller may see their names, without those that a rule holds back."""
        names = [
            Passage(each.document_id, each.source, "", (each.title, each.uri, each.external_id)) for each in records
        ]
        shown = await guarded.names(names)
        return [
            _document(replace(record, title=each.fields[0], uri=each.fields[1], external_id=each.fields[2]))
            for record, each in zip(records, shown, strict=True)
            if each.withheld is None
        ]

    def _noted(self, body: QueryRequest, caller: Principal) -> dict[str, str]:
        noted = {"question_hash": self._hashes.of(caller.tenant, "question", body.question)}
        return noted | ({"purpose": body.purpose if _WORD.fullmatch(body.purpose) else "?"} if body.purpose else {})

    def _check(self, body: QueryRequest) -> None:
        if len(body.question) > self._args.limits.max_question_chars:
            raise TooLarge(f"question: at most {self._args.limits.max_question_chars} characters")
        if not body.question.strip():
            raise InvalidRequest("question: say something")

    async def _answer(
        self, body: QueryRequest, options: Options, caller: Principal, request_id: str
    ) -> AsyncIterator[Text | QueryResponse]:
        noted = self._noted(body, caller)
        async with self._guard.request(caller, ASK, "query", request_id, noted) as guarded:
            self._check(body)
            openai_api.check_model(options.model, self._args.generation.served_name)
            final = None
            async for event in self._answering.answer(guarded, body, options):
                if isinstance(event, QueryResponse):
                    final = event
                else:
                    yield event
        assert final is not None, "an answer's stream ends in its response"
        yield final  # behind the audit outcome: no record, no answer
