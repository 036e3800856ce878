"""Addresses: a street, and the house, unit, postcode, city, region and country around it, are one finding."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.pii.findings import Finding
from policies.pii.spans import ADDRESS, LOCATION, Span
from policies.pii.words import Words

_MARKS = frozenset(",.-–>?*|;'’")
_MOST_MARKS = 4
_MOST_NUMBERS = 2
_LONGEST_NUMBER = 5
_MILITARY = re.compile(
    r"(?:(?:psc|unit|cmr) \d{1,5},? ?box \d{1,6}|(?:uss|usns|uscgc|usnv) [^\W\d_]{1,40})"
    r"\s{1,3}(?:apo|fpo|dpo),? (?:aa|ae|ap) \d{5}",
    re.IGNORECASE,
)
_BOX = re.compile(
    r"(?<!\w)(?:p\.? ?o\.? ?box|post office box|postfach|boîte postale|apartado(?: de correos)?|casella postale"
    r"|postbus|caixa postal|skrytka pocztowa|box)[ :#]{1,2}(?:\d{2,6}|\d{1,3} \d{2,3})(?!\w)",
    re.IGNORECASE,
)
_STREETS = frozenset(
    {"street", "st", "avenue", "ave", "road", "rd", "lane", "drive", "boulevard", "blvd", "close", "terrace"}
)
_BOX_WORDS = frozenset({"box", "postfach", "postale", "apartado", "postbus", "postal", "skrytka", "apo", "fpo", "dpo"})


def boxes(text: str, vocabulary: set[str]) -> Iterator[Finding]:
    """Give post boxes, and addresses of armed forces whole: they have words that nothing else has."""
    if _BOX_WORDS.isdisjoint(vocabulary):
        return
    for found in _MILITARY.finditer(text):
        yield Finding("ADDRESS", *found.span(), 0.9, "boxes")
    for found in _BOX.finditer(text):
        yield Finding("ADDRESS", *found.span(), 0.4 if found.group()[:3].lower() == "box" else 0.8, "boxes")


def whole_addresses(words: Words, found: list[Span]) -> list[Span]:
    """Join the parts of each address; a number that stands before one belongs to it. A number alone is no address."""
    out: list[Span] = []
    last_part = -1
    for span in found:
        before = out[-1] if out else None
        if span.tag == LOCATION and words.lows[span.last] in _STREETS:
            span = Span(ADDRESS, span.first, span.last, span.score)
        if span.tag == ADDRESS:
            span = _with_numbers_before(words, span, before.last if before else -1)
        if before is not None and _continues(words, before, last_part, span):
            out[-1] = Span(ADDRESS, before.first, span.last, max(before.score, span.score))
        else:
            out.append(span)
        last_part = span.tag
    return [span for span in out if span.tag != ADDRESS or not _only_numbers(words, span)]


def _continues(words: Words, before: Span, last_part: int, after: Span) -> bool:
    """Say whether `after` belongs to the address `before`, which ends with a `last_part`.

    Behind a city or country comes no street of the same address, only a postcode.
    """
    if after.tag == LOCATION:
        return before.tag == ADDRESS and _near(words, before, after)
    if after.tag != ADDRESS or before.tag not in (ADDRESS, LOCATION):
        return False
    return (last_part == ADDRESS or _is_postcode(words, after)) and _near(words, before, after)


def _is_postcode(words: Words, span: Span) -> bool:
    """A number, on a line of its own only when it is too long for a house's."""
    if not _only_numbers(words, span):
        return False
    begins_line = span.first > 0 and words.texts[span.first - 1][0] == "\n"
    return not begins_line or len(words.texts[span.first]) >= _LONGEST_NUMBER


def _near(words: Words, before: Span, after: Span) -> bool:
    between = words.texts[before.last + 1 : after.first]
    return len(between) <= _MOST_MARKS and all(text[0] in _MARKS or text[0] == "\n" for text in between)


def _with_numbers_before(words: Words, span: Span, after: int) -> Span:
    first = span.first
    lowest = max(after, first - 1 - _MOST_NUMBERS)
    while first - 1 > lowest and words.texts[first - 1].isdigit() and len(words.texts[first - 1]) <= _LONGEST_NUMBER:
        first -= 1
    return Span(span.tag, first, span.last, span.score)


def _only_numbers(words: Words, span: Span) -> bool:
    inside = words.texts[span.first : span.last + 1]
    return all(not text.isalpha() or (text.isupper() and len(text) <= _MOST_NUMBERS) for text in inside)
