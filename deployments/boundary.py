"""The outermost layer of HTTP: request ids, body limits, problem documents, security headers, request metrics."""

from __future__ import annotations

import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.metrics import Metrics
from deployments.problems import answer_for
from deployments.webhooks import MAX_BODY_BYTES, PATH
from index.settings import LimitSettings
from policies.errors import TooLarge

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


def request_id_of(scope: Scope) -> str | None:
    """Give the request id that came with the request, if it is well-formed."""
    for name, value in scope.get("headers", []):
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return None


class Boundary:
    """ASGI middleware. Everything that goes wrong behind it leaves as a problem document, once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._metrics = Metrics("http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limit(scope))
        started = time.perf_counter()
        with self._metrics.active():
            try:
                exchange.refuse_early()
                await self._app(scope, exchange.receive, exchange.send)
            except Exception as error:
                self._metrics.error(type(error).__name__)
                if exchange.status:  # the head has left: the stream can only be cut
                    raise
                problem = answer_for(error, exchange.request_id).response(exchange.request_id)
                await problem(scope, receive, exchange.send)
            finally:
                route = scope.get("route")
                endpoint = getattr(route, "path", "unknown")
                seconds = time.perf_counter() - started
                self._metrics.request(scope["method"], endpoint, exchange.status or 499, seconds)

    def _limit(self, scope: Scope) -> int:
        limits: LimitSettings = scope["app"].state.limits
        if scope["path"].startswith(PATH):
            return min(limits.max_body_bytes, MAX_BODY_BYTES)
        upload = scope["path"] == "/v1/documents" and scope["method"] == "POST"
        return int(limits.max_upload_mb * 1_000_000) if upload else limits.max_body_bytes


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._read = 0
        self._declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        self.status = 0
        given = request_id_of(scope)
        # Serve's proxy makes an id where the caller gave none, and puts whatever id came in on the answer itself.
        self._own_header = given is None
        self.request_id = given or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.request_id

    def refuse_early(self) -> None:
        """Raise `TooLarge` before reading a body that says itself that it is."""
        if self._declared.isdigit() and int(self._declared) > self._limit:
            raise TooLarge(f"the body is over {self._limit} bytes")

    async def receive(self) -> Message:
        """Read on; raise `TooLarge` when a body that did not say its length is over the limit."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise TooLarge(f"the body is over {self._limit} bytes")
        return message

    async def send(self, message: Message) -> None:
        """Send on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [*([(b"x-request-id", self.request_id.encode())] if self._own_header else []), *_SECURITY]
            names = {name for name, _ in own}
            message["headers"] = [(k, v) for k, v in message["headers"] if k.lower() not in names] + own
        await self._send(message)
