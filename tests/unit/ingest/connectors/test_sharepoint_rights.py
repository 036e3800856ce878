import json

import pytest

from ingest.connectors.sharepoint_rights import Grants, Policy, access_rule, read_grants

NOW = 1_800_000_000.0
GROUP = "0f0f0f0f-1111-2222-3333-444444444444"
POLICY = Policy(site_groups={"Finance Visitors": ["group:finance", "user:ada"]})


def grants(*permissions, policy=POLICY):
    return read_grants(permissions, policy, NOW)


def direct(identity, *roles):
    return {"roles": list(roles) or ["read"], "grantedToV2": identity}


def link(scope, *identities, **more):
    return {
        "roles": ["read"],
        "link": {"scope": scope, "type": "view"},
        "grantedToIdentitiesV2": list(identities),
    } | more


def login(name):
    return {"siteUser": {"loginName": name, "displayName": "x"}, "user": {"displayName": "x"}}


@pytest.mark.parametrize("role", ["read", "write", "owner", "sp.owner", "sp.member", "sp.full control", "Read"])
def test_a_role_that_reads_gives_the_right(role):
    assert grants(direct({"user": {"id": "u1"}}, role)) == Grants(users=frozenset({"u1"}))


@pytest.mark.parametrize("roles", [[], ["sp.limited access"], ["restrictedView"], ["new thing"], [7], None, "read"])
def test_roles_that_do_not_read_or_are_not_known_give_nothing(roles):
    assert grants({"roles": roles, "grantedToV2": {"user": {"id": "u1"}}}) == Grants()


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ({"user": {"id": "u1"}}, Grants(users=frozenset({"u1"}))),
        ({"group": {"id": GROUP}}, Grants(groups=frozenset({GROUP}))),
        ({"group": {"id": GROUP}, "siteUser": {"loginName": "x"}}, Grants(groups=frozenset({GROUP}))),
        (login("i:0#.f|membership|ada@contoso.com"), Grants(users=frozenset({"ada@contoso.com"}))),
        (login(f"c:0t.c|tenant|{GROUP}"), Grants(groups=frozenset({GROUP}))),
        (login(f"c:0o.c|federateddirectoryclaimprovider|{GROUP}"), Grants(groups=frozenset({GROUP}))),
        (login(f"c:0-.f|rolemanager|spo-grid-all-users/{GROUP}"), Grants(everyone=True)),
        (login("c:0(.s|true"), Grants(everyone=True)),
        (
            {"siteGroup": {"displayName": "Finance Visitors", "id": "6"}},
            Grants(principals=frozenset({"group:finance", "user:ada"})),
        ),
        (
            {"sharePointGroup": {"title": "Finance Visitors"}},
            Grants(principals=frozenset({"group:finance", "user:ada"})),
        ),
        ({"siteGroup": {"displayName": "Others", "id": "7"}}, Grants(unmapped=frozenset({"Others"}))),
    ],
)
def test_each_kind_of_identity_is_known(identity, expected):
    assert grants(direct(identity)) == expected
    assert grants(link("users", identity)) == expected


@pytest.mark.parametrize(
    "identity",
    [
        login(f"c:0o.c|federateddirectoryclaimprovider|{GROUP}_o"),  # a group's owners, not its members
        login("urn:spo:guest#somebody@example.com"),
        login("urn:spo:anon#77"),
        login(f"c:0t.c|tenant|{GROUP}|more"),
        login("i:0#.f|membership|../../users"),
        {"application": {"id": "a1"}},
        {"device": {"id": "d1"}},
        {"group": {"id": "Everyone", "displayName": "Everyone"}},
        {"group": {"displayName": "finance"}},
        {"user": {"displayName": "ada", "email": "ada@contoso.com"}},
        {"user": {"id": 5}},
        {"user": "u1"},
        {"somethingNew": {"id": "u1"}},
        {},
        None,
        ["user"],
    ],
)
def test_an_identity_that_is_not_known_gives_nothing(identity):
    assert grants(direct(identity), link("users", identity)) == Grants()


@pytest.mark.parametrize(
    ("scope", "policy", "everyone"),
    [
        ("anonymous", POLICY, True),
        ("organization", POLICY, True),
        ("users", POLICY, False),
        (None, POLICY, False),
        ("anonymous", Policy(anonymous=False), False),
        ("organization", Policy(organization=False), False),
    ],
)
def test_a_link_lets_those_read_whom_it_names_and_by_its_scope_everyone(scope, policy, everyone):
    assert grants(link(scope, {"user": {"id": "u1"}}), policy=policy) == Grants(everyone, frozenset({"u1"}))


@pytest.mark.parametrize(
    "permission",
    [
        link("existingAccess", {"user": {"id": "u1"}}),
        link("planets", {"user": {"id": "u1"}}),
        link(["anonymous"]),
        link("anonymous", hasPassword=True),
        {"roles": ["write"], "link": {"scope": "anonymous", "type": "createOnly"}},
        {"roles": ["read"], "link": "anonymous"},
        {"roles": ["write"], "invitation": {"email": "jd@example.com"}},
        {"roles": ["read"], "grantedTo": {"user": {"displayName": "ada"}}},
        "anonymous",
        None,
    ],
)
def test_a_grant_that_lets_nobody_in_particular_read_gives_nothing(permission):
    assert grants(permission) == Grants()


@pytest.mark.parametrize(
    ("end", "reads"),
    [
        ("2026-01-01T00:00:00Z", False),
        ("2099-01-01T00:00:00Z", True),
        ("0001-01-01T00:00:00Z", True),  # how Graph says "never"
        ("", True),
        (None, True),
        ("soon", False),
        (7, False),
    ],
)
def test_a_grant_counts_until_its_end(end, reads):
    found = grants(direct({"user": {"id": "u1"}}) | {"expirationDateTime": end})
    assert (found.users == {"u1"}) == reads


def test_the_first_end_is_known():
    first, second = "2030-01-01T00:00:00Z", "2031-01-01T00:00:00+00:00"
    ends = [link("anonymous", expirationDateTime=when) for when in (second, first)]
    assert grants(*ends, direct({"user": {"id": "u1"}})).until == 1_893_456_000.0


def test_a_name_that_no_token_can_hold_is_left_out_and_the_others_stay():
    assert access_rule(["user:a\x00b", "user:", "user: ada", "planet:mars", "user:ada"], False).allow == {"user:ada"}
    assert access_rule([], True).allow == {"everyone"}


def test_too_many_readers_are_nobody():
    assert access_rule((f"user:{number}" for number in range(10_001)), True).allow == frozenset()


def test_no_json_value_anywhere_breaks_the_reading():
    whole = link(
        "users", {"user": {"id": "u1"}, "siteUser": {"loginName": "x"}}, expirationDateTime="2099-01-01T00:00:00Z"
    )
    odd = [None, 0, "", "\x00", [], {}, [None], {"id": None}]
    for key in whole:
        for value in odd:
            grants(json.loads(json.dumps(whole | {key: value})))
