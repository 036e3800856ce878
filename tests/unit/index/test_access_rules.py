from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from index.access_rules import Visible
from index.document import DocumentRef
from index.ledger import Ledger
from policies.access import NOBODY, AccessRule
from policies.errors import InvalidRequest, NotFound
from policies.labels import Label
from policies.principals import EVERYONE, Principal

NAMES = [EVERYONE, "user:ada", "user:bob", "group:a", "group:b", "group:c", "role:a", "role:auditor"]
rules = st.builds(
    AccessRule.of,
    st.sets(st.sampled_from(NAMES), max_size=4),
    st.sets(st.sampled_from(NAMES), max_size=3),
    st.sampled_from(Label),
)
callers = st.builds(
    Principal,
    subject=st.sampled_from(["ada", "bob", "eve", "a"]),
    tenant=st.just("replaced below"),
    roles=st.frozensets(st.sampled_from(["a", "auditor"])),
    groups=st.frozensets(st.sampled_from(["a", "b", "c"])),
    clearance=st.sampled_from(Label),
)
numbers = count()


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


def publish(ledger: Ledger, tenant: str, external_id: str, rule: AccessRule) -> tuple[str, int, int]:
    ref = DocumentRef(tenant, "wiki", external_id, external_id, None, "1", rule)
    version = ledger.begin_version(ref, "hash", 1, "run")
    assert ledger.flip(ref, version)
    return ref.document_id, version, ledger.intern_rule(ledger.tenant_id(tenant), rule)


def pairs(keys: Iterable[tuple[str, int, int]]) -> list[tuple[str, int]]:
    return [(document_id, version) for document_id, version, _ in keys]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.lists(rules, min_size=1, max_size=6), callers=st.lists(callers, min_size=1, max_size=4))
@example(
    rules=[NOBODY, AccessRule.of([EVERYONE], ["group:a"]), AccessRule.of([], ["user:ada"])],
    callers=[Principal("ada", ""), Principal("bob", "", groups=frozenset({"a"}))],
)
@example(
    rules=[AccessRule.of([EVERYONE], label=label) for label in Label],
    callers=[Principal("ada", "", clearance=clearance) for clearance in reversed(Label)],
)
@example(
    rules=[AccessRule.of([EVERYONE], label=label) for label in Label],
    callers=[Principal("ada", "", clearance=clearance) for clearance in Label],
)
def test_both_gates_equal_the_definition(ledger: Ledger, rules: list[AccessRule], callers: list[Principal]) -> None:
    tenant = f"tenant-{next(numbers)}"
    keys = {publish(ledger, tenant, str(number), rule): rule for number, rule in enumerate(rules)}
    for shape in callers:
        caller = replace(shape, tenant=tenant)
        permitted = {key for key, rule in keys.items() if rule.permits(caller)}
        visible = ledger.visible_rules(caller)
        assert set(visible.access_ids if visible else ()) == {access_id for _, _, access_id in permitted}
        assert {document.key for document in ledger.gate(pairs(keys), caller).values()} == set(pairs(permitted))
        assert {record.document_id for record in ledger.list(caller, 100)} == {key[0] for key in permitted}
        stranger = replace(shape, tenant=tenant + "-other")
        assert ledger.visible_rules(stranger) is None
        assert ledger.gate(pairs(keys), stranger) == {}


@given(rule=rules)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rule_comes_back_as_it_went_in(ledger: Ledger, rule: AccessRule) -> None:
    tenant = ledger.tenant_id("acme")
    access_id = ledger.intern_rule(tenant, rule)
    assert ledger.rule(access_id) == rule
    assert ledger.intern_rule(tenant, AccessRule.of(rule.allow, rule.deny, rule.label)) == access_id


