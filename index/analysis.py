"""Text into the terms that keyword search counts: folding, words, identifiers, stop words, stems.

Milvus indexes what `analyse` returns with its `standard` analyzer, which splits at whatever is no letter and no
digit. Every term therefore consists of letters and digits only, so that each one is indexed as it stands, on
Milvus Lite and on a Milvus server alike. Questions and passages go through the same function.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import Stemmer

ANALYSIS_VERSION = 1
"""To be raised with any change of the terms: rows analysed under another version have to be written anew."""
MAX_TERM_CHARS = 40
"""Longer terms are cut: Milvus servers drop terms over 40 bytes from some analyzers, and nobody types them."""

# The Snowball project's English list (https://snowballstem.org/algorithms/english/stop.txt) without apostrophes,
# and without the contractions that are words of their own then (hell, ill, well).
_ENGLISH_STOP_WORDS = """
    i me my myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
    it its itself they them their theirs themselves what which who whom this that these those am is are was were be
    been being have has had having do does did doing would should could ought im youre hes shes theyre ive youve weve
    theyve youd hed theyd youll theyll isnt arent wasnt werent hasnt havent hadnt doesnt dont didnt wouldnt shant
    shouldnt cannot couldnt mustnt lets thats whos whats heres theres whens wheres whys hows a an the and but if or
    because as until while of at by for with about against between into through during before after above below to
    from up down in out on off over under again further then once here there when where why how all any both each few
    more most other some such no nor not only own same so than too very s t d ll m re ve
"""
STOP_WORDS = frozenset(_ENGLISH_STOP_WORDS.split())

# Scripts written without spaces, as ranges of a character class: Thai, Lao, Myanmar, Khmer, kana, Han, Hangul.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Letters and digits; Indic vowel signs belong to the word although `\w` does not count them.
_LETTER = f"(?:[^\\W_{_UNSPACED}]|[\u0900-\u0963\u0966-\u0dff])"
_WORD = re.compile(
    rf"[a-z](?:\+\+|\#)(?!\w)"  # C++, C#
    rf"|[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])"  # 1,234,567
    rf"|{_LETTER}+(?:[-.@_'\u2019\u2010&]{_LETTER}+)*"  # words, and what joins them: e-mail, ISO-27001, a.b@c.org
    rf"|[{_UNSPACED}]+"
)
_ASCII_WORD = re.compile(
    r"[a-z](?:\+\+|\#)(?![a-z0-9_])|[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[a-z0-9]+(?:[-.@_'&][a-z0-9]+)*"
)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]")
_JOINT = re.compile("[-.@_'\u2019\u2010&]")
_POINT = re.compile(r"(?<=[0-9])\.(?=[0-9])")
_LETTERS_THEN_DIGITS = re.compile(r"([^\W\d_]{2,})([0-9]{2,})")
# Accents, Hebrew and Arabic points, the Arabic stretch mark, soft hyphens and zero-width characters.
_DROPPED = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0640\u064b-\u065f\u0670\u00ad\u200b-\u200f\ufeff]")
_UNDECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})


def analyse(text: str) -> str:
    """The text's terms in order, joined with spaces; empty for a text without a word that counts.

    A joined expression gives its parts and itself: `ISO-27001` becomes `iso 27001 iso27001`, so that it is found
    as `ISO 27001`, `ISO-27001` and `ISO27001`. Scripts written without spaces become overlapping pairs.
    """
    folded = fold(text)
    pattern = _ASCII_WORD if folded.isascii() else _WORD
    terms: list[str] = []
    for word in pattern.findall(folded):
        if word in STOP_WORDS:
            continue
        if word.isalpha() and word.isascii():
            terms.append(word[:MAX_TERM_CHARS])
        else:
            terms.extend(term[:MAX_TERM_CHARS] for term in _terms(word) if term not in STOP_WORDS)
    # The English stemmer only knows Latin suffixes: other scripts pass through it unchanged.
    return " ".join(Stemmer.Stemmer("english", 0).stemWords(terms))


def fold(text: str) -> str:
    """Compatibility forms, case and accents removed: `Ｅ-Mail`, `é` and `ß` become `e-mail`, `e` and `ss`."""
    if text.isascii():
        return text.lower()
    bare = _DROPPED.sub("", unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold()))
    return unicodedata.normalize("NFC", bare).translate(_UNDECOMPOSED)


def _terms(word: str) -> Iterator[str]:
    """The terms of one match of `_WORD` that is no plain word."""
    if _UNSPACED_RUN.match(word):
        pairs = [word[place : place + 2] for place in range(len(word) - 1)] or [word]
        yield from (_letters_and_digits(pair) for pair in pairs)
    elif word.endswith(("+", "#")):
        yield word[0] + ("plusplus" if word.endswith("+") else "sharp")
    elif "," in word:
        yield word.replace(",", "")
    else:
        yield from _joined_terms(word)


def _joined_terms(word: str) -> Iterator[str]:
    word = word.removesuffix("'s").removesuffix("\u2019s")
    parts = [part for part in _JOINT.split(word) if part]
    for part in parts:
        # ISO27001 is also ISO and 27001; p53, h2o and cd4 stay whole.
        split = _LETTERS_THEN_DIGITS.fullmatch(part)
        if split:
            yield from split.groups()
        yield _letters_and_digits(part)
    if len(parts) > 1:
        # The point of 3.5 is spelt, or the whole would read 35.
        yield _letters_and_digits(_JOINT.sub("", _POINT.sub("p", word)))


def _letters_and_digits(term: str) -> str:
    """Spell what the analyzer would split at (vowel signs of Indic scripts, Thai tone marks) as a number."""
    if term.isalnum():
        return term
    return "".join(char if char.isalnum() else f"u{ord(char)}" for char in term)
