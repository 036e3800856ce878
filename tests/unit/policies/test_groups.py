from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import InvalidRequest, Unavailable
from policies.groups import MAX_GROUPS, Membership, expand, paths

NAMES = ["a", "b", "c", "d", "e"]
edges = st.lists(
    st.builds(
        Membership,
        st.one_of(st.sampled_from(["user:ada", "user:bob"]), st.sampled_from(NAMES).map("group:{}".format)),
        st.sampled_from(NAMES),
    ),
    max_size=12,
)


@given(edges, st.frozensets(st.sampled_from(NAMES), max_size=2))
def test_expansion_is_the_smallest_set_closed_under_membership(edges: list[Membership], held: frozenset[str]) -> None:
    names = {"user:ada", *(f"group:{group}" for group in held)}
    while more := {f"group:{edge.group}" for edge in edges if edge.member in names} - names:
        names |= more
    assert expand(edges, held, "ada") == {name.removeprefix("group:") for name in names - {"user:ada"}}


def test_a_circle_ends_and_puts_everyone_in_it_into_all_of_it() -> None:
    circle = [Membership("group:a", "b"), Membership("group:b", "c"), Membership("group:c", "a")]
    assert expand(circle, ["b"], "ada") == {"a", "b", "c"}


def test_a_long_chain_is_followed_to_its_end() -> None:
    chain = [Membership(f"group:{n}", str(n + 1)) for n in range(10_000)]
    assert len(expand(chain, ["0"], "ada")) == 10_001


def test_too_many_groups_are_refused_and_not_cut_short() -> None:
    many = [Membership("user:ada", str(n)) for n in range(MAX_GROUPS + 1)]
    with pytest.raises(Unavailable, match="more than"):
        expand(many, [], "ada")
    assert len(expand(many[:-1], [], "ada")) == MAX_GROUPS


def test_a_user_and_a_group_of_one_name_are_two() -> None:
    assert expand([Membership("group:ada", "secret")], [], "ada") == frozenset()
    assert expand([Membership("user:finance", "secret")], ["finance"], "ada") == {"finance"}


def test_ways_are_shortest_and_begin_with_what_the_person_has() -> None:
    edges = [
        Membership("user:ada", "controllers"),
        Membership("group:controllers", "finance"),
        Membership("group:staff", "finance"),
    ]
    assert paths(edges, ["staff"], "ada") == {
        "staff": ("group:staff",),
        "controllers": ("user:ada", "group:controllers"),
        "finance": ("group:staff", "group:finance"),
    }


@pytest.mark.parametrize(
    ("member", "group"),
    [
        ("role:admin", "staff"),  # roles are the token's word alone
        ("everyone", "staff"),
        ("ada", "staff"),
        ("user:", "staff"),
        ("user:ada", ""),
        ("user:ada", "sta\u200bff"),
        ("group:staff", "staff"),
        ("group:staff", "group:staff"),
    ],
)
def test_what_is_no_membership_is_refused(member: str, group: str) -> None:
    with pytest.raises(InvalidRequest):
        Membership.of(member, group)


def test_names_are_spelt_as_in_tokens() -> None:
    assert Membership.of("user:Jose\u0301", "group:cafe\u0301") == Membership("user:Jos\u00e9", "caf\u00e9")
