"""What is taken from one answer of Confluence: its JSON, its rows, where it goes on, when to come again, its bytes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from policies.errors import ConfigurationError, SourceUnavailable, TooLarge

if TYPE_CHECKING:
    from requests import Response

PIECE_BYTES = 65_536
Row = dict[str, Any]


class Broken(ValueError):
    """An answer that is not what it should be: it may be so the next time."""


def segment(text: str) -> str:
    """Quote one segment of a path."""
    return quote(text, safe="")


def decoded(response: Response) -> Any:
    """Read an answer's JSON. Raises `Broken` where it is none."""
    if response.is_redirect:
        raise ConfigurationError("Confluence leads elsewhere instead of answering: check url, and that it takes tokens")
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise Broken("did not answer with JSON") from error


def rows_of(answer: Any) -> list[Row]:
    """Give the rows of one page of a listing."""
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise SourceUnavailable("Confluence answered with something that is no listing")
    return results


def next_query(answer: Row) -> dict[str, str] | None:
    """Give the query of the link to the next page: the rest of it is not needed, and never trusted."""
    links = answer.get("_links")
    following = links.get("next") if isinstance(links, dict) else None
    return dict(parse_qsl(urlsplit(following).query)) if isinstance(following, str) and following else None


def capped(response: Response, max_bytes: int, ends_at: float) -> bytes:
    """Read a body piece by piece, until `ends_at` (monotonic seconds). Raises `TooLarge` as soon as it is known."""
    said = response.headers.get("content-length", "")
    pieces: list[bytes] = []
    size = int(said) if said.isdecimal() and len(said) < 20 else 0
    if size <= max_bytes:
        size = 0
        for piece in response.iter_content(PIECE_BYTES):
            size += len(piece)
            pieces.append(piece)
            if size > max_bytes:
                break
            if time.monotonic() > ends_at:
                raise SourceUnavailable("Confluence gives a file too slowly")
    if size > max_bytes:
        raise TooLarge(f"the file is larger than {max_bytes / 1_000_000:g} MB")
    return b"".join(pieces)


def retry_after(response: Response) -> float | None:
    """Seconds from a `Retry-After` header: a number or a date (RFC 9110, 10.2.3)."""
    said = response.headers.get("retry-after", "").strip()
    if said.isdecimal() and len(said) < 10:
        return float(said)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, IndexError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Give a URL's scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
