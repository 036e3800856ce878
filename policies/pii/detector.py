"""The detector: asks every recogniser once, and settles who is right where they overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.pii.findings import ENTITIES, NAMES, PROVEN, SECRETS, Finding, Recogniser
from policies.pii.names import recognisers as names
from policies.pii.plain import plain
from policies.pii.structured import recognisers as structured

_COMPOUND = frozenset({"ADDRESS", "URL"})
"""Of these the rest is still worth finding where a surer finding takes a part."""
_REST_CHARS = 3
_GUESSED = NAMES | {"ZIP_CODE"}
_NAMED = 0.7
"""From here on a word near an identifier says what it is: surer than what a name is taken for."""


class Detector:
    """Finds personal data. Deterministic and thread-safe; build it once for a process: it reads the lists of names.

    `entities`: which to look for, all when None; `ValueError` for one that does not exist. `model`: finds names by a
    model of language, in addition to the offline method.
    """

    def __init__(self, entities: frozenset[str] | None = None, model: Recogniser | None = None) -> None:
        unknown = sorted((entities or frozenset()) - ENTITIES)
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no entity")
        self.entities = ENTITIES if entities is None else entities
        parts = (*structured(), *names(), *((model,) if model is not None else ()))
        self._parts = tuple(part for part in parts if part.entities & self.entities)

    def find(self, text: str) -> list[Finding]:
        """Give what is found, ascending and without overlaps. Offsets count characters of `text`."""
        seen = plain(text)
        found = [each for part in self._parts for each in part.find(seen.text) if each.entity in self.entities]
        settled = settle(found, seen.text)
        if not seen.at:
            return settled
        return [Finding(f.entity, *seen.original(f.start, f.end), f.score, f.detector) for f in settled]

    def find_many(self, texts: Sequence[str]) -> list[list[Finding]]:
        """`find` for each."""
        return [self.find(text) for text in texts]


def settle(found: Iterable[Finding], text: str) -> list[Finding]:
    """Keep, of findings that overlap, secrets, then what is proven, then what is named, then the longer, the surer."""
    kept: list[Finding] = []
    taken = bytearray(len(text))
    for each in sorted(found, key=_rank):
        if each.end <= each.start:
            continue
        if not any(taken[each.start : each.end]):
            kept.append(each)
            taken[each.start : each.end] = b"\x01" * (each.end - each.start)
        elif each.entity in _COMPOUND:
            for start, end in _rests(taken, each, text):
                kept.append(Finding(each.entity, start, end, each.score, each.detector))
                taken[start:end] = b"\x01" * (end - start)
    return sorted(kept, key=lambda each: each.start)


def _rank(each: Finding) -> tuple[int, int, float, int, str, str]:
    if each.entity in SECRETS:
        tier = 0
    elif each.score >= PROVEN:
        tier = 1
    else:
        tier = 2 if each.score >= _NAMED and each.entity not in _GUESSED else 3
    return tier, each.start - each.end, -each.score, each.start, each.entity, each.detector


def _rests(taken: bytearray, each: Finding, text: str) -> list[tuple[int, int]]:
    """Give the parts of a finding that nothing surer has taken, without white space and marks around them."""
    rests, start = [], each.start
    while start < each.end:
        free = taken.find(b"\x00", start, each.end)
        if free < 0:
            break
        until = taken.find(b"\x01", free, each.end)
        until = each.end if until < 0 else until
        start = until
        while free < until and not text[free].isalnum():
            free += 1
        while until > free and not text[until - 1].isalnum():
            until -= 1
        if until - free >= _REST_CHARS:
            rests.append((free, until))
    return rests
