"""A caller, as their token describes them, and how a name is spelt, in tokens and in access rules alike."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from policies.labels import DEFAULT_LABEL, Label

EVERYONE = "everyone"
MAX_NAME_CHARS = 256
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def bare_name(text: str) -> str:
    """Give the one spelling (NFC) of the name of a person, group, role or tenant; case stays significant.

    Raises `ValueError` for a name that is empty, too long, begins or ends in white space, or holds a character that
    nobody sees (control, zero-width, direction, line separator): two names that look alike would be different ones,
    and a rule that denies one of them would do nothing.
    """
    name = unicodedata.normalize("NFC", text)
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"a name has 1 to {MAX_NAME_CHARS} characters")
    if name != name.strip():
        raise ValueError("a name neither begins nor ends in white space")
    if has_unseen(name):
        raise ValueError("a name holds no control, zero-width or direction characters")
    return name


def has_unseen(text: str) -> bool:
    """Say whether a text holds characters that nobody sees: control, format, surrogate, line and paragraph ends."""
    return not text.isprintable() and any(unicodedata.category(character) in _UNSEEN for character in text)


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or service of one tenant.

    `subject` is unique within the tenant; `roles` and `groups` are bare names without prefix. `clearance` is the
    highest label they may see (`policies.roles` says it).
    """

    subject: str
    tenant: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    clearance: Label = DEFAULT_LABEL

    @property
    def names(self) -> frozenset[str]:
        """Every name under which an access rule can mean this caller: `user:`, `group:`, `role:` and `everyone`."""
        return frozenset(
            {EVERYONE, f"user:{self.subject}"}
            | {f"group:{group}" for group in self.groups}
            | {f"role:{role}" for role in self.roles}
        )
