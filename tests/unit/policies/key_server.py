"""An identity provider's published keys, on loopback, with the faults that such endpoints have."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class KeyServer:
    """An identity provider's key endpoint on loopback."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    body: bytes | None = None
    status: int = 200
    delay_s: float = 0.0
    location: str | None = None
    drip_s: float = 0.0
    fetches: int = 0
    uri: str = ""

    def content(self) -> bytes:
        return self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()


@contextmanager
def serving_keys() -> Iterator[KeyServer]:
    state = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.fetches += 1
            time.sleep(state.delay_s)
            try:
                if state.drip_s:
                    self.drip(b"HTTP/1.0 200 OK\r\n\r\n" + state.content())
                else:
                    self.send_response(state.status)
                    if state.location:
                        self.send_header("Location", state.location)
                    self.end_headers()
                    self.wfile.write(state.content())
            except OSError:
                self.close_connection = True  # the client gave up, as a test wants it to

        def drip(self, answer: bytes) -> None:
            for place in range(len(answer)):
                self.wfile.write(answer[place : place + 1])
                time.sleep(state.drip_s)

        def log_message(self, *_args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        state.uri = f"http://127.0.0.1:{server.server_address[1]}/keys"
        yield state
        server.shutdown()
        thread.join()
