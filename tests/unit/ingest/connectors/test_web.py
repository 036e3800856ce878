from __future__ import annotations

import gzip
import time
from email.utils import formatdate
from typing import Any, BinaryIO

import pytest
from pydantic import ValidationError

from ingest.connector import Entry, Gone, Mark
from ingest.connectors.address_guard import parse_address
from ingest.connectors.http_client import Patience
from ingest.connectors.robots import Robots
from ingest.connectors.web import WebConnector, WebSettings
from ingest.connectors.web_pages import Sitemap, file_name, holds_text, in_utf8, links_of
from ingest.parsing import parse
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge
from tests.unit.ingest.connectors.loopback_server import Answer, Asked, Loopback, certificate_for, page, serving

QUICK = Patience(connect_s=1, read_s=0.5, whole_s=3, attempts=1, first_wait_s=0.01)
OLD = formatdate(1_700_000_000, usegmt=True)
PUBLIC = "93.184.215.14"


def settings(**given: Any) -> WebSettings:
    defaults = {"kind": "web", "name": "site", "tenant": "acme", "acl": ["everyone"], "requests_per_s": 10_000}
    return WebSettings.model_validate(defaults | given)


def connector(server: Loopback, *paths: str, resolve: Any = None, **given: Any) -> WebConnector:
    opened = {"allow_private": ["127.0.0.0/8"], "ports": [server.port], "urls": [server.url + path for path in paths]}
    if "sitemap" in given:
        given["sitemap"] = server.url + given["sitemap"]
    made = settings(**opened | given)
    return WebConnector(made, resolve, QUICK) if resolve else WebConnector(made, patience=QUICK)


def listed(source: WebConnector, cursor: str | None = None) -> tuple[dict[str, Entry], set[str], Mark]:
    """What a listing named, by path; the paths of what it says is gone; its mark."""
    *items, mark = source.list(cursor)
    assert isinstance(mark, Mark)
    entries = [each for each in items if isinstance(each, Entry)]
    assert len({entry.ref.external_id for entry in entries}) == len(entries)
    gone = {parse_address(each.external_id).target for each in items if isinstance(each, Gone)}
    return {parse_address(entry.ref.external_id).target: entry for entry in entries}, gone, mark


def conditional(body: str, etag: str):
    def route(asked: Asked) -> Answer:
        if asked.headers.get("if-none-match") == etag:
            return Answer(status=304, headers={"etag": etag})
        return page(body, etag=etag)

    return route


def pages_asked(server: Loopback) -> list[str]:
    return [path for path in server.paths() if path != "/robots.txt"]


def silent(_: BinaryIO) -> None:
    time.sleep(0.8)


# ---- given pages


def test_a_page_is_known_by_its_url_and_read_by_whom_the_configuration_says() -> None:
    with serving() as server:
        server.routes["/a"] = page("Hello", etag='"1"', last_modified=OLD)
        entries, gone, mark = listed(connector(server, "/a#top"))
        entry = entries["/a"]
        assert entry.ref.external_id == entry.ref.uri == server.url + "/a"
        assert entry.ref.rule == AccessRule.of(["everyone"])
        assert (entry.ref.fingerprint, entry.changed_at, entry.name) == ('etag:"1"', 1_700_000_000, "a.html")
        assert (gone, mark.complete) == (set(), True)
        assert parse(connector(server, "/a").fetch(entry, 10_000), entry.name or "").text == "Hello"


@pytest.mark.parametrize(
    ("headers", "stamp"),
    [
        ({"etag": '"1"'}, 'etag:"1"'),
        ({"etag": 'W/"1"', "last_modified": OLD}, 'etag:W/"1"'),
        ({"last_modified": OLD}, f"modified:{OLD}"),
        ({"last_modified": "now"}, "sha256:"),  # made up with each answer
        ({"last_modified": "yesterday"}, "sha256:"),
        ({"etag": '"' + "x" * 300 + '"'}, "sha256:"),
        ({}, "sha256:"),
    ],
)
def test_a_fingerprint_is_what_tells_a_change_most_cheaply(headers: dict, stamp: str) -> None:
    with serving() as server:
        sent = {name: formatdate(usegmt=True) if value == "now" else value for name, value in headers.items()}
        server.routes["/a"] = lambda asked: page("Hello", **sent)
        assert listed(connector(server, "/a"))[0]["/a"].ref.fingerprint.startswith(stamp)


