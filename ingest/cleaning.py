"""Text as it may be stored, its headings and blocks, and titles worth showing.

Everything here meets hostile text, some of it outside the sandbox: time is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from policies.errors import InvalidRequest
from policies.principals import has_unseen
from policies.unseen import without_unseen

SHOWN_SCHEMES = ("http", "https", "file", "s3", "gs", "abfs", "smb")
MAX_URI_CHARS = 2048
MAX_TITLE_CHARS = 200
MAX_HEADING_CHARS = 1_000
"""A heading is read up to here: it is counted, cut and embedded again with every passage below it."""
MAX_MARKS = 30
"""Combining marks that one character keeps: UAX #15 calls text with more of them unsafe to normalise in a stream."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_JUNK_TITLE = re.compile(
    r"untitled.*|microsoft (word|powerpoint|excel)\b.*|powerpoint presentation|presentation( title)?|word document"
    r"|(document|slide|sheet|book|page|tabelle|blank)\s*\d*|title|no title|default|index|home"
    r"|.*\.(docx?|pptx?|xlsx?|pdf|html?|txt|indd|dvi|tex|rtf|odt)",
    re.IGNORECASE,
)
FENCE = re.compile(r"(^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\2[`~]*[ \t]*$|\Z))", re.MULTILINE | re.DOTALL)
"""A fenced code block of Markdown; group 2 is its fence."""
_HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+([^\s][^\n]*)$|^([^\n#>|`\s-][^\n]{0,200})\n(?:=+|-{3,})[ \t]*$", re.MULTILINE
)
_LINK = re.compile(r"\[([^\[\]]*)\]\([^()]*\)")
_EMPHASIS = re.compile(r"[*_`]{1,3}([^\s*_`](?:[^*_`]*[^\s*_`])?)[*_`]{1,3}")
_LONG_FOREIGN_RUN = re.compile(rf"[^\x00-\u02ff]{{{MAX_MARKS + 1},}}")


def clean(text: str) -> str:
    r"""Make text safe to store: `\n` line ends, NFC, no control or unseen characters, no lone surrogates."""
    return cleaned(text)[0]


def cleaned(text: str) -> tuple[str, int]:
    """Do what `clean` does, and count the characters taken that nobody sees and no word processor leaves behind."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    text = text.replace("\f", "\n").replace("\u00a0", " ")
    text, unseen = without_unseen(_CONTROL.sub("", text))
    return unicodedata.normalize("NFC", _LONG_FOREIGN_RUN.sub(_without_mark_runs, text)), unseen


def _without_mark_runs(match: re.Match[str]) -> str:
    """Normalisation sorts a run of combining marks in quadratic time: 80 KB of them would take ten seconds."""
    kept, marks = [], 0
    for character in match.group():
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def usable_title(title: str | None) -> str | None:
    """Tidy a title; none for what programs fill in by themselves ("untitled", "Microsoft Word - x.doc")."""
    text = " ".join(clean(title or "").split())
    if not any(character.isalpha() for character in text) or _JUNK_TITLE.fullmatch(text):
        return None
    return text[:MAX_TITLE_CHARS].rstrip()


def given_title(title: str | None) -> str | None:
    """Tidy a title that somebody gave: one that says nothing is kept, for it is all there is."""
    return usable_title(title) or clean(title or "").strip() or None


def shown_uri(uri: str) -> str:
    """Check where somebody says that a document is: whoever is shown a citation may follow it.

    Raises `InvalidRequest` for schemes that run code or start programs, for characters which hide one (a browser reads
    over them), and for more than `MAX_URI_CHARS`. What has no scheme is a relative reference or a path.
    """
    found = _SCHEME.match(uri)
    if uri != uri.strip() or has_unseen(uri) or (found and found[1].lower() not in SHOWN_SCHEMES):
        raise InvalidRequest(f"uri: give a relative reference, or an address with {', '.join(SHOWN_SCHEMES)}")
    if len(uri) > MAX_URI_CHARS:
        raise InvalidRequest(f"uri: at most {MAX_URI_CHARS} characters")
    return uri


def first_heading(text: str) -> str | None:
    """The first heading of Markdown text, without its emphasis marks."""
    match = _HEADING.search(FENCE.sub("", text[:200_000]))
    if not match:
        return None
    marked, underlined = match.groups()
    return plain_heading(without_closing_marker(marked) if marked else underlined).strip() or None


def without_closing_marker(heading: str) -> str:
    """Take off the `#` that may stand again at the end of a heading that began with `#`."""
    heading = heading[:MAX_HEADING_CHARS].rstrip(" \t")
    without = heading.rstrip("#")
    return without.rstrip(" \t") if without.endswith((" ", "\t")) else heading


def plain_heading(heading: str) -> str:
    """What a reader sees of a heading: no link targets and emphasis marks."""
    return _EMPHASIS.sub(r"\1", _LINK.sub(r"\1", heading[:MAX_HEADING_CHARS]))


def cut_blocks(text: str, opening: re.Pattern[str], closing: Callable[[str], str]) -> list[str]:
    """Cut text into text, block, text, …: a block runs from an opening to the next closing.

    `closing` gives its expression for the opening's first group ("" where that took no part). An opening that nothing
    closes is text: `opening.*?closing` as one expression would search to the text's end again from each of these.
    """
    parts, position, begin = [], 0, 0
    endless: set[str] = set()
    while match := opening.search(text, position):
        name = (match.group(1) or "").lower() if opening.groups else ""
        end = None if name in endless else re.compile(closing(name), opening.flags).search(text, match.end())
        position = end.end() if end else match.end()
        if end:
            parts += [text[begin : match.start()], text[match.start() : position]]
            begin = position
        else:
            endless.add(name)
    return [*parts, text[begin:]]
