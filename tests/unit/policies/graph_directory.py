"""Microsoft Graph's list of a person's groups, on loopback: pages, tokens, throttling, failures.

Answers follow https://learn.microsoft.com/graph/api/user-list-transitivememberof and /graph/throttling.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "the application's secret"


@dataclass
class GraphDirectory:
    """`groups` by person; `answers`: what the next requests to Graph get in place of an answer, first to last."""

    groups: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    page: int = 2
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    sign_in_answers: list[tuple[int, bytes]] = field(default_factory=list)
    delay_s: float = 0.0
    next_link: str | None = None
    asked: list[str] = field(default_factory=list)
    tokens: int = 0
    accepted: set[str] = field(default_factory=set)
    address: str = ""

    def member(self, person: str, *ids: str, kind: str = "group", **more: Any) -> None:
        """Put a person into groups."""
        entries = [
            {"@odata.type": f"#microsoft.graph.{kind}", "id": name, "securityEnabled": True, **more} for name in ids
        ]
        self.groups.setdefault(person, []).extend(entries)

    def sign_in(self, path: str, form: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        """Answer the application that asks for its own token."""
        if self.sign_in_answers:
            status, body = self.sign_in_answers.pop(0)
            return status, {}, body
        said = (path, form["client_secret"], form["grant_type"], form["scope"])
        scope = f"{self.address}/.default"
        if said != ("/contoso/oauth2/v2.0/token", [SECRET], ["client_credentials"], [scope]):
            return 401, {}, b'{"error": "invalid_client"}'
        self.tokens += 1
        self.accepted = {f"Bearer app-{self.tokens}"}
        return 200, {}, json.dumps({"access_token": f"app-{self.tokens}", "expires_in": 3599}).encode()

    def page_of(self, address: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        """Answer with one page of somebody's groups."""
        self.asked.append(address)
        time.sleep(self.delay_s)
        if self.answers:
            return self.answers.pop(0)
        if token not in self.accepted:
            return 401, {}, b'{"error": {"code": "InvalidAuthenticationToken"}}'
        parts = urlsplit(address)
        found = re.fullmatch(r"/v1\.0/(?:users|servicePrincipals)/([^/]+)/transitiveMemberOf", parts.path)
        entries = self.groups.get(found[1]) if found else None
        if entries is None:
            return 404, {}, b'{"error": {"code": "Request_ResourceNotFound"}}'
        start = int(parse_qs(parts.query).get("$skiptoken", ["0"])[0])
        end = start + self.page
        page: dict[str, Any] = {"value": entries[start:end]}
        if end < len(entries):
            page["@odata.nextLink"] = self.next_link or f"{self.address}{parts.path}?$skiptoken={end}"
        return 200, {}, json.dumps(page).encode()


@contextmanager
def serving() -> Iterator[GraphDirectory]:
    state = GraphDirectory()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            self.say(*state.sign_in(self.path, form))

        def do_GET(self) -> None:
            self.say(*state.page_of(self.path, self.headers.get("authorization")))

        def say(self, status: int, headers: dict[str, str], body: bytes) -> None:
            try:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # who asked gave up, as a test wants it to

        def log_message(self, *_args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        state.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
        server.shutdown()
        thread.join()
