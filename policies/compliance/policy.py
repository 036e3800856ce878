"""Which rules and duties apply to a tenant's source: its regimes, put together.

A source's regimes come on top of its tenant's, never in place of them. Of rules that meet, the strictest action wins;
of equal ones that of the regime, then of the rule, whose name comes first. Of retention the longest keeping and the
shortest expiry, and what is kept does not expire; of passages the fewest; of purposes the operator's own words win over
the regimes', and of two regimes the one that refuses, then the one that asks for consent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from policies.compliance.actions import Action, Decision, RuleName
from policies.labels import Label
from policies.pii.findings import NAMES, Finding

ANY = "*"
READ = NAMES | {"DATE_TIME"}
"""What takes reading to find, and many times as long as what has a shape."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, ready to be asked."""

    name: RuleName
    at: str
    action: Action
    entities: frozenset[str]
    categories: frozenset[str]
    purposes: frozenset[str]
    """For which it may be lifted; none: never."""
    roles: frozenset[str]

    def is_lifted(self, purpose: str | None, roles: Collection[str]) -> bool:
        """Say whether it does not apply to who may reveal, for this purpose and with these roles."""
        return purpose in self.purposes and (not self.roles or not self.roles.isdisjoint(roles))


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why somebody may ask."""

    basis: str
    by: RuleName
    roles: frozenset[str] = frozenset()
    reveals: bool = False
    opt_out: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """How many days documents of a category stay unchanged, or how many until they go."""

    category: str
    days: float
    by: RuleName


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many passages for an answer."""

    category: str
    at_most: int
    by: RuleName
    roles: Mapping[str, int] = field(default_factory=dict)
    purposes: Mapping[str, int] = field(default_factory=dict)

    def of(self, roles: Collection[str], purpose: str | None) -> int:
        """Give the number for a caller with these roles and this purpose: the highest that they have."""
        more = [self.roles[role] for role in roles if role in self.roles]
        more += [self.purposes[purpose]] if purpose is not None and purpose in self.purposes else []
        return max([self.at_most, *more])


@dataclass(frozen=True, slots=True)
class Minimum:
    """The lowest label of a category's documents; of all where the category is `*`."""

    category: str
    label: Label
    by: RuleName


@dataclass(frozen=True, slots=True)
class Policy:
    """All that applies to one source of one tenant. `version` changes with anything in it."""

    regimes: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    minima: tuple[Minimum, ...] = ()
    purposes: Mapping[str, Purpose] = field(default_factory=dict)
    require_purpose: bool = False
    default_purpose: str | None = None
    keep: tuple[Kept, ...] = ()
    expire: tuple[Kept, ...] = ()
    caps: tuple[Cap, ...] = ()
    residency: frozenset[str] | None = None
    """Regions of which the deployment's must be one; None: anywhere. Empty where one is asked for and none is said."""
    categories: frozenset[str] = frozenset()
    version: str = ""

    def rules_at(self, at: str) -> tuple[Rule, ...]:
        """Give the rules of `ingest` or of `answer`."""
        return tuple(rule for rule in self.rules if rule.at == at)

    def asks_names(self, at: str) -> bool:
        """Say whether a rule there is about what only reading finds: names, places, ages, dates."""
        return any(rule.action is not Action.KEEP and not rule.entities.isdisjoint(READ) for rule in self.rules_at(at))

    def minimum(self, categories: Collection[str]) -> Minimum | None:
        """Give what demands the highest label of a document of these categories."""
        asked = [each for each in self.minima if each.category == ANY or each.category in categories]
        return max(asked, key=lambda each: each.label, default=None)

    def kept(self, categories: Collection[str]) -> Kept | None:
        """Give the longest keeping of documents of these categories."""
        return max((k for k in self.keep if k.category in categories), key=lambda each: each.days, default=None)

    def expiry(self, categories: Collection[str]) -> Kept | None:
        """Give the shortest expiry of documents of these categories."""
        asked = [k for k in self.expire if k.category == ANY or k.category in categories]
        return min(asked, key=lambda each: each.days, default=None)


class Rules:
    """Says what is done to which entity, for one set of rules. Made once for a policy and a caller's lifts."""

    def __init__(self, rules: Iterable[Rule], categories: Collection[str] | None) -> None:
        """`categories`: the document's; None where they are not known, and every rule applies."""
        self._values: dict[str, tuple[Action, RuleName]] = {}
        self.documents: list[Rule] = []
        for rule in sorted(rules, key=lambda each: (-each.action, each.name.regime, each.name.rule)):
            if rule.categories and categories is not None and rule.categories.isdisjoint(categories):
                continue
            if not rule.entities:
                self.documents.append(rule)
            for entity in rule.entities:
                self._values.setdefault(entity, (rule.action, rule.name))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is done to any value."""
        return all(action is Action.KEEP for action, _ in self._values.values())

    def decide(self, findings: Iterable[Finding]) -> list[Decision]:
        """Give what is done to each finding that a rule is about."""
        decided = []
        for finding in findings:
            found = self._values.get(finding.entity)
            if found is not None and found[0] is not Action.KEEP:
                decided.append(Decision(finding, *found))
        return decided
