"""Connections of connectors: to addresses that were judged beforehand, and none that lasts longer than it may.

Imported where a client is made, for it loads httpx2. Proxies and certificates named in the environment take no part.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

Addresses = Callable[[str, int], Sequence[str]]
MAX_ADDRESSES = 4


@dataclass(slots=True)
class Deadline:
    """When the answer that is under way must have ended, on the monotonic clock."""

    at: float = float("inf")

    def left(self, timeout_s: float | None) -> float:
        """Seconds that the next step may take. Raises httpcore2's `ReadTimeout` where none are left."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the answer takes too long")
        return left if timeout_s is None else min(left, timeout_s)


class Transport(httpx2.BaseTransport):
    """Sends requests as they are: no proxy, no redirect, no cookie. Errors are those of httpcore2."""

    def __init__(self, addresses: Addresses, deadline: Deadline, ca_file: str | None = None) -> None:
        """`addresses` gives what to connect to for a host and port; TLS still holds the server to the host's name."""
        given = ssl.create_default_context(cafile=ca_file) if ca_file is not None else None
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # trusts nobody; `_Stream` takes the right one
            max_connections=4,
            keepalive_expiry=30.0,
            network_backend=_Backend(addresses, deadline, _Trust(given)),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; the body is read from the response's stream."""
        url = request.url
        response = self._pool.handle_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=b"",
                extensions=request.extensions,
            )
        )
        return httpx2.Response(
            status_code=response.status, headers=response.headers, stream=_Body(response), request=request
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


@dataclass(slots=True)
class _Trust:
    """Whose certificates are believed. The system's are read with the first connection that needs them: 50 ms."""

    context: ssl.SSLContext | None

    def load(self) -> ssl.SSLContext:
        if self.context is None:
            self.context = httpx2.create_ssl_context(trust_env=False)
        return self.context


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Backend(httpcore2.NetworkBackend):
    """Connects to what `addresses` gave and to nothing else: there is no second look-up that could tell otherwise."""

    def __init__(self, addresses: Addresses, deadline: Deadline, trust: _Trust) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._trust = trust
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = self._addresses(host, port)
        except OSError as error:
            raise httpcore2.ConnectError("the host has no address") from error
        failure: Exception = httpcore2.ConnectError("the host has no address")
        for address in addresses[:MAX_ADDRESSES]:
            try:
                stream = self._inner.connect_tcp(
                    address, port, self._deadline.left(timeout), local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._deadline, self._trust)
        raise failure


class _Stream(httpcore2.NetworkStream):
    """Each read and write ends at the deadline: a server that sends a byte now and then would hold us for days."""

    def __init__(self, inner: httpcore2.NetworkStream, deadline: Deadline, trust: _Trust) -> None:
        self._inner = inner
        self._deadline = deadline
        self._trust = trust

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        secured = self._inner.start_tls(self._trust.load(), server_hostname, self._deadline.left(timeout))
        return _Stream(secured, self._deadline, self._trust)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
