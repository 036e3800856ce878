"""Made-up companies, offices, hospitals and universities."""

from __future__ import annotations

from policies.pii.training.places import Places
from policies.pii.training.sources import Pieces, Sources


class Organisations:
    """Makes names of organisations."""

    def __init__(self, sources: Sources, places: Places) -> None:
        self._from = sources
        self._places = places

    def org(self) -> Pieces:
        """Any organisation."""
        makers = (
            (14, self._company),
            (6, self._plain),
            (8, self._coined_name),
            (12, self._known),
            (8, self._partners),
            (8, self._family_firm),
            (9, self._firm),
            (8, self._trade),
            (12, self._short),
            (5, self._office),
            (4, self._local),
            (3, self._group),
            (3, self._abbreviation),
        )
        make = self._from.random.choices([maker for _, maker in makers], [weight for weight, _ in makers])[0]
        return [(make(), "ORGANIZATION")]

    def hospital(self) -> Pieces:
        """A hospital or clinic."""
        of = self._from
        forms = (
            f"{self._places.city_name()} General Hospital",
            f"St. {of.given_name()} Hospital",
            f"{of.last_name()} Medical Center",
            f"{of.last_name()} Clinic",
        )
        return [(of.pick(forms), "ORGANIZATION")]

    def university(self) -> Pieces:
        """A university or college."""
        city = self._places.city_name()
        forms = (
            f"University of {city}",
            f"{self._from.last_name()} College",
            f"{city} University",
            f"Universität {city}",
            f"{city} Institute of Technology",
        )
        return [(self._from.pick(forms), "ORGANIZATION")]

    def _of(self, part: str) -> str:
        return self._from.pick(self._from.parts[part])

    def _company(self) -> str:
        return self._from.said("company")

    def _plain(self) -> str:
        return " ".join(self._from.pick(self._from.common).title() for _ in range(self._from.random.choice((2, 2, 3))))

    def _coined(self) -> str:
        of = self._from
        if of.chance(0.3):
            return (of.pick(of.common) + self._of("coined endings")).capitalize()
        parts = range(of.random.choice((2, 2, 3)))
        ends = ["" if of.chance(0.35) else self._of("codas") for _ in parts]
        return "".join(self._of("onsets") + self._of("vowels") + ends[at] for at in parts).capitalize()

    def _coined_name(self) -> str:
        of, name = self._from, self._coined()
        return f"{name} {self._of('legal forms' if of.chance(0.5) else 'trades')}" if of.chance(0.3) else name

    def _known(self) -> str:
        name = self._from.pick(self._from.organisations)
        return name.title() if self._from.chance(0.8) else name.upper()

    def _partners(self) -> str:
        of = self._from
        between = of.pick(("-", " & ", " and ", f", {of.last_name()} and "))
        return f"{of.last_name()}{between}{of.last_name()}"

    def _family_firm(self) -> str:
        return f"{self._from.last_name()} {self._of('legal forms')}"

    def _firm(self) -> str:
        if self._from.chance(0.4):
            return f"{self._of('nouns')} {self._of('nouns')} {self._of('legal forms')}"
        return f"{self._of('nouns')}{self._of('nouns').lower()} {self._of('trades')}"

    def _trade(self) -> str:
        name = f"{self._of('nouns')} {self._of('trades')}"
        return f"{name} {self._of('legal forms')}" if self._from.chance(0.3) else name

    def _short(self) -> str:
        name = self._of("nouns")
        if self._from.chance(0.35):
            return name + self._of("nouns")
        name += self._of("coined endings")
        return f"{name} {self._of('legal forms')}" if self._from.chance(0.25) else name

    def _office(self) -> str:
        return f"{self._of('offices')} of {self._of('fields')}"

    def _local(self) -> str:
        city = self._places.city_name()
        return self._from.pick((f"{city} {self._of('trades')}", f"Bank of {city}", f"{city} City Council"))

    def _group(self) -> str:
        return f"The {self._of('nouns')} {self._of('nouns')} {self._of('kinds of group')}"

    def _abbreviation(self) -> str:
        if self._from.chance(0.5):
            return self._from.letters(3)
        trade = f" {self._of('trades')}" if self._from.chance(0.5) else ""
        return f"{self._from.number(2, 99)}{self._of('nouns').lower()}{trade}"
