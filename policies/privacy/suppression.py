"""What was erased stays erased: a list of keyed hashes of people's identifiers and names, held against every text.

The list says nobody's name. An entry is the keyed hash of a normal form, its length, and a shorter keyed hash of how it
begins: only where a text has a run of words that begins so, and only for lengths that occur, is anything hashed in
full. A run of words is joined before it is hashed, so that it does not matter how a number was grouped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote

from policies.keyed_hashes import KeyedHashes
from policies.privacy.subject import Subject, Token, normal, normals, spellings, tokens

Kind = Literal["identifier", "name"]
Action = Literal["erase", "replace", "restrict"]
ERASED = "[erased]"
USE = "suppression"
GATE_CHARS = 5
LONG_WORD = 12
"""A name of several words is also found as one word, from this many letters on: shorter ones may be another word."""
_MAX_GATES = 65_536


@dataclass(frozen=True, slots=True)
class Suppression:
    """One entry. `digest`: 64 hex digits; `gate`: 16, of the first `gate_chars` characters; `words`: how many.

    `replacement` stands in place of what is found, else `ERASED`; entries that restrict change no text.
    """

    digest: str
    gate: str
    gate_chars: int
    length: int
    words: int
    kind: Kind
    action: Action = "erase"
    replacement: str | None = None
    request_id: str = ""


class Mention(NamedTuple):
    """Where a text names a person, `[start, end)`, and by which entry that was found."""

    start: int
    end: int
    entry: Suppression


class SuppressionSource(Protocol):
    """Where the list is kept."""

    def revision(self) -> int:
        """Give a number that rises with every change. Raises `Unavailable`."""
        ...

    def entries(self, tenant: str) -> Sequence[Suppression]:
        """Give a tenant's entries. Raises `Unavailable`."""
        ...


def entries_of(
    subject: Subject,
    tenant: str,
    keyed: KeyedHashes,
    request_id: str,
    action: Action = "erase",
    replacements: Mapping[str, str] | None = None,
) -> list[Suppression]:
    """Make the entries of a person. `replacements`: by the normal form of the value that each replaces."""
    gates = _Gates(tenant, keyed)
    made: dict[str, Suppression] = {}
    spelt: list[tuple[Kind, str, str]] = [("identifier", text, text) for text in subject.identifiers]
    spelt += [("name", form, name) for name in subject.names for form in spellings(name)]
    for kind, form, given in spelt:
        joined = normal(form)
        chars = min(GATE_CHARS, len(joined))
        digest = keyed.of(tenant, USE, f"{kind}:{joined}")
        made[digest] = Suppression(
            digest=digest,
            gate=gates.of(joined[:chars]).hex(),
            gate_chars=chars,
            length=len(joined),
            words=len(list(tokens(form))),
            kind=kind,
            action=action,
            replacement=(replacements or {}).get(normal(given)),
            request_id=request_id,
        )
    return list(made.values())


class _Gates:
    """The keyed hashes of how entries begin; a text's words ask for the same few again and again."""

    def __init__(self, tenant: str, keyed: KeyedHashes) -> None:
        self._key = bytes.fromhex(keyed.of(tenant, USE, "gates"))

    def of(self, beginning: str) -> bytes:
        return hashlib.blake2b(beginning.encode(), key=self._key, digest_size=8).digest()


