"""One web site as a connector asks it: along redirects, within its hosts, its robots.txt and the address guard."""

from __future__ import annotations

import fnmatch
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ingest.connectors.address_guard import Address, AddressRefused, Resolve, parse_address
from ingest.connectors.http_client import MAX_REDIRECTS, HttpClient, Patience, Reply, Wanted
from ingest.connectors.robots import MAX_BYTES as MAX_ROBOTS_BYTES
from ingest.connectors.robots import Robots
from ingest.connectors.web_pages import MAX_SITEMAP_BYTES, Sitemap
from ingest.connectors.web_settings import WebSettings
from policies.errors import DocumentRejected, SourceUnavailable, TooLarge

MAX_SITEMAPS = 200
Conditions = Callable[[str], Mapping[str, str]]
"""Gives, for what a page is known by, the headers that ask for it only where it changed."""


class LeftAlone(DocumentRejected):
    """What robots.txt asks not to be read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a URL gave. `identity`: what its page is known by; `at`: where it was found, after all redirects."""

    identity: str
    at: Address
    reply: Reply


def unconditional(_: str) -> Mapping[str, str]:
    """Ask for the whole page."""
    return {}


class WebSite:
    """Asks for pages. Keeps each host's robots.txt until `forget`."""

    def __init__(self, settings: WebSettings, resolve: Resolve, patience: Patience) -> None:
        self._settings = settings
        self._guard = settings.guard(resolve)
        self._hosts = frozenset(host.removeprefix("www.") for host in settings.site_hosts)
        self._robots: dict[str, Robots] = {}
        self.seeds = frozenset(settings.urls)
        self.finds = settings.follow_links or settings.sitemap is not None
        self._client = HttpClient(
            settings.requests_per_s,
            patience,
            {"user-agent": settings.user_agent, "accept": "text/html, application/xhtml+xml, */*;q=0.8"},
            addresses=self._guard.addresses,
            ca_file=settings.ca_file,
        )

    def forget(self) -> None:
        """Read each robots.txt anew."""
        self._robots.clear()

    def ask(
        self, url: str, max_bytes: int, conditions: Conditions = unconditional, wanted: Wanted | None = None
    ) -> Answer:
        """Ask for a page, along redirects within the site; each hop is judged like the first.

        Raises `LeftAlone`, `AddressRefused`, `DocumentRejected` for a redirect that is not followed, `TooLarge`, and
        `SourceUnavailable` where the page or its robots.txt does not answer.
        """
        return self._follow(url, max_bytes, conditions, wanted, self._settings.robots)

    def sitemap_pages(self) -> Iterator[Address]:
        """The pages of this site that the sitemap names. Raises `SourceUnavailable` where any part cannot be read."""
        queue = deque([self._settings.sitemap or ""])
        asked: set[str] = set()
        while queue:
            url = queue.popleft()
            if url in asked or len(asked) >= MAX_SITEMAPS:
                raise SourceUnavailable(f"its sitemaps go in a circle, or are more than {MAX_SITEMAPS}")
            asked.add(url)
            sitemap = Sitemap.parse(self._sitemap_body(url))
            yield from filter(self.is_wanted, self._of_site(sitemap.pages, url))
            queue += [address.url for address in self._of_site(sitemap.sitemaps, url)]

    def own(self, url: str) -> Address | None:
        """The address of what may be a page of this source; none for anything else."""
        try:
            address = parse_address(url)
        except AddressRefused:
            return None
        return address if address.url in self.seeds or (self.finds and self.is_wanted(address)) else None

    def is_wanted(self, address: Address) -> bool:
        """Whether a page that was found belongs to the site and matches a pattern."""
        patterns = self._settings.allow_paths
        return self._is_of_site(address) and (
            not patterns or any(fnmatch.fnmatchcase(address.target, pattern) for pattern in patterns)
        )

    def _follow(self, url: str, max_bytes: int, conditions: Conditions, wanted: Wanted | None, robots: bool) -> Answer:
        identity, at = url, parse_address(url)
        moved_for_good = self.finds  # else a page is known by the URL that the operator gave
        for _ in range(MAX_REDIRECTS + 1):
            self._guard.check(at)
            if robots and not self._robots_of(at).allows(at.target):
                raise LeftAlone("robots.txt asks to leave it alone")
            reply = self._client.get(at.url, max_bytes, conditions(identity), wanted)
            if reply.location is None:
                return Answer(identity, at, reply)
            target = parse_address(reply.location, base=at.url)
            if at.scheme == "https" and target.scheme != "https":
                raise DocumentRejected("it redirects from https to http; that is not followed")
            if not self._is_of_site(target):
                raise DocumentRejected("it redirects to another site; the source's urls or hosts can name that one")
            at = target
            moved_for_good = moved_for_good and reply.status in (301, 308)
            identity = at.url if moved_for_good else identity
        raise DocumentRejected(f"it redirects more than {MAX_REDIRECTS} times")

    def _robots_of(self, address: Address) -> Robots:
        """The rules of a host; one without robots.txt allows all (RFC 9309, 2.3.1.3)."""
        rules = self._robots.get(address.origin)
        if rules is None:
            url = f"{address.origin}/robots.txt"
            reply = self._follow(url, MAX_ROBOTS_BYTES, unconditional, None, robots=False).reply
            text = reply.body.decode("utf-8", "replace") if reply.status == 200 else ""
            rules = self._robots[address.origin] = Robots.parse(text, self._settings.user_agent)
        return rules

    def _sitemap_body(self, url: str) -> bytes:
        try:
            reply = self._follow(url, MAX_SITEMAP_BYTES, unconditional, None, robots=False).reply
        except (DocumentRejected, TooLarge) as error:
            raise SourceUnavailable(f"its sitemap cannot be read: {error.detail}") from error
        if reply.status != 200:
            raise SourceUnavailable(f"its sitemap answers {reply.status}")
        return reply.body

    def _is_of_site(self, address: Address) -> bool:
        return address.host.removeprefix("www.") in self._hosts and address.port in self._settings.ports

    def _of_site(self, urls: tuple[str, ...], base: str) -> Iterator[Address]:
        for url in urls:
            try:
                address = parse_address(url, base=base)
            except AddressRefused:
                continue
            if self._is_of_site(address):
                yield address