def test_rules_that_differ_in_their_label_alone_are_different_rules(ledger: Ledger, database_url: str) -> None:
    tenant = ledger.tenant_id("acme")
    ids = [ledger.intern_rule(tenant, AccessRule.of(["group:a"], label=label)) for label in Label]
    assert len(set(ids)) == len(Label)
    other = Ledger(database_url)  # remembers nothing
    assert [other.intern_rule(tenant, AccessRule.of(["group:a"], label=label)) for label in Label] == ids
    assert [other.rule(access_id).label for access_id in ids] == list(Label)
    other.close()


def test_a_raised_label_hides_the_document_at_once_and_a_lowered_one_shows_it(ledger: Ledger) -> None:
    internal, cleared = Principal("ada", "acme"), Principal("ada", "acme", clearance=Label.RESTRICTED)
    document_id, version, _ = publish(ledger, "acme", "a.md", AccessRule.of([EVERYONE]))
    for label, seen in [(Label.CONFIDENTIAL, False), (Label.PUBLIC, True), (Label.RESTRICTED, False)]:
        ledger.set_rule(document_id, AccessRule.of([EVERYONE], label=label))
        assert (ledger.get(internal, document_id) is not None) == seen
        assert bool(ledger.gate([(document_id, version)], internal)) == seen
        assert ledger.get(cleared, document_id) is not None


def test_ledger_from_before_labels_is_upgraded_and_keeps_its_rules(ledger: Ledger, database_url: str) -> None:
    rule = AccessRule.of(["group:finance", EVERYONE], ["user:bob"])
    key = publish(ledger, "acme", "a.md", rule)
    ledger.close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX access_members_by_name"))
        connection.execute(
            text("CREATE INDEX access_members_by_name ON access_members (tenant_id, name, access_id, deny)")
        )
        for table in ("access_rules", "access_members"):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN label"))
        connection.execute(text("UPDATE schema_version SET version = 2 WHERE component = 'ledger'"))
        # What the program before labels wrote: the hash of the names alone.
        hashes = connection.scalars(text("SELECT key_hash FROM access_rules")).all()
    engine.dispose()
    assert hashes == ["3fe85ce0c8c22d2429c94ff2fcc8494915e2a9e120cd66c8e84f56b15cb69e11"]
    upgraded = Ledger(database_url)
    assert upgraded.rule(key[2]) == rule
    assert upgraded.intern_rule(upgraded.tenant_id("acme"), rule) == key[2]
    assert set(upgraded.gate(pairs([key]), Principal("ada", "acme"))) == {key[0]}
    assert upgraded.gate(pairs([key]), Principal("ada", "acme", clearance=Label.PUBLIC)) == {}
    with pytest.raises(DBAPIError, match=r"(?i)check"), create_engine(database_url).begin() as connection:
        connection.execute(text("UPDATE access_rules SET label = 4"))
    upgraded.close()


def test_clearance_is_a_part_of_what_is_remembered(ledger: Ledger) -> None:
    low, high = (
        ledger.intern_rule(ledger.tenant_id("acme"), AccessRule.of([EVERYONE], label=label))
        for label in (Label.PUBLIC, Label.RESTRICTED)
    )
    expected = {Label.RESTRICTED: (low, high), Label.PUBLIC: (low,)}
    for clearance in [Label.RESTRICTED, Label.PUBLIC] * 2:
        visible = ledger.visible_rules(Principal("ada", "acme", clearance=clearance))
        assert visible is not None and visible.access_ids == expected[clearance]


def test_equal_rules_of_two_tenants_are_two_rules(ledger: Ledger) -> None:
    public = AccessRule.of([EVERYONE])
    one, two = (ledger.intern_rule(ledger.tenant_id(name), public) for name in ("acme", "evil"))
    assert one != two
    visible = ledger.visible_rules(Principal("eve", "evil"))
    assert visible is not None and visible.access_ids == (two,)


def test_second_ledger_finds_the_same_rule(ledger: Ledger, database_url: str) -> None:
    rule = AccessRule.of(["group:finance"])
    access_id = ledger.intern_rule(ledger.tenant_id("acme"), rule)
    other = Ledger(database_url)
    assert other.intern_rule(other.tenant_id("acme"), rule) == access_id
    other.close()


