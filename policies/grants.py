"""A permission as a role grants it: `resource:action`, with wildcards, for everything or for some sources only.

documents:delete                  that permission
documents:*                       all that begins with `documents:`, on whole words
*                                 every permission
documents:delete@source/hr-wiki   on the documents of one source
documents:*@source/hr-*           of every source whose name begins so
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from policies.principals import has_unseen

_PERMISSION = re.compile(r"\*|[a-z][a-z0-9_-]*(:[a-z][a-z0-9_-]*)+|[a-z][a-z0-9_-]*(:[a-z][a-z0-9_-]*)*:\*")
SOURCE = "source/"
BY_SOURCE = ("documents:write", "documents:delete", "system:monitor")
"""Permissions that may be held for some sources only. Of every other one such a grant would do nothing."""
SOMEWHERE = "@*"
"""Behind a permission that is asked for: held for at least one source. What is done with it asks again, by source."""
MAX_SCOPE_CHARS = 512


@dataclass(frozen=True, slots=True)
class Scope:
    """For which sources a permission is held. `patterns`: `source/NAME`, a `*` only at the end."""

    everything: bool = False
    patterns: frozenset[str] = frozenset()

    def covers(self, source: str) -> bool:
        """Say whether it is held for the source of this name."""
        return self.everything or any(_matches(pattern, SOURCE + source) for pattern in self.patterns)

    @property
    def is_nothing(self) -> bool:
        """Whether it is held for no source at all."""
        return not self.everything and not self.patterns


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of a role. `pattern`: for these resources only; `where`: the line's place, for people."""

    written: str
    permission: str
    pattern: str | None
    where: str

    @classmethod
    def of(cls, written: object, where: str) -> Grant:
        """Check a line. Raises `ValueError`."""
        if not isinstance(written, str):
            raise ValueError("write resource:action, resource:* or *")
        permission, at, pattern = written.partition("@")
        if not _PERMISSION.fullmatch(permission):
            raise ValueError("write resource:action, resource:* or *")
        if not at:
            return cls(written, permission, None, where)
        name = pattern.removeprefix(SOURCE).removesuffix("*")
        if not pattern.startswith(SOURCE) or "*" in name or has_unseen(name) or pattern == SOURCE:
            raise ValueError("write …@source/NAME, with * at the end of NAME at most")
        if len(pattern) > MAX_SCOPE_CHARS:
            raise ValueError(f"what follows the @ has at most {MAX_SCOPE_CHARS} characters")
        if not any(covers(permission, each) for each in BY_SOURCE):
            raise ValueError(f"only these are held by source: {', '.join(BY_SOURCE)}")
        return cls(written, permission, pattern, where)

    def gives(self, permission: str, resource: str | None) -> bool:
        """Say whether it gives `permission` on `resource`; without one, on everything."""
        on_it = self.pattern is None or (resource is not None and _matches(self.pattern, resource))
        return on_it and covers(self.permission, permission)


def covers(granted: str, permission: str) -> bool:
    """Say whether a granted permission, or wildcard, is or contains another: whole words, case as written."""
    if granted in ("*", permission):
        return True
    return granted.endswith(":*") and permission.startswith(granted[:-1])


def _matches(pattern: str, resource: str) -> bool:
    return resource.startswith(pattern[:-1]) if pattern.endswith("*") else resource == pattern
