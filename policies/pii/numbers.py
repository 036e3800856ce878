r"""Identifiers of digits, or of letters and digits: one pass over the digits of a text, each looked at where it stands.

text -> chains of digits (`+49 (30) 12-34\n56`) -> cards across all of a chain -> segments of one line
text -> words of letters and digits at a chain's ends (`lettered`)
each -> what checksum, way of writing and the words near it say -> the likeliest, or nothing
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.pii import phones, postcodes
from policies.pii.banking import bics
from policies.pii.checks import card_network, luhn_valid
from policies.pii.contexts import Near
from policies.pii.findings import PROVEN, Finding
from policies.pii.identifiers import (
    CALLED,
    FAR,
    NAMED,
    UNMISTAKABLE,
    US_PASSPORT,
    Number,
    Reading,
    called,
    goes_on,
    prefix,
)
from policies.pii.lettered import insured, look_at
from policies.pii.national import NUMBERS, NUMBERS_BY_LENGTH, TOKENS

NAME = "numbers"
_CHAIN = re.compile(
    r"[0-9]++(?:(?:[ \t]{0,2}[-./()\\]{1,2}[ \t]{0,2}[(]?|[ \t]{1,3}[(]?|[ \t]{0,2}-?\r?\n[ \t>]{0,2})[0-9]++){0,20}+"
)
_GROUP = re.compile(r"[0-9]+")
_LINE = re.compile(r"\n|\t|[ \t]{3}| [-/\\] |[.] |\\|\)\(")
"""What ends a number, unless it is a card's."""
_SHAPE_MARKS = ("-", ".", "/", "\\")
_CARD_GROUPS = re.compile(r"1[0-9]|4[-_.](?:[2-6][-_.]){1,3}[1-6]")
_CARD_SHAPES = frozenset({"4-4-4-4", "4_4_4_4", "4.4.4.4", "4-6-5", "4_6_5", "4-6-4", "4_6_4", "16"})
_ALONE = (False, False)
_FEWEST_DIGITS = 3
_CARD_CHARS = 12
_MOST_DIGITS = 20
_FARTHEST = 5


class Numbers:
    """All identifiers that have digits, but those of the internet, dates and secrets."""

    entities = (
        frozenset({"CREDIT_CARD", "PHONE_NUMBER", "FAX_NUMBER", "IBAN_CODE", "SWIFT_CODE", "CRYPTO", "ZIP_CODE"})
        | {US_PASSPORT, *(number.entity for number in NUMBERS), *(token.entity for token in TOKENS)}
        | {named.entity for named in NAMED.values()}
    )

    def find(self, text: str) -> Iterator[Finding]:
        """Give the likeliest for each place; a card may lie across others, for the detector to settle."""
        near = Near(text)
        reached = 0
        for chain in _CHAIN.finditer(text):
            start, end = chain.span()
            joined = start > 0 and text[start - 1].isalpha(), text[end : end + 1].isalpha()
            if end <= reached or (end - start < _FEWEST_DIGITS and joined == _ALONE):
                continue
            groups = [group.span() for group in _GROUP.finditer(text, start, end)]
            if joined != _ALONE:
                found: list[Finding] = []
                reached, groups = _at_the_ends(near, groups, reached, found)
                yield from found
            if groups:
                yield from _of_groups(near, groups)
        if "bic" in text.lower() or "swift" in text.lower():
            for span in bics(text):
                yield Finding("SWIFT_CODE", *span, PROVEN, NAME)


def _at_the_ends(
    near: Near, groups: list[tuple[int, int]], reached: int, found: list[Finding]
) -> tuple[int, list[tuple[int, int]]]:
    """Look at the words that a chain's first and last groups are part of; give how far, and the other groups."""
    text, start, end = near.text, groups[0][0], groups[-1][1]
    if start and text[start - 1].isalpha():
        reached = look_at(near, start, found)
    groups = [span for span in groups if span[0] >= reached]
    if text[end : end + 1].isalpha() and end > reached:
        extension = phones.EXTENSION.match(text, end) if end - start >= phones.SHORT_DIGITS else None
        reached = extension.end() if extension else look_at(near, end - 1, found)
        groups = groups if extension else groups[:-1]
    return reached, [span for span in groups if not any(f.start < span[1] and span[0] < f.end for f in found)]


