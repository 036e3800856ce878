"""What a source calls its people and groups, and what tokens call them.

A rule that comes from a source is spelt in the source's names. Here they become ours, for what it allows and what it
denies alike. An allowed name that is lost lets in fewer. A denied name that is lost would let in more: where one cannot
be told in our names, the rule permits nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from policies.access import AccessRule
from policies.errors import InvalidRequest
from policies.principals import EVERYONE, MAX_NAME_CHARS

Unmapped = Literal["keep", "drop", "prefix"]
"""What becomes of a name that no map holds: it stays, it goes, or it is called `<source>/<name>`."""


@dataclass(frozen=True, slots=True)
class Aliases:
    """One source's maps, from its names (`user:ada@example.org`, `group:Finance Team`) to ours.

    `unmapped` is by kind, `user` or `group`. Roles and `everyone` are no source's own words and stay. An e-mail address
    is known in any case of its letters, every other name only as it is written.
    """

    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    unmapped: Mapping[str, Unmapped] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: str,
        groups: Mapping[str, str],
        users: Mapping[str, str],
        unmapped_groups: Unmapped,
        unmapped_users: Unmapped,
    ) -> Aliases:
        """Check the maps, names without prefix on both sides.

        Raises `InvalidRequest` for a name that cannot be, and where two spellings of one name mean two.
        """
        names: dict[str, str] = {}
        for kind, given in (("group", groups), ("user", users)):
            for theirs, ours in given.items():
                (key,) = AccessRule.of([f"{kind}:{theirs}"]).allow
                (value,) = AccessRule.of([f"{kind}:{ours}"]).allow
                if names.setdefault(_folded(key), value) != value:
                    raise InvalidRequest(f"{theirs[:64]!a} is named twice")
        return cls(source, names, {"group": unmapped_groups, "user": unmapped_users})

    def rule(self, rule: AccessRule) -> AccessRule:
        """Spell a rule in our names. It permits nobody where a name that it denies is neither in a map nor kept."""
        if not self.names and set(self.unmapped.values()) <= {"keep"}:
            return rule
        denied = [self._name(name) for name in rule.deny]
        # A made-up name is none that a token is known to bear: to deny it might deny nobody.
        if any(name is None or is_made_up for name, is_made_up in denied):
            return replace(rule, allow=frozenset(), deny=frozenset())
        return replace(rule, allow=_names(map(self._name, rule.allow)), deny=_names(denied))

    def _name(self, name: str) -> tuple[str | None, bool]:
        """Our name for one of theirs, none where it goes; and whether it was only made up."""
        kind, _, bare = name.partition(":")
        if name == EVERYONE or kind == "role":
            return name, False
        ours, unmapped = self.names.get(_folded(name)), self.unmapped.get(kind, "keep")
        if ours is not None or unmapped == "keep":
            return ours or name, False
        prefixed = f"{self.source}/{bare}"
        fits = unmapped == "prefix" and len(prefixed) <= MAX_NAME_CHARS
        return f"{kind}:{prefixed}" if fits else None, True


def _names(found: Iterable[tuple[str | None, bool]]) -> frozenset[str]:
    return frozenset(name for name, _ in found if name is not None)


def _folded(name: str) -> str:
    return name.casefold() if name.startswith("user:") and "@" in name else name
