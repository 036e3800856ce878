"""Regimes: what comes with it, what an operator writes wrong, and how several are put together."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from policies.compliance.actions import Action
from policies.compliance.combining import Applied, Policies
from policies.compliance.policy import Rules
from policies.compliance.regime import packaged, read_regime, read_regimes
from policies.errors import ConfigurationError
from policies.labels import Label
from policies.pii.findings import GROUPS, Finding

GOOD = {
    "regime": "house",
    "title": "House rules",
    "rules": [
        {
            "id": "mail",
            "article": "House 1",
            "why": "so",
            "at": "answer",
            "entities": ["EMAIL_ADDRESS"],
            "action": "mask",
        }
    ],
}


def file(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "house.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


def rule(**changes: object) -> list[dict[str, object]]:
    return [{**GOOD["rules"][0], **changes}]


def test_the_four_regimes_are_there_and_every_rule_names_its_article():
    assert list(packaged()) == ["ccpa", "gdpr", "hipaa", "sox"]
    starts = {
        "gdpr": ("GDPR Art.",),
        "hipaa": ("45 CFR 16",),
        "sox": ("15 USC", "17 CFR", "18 USC"),
        "ccpa": ("Cal. Civ",),
    }
    for name, regime in read_regimes(packaged()).items():
        duties = regime.duties
        parts = [*regime.rules, *duties.labels, *duties.keep, *duties.passages, *duties.purposes.values()]
        assert parts
        assert all(part.article.startswith(starts[name]) for part in parts), name
        assert "complian" not in regime.note.lower()


def test_every_identifier_of_the_safe_harbor_is_changed_in_health_documents():
    policy = Policies(Applied(regimes=("hipaa",))).of("acme", "s")
    rules = Rules(policy.rules_at("answer"), {"PHI"})
    for entity in GROUPS["HIPAA_SAFE_HARBOR"]:
        decided = rules.decide([Finding(entity, 0, 1, 1, "t")])
        assert decided, entity
        assert decided[0].action >= Action.GENERALISE, entity


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"rules": rule(action="shred")}, "rules.0.action", "allowed: keep, generalise"),
        ({"rules": rule(entities=["EMAIL"])}, "rules.0.entities", "'EMAIL' is neither an entity"),
        ({"rules": rule(categories=["PHY"])}, "rules.0.categories.0", "no such category"),
        ({"rules": rule(at="noon")}, "rules.0.at", "ingest"),
        ({"rules": rule(severity=1)}, "rules.0.severity", "not permitted"),
        ({"rules": rule() + rule()}, "rules", "two rules are called mail"),
        ({"rules": rule(reveal={"purposes": ["fun"]})}, "the file", "'fun' is none of duties.purposes"),
        ({"rules": rule(at="ingest", reveal={"purposes": ["fun"]})}, "rules.0", "cannot be revealed"),
        ({"rules": rule(entities=[])}, "rules.0", "name entities or categories"),
        (
            {"duties": {"labels": [{"id": "x", "article": "Art", "category": "PHI", "minimum": "top"}]}},
            "minimum",
            "top",
        ),
        ({"duties": {"purposes": {"p": {"article": "Art", "basis": "whim"}}}}, "duties.purposes.p.basis", "consent"),
        ({"extra": 1}, "extra", "not permitted"),
    ],
)
def test_a_regime_that_is_wrong_is_refused_with_the_keys_path(tmp_path, changes, path, says):
    with pytest.raises(ConfigurationError) as raised:
        read_regime(file(tmp_path, **changes))
    assert "house.yaml: " in raised.value.detail
    assert path in raised.value.detail
    assert says in raised.value.detail


def test_a_file_of_the_operators_adds_a_regime_and_may_not_take_a_name(tmp_path):
    assert read_regimes(["house"], [file(tmp_path)])["house"].title == "House rules"
    with pytest.raises(ConfigurationError, match="there is another gdpr"):
        read_regimes([], [file(tmp_path, regime="gdpr")])


@pytest.mark.parametrize(
    ("made", "path"),
    [
        ({"default": Applied(regimes=("gpdr",))}, "args.compliance.default.regimes.0: 'gpdr' is no regime"),
        (
            {"default": Applied(), "tenants": {"acme": Applied(regimes=("sox", "x"))}},
            "args.compliance.tenants.acme.regimes.1: 'x'",
        ),
        (
            {"default": Applied(), "tenants": {"a": Applied()}, "sources": {"a": {"hr/*": Applied(regimes=("y",))}}},
            "args.compliance.tenants.a.sources.hr/*.regimes.0: 'y'",
        ),
        ({"default": Applied(retention_days={"memos": 3})}, "args.compliance.default.retention_days: 'memos'"),
        ({"default": Applied(categories=("memos",))}, "args.compliance.default.categories: 'memos'"),
        ({"default": Applied(default_purpose="fun")}, "args.compliance.default.default_purpose: 'fun'"),
    ],
)
def test_what_applies_and_does_not_exist_is_refused_with_the_keys_path(made, path):
    with pytest.raises(ConfigurationError) as raised:
        Policies(**made)
    assert raised.value.detail.startswith(path)


def test_a_sources_regimes_come_on_top_of_its_tenants():
    policies = Policies(
        Applied(), {"acme": Applied(regimes=("gdpr",))}, {"acme": {"clinic/*": Applied(regimes=("hipaa",))}}
    )
    assert policies.of("acme", "wiki").regimes == ("gdpr",)
    assert policies.of("acme", "clinic/notes").regimes == ("gdpr", "hipaa")
    assert policies.of("other", "clinic/notes").regimes == ()


def test_of_rules_that_meet_the_strictest_wins_whatever_the_order(tmp_path):
    mild = file(tmp_path, rules=rule(action="generalise"), regime="mild").rename(tmp_path / "mild.yaml")
    strict = file(tmp_path, rules=rule(action="drop_field"), regime="strict").rename(tmp_path / "strict.yaml")
    for names in (("mild", "strict"), ("strict", "mild")):
        policy = Policies(Applied(regimes=names), files=[mild, strict]).of("acme", None)
        [decided] = Rules(policy.rules, set()).decide([Finding("EMAIL_ADDRESS", 0, 1, 1, "t")])
        assert (decided.action, decided.by.regime) == (Action.DROP_FIELD, "strict")


def test_the_version_changes_with_what_decides_at_ingest_and_not_with_answers(tmp_path):
    def version(**changes: object) -> str:
        return Policies(Applied(regimes=("house",)), files=[file(tmp_path, **changes)]).of("acme", "s").version

    plain = version()
    assert version() == plain
    assert version(rules=rule(action="drop_field")) == plain
    assert version(rules=rule(at="ingest")) != plain
    assert Policies(Applied()).of("acme", "s").version != Policies(Applied(regimes=("gdpr",))).of("acme", "s").version


def test_a_change_for_one_source_leaves_the_versions_of_others():
    before = Policies(Applied(), {"a": Applied()}, {"a": {"hr": Applied()}})
    after = Policies(Applied(), {"a": Applied()}, {"a": {"hr": Applied(label=Label.RESTRICTED)}})
    assert before.of("a", "wiki").version == after.of("a", "wiki").version
    assert before.of("a", "hr").version != after.of("a", "hr").version


def test_the_highest_label_that_any_rule_demands_holds():
    policy = Policies(Applied(regimes=("gdpr", "sox"), label=Label.CONFIDENTIAL)).of("acme", None)
    assert policy.minimum({"PHI", "personal_data"}).label is Label.RESTRICTED
    assert policy.minimum(set()).label is Label.CONFIDENTIAL
    assert Policies(Applied(regimes=("gdpr",))).of("acme", None).minimum(set()) is None


def test_the_longest_keeping_and_the_shortest_expiry_hold():
    policy = Policies(Applied(regimes=("sox",), retention_days={"*": 90, "financial_record": 30})).of("acme", None)
    assert policy.kept({"financial_record"}).days == 2557
    assert policy.kept({"PHI"}) is None
    assert policy.expiry({"financial_record"}).days == 30
    assert policy.expiry({"PHI"}).days == 90