def test_an_unchanged_page_costs_a_304_and_is_not_named_again() -> None:
    with serving() as server:
        server.routes["/a"], server.routes["/b"] = conditional("one", '"1"'), conditional("two", '"2"')
        source = connector(server, "/a", "/b")
        _, _, mark = listed(source)
        server.routes["/b"] = conditional("two, edited", '"3"')
        entries, gone, again = listed(source, mark.cursor)
        assert (set(entries), gone, again.complete) == ({"/b"}, set(), False)
        assert server.asked[-1].headers["if-none-match"] == '"2"'
        assert listed(source, again.cursor)[0] == {}


def test_a_page_with_a_time_only_is_asked_for_by_its_time() -> None:
    with serving() as server:
        server.routes["/a"] = lambda asked: (
            Answer(status=304) if asked.headers.get("if-modified-since") == OLD else page("x", last_modified=OLD)
        )
        source = connector(server, "/a")
        assert listed(source, listed(source)[2].cursor)[0] == {}


def test_a_page_without_validators_is_named_by_its_content() -> None:
    with serving() as server:
        server.routes["/a"] = page("one")
        source = connector(server, "/a")
        first = listed(source)
        same = listed(source, first[2].cursor)
        assert same[0]["/a"].ref.fingerprint == first[0]["/a"].ref.fingerprint
        server.routes["/a"] = page("two")
        assert listed(source, same[2].cursor)[0]["/a"].ref.fingerprint != first[0]["/a"].ref.fingerprint


@pytest.mark.parametrize("status", [404, 410])
def test_a_page_that_is_gone_is_gone(status: int) -> None:
    with serving() as server:
        server.routes["/a"] = page("one")
        server.routes["/b"] = Answer(status=status)
        entries, gone, mark = listed(connector(server, "/a", "/b"))
        assert (set(entries), gone, mark.complete) == ({"/a"}, {"/b"}, True)


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_page_that_the_site_refuses_has_no_reader_until_it_shows_it_again(status: int) -> None:
    with serving() as server:
        server.routes["/a"] = conditional("one", '"1"')
        source = connector(server, "/a")
        _, _, mark = listed(source)
        server.routes["/a"] = Answer(status=status)
        entries, _, mark = listed(source, mark.cursor)
        assert (entries["/a"].ref.rule, str(status) in (entries["/a"].error or "")) == (NOBODY, True)
        server.routes["/a"] = conditional("one", '"1"')
        entries, _, _ = listed(source, mark.cursor)
        assert (entries["/a"].ref.rule, entries["/a"].error) == (AccessRule.of(["everyone"]), None)


@pytest.mark.parametrize("broken", [Answer(status=500), Answer(status=503), Answer(status=429), Answer(silent)])
def test_a_page_that_does_not_answer_stands_as_it_was(broken: Answer) -> None:
    with serving() as server:
        server.routes["/a"], server.routes["/b"] = conditional("one", '"1"'), conditional("two", '"2"')
        source = connector(server, "/a", "/b")
        _, _, mark = listed(source)
        server.routes["/b"] = broken
        entries, gone, full = listed(source)
        assert (set(entries), gone, full.complete) == ({"/a"}, set(), False)
        entries, gone, mark = listed(source, mark.cursor)
        assert (entries, gone) == ({}, set())
        server.routes["/b"] = conditional("two", '"2"')
        assert listed(source, mark.cursor)[0] == {}  # what was known of it was kept


@pytest.mark.parametrize("broken", [Answer(status=500), Answer(status=429, headers={"retry-after": "90"})])
def test_where_no_page_answers_the_source_is_unavailable(broken: Answer) -> None:
    with serving() as server:
        server.routes["*"] = broken
        with pytest.raises(SourceUnavailable) as caught:
            list(connector(server, "/a", "/b").list(None))
        assert caught.value.retry_after_s == (90 if broken.status == 429 else None)


