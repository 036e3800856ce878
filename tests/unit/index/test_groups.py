from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.ledger import Ledger
from policies.errors import InvalidRequest, Unavailable
from policies.groups import Membership, expand

NAMES = ["a", "b", "c", "d"]
edges = st.lists(
    st.builds(
        Membership,
        st.one_of(st.sampled_from(["user:ada", "user:bob"]), st.sampled_from(NAMES).map("group:{}".format)),
        st.sampled_from(NAMES),
    ),
    max_size=8,
)
numbers = count()


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edges=edges, other=edges, held=st.frozensets(st.sampled_from(NAMES), max_size=2))
def test_the_ledger_expands_as_the_definition_says(
    ledger: Ledger, edges: list[Membership], other: list[Membership], held: frozenset[str]
) -> None:
    tenant = f"tenant-{next(numbers)}"
    ledger.groups.replace(tenant, "ldap", edges)
    ledger.groups.replace(f"{tenant}-other", "ldap", other)
    for _ in range(2):  # the second time from memory
        assert ledger.groups.expand(tenant, held, "ada") == expand(edges, held, "ada")
    assert set(ledger.groups.explain(tenant, held, "ada")) == expand(edges, held, "ada")


def test_a_change_holds_at_the_next_question_also_in_another_process(ledger: Ledger, database_url: str) -> None:
    other = Ledger(database_url)
    try:
        assert other.groups.expand("acme", frozenset(), "ada") == frozenset()
        ledger.groups.replace("acme", "ldap", [Membership("user:ada", "staff"), Membership("group:staff", "all")])
        assert other.groups.expand("acme", frozenset(), "ada") == {"staff", "all"}
        ledger.groups.remove("acme", member="group:staff")
        assert other.groups.expand("acme", frozenset(), "ada") == {"staff"}
        ledger.groups.replace("acme", "ldap", [Membership("group:x", "y")])
        assert other.groups.expand("acme", frozenset(), "ada") == frozenset()
    finally:
        other.close()


def test_an_origin_replaces_its_own_memberships_and_no_others(ledger: Ledger) -> None:
    ledger.groups.replace("acme", "ldap", [Membership("user:ada", "staff"), Membership("user:bob", "staff")])
    ledger.groups.replace("acme", "hr", [Membership("user:ada", "staff"), Membership("user:ada", "board")])
    ledger.groups.replace("acme", "ldap", [Membership("user:bob", "staff")])
    assert [(k.group, k.member, k.origin) for k in ledger.groups.memberships("acme")] == [
        ("board", "user:ada", "hr"),
        ("staff", "user:ada", "hr"),
        ("staff", "user:bob", "ldap"),
    ]
    assert ledger.groups.memberships("other") == []


def test_members_of_one_group_are_set_without_the_others_of_its_origin(ledger: Ledger) -> None:
    ledger.groups.replace("acme", "command", [Membership("user:ada", "a"), Membership("user:ada", "b")])
    ledger.groups.replace("acme", "command", [Membership("user:bob", "a")], group="a")
    kept = [(k.group, k.member) for k in ledger.groups.memberships("acme")]
    assert kept == [("a", "user:bob"), ("b", "user:ada")]
    with pytest.raises(InvalidRequest):
        ledger.groups.replace("acme", "command", [Membership("user:bob", "b")], group="a")


def test_a_replacement_that_fails_half_way_changes_nothing(ledger: Ledger) -> None:
    ledger.groups.replace("acme", "ldap", [Membership("user:ada", "staff")])
    before = ledger.groups.version("acme")
    with pytest.raises(Exception, match=r".+"):
        ledger.groups.replace("acme", "ldap", [Membership("user:bob", "staff"), Membership(None, "staff")])  # type: ignore[arg-type]
    assert [k.member for k in ledger.groups.memberships("acme")] == ["user:ada"]
    assert ledger.groups.version("acme") == before


def test_names_that_no_column_can_hold_are_no_members_and_no_error(ledger: Ledger) -> None:
    ledger.groups.replace("acme", "ldap", [Membership("user:ada", "staff")])
    assert ledger.groups.expand("acme", frozenset({"x\x00", "\ud800"}), "a\x00") == {"x\x00", "\ud800"}
    assert ledger.groups.expand("\x00", frozenset({"a"}), "ada") == {"a"}


def test_a_ledger_that_does_not_answer_gives_no_fewer_groups(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.groups.replace("acme", "ldap", [Membership("user:ada", "staff")])
    assert ledger.groups.expand("acme", frozenset({"x"}), "ada") == {"x", "staff"}

    def down(_: object) -> None:
        raise Unavailable("the ledger database is locked")

    monkeypatch.setattr(ledger.groups._database, "read", down)
    with pytest.raises(Unavailable):
        ledger.groups.expand("acme", frozenset({"x"}), "ada")
