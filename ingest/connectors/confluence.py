"""Confluence, Cloud and Data Center: pages, blog posts and attached files, with the rights of spaces and pages.

    list(None)      all spaces, page by page from the database                                         Mark(complete)
    list(cursor)    a search (CQL) for what was modified since; and every `rights_s` seconds a sweep   Mark

A search finds edits soon and costs one request; it never learns of a restriction, a move, a permission of a space, a
group's new member, or a deletion: none of these modifies a page. So a *sweep* goes over all pages, as the first listing
does, and works out the rule of each again. A right that was taken away is gone after `rights_s + poll_s` and the
sweep's own time at the latest. What a sweep misses that was there before is asked for by its id before it is called
gone: a page that moved to another space, or past the listing, meanwhile, is found there. A page that was restricted so
that the account itself lost sight of it is gone in the same way.

Requests of a sweep, for P pages, A files and S spaces: Data Center 3S + P/100; Cloud S + P/250 + P/100 + A/250 (2S more
where spaces are named, S more on a site that is open to all); and one for each 200 members of a group that must be
expanded, for each page with more than 25 files (Data Center), for each name in each folder (Cloud). Of a search: one
for each 100 hits and one to four for each hit. The audit log would name restrictions at once, but wants a site
administrator, and knows no group members.

A search looks back `overlap_s` beyond the last listing: it counts in whole minutes, its index lags behind, and what it
found before costs a look at most. What is found is read from the database; the index only says where to look.

Ids: a page's own, whatever it is called and wherever it moves; a file's lies below its page's (`123/att45`). The
fingerprint is the version's number, which a change of rights leaves alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingest.cleaning import given_title
from ingest.connector import Entry, Gone, Mark
from ingest.connectors.confluence_access import PageRights
from ingest.connectors.confluence_answers import segment
from ingest.connectors.confluence_cloud import CloudSite
from ingest.connectors.confluence_cursor import Cursor
from ingest.connectors.confluence_html import page_html
from ingest.connectors.confluence_http import HIDDEN, ConfluenceHttp
from ingest.connectors.confluence_items import Item, identity, version_of
from ingest.connectors.confluence_server import ServerSite
from ingest.connectors.confluence_settings import ConfluenceSettings
from ingest.connectors.confluence_site import Site
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge

MAX_ASKED = 500
"""So many missing documents are asked for one by one; of more, the sweep's word is taken."""
MAX_BELOW = 200
"""So many pages below one that is looked at are named with it; the next sweep brings the others."""
MAX_TITLE_CHARS = 200
_CHECKED_SPACES = 50
_Named = Generator[Entry | Gone, None, frozenset[str]]
"""Names documents, and returns the ids of all that are known to be there then."""

__all__ = ["ConfluenceConnector", "ConfluenceSettings"]


@dataclass(slots=True)
class _Listing:
    """What one listing asks, has seen and remembers.

    All it names was said after it `began`: that is when it heard it, so that nothing it read early undoes what another
    one heard meanwhile.
    """

    site: Site
    rights: PageRights
    pages: dict[str, Item]
    began: float

    def page(self, content: str) -> Item | None:
        """Give a page, asked for once."""
        if content not in self.pages:
            item = self.site.item(content)
            if item is None or item.kind == "attachment":
                return None
            self.pages[content] = item
        return self.pages[content]


