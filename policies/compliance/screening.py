"""What a caller is shown of what was found: passages without what their rules keep from them, for one request.

    screening = personal.begin(caller, purpose)       # may this be asked at all? ContentBlocked
    shown = screening.passages(found)                 # each masked for this caller, or held back by a rule
    window = screening.window()                       # for the words of a model that read them, where it redacts()
    screening.detail()                                # for the record: what was redacted and revealed

Whatever fails here fails the request: nothing is given unscreened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policies.compliance.actions import Decision, Edit, Offsets, RuleName, Screened, apply
from policies.compliance.combining import Policies
from policies.compliance.consent import ConsentRegistry, Consents
from policies.compliance.policy import ANY, Policy, Purpose, Rule, Rules
from policies.compliance.streaming import Window
from policies.errors import ContentBlocked
from policies.keyed_hashes import KeyedHashes, normalised
from policies.pii.findings import GROUPS, Finding
from policies.principals import Principal

REVEAL = "pii:reveal"
NAMING = GROUPS["DIRECT_IDENTIFIERS"]
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
PSEUDONYM_LETTERS = 10


class Finder(Protocol):
    """Finds personal data (`policies.pii.detector.Detector`)."""

    def find(self, text: str) -> list[Finding]:
        """Give what is found, ascending and without overlaps."""
        ...


class Permissions(Protocol):
    """Says what callers may do (`policies.roles.Roles`)."""

    def allows(self, principal: Principal, permission: str) -> bool:
        """Say whether the caller holds `permission`."""
        ...


Categories = Callable[[Sequence[str]], Mapping[str, frozenset[str]]]
"""Gives documents' categories by id; what it does not name was never classified. Raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What is about to be shown. `fields`: its title, its address, and what else is shown beside the text."""

    document_id: str
    source: str
    text: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage as the caller may see it; `withheld`: by which rule it is held back, and nothing of it is given."""

    text: str = ""
    fields: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    withheld: RuleName | None = None

    @property
    def offsets(self) -> Offsets:
        """The way between places of the stored text and of this one."""
        return Offsets(self.edits)


class PersonalData:
    """What is needed to screen requests. One for a process; safe to use from many threads."""

    def __init__(
        self,
        policies: Policies,
        finder: Finder,
        hashes: KeyedHashes,
        registry: ConsentRegistry,
        categories: Categories,
        permissions: Permissions,
        region: str | None = None,
        quick: Finder | None = None,
    ) -> None:
        """`quick` finds all but names, places, ages and dates: for policies that ask for none of these."""
        self.policies = policies
        self.finder = finder
        self.hashes = hashes
        self.registry = registry
        self.categories = categories
        self._permissions = permissions
        self.region = region
        self.quick = quick or finder

    def begin(self, caller: Principal, purpose: str | None) -> Screening:
        """Say whether this may be asked. Raises `ContentBlocked` naming what is missing, and `Unavailable`."""
        policy, anywhere = self.policies.of(caller.tenant, None), self.policies.anywhere(caller.tenant)
        stated = purpose if purpose is not None else policy.default_purpose
        if stated is None:
            if policy.require_purpose:
                raise ContentBlocked(f"purpose: state one of {_listed(anywhere, caller)}")
            return Screening(self, caller, None, False)
        known = policy.purposes.get(stated) or anywhere.purposes.get(stated)
        if known is None and anywhere.purposes:
            raise ContentBlocked(f"purpose: this one is not known here; state one of {_listed(anywhere, caller)}")
        if known is not None and not _may_state(known, caller):
            raise ContentBlocked(f"purpose: refused by {known.by.regime}/{known.by.rule} ({known.by.article})")
        return Screening(self, caller, stated, self._permissions.allows(caller, REVEAL))

    def naming(self, caller: Principal) -> Screening:
        """Screen what lists documents and answers no question: no purpose is asked for, and nothing is revealed."""
        return Screening(self, caller, None, False, asked=False)


def _may_state(purpose: Purpose, caller: Principal) -> bool:
    return purpose.basis != "forbidden" and (not purpose.roles or not purpose.roles.isdisjoint(caller.roles))


def _listed(policy: Policy, caller: Principal) -> str:
    return ", ".join(name for name, each in sorted(policy.purposes.items()) if _may_state(each, caller)) or "none"


class Screening:
    """One request's screening. Used by one thread at a time."""

    def __init__(
        self, personal: PersonalData, caller: Principal, purpose: str | None, may_reveal: bool, asked: bool = True
    ) -> None:
        self._personal = personal
        self._caller = caller
        self._purpose = purpose
        self._may_reveal = may_reveal
        self._asked = asked
        self._shown_under: dict[tuple[str, frozenset[str] | None], None] = {}
        self._done: Counter[str] = Counter()
        self._revealed: Counter[str] = Counter()
        self._windows: list[Window] = []

    @property
    def asks_nothing(self) -> bool:
        """Whether nothing is done to anything of this tenant."""
        return _asks_nothing(self._personal.policies.anywhere(self._caller.tenant))

    def passages(self, found: Sequence[Passage], capped: bool = True) -> list[Shown]:
        """Screen passages, best first, each under its own source's rules. Raises `Unavailable`.

        `capped`: rules that give only so many passages of a kind for an answer hold, too.
        """
        policies = {each.source: self._policy(each.source) for each in found}
        if all(_asks_nothing(policy) for policy in policies.values()):
            return [Shown(each.text, each.fields) for each in found]
        ids = sorted({each.document_id for each in found})
        kinds = self._personal.categories(ids)
        consents = self._consents(policies.values())
        taken: Counter[str] = Counter()
        return [
            self._passage(each, policies[each.source], kinds.get(each.document_id), consents, taken, capped)
            for each in found
        ]

    def redacts(self) -> bool:
        """Say whether a rule is about the words of a model that read what was shown."""
        return not self._said()[0].is_empty

    def window(self) -> Window:
        """Give what screens a model's words, one text, under the rules of all that was shown."""
        decided, names = self._said()
        window = Window(lambda text: self._screened(text, decided, self._finder(names)))
        self._windows.append(window)
        return window

    def _said(self) -> tuple[Rules, bool]:
        policies = [self._policy(source) for source in [*{source: None for source, _ in self._shown_under}, None]]
        rules = [rule for policy in policies for rule in self._standing(policy)]
        kinds = [kinds for _, kinds in self._shown_under]
        categories = None if not kinds or None in kinds else frozenset().union(*(kind for kind in kinds if kind))
        return Rules(rules, categories), any(policy.asks_names("answer") for policy in policies)

    def detail(self) -> dict[str, Mapping[str, int] | str]:
        """Give what the record keeps: entities with numbers, and the purpose of what was revealed; never a value."""
        done = Counter(self._done)
        for window in self._windows:
            for each, count in window.counts.items():
                done[each.entity] += count
        kept: dict[str, Mapping[str, int] | str] = {}
        if done:
            kept["redactions"] = dict(sorted(done.items()))
        if self._revealed:
            kept |= {"revealed": dict(sorted(self._revealed.items())), "revealed_for": self._purpose or ""}
        return kept

    # ---- one passage

    def _passage(
        self,
        passage: Passage,
        policy: Policy,
        categories: frozenset[str] | None,
        consents: Consents | None,
        taken: Counter[str],
        capped: bool,
    ) -> Shown:
        if policy.residency is not None and self._personal.region not in policy.residency:
            return self._withhold(RuleName("settings", "residency", "args.compliance"))
        if categories is not None:
            categories |= policy.categories
        rules = Rules(self._standing(policy), categories)
        if rules.documents:
            return self._withhold(rules.documents[0].name)
        purpose = self._purpose_of(policy)
        unstated = policy.require_purpose and self._purpose is None and self._asked
        if unstated or (purpose is not None and not _may_state(purpose, self._caller)):
            return self._withhold(purpose.by if purpose is not None else None)
        asks_who = consents is not None and consents.asks_who
        finder = self._finder(asks_who or policy.asks_names("answer"))
        findings = finder.find(passage.text) if asks_who or self._looks(policy) else []
        if purpose is not None and consents is not None:
            names = _names([(passage.text, findings), *self._found_in(passage.fields, asks_who)])
            subjects = self._personal.hashes.subjects(self._caller.tenant, names) if asks_who else frozenset()
            if not consents.permits(purpose, passage.source, subjects):
                return self._withhold(purpose.by)
        refused = next((d for d in rules.decide(findings) if d.action.is_of_document), None)
        over = self._over(policy, categories, taken) if capped else None
        if refused is not None or over is not None:
            return self._withhold(refused.by if refused is not None else over)
        self._shown_under[passage.source, categories] = None
        self._note_revealed(policy, rules, categories, findings)
        text = self._applied(passage.text, rules.decide(findings))
        fields = tuple(self._screened(each, rules, finder).text for each in passage.fields)
        self._done.update({done.entity: n for done, n in text.counts.items()})
        return Shown(text.text, fields, text.edits)

    def _found_in(self, fields: Sequence[str], wanted: bool) -> list[tuple[str, list[Finding]]]:
        return [(each, self._personal.finder.find(each)) for each in fields] if wanted else []

    def _over(self, policy: Policy, categories: frozenset[str] | None, taken: Counter[str]) -> RuleName | None:
        """Count a passage against the rules that give only so many; give the rule that has no more to give."""
        asked = [cap for cap in policy.caps if cap.category == ANY or categories is None or cap.category in categories]
        full = next((cap for cap in asked if taken[cap.category] >= cap.of(self._caller.roles, self._purpose)), None)
        if full is None:
            taken.update({cap.category for cap in asked})
        return full.by if full is not None else None

    def _withhold(self, by: RuleName | None) -> Shown:
        name = by if by is not None else RuleName("settings", "withheld", "args.compliance")
        return Shown(withheld=name)

    def _note_revealed(
        self, policy: Policy, rules: Rules, categories: frozenset[str] | None, findings: Sequence[Finding]
    ) -> None:
        if not self._lifts(policy):
            return
        done = {decision.finding for decision in rules.decide(findings)}
        others = Rules(policy.rules_at("answer"), categories).decide(findings)
        self._revealed.update(each.finding.entity for each in others if each.finding not in done)

    # ---- rules

    def _policy(self, source: str | None) -> Policy:
        return self._personal.policies.of(self._caller.tenant, source)

    def _purpose_of(self, policy: Policy) -> Purpose | None:
        return policy.purposes.get(self._purpose) if self._purpose is not None else None

    def _lifts(self, policy: Policy) -> bool:
        purpose = self._purpose_of(policy)
        return self._may_reveal and purpose is not None and purpose.reveals

    def _standing(self, policy: Policy) -> list[Rule]:
        """Give the rules of answers but for what is lifted for this caller and purpose."""
        rules, lifts = policy.rules_at("answer"), self._lifts(policy)
        return [rule for rule in rules if not (lifts and rule.is_lifted(self._purpose, self._caller.roles))]

    def _looks(self, policy: Policy) -> bool:
        return any(rule.entities for rule in policy.rules_at("answer"))

    def _consents(self, policies: Iterable[Policy]) -> Consents | None:
        if self._purpose is None or not any(self._purpose in policy.purposes for policy in policies):
            return None
        return self._personal.registry.consents(self._caller.tenant, self._purpose)

    def _finder(self, names: bool) -> Finder:
        return self._personal.finder if names else self._personal.quick

    def _screened(self, text: str, rules: Rules, finder: Finder) -> Screened:
        return Screened(text) if rules.is_empty else self._applied(text, rules.decide(finder.find(text)))

    def _applied(self, text: str, decisions: Sequence[Decision]) -> Screened:
        return apply(
            text, decisions, lambda entity, value: pseudonym(self._personal.hashes, self._caller.tenant, value)
        )


def pseudonym(hashes: KeyedHashes, tenant: str, value: str) -> str:
    """Give the ten letters that stand for a value in this tenant, however it is spaced and punctuated."""
    return hashes.of(tenant, "pseudonym", normalised(value) or value)[:PSEUDONYM_LETTERS].translate(_LETTERS)


def _names(found: Sequence[tuple[str, Sequence[Finding]]]) -> list[str]:
    return [text[each.start : each.end] for text, findings in found for each in findings if each.entity in NAMING]


def _asks_nothing(policy: Policy) -> bool:
    return not (policy.rules_at("answer") or policy.purposes or policy.caps or policy.residency is not None)