def test_a_host_that_stays_silent_is_not_asked_for_every_page() -> None:
    with serving() as server:
        server.routes["/ok"] = page("x")
        server.routes["*"] = Answer(status=500)
        source = connector(server, "/ok", *(f"/{n}" for n in range(20)), robots=False)
        entries, _, mark = listed(source)
        assert (set(entries), mark.complete, len(server.asked)) == ({"/ok"}, False, 4)


def test_other_answers_are_the_pages_errors() -> None:
    with serving() as server:
        server.routes["/a"], server.routes["/b"] = Answer(status=418), page("x")
        entries, _, mark = listed(connector(server, "/a", "/b"))
        assert ("418" in (entries["/a"].error or ""), mark.complete) == (True, True)
        assert entries["/a"].ref.rule == AccessRule.of(["everyone"])


def test_a_page_that_is_no_longer_configured_is_gone_with_the_next_listing() -> None:
    with serving() as server:
        server.routes["/a"] = server.routes["/b"] = page("x")
        _, _, mark = listed(connector(server, "/a", "/b"))
        assert listed(connector(server, "/a"), mark.cursor)[1] == {"/b"}


def test_a_large_page_with_a_validator_is_not_read_to_be_listed() -> None:
    sent = [0]

    def pour(stream: BinaryIO) -> None:
        stream.write(b'HTTP/1.1 200 OK\r\netag: "1"\r\ncontent-type: application/pdf\r\nconnection: close\r\n\r\n')
        for _ in range(1_000):
            stream.write(b"x" * 65_536)
            sent[0] += 65_536

    with serving() as server:
        server.routes["/a.pdf"] = Answer(pour)
        source = connector(server, "/a.pdf")
        entry = listed(source)[0]["/a.pdf"]
        assert entry.ref.fingerprint == 'etag:"1"'
        with pytest.raises(TooLarge):
            source.fetch(entry, 1_000_000)
        assert sent[0] < 40_000_000


# ---- redirects


def redirect(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"location": location})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_given_page_keeps_its_name_when_it_redirects(status: int) -> None:
    with serving() as server:
        server.routes["/a"] = redirect("/b", status)
        server.routes["/b"] = page("here")
        source = connector(server, "/a")
        entries, _, mark = listed(source)
        assert (set(entries), mark.complete) == ({"/a"}, True)
        assert b"here" in source.fetch(entries["/a"], 1000)


def test_a_found_page_that_moved_for_good_is_known_by_where_it_is() -> None:
    with serving() as server:
        server.routes["/"] = page('<a href="/old">x</a> <a href="/new">y</a> <a href="/for-now">z</a>')
        server.routes["/old"], server.routes["/for-now"] = redirect("/new", 301), redirect("/new", 302)
        server.routes["/new"] = page("here")
        entries, gone, mark = listed(connector(server, "/", follow_links=True))
        assert (set(entries), gone, mark.complete) == ({"/", "/new", "/for-now"}, {"/old"}, True)


def test_five_redirects_are_followed_and_no_more() -> None:
    with serving() as server:
        for number in range(6):
            server.routes[f"/{number}"] = redirect(f"/{number + 1}")
        server.routes["/6"] = page("end")
        entries, _, _ = listed(connector(server, "/0", "/1", robots=False))
        assert entries["/1"].error is None
        assert "more than 5" in (entries["/0"].error or "")
        assert len(server.asked) == 6 + 6


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://2130706433/",
        "//evil.example/",
        "http://user@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "javascript:alert(1)",
        "http://127.0.0.1:22/",
        "http:\\\\127.0.0.1\\",
        "https://public.example/",
    ],
)
def test_a_redirect_to_what_may_not_be_asked_is_the_pages_error(location: str) -> None:
    with serving() as server:
        server.routes["/a"] = redirect(location)
        asked: list[str] = []

        def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"]

        entries, _, _ = listed(connector(server, "/a", resolve=resolve, robots=False))
        assert entries["/a"].error
        assert "169.254" not in (entries["/a"].error or "")
        assert (len(server.asked), asked) == (1, [])