class ConfluenceConnector:
    """See the module. One object is used by one thread at a time; it connects with its first request."""

    def __init__(self, settings: ConfluenceSettings) -> None:
        self._settings = settings
        self._http = ConfluenceHttp(settings)

    def check(self) -> None:
        """See that the account is known, the spaces are there, and their permissions and restrictions can be read."""
        listing = self._listing()
        site = listing.site
        for space in list(site.spaces.values())[:_CHECKED_SPACES]:
            if site.space_readers(space) is None and not self._settings.acl:
                raise ConfigurationError(
                    f"space {space.key}: Confluence does not tell the account who may read it (Data Center must be 9.1 "
                    "or newer, and the account an administrator of the space); or say so in acl"
                )
        page = next(site.pages(), None)
        if page is not None:
            path = f"rest/api/content/{segment(page.id)}/restriction/byOperation/read"
            if self._http.json(path, absent=HIDDEN) is None:
                raise ConfigurationError("the account may not read the restrictions of pages")

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        """See `Connector.list`, and the module for what is found when."""
        state = Cursor.of(cursor)
        listing = self._listing()
        began = listing.began
        if state is None:
            known = yield from self._sweep(listing, frozenset())
            yield Mark(Cursor(began, began, known).text(), complete=True)
        elif began - state.swept >= self._settings.rights_s or began < state.since:
            known = yield from self._sweep(listing, state.known)
            yield Mark(Cursor(began, began, known).text(), complete=False)
        else:
            known = yield from self._search(listing, state, began)
            yield Mark(Cursor(began, state.swept, known).text(), complete=False)

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        """See `Connector.look`. With a page come its files, and the pages below it: they inherit its restrictions."""
        listing = self._listing()
        asked: set[str] = set()
        for external_id in external_ids:
            yield from self._look(listing, external_id, asked)
            page = listing.pages.get(external_id)
            if page is not None and page.kind == "page":
                for each in listing.site.below(external_id)[:MAX_BELOW]:
                    yield from self._look(listing, each, asked)

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        """See `Connector.fetch`. A page comes as HTML, in the version that was listed."""
        kind, _, where = (entry.location or "").partition(":")
        if kind == "attachment":
            return self._http.read(where, max_bytes)
        content, _, version = where.partition("@")
        if kind not in ("page", "blogpost"):
            raise DocumentRejected("nothing of Confluence lies there")
        row = self._body(kind, content, {}, max_bytes)
        if str(version_of(row, "when")[0]) != version:
            # It was edited since. What is new in it may be meant for other readers than the rule that was listed.
            is_server = self._settings.flavour == "server"
            pinned = {"version": version} | ({"status": "historical"} if is_server else {})
            row = self._body(kind, content, pinned, max_bytes)
            if str(version_of(row, "when")[0]) != version:
                raise SourceUnavailable("the page was edited while it was read", 1.0)
        data = page_html(str(row.get("title", "")), _storage(row))
        if len(data) > max_bytes:
            raise TooLarge(f"the page is larger than {max_bytes / 1_000_000:g} MB")
        return data

    def watch(self) -> AsyncIterator[Sequence[str]] | None:
        """Confluence tells nothing over a connection that is kept open: it calls webhooks."""
        return None

    # ---- listings

    def _listing(self) -> _Listing:
        began = time.time()
        site = self._site()
        site.sign_in()
        return _Listing(site, PageRights(site, self._settings.rule), {}, began)

    def _site(self) -> Site:
        return (CloudSite if self._settings.flavour == "cloud" else ServerSite)(self._http, self._settings)

    def _sweep(self, listing: _Listing, known: frozenset[str]) -> _Named:
        """Name everything, then ask after what was known and is missing."""
        listing.pages |= {page.id: page for page in listing.site.pages()}
        listing.rights.learn(listing.site.restrictions())
        listed = dict(listing.pages)
        named: set[str] = set()
        for page in listed.values():
            named.add(page.external_id)
            yield self._entry(listing, page, page)
        if self._settings.attachments:
            for file in listing.site.attachments(listed):
                if file.external_id not in named:
                    named.add(file.external_id)
                    yield self._entry(listing, file, listed[file.page or ""])
        gone: set[str] = set()
        for asked, external_id in enumerate(sorted(known - named), start=1):
            of = external_id.partition("/")[0]
            found = self._one(listing, external_id) if of not in gone and asked <= MAX_ASKED else Gone(external_id)
            if isinstance(found, Gone):
                gone.add(external_id)
            else:
                named.add(external_id)
            yield found
        return frozenset(named)

    def _search(self, listing: _Listing, state: Cursor, began: float) -> _Named:
        """Name what the search says was modified since."""
        minutes = math.ceil((began - state.since + self._settings.overlap_s) / 60) + 1
        known = set(state.known)
        files = {external_id.partition("/")[2]: external_id for external_id in known if "/" in external_id}
        with_files = {external_id.partition("/")[0] for external_id in files.values()}
        named: set[str] = set()
        for content in listing.site.changed(minutes):
            item = listing.site.item(content)
            if item is None:
                lost = files.get(content, content)
                if lost in known:
                    known.discard(lost)
                    yield Gone(lost, below="/" not in lost)
                continue
            entries = [self._entry_of(listing, item)]
            if item.id in with_files:  # they follow what is new in its rights
                entries += [self._entry_of(listing, file) for file in listing.site.attached(item)]
            for entry in entries:
                if entry is not None and entry.ref.external_id not in named:
                    named.add(entry.ref.external_id)
                    yield entry
        return frozenset(known | named)

    def _look(self, listing: _Listing, external_id: str, asked: set[str]) -> Iterator[Entry | Gone]:
        if external_id in asked:
            return
        asked.add(external_id)
        found = self._one(listing, external_id)
        if "/" in external_id or (isinstance(found, Entry) and found.ref.external_id != external_id):
            yield found
            return
        yield Gone(external_id, below=True)
        if isinstance(found, Entry):
            yield found
            if self._settings.attachments:
                for file in listing.site.attached(listing.pages[external_id]):
                    yield self._entry(listing, file, listing.pages[external_id])

    def _one(self, listing: _Listing, external_id: str) -> Entry | Gone:
        """Name one document as it is now. A file is asked for by its own id alone as well."""
        page, slash, file = external_id.partition("/")
        content = identity(file if slash else page)
        if content is None:
            return Gone(external_id)
        item = listing.site.item(content) if slash or content.startswith("att") else listing.page(content)
        if item is None or (slash and item.page != page):
            return Gone(external_id)
        return self._entry_of(listing, item) or Gone(external_id)

    def _entry_of(self, listing: _Listing, item: Item) -> Entry | None:
        """Name a document by itself; none where the page that a file hangs on is not there, or files are not wanted."""
        if item.kind != "attachment":
            listing.pages[item.id] = item
            return self._entry(listing, item, item)
        page = listing.page(item.page or "") if self._settings.attachments else None
        return None if page is None else self._entry(listing, item, page)

    def _entry(self, listing: _Listing, item: Item, page: Item) -> Entry:
        """Name a document with the rule of `page`: itself, or what a file hangs on."""
        rule = listing.rights.rule(page, listing.pages)
        is_file = item.kind == "attachment"
        title = None if is_file else (given_title(item.title) or "")[:MAX_TITLE_CHARS] or None
        fingerprint = "" if item.version is None else str(item.version)
        ref = self._settings.ref(item.external_id, item.link, rule, fingerprint, item.size_bytes, title)
        error = None if item.version is not None else "Confluence gives no version of it"
        if is_file and not item.download:
            error = error or "Confluence gives no address to read it from"
        location = f"attachment:{item.download}" if is_file else f"{item.kind}:{item.id}@{fingerprint}"
        return Entry(
            replace(ref, seen_at=listing.began),
            location=None if error else location,
            error=error,
            name=item.file_name,
            changed_at=item.changed_at,
        )

    def _body(self, kind: str, content: str, pinned: dict[str, str], max_bytes: int) -> dict[str, Any]:
        path, asked = self._site().body_path(kind, content)
        # In JSON a character may take six bytes, and there is more in the answer than the body.
        data = self._http.read(path, 6 * max_bytes + 1_000_000, asked | pinned)
        try:
            row = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise SourceUnavailable("Confluence did not answer with JSON") from error
        if not isinstance(row, dict):
            raise SourceUnavailable("Confluence answered with something that is no page")
        return row


def _storage(row: dict[str, Any]) -> str:
    body = row.get("body")
    storage = body.get("storage") if isinstance(body, dict) else None
    value = storage.get("value") if isinstance(storage, dict) else None
    if not isinstance(value, str):
        raise DocumentRejected("Confluence gives no body of it")
    return value