class Matcher:
    """Finds the people of some entries of one tenant in texts. Safe to use from many threads."""

    def __init__(self, tenant: str, keyed: KeyedHashes, entries: Sequence[Suppression]) -> None:
        self._tenant = tenant
        self._keyed = keyed
        self._by_digest = {entry.digest: entry for entry in entries}
        self._gates = _Gates(tenant, keyed)
        lengths: dict[tuple[int, bytes], set[int]] = {}
        for entry in entries:
            lengths.setdefault((entry.gate_chars, bytes.fromhex(entry.gate)), set()).add(entry.length)
        self._lengths = {gate: frozenset(found) for gate, found in lengths.items()}
        self._sizes = sorted({entry.gate_chars for entry in entries})
        self._known: dict[str, frozenset[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_digest)

    def find(self, text: str) -> list[Mention]:
        """Find mentions, ascending and apart from each other; at each place the longest one."""
        if not self._by_digest:
            return []
        words = normals(text)
        joined = "".join(words)
        ends = list(accumulate(map(len, words)))
        starts = [0, *ends[:-1]]
        places = self._beginnings(joined, starts)
        if not places:
            return []
        return self._mentions(text, joined, starts, ends, places)

    def _beginnings(self, joined: str, starts: Sequence[int]) -> list[tuple[int, frozenset[int]]]:
        """Give the words with which an entry may begin, and the lengths of those that begin so."""
        keys = [joined[start : start + GATE_CHARS] for start in starts]
        if len(self._known) > _MAX_GATES:
            self._known = {}
        known = self._known
        for key in set(keys).difference(known):
            known[key] = frozenset[int]().union(*(self._of_gate(key, size) for size in self._sizes))
        return [(place, lengths) for place, key in enumerate(keys) if (lengths := known[key])]

    def _mentions(
        self,
        text: str,
        joined: str,
        starts: Sequence[int],
        ends: Sequence[int],
        places: Sequence[tuple[int, frozenset[int]]],
    ) -> list[Mention]:
        word_at = {end: word for word, end in enumerate(ends)}
        found: list[Mention] = []
        spans: list[Token] = []
        free = 0
        for place, lengths in places:
            if place < free:
                continue
            for length in sorted(lengths, reverse=True):
                start = starts[place]
                last = word_at.get(start + length)  # it ends where a word ends
                entry = None if last is None else self._entry(joined[start : start + length], last - place + 1)
                if last is None or entry is None:
                    continue
                spans = spans or list(tokens(text))
                mention = Mention(spans[place].start, spans[last].end, entry)
                if not _is_replaced(text, mention):
                    found.append(mention)
                free = last + 1
                break
        return found

    def names(self, text: str) -> bool:
        """Say whether a name of a document (a title, an address, a path) mentions the person, also when escaped."""
        return bool(self.find(text)) or ("%" in text and bool(self.find(unquote(text))))

    def erases(self, text: str) -> bool:
        """Say whether such a name mentions somebody whose data were erased, and not only corrected or restricted."""
        return any(mention.entry.action == "erase" for form in {text, unquote(text)} for mention in self.find(form))

    def is_exactly(self, text: str) -> bool:
        """Say whether a text is an identifier or a name and nothing else, such as an account's."""
        joined = normal(text)
        kinds: tuple[Kind, ...] = ("identifier", "name")
        return any(self._digest(kind, joined) in self._by_digest for kind in kinds) if joined else False

    def masked(self, name: str) -> str:
        """Take mentions out of a document's name, also where it is escaped."""
        text, count = self.redact(name)
        return text if count or "%" not in name else self.redact(unquote(name))[0]

    def redact(self, text: str) -> tuple[str, int]:
        """Take mentions out of a text, and say how many there were."""
        found = self.find(text)
        return (replaced(text, found), len(found)) if found else (text, 0)

    def _of_gate(self, beginning: str, size: int) -> frozenset[int]:
        return self._lengths.get((size, self._gates.of(beginning[:size])), frozenset())

    def _entry(self, joined: str, count: int) -> Suppression | None:
        entry = self._by_digest.get(self._digest("identifier", joined))
        if entry is not None:
            return entry
        entry = self._by_digest.get(self._digest("name", joined))
        is_whole = entry is not None and (count > 1 or entry.words == 1 or len(joined) >= LONG_WORD)
        return entry if is_whole else None

    def _digest(self, kind: Kind, joined: str) -> str:
        return self._keyed.of(self._tenant, USE, f"{kind}:{joined}")


def replaced(text: str, mentions: Sequence[Mention]) -> str:
    """Write a text with other words in place of its mentions."""
    parts, end = [], 0
    for mention in mentions:
        replacement = mention.entry.replacement
        parts += [text[end : mention.start], ERASED if replacement is None else replacement]
        end = mention.end
    return "".join([*parts, text[end:]])


def moved(position: int, mentions: Sequence[Mention]) -> int:
    """Give where a place in a text is after `replaced`; one within a mention moves to its end."""
    shift = 0
    for mention in mentions:
        new = len(ERASED if mention.entry.replacement is None else mention.entry.replacement)
        if position >= mention.end:
            shift += new - (mention.end - mention.start)
        elif position > mention.start:
            return mention.start + shift + new
    return position + shift


def _is_replaced(text: str, mention: Mention) -> bool:
    """Say whether the mention is within its own replacement: `Doe` that became `Doe-Smith` still holds `Doe`."""
    new = mention.entry.replacement
    if not new:
        return False
    at = text.find(new, max(0, mention.start - len(new)))
    while 0 <= at <= mention.start:
        if mention.end <= at + len(new):
            return True
        at = text.find(new, at + 1)
    return False


class Suppressions:
    """The list as it is now, for all tenants. Safe to use from many threads; what it asks raises `Unavailable`."""

    def __init__(self, source: SuppressionSource, keyed: KeyedHashes) -> None:
        self._source = source
        self._keyed = keyed
        self._lock = Lock()
        self._revision = -1
        self._matchers: dict[tuple[str, bool], Matcher] = {}

    def revision(self) -> int:
        """Give the list's revision: equal numbers, equal lists."""
        return self._source.revision()

    def redact(self, tenant: str, text: str) -> tuple[str, int]:
        """Take out of a text what was erased or corrected for this tenant, and say how often it was there."""
        return self.matcher(tenant).redact(text)

    def matcher(self, tenant: str, restricting: bool = False) -> Matcher:
        """Give what finds this tenant's entries. `restricting`: also those that only keep text from being shown."""
        revision = self._source.revision()
        with self._lock:
            if revision != self._revision:
                self._matchers, self._revision = {}, revision
            found = self._matchers.get((tenant, restricting))
        if found is None:
            entries = self._source.entries(tenant) if revision else ()
            chosen = [entry for entry in entries if restricting or entry.action != "restrict"]
            found = Matcher(tenant, self._keyed, chosen)
            with self._lock:
                if revision == self._revision:
                    self._matchers[tenant, restricting] = found
        return found


def joined_rows(texts: Sequence[str], matcher: Matcher) -> Iterator[list[Mention]]:
    """Find mentions in texts that follow each other, also where one begins in a text and ends in the next.

    Yields the mentions within each text; of one that goes over an end, each text has its part.
    """
    whole = "\n".join(texts)
    found, start = matcher.find(whole), 0
    for text in texts:
        end = start + len(text)
        yield [
            Mention(max(mention.start, start) - start, min(mention.end, end) - start, mention.entry)
            for mention in found
            if mention.start < end and mention.end > start
        ]
        start = end + 1
