"""Which groups of digits are telephone numbers, where no country is known.

A number with a plus is phonenumbers' to judge. Of all others the way it is written decides: brackets, a trunk zero,
the groups of North America or three pairs and more with marks stand alone; anything else needs a word near it.
"""

from __future__ import annotations

import re

import phonenumbers

from policies.pii.contexts import after
from policies.pii.findings import PROVEN, Finding
from policies.pii.identifiers import CALLED, FAR, UNMISTAKABLE, Number, goes_on, part_of_code

NAME = "numbers"
MIN_DIGITS, SHORT_DIGITS, MAX_DIGITS = 6, 7, 15
EXTENSION = re.compile(
    r"[ \t]{0,2}(?:x|ext\.?|extension|poste|durchwahl|#)[ \t]{0,2}:?[0-9]{1,7}(?![0-9A-Za-z])", re.IGNORECASE
)
_NORTH_AMERICA = re.compile(r"(?:(?:1|001)[-._])?\(?3\)?[-._/]*3[-._]4|(?:(?:1|001)[-._])3[-._]?3[-._]?4")
_PAIRS = re.compile(r"[23]([-.])2(?:(?:\1)2){2,4}")
_AMOUNT = re.compile(r"[123](?:_3)+|[123](?:\.3)+")
_DECIMALS = re.compile(r"1\.")
_ROUND = re.compile(r"[1-9][0-9]?0{5,}|([0-9])\1+")
_WITH_COUNTRY = 11
_TRUNK = re.compile(r"0[1-9][0-9]{8,9}")
_MANY = re.compile(r"(?!3-2-4)[1-5](?:[-_./]+[2-5]){2,5}")


_MONEY = frozenset("$€£¥₹")
_UNIT = re.compile(
    r" ?(?:[$€£¥₹%°]|(?:USD|EUR|GBP|CHF|euros?|dollars?|percent|million|billion|km|kg|mm|cm|MB|GB|KB|ms|mg|ml|rows|"
    r"times)\b)"
)
_TWO_GROUPS = re.compile(r"[0-9]_[0-9]")
_BEFORE_A_WORD = re.compile(r" [^\W\d_]")


def international(number: str) -> float:
    """Say how sure `+...` is one: 0.95 where such a number can be assigned, 0.6 where only its length fits."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return 0.0
    if phonenumbers.is_valid_number(parsed):
        return 0.95
    return 0.6 if phonenumbers.is_possible_number(parsed) else 0.0


def national(digits: str, shape: str, bracketed: bool) -> float:
    """Say how sure a number is one that no word near it calls a telephone number; 0: not at all.

    `shape` gives the lengths of its groups with what stands between them, `_` for a space: `3-3-4`.
    """
    if not SHORT_DIGITS <= len(digits) <= MAX_DIGITS:
        return 0.0
    if digits.startswith("00") and len(digits) >= _WITH_COUNTRY:
        return international("+" + digits[2:])
    if shape.isdigit():
        return 0.5 if _TRUNK.fullmatch(digits) else 0.0
    if _NORTH_AMERICA.fullmatch(shape) and digits[-10] != "0":
        return 0.75
    if bracketed:
        return 0.7
    if _DECIMALS.match(shape) or shape.count("/") > 1:
        return 0.0
    if len(digits) >= 8 and digits[0] == "0" and digits[1] != "0":
        return 0.65 if len(digits) <= 12 else 0.0
    if _PAIRS.fullmatch(shape):
        return 0.6
    if _AMOUNT.fullmatch(shape):
        return 0.0
    return 0.5 if _MANY.fullmatch(shape) and 8 <= len(digits) <= 13 else 0.0


def named(digits: str, shape: str) -> float:
    """Say how sure a number is one that a word near it calls a telephone number."""
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS:
        return 0.0
    if shape.isdigit():
        return 0.0 if _ROUND.fullmatch(digits) else 0.7 if len(digits) >= SHORT_DIGITS else 0.4
    return 0.8


def read(text: str, number: Number, topics: dict[str, float]) -> tuple[Finding, float] | None:
    """Read a telephone or fax number, with its plus, bracket and extension."""
    if len(number.digits) < MIN_DIGITS:
        return None
    start, end = number.start, number.end
    bracketed = start > 0 and text[start - 1] == "(" and ")" in text[start:end]
    start -= bracketed
    away = _called(text, number, topics)
    plus = start > 0 and text[start - 1] == "+"
    start -= plus
    extension = EXTENSION.match(text, end)
    end = extension.end() if extension else end
    score = international("+" + number.digits) if plus else 0.0
    if not score and away < topics.get("not_personal", FAR) and not part_of_code(text, number.start):
        score = named(number.digits, number.shape)
        score = min(score, 0.65) if _BEFORE_A_WORD.match(text, end) and not after(text, end) else score
    if not score and plus and len(number.digits) >= SHORT_DIGITS and not number.shape.isdigit():
        score = 0.5
    rank = CALLED - away if away < FAR else score
    if not score and topics.get("not_personal", FAR) > 2 and not _measured(text, start, end):
        score = 0.0 if goes_on(text, number) else national(number.digits, number.shape, bracketed)
        score, rank = (0.7, 0.7) if extension and not score and "x" in extension.group().lower() else (score, score)
    if not score:
        return None
    entity = "FAX_NUMBER" if topics.get("fax", FAR) < topics.get("phone", FAR) else "PHONE_NUMBER"
    return Finding(entity, start, end, score, NAME), max(rank, UNMISTAKABLE + 0.5 if plus and score >= PROVEN else rank)


def _called(text: str, number: Number, topics: dict[str, float]) -> float:
    """Say how many words away something calls it a telephone number; `call` and the like count only for some."""
    away, weakly = min(topics.get("phone", FAR), topics.get("fax", FAR)), topics.get("call", FAR)
    if number.shape.isdigit():
        away, weakly = away if away <= 4 else FAR, weakly if weakly <= 2 else FAR
    if (
        len(number.digits) < SHORT_DIGITS
        and _TWO_GROUPS.fullmatch(number.shape)
        and _BEFORE_A_WORD.match(text, number.end)
    ):
        behind = after(text, number.end)
        weakly = weakly if "call" in behind or "phone" in behind or "fax" in behind else FAR
    return min(away, weakly)


def _measured(text: str, start: int, end: int) -> bool:
    """Say whether this is an amount."""
    before = text[max(0, start - 2) : start].rstrip()
    return before[-1:] in _MONEY if before and _UNIT.match(text, end) is None else _UNIT.match(text, end) is not None
