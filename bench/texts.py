"""Texts for measurements, made from the example company's own sentences: the same for the same seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SEED = 20
WORDS_OF_DOCUMENT = 140
"""About 200 tokens of the packaged model: these texts have 1.4 tokens a word."""
_SYLLABLES = [first + vowel for first in "bcdfghklmnprstvz" for vowel in ("a", "e", "i", "o", "u", "ar", "en", "il")]
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_WORD = re.compile(r"[a-z]{3,}")
_ZIPF_SHIFT = 2.7  # Mandelbrot 1953: frequency is proportional to 1 / (rank + 2.7)


def sentences(folder: Path = EXAMPLES) -> list[str]:
    """Read the plain sentences of the examples' Markdown and text files, in a fixed order, each once."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".md", ".txt"))
    found: dict[str, None] = {}
    for path in files:
        for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            if paragraph.lstrip()[:1].isalpha():
                found |= dict.fromkeys(_SENTENCE.split(" ".join(paragraph.split())))
    return [sentence for sentence in found if 6 <= len(sentence.split()) <= 60]


def documents(count: int, pool: Sequence[str], seed: int = SEED) -> Iterator[str]:
    """Make texts of about `WORDS_OF_DOCUMENT` words, none like another."""
    chance = random.Random(seed)
    for number in range(count):
        chosen, words = [f"Note {number} of the archive."], 5
        while words < WORDS_OF_DOCUMENT:
            sentence = chance.choice(pool)
            chosen.append(sentence)
            words += len(sentence.split())
        yield " ".join(chosen)


class Vocabulary:
    """Words whose frequencies follow Zipf's law: the examples' own first, then invented ones."""

    def __init__(self, pool: Sequence[str], size: int = 30_000, seed: int = SEED) -> None:
        self._chance = random.Random(seed)
        common = [word for word, _ in Counter(_WORD.findall(" ".join(pool).lower())).most_common()]
        words = dict.fromkeys(common[:size])
        while len(words) < size:
            words["".join(self._chance.choices(_SYLLABLES, k=self._chance.randint(2, 4)))] = None
        self._words = list(words)
        total, self._cumulated = 0.0, []
        for rank in range(size):
            total += 1 / (rank + 1 + _ZIPF_SHIFT)
            self._cumulated.append(total)

    def text(self, words: int) -> str:
        """Make a text of sentences of about 15 words."""
        drawn = self._chance.choices(self._words, cum_weights=self._cumulated, k=words)
        parts = [drawn[start : start + 15] for start in range(0, len(drawn), 15)]
        return " ".join(f"{' '.join(part).capitalize()}." for part in parts)

    def question(self) -> str:
        """Make a question with the words that a person would choose: 4 that are neither rare nor everywhere."""
        places = [round(10 ** self._chance.uniform(1.5, 4)) for _ in range(4)]
        first, second, third, fourth = (self._words[min(place, len(self._words) - 1)] for place in places)
        return f"What does the {first} {second} say about the {third} of {fourth}?"
