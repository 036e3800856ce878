from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.errors import ConfigurationError, Forbidden
from policies.grants import BY_SOURCE, SOMEWHERE
from policies.labels import Label
from policies.principals import Principal
from policies.roles import Roles

PERMISSIONS = [
    "rag:query", "rag:query:readonly", "rag:upload", "rag:view_sources", "documents:write", "documents:delete",
    "privacy:manage", "audit:read", "system:monitor",
]  # fmt: skip
MATRIX = {
    "admin": set(PERMISSIONS),
    "power_user": {"rag:query", "rag:upload", "rag:view_sources"},
    "user": {"rag:query"},
    "readonly": {"rag:query:readonly"},
    "privacy_officer": {"privacy:manage"},
    "auditor": {"audit:read"},
    "operator": {"system:monitor"},
    "unknown": set(),
}


def caller(*roles: str) -> Principal:
    return Principal("ada", "acme", frozenset(roles))


@pytest.mark.parametrize("permission", PERMISSIONS)
@pytest.mark.parametrize("role", sorted(MATRIX))
def test_each_default_role_grants_what_the_contract_says(role: str, permission: str) -> None:
    roles = Roles.load()

    assert roles.allows(caller(role), permission) == (permission in MATRIX[role])
    if permission not in MATRIX[role]:
        with pytest.raises(Forbidden, match=permission):
            roles.require(caller(role), permission)


def test_nobody_is_granted_anything_without_a_role() -> None:
    assert not any(Roles.load().allows(caller(), permission) for permission in PERMISSIONS)
    assert Roles.load().permissions(caller()) == frozenset()


@pytest.mark.parametrize(
    ("granted", "permission", "allowed", "why"),
    [
        ("rag:*", "rag:query", True, "one level"),
        ("rag:*", "rag:query:readonly", True, "all levels below"),
        ("rag:query:*", "rag:query:readonly", True, "below an action"),
        ("rag:query:*", "rag:query", False, "not the action itself"),
        ("rag:*", "ragged:query", False, "whole words"),
        ("rag:query", "rag:query:readonly", False, "a permission is no wildcard"),
        ("rag:query:readonly", "rag:query", False, "reading is less than asking"),
        ("*", "anything:new", True, "all"),
        ("documents:*", "documents:delete", True, "another resource"),
        ("documents:*", "rag:upload", False, "another resource"),
        ("rag:*", "rag", False, "a resource is no permission"),
        ("rag:query", "RAG:QUERY", False, "case matters"),
        ("rag:query", "*", False, "asking for all takes all"),
        ("rag:*", "rag:*", True, "a wildcard is held as it is written"),
    ],
)
def test_wildcards_cover_whole_levels(granted: str, permission: str, allowed: bool, why: str) -> None:
    assert Roles.load({"r": [granted]}).allows(caller("r"), permission) == allowed, why


def test_roles_add_up() -> None:
    roles = Roles.load()

    assert roles.permissions(caller("user", "auditor", "nonsense")) == {"rag:query", "audit:read"}


def test_the_first_permission_that_is_held_decides_the_mode() -> None:
    roles, either = Roles.load(), ("rag:query", "rag:query:readonly")

    assert roles.require_any(caller("readonly"), either) == "rag:query:readonly"
    assert roles.require_any(caller("readonly", "user"), either) == "rag:query"
    assert roles.require_any(caller("admin"), either) == "rag:query"
    with pytest.raises(Forbidden, match="rag:query or rag:query:readonly"):
        roles.require_any(caller("auditor"), either)
    with pytest.raises(Forbidden):
        roles.require_any(caller("admin"), ())


def test_configured_roles_add_to_the_defaults_and_replace_them_by_name() -> None:
    roles = Roles.load({"editor": ["documents:*"], "user": ["rag:query:readonly"]})

    assert roles.allows(caller("editor"), "documents:delete")
    assert not roles.allows(caller("user"), "rag:query")
    assert roles.allows(caller("admin"), "documents:delete")


@pytest.mark.parametrize(
    "granted",
    [
        ["rag"], ["rag:"], [":query"], ["rag:qu*"], ["*:query"], ["rag:*:x"], ["rag query"], ["rag:query "],
        [""], ["**"],
        ["Rag:Query"], ["rag:query\n"], [7], [None], [["rag:query"]], "rag:query", None, {"rag:query": True}, 7,
        b"rag:query",
    ],
)  # fmt: skip
def test_malformed_permissions_stop_the_start_and_name_the_role(granted: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"identity\.roles\.editor"):
        Roles.load({"editor": granted})


