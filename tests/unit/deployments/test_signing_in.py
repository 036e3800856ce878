"""Signing in with a password, and what becomes of the session: over HTTP, with a real directory behind."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.issuing import Signer
from policies.sessions import KIND
from tests.ldap_server import GROUPS, PASSWORD, PEOPLE, READER, READER_PASSWORD, LdapServer, group_dn, person_dn
from tests.unit.deployments.sign_in_service import Service, bearer, running

WHO = {"username": "ada", "password": PASSWORD}


@pytest.fixture
def service(ldap: LdapServer, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "reader").write_text(READER_PASSWORD)
    (tmp_path / "reader").chmod(0o600)
    way = {
        "url": ldap.url,
        "bind_dn": READER,
        "bind_password_file": str(tmp_path / "reader"),
        "base": PEOPLE,
        "disabled_filter": "(description=disabled)",
        "group_base": GROUPS,
        "tenant": "acme",
        "roles": ["user"],
        "group_roles": {"staff": ["power_user"]},
    }
    with running(tmp_path, {"ldap": {"corp": way}}) as made:
        yield made


def signed_in(service: Service, **who: str) -> dict[str, Any]:
    answer = service.client.post("/v1/auth/ldap/corp", json=WHO | who)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_ways_are_named_to_anyone(service: Service) -> None:
    answer = service.client.get("/v1/auth")

    assert answer.json() == {"ways": [{"kind": "ldap", "name": "corp", "address": "/v1/auth/ldap/corp"}]}


def test_a_password_opens_a_session(service: Service) -> None:
    session = signed_in(service)

    assert (session["token_type"], session["expires_in"]) == ("Bearer", pytest.approx(600, abs=2))
    found = service.me(session).json()
    assert (found["subject"], found["tenant"], found["clearance"]) == ("ada", "acme", "internal")
    assert (found["roles"], found["groups"]) == (["power_user", "user"], ["all", "engineers", "staff"])
    assert found["issuer"] == "rayrag-sessions"
    (record,) = service.records("auth.sign_in")
    assert (record.actor, record.tenant, record.outcome) == ("ada", "acme", "ok")
    assert record.detail["way"] == "ldap:corp"


@pytest.mark.parametrize(
    ("username", "password", "actor"),
    [("ada", "wrong", "ada"), ("nobody", PASSWORD, "unknown"), ("bob", PASSWORD, "unknown"), ("ada", "", "unknown")],
)
def test_all_that_is_wrong_looks_alike_and_is_on_the_record(
    service: Service, username: str, password: str, actor: str
) -> None:
    began = time.monotonic()
    answer = service.client.post("/v1/auth/ldap/corp", json={"username": username, "password": password})

    assert time.monotonic() - began >= 0.1
    assert answer.status_code == 401
    body = answer.json()
    assert (body["detail"], body["title"]) == ("this sign-in does not hold", "Unauthorized")
    (record,) = service.records()
    assert (record.action, record.outcome, record.actor) == ("auth.sign_in", "refused", actor)
    assert record.tenant == "acme"
    assert "wrong" not in str(record)


def test_passwords_cannot_be_tried_without_end(service: Service) -> None:
    wrong = [{"username": name, "password": "wrong"} for name in ("ada", "ADA", "ada", "ａda", "Ada")]
    codes = [service.client.post("/v1/auth/ldap/corp", json=each).status_code for each in wrong]
    answer = service.client.post("/v1/auth/ldap/corp", json=WHO)

    assert codes == [401] * 5
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert len(service.records()) == 5
    assert service.client.post("/v1/auth/ldap/corp", json=WHO | {"username": "carol"}).status_code == 200


def test_other_names_of_the_same_person_give_no_more_attempts(service: Service, ldap: LdapServer) -> None:
    """Five wrong passwords by two names; the sixth, and the right one, are answered as a wrong one is."""
    names = ["ada", "grace", "ada", "grace", "ada", "grace"]
    ldap.change(person_dn("ada"), uid=["ada", "grace"])
    try:
        answers = [
            service.client.post("/v1/auth/ldap/corp", json={"username": name, "password": "wrong"}) for name in names
        ]
        right = service.client.post("/v1/auth/ldap/corp", json=WHO | {"username": "grace"})
        unknown = service.client.post("/v1/auth/ldap/corp", json=WHO | {"username": "nobody"})
    finally:
        ldap.change(person_dn("ada"), uid=["ada"])

    assert [answer.status_code for answer in (*answers, right)] == [401] * 7
    assert right.json()["detail"] == unknown.json()["detail"]
    reasons = [record.detail["reason"] for record in service.records()]
    assert reasons == ["password"] * 5 + ["nobody"]


def test_a_directory_that_is_down_is_not_a_wrong_password(service: Service, ldap: LdapServer) -> None:
    session = signed_in(service)
    ldap.stop()
    try:
        answer = service.client.post("/v1/auth/ldap/corp", json=WHO)
        refreshed = service.refresh(session)
    finally:
        ldap.start()

    assert (answer.status_code, refreshed.status_code) == (503, 503)
    assert "localhost" not in answer.text
    assert service.me(session).status_code == 200
    assert service.refresh(session).status_code == 200
    assert [record.outcome for record in service.records("auth.refresh")] == ["failed", "ok"]


def test_a_record_that_cannot_be_written_lets_nobody_in(service: Service) -> None:
    with sqlite3.connect(service.home / "audit.sqlite") as connection:
        connection.execute("ALTER TABLE audit_records RENAME TO away")

    answer = service.client.post("/v1/auth/ldap/corp", json=WHO)

    assert answer.status_code == 503
    assert "access_token" not in answer.text


@pytest.mark.parametrize("path", ["/v1/auth/ldap/other", "/v1/auth/ldap/corp%00", "/v1/auth/ldap/../corp"])
def test_other_ways_are_unknown(service: Service, path: str) -> None:
    assert service.client.post(path, json=WHO).status_code == 404


@pytest.mark.parametrize(
    "body", [{}, {"username": "ada"}, {**WHO, "tenant": "globex"}, {**WHO, "roles": ["admin"]}, []]
)
def test_nothing_else_can_be_asked_for(service: Service, body: Any) -> None:
    answer = service.client.post("/v1/auth/ldap/corp", json=body)

    assert answer.status_code == 422
    assert PASSWORD not in answer.text


# ---- refresh


def test_a_refresh_gives_a_new_session_token_with_the_groups_of_now(service: Service, ldap: LdapServer) -> None:
    first = signed_in(service)
    ldap.change(group_dn("engineers"), member=[person_dn("carol")])
    try:
        second = service.refresh(first).json()
    finally:
        ldap.change(group_dn("engineers"), member=[person_dn("ada")])

    assert second["refresh_token"] != first["refresh_token"]
    assert (service.me(second).json()["groups"], service.me(second).json()["roles"]) == ([], ["user"])


def test_a_refresh_token_that_comes_twice_ends_everything(service: Service) -> None:
    first = signed_in(service)
    second = service.refresh(first).json()

    answer = service.refresh(first)

    assert (answer.status_code, answer.json()["detail"]) == (401, "this sign-in does not hold")
    assert service.refresh(second).status_code == 401
    assert [service.me(each).status_code for each in (first, second)] == [401, 401]
    reasons = [record.detail.get("reason") for record in service.records("auth.refresh")]
    assert reasons == [None, "reused"]


def test_a_refresh_token_of_a_session_that_is_over_cannot_fill_the_record(service: Service) -> None:
    session = signed_in(service)
    assert service.client.post("/v1/auth/logout", headers=bearer(session["access_token"])).status_code == 200
    lines = len(service.records())

    assert [service.refresh(session).status_code for _ in range(4)] == [401] * 4
    assert len(service.records()) == lines


def test_a_session_is_refreshed_so_often_and_no_more_and_another_as_well(service: Service) -> None:
    session, other = signed_in(service), signed_in(service)
    for _ in range(5):
        session = service.refresh(session).json()

    answer = service.refresh(session)

    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert len(service.records("auth.refresh")) == 5
    assert service.refresh(other).status_code == 200


def test_refresh_tokens_cannot_be_guessed_from_one_address_without_end(service: Service) -> None:
    codes = [service.refresh({"refresh_token": f"rr_{number}"}).status_code for number in range(101)]

    assert codes == [401] * 100 + [429]
    signed_in(service)


@pytest.mark.parametrize("how", ["disabled", "gone"])
def test_who_left_the_directory_is_out_at_the_next_refresh(service: Service, ldap: LdapServer, how: str) -> None:
    ldap.add_person(how)
    session = signed_in(service, username=how)
    if how == "gone":
        ldap.remove(person_dn(how))
    else:
        ldap.change(person_dn(how), description=["disabled"])

    assert service.refresh(session).status_code == 401
    assert service.me(session).status_code == 401


@pytest.mark.parametrize("token", ["", "rr_", "rr_nobodys", "x" * 1_000, "a.b.c", "rr_\u0000", "rr_" + "é" * 40])
def test_an_invented_refresh_token_is_refused_without_a_line_on_the_record(service: Service, token: str) -> None:
    answer = service.client.post("/v1/auth/refresh", json={"refresh_token": token})

    assert answer.status_code == 401
    assert service.records() == []


def test_a_session_token_refreshes_nothing_and_a_refresh_token_opens_nothing(service: Service) -> None:
    session = signed_in(service)
    swapped = {"access_token": session["refresh_token"], "refresh_token": session["access_token"]}

    assert service.refresh(swapped).status_code == 401
    assert service.me(swapped).status_code == 401


# ---- the end


def test_signing_out_ends_the_session_and_no_other(service: Service) -> None:
    session, other = signed_in(service), signed_in(service)

    answer = service.client.post("/v1/auth/logout", headers=bearer(session["access_token"]))

    assert answer.status_code == 200
    assert service.me(session).status_code == 401
    assert service.refresh(session).status_code == 401
    assert service.me(other).status_code == 200
    (record,) = service.records("auth.logout")
    assert (record.actor, record.outcome) == ("ada", "ok")


def test_another_issuers_token_can_be_signed_out_too(service: Service) -> None:
    token = service.token()
    assert service.client.get("/v1/auth/me", headers=token).json()["subject"] == "dev:root"

    assert service.client.post("/v1/auth/logout", headers=token).status_code == 200
    assert service.client.get("/v1/auth/me", headers=token).status_code == 401


@pytest.mark.parametrize("order", [{"subject": "ada"}, {"subject": "ada", "action": "disable"}, {"everyone": True}])
def test_what_is_revoked_is_refused_at_once_here(service: Service, order: dict[str, Any]) -> None:
    session = signed_in(service)
    time.sleep(1.1)  # a token's time is in whole seconds
    root = service.token()

    answer = service.client.post("/v1/auth/revoke", json=order, headers=root)

    assert answer.status_code == 200, answer.text
    assert service.me(session).status_code == 401
    assert service.refresh(session).status_code == 401
    (record,) = service.records("auth.revoke")
    assert (record.actor, record.outcome) == ("dev:root", "ok")
    assert record.detail.items() >= order.items()


def test_a_disabled_person_cannot_sign_in_until_enabled(service: Service) -> None:
    root = service.token()
    order = {"subject": "ada", "action": "disable"}
    assert service.client.post("/v1/auth/revoke", json=order, headers=root).status_code == 200

    answer = service.client.post("/v1/auth/ldap/corp", json=WHO)
    assert (answer.status_code, answer.json()["detail"]) == (401, "this sign-in does not hold")
    assert service.records("auth.sign_in")[-1].detail["reason"] == "disabled"
    order["action"] = "enable"
    assert service.client.post("/v1/auth/revoke", json=order, headers=root).status_code == 200
    time.sleep(1.1)
    assert service.me(signed_in(service)).status_code == 200


def test_revoking_needs_the_permission_and_stays_in_the_tenant(service: Service) -> None:
    session = signed_in(service)
    order = {"subject": "ada"}

    assert service.client.post("/v1/auth/revoke", json=order).status_code == 401
    denied = service.client.post("/v1/auth/revoke", json=order, headers=bearer(session["access_token"]))
    assert denied.status_code == 403
    foreign = service.token(tenant="globex")
    assert service.client.post("/v1/auth/revoke", json=order, headers=foreign).status_code == 200
    assert service.me(session).status_code == 200


@pytest.mark.parametrize(
    "order",
    [{}, {"subject": "ada", "everyone": True}, {"action": "disable", "everyone": True}, {"subject": "\u200b"}, {"x": 1}]
    + [{"subject": "ada", "before": at} for at in ("soon", "2999-01-01T00:00:00Z", "2020-01-01T00:00:00", 5)],
)
def test_an_order_that_cannot_be_meant_revokes_nothing(service: Service, order: dict[str, Any]) -> None:
    answer = service.client.post("/v1/auth/revoke", json=order, headers=service.token())

    assert answer.status_code == 422 or order.get("before") == 5
    assert service.ledger.revocations.version() == 0 or order.get("before") == 5


def test_without_the_ledger_nobody_passes(service: Service) -> None:
    session = signed_in(service)
    with sqlite3.connect(service.home / "ledger.sqlite") as connection:
        connection.execute("ALTER TABLE index_state RENAME TO away")
    service.known.revocations._as_of = float("-inf")

    assert service.me(session).status_code == 503
    assert service.client.post("/v1/auth/refresh", json={"refresh_token": session["refresh_token"]}).status_code == 200


# ---- tokens


def test_a_person_in_very_many_groups_keeps_all_of_them(service: Service, ldap: LdapServer) -> None:
    names = [f"project-{number:04d}" for number in range(1_200)]
    with ldap.connection() as connection:
        for name in names:
            connection.add(group_dn(name), ["groupOfNames"], {"member": [person_dn("carol")]})
    try:
        session = signed_in(service, username="carol")
    finally:
        with ldap.connection() as connection:
            for name in names:
                connection.delete(group_dn(name))

    assert len(session["access_token"]) < 4_096
    found = service.me(session).json()
    assert found["groups"] == sorted([*names, "circle-a", "circle-b"])


@pytest.mark.parametrize("kind", ["JWT", KIND])
def test_no_other_key_signs_session_tokens(service: Service, tmp_path: Path, kind: str) -> None:
    now = int(time.time())
    claims = {"iss": "rayrag-sessions", "aud": "rayrag-sessions", "sub": "ada", "tenant": "acme", "iat": now}
    claims |= {"exp": now + 60, "roles": ["admin"], "jti": "x"}
    ours = Signer(service.home / "secrets" / "sessions.pem")
    theirs = Signer(tmp_path / "dev.pem")

    assert service.client.get("/v1/auth/me", headers=bearer(theirs.sign(claims, kind))).status_code == 401
    expected = 200 if kind == KIND else 401
    assert service.client.get("/v1/auth/me", headers=bearer(ours.sign(claims, kind))).status_code == expected
