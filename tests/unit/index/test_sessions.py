"""Sessions and revocations in the ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from index.database import Work
from index.ledger_schema import open_database
from index.revocations import RevocationList
from index.sessions import Refresh, Session, Sessions
from policies.errors import InvalidRequest, SignInRefused
from policies.principals import Principal
from policies.revocation import KEEP_S, Revoked
from policies.sessions import IssuedToken
from policies.tokens import VerifiedToken

ADA = Principal("ada", "acme", frozenset({"user"}), frozenset({"engineers", "ä"}))


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """Two replicas' views of one ledger."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self.database = open_database(url)
        self.sessions = Sessions(self.database, self.clock)
        self.revoked = RevocationList(self.database, self.clock)
        self._number = 0

    def start(self, session_id: str = "s1", who: Principal = ADA) -> str:
        now = self.clock.now
        first = self.next()
        self.sessions.start(Session(session_id, who, "ldap:corp", who.subject, now, now, now + 10_000), first)
        return first.token_hash

    def next(self) -> Refresh:
        self._number += 1
        token = IssuedToken("text", f"t{self._number}", self.clock.now + 600)
        return Refresh(f"h{self._number}", self.clock.now + 5_000, token)

    def rotate(self, used: str, who: Principal = ADA) -> str:
        following = self.next()
        self.sessions.rotate(used, who, following)
        return following.token_hash

    def refused(self, used: str) -> str:
        with pytest.raises(SignInRefused) as error:
            self.rotate(used)
        return error.value.reason

    def holds(self, token_id: str, who: Principal = ADA, issued_at: float | None = None) -> bool:
        at = self.clock.now if issued_at is None else issued_at
        token = VerifiedToken(who, "us", token_id, at, at + 600)
        return Revoked(self.revoked.entries(), ours={"us"}).why(token) is None


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    made = Desk(database_url)
    yield made
    made.database.dispose()


def test_a_refresh_token_gives_the_next_one_and_the_person_of_now(desk: Desk) -> None:
    first = desk.start()
    found = desk.sessions.find(first)
    assert (found.principal, found.handle, found.way) == (ADA, "ada", "ldap:corp")

    second = desk.rotate(first, replace(ADA, groups=frozenset()))

    assert desk.sessions.find(second).principal.groups == frozenset()
    assert desk.sessions.groups("s1") == frozenset()


def test_a_refresh_token_used_twice_ends_the_session_and_its_tokens(desk: Desk) -> None:
    first = desk.start()
    second = desk.rotate(first)

    assert desk.refused(first) == "reused"
    assert desk.refused(second) == "ended"
    assert not desk.holds("t1")
    assert not desk.holds("t2")
    assert desk.sessions.groups("s1") is None


def test_of_two_uses_at_once_one_ends_the_session(desk: Desk) -> None:
    first = desk.start()
    following = [desk.next() for _ in range(4)]

    def use(refresh: Refresh) -> str:
        try:
            desk.sessions.rotate(first, ADA, refresh)
        except SignInRefused as error:
            return error.reason
        return "ok"

    with ThreadPoolExecutor(4) as threads:
        results = sorted(threads.map(use, following))

    assert results.count("ok") == 1
    assert results.count("reused") == 1
    assert desk.sessions.alive() == []


@pytest.mark.parametrize(("after", "reason"), [(5_001, "expired"), (10_001, "expired")])
def test_tokens_and_sessions_end_by_themselves(desk: Desk, after: float, reason: str) -> None:
    first = desk.start()
    desk.clock.now += after

    assert desk.refused(first) == reason


def test_the_longest_time_holds_however_often_it_is_refreshed(desk: Desk) -> None:
    token = desk.start()
    for _ in range(3):
        desk.clock.now += 3_000
        token = desk.rotate(token)
    desk.clock.now += 1_001

    assert desk.refused(token) == "expired"


def test_an_unknown_token_is_nobodys(desk: Desk) -> None:
    desk.start()

    assert desk.refused("h99") == "unknown"
    assert desk.sessions.peek("h99") is None


def test_signing_out_ends_one_session_and_not_the_other(desk: Desk) -> None:
    one, other = desk.start("s1"), desk.start("s2")

    assert desk.sessions.of_token("t1") == "s1"
    assert desk.sessions.end("s1", "ada") is not None
    assert desk.sessions.end("s1", "ada") is None
    assert desk.refused(one) == "ended"
    assert not desk.holds("t1")
    assert desk.holds("t2")
    desk.rotate(other)


def test_a_revoked_person_has_nothing_left_and_may_sign_in_again(desk: Desk) -> None:
    first = desk.start()
    desk.revoked.revoke_person("acme", "ada", "admin")

    assert desk.refused(first) == "ended"
    assert not desk.holds("t1")
    desk.clock.now += 1
    desk.rotate(desk.start("s2"))
    assert desk.holds("t3")


