"""A REST API that lists documents as JSON: the text in its answers, or in files that these name.

An API that pages by number, offset or link may shift while it is read: what is deleted on page 1 pulls something from
page 3 to page 2 when page 2 was read already. A listing of several pages is therefore read until a reading names all
that the one before it named; only that one is `complete`. Pages that a token of the API's own chains are taken as they
are, unless they overlap or their total changes.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from typing import Any

from index.settings import read_secret
from ingest.connector import Entry, Gone, Mark
from ingest.connectors.address_guard import AddressGuard, opened_networks, parse_address
from ingest.connectors.http_client import MAX_REDIRECTS, Credential, HttpClient, Patience, Reply
from ingest.connectors.listed_version import changed, is_listed
from ingest.connectors.rest_fields import FILE, ITEM, ItemReader, WrongField, unix_time
from ingest.connectors.rest_paging import Page, Pages, parsed, values_at, with_parameters
from ingest.connectors.rest_settings import (
    BasicAuth,
    BearerAuth,
    CursorPaging,
    HeaderAuth,
    RestSettings,
    compiled,
)
from policies.access import NOBODY
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge

__all__ = ["RestConnector", "RestSettings"]

MAX_READINGS = 3
_REFUSED = frozenset({401, 403, 407})
_GONE = frozenset({404, 410})
_NO_ID = frozenset({400, 422})
_UNKNOWN_SINCE = frozenset({400, 404, 410, 416, 422})


class _Status(ConfigurationError):
    """An answer that a listing cannot go on from."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(slots=True)
class _Reading:
    """One walk through the listing: what it named, and whether the API stood still meanwhile as far as one can see."""

    named: dict[str, int] = field(default_factory=dict)
    totals: set[int | None] = field(default_factory=set)
    pages: int = 0
    overlaps: bool = False
    nameless: int = 0

    def is_settled(self, chained: bool) -> bool:
        """Whether one walk is enough to know all."""
        return self.pages <= 1 or (chained and not self.overlaps and len(self.totals) <= 1)

    @property
    def is_whole(self) -> bool:
        """Whether it named as many as the API says there are, and each had a name."""
        return not self.nameless and all(total is None or len(self.named) >= total for total in self.totals)