def test_no_redirect_leads_from_https_to_http(tmp_path) -> None:
    certificate = certificate_for("docs.example", tmp_path)
    with serving(certificate) as secure, serving() as plain:
        secure.routes["/a"] = redirect(f"http://docs.example:{plain.port}/a")
        plain.routes["*"] = page("x")
        source = connector(
            secure,
            urls=[f"https://docs.example:{secure.port}/a"],
            ports=[secure.port, plain.port],
            ca_file=str(certificate),
            resolve=lambda host, port: ["127.0.0.1"],
            robots=False,
        )
        entries, _, _ = listed(source)
        assert "https to http" in (entries["/a"].error or "")
        assert plain.asked == []


def test_no_redirect_leads_to_another_site_unless_it_is_named() -> None:
    with serving() as server:
        server.routes["/a"] = redirect(f"http://login.example:{server.port}/form?next=a")
        server.routes["/form"] = page("log in")
        asked: list[str] = []

        def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"]

        entries, _, _ = listed(connector(server, "/a", resolve=resolve, robots=False))
        assert ("another site" in (entries["/a"].error or ""), asked) == (True, [])
        entries, _, _ = listed(connector(server, "/a", resolve=resolve, robots=False, hosts=["login.example"]))
        assert entries["/a"].error is None


def test_each_hop_is_judged_by_the_address_it_has_then(tmp_path) -> None:
    """Rebinding on the way: the second host of the site is public when the first hop is asked, and inside later."""
    with serving() as server:
        server.routes["/a"] = redirect(f"http://b.example:{server.port}/secret")
        server.routes["/secret"] = page("secret")
        answers = {"a.example": ["127.0.0.1"], "b.example": ["169.254.169.254"]}
        source = connector(
            server,
            urls=[f"http://a.example:{server.port}/a"],
            hosts=["b.example"],
            resolve=lambda host, port: answers[host],
            robots=False,
        )
        entries, _, _ = listed(source)
        assert "public" in (entries["/a"].error or "")
        assert server.paths() == ["/a"]


def test_a_name_that_comes_to_lead_inside_is_refused_at_fetch() -> None:
    with serving() as server:
        server.routes["/a"] = Answer("x", headers={"connection": "close", "etag": '"1"'})
        answers = [["127.0.0.1"], ["10.0.0.1"]]
        url = f"http://a.example:{server.port}/a"
        source = connector(server, urls=[url], resolve=lambda host, port: answers.pop(0), robots=False)
        entry = listed(source)[0]["/a"]
        with pytest.raises(DocumentRejected, match="public"):
            source.fetch(entry, 100)


def test_only_hosts_of_the_source_may_lie_in_an_opened_network() -> None:
    with serving() as server:
        server.routes["/a"] = page("x")
        source = connector(server, "/a", resolve=lambda host, port: ["127.0.0.1"])
        assert [type(each) for each in source.look([f"http://other.example:{server.port}/a"])] == [Gone]
        assert server.asked == []


# ---- fetch


@pytest.mark.parametrize(
    "body",
    [b"", b" \n\t", b"<html><head><title>App</title></head><body><div id=root></div><script>x()</script></body></html>"]
    + [b"<html><body><!-- words --><style>p{color:red}</style>&nbsp;</body></html>"],
)
def test_a_page_without_words_is_rejected(body: bytes) -> None:
    with serving() as server:
        server.routes["/a"] = Answer(body, headers={"content-type": "text/html"})
        source = connector(server, "/a")
        entry = listed(source)[0]["/a"]
        assert entry.error is None
        with pytest.raises(DocumentRejected, match="no text"):
            source.fetch(entry, 10_000)


@pytest.mark.parametrize("status", [404, 410, 403, 418])
def test_a_page_that_cannot_be_had_any_more_is_rejected(status: int) -> None:
    with serving() as server:
        server.routes["/a"] = page("x")
        source = connector(server, "/a")
        entry = listed(source)[0]["/a"]
        server.routes["/a"] = Answer(status=status)
        with pytest.raises(DocumentRejected):
            source.fetch(entry, 10_000)


