"""How an object store is asked: not too often, again where that helps, and what its errors mean."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from policies.errors import ConfigurationError, RayragError, SourceUnavailable

T = TypeVar("T")
ATTEMPTS = 3
PATIENCE_S = 30.0
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_BROKEN = frozenset(
    {
        "ClientPayloadError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
    }
)
_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store's error says: its HTTP status, its code, and after how long to come again."""

    status: int | None
    code: str
    retry_after_s: float | None

    @classmethod
    def of(cls, error: BaseException) -> Answer:
        """Read it from the error or from what it was made of."""
        for each in (error, error.__cause__):
            response: Any = getattr(each, "response", None)
            if isinstance(response, dict):
                meta = response.get("ResponseMetadata") or {}
                status = meta.get("HTTPStatusCode")
                code = str((response.get("Error") or {}).get("Code") or "")[:64]
                return cls(status, code, _retry_after_s(meta.get("HTTPHeaders") or {}))
        return cls(None, "", None)


class Asking:
    """Lets calls through at a pace, from any number of threads, and repeats those that broke off or were too early."""

    def __init__(self, place: str, requests_per_s: float) -> None:
        """`place` is how the source is called in errors: no address that holds a secret."""
        self._place = place
        self._gap_s = 1.0 / requests_per_s
        self._burst_s = 1.0
        self._next_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, call: Callable[[], T]) -> T:
        """Make a call, which must be one that may be repeated.

        Raises `SourceUnavailable`, and `ConfigurationError` where credentials are wrong or missing. `FileNotFoundError`
        and `PermissionError` (the credentials hold but do not suffice) are left to the caller.
        """
        began_at = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            self._wait()
            try:
                return call()
            except (RayragError, FileNotFoundError, NotADirectoryError):
                raise
            except Exception as error:
                answer = Answer.of(error)
                self._refuse(error, answer)
                delay = answer.retry_after_s
                if delay is None:
                    delay = random.uniform(0.5, 1.0) * 0.25 * 2**attempt  # noqa: S311 - only spreads load
                waited = time.monotonic() - began_at
                if attempt == ATTEMPTS or not _may_pass(error, answer) or waited + delay > PATIENCE_S:
                    said = answer.code or type(error).__name__
                    raise SourceUnavailable(
                        f"{self._place}: cannot be reached: {said}", answer.retry_after_s
                    ) from error
                time.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _refuse(self, error: Exception, answer: Answer) -> None:
        if type(error).__name__ in _CREDENTIALS:
            raise ConfigurationError(f"{self._place}: no credentials: {type(error).__name__}") from error
        if isinstance(error, PermissionError):
            if answer.code in ("AccessDenied", "403", "InvalidObjectState", ""):
                raise error
            raise ConfigurationError(f"{self._place}: the credentials are refused: {answer.code}") from error
        if isinstance(error, ImportError):
            raise ConfigurationError(f"{self._place}: install what reads this kind of URL: {error}") from error

    def _wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            # What was not asked within the last second may be asked at once.
            self._next_at = max(self._next_at, now - self._burst_s) + self._gap_s
            delay = self._next_at - now
        if delay > 0:
            time.sleep(delay)


def _may_pass(error: Exception, answer: Answer) -> bool:
    if answer.status is not None:
        return answer.status in _BUSY or answer.code in ("SlowDown", "RequestTimeout")
    return isinstance(error, (TimeoutError, ConnectionError)) or type(error).__name__ in _BROKEN


def _retry_after_s(headers: dict[str, str]) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3); none where it is neither."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return (
            max(0.0, float(value))
            if value.isascii() and value.replace(".", "", 1).isdigit()
            else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        )
    except ValueError:
        return None
