"""The outermost layer of HTTP in a replica: request ids, limits of size, problem documents, headers, metrics."""

from __future__ import annotations

import re
import time
import uuid

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.headers import Headers, cross_origin, security, with_header
from deployments.metrics import Metrics
from deployments.problems import answer_for
from deployments.webhooks import MAX_BODY_BYTES, PATH
from index.settings import HttpSettings, LimitSettings
from policies.audit_refusals import Refusals
from policies.errors import (
    HeadersTooLarge,
    RayragError,
    SignInRefused,
    TokenRejected,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from policies.principals import Principal

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CLOSED = HttpSettings()


def request_id_of(scope: Scope) -> str | None:
    """Give the request id that came with the request, if it is well-formed."""
    for name, value in scope.get("headers", []):
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return None


def count_refusal(scope: Scope, error: Exception) -> None:
    """Have what was refused before a request began counted for the audit record; others are on it already."""
    refusals: Refusals | None = getattr(scope["app"].state, "refusals", None)
    if refusals is None or getattr(error, "recorded", False):
        return
    who: Principal | None = scope["state"].get("caller")
    if isinstance(error, TokenRejected | SignInRefused):
        refusals.count(401, error.reason, who)
    elif isinstance(error, Unauthenticated):
        refusals.count(401, "absent", who)
    elif isinstance(error, RequestValidationError):
        refusals.count(422, "invalid", who)
    elif isinstance(error, HTTPException) and error.status_code < 500:
        refusals.count(error.status_code, "no_such_route", who)
    elif isinstance(error, RayragError) and not isinstance(error, Unavailable):
        refusals.count(0, type(error).__name__, who)


class Boundary:
    """ASGI middleware. Everything that goes wrong behind it leaves as a problem document, once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._metrics = Metrics("http")
        self._cross_origin: tuple[HttpSettings, CORSMiddleware] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The settings are asked for each time: the middleware was built before the configuration was known.
        settings: HttpSettings = getattr(scope["app"].state, "http", _CLOSED)
        exchange = _Exchange(scope, receive, send, self._limit(scope), security(settings))
        started = time.perf_counter()
        with self._metrics.active():
            try:
                answer = self._for_origin(scope, settings, exchange)
                await answer(scope, exchange.receive, exchange.send)
            finally:
                route = scope.get("route")
                endpoint = getattr(route, "path", "unknown")
                seconds = time.perf_counter() - started
                self._metrics.request(scope["method"], endpoint, exchange.status or 499, seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: _Exchange = scope["state"]["exchange"]
        try:
            exchange.refuse_early(scope["app"].state.limits)
            await self._app(scope, receive, send)
        except Exception as error:
            self._metrics.error(type(error).__name__)
            if isinstance(error, Unauthenticated):
                self._metrics.refused(error.reason if isinstance(error, TokenRejected) else "absent")
            count_refusal(scope, error)
            if exchange.status:  # the head has left: the stream can only be cut
                raise
            # FastAPI calls a body that it could not read to its end a bad request.
            problem = answer_for(exchange.refusal or error, exchange.request_id).response(exchange.request_id)
            await problem(scope, receive, send)

    def _for_origin(self, scope: Scope, settings: HttpSettings, exchange: _Exchange) -> ASGIApp:
        """Answer pages of the origins that may read; all others as programs, which no browser lets them read."""
        scope["state"]["exchange"] = exchange
        origin = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)
        if origin not in settings.cors_origins:
            return self._answer
        if self._cross_origin is None or self._cross_origin[0] is not settings:
            self._cross_origin = settings, cross_origin(self._answer, settings)
        return self._cross_origin[1]

    def _limit(self, scope: Scope) -> int:
        limits: LimitSettings = scope["app"].state.limits
        if scope["path"].startswith(PATH):
            return min(limits.max_body_bytes, MAX_BODY_BYTES)
        upload = scope["path"] == "/v1/documents" and scope["method"] == "POST"
        return int(limits.max_upload_mb * 1_000_000) if upload else limits.max_body_bytes


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int, headers: Headers) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._headers = headers
        self._read = 0
        self._declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        # A token has a limit of its own, and is refused as no token.
        head = [part for pair in scope["headers"] if pair[0] != b"authorization" for part in pair]
        self._head_bytes = sum(map(len, (scope.get("raw_path") or b"", scope.get("query_string") or b"", *head)))
        self.status = 0
        self.refusal: TooLarge | None = None
        given = request_id_of(scope)
        # Serve's proxy makes an id where the caller gave none, and puts whatever id came in on the answer itself.
        self._own_header = given is None
        self.request_id = given or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.request_id

    def refuse_early(self, limits: LimitSettings) -> None:
        """Raise `TooLarge` before reading a head, or a body that says itself that it is."""
        if self._head_bytes > limits.max_header_bytes:
            raise HeadersTooLarge(f"path, query and headers: at most {limits.max_header_bytes} bytes")
        if self._declared.isdigit() and int(self._declared) > self._limit:
            raise TooLarge(f"the body is over {self._limit} bytes")

    async def receive(self) -> Message:
        """Read on; raise `TooLarge` when a body that did not say its length is over the limit."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            self.refusal = TooLarge(f"the body is over {self._limit} bytes")
            raise self.refusal
        return message

    async def send(self, message: Message) -> None:
        """Send on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [*([(b"x-request-id", self.request_id.encode())] if self._own_header else []), *self._headers]
            message["headers"] = with_header(message["headers"], own)
        await self._send(message)