def test_a_site_that_fails_at_fetch_is_unavailable() -> None:
    with serving() as server:
        server.routes["/a"] = page("x")
        source = connector(server, "/a")
        entry = listed(source)[0]["/a"]
        server.routes["/a"] = Answer(status=500)
        with pytest.raises(SourceUnavailable):
            source.fetch(entry, 10_000)


def test_a_bomb_is_cut() -> None:
    with serving() as server:
        bomb = gzip.compress(bytes(21_000_000))
        server.routes["/a"] = Answer(bomb, headers={"content-encoding": "gzip", "etag": '"1"'})
        source = connector(server, "/a")
        with pytest.raises(TooLarge):
            source.fetch(Entry(settings(urls=["http://a.example"]).ref("a", "a", NOBODY), server.url + "/a"), 1_000_000)
        assert listed(source)[0]["/a"].error


def test_an_encoding_that_only_the_header_knows_is_kept() -> None:
    headers = {"content-type": "text/html; charset=windows-1251"}
    html = "<html><body><p>Привет, мир</p></body></html>".encode("cp1251")
    assert parse(in_utf8(html, headers), "a.html").text == "Привет, мир"
    for charset in ("utf-8", "no-such", "hex", "zlib", "idna", "x" * 99):
        data = in_utf8(b"abc", {"content-type": f"text/plain; charset={charset}"})
        assert data.removeprefix(b"\xef\xbb\xbf") == b"abc"


# ---- links


SITE = {
    "/": '<a href="/docs/a">A</a> <A class=x HREF=/docs/b>B</A> <a href="https://other.example/">away</a>',
    "/docs/a": '<a href="b#part">B</a> <a href="c">C</a> <a href="mailto:x@y.z">m</a> <a href="javascript:x()">j</a>',
    "/docs/b": '<a href="../">up</a> <a href="/img.png">i</a> <!-- <a href="/hidden">h</a> -->',
    "/docs/c": '<a href="/docs/d">D</a>',
    "/docs/d": "the end",
}


def site(server: Loopback, pages: dict[str, str] = SITE) -> None:
    server.routes.clear()
    for path, body in pages.items():
        server.routes[path] = conditional(body, f'"{hash(body)}"')
    server.routes["/img.png"] = Answer(b"\x89PNG", headers={"content-type": "image/png"})


def test_links_of_the_same_site_are_followed_each_page_once() -> None:
    with serving() as server:
        site(server)
        entries, gone, mark = listed(connector(server, "/", follow_links=True))
        assert (set(entries), gone, mark.complete) == (set(SITE), {"/img.png"}, True)
        assert len(pages_asked(server)) == len(set(pages_asked(server)))
        assert "/hidden" not in server.paths()


def test_links_are_followed_as_far_as_is_said() -> None:
    with serving() as server:
        site(server)
        entries, _, mark = listed(connector(server, "/", follow_links=True, max_depth=1))
        assert (set(entries), mark.complete) == ({"/", "/docs/a", "/docs/b"}, True)


def test_only_paths_that_are_allowed_are_found() -> None:
    with serving() as server:
        site(server)
        entries, _, mark = listed(connector(server, "/", follow_links=True, allow_paths=["/docs/[ab]"]))
        assert (set(entries), mark.complete) == ({"/", "/docs/a", "/docs/b"}, True)
        assert "/img.png" not in server.paths()


def test_too_many_pages_are_not_complete() -> None:
    with serving() as server:
        server.routes["*"] = lambda asked: page(f'<a href="{asked.path}x">on</a> <a href="?{len(asked.path)}">q</a>')
        entries, _, mark = listed(connector(server, "/", follow_links=True, max_pages=7, max_depth=50))
        assert (len(entries), mark.complete) == (7, False)


def test_a_later_listing_finds_new_links_and_says_what_is_gone() -> None:
    with serving() as server:
        site(server)
        source = connector(server, "/", follow_links=True, max_depth=9)
        _, _, mark = listed(source)
        changed = SITE | {"/docs/d": '<a href="/docs/e">E</a>', "/docs/e": "new"}
        del changed["/docs/b"]
        site(server, changed)
        server.asked.clear()
        entries, gone, mark = listed(source, mark.cursor)
        assert (set(entries), gone) == ({"/docs/d", "/docs/e"}, {"/docs/b"})
        assert not mark.complete


