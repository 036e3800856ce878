"""Dates in digits, with or without a time: `3/31/1982`, `2002-11-22 18:02:08`, `31.12.99`, `born 1985 03 12`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.pii.findings import Finding

NAME = "numeric_dates"
_TIME = (
    r"(?:(?:T|,? {1,2}(?:at |um |à |a las )?)[0-2]?[0-9][:.h][0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?"
    r"(?: ?[AaPp]\.?[Mm]\.?)?(?: ?(?:Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}))?(?![0-9]))?"
)
_START = r"(?<![0-9A-Za-z.,/\-+][0-9])(?<![0-9][0-9])"
_DAY_FIRST = re.compile(
    rf"[0-9]{_START}[0-9]?([./-]|\. )[0-9]{{1,2}}\1(?:[0-9]{{4}}|[0-9]{{2}})(?![0-9])(?!{'[./-]'}[0-9]){_TIME}"
)
_YEAR_FIRST = re.compile(rf"[0-9]{_START}[0-9]{{3}}([./-])[0-9]{{1,2}}\1[0-9]{{1,2}}(?![0-9])(?!{'[./-]'}[0-9]){_TIME}")
_MONTH = re.compile(rf"[0-9]{_START}[0-9]?[/.-](?:19|20)[0-9]{{2}}(?![0-9A-Za-z])(?!{'[./-]'}[0-9])")
_SPLIT = re.compile(r"[^0-9]+")
_LEADING_WORDS = """
born birth dob geb geboren geburtsdatum birthday birthdate né née nato nata nacido nacida naissance nascita date dated
datum fecha data admitted discharged died deceased seen visit since until on am vom seit bis från den le urodzenia
syntynyt född født geboortedatum
"""
_LEADING = frozenset(_LEADING_WORDS.split())
"""Words that tell a date from another number; one of the two words before must be among them."""
_WORD = re.compile(r"[^\W\d_]+")
_BARE = re.compile(
    rf"[0-9]{_START}(?:[0-9]{{7}}|[0-9] [0-9]{{2}} [0-9]{{4}}|[0-9]{{3}} [0-9]{{2}} [0-9]{{2}})(?![0-9A-Za-z]| [0-9])"
)
_SHORT = re.compile(rf"[0-9]{_START}[0-9]?(?:/[0-9]{{1,2}}|\.[0-9]{{1,2}}\.)(?![0-9A-Za-z%/-]|[.,][0-9])")


class NumericDates:
    """Dates in digits. A year alone is none of them: Safe Harbor keeps it."""

    entities = frozenset({"DATE_TIME"})

    def find(self, text: str) -> Iterator[Finding]:
        """Give all that can be a day of a calendar, whichever of day and month comes first."""
        for found in _DAY_FIRST.finditer(text):
            parts = _SPLIT.split(found.group())[:3]
            short = found.group(1) == "." and len(parts[2]) == 2 and len(parts[0] + parts[1]) < 4
            if (
                _calendar(*parts)
                and not _attached(text, found.start())
                and not (short and not _is_led(text, found.start()))
            ):
                yield Finding("DATE_TIME", *found.span(), 0.85, NAME)
        for found in _YEAR_FIRST.finditer(text):
            year, month, day = _SPLIT.split(found.group())[:3]
            if _calendar(day, month, year) and not _attached(text, found.start()):
                yield Finding("DATE_TIME", *found.span(), 0.85, NAME)
        for found in _MONTH.finditer(text):
            month, year = _SPLIT.split(found.group())
            if 1 <= int(month) <= 12 and not _attached(text, found.start()):
                yield Finding("DATE_TIME", *found.span(), 0.6, NAME)
        yield from _led(text)


def _led(text: str) -> Iterator[Finding]:
    """Give the dates that only the word before tells from other numbers."""
    for found in _BARE.finditer(text):
        digits = found.group().replace(" ", "")
        if _is_led(text, found.start()) and (
            _calendar(digits[6:], digits[4:6], digits[:4]) or _calendar(digits[:2], digits[2:4], digits[4:])
        ):
            yield Finding("DATE_TIME", *found.span(), 0.7, NAME)
    for found in _SHORT.finditer(text):
        if _is_led(text, found.start()):
            one, two = (int(part) for part in _SPLIT.split(found.group())[:2])
            if 0 < min(one, two) <= 12 and max(one, two) <= 31:
                yield Finding("DATE_TIME", *found.span(), 0.5, NAME)


def _is_led(text: str, start: int) -> bool:
    return not _LEADING.isdisjoint(_WORD.findall(text[max(0, start - 24) : start].lower())[-2:])


def _calendar(first: str, second: str, year: str) -> bool:
    one, two = int(first), int(second)
    return 1 <= one <= 31 and 1 <= two <= 31 and min(one, two) <= 12 and (len(year) == 2 or 1800 <= int(year) <= 2199)


def _attached(text: str, start: int) -> bool:
    return start > 0 and (
        text[start - 1].isalpha() or (text[start - 1] in ".-/+" and text[start - 2 : start - 1].isalnum())
    )
