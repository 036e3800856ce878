"""Addresses of the internet: mail, URLs, domains, IP and MAC addresses.

Each begins at a rare mark (`@`, `://`, a colon between hexadecimal digits, a dot before a top-level domain) and looks
a bounded way to both sides, so the time is linear in the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from policies.pii.findings import Finding

NAME = "online"
_LOCAL = re.compile(r"[\w.!#$%&'*+/?~-]{1,64}\Z")
_LOCAL_EDGES = ".!#$%&'*+/=?^`{|}~-_"
_HOST = re.compile(r"[^\W_][\w-]{0,62}+(?:\.[^\W_][\w-]{0,62}+){0,8}+")
_AT = re.compile(r" ?(?:@|[\[({] ?(?:at|AT|@) ?[\])}]) ?")
_DOT = re.compile(r" ?[\[({] ?(?:dot|DOT|\.) ?[\])}] ?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,15}\Z")
_URL_REST = re.compile(r"[^\s<>\"`\u3001\u3002|\\^{}]{1,2048}+")
_URL_END = ".,;:!?'*_~)]>\u2019\u201d"
_WWW = re.compile(r"[wW]{3}\.(?=[^\W_])")
_COMMON = (
    "com|org|net|edu|gov|mil|info|biz|int|coop|museum|aero|jobs|mobi|travel|name|pro|tel|app|dev|cloud|online|site|shop|"
    "store|blog|tech|xyz|club|agency|company|email|health|bank|law|consulting|solutions|group|media|digital|io|ai|co|eu|"
    "uk|us|de|fr|nl|ch|se|dk|fi|pl|cz|sk|hu|ro|bg|gr|pt|ie|lu|lt|lv|ee|hr|si|cy|mt|li|no|ru|ua|tr|br|ar|mx|cl|jp|cn|kr|"
    "tw|hk|sg|nz|au|ca|za|il|ae|sa|ir|th|vn|ph|tv|ws|gl|fm|es|at|be|it|in|is|me|pe|uy|ec|ve|ke|ng|eg|ma|tn|cc|kz|by|rs|ba"
)
_TLDS = frozenset(_COMMON.split("|"))
_WORDS_TOO = frozenset(
    {"name", "pro", "tel", "int", "at", "be", "it", "in", "is", "me", "us", "no", "co", "so", "app", "site", "store"}
    | {"group", "law", "bank", "health", "media"}
)
"""These stand behind a full stop without a space as well: `end.In the`."""
_BARE = re.compile(rf"\.(?:{_COMMON})(?![\w@-])(?!\.\w)", re.IGNORECASE)
_LABELS = re.compile(r"[\w.-]{1,200}\Z")
_WEB_WORDS = re.compile(
    r"\b(?:web|site|website|domain|visit|www|url|host|hosted|homepage|page|at|from|browse)\W+\Z", re.I
)
_IPV4 = re.compile(r"[0-9](?<![0-9.][0-9])[0-9]{0,2}+(?:\.[0-9]{1,3}+){3}(?!\.?[0-9A-Za-z])")
_VERSION = re.compile(r"(?:\bversion|\bver\.?|\brelease|\bv|\bsection|§|\bkapitel|\bclause)\s{0,2}\Z", re.IGNORECASE)
_COLON = re.compile(r":[0-9A-Fa-f]{0,4}:")
_HEX = re.compile(r"[0-9A-Fa-f:]{1,40}\Z")
_HEX_REST = re.compile(r"[0-9A-Fa-f:]{1,40}+(?:[0-9]{0,3}(?:\.[0-9]{1,3}){3})?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?:(?:\1[0-9A-Fa-f]{2}){2})?")
_MAC_DASH = re.compile(r"-[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-")
_MAC_DOTS = re.compile(r"\.[0-9A-Fa-f]{4}\.(?=[0-9A-Fa-f]{4}(?![0-9A-Za-z]))")


class Online:
    """Mail addresses, URLs, domains, IP and MAC addresses."""

    entities = frozenset({"EMAIL_ADDRESS", "URL", "DOMAIN_NAME", "IP_ADDRESS", "MAC_ADDRESS"})

    def find(self, text: str) -> Iterator[Finding]:
        """Give all of them; domains inside of a mail address or URL too, for the detector to settle."""
        if "@" in text or "(at)" in text or "[at]" in text or "{at}" in text or "(AT)" in text or " at]" in text:
            yield from _emails(text)
        if "://" in text:
            yield from _urls(text)
        if "www." in text or "WWW." in text:
            yield from _www(text)
        if "." in text:
            yield from _domains(text)
            yield from _ipv4(text)
        if ":" in text:
            yield from _colons(text)
        if "-" in text or "." in text:
            yield from _macs(text)


def _emails(text: str) -> Iterator[Finding]:
    for at in _AT.finditer(text):
        local = _LOCAL.search(text, max(0, at.start() - 64), at.start())
        if local is None:
            continue
        host = _HOST.match(text, at.end())
        start, end = local.start(), host.end() if host else at.end()
        while start < local.end() and text[start] in _LOCAL_EDGES:
            start += 1
        if host is None or start == local.end():
            continue
        dot = _DOT.match(text, end)
        more = _HOST.match(text, dot.end()) if dot else None
        name = text[host.start() : end]
        if more:
            end, name = more.end(), f"{name}.{more.group()}"
        name = name.rstrip("-_.")
        top = name.rpartition(".")[2].lower()
        plainly = at.group() == "@"
        if "." not in name or top.isdigit() or len(top) < 2 or (not plainly and top not in _TLDS):
            continue
        yield Finding("EMAIL_ADDRESS", start, end - (0 if more else host.end() - host.start() - len(name)), 1.0, NAME)


def _urls(text: str) -> Iterator[Finding]:
    place = text.find("://")
    while place >= 0:
        scheme = _SCHEME.search(text, max(0, place - 16), place)
        rest = _URL_REST.match(text, place + 3)
        end = place + 3
        if scheme is not None and rest is not None:
            end = _trimmed(text, place + 3, rest.end())
            if end > place + 3:
                yield Finding("URL", scheme.start(), end, 1.0, NAME)
        place = text.find("://", max(end, place + 3))


def _trimmed(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1] in _URL_END:
        if text[end - 1] == ")" and text.count("(", start, end) >= text.count(")", start, end):
            break
        end -= 1
    return end


def _www(text: str) -> Iterator[Finding]:
    end = 0
    for found in _WWW.finditer(text):
        if found.start() < end or (
            found.start() and (text[found.start() - 1].isalnum() or text[found.start() - 1] in "/@.")
        ):
            continue
        rest = _URL_REST.match(text, found.start())
        if rest is not None:
            end = _trimmed(text, found.start(), rest.end())
            yield Finding("URL", found.start(), end, 1.0, NAME)


def _domains(text: str) -> Iterator[Finding]:
    for found in _BARE.finditer(text):
        labels = _LABELS.search(text, max(0, found.start() - 200), found.start())
        if labels is None:
            continue
        start = labels.start()
        while start < found.start() and not text[start].isalnum():
            start += 1
        name = text[start : found.start()]
        before = text[start - 1] if start else " "
        if not name or ".." in name or before in "@/\\" or not any(map(str.isalpha, name)):
            continue
        top, path = text[found.start() + 1 : found.end()], text[found.end() : found.end() + 1] == "/"
        sure = path or name.count(".") > 0
        if top.lower() in _WORDS_TOO and not sure and not _WEB_WORDS.search(text, max(0, start - 16), start):
            continue
        if len(name) < 2 or (top != top.lower() and not text[start : found.end()].isupper()):
            continue
        end = found.end()
        if path:
            rest = _URL_REST.match(text, end)
            end = _trimmed(text, end, rest.end()) if rest else end
        yield Finding("DOMAIN_NAME", start, end, 0.9, NAME)


def _ipv4(text: str) -> Iterator[Finding]:
    for found in _IPV4.finditer(text):
        parts = found.group().split(".")
        start, end = found.span()
        if any(int(part) > 255 or (len(part) > 1 and part[0] == "0") for part in parts):
            continue
        if start and (text[start - 1].isalpha() or _VERSION.search(text, max(0, start - 12), start)):
            continue
        if parts[0] == "127" or found.group() == "0.0.0.0":  # noqa: S104  # this machine, whichever it is
            continue
        if _heading(text, start, end, parts):
            continue
        yield Finding("IP_ADDRESS", start, end, 0.95, NAME)


def _heading(text: str, start: int, end: int, parts: list[str]) -> bool:
    """Say whether this is `1.2.3.4 Title` at the beginning of a line."""
    if any(int(part) > 30 for part in parts) or parts[0] == "10":
        return False
    return (
        (start == 0 or text[start - 1] in "\n#")
        and text[end : end + 1] in (" ", "\t")
        and text[end + 1 : end + 2].isupper()
    )


def _colons(text: str) -> Iterator[Finding]:
    reached = 0
    for found in _COLON.finditer(text):
        if found.start() < reached:
            continue
        left = _HEX.search(text, max(0, found.start() - 40), found.start())
        start = left.start() if left else found.start()
        rest = _HEX_REST.match(text, found.start())
        end = rest.end() if rest else found.end()
        reached = end
        while end > start and text[end - 1] == ":" and text[end - 2] != ":":
            end -= 1
        if (start and text[start - 1].isalnum()) or text[end : end + 1].isalnum():
            continue
        entity = _entity(text[start:end])
        if entity:
            yield Finding(entity, start, end, 0.95, NAME)


def _entity(address: str) -> str | None:
    if _MAC.fullmatch(address):
        return "MAC_ADDRESS"
    if len(address) < 5 or address.count(":") < 2 or not any(map(str.isdigit, address)):
        return None
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return None
    return "IP_ADDRESS"


def _macs(text: str) -> Iterator[Finding]:
    for found in _MAC_DASH.finditer(text):
        start = found.start() - 2
        whole = _MAC.match(text, start) if start >= 0 else None
        if whole and not (start and text[start - 1].isalnum()) and not text[whole.end() : whole.end() + 1].isalnum():
            digits = whole.group().replace("-", "")
            if not digits.isdigit() or digits.startswith("00"):
                yield Finding("MAC_ADDRESS", start, whole.end(), 0.95, NAME)
    for found in _MAC_DOTS.finditer(text):
        start, end = found.start() - 4, found.end() + 4
        address = text[start:end].replace(".", "") if start >= 0 else ""
        whole_word = not (start > 0 and text[start - 1].isalnum())
        if len(address) == 12 and whole_word and all(c in "0123456789abcdefABCDEF" for c in address):
            yield Finding("MAC_ADDRESS", start, end, 0.95, NAME)