def test_a_page_whose_links_cannot_be_read_makes_nothing_vanish() -> None:
    with serving() as server:
        for broken in (Answer(status=403), Answer(status=500), redirect("https://login.example/")):
            site(server)
            server.routes["/docs/a"] = broken
            entries, gone, mark = listed(connector(server, "/", follow_links=True))
            assert "/docs/c" not in set(entries) | gone
            assert not mark.complete


def test_hostile_html_is_read_in_linear_time() -> None:
    began = time.process_time()
    for part in (b"<a ", b"<a href=", b"<a href='", b"<!--", b'<base href="', b"<script>", b"&#", b"<" * 50):
        data = part * (1_000_000 // len(part))
        assert len(list(links_of(data, parse_address("http://a.example/")))) <= 5_000
        holds_text(data)
    Sitemap.parse(b"<urlset>" + b"<loc>" * 50_000 + b"<loc>" + b" " * 500_000 + b"</urlset>")
    assert time.process_time() - began < 10


def test_links_are_read_from_where_the_page_says_it_is() -> None:
    html = b"<base href='/sub/'><a href=x>1</a><a title=\"href='no'\" href='/y?a=1&amp;b=2'>2</a><a data-href=z>3</a>"
    found = [address.url for address in links_of(html, parse_address("http://a.example/p/"))]
    assert found == ["http://a.example/sub/x", "http://a.example/y?a=1&b=2"]


# ---- robots.txt


def test_robots_are_respected() -> None:
    with serving() as server:
        site(server)
        server.routes["/robots.txt"] = Answer("User-agent: *\nDisallow: /docs/\nAllow: /docs/a$\n")
        entries, gone, mark = listed(connector(server, "/", "/docs/d", follow_links=True))
        assert {path for path, entry in entries.items() if not entry.error} == {"/", "/docs/a"}
        assert "robots.txt" in (entries["/docs/d"].error or "")
        assert (gone & {"/docs/b"}, mark.complete) == ({"/docs/b"}, True)
        assert not {"/docs/b", "/docs/c", "/docs/d"} & set(server.paths())


def test_robots_can_be_set_aside() -> None:
    with serving() as server:
        server.routes["/robots.txt"], server.routes["/a"] = Answer("User-agent: *\nDisallow: /"), page("x")
        assert listed(connector(server, "/a", robots=False))[0]["/a"].error is None
        assert "/robots.txt" not in server.paths()


def test_where_robots_txt_does_not_answer_no_page_is_asked() -> None:
    with serving() as server:
        server.routes["/robots.txt"], server.routes["/a"] = Answer(status=500), page("x")
        with pytest.raises(SourceUnavailable):
            list(connector(server, "/a").list(None))
        assert "/a" not in server.paths()


def test_a_redirect_into_what_robots_txt_asks_to_leave_alone_is_not_followed() -> None:
    with serving() as server:
        server.routes["/robots.txt"] = Answer("User-agent: rayrag\nDisallow: /private")
        server.routes["/a"], server.routes["/private/b"] = redirect("/private/b"), page("x")
        assert "robots.txt" in (listed(connector(server, "/a"))[0]["/a"].error or "")
        assert "/private/b" not in server.paths()


ROBOTS = """# comment
User-agent: other
Disallow: /

User-Agent: RayRag
User-agent: third
Disallow: /a
Allow: /a/b   # longer wins
Disallow: /*.pdf$
Disallow: /q*x*y
Disallow: /caf%c3%a9
Disallow:

User-agent: *
Disallow: /star
"""


@pytest.mark.parametrize(
    ("product", "path", "allowed"),
    [
        ("rayrag", "/", True),
        ("rayrag/2.0 (+https://x)", "/a", False),
        ("rayrag", "/a/b/c", True),
        ("rayrag", "/abc", False),
        ("rayrag", "/x/y.pdf", False),
        ("rayrag", "/x/y.pdf?z", True),
        ("rayrag", "/q1x2y3", False),
        ("rayrag", "/q1y2x3", True),
        ("rayrag", "/caf%C3%A9", False),
        ("rayrag", "/star", True),
        ("nobody", "/star", False),
        ("nobody", "/a", True),
        ("other", "/a", False),
        ("third", "/a", False),
    ],
)
def test_rules_of_robots_txt(product: str, path: str, allowed: bool) -> None:
    assert Robots.parse(ROBOTS, product).allows(path) == allowed


def test_hostile_robots_txt_takes_no_time() -> None:
    began = time.process_time()
    rules = Robots.parse("User-agent: *\n" + ("Disallow: /" + "*a" * 500 + "$\n") * 500, "x")
    rules.allows("/" + "a" * 1_500 + "b")
    Robots.parse("User-agent: a\n" * 30_000, "x")
    Robots.parse("<html>" + "x:" * 200_000, "x")
    assert time.process_time() - began < 5


# ---- sitemaps


def sitemap(*urls: str, kind: str = "urlset", each: str = "url") -> str:
    named = "".join(f"<{each}><loc>{url}</loc><lastmod>2024-01-01</lastmod></{each}>" for url in urls)
    return f'<?xml version="1.0"?><{kind} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{named}</{kind}>'


def test_a_sitemaps_pages_of_the_same_site_are_listed() -> None:
    with serving() as server:
        index = sitemap(server.url + "/1.xml", server.url + "/2.xml.gz", kind="sitemapindex", each="sitemap")
        server.routes["/sitemap.xml"] = Answer(index)
        server.routes["/1.xml"] = Answer(sitemap(server.url + "/a?x=1&amp;y=2", "http://evil.example/", "file:///etc"))
        server.routes["/2.xml.gz"] = Answer(gzip.compress(sitemap(f"<![CDATA[{server.url}/b]]>").encode()))
        server.routes["/a"] = server.routes["/b"] = page("x", etag='"1"')
        source = connector(server, sitemap="/sitemap.xml")
        entries, _, mark = listed(source)
        assert (set(entries), mark.complete) == ({"/a?x=1&y=2", "/b"}, True)
        server.routes["/1.xml"] = Answer(sitemap())
        assert listed(source, mark.cursor)[1] == {"/a?x=1&y=2"}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404),
        Answer(status=500),
        Answer(""),
        page("an error that looks like a page"),
        Answer(sitemap("http://a.example/")[:-5]),
        Answer(b"\x1f\x8b garbage"),
        Answer("no urls here"),
        redirect("https://evil.example/sitemap.xml"),
        Answer(gzip.compress(bytes(60_000_000))),
    ],
    ids=range(9),
)
def test_what_is_no_sitemap_never_empties_the_source(answer: Answer) -> None:
    with serving() as server:
        server.routes["/sitemap.xml"], server.routes["/a"] = answer, page("x")
        with pytest.raises(SourceUnavailable):
            list(connector(server, "/a", sitemap="/sitemap.xml").list(None))


