"""An explanation never contradicts what decides, and names the line or the name that decided."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.access import AccessRule
from policies.explanations import explain_permission, explain_rule
from policies.labels import Label
from policies.principals import EVERYONE, Principal
from policies.roles import Roles

ROLES = Roles.load(
    {
        "hr_keeper": {"permissions": ["documents:*@source/hr-*"], "clearance": "restricted", "tenants": ["acme"]},
        "editor": ["documents:write"],
    }
)


def caller(*roles: str, tenant: str = "acme") -> Principal:
    return Principal("ada", tenant, frozenset(roles))


@pytest.mark.parametrize(
    ("who", "permission", "resource", "allowed", "says"),
    [
        (caller("admin"), "rag:query", None, True, "role admin gives it: * (a wildcard, policies/roles.yaml.admin[0])"),
        (caller("user"), "rag:query", None, True, "role user gives it: rag:query (policies/roles.yaml.user[0])"),
        (caller("user"), "rag:upload", None, False, "role user does not give it: it gives rag:query"),
        (caller(), "rag:query", None, False, "the caller has no role"),
        (caller("boss"), "rag:query", None, False, "role boss is not known: it gives nothing"),
        (
            caller("hr_keeper"), "documents:delete", "source/hr-wiki", True,
            "role hr_keeper gives it: documents:*@source/hr-* "
            "(a wildcard, for source/hr-* only, identity.roles.hr_keeper.permissions[0])",
        ),
        (
            caller("hr_keeper"), "documents:delete", "source/crm", False,
            "role hr_keeper gives it elsewhere: documents:*@source/hr-* "
            "(a wildcard, for source/hr-* only, identity.roles.hr_keeper.permissions[0])",
        ),
        (caller("hr_keeper"), "documents:delete", None, False, "it is held for some sources only: ask with one"),
        (
            caller("hr_keeper", tenant="rival"), "documents:delete", "source/hr-wiki", False,
            "role hr_keeper gives nothing in the tenant rival: it holds in acme",
        ),
    ],
)  # fmt: skip
def test_a_permission_is_explained_by_the_line_that_decides(
    who: Principal, permission: str, resource: str | None, allowed: bool, says: str
) -> None:
    said = explain_permission(ROLES, who, permission, resource)

    assert said.allowed is allowed
    assert any(says in reason for reason in said.reasons), said.reasons


def test_roles_that_would_give_a_permission_are_named_for_this_tenant_and_source_alone() -> None:
    assert explain_permission(ROLES, caller("user"), "documents:delete").would_give == ("admin",)
    assert explain_permission(ROLES, caller("user"), "documents:delete", "source/hr-x").would_give == (
        "admin",
        "hr_keeper",
    )
    rival = caller("user", tenant="rival")
    assert explain_permission(ROLES, rival, "documents:delete", "source/hr-x").would_give == ("admin",)
    assert explain_permission(ROLES, caller("user"), "documents:write").would_give == ("admin", "editor")
    assert explain_permission(ROLES, caller("admin"), "documents:write").would_give == ()
    assert explain_permission(ROLES, caller("hr_keeper"), "rag:query").clearance is Label.RESTRICTED


names = st.sampled_from(["admin", "user", "readonly", "hr_keeper", "editor", "unknown"])


@settings(max_examples=200, deadline=None)
@given(
    st.frozensets(names),
    st.sampled_from(["acme", "rival"]),
    st.sampled_from(["rag:query", "rag:query:readonly", "documents:write", "documents:delete", "system:monitor"]),
    st.sampled_from([None, "source/hr-wiki", "source/crm"]),
)
def test_the_answer_is_that_of_what_decides_and_what_would_give_it_does(
    roles: frozenset[str], tenant: str, permission: str, resource: str | None
) -> None:
    who = Principal("ada", tenant, roles)
    said = explain_permission(ROLES, who, permission, resource)

    assert said.allowed == ROLES.allows(who, permission, resource)
    assert said.allowed == any(" gives it: " in reason for reason in said.reasons)
    for role in [each.name for each in ROLES.all()]:
        gives = ROLES.allows(Principal("ada", tenant, frozenset({role})), permission, resource)
        assert (role in said.would_give) == (gives and not said.allowed)


some = st.frozensets(st.sampled_from([EVERYONE, "user:ada", "group:a", "group:b", "role:r"]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(AccessRule.of, some, some, st.sampled_from(Label)),
    st.frozensets(st.sampled_from(["a", "b"])),
    st.sampled_from(Label),
)
def test_the_parts_of_a_rule_hold_together_just_where_it_permits(
    rule: AccessRule, groups: frozenset[str], clearance: Label
) -> None:
    who = Principal("ada", "acme", frozenset({"r"}), groups, clearance)

    assert all(check.holds for check in explain_rule(rule, who)) == rule.permits(who)


def test_a_rule_is_explained_by_the_names_that_matched_and_the_way_to_a_nested_group() -> None:
    rule = AccessRule.of(["group:finance", "group:hr"], ["group:contractors"], Label.CONFIDENTIAL)
    who = Principal("ada", "acme", groups=frozenset({"controllers", "finance", "contractors"}))
    ways = {"finance": ("user:ada", "group:controllers", "group:finance"), "contractors": ("group:contractors",)}
    label, allow, deny = explain_rule(rule, who, ways)

    assert (label.holds, label.why) == (False, "the document is confidential, the caller's clearance is internal")
    assert (allow.holds, allow.why) == (True, "allowed by group:finance (by way of user:ada > group:controllers)")
    assert (deny.holds, deny.why) == (False, "denied by group:contractors")
    assert explain_rule(AccessRule(), who)[1].why == "the rule allows nobody"
