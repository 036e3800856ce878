"""What of an answer may be a link: addresses on hosts that the configuration names, and those of the answer's sources.

A document can make a model write an address that carries away what it read: a reader clicks it, and a program that
shows the answer may fetch an image by itself. So no image, no HTML and no other address leaves as such. The words
stay, readable; only what makes them a link is broken, in Markdown, HTML and plain text alike:

    ![alt](https://x.org/a.png)    [alt]                       [text](https://x.org/)   [text]
    https://x.org/a                hxxps://x[.]org/a           <img src=x>              < img src=x>
    [ref]: https://x.org/          [ref] : hxxps://x[.]org/    javascript:f()           javascript: f()

The rules look at one run without white space at a time: nothing that Markdown or HTML takes for a link survives them,
wherever it begins and ends, and an answer that arrives in pieces becomes what the whole would have become.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from policies.unseen import without_unseen

MAX_ADDRESS_CHARS = 2_048
_LONG_RUN = 16_384
"""A run without white space is cut here: the rules look at it as a whole."""
_HOST = re.compile(r"(\*\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_ADDRESS = re.compile(
    r"https?://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)(?::\d{1,5})?"
    r"(?:[/?#](?:[A-Za-z0-9._~:/?#!$&'*+,;=@%-]|\([A-Za-z0-9._~%-]*\))*)?"
)
"""RFC 3986 without user names, IPv6 and anything that a browser repairs."""
_FOUND = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31}):(?P<slashes>[/\\]{2,4})|(?<![A-Za-z0-9])www(?=\.)", re.IGNORECASE
)
_RUNNING = re.compile(r"\b(javascript|vbscript|livescript|data|blob|file|mailto|tel|xmpp):(?=[^\s/])", re.IGNORECASE)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_IMAGE = re.compile(r"(?<!!)!+(?=\[)")
_TARGET = re.compile(r"\]\((?P<target>[^()]*(?:\([^()]*\)[^()]*)*)(?P<end>\)?)")
_PLACE = re.compile(r"[/\\:&%#.?]")
"""What makes of words in round brackets, right behind square ones, an address."""
_WITHOUT_SCHEME = re.compile(r"(?<![:/A-Za-z0-9])//(?=[^\s/]*\.[A-Za-z])")
_BARE = re.compile(
    r"(?<![\w@./\\-])(?:[\w-]+(?:\.[\w-]+)*\.(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{1,59})|\d{1,3}(?:\.\d{1,3}){3})"
    r"\.?(?:(?::\d{1,5})?(?!(?<=\d)/\d{1,2}(?![\w/?#%&=.-]))/|(?::\d{1,5})?[?#](?=\S))",
    re.IGNORECASE,
)
"""A host with a path behind it and no scheme before it: many chat programs make a link of it. Not `10.0.0.0/8`."""
_MARK = re.compile(r"(\[\d+\])")
_LIKE_MARK = re.compile(r"\[(\^?\d[\d,;^\u2013-]*)\]")
_PATH = re.compile(r"[/?#\\]")
_TRAILING = ".,;:!?*_~'\")"
_AFTER = re.compile(r"[\])}>\"'*_,;:.!?|`~]*\Z")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
_RUNS = re.compile(r"\s+|\S+")
_COMPLETE = re.compile(r".*\s", re.DOTALL)
_WIDE = re.compile(r"[\u3001-\u3029\u3030-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff01\uff0c\uff1a\uff1b\uff1f]+")
"""Scripts without spaces between words: what stands at a run's beginning is part of no rule, and need not wait."""


@dataclass(frozen=True, slots=True)
class Links:
    """Which addresses may leave: on one of `hosts` (`wiki.acme.org`; `*.acme.org` for those below), or exact ones."""

    hosts: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    @classmethod
    def to(cls, hosts: Iterable[str], addresses: Iterable[str] = ()) -> Links:
        """Build it; addresses other than those of the web are left out. Raises `ValueError` for what is no host."""
        named = frozenset(host.lower() for host in hosts)
        for host in named:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no host: give one such as wiki.example.org or *.example.org")
        return cls(named, frozenset(address for address in addresses if _ADDRESS.fullmatch(address)))

    def allow(self, address: str) -> bool:
        """Say whether this address may leave as a link."""
        if address in self.addresses:
            return True
        found = _ADDRESS.fullmatch(address) if len(address) <= MAX_ADDRESS_CHARS else None
        if found is None or not self.hosts:
            return False
        host = found["host"].lower()
        return host in self.hosts or any(f"*{host[dot:]}" in self.hosts for dot in _dots(host))


