"""`rayrag revoke`, `disable`, `enable` and `sessions`: what they change, and that it is on the record."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.cli import main
from index.ledger import Ledger
from index.sessions import Refresh, Session
from policies.audit import AuditLog
from policies.errors import SignInRefused
from policies.principals import Principal
from policies.revocation import Revocation
from policies.sessions import IssuedToken

CONFIG = str(Path(__file__).resolve().parents[3] / "serve_config.yaml")


class Rayrag:
    """The command line on a data directory of its own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._monkeypatch, self._capsys = home, monkeypatch, capsys
        home.mkdir()
        self.ledger = Ledger(f"sqlite:///{home}/ledger.sqlite")

    def __call__(self, *words: str, code: int = 0) -> str:
        self._monkeypatch.setattr(sys, "argv", ["rayrag", *words, "--config", CONFIG, "--data-dir", str(self.home)])
        try:
            found = main()
        except SystemExit as end:
            found = int(end.code or 0)
        told = self._capsys.readouterr()
        assert found == code, told
        return told.out + told.err

    def start(self, session_id: str = "s1", subject: str = "ada") -> None:
        now = time.time()
        session = Session(session_id, Principal(subject, "acme"), "ldap:corp", subject, now, now, now + 3_600)
        token = IssuedToken("text", f"token-{session_id}", now + 600)
        self.ledger.sessions.start(session, Refresh(f"hash-{session_id}", now + 3_600, token))

    def outcomes(self) -> list[tuple[str, str]]:
        log = AuditLog(f"sqlite:///{self.home}/audit.sqlite")
        found = [(each.action, each.outcome) for each in log.records() if each.kind == "outcome"]
        assert all(each.actor.startswith("operator:") for each in log.records())
        log.close()
        return found


@pytest.fixture
def rayrag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rayrag:
    monkeypatch.chdir(tmp_path)
    return Rayrag(tmp_path / "data", monkeypatch, capsys)


def test_a_person_is_revoked_with_their_sessions(rayrag: Rayrag) -> None:
    rayrag.start()

    rayrag("revoke", "--sub", "ada", "--tenant", "acme")

    with pytest.raises(SignInRefused):
        rayrag.ledger.sessions.find("hash-s1")
    assert rayrag.outcomes() == [("auth.revoke", "ok")]


def test_a_time_a_token_and_a_tenant_can_be_named(rayrag: Rayrag) -> None:
    noon = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(hours=12)
    rayrag("revoke", "--sub", "ada", "--tenant", "acme", "--before", noon.isoformat())
    rayrag("revoke", "--token", "a-token-id")
    rayrag("revoke", "--tenant", "acme", "--everyone")

    one, two, three = rayrag.ledger.revocations.entries()
    assert one == Revocation("person", "acme", "ada", noon.timestamp())
    assert two == Revocation("token", "", "a-token-id")
    assert (three.kind, three.tenant) == ("tenant", "acme")


def test_a_person_is_disabled_and_enabled(rayrag: Rayrag) -> None:
    rayrag("disable", "--sub", "ada", "--tenant", "acme")
    assert rayrag.ledger.revocations.entries() == [Revocation("person", "acme", "ada")]
    rayrag("enable", "--sub", "ada", "--tenant", "acme")
    assert "not disabled" in rayrag("enable", "--sub", "ada", "--tenant", "acme", code=1)

    assert rayrag.outcomes() == [("auth.disable", "ok"), ("auth.enable", "ok"), ("auth.enable", "not_found")]


def test_sessions_are_listed_and_ended(rayrag: Rayrag) -> None:
    rayrag.start("s1")
    rayrag.start("s2", "bob")

    listed = json.loads(rayrag("sessions", "list", "--json"))
    assert {(each["session"], each["subject"], each["way"]) for each in listed} == {
        ("s1", "ada", "ldap:corp"),
        ("s2", "bob", "ldap:corp"),
    }
    rayrag("sessions", "end", "s1")
    assert "s1" not in rayrag("sessions", "list")
    assert rayrag.ledger.revocations.entries() == [Revocation("token", "acme", "token-s1")]
    assert "No session" in rayrag("sessions", "end", "s1", code=1)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--tenant", "acme"],
        ["--sub", "ada"],
        ["--everyone"],
        ["--sub", "ada", "--tenant", "acme", "--everyone"],
        ["--sub", "ada", "--tenant", "acme", "--before", "soon"],
        ["--sub", "ada", "--tenant", "acme", "--before", "2999-01-01"],
        ["--sub", "a\u200bda", "--tenant", "acme"],
        ["--token", "aaa.bbb.ccc"],
        ["--token", "id", "--before", "2026-01-01"],
    ],
)
def test_what_cannot_be_meant_changes_nothing(rayrag: Rayrag, words: list[str]) -> None:
    rayrag("revoke", *words, code=1)

    assert rayrag.ledger.revocations.version() == 0
