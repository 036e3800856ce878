"""Who may read a document: the one place where that question is answered.

A rule allows and denies names (`user:ada`, `group:finance`, `role:auditor`, `everyone`). Deny wins.
A rule that allows nobody is valid and means just that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from policies.errors import InvalidRequest
from policies.principals import EVERYONE, Principal

MAX_NAMES = 10_000
_NAME = re.compile(r"(user|group|role):[^\x00-\x1f\x7f]{1,256}")


@dataclass(frozen=True, slots=True)
class AccessRule:
    """An interned pair of name sets. Equal rules are one row in the ledger."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> AccessRule:
        """Build a checked rule. Raises `InvalidRequest` for a name that no caller can ever have."""
        rule = cls(frozenset(allow), frozenset(deny))
        for name in rule.allow | rule.deny:
            if name != EVERYONE and not _NAME.fullmatch(name):
                raise InvalidRequest(f"'{name[:64]}' is no principal: use user:NAME, group:NAME, role:NAME or everyone")
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


NOBODY = AccessRule()
