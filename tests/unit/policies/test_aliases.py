from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.access import NOBODY, AccessRule
from policies.aliases import Aliases
from policies.errors import InvalidRequest
from policies.labels import Label
from policies.principals import MAX_NAME_CHARS

GROUPS = {"Finance Team": "finance", "All Staff": "staff"}
USERS = {"ada@example.org": "u-1"}


def aliases(groups: str = "keep", users: str = "keep") -> Aliases:
    return Aliases.of("wiki", GROUPS, USERS, groups, users)  # type: ignore[arg-type]


@pytest.mark.parametrize("unmapped", ["keep", "drop", "prefix"])
def test_mapped_names_become_ours_in_allow_and_deny(unmapped: str) -> None:
    rule = AccessRule.of(["group:Finance Team", "user:Ada@Example.org"], ["group:All Staff"])
    wanted = AccessRule.of(["group:finance", "user:u-1"], ["group:staff"])
    assert aliases(unmapped, unmapped).rule(rule) == wanted


@pytest.mark.parametrize(
    ("unmapped", "name"),
    [("keep", {"group:hr", "user:bob"}), ("drop", set()), ("prefix", {"group:wiki/hr", "user:wiki/bob"})],
)
def test_unmapped_names_that_are_allowed_stay_go_or_are_prefixed(unmapped: str, name: set[str]) -> None:
    assert aliases(unmapped, unmapped).rule(AccessRule.of(["group:hr", "user:bob"])).allow == name


@pytest.mark.parametrize("unmapped", ["drop", "prefix"])
@pytest.mark.parametrize("denied", ["group:hr", "user:bob", "group:finance team"])
def test_a_denied_name_that_cannot_be_mapped_leaves_the_document_to_nobody(unmapped: str, denied: str) -> None:
    rule = AccessRule.of(["everyone", "group:Finance Team"], [denied, "group:All Staff"], Label.RESTRICTED)
    found = aliases(unmapped, unmapped).rule(rule)
    assert found.allow == frozenset() and found.label == Label.RESTRICTED


def test_each_kind_has_its_own_word_on_unmapped_names() -> None:
    rule = AccessRule.of(["group:hr", "user:bob"], ["user:eve"])
    assert aliases(groups="drop").rule(rule) == AccessRule.of(["user:bob"], ["user:eve"])


def test_roles_everyone_and_the_label_stay() -> None:
    rule = AccessRule.of(["everyone", "role:auditor"], ["role:guest"], Label.CONFIDENTIAL)
    assert aliases("drop", "drop").rule(rule) == rule


def test_a_group_is_no_user_of_the_same_name_and_keeps_its_case() -> None:
    rule = AccessRule.of(["user:Finance Team", "group:ada@example.org", "group:finance team"])
    assert aliases("drop", "drop").rule(rule) == NOBODY


def test_two_names_that_become_one_deny_what_either_denies() -> None:
    both = Aliases.of("wiki", {"a": "x", "b": "x"}, {}, "drop", "drop")
    assert both.rule(AccessRule.of(["group:a"], ["group:b"])) == AccessRule.of(["group:x"], ["group:x"])


def test_a_prefixed_name_that_is_too_long_is_nobody_s() -> None:
    long = "a" * MAX_NAME_CHARS
    assert aliases("prefix").rule(AccessRule.of([f"group:{long}", "group:All Staff"])).allow == {"group:staff"}


@pytest.mark.parametrize(
    ("groups", "users"),
    [({"": "a"}, {}), ({"a": ""}, {}), ({}, {"a": "b\u200bc"}), ({}, {"A@x.org": "a", "a@x.org": "b"})],
)
def test_a_map_that_cannot_hold_is_refused(groups: dict[str, str], users: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        Aliases.of("wiki", groups, users, "keep", "keep")


names = st.sampled_from(["everyone", "role:a", "group:Finance Team", "group:hr", "user:ada@example.org", "user:bob"])
rules = st.builds(AccessRule.of, st.sets(names), st.sets(names))


@given(rules, st.sampled_from(["keep", "drop", "prefix"]), st.sampled_from(["keep", "drop", "prefix"]))
def test_no_rule_ever_loses_a_denial_while_it_still_allows_somebody(rule: AccessRule, groups: str, users: str) -> None:
    found = aliases(groups, users).rule(rule)
    assert found.allow == frozenset() or len(found.deny) == len(rule.deny)
    assert len(found.allow) <= len(rule.allow)


def test_without_maps_a_rule_stays_the_same_object() -> None:
    rule = AccessRule.of(["group:hr"], ["user:bob"])
    assert Aliases.of("wiki", {}, {}, "keep", "keep").rule(rule) is rule
