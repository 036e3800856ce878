"""What a site asks robots to leave alone: `robots.txt` as RFC 9309 reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ingest.connectors.address_guard import AddressRefused, normal_path

MAX_BYTES = 512_000
"""RFC 9309 asks for at least 500 KiB."""
MAX_RULES = 5_000
_PRODUCT = re.compile(r"[A-Za-z_-]+")


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules for one product: (path pattern, whether it allows)."""

    rules: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def parse(cls, text: str, product: str) -> Robots:
        """Take the groups that name `product`, or those for `*` where none does. Lines that say nothing are skipped."""
        groups: dict[str, list[tuple[str, bool]]] = {}
        ours = (_product(product), "*")
        names: set[str] = set()
        begun = False
        for line in text.splitlines():
            key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
            key = key.lower()
            if key == "user-agent":
                if begun:
                    names, begun = set(), False
                if (name := _product(value)) in ours:
                    names.add(name)
                    groups.setdefault(name, [])
            elif key in ("allow", "disallow"):
                begun = True
                for name in names:
                    if value and len(groups[name]) < MAX_RULES:
                        groups[name] += _rule(value, key == "allow")
        return cls(tuple(groups.get(ours[0], groups.get("*", []))))

    def allows(self, path: str) -> bool:
        """Say whether a path (with its query) may be asked for: the longest matching rule decides, allow before not."""
        matching = [(len(pattern), allows) for pattern, allows in self.rules if _matches(pattern, path)]
        return max(matching)[1] if matching else True


def _product(text: str) -> str:
    found = _PRODUCT.match(text)
    return found.group().lower() if found else text[:1]


def _rule(value: str, allows: bool) -> list[tuple[str, bool]]:
    try:
        return [(normal_path(value), allows)]
    except AddressRefused:
        return []


def _matches(pattern: str, path: str) -> bool:
    """`*` is any characters, `$` at the end the path's end. What stands behind a `*` is taken where it fits first."""
    anchored = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    position = len(first)
    last = rest.pop() if anchored and rest else None
    for part in rest:
        position = path.find(part, position)
        if position < 0:
            return False
        position += len(part)
    if last is not None:
        return path.endswith(last) and len(path) - len(last) >= position
    return not anchored or position == len(path)
