"""How sensitive a document is, and how sensitive a document a caller may see: the second dimension of rights."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from policies.errors import InvalidRequest


class Label(IntEnum):
    """A document's label, or a caller's clearance. The numbers are stored: they never change.

    A document is shown to those whom its rule names and whose clearance is at least its label.
    """

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3

    @classmethod
    def of(cls, text: Any) -> Label:
        """Read a label as people write it. Raises `InvalidRequest`: what is no label is never taken for one."""
        found = _BY_WORD.get(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidRequest(f"label: {str(text)[:64]!a} is none; write {', '.join(_BY_WORD)}")
        return found

    @property
    def word(self) -> str:
        """The label as people write it."""
        return self.name.lower()


_BY_WORD = {label.word: label for label in Label}
DEFAULT_LABEL = Label.INTERNAL
"""Of a rule that says nothing about it, and the clearance of a caller whose roles say nothing about it."""
