"""Who may read a document: the one place where that question is answered.

A rule allows and denies names (`user:ada`, `group:finance`, `role:auditor`, `everyone`). Deny wins.
A rule that allows nobody is valid and means just that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.errors import InvalidRequest
from policies.principals import EVERYONE, Principal, bare_name

MAX_NAMES = 10_000
_KINDS = frozenset({"user", "group", "role"})


@dataclass(frozen=True, slots=True)
class AccessRule:
    """An interned pair of name sets. Equal rules are one row in the ledger."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> AccessRule:
        """Build a checked rule, its names spelt as in tokens.

        Raises `InvalidRequest` for a name that no caller can ever have: a rule that denies it would deny nobody.
        """
        rule = cls(frozenset(map(_principal, allow)), frozenset(map(_principal, deny)))
        if len(rule.allow) + len(rule.deny) > MAX_NAMES:
            raise InvalidRequest(f"an access rule holds at most {MAX_NAMES} principals")
        return rule

    def permits(self, caller: Principal) -> bool:
        """Say whether `caller` may read what carries this rule (the tenant is checked by the ledger's key)."""
        names = caller.names
        return not names.isdisjoint(self.allow) and names.isdisjoint(self.deny)

    @property
    def key(self) -> str:
        """A canonical text form: equal for equal rules, in every process."""
        return "\n".join([*sorted(self.allow), "!", *sorted(self.deny)])


def _principal(text: str) -> str:
    if text == EVERYONE:
        return text
    kind, _, name = text.partition(":")
    if kind not in _KINDS:
        raise InvalidRequest(f"{text[:64]!a} is no principal: use user:NAME, group:NAME, role:NAME or everyone")
    try:
        return f"{kind}:{bare_name(name)}"
    except ValueError as error:
        raise InvalidRequest(f"{text[:64]!a} is no principal: {error}") from error


NOBODY = AccessRule()
