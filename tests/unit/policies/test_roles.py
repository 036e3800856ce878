from __future__ import annotations

from typing import Any

import pytest

from policies.errors import ConfigurationError, Forbidden
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
