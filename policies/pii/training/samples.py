"""Texts to learn from: templates filled with made-up values, and text in which nobody is named.

No text of any evaluation set is used. What a template names is tagged; all else is `O`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from policies.pii.gazetteers import Gazetteers, Known, gazetteers
from policies.pii.tagger import TAGS
from policies.pii.training.lists import prose
from policies.pii.training.sources import Pieces
from policies.pii.training.values import Values
from policies.pii.words import Words, split, words

TEMPLATES = Path(__file__).parent / "templates"
_SLOT = re.compile(r"\{(\w+)\}")
_SMALL = 12_000
"""Characters taken of one text."""
_NAMED = Known.GIVEN | Known.FAMILY | Known.PLACE
_SURE = Known.COUNTRY | Known.ORGANISATION | Known.NATIONALITY
_AUTHORS = re.compile(r"@|©|copyright|author|maintain|\bby [A-Z]|thanks|contribut|licen[cs]e", re.IGNORECASE)
_REAL_WORDS = ("en_US", "de_DE", "fr_FR", "es_ES", "pl_PL", "cs_CZ", "it_IT", "nl_NL", "ru_RU", "el_GR", "pt_BR")
_PLAIN_WORD = re.compile(r"(?<![^\s])[^\W\d_]{3,}(?![^\s.,:;!?])")
_PLANTED = ("first", "person", "first", "person", "last", "city", "city", "country", "country", "nrp", "org", "street")


@dataclass(frozen=True, slots=True)
class Sample:
    """A text as words, and the number of the tag of each."""

    words: Words
    tags: list[int]


class Samples:
    """Writes samples. The same seed writes the same ones."""

    def __init__(self, seed: int) -> None:
        from faker import Faker

        self._random = random.Random(seed)  # noqa: S311
        self._english = _lines("en.txt")
        self._european = _lines("european.txt")
        self._neutral = _lines("neutral.txt")
        self._values = Values(seed, self._neutral)
        self._writers = [Faker(locale) for locale in _REAL_WORDS]
        for writer in self._writers:
            writer.seed_instance(self._random.randrange(1 << 30))
        self._prose = list(unnamed(gazetteers()))

    def write(self, count: int) -> Iterator[Sample]:
        """Write so many."""
        for _ in range(count):
            yield tagged(self._cased(self._pieces()))

    def _pieces(self) -> Pieces:
        kind = self._random.random()
        if kind < 0.25:
            return [(self._documentation(), "O")]
        if kind < 0.29:
            return [(self._real_words(), "O")]
        if kind < 0.5:
            return self._planted()
        out: Pieces = []
        between = self._random.choice((" ", " ", "\n", "\n\n"))
        for at in range(self._random.choice((1, 1, 2, 3, 4))):
            if at:
                out.append((between, "O"))
            out += self._sentence()
        return out

    def _sentence(self) -> Pieces:
        kind = self._random.random()
        if kind < 0.22:
            text = self._random.choice(self._neutral)
            style = self._random.choice((str, str, str, str, str, str.title, str.upper, str.lower))
            return [(style(text), "O")]
        if kind < 0.3:
            text = self._random.choice(self._prose)
            return [(text.title() if self._random.random() < 0.15 else text, "O")]
        return self._filled(self._random.choice(self._english if kind < 0.8 else self._european))

    def _documentation(self) -> str:
        start = self._random.randrange(len(self._prose))
        text = self._random.choice(("\n", " ")).join(self._prose[start : start + self._random.randrange(1, 6)])
        if self._random.random() < 0.3:
            text = _PLAIN_WORD.sub(self._disguised, text)
        return text.lower() if self._random.random() < 0.2 else text

    def _disguised(self, word: re.Match[str]) -> str:
        """Write a few words with capitals, or put an abbreviation there: neither is a name."""
        kind = self._random.random()
        if kind < 0.06:
            return word.group().capitalize()
        if kind < 0.09:
            length = self._random.choice((2, 3, 3, 4))
            letters = "".join(self._random.choice("ABCDEFGHIKLMNOPRSTV") for _ in range(length))
            return letters + (str(self._random.randrange(1, 400)) if kind < 0.07 else "s" if kind < 0.074 else "")
        return word.group()

    def _planted(self) -> Pieces:
        """Put a value in place of a word where nobody expects one: then only its spelling and the lists tell."""
        line = self._random.choice(self._prose if self._random.random() < 0.6 else self._neutral)
        places = [found.span() for found in _PLAIN_WORD.finditer(line)]
        if not places:
            return [(line, "O")]
        start, end = self._random.choice(places)
        return [(line[:start], "O"), *self._values.make(self._random.choice(_PLANTED)), (line[end:], "O")]

    def _filled(self, template: str) -> Pieces:
        out: Pieces = []
        done = 0
        for slot in _SLOT.finditer(template):
            out.append((template[done : slot.start()], "O"))
            out += self._values.make(slot.group(1))
            done = slot.end()
        out.append((template[done:], "O"))
        mark = self._random.random()
        if mark < 0.03:
            out = [(text.replace("\n", f"\n{'>' if mark < 0.015 else '* '}"), tag) for text, tag in out]
        return out

    def _cased(self, pieces: Pieces) -> Pieces:
        kind = self._random.random()
        if kind < 0.13:
            return [(text.lower(), tag) for text, tag in pieces]
        if kind < 0.16:
            return [(text.upper(), tag) for text, tag in pieces]
        return pieces

    def _real_words(self) -> str:
        text = str(self._random.choice(self._writers).paragraph())
        return text.title() if self._random.random() < 0.2 else text


def tagged(pieces: Pieces) -> Sample:
    """Join the pieces of a text, and give each word the tag of the piece it begins in; line breaks have none."""
    text = "".join(piece for piece, _ in pieces)
    tags = bytearray(len(text))
    place = 0
    for piece, tag in pieces:
        tags[place : place + len(piece)] = bytes([TAGS.index(tag)]) * len(piece)
        place += len(piece)
    found = words(text)
    pairs = zip(found.texts, found.starts, strict=True)
    return Sample(found, [0 if word[0] == "\n" else tags[start] for word, start in pairs])


def unnamed(lists: Gazetteers) -> Iterator[str]:
    """Give lines of documentation that seem to name nobody: they teach what is not a name."""
    for text in prose():
        for line in text[:_SMALL].splitlines():
            if 20 < len(line) < 600 and not _AUTHORS.search(line) and not _names_somebody(line, lists):
                yield line


def _names_somebody(line: str, lists: Gazetteers) -> bool:
    flags = [lists.known(word.lower()) if word[0].isupper() else 0 for word in split(line)]
    if any(flag & _SURE and not flag & Known.COMMON for flag in flags):
        return True
    return any(one & _NAMED and two & _NAMED and not one & two & Known.COMMON for one, two in pairwise(flags))


def _lines(name: str) -> list[str]:
    lines = (TEMPLATES / name).read_text(encoding="utf-8").splitlines()
    return [line.replace("\\n", "\n") for line in lines if line]
