"""What the web connector reads out of pages and sitemaps: pure, and linear in what a hostile site may send."""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from ingest.cleaning import cut_blocks
from ingest.connectors.address_guard import Address, AddressRefused, parse_address
from policies.errors import SourceUnavailable

MAX_LINKS = 5_000
MAX_LINK_BYTES = 5_000_000
MAX_SITEMAP_BYTES = 50_000_000
"""What sitemaps.org allows, unpacked."""
_SUFFIXES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/plain": ".txt",
    "message/rfc822": ".eml",
}
_NO_PAGES = ("image/", "audio/", "video/", "font/", "text/css", "text/javascript", "application/javascript")
_ANCHOR = re.compile(r"<(?:a|area)\s([^<>]{0,5000})>", re.IGNORECASE)
_BASE = re.compile(r"<base\s([^<>]{0,5000})>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([^\s=\"'/]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+)))?")
_CHARSET = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9._:-]{1,40})", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style|template|head)\b[^<>]*>", re.IGNORECASE)
_COMMENT = re.compile(r"<!--")
_TAG = re.compile(r"<[^<>]*>")
_LOC = re.compile(r"<(?:[a-z]{1,20}:)?loc\s*>([^<>]*(?:<!\[CDATA\[[^<>]*\]\]>[^<>]*)?)</", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sitemap:
    """The URLs of a sitemap's pages, or of further sitemaps, as they are written."""

    pages: tuple[str, ...] = ()
    sitemaps: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Sitemap:
        """Read a sitemap: XML, an index of sitemaps, or text with a URL on each line; also gzipped.

        Raises `SourceUnavailable` for anything else and for one that is cut short: a page about an error, read as a
        sitemap without URLs, would delete the whole source.
        """
        text = _unpacked(data).decode("utf-8-sig", "replace")
        for kind in ("urlset", "sitemapindex"):
            if re.search(rf"<(?:[a-z]{{1,20}}:)?{kind}\b", text[:2000], re.IGNORECASE):
                if not re.search(rf"(?:</(?:[a-z]{{1,20}}:)?{kind}\s*>|/>)\s*\Z", text[-2000:], re.IGNORECASE):
                    raise SourceUnavailable("its sitemap is cut short")
                found = tuple(_location(each) for each in _LOC.findall(text))
                return cls(pages=found) if kind == "urlset" else cls(sitemaps=found)
        lines = tuple(line.strip() for line in text.splitlines() if line.strip())
        if not lines or not all(line.startswith(("http://", "https://")) for line in lines):
            raise SourceUnavailable(
                "its sitemap is none: neither XML as sitemaps.org defines it nor a URL on each line"
            )
        return cls(pages=lines)


def _location(text: str) -> str:
    return html.unescape(text.strip().removeprefix("<![CDATA[").removesuffix("]]>").strip())


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, MAX_SITEMAP_BYTES + 1)
    except zlib.error as error:
        raise SourceUnavailable("its sitemap cannot be unpacked") from error
    if len(unpacked) > MAX_SITEMAP_BYTES:
        raise SourceUnavailable(f"its sitemap is larger than {MAX_SITEMAP_BYTES // 1_000_000} MB")
    return unpacked


def links_of(data: bytes, page: Address) -> Iterator[Address]:
    """Where a page's links lead, as far as these are well-formed; `base` counts."""
    text = data[:MAX_LINK_BYTES].decode("utf-8", "replace")
    text = "".join(cut_blocks(text, _COMMENT, lambda _: "-->")[::2])
    base = page
    for target in _targets(_BASE, text[:100_000], 1):
        base = _address(target, page) or page
    for target in _targets(_ANCHOR, text, MAX_LINKS):
        address = _address(target, base)
        if address is not None:
            yield address


def _targets(tag: re.Pattern[str], text: str, limit: int) -> Iterator[str]:
    for number, match in enumerate(tag.finditer(text)):
        if number >= limit:
            return
        for name, *values in _ATTRIBUTE.findall(match.group(1)):
            if name.lower() == "href":
                yield html.unescape("".join(values)).strip()
                break


def _address(target: str, base: Address) -> Address | None:
    try:
        return parse_address(target, base=base.url)
    except AddressRefused:
        return None


def media_type(headers: Mapping[str, str]) -> str:
    """The type that an answer says it has, in lower case without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_html(headers: Mapping[str, str]) -> bool:
    """Whether an answer says that it is a page."""
    return _SUFFIXES.get(media_type(headers)) == ".html"


def is_no_document(headers: Mapping[str, str]) -> bool:
    """Whether an answer is what pages are made of and no document itself."""
    return media_type(headers).startswith(_NO_PAGES)


def file_name(page: Address, headers: Mapping[str, str]) -> str:
    """The name that the parser goes by: the path's last part, its suffix after the answer's type."""
    name = unquote(page.path.rsplit("/", 1)[-1])
    name = re.sub(r"[^\w.-]", "_", name)[-100:] or "page"
    suffix = _SUFFIXES.get(media_type(headers))
    return name if suffix is None or PurePosixPath(name).suffix.lower() == suffix else name + suffix


def in_utf8(data: bytes, headers: Mapping[str, str]) -> bytes:
    """Give text in the encoding that its bytes can tell: what the header alone knows of would be lost."""
    charset = _CHARSET.search(headers.get("content-type", ""))
    if charset is None or charset.group(1).lower() in ("utf-8", "utf8") or not media_type(headers).startswith("text/"):
        return data
    try:
        return b"\xef\xbb\xbf" + data.decode(charset.group(1), "replace").removeprefix("\ufeff").encode(
            "utf-8", "replace"
        )
    except (LookupError, UnicodeError):
        return data


def holds_text(data: bytes) -> bool:
    """Whether a reader would see any word on a page."""
    text = data[:MAX_LINK_BYTES].decode("utf-8", "replace")
    text = "".join(cut_blocks(text, _COMMENT, lambda _: "-->")[::2])
    text = "".join(cut_blocks(text, _UNSEEN, lambda name: rf"</{name}\b[^<>]*>")[::2])
    return any(map(str.isalnum, html.unescape(_TAG.sub(" ", text))))
