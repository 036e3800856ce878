"""Signing in with a directory's password, against a real slapd: who is let in, and that nobody else is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from policies.errors import Overloaded, SignInRefused, Unavailable
from policies.issuers import NameMap
from policies.signing_in.ldap import LdapDirectory, LdapTree
from policies.signing_in.ldap_server import LdapAddress
from policies.signing_in.ldap_server import LdapServer as Client
from policies.signing_in.people import Names
from tests.certificates import self_signed
from tests.ldap_server import (
    CUT_READER,
    GROUPS,
    PASSWORD,
    PEOPLE,
    READER,
    READER_PASSWORD,
    LdapServer,
    group_dn,
    person_dn,
)
from tests.servers import free_port

TREE = LdapTree(
    base=PEOPLE,
    person_filter="(&(objectClass=inetOrgPerson)(uid={username}))",
    subject="uid",
    disabled_filter="(description=disabled)",
    group_base=GROUPS,
)
NAMES = Names(tenant="acme", roles=frozenset({"user"}))


def directory(ldap: LdapServer, names: Names = NAMES, reader: str = READER, **tree: Any) -> LdapDirectory:
    client = Client(LdapAddress(ldap.url), reader, READER_PASSWORD)
    return LdapDirectory(client, dataclasses.replace(TREE, **tree), names)


def refused(found: LdapDirectory, username: str, password: str = PASSWORD) -> str:
    with pytest.raises(SignInRefused) as error:
        found.sign_in(username, password)
    return error.value.reason


def test_whoever_is_tried_is_counted_by_the_entry_and_not_by_the_spelling(ldap: LdapServer) -> None:
    found = directory(ldap, person_filter="(|(uid={username})(employeeType={username}))")
    counted: list[str] = []

    assert found.sign_in("ada", PASSWORD, counted.append).principal.subject == "ada"
    assert found.sign_in("engineer", PASSWORD, counted.append).principal.subject == "ada"
    assert counted == [person_dn("ada")] * 2
    with pytest.raises(SignInRefused):
        found.sign_in("nobody", PASSWORD, counted.append)
    assert len(counted) == 3  # it takes as long


@pytest.mark.parametrize(("username", "reason"), [("ada", "too_many_attempts"), ("nobody", "nobody")])
def test_one_attempt_too_many_is_refused_whatever_the_password(ldap: LdapServer, username: str, reason: str) -> None:
    def full(_: str) -> None:
        raise Overloaded("too many requests", 1)

    with pytest.raises(SignInRefused) as error:
        directory(ldap).sign_in(username, PASSWORD, full)
    assert error.value.reason == reason


# ---- who is let in, and as whom


def test_the_right_password_signs_in_with_groups_of_groups(ldap: LdapServer) -> None:
    person = directory(ldap).sign_in("ada", PASSWORD)

    who = person.principal
    assert (who.subject, who.tenant, who.roles) == ("ada", "acme", {"user"})
    assert who.groups == {"engineers", "staff", "all"}
    assert person.handle == "ada"


def test_member_of_finds_the_same_groups(ldap: LdapServer) -> None:
    assert directory(ldap, nesting="member_of").sign_in("ada", PASSWORD).principal.groups == {
        "engineers",
        "staff",
        "all",
    }


@pytest.mark.parametrize("nesting", ["members", "member_of"])
def test_groups_in_a_circle_end(ldap: LdapServer, nesting: str) -> None:
    ldap.change(group_dn("circle-a"), member=[person_dn("carol"), group_dn("circle-b")])
    try:
        who = directory(ldap, nesting=nesting).sign_in("carol", PASSWORD).principal
    finally:
        ldap.change(group_dn("circle-a"), member=[person_dn("carol")])

    assert who.groups == {"circle-a", "circle-b"}


def test_the_rule_of_active_directory_is_never_asked_of_another_server(ldap: LdapServer) -> None:
    with pytest.raises(Unavailable, match="in_chain"):
        directory(ldap, nesting="in_chain").sign_in("ada", PASSWORD)


def test_names_are_those_of_here(ldap: LdapServer) -> None:
    names = Names(
        tenants=frozenset({"acme"}),
        group_roles={"crew": frozenset({"power_user"})},
        groups=NameMap({"staff": "crew"}, keep_unmapped=False),
        subject_prefix="corp:",
    )

    who = directory(ldap, names, tenant="o", roles="employeeType").sign_in("ada", PASSWORD).principal

    assert (who.subject, who.tenant) == ("corp:ada", "acme")
    assert (who.groups, who.roles) == ({"crew"}, {"engineer", "power_user"})


def test_a_directory_names_only_its_own_tenants(ldap: LdapServer) -> None:
    names = Names(tenants=frozenset({"acme"}))

    assert refused(directory(ldap, names, tenant="o"), "carol") == "tenant"


@pytest.mark.parametrize("reserved", [{"ad"}, {"ada"}])
def test_no_subject_takes_the_prefix_of_others(ldap: LdapServer, reserved: set[str]) -> None:
    names = Names(tenant="acme", reserved=frozenset(reserved))

    assert refused(directory(ldap, names), "ada") == "reserved_subject"


# ---- who is not


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        ("ada", "wrong", "password"),
        ("ada", PASSWORD + " ", "password"),
        ("ada", "", "empty"),
        ("ada", "\x00", "empty"),
        ("nobody", PASSWORD, "nobody"),
        ("bob", PASSWORD, "nobody"),
        ("", PASSWORD, "username"),
        (" ada", PASSWORD, "username"),
        ("a\u200bda", PASSWORD, "username"),
        ("a" * 257, PASSWORD, "username"),
    ],
)
def test_others_are_refused(ldap: LdapServer, username: str, password: str, reason: str) -> None:
    assert refused(directory(ldap), username, password) == reason


def test_an_empty_password_never_reaches_the_server(ldap: LdapServer) -> None:
    client = Client(LdapAddress(ldap.url), READER, READER_PASSWORD)

    # The server itself would say yes to it: that is a bind as nobody.
    assert client.password_holds(person_dn("ada"), "") is False
    assert client.password_holds("", PASSWORD) is False


@pytest.mark.parametrize(
    "username",
    [
        "*",
        "ad*",
        "ada)(uid=*",
        "ada)(|(uid=*",
        "*)(objectClass=*",
        "ada)(description=disabled))(|(uid=ada",
        "\\2a",
        "ad\\61",
        "ada)(!(&(1=0",
        "(uid=ada)",
        "ada,ou=people",
        "{username}",
        "ada&",
        "|(uid=ada)",
        "ada\\",
    ],
)
def test_a_user_name_is_only_a_text(ldap: LdapServer, username: str) -> None:
    assert refused(directory(ldap), username) == "nobody"


def test_a_name_with_a_star_is_that_name_and_no_other(ldap: LdapServer) -> None:
    assert directory(ldap).sign_in("star*", PASSWORD).principal.groups == {"others"}


def test_two_people_with_one_name_are_nobody(ldap: LdapServer) -> None:
    found = directory(ldap, person_filter="(mail={username})")

    assert refused(found, "same@example.org") == "several_people"


def test_active_directorys_accounts_are_disabled_and_expire(ldap: LdapServer) -> None:
    found = directory(ldap, active_directory=True, disabled_filter=None)

    assert found.sign_in("adam", PASSWORD).principal.subject == "adam"
    assert refused(found, "adisabled") == "disabled"
    assert refused(found, "aexpired") == "disabled"
    assert refused(found, "ada") == "attribute_userAccountControl"


# ---- again, when a session is refreshed


@contextmanager
def changed(ldap: LdapServer, **values: list[str]) -> Iterator[None]:
    ldap.change(person_dn("ada"), **values)
    try:
        yield
    finally:
        ldap.change(person_dn("ada"), **{name: [] for name in values})


def test_a_refresh_asks_for_the_groups_of_now(ldap: LdapServer) -> None:
    ldap.change(group_dn("engineers"), member=[person_dn("carol")])
    try:
        assert directory(ldap).again("ada").principal.groups == set()
    finally:
        ldap.change(group_dn("engineers"), member=[person_dn("ada")])
    assert directory(ldap).again("ada").principal.groups == {"engineers", "staff", "all"}


def test_a_refresh_refuses_who_was_disabled_or_removed(ldap: LdapServer) -> None:
    with changed(ldap, description=["disabled"]), pytest.raises(SignInRefused):
        directory(ldap).again("ada")

    ldap.add_person("leaver")
    assert directory(ldap).again("leaver").principal.subject == "leaver"
    ldap.remove(person_dn("leaver"))
    with pytest.raises(SignInRefused):
        directory(ldap).again("leaver")


# ---- when the directory cannot tell


def test_a_list_that_was_cut_short_is_no_list(ldap: LdapServer) -> None:
    ldap.change(group_dn("others"), member=[person_dn("star*"), person_dn("ada")])
    try:
        with pytest.raises(Unavailable):
            directory(ldap, reader=CUT_READER).sign_in("ada", PASSWORD)
    finally:
        ldap.change(group_dn("others"), member=[person_dn("star*")])


def test_no_directory_no_answer() -> None:
    client = Client(LdapAddress(f"ldap://127.0.0.1:{free_port()}", timeout_s=1), READER, READER_PASSWORD)

    with pytest.raises(Unavailable):
        LdapDirectory(client, TREE, NAMES).sign_in("ada", PASSWORD)


def test_a_directory_that_says_nothing_is_not_waited_for(ldap: LdapServer) -> None:
    client = Client(LdapAddress(ldap.url, timeout_s=0.3), READER, READER_PASSWORD)
    ldap.freeze()
    try:
        with pytest.raises(Unavailable):
            LdapDirectory(client, TREE, NAMES).sign_in("ada", PASSWORD)
    finally:
        ldap.thaw()


def test_a_bind_account_that_is_refused_is_our_fault_and_not_the_persons(ldap: LdapServer) -> None:
    client = Client(LdapAddress(ldap.url), READER, "not its password")

    with pytest.raises(Unavailable):
        LdapDirectory(client, TREE, NAMES).sign_in("ada", PASSWORD)


# ---- encryption


@pytest.mark.parametrize("kind", ["ldaps", "start_tls"])
def test_encrypted_connections_work(ldap: LdapServer, kind: str) -> None:
    found = LdapDirectory(Client(_encrypted(ldap, kind), READER, READER_PASSWORD), TREE, NAMES)

    assert found.sign_in("ada", PASSWORD).principal.subject == "ada"
    assert refused(found, "ada", "wrong") == "password"


@pytest.mark.parametrize("kind", ["ldaps", "start_tls"])
def test_a_server_that_proves_nothing_gets_no_password(
    ldap: LdapServer, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, another = self_signed(tmp_path_factory.mktemp("ca"), "another")
    address = dataclasses.replace(_encrypted(ldap, kind), ca_file=str(another))

    with pytest.raises(Unavailable):
        LdapDirectory(Client(address, READER, READER_PASSWORD), TREE, NAMES).sign_in("ada", PASSWORD)


@pytest.mark.parametrize("kind", ["ldaps", "start_tls"])
def test_a_certificate_of_another_host_proves_nothing(ldap: LdapServer, kind: str) -> None:
    address = _encrypted(ldap, kind)
    address = dataclasses.replace(address, url=address.url.replace("localhost", "127.0.0.1"))

    with pytest.raises(Unavailable):
        LdapDirectory(Client(address, READER, READER_PASSWORD), TREE, NAMES).sign_in("ada", PASSWORD)


def _encrypted(ldap: LdapServer, kind: str) -> LdapAddress:
    url = f"ldaps://localhost:{ldap.tls_port}" if kind == "ldaps" else ldap.url
    return LdapAddress(url, start_tls=kind == "start_tls", ca_file=str(ldap.ca_file))
