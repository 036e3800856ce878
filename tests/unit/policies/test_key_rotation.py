"""Keys that change, and an endpoint that misbehaves, while people ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from policies import keys
from policies.errors import RayragError, TokenRejected, Unauthenticated, Unavailable
from policies.guard import Guard
from policies.identity import Identity
from policies.issuers import Issuer
from policies.keys import JwksEndpoint
from policies.roles import Roles
from policies.tokens import TokenVerifier
from tests.unit.policies.forged import AUDIENCE, ISSUER, KEYS, STRANGER, claims, jwk, signed
from tests.unit.policies.key_server import KeyServer, serving_keys

OLD, NEW = KEYS["RS256"], STRANGER


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    with serving_keys() as state:
        state.keys = [jwk(OLD, "old", "RS256")]
        yield state


def over(endpoint: JwksEndpoint) -> TokenVerifier:
    return TokenVerifier([Issuer(ISSUER, AUDIENCE, ("RS256",), endpoint)])


def token(kid: str, key: Any = OLD) -> str:
    return signed({"alg": "RS256", "kid": kid}, claims(), "RS256", key)


@dataclass
class Asking:
    """People who ask all the time, each with the token that `current` gives."""

    verify: Callable[[str], Any]
    current: str
    done: list[int] = field(default_factory=lambda: [0] * 4)
    failures: list[BaseException] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Wait until each of them has asked several times more."""
        enough, waited = [done + 10 for done in self.done], time.monotonic() + 60
        while not self.failures and any(done < wanted for done, wanted in zip(self.done, enough, strict=True)):
            assert time.monotonic() < waited
            time.sleep(0.01)

    def run(self, person: int) -> None:
        while not self.over.wait(0.01):
            try:
                self.verify(self.current)
                self.done[person] += 1
            except RayragError as error:
                self.failures.append(error)


@contextmanager
def asking(verifier: TokenVerifier, current: str) -> Iterator[Asking]:
    state = Asking(verifier.verify, current)
    threads = [threading.Thread(target=state.run, args=(person,)) for person in range(len(state.done))]
    for thread in threads:
        thread.start()
    try:
        yield state
    finally:
        state.over.set()
        for thread in threads:
            thread.join()


def test_a_rotation_fails_no_valid_request_and_ends_with_the_old_key_refused(key_server: KeyServer) -> None:
    lifespan_s = 0.3
    verifier = over(JwksEndpoint(key_server.uri, lifespan_s=lifespan_s, cooldown_s=0.1))
    with asking(verifier, token("old")) as people:
        people.go_on()
        published(key_server, jwk(OLD, "old", "RS256"), jwk(NEW, "new", "RS256"))
        people.current = token("new", NEW)
        people.go_on()
        published(key_server, jwk(NEW, "new", "RS256"))
        with pytest.raises(TokenRejected):
            verifier.verify(token("old"))

    assert people.failures == []
    assert sum(people.done) >= 80


def published(server: KeyServer, *keys: dict[str, Any]) -> None:
    """Publish keys, and wait until they were fetched by the verifier's own clock."""
    server.keys = list(keys)
    until = server.fetches + 2
    waited = time.monotonic() + 60
    while server.fetches < until:
        assert time.monotonic() < waited
        time.sleep(0.01)


def test_a_new_key_that_signs_at_once_is_found_at_the_next_look(key_server: KeyServer) -> None:
    verifier = over(JwksEndpoint(key_server.uri, cooldown_s=0.05))
    verifier.verify(token("old"))
    key_server.keys = [jwk(NEW, "new", "RS256")]
    time.sleep(0.1)

    assert verifier.verify(token("new", NEW))


def test_a_flood_of_unknown_keys_is_one_look_in_half_a_minute(key_server: KeyServer) -> None:
    verifier = over(JwksEndpoint(key_server.uri))  # as it is set in production
    verifier.verify(token("old"))
    good = token("old")
    flood = [token(f"unknown-{number}", NEW) for number in range(100)] * 10

    def refused(one: str) -> bool:
        try:
            verifier.verify(one)
        except Unauthenticated:
            return verifier.verify(good).principal.subject == "ada"
        return False

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(refused, flood))

    assert key_server.fetches <= 2


FAULTS: dict[str, dict[str, Any]] = {
    "slow": {"delay_s": 1.0},
    "an error": {"status": 500},
    "10 MB": {"body": b" " * 10_000_000},
    "no JSON": {"body": b"<html>"},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_endpoint_holds_up_neither_known_keys_nor_the_event_loop(
    key_server: KeyServer, fault: dict[str, Any]
) -> None:
    verifier = over(JwksEndpoint(key_server.uri, lifespan_s=0.05, cooldown_s=0.1, timeout_s=0.8, deadline_s=0.8))
    verifier.verify(token("old"))
    for name, value in fault.items():
        setattr(key_server, name, value)
    recorder: Any = None
    guard = Guard(Identity(verifier), Roles.load(), recorder, "p")
    gaps: list[float] = []

    async def scene() -> None:
        async def tick() -> None:
            while True:
                begun = time.perf_counter()
                await asyncio.sleep(0.005)
                gaps.append(time.perf_counter() - begun)

        ticking = asyncio.ensure_future(tick())
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert (await guard.authenticate(token("old"))).subject == "ada"
            with pytest.raises(TokenRejected):
                await guard.authenticate(token("unknown"))
        ticking.cancel()

    asyncio.run(scene())
    assert len(gaps) > 20
    assert sorted(gaps)[int(len(gaps) * 0.95)] < 0.3, "it turns while keys are fetched"


def test_an_endpoint_that_was_never_there_is_said_to_be_unavailable(key_server: KeyServer) -> None:
    key_server.status = 500
    with pytest.raises(Unavailable):
        over(JwksEndpoint(key_server.uri, cooldown_s=0)).verify(token("old"))


def waits_s(verifier: TokenVerifier, current: str) -> float:
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        verifier.verify(current)
    return time.monotonic() - begun


def test_a_silent_endpoint_holds_few_threads_and_refuses_the_others_at_once(key_server: KeyServer) -> None:
    key_server.delay_s = 5
    verifier = over(JwksEndpoint(key_server.uri, timeout_s=1, deadline_s=1))

    with ThreadPoolExecutor(16) as pool:
        waited = sorted(pool.map(lambda _: waits_s(verifier, token("old", STRANGER)), range(16)))

    assert waited[16 - keys.WAITING - 1] < 0.5
    # And nobody is held up again by the next fetch, until a while after the one that failed.
    assert waits_s(verifier, token("old")) < 0.5
    assert key_server.fetches == 1


def test_a_key_that_cannot_be_looked_for_now_is_not_said_to_be_unknown(key_server: KeyServer) -> None:
    verifier = over(JwksEndpoint(key_server.uri, lifespan_s=0.01, cooldown_s=0, timeout_s=1, deadline_s=1))
    verifier.verify(token("old"))
    time.sleep(0.05)
    key_server.delay_s = 0.6

    def outcome(kid: str) -> str:
        try:
            verifier.verify(token(kid))
        except RayragError as error:
            return type(error).__name__
        return "ok"

    with ThreadPoolExecutor(16) as pool:
        known = [pool.submit(outcome, "old") for _ in range(8)]
        unknown = [pool.submit(outcome, "new") for _ in range(8)]

    assert {each.result() for each in known} == {"ok"}
    assert "Unavailable" in {each.result() for each in unknown}
