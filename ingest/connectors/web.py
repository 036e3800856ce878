"""Pages of the web: given ones, those of a sitemap, and those that these link to on the same site.

A page is known by its URL, in one spelling. A given page keeps it; one that was found and moved for good (301, 308) is
known by where it is now. Rights are those of the configuration; a page that the site refuses to show has no reader.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.connector import Entry, Gone, Mark
from ingest.connectors.address_guard import Address, Resolve, parse_address, system_addresses
from ingest.connectors.http_client import Patience
from ingest.connectors.rest_fields import unix_time
from ingest.connectors.web_pages import file_name, holds_text, in_utf8, is_html, is_no_document, links_of
from ingest.connectors.web_settings import WebSettings
from ingest.connectors.web_site import Answer, LeftAlone, WebSite
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge

__all__ = ["WebConnector", "WebSettings"]

MAX_LISTED_BYTES = 20_000_000
"""A page without ETag and Last-Modified is read up to here to see whether it changed."""
MAX_UNREAD_BYTES = 256_000
"""A longer body that nobody needs is not waited for, though its connection is lost then."""
MAX_VALIDATOR_CHARS = 256
MAX_SILENCES = 3
"""A host that did not answer for so many pages in a row is asked for no more of them in this listing."""
_GONE = frozenset({404, 410})
_REFUSED = frozenset({401, 402, 403, 407, 451})


@dataclass(frozen=True, slots=True)
class _Known:
    """What a cursor keeps of a page: how to ask whether it changed, and how many links away it is."""

    etag: str | None
    modified: str | None
    depth: int

    @property
    def conditions(self) -> dict[str, str]:
        if self.etag:
            return {"if-none-match": self.etag}
        return {"if-modified-since": self.modified} if self.modified else {}


@dataclass(frozen=True, slots=True)
class _Visit:
    """What came of one URL. `identity`: what its page is known by; `links`: none where they could not be read."""

    identity: str
    said: tuple[Entry | Gone, ...] = ()
    known: _Known | None = None
    links: tuple[Address, ...] | None = ()


@dataclass(slots=True)
class _Crawl:
    """The state of one listing. `whole`: so far, nothing can be there that was not named."""

    known: Mapping[str, _Known]
    kept: dict[str, _Known] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    answered: int = 0
    silences: dict[str, int] = field(default_factory=dict)
    silence: SourceUnavailable | None = None
    whole: bool = True


class WebConnector:
    """Reads the pages of one site, or of a few that the operator names."""

    def __init__(
        self, settings: WebSettings, resolve: Resolve = system_addresses, patience: Patience | None = None
    ) -> None:
        """Connect to nothing yet. `resolve` is asked for every connection, and what it says is judged each time."""
        self._settings = settings
        self._site = WebSite(settings, resolve, patience or Patience(attempts=3))

    def check(self) -> None:
        """Ask for each of the URLs and the sitemap. Raises with those that do not answer as they should, and how.

        `SourceUnavailable` where that may pass (no answer, 5xx), else `ConfigurationError`.
        """
        self._site.forget()
        settings = self._settings
        wrong: list[str] = []
        lasting = False
        for url in settings.urls:
            try:
                said = self._visit(url, {}, 0).said
            except SourceUnavailable as error:
                wrong.append(f"{url}: {error.detail}")
                continue
            entry = next((each for each in said if isinstance(each, Entry)), None)
            if entry is None or entry.error:
                wrong.append(f"{url}: {entry.error if entry else 'there is no such page'}")
                lasting = True
        if settings.sitemap is not None and not any(self._site.sitemap_pages()):
            wrong.append(f"{settings.sitemap}: it names no page of this site")
            lasting = True
        if wrong:
            asked = len(settings.urls) + (settings.sitemap is not None)
            text = f"{len(wrong)} of {asked} cannot be read: {'; '.join(wrong[:20])}"
            raise ConfigurationError(text) if lasting else SourceUnavailable(text)

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        """Name the pages; with a cursor, those that changed (an unchanged one costs an answer without body).

        The mark is `complete` where everything was asked for and told: no cursor, each page and each `robots.txt`
        answered (a 404 is an answer; a 5xx and silence are none), `max_pages` was enough, and where links are
        followed, those of every page could be read. A page that does not answer is left as it was, and so is, then,
        every page that nobody named. Raises `SourceUnavailable` where a sitemap cannot be read, and where not one page
        answers.
        """
        self._site.forget()
        crawl = _Crawl(_parse_cursor(cursor))
        queue = deque((url, 0) for url in self._starts(crawl))
        if self._settings.follow_links:
            queue += [(url, known.depth) for url, known in crawl.known.items()]
        while queue:
            url, depth = queue.popleft()
            if url in crawl.done:
                continue
            if len(crawl.done) >= self._settings.max_pages:
                crawl.whole = False
                break
            visit = self._visit_of(crawl, url, depth)
            yield from visit.said
            if self._settings.follow_links and depth < self._settings.max_depth:
                crawl.whole &= visit.links is not None
                queue += [(link.url, depth + 1) for link in visit.links or () if link.url not in crawl.done]
        if crawl.silence is not None and not crawl.answered:
            raise SourceUnavailable(f"no page answers: {crawl.silence.detail}", crawl.silence.retry_after_s)
        unasked = {url: known for url, known in crawl.known.items() if url not in crawl.done}
        if crawl.whole:
            yield from map(Gone, unasked)
        else:
            crawl.kept |= unasked
        yield Mark(_cursor(crawl.kept), complete=cursor is None and crawl.whole)

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        """Name these pages; what can be no page of this source is `Gone`, and never asked for."""
        self._site.forget()
        silence: SourceUnavailable | None = None
        for external_id in external_ids:
            address = self._site.own(external_id)
            if address is None:
                yield Gone(external_id)
                continue
            try:
                yield from self._visit(address.url, {}, 0).said
            except SourceUnavailable as error:
                silence = error
        if silence is not None:
            raise silence

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        """Give a page's bytes; text in an encoding that they tell themselves."""
        reply = self._site.ask(entry.location or "", max_bytes).reply
        if reply.status in _GONE:
            raise DocumentRejected("gone: it was there when the source was listed")
        if reply.status != 200:
            raise DocumentRejected(f"the page answers {reply.status}")
        data = in_utf8(reply.body, reply.headers)
        if not data.strip() or (is_html(reply.headers) and not holds_text(data)):
            raise DocumentRejected("empty: the page holds no text; it may need a browser to fill it")
        return data

    def watch(self) -> AsyncIterator[Sequence[str]] | None:
        """The web tells nothing by itself; webhooks do."""
        return None

    # ---- listing

    def _starts(self, crawl: _Crawl) -> Iterator[str]:
        yield from self._settings.urls
        if self._settings.sitemap is None:
            return
        for number, address in enumerate(self._site.sitemap_pages()):
            if number > self._settings.max_pages:
                crawl.whole = False
                return
            yield address.url

    def _visit_of(self, crawl: _Crawl, url: str, depth: int) -> _Visit:
        """Visit a page in a listing: a silent one says nothing, one that moved to a page seen already only that."""
        crawl.done.add(url)
        host = parse_address(url).host
        try:
            if crawl.silences.get(host, 0) >= MAX_SILENCES:
                raise SourceUnavailable("its host does not answer")
            visit = self._visit(url, crawl.known, depth)
        except SourceUnavailable as error:
            crawl.silences[host] = crawl.silences.get(host, 0) + 1
            crawl.silence, crawl.whole = crawl.silence or error, False
            if url in crawl.known:
                crawl.kept[url] = crawl.known[url]
            return _Visit(url)
        crawl.silences.pop(host, None)
        crawl.answered += 1
        if visit.identity != url and visit.identity in crawl.done:
            return _Visit(url, (Gone(url),))
        crawl.done.add(visit.identity)
        if visit.known is not None:
            crawl.kept[visit.identity] = visit.known
        return visit

    # ---- one page

    def _visit(self, url: str, known: Mapping[str, _Known], depth: int) -> _Visit:
        """Ask for one page. Raises `SourceUnavailable` where it does not answer."""
        found = url not in self._site.seeds

        def conditions(identity: str) -> Mapping[str, str]:
            return known[identity].conditions if identity in known else {}

        try:
            answer = self._site.ask(url, MAX_LISTED_BYTES, conditions, self._is_body_wanted)
        except LeftAlone as error:
            # A site that asks to leave a page alone takes it out of what links lead to.
            said = Gone(url) if found else self._failed(url, error.detail)
            return _Visit(url, (said,))
        except (DocumentRejected, TooLarge) as error:
            return _Visit(url, (self._failed(url, error.detail),), links=None)
        identity = answer.identity
        moved = (Gone(url),) if identity != url else ()
        if found and not self._site.is_wanted(parse_address(identity)):
            return _Visit(url, (Gone(url),))
        if answer.reply.status == 304 and identity in known:
            return _Visit(identity, moved, known[identity])
        if answer.reply.status == 200:
            return self._page(answer, depth, moved)
        return self._no_page(answer, moved)

    def _no_page(self, answer: Answer, moved: tuple[Gone, ...]) -> _Visit:
        """What is said of a page that answers, and not with itself.

        Where the site refuses to show it, nobody reads it here either until it shows it again.
        """
        identity, status = answer.identity, answer.reply.status
        if status in _GONE:
            return _Visit(identity, (*moved, Gone(identity)))
        if status in _REFUSED:
            failed = self._failed(identity, f"the page may not be read ({status})", NOBODY)
        else:
            failed = self._failed(identity, f"the page answers {status}")
        return _Visit(identity, (*moved, failed), links=None)

    def _page(self, answer: Answer, depth: int, moved: tuple[Gone, ...]) -> _Visit:
        identity, headers, body = answer.identity, answer.reply.headers, answer.reply.body
        if identity not in self._site.seeds and is_no_document(headers):
            return _Visit(identity, (*moved, Gone(identity)))
        etag, modified = validators(headers)
        stamp = f"etag:{etag}" if etag else f"modified:{modified}" if modified else None
        fingerprint = stamp or f"sha256:{hashlib.sha256(body).hexdigest()}"
        length = headers.get("content-length", "")
        size = len(body) or (int(length) if length.isdigit() and len(length) < 15 else 0)
        ref = self._settings.ref(identity, identity, self._settings.rule, fingerprint, size)
        entry = Entry(ref, location=identity, name=file_name(answer.at, headers), changed_at=unix_time(modified))
        links: tuple[Address, ...] = ()
        if self._settings.follow_links and is_html(headers):
            links = tuple(filter(self._site.is_wanted, links_of(body, answer.at)))
        return _Visit(identity, (*moved, entry), _Known(etag, modified, depth), links)

    def _failed(self, url: str, reason: str, rule: AccessRule | None = None) -> Entry:
        return Entry(self._settings.ref(url, url, self._settings.rule if rule is None else rule), error=reason)

    def _is_body_wanted(self, status: int, headers: Mapping[str, str]) -> bool:
        if self._settings.follow_links and is_html(headers):
            return True
        length = headers.get("content-length", "")
        return not any(validators(headers)) or (length.isdigit() and int(length[:15]) <= MAX_UNREAD_BYTES)


def validators(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """ETag and Last-Modified, where they can be relied on.

    A time that is not well before the answer's own may stand for two versions, or is made up with each answer
    (RFC 9110, 8.8.2.2).
    """
    etag: str | None = headers.get("etag", "")
    if not etag or len(etag) > MAX_VALIDATOR_CHARS or not etag.isprintable() or not etag.isascii():
        etag = None
    modified = headers.get("last-modified", "")
    changed_at, answered_at = unix_time(modified), unix_time(headers.get("date"))
    if changed_at is None or answered_at is None or changed_at > answered_at - 2 or len(modified) > 64:
        return etag, None
    return etag, modified


def _cursor(pages: Mapping[str, _Known]) -> str:
    return json.dumps({url: [known.etag, known.modified, known.depth] for url, known in pages.items()})


def _parse_cursor(cursor: str | None) -> dict[str, _Known]:
    pages = json.loads(cursor) if cursor is not None else {}
    return {url: _Known(etag, modified, depth) for url, (etag, modified, depth) in pages.items()}