def test_sitemaps_in_a_circle_end() -> None:
    with serving() as server:
        server.routes["/s.xml"] = Answer(sitemap(server.url + "/s.xml", kind="sitemapindex", each="sitemap"))
        with pytest.raises(SourceUnavailable, match="circle"):
            list(connector(server, sitemap="/s.xml").list(None))


def test_a_sitemap_may_be_plain_text_and_holds_no_entities() -> None:
    assert Sitemap.parse(b"\xef\xbb\xbfhttp://a.example/1\r\nhttps://a.example/2\n").pages == (
        "http://a.example/1",
        "https://a.example/2",
    )
    laughs = '<!DOCTYPE x [<!ENTITY a "http://127.0.0.1/"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    assert Sitemap.parse((laughs + sitemap("&a;", "&b;")).encode()).pages == ("&a;", "&b;")


# ---- look, check, settings


def test_looking_asks_for_pages_of_this_source_only() -> None:
    with serving() as server:
        server.routes["/a"], server.routes["/b"] = page("x"), page("y")
        source = connector(server, "/a", "/missing")
        seen = list(
            source.look([server.url + "/a", server.url + "/missing", server.url + "/b", "http://10.0.0.1/", "x"])
        )
        assert isinstance(seen[0], Entry)
        gone = [server.url + "/missing", server.url + "/b", "http://10.0.0.1/", "x"]
        assert seen[1:] == [Gone(each) for each in gone]
        assert pages_asked(server) == ["/a", "/missing"]


