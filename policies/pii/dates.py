"""Dates with the name of a month in many languages, weekdays, and ages. Dates in digits are `numeric_dates`.

A year alone is no finding: it names nobody, and what is generalised to a year must stay. Ages are found by the words
around them ("aged 94", "94-year-old", "93 Jahre alt"); a number alone is never one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.pii.findings import Finding
from policies.pii.words import Words

_MONTHS = frozenset(
    """
    january february march april may june july august september october november december jan feb mar apr jun jul
    aug sept sep oct nov dec januar jänner februar märz mai juni juli oktober dezember mär okt dez janvier février
    mars avril juin juillet août septembre octobre novembre décembre janv févr juil déc enero febrero marzo abril
    mayo junio julio agosto septiembre setiembre octubre noviembre diciembre gennaio febbraio aprile maggio giugno
    luglio settembre ottobre dicembre januari februari maart mei augustus janeiro fevereiro março maio junho julho
    setembro outubro dezembro stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października
    listopada grudnia augusti oktober marts maj ledna února března dubna května června července srpna září října
    listopadu prosince января февраля марта апреля мая июня июля августа сентября октября ноября декабря
    ιανουαρίου φεβρουαρίου μαρτίου απριλίου μαΐου ιουνίου ιουλίου αυγούστου σεπτεμβρίου οκτωβρίου νοεμβρίου
    δεκεμβρίου
    """.split()  # noqa: SIM905
)
_MONTH = "(?:" + "|".join(sorted(_MONTHS, key=lambda name: (-len(name), name))) + r")\b\.?"
_YEAR = r"(?:1[6-9]|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_CLOCK = (
    r"(?:[T ,]{1,2}(?:at )?[0-2]?\d:[0-5]\d(?::[0-5]\d(?:[.,]\d{1,9})?)?(?: ?[ap]\.?m\b\.?)?(?:Z|[+-]\d\d:?\d\d)?)?"
)
_WORDS = re.compile(
    rf"(?<!\w)(?:{_DAY}(?:st|nd|rd|th|er|º|ª)?\.?(?: of| de|[- ])? ?{_MONTH}"
    rf"(?:,?[- ](?:de )?{_YEAR}\b| '\d\d\b)?{_CLOCK}"
    rf"|{_MONTH} {_DAY}(?:st|nd|rd|th)?\b(?:,? {_YEAR}\b)?{_CLOCK}"
    rf"|{_MONTH},? (?:de )?{_YEAR}\b)(?!\w)",
    re.IGNORECASE,
)
_WEEKDAYS = frozenset(
    """
    monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays
    saturdays sundays montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag
    """.split()  # noqa: SIM905
)
_AGED_BEFORE = re.compile(
    r"(?<!\w)(?:aged?(?: about)?|at the age of|(?:age|alter|edad|età)[:=]|turned|turning)\s{1,3}\Z",
    re.IGNORECASE,
)
_UNIT_BEHIND = re.compile(r"[\w:/%$€£-]|[.,]\d")
_AGED_BEHIND = re.compile(
    r"(?:[- ]years?[- ](?:olds?|aged)|[- ]?y/?o|[- ]yrs?\.?[- ]old| years of age|[- ]months?[- ]old"
    r"|[- ]?jährig(?:e[rnms]?)?| Jahre alt| ans(?=[ ,.;)]|$)(?! (?:de|d'))| años(?! (?:de|que))| anni(?! (?:di|fa))"
    r"| anos(?! de)| jaar oud| lat(?=[ ,.;)]|$)| år gammal| år gammel| vuotta vanha| лет)(?!\w)",
    re.IGNORECASE,
)
_BEING_BEFORE = re.compile(r"(?:\b(?:am|is|are|was|turned|be)|['’]m) \Z")
_BEING_BEHIND = re.compile(r" (?:and|years|now|today)\b")
_OLDEST, _DIGITS = 119, 3
_VERBS = frozenset({"may", "march", "mars"})
_BEFORE_CHARS, _AFTER_CHARS = 14, 48


def dates(text: str, found: Words, vocabulary: set[str]) -> Iterator[Finding]:
    """Give the days, and the months of a year, that are named, and weekdays. `vocabulary`: all words, in lower case."""
    for at in _places(found, _WEEKDAYS & vocabulary):
        yield Finding("DATE_TIME", found.starts[at], found.ends[at], 0.5, "weekdays")
    reached = 0
    for at in _places(found, _MONTHS & vocabulary):
        start, end = found.starts[at], found.ends[at]
        if start < reached:
            continue
        for date in _WORDS.finditer(text, max(reached, start - _BEFORE_CHARS), end + _AFTER_CHARS):
            is_verb = found.lows[at] in _VERBS and _reads_as_verb(date.group())
            if date.start() <= start < date.end() and not is_verb:
                reached = date.end()
                yield Finding("DATE_TIME", *date.span(), 0.8, "dates")


def _places(found: Words, named: set[str] | frozenset[str]) -> list[int]:
    return [at for at, low in enumerate(found.lows) if low in named] if named else []


def _reads_as_verb(date: str) -> bool:
    """`may 5 times`: a small letter first, and no year."""
    return date[0].islower() and not date[-2:].isdigit()


def ages(text: str, found: Words) -> Iterator[Finding]:
    """Give ages up to 119, by the words around them; only the number is the finding."""
    for at, word in enumerate(found.texts):
        if word[0].isdigit() and len(word) <= _DIGITS and word.isdecimal() and int(word) <= _OLDEST:
            start, end = found.starts[at], found.ends[at]
            score = _age_score(text, start, end)
            if score:
                yield Finding("AGE", start, end, score, "ages")


def _age_score(text: str, start: int, end: int) -> float:
    low = max(0, start - _BEFORE_CHARS - 2)
    if _AGED_BEHIND.match(text, end) and not text[start - 1 : start].isalnum():
        return 0.8
    before = text[low:start]
    if _AGED_BEFORE.search(before) and not _UNIT_BEHIND.match(text, end):
        return 0.8
    return 0.6 if end - start > 1 and _BEING_BEHIND.match(text, end) and _BEING_BEFORE.search(before) else 0.0
