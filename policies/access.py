"""Who may read a document: the one place where that question is answered.

A rule allows and denies names (`user:ada`, `group:finance`, `role:auditor`, `everyone`). Deny wins.
A rule that allows nobody is valid and means just that. Its label says how much clearance it takes beside a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from policies.errors import InvalidRequest
from policies.labels import DEFAULT_LABEL, Label
from policies.principals import EVERYONE, Principal, bare_name

MAX_NAMES = 10_000
_KINDS = frozenset({"user", "group", "role"})


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Two interned sets of names and a label. Equal rules are one row in the ledger."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    label: Label = DEFAULT_LABEL

    @classmethod
    def of(cls, allow: Iterable[str] = (), deny: Iterable[str] = (), label: Label = DEFAULT_LABEL) -> AccessRule:
        """Build a checked rule, its names spelt as in tokens.

        Raises `InvalidRequest` for a name that no caller can ever have: a rule that denies it would deny nobody.
        """
        rule = cls(frozenset(map(_principal, allow)), frozenset(map(_principal, deny)), label)
        if len(rule.allow) + len(rule.deny) > MAX_NAMES:
            raise InvalidRequest(f"an access rule holds at most {MAX_NAMES} principals")
        return rule

    def permits(self, caller: Principal) -> bool:
        """Say whether `caller` may read what carries this rule (the tenant is checked by the ledger's key)."""
        names = caller.names
        named = not names.isdisjoint(self.allow) and names.isdisjoint(self.deny)
        return named and self.label <= caller.clearance

    def at_least(self, label: Label | None) -> AccessRule:
        """Give the rule with this label, or with its own where that is higher."""
        return self if label is None or label <= self.label else replace(self, label=label)

    @property
    def key(self) -> str:
        """A canonical text form: equal for equal rules, in every process.

        Without a label of its own a rule has the form that it had before there were labels: ledgers hold hashes of it.
        """
        label = [] if self.label == DEFAULT_LABEL else [f"={self.label.word}"]  # no name begins so
        return "\n".join([*label, *sorted(self.allow), "!", *sorted(self.deny)])


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