def test_new_rule_of_another_process_is_seen_despite_the_cache(ledger: Ledger, database_url: str) -> None:
    ada = Principal("ada", "acme", groups=frozenset({"finance"}))
    tenant = ledger.tenant_id("acme")
    first = ledger.intern_rule(tenant, AccessRule.of([EVERYONE]))
    for _ in range(2):
        visible = ledger.visible_rules(ada)
        assert visible is not None and visible.access_ids == (first,)
    other = Ledger(database_url)
    second = other.intern_rule(tenant, AccessRule.of(["group:finance"]))
    other.intern_rule(tenant, AccessRule.of(["group:legal"]))
    other.close()
    visible = ledger.visible_rules(ada)
    assert visible is not None and visible.access_ids == (first, second)


def test_caller_in_thousands_of_groups_is_answered(ledger: Ledger) -> None:
    groups = frozenset(f"g{number}" for number in range(12_000))
    caller = Principal("ada", "acme", groups=groups)
    key = publish(ledger, "acme", "a.md", AccessRule.of(["group:g11999"]))
    denied = publish(ledger, "acme", "b.md", AccessRule.of(["group:g3"], ["group:g11998"]))
    visible = ledger.visible_rules(caller)
    assert visible is not None and visible.access_ids == (key[2],)
    assert set(ledger.gate(pairs([key, denied]), caller)) == {key[0]}


def test_rule_with_thousands_of_names_is_kept_whole(ledger: Ledger) -> None:
    rule = AccessRule.of([f"user:u{number}" for number in range(9_000)], ["user:u7"])
    access_id = ledger.intern_rule(ledger.tenant_id("acme"), rule)
    assert ledger.rule(access_id) == rule
    assert ledger.visible_rules(Principal("u7", "acme")) is None
    assert ledger.visible_rules(Principal("u8999", "acme")) is not None


@pytest.mark.parametrize("name", ["nul\x00", "lone \ud800", "quote ' \" ; --", "]", "\\", "ünïcode 🙂"])
def test_odd_names_of_callers_neither_fail_nor_match(ledger: Ledger, name: str) -> None:
    public = publish(ledger, "acme", "a.md", AccessRule.of([EVERYONE]))
    publish(ledger, "acme", "b.md", AccessRule.of(["group:other"]))
    caller = Principal(name, "acme", groups=frozenset({name}))
    visible = ledger.visible_rules(caller)
    assert visible is not None and visible.access_ids == (public[2],)
    assert set(ledger.gate(pairs([public]), caller)) == {public[0]}
    assert ledger.visible_rules(Principal("ada", name)) is None
    assert ledger.gate(pairs([public]), Principal("ada", name)) == {}


def test_name_that_cannot_be_stored_is_refused_in_a_rule(ledger: Ledger) -> None:
    with pytest.raises(InvalidRequest, match="cannot be stored"):
        ledger.intern_rule(ledger.tenant_id("acme"), AccessRule(frozenset({"user:\ud800"})))


def test_gate_without_hits_is_empty(ledger: Ledger) -> None:
    assert ledger.gate([], Principal("ada", "acme")) == {}


def test_gate_refuses_each_part_of_the_key_that_differs(ledger: Ledger) -> None:
    document_id, version, _ = publish(ledger, "acme", "a.md", AccessRule.of([EVERYONE]))
    ada = Principal("ada", "acme")
    assert ledger.gate([(document_id, version + 1), ("0" * 32, 1)], ada) == {}
    assert set(ledger.gate([(document_id, version)], ada)) == {document_id}


def test_unknown_rule_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.rule(4711)


def test_unknown_tenant_sees_nothing_and_is_not_created(ledger: Ledger) -> None:
    assert ledger.visible_rules(Principal("ada", "acme")) is None
    assert ledger.find_tenant("acme") is None


def test_visible_has_no_empty_state() -> None:
    with pytest.raises(ValueError, match="no Visible"):
        Visible(1, ())
