"""Too many groups for a token: all of them are found, or nobody is let in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from policies import overage
from policies.errors import ConfigurationError, TokenRejected, Unavailable
from policies.identity import Identity
from policies.issuers import ClaimNames, Issuer, NameMap, ServiceMark, Services
from policies.keys import PemFile
from policies.overage import Directory, EntraGroups, KeptGroups
from policies.tokens import TokenVerifier
from tests.unit.policies.forged import AUDIENCE, ISSUER, KEYS, claims, public_pem, signed
from tests.unit.policies.graph_directory import SECRET, GraphDirectory, serving

ADA = "8f1c0000-0000-4000-8000-000000000001"


@pytest.fixture
def graph() -> Iterator[GraphDirectory]:
    with serving() as state:
        yield state


def directory(graph: GraphDirectory, secret: str = SECRET) -> Directory:
    return Directory("contoso", "app", lambda: secret, graph.address, graph.address)


def asking(graph: GraphDirectory, **parts: Any) -> EntraGroups:
    return EntraGroups(directory(graph), **parts)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses after a failure, for tests that ask on."""
    monkeypatch.setattr(overage, "PAUSE_S", 0.0)


def test_all_pages_are_read(graph: GraphDirectory) -> None:
    names = [f"g{number}" for number in range(501)]
    graph.member(ADA, *names)
    graph.page = 100

    assert asking(graph).of(ADA) == frozenset(names)
    assert len(graph.asked) == 6


def test_only_groups_count_not_directory_roles(graph: GraphDirectory) -> None:
    graph.member(ADA, "g1")
    graph.member(ADA, "role", kind="directoryRole")
    graph.member(ADA, "unit", kind="administrativeUnit")
    graph.member(ADA, "mailing", securityEnabled=False)
    graph.member(ADA, "hidden", securityEnabled=None)

    assert asking(graph).of(ADA) == {"g1", "mailing", "hidden"}
    assert asking(graph, security_groups_only=True).of(ADA) == {"g1", "hidden"}


def test_the_answer_is_kept_for_a_short_time(graph: GraphDirectory) -> None:
    graph.member(ADA, "g1")
    groups = asking(graph, cache_s=0.2)
    assert [groups.of(ADA) for _ in range(20)] == [{"g1"}] * 20
    assert len(graph.asked) == 1

    graph.member(ADA, "g2")
    time.sleep(0.25)

    assert groups.of(ADA) == {"g1", "g2"}
    assert graph.tokens == 1, "the application's own token is kept, too"


def test_many_requests_of_one_person_are_one_question(graph: GraphDirectory) -> None:
    graph.member(ADA, "g1")
    graph.delay_s = 0.2
    groups = asking(graph)

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(groups.of, [ADA] * 5)) == [{"g1"}] * 5

    assert len(graph.asked) == 1


