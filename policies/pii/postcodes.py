"""Postcodes that have a shape: of the United States behind a state or a word for them, British and Canadian ones."""

from __future__ import annotations

import re

_STATE_CODES = """
AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI
SC SD TN TX UT VT VA WA WV WI WY PR VI GU AS MP AA AE AP
"""
_STATES = frozenset(_STATE_CODES.split())
_STATE_BEFORE = re.compile(r"(?<![A-Za-z])([A-Za-z]{2})[.,]? {1,2}\Z")
_BRITISH = re.compile(
    r"(?:GIR ?0AA|[A-PR-UWYZ][A-HK-Y]?[0-9][0-9A-HJKMNP-Y]? ?[0-9][ABD-HJLNP-UW-Z]{2})(?![A-Za-z0-9])", re.I
)
_CANADIAN = re.compile(
    r"[ABCEGHJ-NPRSTVXY][0-9][ABCEGHJ-NPRSTV-Z][ -]?[0-9][ABCEGHJ-NPRSTV-Z][0-9](?![A-Za-z0-9])", re.I
)


def american(text: str, start: int, digits: str, shape: str) -> float:
    """Say how sure five digits, or five and four, are a ZIP code by what stands before them."""
    if shape not in ("5", "5-4"):
        return 0.0
    state = _STATE_BEFORE.search(text, max(0, start - 6), start)
    if state is not None and state.group(1).upper() in _STATES and (state.group(1).isupper() or shape == "5-4"):
        return 0.75
    return 0.55 if shape == "5-4" and digits[:3] != "000" else 0.0


def lettered(text: str, start: int) -> int:
    """Give where a British or Canadian postcode that begins at `start` ends; 0 where none does."""
    found = _BRITISH.match(text, start) or _CANADIAN.match(text, start)
    if found is None or (" " not in found.group() and not found.group().isupper()):
        return 0
    return found.end()
