"""Text as it may be stored, and titles worth showing."""

from __future__ import annotations

import re
import unicodedata

MAX_TITLE_CHARS = 200
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_JUNK_TITLE = re.compile(
    r"untitled.*|microsoft (word|powerpoint|excel)\b.*|powerpoint presentation|presentation( title)?|word document"
    r"|(document|slide|sheet|book|page|tabelle|blank)\s*\d*|title|no title|default|index|home"
    r"|.*\.(docx?|pptx?|xlsx?|pdf|html?|txt|indd|dvi|tex|rtf|odt)",
    re.IGNORECASE,
)
FENCE = re.compile(r"(^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\2[`~]*[ \t]*$|\Z))", re.MULTILINE | re.DOTALL)
"""A fenced code block of Markdown; group 2 is its fence."""
_HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$|^([^\n#>|`\s-][^\n]{0,200})\n(?:=+|-{3,})[ \t]*$", re.MULTILINE
)


def clean(text: str) -> str:
    r"""Make text safe to store: `\n` line ends, NFC, no NUL or other control characters, no lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    text = text.replace("\f", "\n").replace("\u00a0", " ")
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))


def usable_title(title: str | None) -> str | None:
    """Tidy a title; none for what programs fill in by themselves ("untitled", "Microsoft Word - x.doc")."""
    text = " ".join(clean(title or "").split())
    if not any(character.isalpha() for character in text) or _JUNK_TITLE.fullmatch(text):
        return None
    return text[:MAX_TITLE_CHARS].rstrip()


def first_heading(text: str) -> str | None:
    """The first heading of Markdown text, without its emphasis marks."""
    match = _HEADING.search(FENCE.sub("", text[:200_000]))
    if not match:
        return None
    heading = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", match.group(1) or match.group(2))
    return re.sub(r"[*_`]{1,3}(\S(?:.*?\S)?)[*_`]{1,3}", r"\1", heading).strip() or None