@pytest.mark.parametrize("same", [True, False])
def test_a_slow_directory_keeps_few_requests_waiting_and_refuses_the_others_at_once(
    graph: GraphDirectory, same: bool
) -> None:
    people = [ADA if same else f"p{number}" for number in range(16)]
    for person in people:
        graph.member(person, "g1")
    graph.member("first", "g1")
    groups = asking(graph)
    groups.of("first")  # the application has its own token from then on
    graph.delay_s = 0.4

    def waited_s(person: str) -> float | None:
        begun = time.monotonic()
        try:
            groups.of(person)
        except Unavailable:
            return time.monotonic() - begun
        return None

    with ThreadPoolExecutor(16) as pool:
        refused = [each for each in pool.map(waited_s, people) if each is not None]

    expected = 16 - overage.WAITING - (1 if same else overage.AT_ONCE)
    assert len(refused) == expected
    assert max(refused) < 0.3
    graph.member("later", "g1")
    assert groups.of("later") == {"g1"}, "it is no failure after which nobody asks"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_page_that_fails_once_is_asked_for_again(graph: GraphDirectory, status: int) -> None:
    graph.member(ADA, "g1", "g2", "g3")
    graph.answers = [(status, {"retry-after": "0"}, b"")]

    assert asking(graph).of(ADA) == {"g1", "g2", "g3"}


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("down", {"answers": [(500, {}, b"")] * 9}),
    ("throttled for long", {"answers": [(429, {"retry-after": "120"}, b"")]}),
    ("throttled again and again", {"answers": [(429, {"retry-after": "0"}, b"")] * 9}),
    ("not permitted", {"answers": [(403, {}, b"")]}),
    ("no JSON", {"answers": [(200, {}, b"<html>")] * 9}),
    ("no object", {"answers": [(200, {}, b"[]")] * 9}),
    ("no list", {"answers": [(200, {}, b'{"value": {}}')]}),
    ("an entry without id", {"answers": [(200, {}, b'{"value": [{"@odata.type": "#microsoft.graph.group"}]}')]}),
    ("an entry without type", {"answers": [(200, {}, b'{"value": [{"id": "g1"}]}')]}),
    ("too large", {"answers": [(200, {}, b" " * 4_000_001)] * 9}),
    ("a redirect", {"answers": [(302, {"location": "http://127.0.0.1:1/"}, b"")] * 9}),
    ("its next page is another host's", {"next_link": "http://127.0.0.1:1/v1.0/users/x"}),
    ("its next page is a number", {"next_link": 7}),
    ("slow", {"delay_s": 1.0}),
    ("no sign-in", {"sign_in_answers": [(500, b"")] * 9}),
    ("a sign-in without token", {"sign_in_answers": [(200, b"{}")] * 9}),
]


