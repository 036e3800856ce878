"""The pages of a REST API's listing, one after the other, by whichever way the API has of naming the next one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ingest.connectors.address_guard import AddressRefused, parse_address
from ingest.connectors.http_client import Reply
from ingest.connectors.rest_settings import (
    CursorPaging,
    LinkPaging,
    NextUrlPaging,
    OffsetPaging,
    PageNumberPaging,
    RestSettings,
    compiled,
)
from policies.errors import ConfigurationError, SourceUnavailable

MAX_PAGES = 100_000
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_REL = re.compile(r"\brel\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]+))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer's items. `total`: how many documents the API says it has; `next`: what it says of the next page."""

    items: list[Any]
    total: int | None
    headers: Mapping[str, str]
    next: str | None = None


class Pages:
    """Walks through one source's listing."""

    def __init__(self, settings: RestSettings, ask: Callable[[str], Reply]) -> None:
        """`ask` gives the answer of one URL, always a 200."""
        self._paging = settings.paging
        self._ask = ask
        self._origin = settings.api.origin
        self._items = compiled(settings.items)
        self._total = compiled(settings.total) if settings.total is not None else None
        next_path = getattr(self._paging, "next", None)
        self._next = compiled(next_path) if next_path is not None else None

    def walk(self, url: str) -> Iterator[Page]:
        """Yield the pages that begin at `url`; those of a page number or an offset end with an empty one.

        Raises `SourceUnavailable` for an answer that is no listing, and where the pages go in a circle: an error in
        the shape of an answer must not look like a source that holds nothing.
        """
        named = 0
        asked: set[str] = set()
        following: str | None = self._first(url)
        while following is not None:
            if following in asked or len(asked) >= MAX_PAGES:
                raise SourceUnavailable("the pages of its listing go in a circle, or never end")
            asked.add(following)
            page = self._page(following, first=len(asked) == 1)
            yield page
            named += len(page.items)
            following = self._following(url, following, page, named, len(asked))

    def _page(self, url: str, first: bool) -> Page:
        reply = self._ask(url)
        answer = parsed(reply.body)
        found = values_at(self._items, answer)
        items = found[0] if len(found) == 1 else None
        if items is None and len(found) == 1 and not first:
            items = []  # how some servers write an empty list
        if not isinstance(items, list):
            raise SourceUnavailable("its answer has no list where the setting items says")
        total = next(iter(values_at(self._total, answer)), None) if self._total is not None else None
        if isinstance(total, bool) or not isinstance(total, int):
            total = None
        return Page(items, total, reply.headers, self._next_in(answer))

    def _next_in(self, answer: Any) -> str | None:
        if self._next is None:
            return None
        value = next(iter(values_at(self._next, answer)), None)
        if value is None or value == "" or value is False:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise SourceUnavailable("its answer has no text where the setting paging.next says")
        return str(value)

    def _first(self, url: str) -> str:
        paging = self._paging
        if isinstance(paging, PageNumberPaging):
            return with_parameters(url, {paging.parameter: str(paging.first), **_size(paging)})
        if isinstance(paging, OffsetPaging):
            return with_parameters(url, {paging.parameter: "0", **_size(paging)})
        return url

    def _following(self, url: str, asked: str, page: Page, named: int, pages: int) -> str | None:
        paging = self._paging
        if isinstance(paging, PageNumberPaging | OffsetPaging):
            if not page.items or (page.total is not None and named >= page.total):
                return None
            position = named if isinstance(paging, OffsetPaging) else paging.first + pages
            return with_parameters(url, {paging.parameter: str(position), **_size(paging)})
        following = page.next
        if isinstance(paging, CursorPaging):
            return with_parameters(url, {paging.parameter: following}) if following else None
        if isinstance(paging, LinkPaging):
            following = next_link(page.headers.get("link", ""))
        if isinstance(paging, LinkPaging | NextUrlPaging) and following:
            return self._same_origin(following, asked)
        return None

    def _same_origin(self, url: str, base: str) -> str:
        try:
            address = parse_address(url, base=base)
        except AddressRefused as error:
            raise SourceUnavailable("the next page has no valid URL") from error
        if address.origin != self._origin:
            raise ConfigurationError("url: the API's next page has another scheme, host or port; it is not followed")
        return address.url


def parsed(body: bytes) -> Any:
    """Read JSON. Raises `SourceUnavailable` for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SourceUnavailable("its answer is no valid JSON") from error


def values_at(path: Any, value: Any) -> list[Any]:
    """What a compiled path leads to. Raises `SourceUnavailable` where it cannot be followed."""
    from jsonpath import JSONPathError

    try:
        return list(path.findall(value))
    except (JSONPathError, RecursionError, TypeError) as error:
        raise SourceUnavailable("its answer is none that the configured paths can be followed in") from error


def with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    """Set query parameters, in the place of those of the same name."""
    parts = urlsplit(url)
    kept = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in parameters]
    query = urlencode([*kept, *parameters.items()], quote_via=quote)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def next_link(header: str) -> str | None:
    """The URL that a `Link` header (RFC 8288) calls `next`."""
    for target, parameters in _LINK.findall(header):
        relation = _REL.search(parameters)
        if relation and "next" in (relation.group(1) or relation.group(2) or "").lower().split():
            return str(target)
    return None


def _size(paging: PageNumberPaging | OffsetPaging) -> dict[str, str]:
    return {paging.size_parameter: str(paging.size)} if paging.size_parameter else {}
