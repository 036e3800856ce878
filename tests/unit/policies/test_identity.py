"""One order, and no step is done without."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from policies.errors import Forbidden, TokenRejected, Unauthenticated, Unavailable
from policies.identity import Identity
from policies.labels import Label
from policies.principals import Principal
from policies.tokens import VerifiedToken

ADA = Principal("ada", "acme", frozenset({"user"}), frozenset({"finance"}))
TOKEN = VerifiedToken(ADA, "https://id.example", "t-1", 1.0, 2.0)


@dataclass
class Parts:
    """Every step; notes the order, and fails where it is told to."""

    token: VerifiedToken = TOKEN
    fails: dict[str, Exception] = field(default_factory=dict)
    calls: list[Any] = field(default_factory=list)
    expanded: frozenset[str] = frozenset({"finance", "kept", "everybody-in-finance"})

    def _call(self, name: str, *about: Any) -> None:
        self.calls.append((name, *about))
        if name in self.fails:
            raise self.fails[name]

    def verify(self, token: str) -> VerifiedToken:
        self._call("verify", token)
        return self.token

    def require_valid(self, token: VerifiedToken) -> None:
        self._call("revoked", token)

    def complete(self, token: VerifiedToken) -> frozenset[str]:
        self._call("complete", token)
        return frozenset({"kept"})

    def expand(self, tenant: str, groups: frozenset[str], subject: str) -> frozenset[str]:
        self._call("expand", tenant, groups, subject)
        return self.expanded

    def clearance(self, principal: Principal) -> Label:
        self._call("clearance", principal)
        return Label.RESTRICTED

    def identity(self) -> Identity:
        tokens: Any = self
        return Identity(tokens, self, self, self, self)


def test_the_order_of_steps() -> None:
    parts = Parts(replace(TOKEN, directory_id="8f1c"))

    who = parts.identity().verify("token")

    everything = replace(ADA, groups=parts.expanded)
    assert parts.calls == [
        ("verify", "token"),
        ("revoked", parts.token),
        ("complete", parts.token),
        ("expand", "acme", frozenset({"finance", "kept"}), "ada"),
        ("clearance", everything),
    ]
    assert who == replace(everything, clearance=Label.RESTRICTED)


def test_a_token_that_holds_all_its_groups_needs_no_directory() -> None:
    parts = Parts()
    parts.identity().verify("token")
    assert [call[0] for call in parts.calls] == ["verify", "revoked", "expand", "clearance"]


@pytest.mark.parametrize("step", ["verify", "revoked", "complete", "expand", "clearance"])
@pytest.mark.parametrize("fault", [TokenRejected("x"), Unauthenticated("x"), Unavailable("x")])
def test_what_a_step_refuses_is_refused(step: str, fault: Exception) -> None:
    parts = Parts(replace(TOKEN, directory_id="8f1c"), {step: fault})
    with pytest.raises(type(fault)):
        parts.identity().verify("token")
    assert parts.calls[-1][0] == step


@pytest.mark.parametrize("step", ["revoked", "complete", "expand", "clearance"])
@pytest.mark.parametrize("fault", [ValueError("secret"), TimeoutError(), KeyError("x"), Forbidden("x")])
def test_a_step_that_breaks_lets_nobody_in(step: str, fault: Exception) -> None:
    parts = Parts(replace(TOKEN, directory_id="8f1c"), {step: fault})
    with pytest.raises(Unavailable) as raised:
        parts.identity().verify("token")
    assert "secret" not in str(raised.value)


def test_a_directory_that_forgets_a_group_lets_nobody_in() -> None:
    with pytest.raises(Unavailable):
        Parts(expanded=frozenset({"everybody-in-finance"})).identity().verify("token")


def test_groups_that_are_kept_elsewhere_are_not_done_without() -> None:
    tokens: Any = Parts(replace(TOKEN, directory_id="8f1c"))
    with pytest.raises(TokenRejected):
        Identity(tokens).verify("token")


def test_what_is_not_configured_adds_nothing() -> None:
    tokens: Any = Parts()
    assert Identity(tokens).verify("token") == ADA
