"""Made-up addresses and places, in the orders and with the words of many countries."""

from __future__ import annotations

from policies.pii.training.sources import Pieces, Sources

_COMPLEX = (", ", ", ", "\n", "\n ", " ", "\n")


class Places:
    """Makes cities, countries, regions, streets and whole addresses."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources

    def city(self) -> Pieces:
        """A city or village."""
        return [(self.city_name(), "LOCATION")]

    def city_name(self) -> str:
        """Its name, in capitals at times, as some countries write it in addresses."""
        of = self._from
        name = of.said("city") if of.chance(0.15) else of.pick(of.cities)
        if of.chance(0.04):
            name = f"{name} {of.random.choice('123456789KNØSVC')}"
        return name.upper() if of.chance(0.09) else name

    def country(self) -> Pieces:
        """A country, mostly in English."""
        of = self._from
        if of.chance(0.03):
            return [(of.pick(("USA", "UK", "the Netherlands", "United States of America", "U.S.", "UAE")), "LOCATION")]
        return [(of.said("country") if of.chance(0.12) else of.pick(of.countries), "LOCATION")]

    def region(self) -> Pieces:
        """A state, or letters that stand for one."""
        of = self._from
        return [(of.english("state") if of.chance(0.6) else of.letters(of.random.choice((2, 2, 2, 3))), "LOCATION")]

    def street(self) -> Pieces:
        """A street, with a number mostly."""
        return [(self._street_name() if self._from.chance(0.3) else self._street_line(), "ADDRESS")]

    def unit(self) -> Pieces:
        """A flat, suite or floor."""
        of = self._from
        text = of.pick(of.parts["units"])
        return [(text.replace("{n}", of.number(1, 1000)).replace("{f}", of.number(1, 30)), "ADDRESS")]

    def postcode(self) -> Pieces:
        """A postcode of any country."""
        of = self._from
        return [(of.number(1000, 99_999).zfill(5) if of.chance(0.5) else of.said("postcode"), "ADDRESS")]

    def pobox(self) -> Pieces:
        """A post box."""
        words = ("P.O. Box", "PO Box", "Postfach", "BP", "Apartado", "Casella postale", "Postbus", "Box")
        return [(f"{self._from.pick(words)} {self._from.number(1, 9999)}", "ADDRESS")]

    def address_line(self) -> Pieces:
        """An address in one line."""
        return self._with(", ")

    def address(self) -> Pieces:
        """An address as it comes: in one line or several, of a soldier, or a corner."""
        kind = self._from.random.random()
        if kind < 0.05:
            return self._military()
        return self._corner() if kind < 0.12 else self._with(self._from.pick(_COMPLEX))

    def _street_name(self) -> str:
        of, kind = self._from, self._from.random.random()
        name = of.last_name() if of.chance(0.5) else of.pick(of.cities if of.chance(0.6) else of.parts["nouns"])
        if kind < 0.25:
            return of.said("street_name")
        if kind < 0.5:
            return f"{name} {of.pick(of.parts['street words'])}"
        if kind < 0.66:
            article = of.pick(("de la", "du", "della", "de", "do", "dei", "des"))
            full = of.pick((name, f"{of.given_name()} {of.last_name()}", f"{article} {name}"))
            return f"{of.pick(of.parts['street beginnings'])} {full}"
        if kind < 0.9:
            return name.split()[0] + of.pick(of.parts["street endings"])
        return f"{name} {of.pick(of.parts['street last words'])}"

    def _house(self) -> str:
        of = self._from
        return of.number(1, 9999 if of.chance(0.3) else 200) + (of.random.choice("abcABC") if of.chance(0.06) else "")

    def _street_line(self) -> str:
        street, house, two = self._street_name(), self._house(), self._from.number(0, 100).zfill(2)
        forms = (
            (35, f"{house} {street}"),
            (30, f"{street} {house}"),
            (7, f"{street}, {house}"),
            (13, f"{two} {street} {house}"),
            (7, f"{two} {house} {street}"),
            (8, f"{house}, {street}"),
        )
        return self._from.random.choices([form for _, form in forms], [weight for weight, _ in forms])[0]

    def _military(self) -> Pieces:
        of = self._from
        ship = f"{of.pick(('USNS', 'USS', 'USCGC', 'USNV'))} {of.last_name()}"
        number = of.number(1000, 9999)
        base = of.pick((f"PSC {number}, Box {number}", f"Unit {number} Box {number}", ship))
        office = f"{of.pick(('APO', 'FPO', 'DPO'))} {of.pick(('AA', 'AE', 'AP'))}"
        return [(f"{base}\n{office} {of.number(10_000, 99_999)}", "ADDRESS")]

    def _corner(self) -> Pieces:
        of = self._from
        one = of.given_name() if of.chance(0.4) else self.street()[0][0]
        return [(f"{of.pick(('the corner of ', ''))}{one} and {self.street()[0][0]}", "ADDRESS")]

    def _with(self, between: str) -> Pieces:
        of = self._from
        out = [(self._street_line(), "ADDRESS")]
        if of.chance(0.06):
            out = [(f"{of.number(0, 100).zfill(2)} " if of.chance(0.4) else "", "ADDRESS"), *self.pobox()]
        if of.chance(0.5):
            out += [(of.pick((between, " ", between)), "O"), *self.unit()]
        out += [(between, "O"), *self._town(between)]
        if of.chance(0.45):
            out += [(between, "O"), *self.country()]
            if of.chance(0.4):
                out += [(" ", "O"), *self.postcode()]
        return out

    def _town(self, between: str) -> Pieces:
        of, kind = self._from, self._from.random.random()
        if kind < 0.35:
            return [*self.postcode(), (" ", "O"), *self.city()]
        if kind >= 0.75:
            return self.city()
        out = [*self.city(), (of.pick((", ", " ", between, "\n, ")), "O")]
        out += [(of.pick(("nan", "")), "LOCATION")] if of.chance(0.12) else self.region()
        return [*out, (" ", "O"), *self.postcode()] if of.chance(0.75) else out
