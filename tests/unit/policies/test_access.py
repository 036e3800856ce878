"""A name is spelt in one way, in rules and in tokens; a rule that could never mean anybody is refused."""

from __future__ import annotations

import pytest

from policies.access import AccessRule
from policies.errors import InvalidRequest
from policies.principals import EVERYONE, Principal, bare_name

CAFE, DECOMPOSED = "caf\u00e9", "cafe\u0301"
NEVER = {
    "space in front": " contractors",
    "space behind": "contractors ",
    "no-break space": "contractors\u00a0",
    "nothing": "",
    "blank": "  ",
    "zero-width space": "contrac\u200btors",
    "zero-width joiner": "contractors\u200d",
    "byte order mark": "\ufeffcontractors",
    "soft hyphen": "contrac\u00adtors",
    "turned around": "\u202esrotcartnoc",
    "an isolate": "\u2066contractors\u2069",
    "a line separator": "contractors\u2028",
    "a paragraph separator": "a\u2029b",
    "NUL": "a\x00",
    "newline": "a\nb",
    "DEL": "a\x7f",
    "a C1 control": "a\x85b",
    "a lone surrogate": "a\ud800",
    "too long": "a" * 257,
}


@pytest.mark.parametrize("kind", ["user", "group", "role"])
@pytest.mark.parametrize("name", list(NEVER.values()), ids=list(NEVER))
def test_a_name_that_no_token_can_have_is_refused(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match="a name"):
        bare_name(name)
    with pytest.raises(InvalidRequest, match="is no principal"):
        AccessRule.of(["everyone"], [f"{kind}:{name}"])
    with pytest.raises(InvalidRequest, match="is no principal"):
        AccessRule.of([f"{kind}:{name}"])


@pytest.mark.parametrize("name", ["", "finance", "Everyone", "everyone ", "Group:a", "tenant:a", ":a", "team: a"])
def test_what_is_no_principal_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="user:NAME, group:NAME, role:NAME or everyone"):
        AccessRule.of([name])


def test_a_refusal_shows_what_cannot_be_seen() -> None:
    with pytest.raises(InvalidRequest, match=r"group:a\\u200b"):
        AccessRule.of(deny=["group:a\u200b"])


@pytest.mark.parametrize("written", [CAFE, DECOMPOSED], ids=["composed", "decomposed"])
def test_a_denial_holds_however_the_name_is_composed(written: str) -> None:
    rule = AccessRule.of([EVERYONE], [f"group:{written}"])

    assert not rule.permits(Principal("ada", "acme", groups=frozenset({bare_name(DECOMPOSED)})))
    assert not rule.permits(Principal("ada", "acme", groups=frozenset({bare_name(CAFE)})))
    assert rule == AccessRule.of([EVERYONE], [f"group:{CAFE}"])


def test_case_and_inner_spaces_are_a_part_of_a_name() -> None:
    rule = AccessRule.of(["group:Domain Users", "user:Łukasz 北京", "role:a:b"])

    assert rule.permits(Principal("x", "t", groups=frozenset({"Domain Users"})))
    assert not rule.permits(Principal("x", "t", groups=frozenset({"domain users"})))
    assert rule.permits(Principal("Łukasz 北京", "t"))
    assert rule.permits(Principal("x", "t", roles=frozenset({"a:b"})))


def test_denial_wins_and_nobody_is_everyone_of_nothing() -> None:
    ada = Principal("ada", "t", groups=frozenset({"g"}))

    assert not AccessRule.of(["user:ada"], ["group:g"]).permits(ada)
    assert not AccessRule.of().permits(ada)
