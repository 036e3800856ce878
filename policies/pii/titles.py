"""Titles: what stands before a name (Mr., Dr., Frau), and jobs beside one; a job alone names nobody."""

from __future__ import annotations

from policies.pii.spans import PERSON, TITLE, Span
from policies.pii.words import Words

_BEFORE_NAMES = frozenset(
    """
    mr mrs ms miss mx dr prof professor sir madam rev reverend hon capt captain lt sgt sergeant col colonel gen
    maj herr frau monsieur madame mademoiselle mme mlle señor señora sr sra doña dott dottor dottore dottoressa
    sig signor signora ing avv dhr mevr mevrouw meneer drs senhor senhora dra herrn fru κύριος κυρία господин
    госпожа
    """.split()  # noqa: SIM905
)
_ALWAYS = frozenset({"mr", "mrs", "ms", "dr", "prof"})
_BESIDE = 3
_LABELS = frozenset(
    """
    position occupation title job profession role beruf tätigkeit poste fonction puesto cargo professione ruolo
    functie beroep
    """.split()  # noqa: SIM905
)
_MOST_NAMES = 3
_MOST_BETWEEN = 4
"""Dots, and further titles."""
_SURE = 0.95
_PARTICLES = frozenset("van von de der den di da del la el al bin ten ter dos du le".split())  # noqa: SIM905


def with_titles(words: Words, found: list[Span], small: bool) -> list[Span]:
    """Add the titles before names, and the names behind titles; leave out jobs that stand beside nobody.

    `small`: the text has no capitals, so names have none.
    """
    kept = [span for span in found if span.tag != TITLE]
    taken = {at: span for span in kept for at in range(span.first, span.last + 1)}
    titles: list[Span] = []
    for at, low in enumerate(words.lows):
        if low not in _BEFORE_NAMES or (at in taken and taken[at].tag != PERSON):
            continue
        named = _name_behind(words, at, small) if words.texts[at][0].isupper() or (small and low in _ALWAYS) else None
        if named is None:
            continue
        titles.append(Span(TITLE, at, at + (words.texts[at + 1 : at + 2] == ["."]), _SURE))
        if not any(each in taken for each in range(named[0], named[1] + 1)):
            kept.append(Span(PERSON, *named, _SURE))
    jobs = [span for span in found if span.tag == TITLE and _beside_somebody(words.lows, span, taken)]
    names = [_without(span, titles) for span in kept]
    return sorted([*names, *titles, *_apart(jobs, titles)], key=lambda span: span.first)


def _name_behind(words: Words, at: int, small: bool) -> tuple[int, int] | None:
    first = at + 1
    while (
        first <= at + _MOST_BETWEEN
        and first < len(words.texts)
        and (words.texts[first] in (".", "-") or words.lows[first] in _ALWAYS)
    ):
        first += 1
    last = first - 1
    for each in range(first, min(first + _MOST_NAMES, len(words.texts))):
        text = words.texts[each]
        if not text[0].isalpha() or not (text[0].isupper() or text in _PARTICLES or (small and each == first)):
            break
        last = each
    return (first, last) if last >= first else None


def _without(span: Span, titles: list[Span]) -> Span:
    """Let a name begin behind the title it was taken together with."""
    for title in titles:
        if title.first == span.first and span.last > title.last:
            return Span(span.tag, title.last + 1, span.last, span.score)
    return span


def _beside_somebody(lows: list[str], span: Span, taken: dict[int, Span]) -> bool:
    for at in (*range(span.first - _BESIDE, span.first), *range(span.last + 1, span.last + 1 + _BESIDE)):
        if at in taken and taken[at].tag == PERSON:
            return True
    return not _LABELS.isdisjoint(lows[max(0, span.first - _BESIDE) : span.first])


def _apart(spans: list[Span], others: list[Span]) -> list[Span]:
    taken = {at for span in others for at in range(span.first, span.last + 1)}
    return [span for span in spans if taken.isdisjoint(range(span.first, span.last + 1))]
