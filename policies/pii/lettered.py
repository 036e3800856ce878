"""Identifiers of letters and digits: `12345678Z`, `GB29NWBK...`, `AB 12 34 56 C`, a VIN, a postcode, a wallet."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stdnum.it import codicefiscale

from policies.pii import postcodes
from policies.pii.banking import IBAN_CHARS, crypto, iban_at
from policies.pii.contexts import Near
from policies.pii.findings import PROVEN, Finding
from policies.pii.identifiers import CALLED, FAR, UNMISTAKABLE, Number, Reading, called
from policies.pii.national import TOKENS

NAME = "numbers"
_WORD_CHARS = 64
_WORD = re.compile(rf"[0-9A-Za-z]{{1,{_WORD_CHARS}}}+")
_MORE = re.compile(r"(?:[-./][0-9A-Za-z]{1,24}+){0,8}+")
_BEFORE = re.compile(r"(?<![0-9A-Za-z])(?:[0-9A-Za-z]{1,24}[-./]){1,4}\Z")
_MARKS = re.compile(r"[^0-9A-Za-z]+")
_NINO_BEFORE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ -]?\Z")
_NINO_AFTER = re.compile(r"[ -]?[A-Da-d](?![A-Za-z0-9])")
_FISCAL = re.compile(r"[A-Z]{3} ?[A-Z]{3} ?[0-9]{2}[A-Z][0-9]{2} ?[A-Z][0-9]{3} ?[A-Z](?![A-Za-z0-9])", re.IGNORECASE)
_WALLET_CHARS = 26


def look_at(near: Near, place: int, found: list[Finding]) -> int:
    """Look at the word of letters and digits around `place`; give where what was looked at ends."""
    text, start = near.text, place
    while start > 0 and place - start < _WORD_CHARS and text[start - 1].isalnum() and text[start - 1].isascii():
        start -= 1
    whole = _WORD.match(text, start)
    end = max(whole.end() if whole else place + 1, place + 1)
    if end - start >= _WORD_CHARS:
        run = end
        while run < len(text) and text[run].isalnum():
            run += 1
        return run
    best = _word(near, start, end)
    if best is not None:
        found.append(best)
        return max(end, best.end)
    return end


def _word(near: Near, start: int, end: int) -> Finding | None:
    """Say what a word of letters and digits is: proven shapes first, then what the words near it call it."""
    return _written_with_spaces(near, start, end) or _joined(near, start, end)


def _written_with_spaces(near: Near, start: int, end: int) -> Finding | None:
    """Read what may go on behind a space: IBAN, Italian fiscal code, postcode; and wallets, which have no marks."""
    text = near.text
    upper = text[start:end].upper()
    if upper[:2] in IBAN_CHARS and upper[2:4].isdigit():
        iban = iban_at(text, start, "account" in near.around(start, start))
        if iban is not None:
            return Finding("IBAN_CODE", start, iban[0], iban[1], NAME)
    fiscal = _FISCAL.search(text, max(0, start - 8), start + 28) if end - start == 5 and upper[2].isalpha() else None
    if fiscal is not None and codicefiscale.is_valid(fiscal.group()):
        return Finding("IT_FISCAL_CODE", *fiscal.span(), 1.0, NAME)
    if end - start >= _WALLET_CHARS and crypto(text[start:end]):
        return Finding("CRYPTO", start, end, 1.0, NAME)
    first = postcodes.lettered(text, start)
    if first:
        return Finding("ZIP_CODE", start, first, 0.6, NAME)
    return None


def _joined(near: Near, start: int, end: int) -> Finding | None:
    """Read a word with all that marks join to it, and alone."""
    text = near.text
    before = _BEFORE.search(text, max(0, start - 48), start)
    after = _MORE.match(text, end)
    joined = before.start() if before else start, after.end() if after else end
    topics = near.around(*joined)
    best: Finding | None = None
    key = 0.0
    for span in dict.fromkeys((joined, (start, end))):
        compact = _MARKS.sub("", text[span[0] : span[1]]).upper()
        written = text[span[0] : span[1]].upper()
        for score, entity, rank in (*_tokens(compact, written, topics), *called(compact, written, topics)):
            if rank > key:
                best, key = Finding(entity, *span, score, NAME), rank
    return best


def _tokens(compact: str, written: str, topics: dict[str, float]) -> Iterator[Reading]:
    if not 8 <= len(compact) <= 17:
        return
    for rule in TOKENS:
        token = written if rule.entity == "FI_HETU" else compact
        if rule.shape.fullmatch(token) is None:
            continue
        away = min((topics.get(topic, FAR) for topic in rule.topics), default=FAR)
        if (away < FAR or rule.alone) and rule.valid(token):
            if away < FAR:
                yield rule.named, rule.entity, CALLED + rule.worth - away
            else:
                yield rule.alone, rule.entity, UNMISTAKABLE if rule.alone >= PROVEN else rule.alone


def insured(text: str, number: Number) -> Finding | None:
    """Read a British national insurance number that is written in groups: `AB 12 34 56 C`."""
    before = _NINO_BEFORE.search(text, max(0, number.start - 4), number.start)
    after = _NINO_AFTER.match(text, number.end)
    if before is None or after is None:
        return None
    written = _MARKS.sub("", text[before.start() : after.end()]).upper()
    if not any(rule.entity == "UK_NINO" and rule.shape.fullmatch(written) for rule in TOKENS):
        return None
    return Finding("UK_NINO", before.start(), after.end(), 0.95, NAME)