@pytest.mark.parametrize("change", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_where_the_groups_cannot_be_had_nobody_is_let_in(graph: GraphDirectory, change: dict[str, Any]) -> None:
    graph.member(ADA, "g1", "g2", "g3")
    for name, value in change.items():
        setattr(graph, name, value)
    groups = asking(graph, deadline_s=0.9)
    begun = time.monotonic()

    with pytest.raises(Unavailable) as raised:
        groups.of(ADA)

    assert time.monotonic() - begun < 4
    assert "127.0.0.1" not in str(raised.value)


def test_a_later_page_that_fails_is_not_the_end_of_the_list(graph: GraphDirectory, quick: None) -> None:
    graph.member(ADA, "g1", "g2", "g3")
    groups = asking(graph)
    groups.of(ADA)
    fresh = asking(graph)
    graph.next_link = f"{graph.address}/v1.0/users/nobody/transitiveMemberOf"

    with pytest.raises((Unavailable, TokenRejected)):
        fresh.of(ADA)
    graph.next_link = None
    assert fresh.of(ADA) == {"g1", "g2", "g3"}


def test_after_a_failure_nobody_asks_for_a_while(graph: GraphDirectory) -> None:
    graph.member(ADA, "g1")
    graph.answers = [(403, {}, b"")]
    groups = asking(graph)
    for _ in range(10):
        with pytest.raises(Unavailable):
            groups.of(ADA)
    assert len(graph.asked) == 1

    time.sleep(overage.PAUSE_S + 0.1)
    assert groups.of(ADA) == {"g1"}


def test_a_wrong_secret_is_said_in_the_log_and_not_shown(
    graph: GraphDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unavailable):
        EntraGroups(directory(graph, "wrong-secret")).of(ADA)
    assert "check the application's secret" in caplog.text
    assert "wrong-secret" not in caplog.text


def test_a_token_that_expired_early_is_renewed(graph: GraphDirectory) -> None:
    graph.member(ADA, "g1")
    graph.member("b", "g2")
    groups = asking(graph)
    groups.of(ADA)
    graph.accepted = set()

    assert groups.of("b") == {"g2"}
    assert graph.tokens == 2


def test_a_person_whom_the_directory_does_not_know_is_refused(graph: GraphDirectory) -> None:
    with pytest.raises(TokenRejected) as raised:
        asking(graph).of(ADA)
    assert raised.value.reason == "unknown_person"


@pytest.mark.parametrize("person", ["", "../me", "a/b", "a?b", "a%2fb", "a b", "x" * 65, "a\n"])
def test_an_id_is_no_path(graph: GraphDirectory, person: str) -> None:
    with pytest.raises(TokenRejected):
        asking(graph).of(person)
    assert graph.asked == []


def test_very_many_groups_are_refused_and_not_cut(graph: GraphDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overage, "MAX_NAMES", 5)
    graph.page = 3
    graph.member(ADA, *(f"g{number}" for number in range(5)))
    assert len(asking(graph).of(ADA)) == 5
    graph.member(ADA, "g5")
    with pytest.raises(Unavailable):
        asking(graph).of(ADA)


def test_a_directory_is_asked_over_a_private_channel() -> None:
    with pytest.raises(ConfigurationError, match=r"overage\.graph"):
        EntraGroups(Directory("t", "c", str, graph="http://graph.example"))
    with pytest.raises(ConfigurationError, match=r"overage\.authority"):
        EntraGroups(Directory("t", "c", str, authority="http://login.example"))


# ---- from the token on


@pytest.fixture
def identity(graph: GraphDirectory, tmp_path: Path) -> Identity:
    (tmp_path / "key.pem").write_bytes(public_pem(KEYS["ES256"]))
    names = NameMap({"g1": "finance"}, prefix="entra:")
    services = Services((ServiceMark("idtyp", equals="app"),), "azp", {"job": frozenset({"ingest"})})
    entra = Issuer(
        ISSUER,
        AUDIENCE,
        ("ES256",),
        PemFile(tmp_path / "key.pem"),
        ClaimNames(subject="oid"),
        groups=names,
        services=services,
        completes_groups=True,
    )
    return Identity(TokenVerifier([entra]), kept_groups=KeptGroups({ISSUER: (asking(graph), names)}))


def token(**changes: Any) -> str:
    return signed({"alg": "ES256"}, claims(**{"oid": ADA, "groups": ..., **changes}), "ES256")


OVERAGE: dict[str, dict[str, Any]] = {
    "a pointer": {
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/contoso/users/x/getMemberObjects"}},
    },
    "a flag": {"hasgroups": True},
}


@pytest.mark.parametrize("said", OVERAGE.values(), ids=OVERAGE)
def test_a_token_with_too_many_groups_gets_all_of_them(
    graph: GraphDirectory, identity: Identity, said: dict[str, Any]
) -> None:
    graph.member(ADA, "g1", "g2", "g3")

    who = identity.verify(token(**said))

    assert who.groups == {"finance", "entra:g2", "entra:g3"}


def test_the_address_in_a_token_is_never_asked(graph: GraphDirectory, identity: Identity) -> None:
    graph.member(ADA, "g1")
    with serving() as evil:
        evil.member(ADA, "admins")
        elsewhere = {"src1": {"endpoint": f"{evil.address}/v1.0/users/{ADA}/transitiveMemberOf"}}
        who = identity.verify(token(_claim_names={"groups": "src1"}, _claim_sources=elsewhere))

        assert who.groups == {"finance"}
        assert (evil.asked, evil.tokens) == ([], 0)


def test_a_token_with_its_groups_asks_nobody(graph: GraphDirectory, identity: Identity) -> None:
    assert identity.verify(token(groups=["g1"])).groups == {"finance"}
    assert graph.asked == []


def test_a_service_is_looked_up_as_one(graph: GraphDirectory, identity: Identity) -> None:
    graph.member(ADA, "g1")
    who = identity.verify(token(hasgroups=True, idtyp="app", azp="job"))
    assert (who.subject, who.groups) == ("service:job", {"finance"})
    assert "/servicePrincipals/" in graph.asked[0]


@pytest.mark.parametrize("name", ["oid", "tenant", "roles"])
def test_anything_else_that_is_kept_elsewhere_is_refused(identity: Identity, name: str) -> None:
    said = {"_claim_names": {name: "src1", "groups": "src1"}}
    with pytest.raises(TokenRejected) as raised:
        identity.verify(token(**said))
    assert raised.value.reason == "distributed_claims"


def test_a_person_without_an_id_cannot_be_looked_up(identity: Identity) -> None:
    with pytest.raises(TokenRejected):
        identity.verify(token(hasgroups=True, oid=...))
