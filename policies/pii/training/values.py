"""Values for the slots of templates: `{person}`, `{city}`, `{date}` ... and what each piece of them is.

Names of all languages are mixed freely: people move, and streets keep their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.pii.training.organisations import Organisations
from policies.pii.training.places import Places
from policies.pii.training.sources import Pieces, Sources


class Values:
    """Makes a value for a slot. The same seed makes the same ones."""

    def __init__(self, seed: int, neutral: Sequence[str]) -> None:
        """`neutral`: sentences that name nobody, for the slots `{nothing}`."""
        self._from = Sources(seed)
        self._neutral = neutral
        places = Places(self._from)
        organisations = Organisations(self._from, places)
        self._makers: dict[str, Callable[[], Pieces]] = {
            **{name: getattr(places, name) for name in _PLACES},
            **{name: getattr(organisations, name) for name in ("org", "hospital", "university")},
            **{name: getattr(self, f"_{name}") for name in ("person", "first", "last", "job", "nrp", "prefix")},
            "prefix_de": lambda: [(self._part("german titles"), "TITLE")],
            "prefix_it": lambda: [(self._part("italian titles"), "TITLE")],
        }
        self._others: dict[str, Callable[[], str]] = {
            "date": lambda: self._from.english("date", pattern=self._part("dates")),
            "weekday": lambda: self._from.english("day_of_week"),
            "year": lambda: self._from.number(1850, 2027),
            "age": lambda: self._from.number(2, 101),
            "time": lambda: self._part("times"),
            "phone": lambda: self._from.said("phone_number"),
            "email": lambda: self._from.english("email"),
            "iban": lambda: self._from.english("iban"),
            "card": lambda: self._from.english("credit_card_number"),
            "number": lambda: self._from.number(1, 10 ** self._from.random.randrange(1, 7)),
            "thing": self._thing,
            "nothing": lambda: self._from.pick(self._neutral),
            "nothing_low": self._nothing_low,
        }

    def make(self, slot: str) -> Pieces:
        """Give a value as pieces; white space and marks belong to the piece they stand in."""
        maker = self._makers.get(slot)
        return [(self._others[slot](), "O")] if maker is None else maker()

    def _part(self, name: str) -> str:
        return self._from.pick(self._from.parts[name])

    def _person(self) -> Pieces:
        of = self._from
        given, last = of.given_name(), of.last_name()
        forms = (
            (84, f"{given} {last}"),
            (8, f"{given} {of.letters(1)}. {last}"),
            (4, f"{given} {of.given_name()} {last}"),
            (2, f"{given[0]}. {last}"),
            (2, f"{last} {given}"),
        )
        return [(of.random.choices([form for _, form in forms], [weight for weight, _ in forms])[0], "PERSON")]

    def _first(self) -> Pieces:
        return [(self._from.given_name(), "PERSON")]

    def _last(self) -> Pieces:
        return [(self._from.last_name(), "PERSON")]

    def _prefix(self) -> Pieces:
        titles = self._from.parts["titles"]
        return [(self._from.pick(titles[:6] if self._from.chance(0.7) else titles), "TITLE")]

    def _job(self) -> Pieces:
        of = self._from
        job = of.english("job") if of.chance(0.8) else of.said("job")
        if of.chance(0.5) and ", " in job:
            job = " ".join(reversed(job.split(", ", 1)))
        return [(of.pick((job, job.capitalize(), job.lower())), "TITLE")]

    def _nrp(self) -> Pieces:
        return [(self._from.pick(self._from.nationalities).title(), "NRP")]

    def _thing(self) -> str:
        of = self._from
        return of.pick((of.english("catch_phrase"), of.english("bs"), of.english("bs").title()))

    def _nothing_low(self) -> str:
        text = self._from.pick(self._neutral).rstrip(".!?:,")
        return text[0].lower() + text[1:]


_PLACES = ("city", "country", "region", "street", "unit", "postcode", "pobox", "address", "address_line")
