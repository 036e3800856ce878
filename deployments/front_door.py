"""What Serve's HTTP proxy puts before every application: answers that Serve makes itself say as little as ours.

Serve's proxy answers on its own where no replica does: no application yet, a full queue, a replica that died, a time
that ran out. Those answers are plain text which names its settings, its paths and its server. Here they become problem
documents with the headers of all others. Set by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` (see `cluster.serve_file`).
"""

from __future__ import annotations

import functools
import json
from http import HTTPStatus
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.headers import SECURITY, Headers, with_header

HEALTH = "/-/healthz"
"""Serve's own probe, which Kubernetes asks: one word, no token."""
_OWN = "/-/"
_PROBLEM = b"application/problem+json"
_RETRY_S = 1


def middlewares() -> list[Middleware]:
    """Give what the proxy puts around itself; keep its server from naming itself, and from believing who says for whom.

    The caller's address is the connection's: `X-Forwarded-For` is what anyone on this machine may write.
    """
    import uvicorn

    # Serve builds its server's settings itself, and has no place for these (ray/serve/_private/http_util.py).
    config: Any = uvicorn.Config
    uvicorn.Config = functools.partial(config, server_header=False, proxy_headers=False)  # type: ignore[misc,assignment]
    return [Middleware(FrontDoor)]


class FrontDoor:
    """ASGI middleware around Serve's proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        if scope["path"].startswith(_OWN) and scope["path"] != HEALTH:
            await answer.problem(HTTPStatus.NOT_FOUND, [])  # the list of routes is for whoever has a token
        else:
            await self._app(scope, receive, answer.send)


class _Answer:
    """One answer. What is an error, and no problem document of ours, is replaced by one."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._replaced = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", [])]
            kind = next((value for name, value in headers if name == b"content-type"), b"")
            if message["status"] >= HTTPStatus.BAD_REQUEST and not kind.startswith((_PROBLEM, b"application/json")):
                self._replaced = True
                await self.problem(HTTPStatus(message["status"]), headers)
                return
            names = {name for name, _ in headers}
            message["headers"] = headers + [each for each in SECURITY if each[0] not in names]
        if not self._replaced:
            await self._send(message)

    async def problem(self, status: HTTPStatus, headers: Headers) -> None:
        """Send a problem document; of the headers stay the request's id and, for errors that pass, when to return."""
        request_id = next((value for name, value in headers if name == b"x-request-id"), b"")
        body = {
            "type": "about:blank",
            "title": status.phrase,
            "status": int(status),
            "detail": "no such route" if status == HTTPStatus.NOT_FOUND else "the request was not answered; try again",
            "request_id": request_id.decode("latin-1"),
        }
        content = json.dumps(body).encode()
        own: Headers = [(b"content-type", _PROBLEM), (b"content-length", str(len(content)).encode()), *SECURITY]
        if request_id:
            own.append((b"x-request-id", request_id))
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            own.append((b"retry-after", str(_RETRY_S).encode()))
        await self._send({"type": "http.response.start", "status": int(status), "headers": with_header([], own)})
        await self._send({"type": "http.response.body", "body": content})