def test_a_roles_name_is_spelt_as_in_tokens() -> None:
    roles = Roles.load({"re\u0301dacteur": ["documents:write"]})

    assert roles.allows(caller("r\u00e9dacteur"), "documents:write")


@pytest.mark.parametrize("name", ["", "a\nb", 7, "x" * 300, "editor ", "edi\u200btor"])
def test_a_role_that_no_token_can_name_stops_the_start(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"identity\.roles"):
        Roles.load({name: ["rag:query"]})


# ---- by source


@pytest.mark.parametrize(
    ("granted", "permission", "source", "allowed", "why"),
    [
        ("documents:delete@source/hr-wiki", "documents:delete", "hr-wiki", True, "that source"),
        ("documents:delete@source/hr-wiki", "documents:delete", "hr-wiki2", False, "no more than that source"),
        ("documents:delete@source/hr-wiki", "documents:delete", "HR-wiki", False, "case matters"),
        ("documents:delete@source/hr-wiki", "documents:write", "hr-wiki", False, "another action"),
        ("documents:delete@source/hr-wiki", "documents:delete", None, False, "not everywhere"),
        ("documents:delete@source/hr-*", "documents:delete", "hr-wiki", True, "a beginning"),
        ("documents:delete@source/hr-*", "documents:delete", "hr-", True, "an empty rest"),
        ("documents:delete@source/hr-*", "documents:delete", "hr", False, "not the whole beginning"),
        ("documents:*@source/hr-wiki", "documents:write", "hr-wiki", True, "a wildcard, by source"),
        ("*@source/hr-wiki", "documents:write", "hr-wiki", True, "everything, by source"),
        ("*@source/hr-wiki", "documents:write", "crm", False, "everything, by source"),
        ("*@source/hr-wiki", "rag:query", None, False, "what is not held by source"),
        ("*@source/*", "documents:write", "anything", True, "every source"),
        ("documents:delete", "documents:delete", "hr-wiki", True, "everywhere is here, too"),
    ],
)
def test_a_permission_by_source_holds_there_and_nowhere_else(
    granted: str, permission: str, source: str | None, allowed: bool, why: str
) -> None:
    roles, resource = Roles.load({"r": [granted]}), None if source is None else f"source/{source}"

    assert roles.allows(caller("r"), permission, resource) == allowed, why
    if source is not None:
        assert roles.scope(caller("r"), permission).covers(source) == allowed, why


def test_whoever_holds_a_permission_somewhere_passes_the_door_that_asks_for_that() -> None:
    roles = Roles.load({"hr": ["documents:delete@source/hr-*"], "all": ["documents:delete"]})
    either = ("documents:delete", "documents:delete" + SOMEWHERE)

    assert roles.require_any(caller("hr"), either) == "documents:delete@*"
    assert roles.require_any(caller("hr", "all"), either) == "documents:delete"
    with pytest.raises(Forbidden, match=r"needs the permission documents:delete\.$"):
        roles.require_any(caller("user"), either)
    with pytest.raises(Forbidden):
        roles.require_any(caller("hr"), ("documents:delete",))
    assert roles.scope(caller("user"), "documents:delete").is_nothing
    assert not roles.scope(caller("user"), "documents:delete").covers("hr-wiki")


@pytest.mark.parametrize(
    "granted",
    [
        "documents:delete@", "documents:delete@hr", "documents:delete@source/", "documents:delete@source", "@source/x",
        "documents:delete@source/*x", "documents:delete@source/a*b", "documents:delete@source/**",
        "documents:delete@*", "documents:delete@tenant/x", "documents:delete@source/a\nb",
        "documents:delete@source/\u202ea",
        "documents:delete@source/" + "x" * 512, "rag:query@source/hr", "rag:*@source/hr",
        "documents:delete:x@source/hr",
        "documents:delete@Source/x",
    ],
)  # fmt: skip
def test_a_scope_that_means_nothing_stops_the_start(granted: str) -> None:
    with pytest.raises(ConfigurationError, match=r"identity\.roles\.editor"):
        Roles.load({"editor": [granted]})


