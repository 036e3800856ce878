"""From what the operator says, and the regimes that are named there, to the policy of each source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from policies.compliance.actions import RuleName
from policies.compliance.categories import CATEGORIES
from policies.compliance.policy import ANY, Cap, Kept, Minimum, Policy, Purpose, Rule
from policies.compliance.regime import Regime, RuleText, packaged, read_regimes
from policies.errors import ConfigurationError
from policies.labels import Label
from policies.pii.findings import expand

SCREENING_VERSION = 1
"""Raise it when detection, classification or an action changes: every document is then screened again."""
OPERATOR = "settings"
ANYWHERE = "\x00"
_BASES = ("forbidden", "consent")


@dataclass(frozen=True, slots=True)
class Applied:
    """What the operator says for a tenant, or for the sources whose names match a pattern."""

    regimes: tuple[str, ...] = ()
    purposes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    require_purpose: bool = False
    default_purpose: str | None = None
    retention_days: Mapping[str, float] = field(default_factory=dict)
    residency: tuple[str, ...] = ()
    passages: int | None = None
    categories: tuple[str, ...] = ()
    label: Label | None = None


class Policies:
    """The policies of all tenants and sources. Raises `ConfigurationError` with the path of a key that is wrong."""

    def __init__(
        self,
        default: Applied,
        tenants: Mapping[str, Applied] | None = None,
        sources: Mapping[str | None, Mapping[str, Applied]] | None = None,
        files: Sequence[Path] = (),
        detection: str = "",
    ) -> None:
        """`sources`: by tenant (None: the default's), then by the pattern of their names."""
        self._default = default
        self._tenants = dict(tenants or {})
        self._sources = {tenant: dict(found) for tenant, found in (sources or {}).items()}
        self._detection = detection
        every = [default, *self._tenants.values(), *(each for s in self._sources.values() for each in s.values())]
        self.regimes = read_regimes(sorted({name for each in every for name in each.regimes}), files)
        self._made: dict[tuple[str, str | None], Policy] = {}
        self._check()

    def of(self, tenant: str, source: str | None) -> Policy:
        """Give what applies to a source of a tenant; without a source, what applies to the whole tenant."""
        key = tenant, source
        if key not in self._made:
            if len(self._made) > 10_000:
                self._made.clear()
            self._made[key] = self._combined(self._applied(tenant, source))
        return self._made[key]

    def anywhere(self, tenant: str) -> Policy:
        """Give what applies to the tenant and to any of its sources, put together."""
        key = tenant, ANYWHERE
        if key not in self._made:
            of_sources = self._sources.get(tenant if tenant in self._tenants else None, {})
            self._made[key] = self._combined([*self._applied(tenant, None), *of_sources.values()])
        return self._made[key]

    @property
    def version(self) -> str:
        """Name all of it: 16 hex digits."""
        said = [
            repr(self._default),
            repr(sorted(self._tenants.items())),
            repr(sorted(map(repr, self._sources.items()))),
        ]
        said += [self.regimes[name].model_dump_json() for name in sorted(self.regimes)]
        return _digest([*said, self._detection])

    def _applied(self, tenant: str, source: str | None) -> list[Applied]:
        known = tenant in self._tenants
        found = [self._tenants[tenant] if known else self._default]
        patterns = self._sources.get(tenant if known else None, {})
        if source is not None:
            found += [patterns[each] for each in sorted(patterns) if each == source or fnmatchcase(source, each)]
        return found

    def _combined(self, applied: Sequence[Applied]) -> Policy:
        names = tuple(sorted({name for each in applied for name in each.regimes}))
        regimes = [self.regimes[name] for name in names]
        policy = Policy(
            regimes=names,
            rules=tuple(_rule(regime.regime, rule) for regime in regimes for rule in regime.rules),
            minima=_minima(regimes, applied),
            purposes=_purposes(regimes, applied),
            require_purpose=any(r.duties.require_purpose for r in regimes) or any(a.require_purpose for a in applied),
            default_purpose=next((a.default_purpose for a in reversed(applied) if a.default_purpose), None),
            keep=tuple(
                Kept(each.category, each.keep_days, RuleName(r.regime, each.id, each.article))
                for r in regimes
                for each in r.duties.keep
            ),
            expire=_expiries(regimes, applied),
            caps=_caps(regimes, applied),
            residency=_residency(regimes, applied),
            categories=frozenset(category for each in applied for category in each.categories),
        )
        return _versioned(policy, self._detection)

    def _check(self) -> None:
        named = [(f"tenants.{name}", applied) for name, applied in self._tenants.items()]
        for tenant, applied in [("default", self._default), *named]:
            name = None if tenant == "default" else tenant.removeprefix("tenants.")
            everything = [(tenant, [applied])]
            for pattern, source in self._sources.get(name, {}).items():
                everything.append((f"{tenant}.sources.{pattern}", [applied, source]))
            for path, parts in everything:
                self._check_one(f"args.compliance.{path}", parts)

    def _check_one(self, path: str, parts: Sequence[Applied]) -> None:
        applied = parts[-1]
        for place, name in enumerate(applied.regimes):
            if name not in self.regimes:
                known = ", ".join(sorted({*self.regimes, *packaged()}))
                raise ConfigurationError(f"{path}.regimes.{place}: {name!r} is no regime; allowed: {known}")
        for key, categories in (("retention_days", applied.retention_days), ("categories", applied.categories)):
            for category in categories:
                if category not in CATEGORIES and not (category == ANY and key == "retention_days"):
                    allowed = ", ".join(sorted(CATEGORIES))
                    raise ConfigurationError(f"{path}.{key}: {category!r} is no category; allowed: {allowed}")
        purposes = self._combined(parts).purposes
        if applied.default_purpose is not None and applied.default_purpose not in purposes:
            allowed = ", ".join(sorted(purposes)) or "none is known here"
            raise ConfigurationError(f"{path}.default_purpose: {applied.default_purpose!r} is none; allowed: {allowed}")


def _rule(regime: str, text: RuleText) -> Rule:
    return Rule(
        RuleName(regime, text.id, text.article),
        text.at,
        text.action,
        expand(text.entities),
        frozenset(text.categories),
        frozenset(text.reveal.purposes if text.reveal else ()),
        frozenset(text.reveal.roles if text.reveal else ()),
    )


def _minima(regimes: Sequence[Regime], applied: Sequence[Applied]) -> tuple[Minimum, ...]:
    found = [
        Minimum(each.category, each.minimum, RuleName(r.regime, each.id, each.article))
        for r in regimes
        for each in r.duties.labels
    ]
    said = RuleName(OPERATOR, "label", "args.compliance")
    return tuple(found + [Minimum(ANY, each.label, said) for each in applied if each.label is not None])


def _purposes(regimes: Sequence[Regime], applied: Sequence[Applied]) -> dict[str, Purpose]:
    found: dict[str, Purpose] = {}
    for regime in regimes:
        for name, text in regime.duties.purposes.items():
            by = RuleName(regime.regime, name, text.article)
            purpose = Purpose(text.basis, by, frozenset(text.roles), text.reveals, text.opt_out)
            found[name] = _stricter(found[name], purpose) if name in found else purpose
    for each in applied:
        for name, said in each.purposes.items():
            by = RuleName(OPERATOR, name, "args.compliance")
            found[name] = Purpose(said["basis"], by, frozenset(said["roles"]), said["reveals"], True)
    return found


def _stricter(one: Purpose, other: Purpose) -> Purpose:
    first, second = sorted((one, other), key=lambda each: _BASES.index(each.basis) if each.basis in _BASES else 2)
    roles = first.roles & second.roles if first.roles and second.roles else first.roles or second.roles
    if first.roles and second.roles and not roles:
        return Purpose("forbidden", first.by)
    return Purpose(first.basis, first.by, roles, first.reveals and second.reveals, first.opt_out or second.opt_out)


def _expiries(regimes: Sequence[Regime], applied: Sequence[Applied]) -> tuple[Kept, ...]:
    found = [
        Kept(each.category, each.expire_days, RuleName(r.regime, each.id, each.article))
        for r in regimes
        for each in r.duties.expire
    ]
    said = RuleName(OPERATOR, "retention_days", "args.compliance")
    found += [Kept(category, days, said) for each in applied for category, days in sorted(each.retention_days.items())]
    return tuple(found)


def _caps(regimes: Sequence[Regime], applied: Sequence[Applied]) -> tuple[Cap, ...]:
    found = [
        Cap(each.category, each.at_most, RuleName(r.regime, each.id, each.article), each.roles, each.purposes)
        for r in regimes
        for each in r.duties.passages
    ]
    said = RuleName(OPERATOR, "passages", "args.compliance")
    return tuple(found + [Cap(ANY, each.passages, said) for each in applied if each.passages is not None])


def _residency(regimes: Sequence[Regime], applied: Sequence[Applied]) -> frozenset[str] | None:
    said = [frozenset(each.residency) for each in applied if each.residency]
    if said:
        return frozenset.intersection(*said)
    return frozenset() if any(regime.duties.residency_required for regime in regimes) else None


def _versioned(policy: Policy, detection: str) -> Policy:
    # What decides at ingest: a change of an answer's rules needs no document to be read again.
    parts: list[Any] = [SCREENING_VERSION, detection, policy.rules_at("ingest"), policy.minima, policy.keep]
    parts += [policy.expire, sorted(policy.categories), sorted(policy.residency or ()), policy.residency is None]
    return _with(policy, _digest([_plain(part) for part in parts]))


def _with(policy: Policy, version: str) -> Policy:
    values = {name: getattr(policy, name) for name in Policy.__slots__}
    return Policy(**values | {"version": version})


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(map(str, value))
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "__slots__") and not isinstance(value, str | int | float):
        return [_plain(getattr(value, name)) for name in value.__slots__]
    return str(value)


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