class LinkFilter:
    """`without_links` for a text that arrives in pieces: what it gives back, joined, is what the whole would give.

    The last run without white space is held back until it is complete.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._pending: list[str] = []

    def feed(self, piece: str) -> str:
        """Take the next piece. Returns the text that is checked by now, possibly none."""
        complete = _COMPLETE.match(piece)
        if complete is not None:
            ready = "".join([*self._pending, complete.group()])
            self._pending = []
            return without_links(ready, self._links) + self._begun(piece[complete.end() :])
        return self._begun(piece)

    def finish(self) -> str:
        """Return the rest, checked."""
        ready, self._pending = "".join(self._pending), []
        return without_links(ready, self._links)

    def _begun(self, rest: str) -> str:
        """Hold back a run's beginning, but for the wide characters that it begins with."""
        held = "".join(self._pending) + rest if len(self._pending) == 1 and len(self._pending[0]) == 1 else rest
        if held is not rest:
            self._pending = []
        wide = _WIDE.match(held) if not self._pending else None
        leaves = wide.end() - 1 if wide else 0  # the last may have a selector behind it
        if held[leaves:]:
            self._pending.append(held[leaves:])
        return held[:leaves]


def without_links(text: str, links: Links) -> str:
    """Break what would be a link, an image or HTML, but for the links that are allowed. Linear in the text."""
    text, _ = without_unseen(CONTROL.sub(" ", text))
    return "".join(_beyond_wide(run, links) for run in _RUNS.findall(text))


def _beyond_wide(run: str, links: Links) -> str:
    wide = _WIDE.match(run)
    start = wide.end() - 1 if wide else 0  # the last may belong to a host's name
    rest = run[start:]
    if rest.isspace() or (rest.isascii() and rest.isalnum()):
        return run
    return run[:start] + " ".join(_safe(rest[at : at + _LONG_RUN], links) for at in range(0, len(rest), _LONG_RUN))


def _safe(run: str, links: Links) -> str:
    run = _IMAGE.sub("", _TAG.sub("< ", _folded(run)))
    parts, position = [], 0
    for found in _TARGET.finditer(run):
        target = found["target"]
        parts.append(_words(run[position : found.start()], links))
        position = found.end()
        if found["end"] and links.allow(target) and not _FOUND.search(run, 0, found.start()):
            parts.append(f"]({target})")
            continue
        parts.append("]" if _PLACE.search(target) else f"] ({_words(target, links)}{found['end']}")
        if run[position : position + 1] in ("(", ":", "["):
            parts.append(" ")
    return "".join([*parts, _words(run[position:], links)])


def _folded(run: str) -> str:
    """What only looks like an address becomes one where a program folds wide and styled letters."""
    if run.isascii():
        return run
    folded = unicodedata.normalize("NFKC", run)
    risky = (_FOUND, _RUNNING, _TAG, _TARGET)
    if all(len(rule.findall(folded)) <= len(rule.findall(run)) for rule in risky):
        return run
    # Marks were checked before: one that only comes of this is none.
    parts = _MARK.split(run)
    parts[::2] = [_LIKE_MARK.sub(r"(\1)", unicodedata.normalize("NFKC", part)) for part in parts[::2]]
    return "".join(parts)


def _words(text: str, links: Links) -> str:
    """Break everything in a run that stands outside of a link's target."""
    parts, position = [], 0
    while found := _FOUND.search(text, position):
        parts.append(_inert(text[position : found.start()]))
        address = _extent(text, found.start())
        if found["scheme"] and links.allow(address):
            parts.append(address)
            position = found.start() + len(address)
            continue
        following = _FOUND.search(text, found.end())
        ends = following.start() if following else len(text)
        path = _PATH.search(text, found.end(), ends)
        ends = path.start() if path else ends
        parts += [_without_scheme(found), _inert(text[found.end() : ends].replace(".", "[.]"))]
        position = ends
    return "".join([*parts, _inert(text[position:])])


def _extent(text: str, start: int) -> str:
    """The address that begins at `start` and ends the run, without the punctuation of the sentence around it."""
    found = _ADDRESS.match(text, start)
    if found is None or not _AFTER.match(text, found.end()):
        return ""
    address = found.group().rstrip(_TRAILING)
    return address + ")" * (address.count("(") - address.count(")"))


def _without_scheme(found: re.Match[str]) -> str:
    scheme = found["scheme"]
    if scheme is None:
        return found.group()  # www: the dots behind it are broken
    if scheme.lower() in ("http", "https"):
        return f"{re.sub('t', 'x', scheme, flags=re.IGNORECASE)}:{found['slashes']}"
    return f"{scheme} :{found['slashes']}"


def _inert(text: str) -> str:
    text = _RUNNING.sub(r"\1: ", text)
    text = _WITHOUT_SCHEME.sub("/ / ", text)
    text = _BARE.sub(lambda found: found.group().replace(".", "[.]"), text)
    return text.replace("]:", "] :").replace("](", "] (")


def _dots(host: str) -> list[int]:
    return [place for place, character in enumerate(host) if character == "."]