def test_looking_at_a_page_that_does_not_answer_concludes_nothing() -> None:
    with serving() as server:
        server.routes["/a"], server.routes["/b"] = Answer(status=500), page("x")
        seen = []
        with pytest.raises(SourceUnavailable):
            seen.extend(connector(server, "/a", "/b").look([server.url + "/a", server.url + "/b"]))
        # What did answer was named before.
        looked = connector(server, "/a", "/b").look([server.url + "/a", server.url + "/b"])
        assert isinstance(next(looked), Entry)


def test_check_says_which_pages_do_not_answer() -> None:
    with serving() as server:
        server.routes["/a"], server.routes["/c"] = page("x"), Answer(status=500)
        connector(server, "/a").check()
        with pytest.raises(ConfigurationError, match=r"1 of 2 cannot be read: http://.*/b: there is no such page"):
            connector(server, "/a", "/b").check()
        with pytest.raises(SourceUnavailable, match="/c: it answers 500"):
            connector(server, "/a", "/c").check()


def test_nothing_is_watched() -> None:
    assert WebConnector(settings(urls=["https://a.example/"])).watch() is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "urls"),
        ({"urls": ["ftp://a.example/"]}, "http"),
        ({"urls": ["http://user:pw@a.example/"]}, "user name"),
        ({"urls": ["http://127.0.0.1/"]}, "not public"),
        ({"urls": ["http://10.0.0.1/"], "allow_private": ["192.168.0.0/16"]}, "not public"),
        ({"urls": ["http://169.254.169.254/"], "allow_private": ["169.254.0.0/16"]}, "not public"),
        ({"urls": ["http://a.example:8080/"]}, "port"),
        ({"sitemap": "https://a.example:1/s.xml"}, "port"),
        ({"urls": ["http://a.example/"], "allow_private": ["0.0.0.0/0"]}, "private"),
        ({"urls": ["http://a.example/"], "allow_private": ["x"]}, "x"),
        ({"urls": ["http://a.example/"], "hosts": ["a/b@c"]}, "user name|host"),
        ({"urls": ["http://a.example/"], "user_agent": "x\r\ny"}, "user-agent"),
        ({"urls": ["http://a.example/1", "http://a.example/2"], "max_pages": 1}, "max_pages"),
        ({"urls": ["http://a.example/"], "surprise": 1}, "surprise"),
        ({"urls": ["http://ada:x@a.example/"]}, "user name"),
        ({"urls": ["http://a.example/?page=1&access_token=x"]}, "no secret"),
        ({"sitemap": "http://a.example/s.xml?api_key=x"}, "no secret"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**given)


@pytest.mark.parametrize(
    ("url", "kind", "name"),
    [
        ("http://a.example/", "text/html", "page.html"),
        ("http://a.example/x/report", "text/html; charset=utf-8", "report.html"),
        ("http://a.example/a.md", "text/markdown", "a.md"),
        ("http://a.example/a.php", "text/html", "a.php.html"),
        ("http://a.example/a.pdf", "application/pdf", "a.pdf"),
        ("http://a.example/%2e%2e%2fetc%00", "", ".._etc_"),
        ("http://a.example/" + "x" * 500, "text/csv", "x" * 100 + ".csv"),
    ],
)
def test_file_names_follow_the_type(url: str, kind: str, name: str) -> None:
    assert file_name(parse_address(url), {"content-type": kind}) == name


def test_a_public_name_that_leads_to_this_machine_is_never_connected_to() -> None:
    with serving() as server:
        server.routes["*"] = page("inside")
        made = settings(urls=[f"http://docs.example:{server.port}/"], ports=[server.port])
        answers = [[PUBLIC, "127.0.0.1"], ["127.0.0.1"]]
        source = WebConnector(made, lambda host, port: answers.pop(0), QUICK)
        for _ in range(2):
            entries, _, _ = listed(source)
            assert "public" in (entries["/"].error or "")
        assert server.asked == []
