"""Whom a request is about: the identifiers and names that an officer gives, and how their spellings become one.

`DE89 3704 0044` and `DE8937040044`, `Jane.Doe@ACME.com` and `jane.doe@acme.com`, `ＪＡＮＥ doe` and `Jane Doe` are the
same: compatibility forms, case, and all that is neither letter nor digit count for nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from policies.errors import InvalidRequest

MOST = 50
"""Identifiers, and names, of one request."""
MAX_CHARS = 200
MIN_IDENTIFIER = 5
MIN_DIGITS = 6
"""Fewer digits alone are a number of anything."""
MIN_LONE_NAME = 8
"""A name of one word is taken from this many letters on: shorter ones are many people's."""
# Scripts that are written without spaces: each character is a token. Then words with the marks that belong to them.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(f"[{_UNSPACED}]|(?:[^\\W_{_UNSPACED}]|[\u0300-\u036f\u0900-\u0903\u093a-\u094f])+")
_ASCII_TOKEN = re.compile("[a-z0-9]+")
# First names that very many people have; with one of them alone nobody is named.
_COMMON_NAMES = """
    alexander alexandra alexandre andrea andreas angela anthony antonio barbara beatriz benjamin bernard birgit
    brigitte carolina caroline catherine charlotte christian christina christine christoph christopher claudia
    cristina cristian daniela danielle deborah dominique dorothea eleonora elisabeth elizabeth emmanuel federica
    federico fernando florence francesca francesco francisco frederic frederik friedrich gabriela gabriele gabriella
    gabrielle giovanni giuseppe guillaume heinrich isabella isabelle jacqueline jeanette jennifer jonathan josephine
    kathleen katarina katarzyna katharina kimberly kristina lawrence leonardo lorenzo magdalena malgorzata margaret
    margarita marianne mariusz massimo matthew matthias maximilian mechthild melanie michael michaela michelle
    mohammad mohammed muhammad natalia nathalie nicholas nicolas patricia patrick philippe priscilla rebecca reinhard
    salvatore samantha sebastian sebastien siegfried stefania stephanie stephane svetlana thaddeus theodora theodore
    theresa thorsten valentina valeria veronica veronika victoria vincenzo virginia wilhelm wolfgang yolanda
"""
_COMMON = frozenset(_COMMON_NAMES.split())


class Token(NamedTuple):
    """A word of a text: its place in the text, `[start, end)`, and its normal form."""

    start: int
    end: int
    normal: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A person as a request names them. `identifiers` are theirs alone; `names` may be spelt in several ways."""

    identifiers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def checked(self, names_alone: bool = True) -> Subject:
        """Give it back without repetitions. Raises `InvalidRequest`, which says what is missing and quotes nothing.

        `names_alone`: names are enough; where something is taken away for good, one identifier has to say whose it is.
        """
        identifiers, names = _distinct(self.identifiers), _distinct(self.names)
        if not identifiers and not names:
            raise InvalidRequest("subject: empty; give at least one identifier (an e-mail address, a number) or a name")
        for place, text in enumerate(identifiers):
            _check_identifier(text, f"subject.identifiers.{place}")
        for place, text in enumerate(names):
            _check_name(text, f"subject.names.{place}")
        if not identifiers and not names_alone:
            raise InvalidRequest(
                "subject.identifiers: missing; several people may have the same name, so give an identifier as well "
                "(an e-mail address, a customer or staff number, an account)"
            )
        return Subject(identifiers, names)


def normal(text: str) -> str:
    """Give the one spelling of a text: compatibility form, case folded, letters and digits only."""
    if text.isascii():
        return "".join(filter(str.isalnum, text.lower()))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(filter(str.isalnum, folded))


def tokens(text: str) -> Iterator[Token]:
    """Cut a text into words, with their places; what has no letter or digit is in none."""
    if text.isascii():
        for found in _ASCII_TOKEN.finditer(text.lower()):
            yield Token(found.start(), found.end(), found.group())
        return
    for found in _TOKEN.finditer(text):
        word = found.group()
        spelt = word.lower() if word.isascii() else normal(word)
        if spelt:
            yield Token(found.start(), found.end(), spelt)


def normals(text: str) -> list[str]:
    """Give the normal forms of a text's words, as `tokens` does, several times as fast."""
    if text.isascii():
        return _ASCII_TOKEN.findall(text.lower())
    words = _TOKEN.findall(text)
    return [spelt for word in words if (spelt := word.lower() if word.isascii() else normal(word))]


def spellings(name: str) -> Iterator[str]:
    """Give a name as texts spell it: as it is, the family name first, and in the genitive that has no apostrophe."""
    words = [token.normal for token in tokens(name)]
    forms = [words] if len(words) == 1 else [words, [words[-1], *words[:-1]]]
    for form in forms:
        yield " ".join(form)
        if form[-1].isascii() and not form[-1].endswith("s"):
            yield " ".join(form) + "s"


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(texts) > MOST:
        raise InvalidRequest(f"subject: at most {MOST} identifiers and {MOST} names")
    return tuple({normal(text): " ".join(text.split()) for text in texts}.values())


def _check_identifier(text: str, where: str) -> None:
    spelt = normal(text)
    if len(text) > MAX_CHARS:
        raise InvalidRequest(f"{where}: longer than {MAX_CHARS} characters")
    if len(spelt) < MIN_IDENTIFIER or (spelt.isdigit() and len(spelt) < MIN_DIGITS):
        raise InvalidRequest(
            f"{where}: too short to be one person's; at least {MIN_IDENTIFIER} letters and digits, {MIN_DIGITS} of "
            "digits alone"
        )
    if spelt in _COMMON or (" " in text.strip() and spelt.isalpha()):
        raise InvalidRequest(f"{where}: this is a name; put it under subject.names")


def _check_name(text: str, where: str) -> None:
    words = [token.normal for token in tokens(text)]
    if len(text) > MAX_CHARS:
        raise InvalidRequest(f"{where}: longer than {MAX_CHARS} characters")
    if not words:
        raise InvalidRequest(f"{where}: empty")
    if len(words) == 1 and (len(words[0]) < MIN_LONE_NAME or words[0] in _COMMON):
        raise InvalidRequest(f"{where}: one word names many people; give the first name and the family name")
    unspaced = bool(re.match(f"[{_UNSPACED}]", text.strip()))
    if len("".join(words)) < (2 if unspaced else MIN_IDENTIFIER):
        raise InvalidRequest(f"{where}: too short to be one person's name")
