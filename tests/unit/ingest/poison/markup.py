"""Hostile HTML, XML, SVG and Markdown: nested without end, built to slow a reader down, and reaching out."""

from __future__ import annotations

from .case import EMPTY, Bait, Poison, of, read, refused
from .office import external, laughs, quadratic

KEPT = "The heron stays."
SCRIPTS = "<script>poison()</script><p onclick='poison()'>x</p><a href='javascript:poison()'>go</a>"


def page(inner: str | bytes, head: str = "", start: str = "<!doctype html>") -> bytes:
    body = inner if isinstance(inner, bytes) else inner.encode()
    return f"{start}<html><head>{head}</head><body>".encode() + body + b"</body></html>"


def nested(tag: str, levels: int = 30_000) -> Poison:
    return read(f"deep-{tag}.html", lambda _: page(f"<{tag}>" * levels + KEPT + f"</{tag}>" * levels), KEPT)


def reaching(bait: Bait) -> bytes:
    """Every way in which a page loads something by itself."""
    tags = "".join(
        f'<img src="{u}" srcset="{u} 2x"><script src="{u}"></script><iframe src="{u}"></iframe>'
        f'<object data="{u}"></object>'
        f'<embed src="{u}"><video src="{u}" poster="{u}"></video><audio src="{u}"></audio><input type=image src="{u}">'
        f'<div style="background:url({u})"></div><svg><image href="{u}"/><use xlink:href="{u}#a"/></svg>'
        f'<portal src="{u}"><frame src="{u}"><applet archive="{u}"></applet><form action="{u}"></form>'
        f'<body background="{u}">'
        for u in bait.calls()
    )
    head = "".join(
        f'<base href="{u}"><link rel=stylesheet href="{u}"><link rel=preload href="{u}">'
        f'<link rel="dns-prefetch" href="{u}">'
        f'<meta http-equiv=refresh content="0;url={u}"><style>@import url({u}); @font-face{{src:url({u})}}</style>'
        for u in bait.calls()
    )
    return page(f"<p>{KEPT}</p>{tags}", head)


def refresh(bait: Bait) -> bytes:
    return page(KEPT, f'<meta http-equiv="refresh" content="0; url={bait.http_url}">')


def xhtml(bait: Bait, doctype: str, inner: str) -> bytes:
    return page(f"<p>{KEPT} {inner}</p>", start=f'<?xml version="1.0"?>{doctype}').replace(
        b"<head>", f'<head><?xml-stylesheet href="{bait.http_url}"?>'.encode()
    )


def svg(bait: Bait) -> bytes:
    return (
        f'<?xml version="1.0"?>{external(bait)}<svg xmlns="http://www.w3.org/2000/svg"><text>{KEPT} &f;</text>'
        f'<image href="{bait.http_url}"/><script href="{bait.http_url}">alert(1)</script></svg>'
    ).encode()


def style_sheets(sheets: int, rules: int, elements: int) -> bytes:
    names = [f"c{i}" for i in range(rules)]
    sheet = "".join(f".{name}{{display:none}}" for name in names)
    return page(f"<p>{KEPT}</p>" + "<p class=x>ha</p>" * elements, f"<style>{sheet}</style>" * sheets)


def markdown(name: str, piece: str, times: int = 10_000) -> Poison:
    return read(f"{name}.md", lambda _: f"{piece * times}\n\n{KEPT}\n".encode(), KEPT)


PACK: list[Poison] = [
    *map(nested, ("div", "b", "ul><li", "blockquote", "table><tr><td", "a href=x", "pre")),
    refused("deep-svg.html", lambda _: page("<svg>" * 50_000 + KEPT + "</svg>" * 50_000), EMPTY),
    refused("deep-template.html", lambda _: page("<template>" * 50_000 + KEPT + "</template>" * 50_000), EMPTY),
    read("deep-unclosed.html", lambda _: page("<span>" * 200_000 + KEPT), KEPT),
    read("closings-only.html", lambda _: page("</div>" * 200_000 + KEPT), KEPT),
    read("attributes.html", lambda _: page("<p " + "".join(f"a{i}=x " for i in range(100_000)) + f">{KEPT}</p>"), KEPT),
    read("one-long-attribute.html", lambda _: page(f'<p title="{"x" * 4_000_000}">{KEPT}</p>'), KEPT),
    read("misnested.html", lambda _: page("<b><i><u><a>" * 2_000 + KEPT + "</b></i></u></a>" * 2_000), KEPT),
    read("formatting.html", lambda _: page("<p><b><i><font>" * 5_000 + KEPT), KEPT),
    read("tables.html", lambda _: page(f"<p>{KEPT}</p>" + "<table>" * 20_000), KEPT),
    read("selects.html", lambda _: page(f"<p>{KEPT}</p>" + "<select><option>" * 20_000), KEPT),
    read("spans.html", lambda _: page(f"<p>{KEPT}</p><table><tr><td colspan=1000000000 rowspan=1000000000>x"), KEPT),
    read("styles.html", lambda _: style_sheets(10, 8_000, 1_000), KEPT),
    read("loads.html", reaching, KEPT, reaches=True),
    read("refresh.html", refresh, KEPT, reaches=True),
    read("script.html", lambda _: page(f"<p>{KEPT}</p>{SCRIPTS}"), KEPT, "poison()"),
    read("external-entity.xhtml", lambda bait: xhtml(bait, external(bait), "&f; &h;"), KEPT, reaches=True),
    read("laughs.xhtml", lambda bait: xhtml(bait, laughs(), "&a9;"), KEPT),
    read("quadratic.xhtml", lambda bait: xhtml(bait, quadratic(), "&big;" * 5_000), KEPT),
    read("external-entity.svg", svg, KEPT, reaches=True),
    read("laughs.xml", of(f'<?xml version="1.0"?>{laughs()}<x>{KEPT} &a9;</x>'.encode()), KEPT),
    read("numbers.html", of(page(f"{KEPT} &#0; &#xD800; &#x110000; &#{'9' * 5_000}; &#x{'F' * 5_000};")), KEPT),
    read("nothing-closed.html", lambda _: page(KEPT + "<" * 200_000), KEPT),
    read("comments.html", lambda _: page(KEPT + "<!--" * 200_000), KEPT),
    markdown("quotes", ">"),
    markdown("brackets", "["),
    markdown("stars", "*"),
    markdown("links", "[a]("),
    markdown("images", "![a]["),
    markdown("emphasis", "*a **b "),
    markdown("ticks", "`"),
    markdown("lists", "- "),
    markdown("angles", "<"),
    markdown("tildes", "~~~\n"),
    markdown("headings", "# h\n## h\n### h\n", 2_000),
    markdown("long-heading", "# " + "heron " * 20_000, 1),
]
