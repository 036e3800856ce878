"""The HTTP client of connectors: paced, patient within limits, reading no more than it was told to.

It sends what it is given and nothing by itself: redirects are the caller's to follow, a credential goes to its own
origin only, cookies and proxies do not exist. No error names an address or a header's value: each may hold a secret.
"""

from __future__ import annotations

import email.utils
import math
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from ingest.connectors.address_guard import parse_address
from policies.errors import ConfigurationError, SourceUnavailable, TooLarge

if TYPE_CHECKING:
    import httpx2

    from ingest.connectors.transport import Addresses, Deadline

AGENT = "rayrag"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
MAX_RETRY_AFTER_S = 86_400.0
MAX_IDLE_BODY = 65_536
"""Bytes of an answer nobody asked for that are read, so that its connection can be used again."""
_FINAL_5XX = frozenset({501, 505})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

Wanted = Callable[[int, Mapping[str, str]], bool]
"""Says by status and headers (lower case) whether the body is wanted."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a source, in seconds. `whole_s`: one answer, from its request to its last byte.

    `waiting_s`: between attempts, in all. What the source says by `Retry-After` counts; where that is longer, its
    `SourceUnavailable` says so at once.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    whole_s: float = 300.0
    attempts: int = 4
    first_wait_s: float = 0.5
    waiting_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Credential:
    """A header that goes to one origin and nowhere else."""

    origin: str
    header: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `headers` by lower-case name; `body` is empty where it was not wanted or the status is no 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def location(self) -> str | None:
        """Where a redirect leads."""
        return self.headers.get("location") if self.status in REDIRECTS else None


class HttpClient:
    """One for each connector, used by one thread at a time; it connects with the first `get`."""

    def __init__(
        self,
        requests_per_s: float,
        patience: Patience,
        headers: Mapping[str, str] | None = None,
        credential: Credential | None = None,
        addresses: Addresses | None = None,
        ca_file: str | None = None,
    ) -> None:
        """`addresses` judges and gives what to connect to; where there is none, the system's resolver does.

        Raises `ConfigurationError` for a header that cannot be sent, without its value.
        """
        self._headers = {"user-agent": AGENT, "accept": "*/*", "accept-encoding": "gzip, deflate", **(headers or {})}
        check_headers(self._headers)
        if credential is not None:
            check_headers({credential.header: credential.value})
        self._credential = credential
        self._interval_s = 1.0 / requests_per_s
        self._next_at = 0.0
        self._patience = patience
        self._addresses = addresses
        self._ca_file = ca_file
        self._opened: _Opened | None = None

    def get(
        self, url: str, max_bytes: int, headers: Mapping[str, str] | None = None, wanted: Wanted | None = None
    ) -> Reply:
        """Ask for one URL. Gives any answer but those that are worth another attempt (429, 5xx, a lost connection).

        Raises `SourceUnavailable` after those, `TooLarge` where the body is over `max_bytes` (also once unpacked; not
        a byte more is kept), `AddressRefused`, and `ConfigurationError` where `ca_file` cannot be read.
        """
        import stamina

        hold = _Hold(self._patience)
        try:
            for attempt in stamina.retry_context(on=hold, attempts=self._patience.attempts, timeout=None):
                with attempt:
                    return self._ask(url, max_bytes, headers or {}, wanted)
        except _Again as error:
            raise SourceUnavailable(error.detail, error.retry_after_s) from None
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections; the next `get` opens new ones."""
        if self._opened is not None:
            self._opened.transport.close()
            self._opened = None

    def _ask(self, url: str, max_bytes: int, headers: Mapping[str, str], wanted: Wanted | None) -> Reply:
        import httpcore2
        import httpx2

        self._pace()
        opened = self._opened = self._opened or _Opened.by(self._addresses, self._ca_file)
        patience = self._patience
        opened.deadline.at = time.monotonic() + patience.whole_s
        limits = {"connect": patience.connect_s, "read": patience.read_s, "write": patience.read_s, "pool": 1.0}
        request = httpx2.Request("GET", url, headers=self._headers_for(url, headers), extensions={"timeout": limits})
        try:
            response = opened.transport.handle_request(request)
            try:
                return _reply(response, max_bytes, wanted)
            finally:
                response.close()
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise _failure(error) from None  # what the library says may quote a header
        except httpx2.DecodingError:
            raise SourceUnavailable("its answer cannot be unpacked") from None

    def _headers_for(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        sent = {**self._headers, **headers}
        if self._credential is not None and parse_address(url).origin == self._credential.origin:
            sent[self._credential.header] = self._credential.value
        return sent

    def _pace(self) -> None:
        now = time.monotonic()
        if self._next_at > now:
            time.sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + self._interval_s


@dataclass(frozen=True, slots=True)
class _Opened:
    transport: httpx2.BaseTransport
    deadline: Deadline

    @classmethod
    def by(cls, addresses: Addresses | None, ca_file: str | None) -> _Opened:
        from ingest.connectors.transport import Deadline, Transport

        deadline = Deadline()
        try:
            transport = Transport(addresses or (lambda host, port: [host]), deadline, ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"ca_file: {ca_file} cannot be read as certificates") from error
        return cls(transport, deadline)


class _Again(SourceUnavailable):
    """Worth another attempt."""


class _Hold:
    """Says how long to wait before the next attempt, and when that is no longer worth it."""

    def __init__(self, patience: Patience) -> None:
        self._left_s = patience.waiting_s
        self._backoff_s = patience.first_wait_s
        self._until = time.monotonic() + patience.waiting_s + patience.read_s

    def __call__(self, error: Exception) -> bool | float:
        if not isinstance(error, _Again) or time.monotonic() > self._until:
            return False
        wait = self._backoff_s * random.uniform(0.5, 1.5)  # noqa: S311  # nobody gains by guessing it
        self._backoff_s *= 2
        if error.retry_after_s is not None:
            wait = error.retry_after_s + min(wait, 0.1 * error.retry_after_s)
        if wait > self._left_s:
            return False
        self._left_s -= wait
        return wait


def _reply(response: httpx2.Response, max_bytes: int, wanted: Wanted | None) -> Reply:
    status = response.status_code
    headers = {name.lower(): value for name, value in response.headers.items()}
    if status in (408, 425, 429) or (status >= 500 and status not in _FINAL_5XX):
        raise _Again(_answers(status), retry_after(headers.get("retry-after")))
    if status >= 500:
        raise SourceUnavailable(_answers(status))
    if not 200 <= status < 300:
        _read(response, MAX_IDLE_BODY)
        return Reply(status, headers, b"")
    if wanted is not None and not wanted(status, headers):
        return Reply(status, headers, b"")
    unknown = {coding.strip().lower() for coding in headers.get("content-encoding", "").split(",")}
    if unknown - {"", "identity", "gzip", "deflate"}:
        raise SourceUnavailable("its answer is packed in a way that nobody asked for")
    length = headers.get("content-length", "")
    body = None if length.isdigit() and int(length[:20]) > max_bytes else _read(response, max_bytes)
    if body is None:
        raise TooLarge(f"the file is larger than {max_bytes / 1_000_000:g} MB")
    return Reply(status, headers, body)


def _read(response: httpx2.Response, max_bytes: int) -> bytes | None:
    """Unpack the body piece by piece (at most 1 MiB each); none where it goes over the limit."""
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > max_bytes:
            return None
        parts.append(part)
    return b"".join(parts)


def _failure(error: Exception) -> SourceUnavailable:
    import httpcore2

    if any(isinstance(each, ssl.SSLCertVerificationError) for each in (error.__context__, *error.args)):
        return SourceUnavailable("its certificate is not valid for its name, or nobody known vouches for it")
    if isinstance(error, httpcore2.LocalProtocolError):
        return SourceUnavailable("the request cannot be sent")
    if isinstance(error, httpcore2.TimeoutException):
        return _Again("it does not answer in time")
    if isinstance(error, httpcore2.ConnectError):
        return _Again("it cannot be connected to")
    return _Again("it breaks off its answer, or gives none that is HTTP")


def _answers(status: int) -> str:
    try:
        return f"it answers {status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return f"it answers {status}"


def retry_after(value: str | None) -> float | None:
    """Seconds that `Retry-After` asks to wait: a number or a date (RFC 9110, 10.2.3); none where it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for a header that would break the request; its value is not shown."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{name[:64]!a} is no name of a header")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(f"the value of the header {name} is empty or holds what no header may")