class RestConnector:
    """Reads one REST API."""

    def __init__(self, settings: RestSettings, patience: Patience | None = None) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self._patience = patience or Patience()
        self._reader = ItemReader(settings)
        self._item = compiled(settings.item)
        self._pages = Pages(settings, self._listing)
        self._api: HttpClient | None = None
        self._files: HttpClient | None = None
        self._plain: HttpClient | None = None

    def check(self) -> None:
        """Read the first page, and one item where there is an address for it; the fields must be where they are said.

        Raises as `Connector` says; `ConfigurationError` names the field.
        """
        walk = self._pages.walk(self._settings.url)
        page = next(walk)
        entries = [self._reader.read(item) for item in page.items]
        if entries and all(entry is None for entry in entries):
            raise ConfigurationError("fields.id: no item of the first page has a text or whole number there")
        named = [entry for entry in entries if isinstance(entry, Entry)]
        if named and all(entry.error for entry in named):
            raise ConfigurationError(f"fields: no item of the first page can be read: {named[0].error}")
        if self._settings.item_url is not None and named:
            seen = list(self.look([named[0].ref.external_id]))
            if not seen or any(isinstance(each, Gone) or each.error for each in seen):
                raise ConfigurationError("item_url: it does not give the first item of the listing")
            if named[0].location is not None and not all(_agrees(named[0], each) for each in seen):
                raise ConfigurationError("item_url: it tells another version or other readers than the listing")
        self._check_second_page(page, next(walk, None))

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        """Name what changed since the cursor's time, or everything; see `Connector`.

        The mark is `complete` where everything was listed, every item had an id, as many came as the API says it has,
        and the pages stood still or two readings agree (see the module). What was named in any reading stays named.
        """
        since = self._since(cursor)
        walk = self._pages.walk(self._url(since))
        try:
            first = next(walk)
        except _Status as error:
            if since is None or error.status not in _UNKNOWN_SINCE:
                raise
            since = None
            walk = self._pages.walk(self._url(None))
            first = next(walk)
        watermark = self._watermark(first)
        complete = yield from self._read(first, walk, since)
        yield Mark(watermark, complete and since is None)

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        """Name these items by `item_url`; where there is none, by a listing of everything."""
        if self._settings.item_url is not None:
            for external_id in external_ids:
                found = self._look(external_id)
                if found is not None:
                    yield found
            return
        wanted = set(external_ids)
        for seen in self.list(None):
            if isinstance(seen, Mark):
                if not seen.complete and wanted:
                    raise SourceUnavailable("its listing changed while it was read: what it did not name may be there")
                continue
            external_id = seen.external_id if isinstance(seen, Gone) else seen.ref.external_id
            if external_id in wanted:
                wanted.discard(external_id)
                yield seen
        for external_id in sorted(wanted):
            yield Gone(external_id)

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        """Give the file's bytes, or the item's text in the bytes of a file of its format."""
        location = entry.location or ""
        if location.startswith(FILE):
            data = self._file(location.removeprefix(FILE), max_bytes)
            if self._settings.item_url is not None:
                self._listed_item(entry)
            return data
        if not location.startswith(ITEM):
            raise DocumentRejected("this entry has nothing to fetch")
        try:
            text = self._reader.text_of(self._listed_item(entry))
        except WrongField as error:
            raise DocumentRejected(str(error)) from error
        if not text.strip():
            raise DocumentRejected("text is empty")
        if self._settings.text_format == "html":
            title = escape(entry.ref.title or "")
            text = f"<!doctype html><html><head><title>{title}</title></head><body>{text}</body></html>"
        data = text.encode("utf-8", "replace")
        if len(data) > max_bytes:
            raise TooLarge(f"the text is larger than {max_bytes / 1_000_000:g} MB")
        return data

    def watch(self) -> AsyncIterator[Sequence[str]] | None:
        """An API tells nothing by itself; webhooks and queues do."""
        return None

    # ---- listing

    def _read(self, first: Page, walk: Iterator[Page], since: float | None) -> Generator[Entry | Gone, None, bool]:
        """Name everything; return whether nothing can be missing."""
        said: dict[str, tuple[int, int]] = {}
        before: _Reading | None = None
        for number in range(MAX_READINGS):
            reading = _Reading()
            pages = _chain(first, walk) if number == 0 else self._pages.walk(self._url(since))
            for page in pages:
                yield from self._named(page, reading, said, again=number > 0, changes=since is not None)
            if reading.is_settled(isinstance(self._settings.paging, CursorPaging)):
                return reading.is_whole
            if before is not None and before.named.keys() <= reading.named.keys():
                return reading.is_whole
            before = reading
        return False

    def _named(
        self, page: Page, reading: _Reading, said: dict[str, tuple[int, int]], again: bool, changes: bool
    ) -> Iterator[Entry | Gone]:
        """Name a page's items: each once, but where it comes twice in a page or with other readers.

        That one is for the plan to refuse: to choose among them could give it a wider rule. One whose text changed
        while the pages shifted is left as it was first seen: it comes again with the next listing.
        """
        reading.pages += 1
        reading.totals.add(page.total)
        for item in page.items:
            entry = self._reader.read(item)
            if entry is None:
                reading.nameless += 1
                if not again:
                    yield self._reader.nameless(reading.nameless)
                continue
            external_id = entry.external_id if isinstance(entry, Gone) else entry.ref.external_id
            text, rule = _digest(entry)
            last_page = reading.named.get(external_id)
            reading.overlaps |= last_page is not None and last_page != reading.pages
            reading.named[external_id] = reading.pages
            known = said.get(external_id)
            twice = last_page == reading.pages and not again
            if known is None or twice or known[1] != rule or (changes and known[0] != text):
                said[external_id] = (text, rule)
                yield entry

    def _check_second_page(self, first: Page, second: Page | None) -> None:
        ids = [{self._reader.id_of(item) for item in page.items} for page in (first, second) if page is not None]
        if len(ids) == 2 and ids[0] and ids[0] == ids[1]:
            raise ConfigurationError("paging: the second page names what the first one does; is its parameter right?")

    def _url(self, since: float | None) -> str:
        settings = self._settings.since
        if since is None or settings is None:
            return self._settings.url
        moment = {
            "unix": str(int(since)),
            "unix_ms": str(int(since * 1000)),
            "iso8601": datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }[settings.format]
        return with_parameters(self._settings.url, {settings.parameter: moment})

    def _since(self, cursor: str | None) -> float | None:
        if self._settings.since is None or cursor is None:
            return None
        try:
            since = json.loads(cursor)["since"]
        except (ValueError, KeyError, TypeError):
            return None
        return since if isinstance(since, int | float) and 0 <= since < 1e11 else None

    def _watermark(self, first: Page) -> str | None:
        """The API's own time when the listing began, less the overlap: its clock may differ from ours."""
        if self._settings.since is None:
            return None
        told = unix_time(first.headers.get("date"))
        now = told if told is not None else time.time()
        return json.dumps({"since": max(0.0, now - self._settings.since.overlap_s)})

    # ---- one item

    def _listed_item(self, entry: Entry) -> Any:
        """Give an item as `item_url` has it now. Raises `SourceUnavailable` where its version or readers changed."""
        external_id = entry.ref.external_id
        reply = self._ask(self._item_address(external_id))
        self._reject(reply, "the API")
        item = self._item_in(reply)
        now = self._reader.read(item)
        if isinstance(now, Gone):
            raise DocumentRejected("gone: it was there when the source was listed")
        if now is None or now.ref.external_id != external_id:
            raise DocumentRejected("the API gives another item, or none, for this id")
        if now.error is not None:
            raise DocumentRejected(now.error)
        rule = self._settings.aliases.rule(now.ref.rule)  # what was listed is spelt in our names by now
        if not _agrees(entry, replace(now, ref=replace(now.ref, rule=rule))):
            raise changed()
        return item

    def _look(self, external_id: str) -> Entry | Gone | None:
        """Name an item; none where the API does not take its id for one, which says nothing of what was there."""
        if self._settings.item_address(external_id) is None:
            return Gone(external_id)
        reply = self._ask(self._item_address(external_id))
        if reply.status in _GONE:
            return Gone(external_id)
        if reply.status == 403:
            return self._unreadable(external_id, "the API lets nobody of ours read it (403)")
        if reply.status in _NO_ID:
            return None
        self._refuse(reply, "item_url")
        entry = self._reader.read(self._item_in(reply))
        found = entry.external_id if isinstance(entry, Gone) else entry.ref.external_id if entry else None
        if entry is None or found != external_id:
            return self._unreadable(external_id, "the API gives another item, or none, for this id")
        return entry

    def _unreadable(self, external_id: str, reason: str) -> Entry:
        return Entry(self._settings.ref(external_id, self._settings.api.origin, NOBODY), error=reason)

    def _item_in(self, reply: Reply) -> Any:
        found = values_at(self._item, parsed(reply.body))
        return found[0] if found else None

    def _item_address(self, external_id: str) -> str:
        address = self._settings.item_address(external_id)
        if address is None:
            raise DocumentRejected("its id cannot stand in the address of item_url")
        return address

    def _file(self, url: str, max_bytes: int) -> bytes:
        """Read a file. Whoever writes an item says where it lies: only below `content_prefix` is the credential sent.

        What lies on another origin must have a public address.
        """
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._client_for(url).get(url, max_bytes)
            if reply.location is None:
                break
            target = parse_address(reply.location, base=url)
            if target.scheme != "https" and target.origin != self._settings.api.origin:
                raise DocumentRejected("the file's address leads to one without https")
            url = target.url
        self._reject(reply, "the file's address")
        return reply.body

    # ---- asking

    def _listing(self, url: str) -> Reply:
        reply = self._ask(url)
        self._refuse(reply, "url")
        return reply

    def _ask(self, url: str) -> Reply:
        """Ask the API, along redirects within its own origin. Raises `ConfigurationError` for one that leaves it."""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                reply = self._api_client().get(url, int(self._settings.max_page_mb * 1_000_000))
            except TooLarge as error:
                raise ConfigurationError("max_page_mb: an answer of the API is larger") from error
            if reply.location is None:
                return reply
            target = parse_address(reply.location, base=url)
            if target.origin != self._settings.api.origin:
                raise ConfigurationError("url: the API redirects to another scheme, host or port; it is not followed")
            url = target.url
        raise ConfigurationError(f"url: the API redirects more than {MAX_REDIRECTS} times")

    def _refuse(self, reply: Reply, key: str) -> None:
        """Let only a 200 pass."""
        if reply.status in _REFUSED:
            raise _Status(reply.status, f"auth: the API refuses the credentials or their rights ({reply.status})")
        if reply.status != 200:
            raise _Status(reply.status, f"{key}: the API answers {reply.status}")

    def _reject(self, reply: Reply, what: str) -> None:
        """Let only a 200 pass; one document's trouble is not the source's, but where our credentials ended."""
        if reply.status in (401, 407) and self._settings.auth is not None:
            self._refuse(reply, "url")
        if reply.status in _GONE:
            raise DocumentRejected("gone: it was there when the source was listed")
        if reply.status != 200:
            raise DocumentRejected(f"{what} answers {reply.status}")

    def _api_client(self) -> HttpClient:
        if self._api is None:
            settings = self._settings
            headers = {"accept": "application/json", **{k.lower(): v for k, v in settings.headers.items()}}
            self._api = HttpClient(
                settings.requests_per_s, self._patience, headers, self._credential(), ca_file=settings.ca_file
            )
        return self._api

    def _client_for(self, url: str) -> HttpClient:
        if self._settings.is_own_file(url):
            return self._api_client()
        if parse_address(url).origin != self._settings.api.origin:
            return self._file_client()
        if self._plain is None:
            self._plain = HttpClient(self._settings.requests_per_s, self._patience, ca_file=self._settings.ca_file)
        return self._plain

    def _file_client(self) -> HttpClient:
        if self._files is None:
            guard = AddressGuard(opened_networks(self._settings.allow_private))
            self._files = HttpClient(self._settings.requests_per_s, self._patience, addresses=guard.addresses)
        return self._files

    def _credential(self) -> Credential | None:
        auth, origin = self._settings.auth, self._settings.api.origin
        if isinstance(auth, BearerAuth):
            token = read_secret(auth.token_file, auth.token_env, "auth.token_file")
            return Credential(origin, "authorization", f"Bearer {token}")
        if isinstance(auth, HeaderAuth):
            value = read_secret(auth.value_file, auth.value_env, "auth.value_file")
            return Credential(origin, auth.name.lower(), value or "")
        if isinstance(auth, BasicAuth):
            pair = f"{auth.user}:{read_secret(auth.password_file, auth.password_env, 'auth.password_file')}"
            return Credential(origin, "authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        return None


def _chain(first: Page, rest: Iterator[Page]) -> Iterator[Page]:
    yield first
    yield from rest


def _agrees(entry: Entry, now: Entry | Gone) -> bool:
    """Whether an entry's version and readers are these."""
    return isinstance(now, Entry) and now.ref.rule == entry.ref.rule and is_listed(entry, now.ref.fingerprint)


def _digest(entry: Entry | Gone) -> tuple[int, int]:
    """What an entry says of its text, and of its readers."""
    if isinstance(entry, Gone):
        return hash("gone"), hash("gone")
    return hash((entry.ref.fingerprint, entry.error)), hash(entry.ref.rule)
