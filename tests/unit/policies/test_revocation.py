"""What is revoked is refused, soon and everywhere; and where nobody can tell, nobody passes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from policies.errors import TokenRejected, Unavailable
from policies.principals import Principal
from policies.revocation import FRESH_S, STALE_S, Revocation, Revocations, Revoked
from policies.tokens import VerifiedToken


def token(
    issued_at: float = 1_000.0,
    subject: str = "ada",
    tenant: str = "acme",
    token_id: str | None = "t1",
    issuer: str = "idp",
) -> VerifiedToken:
    return VerifiedToken(Principal(subject, tenant), issuer, token_id, issued_at, issued_at + 600)


@pytest.mark.parametrize(
    ("entry", "revoked", "not_revoked"),
    [
        (Revocation("token", "", "t1"), token(), token(token_id="t2")),
        (Revocation("token", "acme", "t1"), token(), token(tenant="globex")),
        (Revocation("token", "", "t1"), token(), token(token_id=None)),
        (Revocation("person", "acme", "ada", 1_000), token(1_000), token(1_000.5)),
        (Revocation("person", "acme", "ada", 1_000), token(), token(subject="bob")),
        (Revocation("person", "acme", "ada", 1_000), token(), token(tenant="globex")),
        (Revocation("person", "acme", "ada"), token(9e9), token(subject="bob")),
        (Revocation("tenant", "acme", "", 1_000), token(subject="bob"), token(1_001)),
        (Revocation("tenant", "acme", "", 1_000), token(), token(tenant="globex")),
    ],
)
def test_an_entry_revokes_what_it_names(entry: Revocation, revoked: VerifiedToken, not_revoked: VerifiedToken) -> None:
    known = Revoked([entry])

    assert known.why(revoked) == entry.kind
    assert known.why(not_revoked) is None


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_entries_the_later_one_holds(order: int) -> None:
    entries = [Revocation("person", "acme", "ada", at) for at in (1_000, 2_000)][::order]

    assert Revoked(entries).why(token(1_500)) == "person"
    assert Revoked([*entries, Revocation("person", "acme", "ada")][::order]).why(token(9e9)) == "person"


def test_clocks_of_other_issuers_may_be_ahead_and_ours_is_not() -> None:
    known = Revoked([Revocation("person", "acme", "ada", 1_000)], skew_s=30, ours={"us"})

    assert known.why(token(1_030)) == "person"
    assert known.why(token(1_031)) is None
    assert known.why(token(1_001, issuer="us")) is None


class Source:
    def __init__(self) -> None:
        self.known: list[Revocation] = []
        self.number = 0
        self.read = 0
        self.broken = False
        self.going_on = threading.Event()
        self.going_on.set()

    def add(self, entry: Revocation) -> None:
        self.known.append(entry)
        self.number += 1

    def version(self) -> int:
        self.going_on.wait()
        if self.broken:
            raise Unavailable("the ledger is down")
        return self.number

    def entries(self) -> Sequence[Revocation]:
        self.read += 1
        return list(self.known)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def replica(source: Source, clock: Clock) -> Revocations:
    return Revocations(source, clock=clock, wait_s=0.2)


def test_what_was_revoked_elsewhere_is_refused_after_seconds(
    source: Source, clock: Clock, replica: Revocations
) -> None:
    replica.require_valid(token())
    source.add(Revocation("person", "acme", "ada", 1_000))
    clock.now += FRESH_S + 0.1

    with pytest.raises(TokenRejected) as error:
        replica.require_valid(token())
    assert error.value.reason == "revoked_person"


def test_what_was_revoked_here_is_refused_at_once(source: Source, replica: Revocations) -> None:
    replica.require_valid(token())
    source.add(Revocation("person", "acme", "ada", 1_000))
    replica.forget()

    with pytest.raises(TokenRejected):
        replica.require_valid(token())


def test_a_list_that_did_not_change_is_not_read_again(source: Source, clock: Clock, replica: Revocations) -> None:
    for _ in range(20):
        replica.require_valid(token())
        clock.now += FRESH_S + 0.1

    assert source.read == 1


def test_without_a_ledger_nobody_passes_at_the_start(source: Source, replica: Revocations) -> None:
    source.broken = True

    with pytest.raises(Unavailable):
        replica.require_valid(token())


@pytest.mark.parametrize("how", ["broken", "hanging"])
def test_the_known_list_serves_for_a_while_and_then_nobody_passes(
    source: Source, clock: Clock, replica: Revocations, how: str
) -> None:
    source.add(Revocation("token", "", "t9"))
    replica.require_valid(token())
    source.broken = how == "broken"
    if how == "hanging":
        source.going_on.clear()

    clock.now += STALE_S - 1
    replica.require_valid(token())
    with pytest.raises(TokenRejected):
        replica.require_valid(token(token_id="t9"))
    clock.now += 2
    with pytest.raises(Unavailable):
        replica.require_valid(token())

    source.broken = False
    source.going_on.set()
    replica.require_valid(token())


def test_what_breaks_in_a_way_that_nobody_thought_of_lets_nobody_pass(clock: Clock) -> None:
    class Broken(Source):
        def version(self) -> int:
            raise ZeroDivisionError

    with pytest.raises(Unavailable):
        Revocations(Broken(), clock=clock, wait_s=0.2).require_valid(token())