# ---- tenants and clearance


def test_a_role_of_one_tenant_gives_nothing_in_another() -> None:
    roles = Roles.load({"keeper": {"permissions": ["*"], "clearance": "restricted", "tenants": ["acme"]}})
    here, there = (Principal("ada", tenant, frozenset({"keeper"})) for tenant in ("acme", "evil"))

    assert roles.allows(here, "documents:delete") and roles.clearance(here) is Label.RESTRICTED
    assert not roles.allows(there, "documents:delete") and roles.clearance(there) is Label.INTERNAL
    assert roles.permissions(there) == frozenset() and roles.scope(there, "documents:delete").is_nothing
    assert not roles.allows(there, "documents:delete" + SOMEWHERE)


def test_clearance_is_the_highest_of_the_roles_and_internal_where_none_says() -> None:
    roles = Roles.load({"guest": {"clearance": "public"}, "partner": {"clearance": "confidential"}})
    expected = {
        (): Label.INTERNAL,
        ("unheard-of",): Label.INTERNAL,
        ("admin",): Label.INTERNAL,
        ("guest",): Label.PUBLIC,
        ("guest", "user"): Label.INTERNAL,
        ("guest", "partner"): Label.CONFIDENTIAL,
        ("partner", "user", "unheard-of"): Label.CONFIDENTIAL,
    }

    assert {names: roles.clearance(caller(*names)) for names in expected} == expected


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"clearance": "secret"}, "clearance"),
        ({"clearance": "Restricted"}, "clearance"),
        ({"clearance": 3}, "clearance"),
        ({"clearance": None}, "clearance"),
        ({"tenants": []}, "tenants"),
        ({"tenants": "acme"}, "tenants"),
        ({"tenants": None}, "tenants"),
        ({"tenants": [7]}, "tenants"),
        ({"tenants": ["acme "]}, "tenants"),
        ({"permissions": None}, "permissions"),
        ({"permissions": "rag:query"}, "permissions"),
        ({"permissions": ["rag"]}, "permissions"),
        ({"permission": ["rag:query"]}, "permission"),
        ({7: ["rag:query"]}, "7"),
    ],
)
def test_a_malformed_role_stops_the_start_and_names_its_place(said: Any, place: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"identity\.roles\.editor\.{place}:"):
        Roles.load({"editor": said})


# ---- against an oracle that knows only lists of words

words = st.sampled_from(["documents", "write", "delete", "system", "monitor", "rag", "query"])
permissions = st.lists(words, min_size=2, max_size=3).map(":".join)
grants = st.one_of(
    st.just("*"),
    permissions,
    st.lists(words, min_size=1, max_size=2).map(lambda parts: ":".join(parts) + ":*"),
)
names = st.text("ab-", min_size=1, max_size=3)
scopes = st.one_of(st.just(""), names.map("@source/{}".format), st.text("ab-", max_size=2).map("@source/{}*".format))


def naive(granted: str, permission: str, source: str | None) -> bool:
    written, _, scope = granted.partition("@source/")
    have, want = written.split(":"), permission.split(":")
    below = have[-1] == "*" and want[: len(have) - 1] == have[:-1] and len(want) >= len(have)
    named = below or have == want
    if not scope:
        return named
    if source is None:
        return False
    return named and (source[: len(scope) - 1] == scope[:-1] if scope[-1] == "*" else source == scope)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(grants, scopes), max_size=4), permissions, st.one_of(st.none(), names))
def test_no_permission_is_granted_that_the_oracle_refuses(
    lines: list[tuple[str, str]], permission: str, source: str | None
) -> None:
    written = []
    for grant, scope in lines:
        try:
            Roles.load({"r": [grant + scope]})
            written.append(grant + scope)
        except ConfigurationError:
            assert scope, grant
    roles = Roles.load({"r": written})
    resource = None if source is None else f"source/{source}"

    expected = any(naive(granted, permission, source) for granted in written)
    assert roles.allows(caller("r"), permission, resource) == expected
    if source is not None and permission in BY_SOURCE:
        assert roles.scope(caller("r"), permission).covers(source) == expected
    somewhere = any(naive(granted.partition("@")[0], permission, None) for granted in written)
    assert roles.allows(caller("r"), permission + SOMEWHERE) == somewhere