@pytest.mark.parametrize("everyone", [False, True])
def test_a_session_that_is_revoked_takes_the_tokens_of_its_refreshes_with_it(desk: Desk, everyone: bool) -> None:
    bob = replace(ADA, subject="bob", tenant="globex")
    first, since = desk.start(), desk.clock.now
    desk.start("s2", bob)
    desk.clock.now += 100
    desk.rotate(first)

    if everyone:
        desk.revoked.revoke_tenant("acme", "admin", before=since)
    else:
        desk.revoked.revoke_person("acme", "ada", "admin", before=since)

    assert not desk.holds("t3")
    assert desk.holds("t2", bob)
    assert desk.holds("t9")  # of another issuer, given since then


@pytest.mark.parametrize("everyone", [False, True])
def test_now_is_when_the_revocation_is_written(desk: Desk, monkeypatch: pytest.MonkeyPatch, everyone: bool) -> None:
    """Whoever signs in while the revocation waits for its turn is revoked, too."""
    write = desk.database.write

    def later(work: Work[Any]) -> Any:
        monkeypatch.undo()
        desk.clock.now += 5
        desk.start("s2")
        return write(work)

    monkeypatch.setattr(desk.database, "write", later)
    if everyone:
        desk.revoked.revoke_tenant("acme", "admin")
    else:
        desk.revoked.revoke_person("acme", "ada", "admin")

    assert desk.sessions.alive() == []
    assert not desk.holds("t9")


def test_a_session_whose_beginning_was_revoked_in_between_is_refused(desk: Desk) -> None:
    desk.revoked.revoke_person("acme", "ada", "admin")

    with pytest.raises(SignInRefused) as error:
        desk.start()
    assert error.value.reason == "disabled"


@pytest.mark.parametrize(("tenant", "ends"), [("acme", True), ("globex", False)])
def test_a_tenant_is_revoked_as_a_whole_and_alone(desk: Desk, tenant: str, ends: bool) -> None:
    first = desk.start()
    desk.revoked.revoke_tenant(tenant, "admin")

    assert desk.holds("t1") is not ends
    if ends:
        assert desk.refused(first) == "ended"
    else:
        desk.rotate(first)


def test_what_was_issued_after_the_named_time_stays(desk: Desk) -> None:
    desk.clock.now += 100
    first = desk.start()
    desk.revoked.revoke_person("acme", "ada", "admin", before=desk.clock.now - 50)

    assert desk.holds("t1")
    assert not desk.holds("t0", issued_at=desk.clock.now - 60)
    desk.rotate(first)


def test_a_disabled_person_stays_out_until_enabled_and_what_they_had_stays_revoked(desk: Desk) -> None:
    first = desk.start()
    desk.revoked.disable("acme", "ada", "admin")

    assert not desk.holds("t9", issued_at=desk.clock.now + KEEP_S * 2)
    desk.clock.now += 10
    with pytest.raises(SignInRefused):
        desk.start("s2")
    assert desk.revoked.enable("acme", "ada", "admin")
    assert desk.refused(first) == "ended"
    assert not desk.holds("t1", issued_at=desk.clock.now - 5)
    desk.clock.now += 1
    desk.start("s3")
    assert desk.holds("t9")
    assert not desk.revoked.enable("acme", "ada", "admin")


def test_every_change_raises_the_version_and_old_entries_go(desk: Desk) -> None:
    assert desk.revoked.version() == 0
    desk.revoked.revoke_token("t7", "admin", "acme")
    desk.revoked.revoke_person("acme", "bob", "admin")
    assert desk.revoked.version() == 2
    assert [kept.by for kept in desk.revoked.kept()] == ["admin", "admin"]
    assert [kept.revocation.name for kept in desk.revoked.kept(kind="token")] == ["t7"]
    desk.clock.now += KEEP_S + 1
    assert desk.revoked.entries() == []


@pytest.mark.parametrize("name", ["", " ada", "a\u200bda", "a" * 257])
def test_a_name_that_no_token_can_have_is_refused(desk: Desk, name: str) -> None:
    with pytest.raises(InvalidRequest):
        desk.revoked.disable("acme", name, "admin")
    with pytest.raises(InvalidRequest):
        desk.revoked.revoke_tenant(name, "admin")
    assert desk.revoked.version() == 0


def test_a_time_to_come_cannot_be_revoked(desk: Desk) -> None:
    with pytest.raises(InvalidRequest):
        desk.revoked.revoke_person("acme", "ada", "admin", before=desk.clock.now + 60)


def test_what_may_be_used_once_is_used_once_until_it_expires(desk: Desk) -> None:
    assert desk.sessions.spend("k", desk.clock.now + 60)
    assert not desk.sessions.spend("k", desk.clock.now + 60)
    assert desk.sessions.spend("other", desk.clock.now + 60)
    desk.clock.now += 61
    assert desk.sessions.spend("k", desk.clock.now + 60)