def _of_groups(near: Near, groups: list[tuple[int, int]]) -> Iterator[Finding]:
    """Look at the groups of one chain: cards over all of it, else what each part on a line is."""
    text = near.text
    if groups[-1][1] - groups[0][0] >= _CARD_CHARS:
        cards = list(_cards(near, groups))
        yield from cards
        for card in cards:
            groups = [span for span in groups if span[1] <= card.start or span[0] >= card.end]
    first = 0
    for index in range(1, len(groups) + 1):
        if index == len(groups) or _LINE.search(text, groups[index - 1][1], groups[index][0]) or _gap(groups, index):
            found = _of_number(near, _number(text, groups[first:index]))
            if found is not None:
                yield found
            first = index


def _gap(groups: list[tuple[int, int]], index: int) -> bool:
    return groups[index][0] - groups[index - 1][1] > _FARTHEST


def _number(text: str, groups: list[tuple[int, int]]) -> Number:
    shape, digits, last = "", "", groups[0][0]
    for start, end in groups:
        if start > last:
            mark = text[last:start].strip()
            shape += mark[0] if mark[:1] in _SHAPE_MARKS else "_"
        shape += str(end - start)
        digits += text[start:end]
        last = end
    return Number(groups[0][0], last, digits, shape)


def _cards(near: Near, groups: list[tuple[int, int]]) -> Iterator[Finding]:
    """Find runs of groups that are a card's number. A number that a word calls a card may be of any network."""
    text, index = near.text, 0
    while index < len(groups):
        for last in range(min(len(groups), index + 8), index, -1):
            digits = "".join(text[start:end] for start, end in groups[index:last])
            if not 12 <= len(digits) <= 19:
                continue
            start, end = groups[index][0], groups[last - 1][1]
            score = _card(near, start, end, digits, _number(text, groups[index:last]).shape)
            if score:
                yield Finding("CREDIT_CARD", start, end, score, NAME)
                index = last - 1
                break
        index += 1


def _card(near: Near, start: int, end: int, digits: str, shape: str) -> float:
    text = near.text
    whole = not (start and text[start - 1].isalpha()) and not text[end : end + 1].isalpha()
    if not whole:
        return 0.0
    valid = luhn_valid(digits)
    if valid and card_network(digits) and _CARD_GROUPS.fullmatch(shape):
        return 1.0
    if not valid and shape not in _CARD_SHAPES:
        return 0.0
    named = near.around(start, end).get("card", FAR) <= 5
    return (0.9 if valid else 0.6) if named else 0.0


def _of_number(near: Near, number: Number) -> Finding | None:
    text, count = near.text, len(number.digits)
    if count < _FEWEST_DIGITS or count > _MOST_DIGITS:
        return None
    topics = near.around(number.start, number.end)
    if count == 6 and (written := insured(text, number)):
        return written
    best, key = _postcode(text, number), 0.5
    for score, entity, rank in _readings(text, number, topics):
        if rank > key or best is None:
            start = prefix(text, number.start) if rank > 1 else number.start
            best, key = Finding(entity, start, number.end, score, NAME), rank
    phone = phones.read(text, number, topics)
    if phone is not None and (best is None or phone[1] > key):
        return phone[0]
    return best


def _readings(text: str, number: Number, topics: dict[str, float]) -> Iterator[Reading]:
    """Give what a number of digits can be, as (score, entity, rank)."""
    for rule in NUMBERS_BY_LENGTH.get(len(number.digits), ()):
        away = min((topics.get(topic, FAR) for topic in rule.topics), default=FAR)
        shaped = number.shape in rule.shapes
        if (away < FAR or (rule.alone and shaped)) and rule.valid(number.digits):
            if away < FAR:
                yield rule.named, rule.entity, CALLED + rule.worth - away
            elif not goes_on(text, number) and (rule.alone >= PROVEN or topics.get("not_personal", FAR) > 1):
                yield rule.alone, rule.entity, UNMISTAKABLE if rule.alone >= PROVEN else rule.alone
    yield from called(number.digits, text[prefix(text, number.start) : number.end], topics)


def _postcode(text: str, number: Number) -> Finding | None:
    score = postcodes.american(text, number.start, number.digits, number.shape)
    return Finding("ZIP_CODE", number.start, number.end, score, NAME) if score else None
