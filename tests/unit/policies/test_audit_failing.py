"""No audit, no answer: each place where the record can fail, behind the guard."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

import policies
from policies.audit import AuditLog
from policies.errors import Forbidden, Overloaded, Unavailable
from policies.guard import KNOWN, Guard
from policies.principals import Principal
from policies.roles import Roles

ADA = Principal("ada", "acme", frozenset({"user"}))


class Knows:
    def verify(self, token: str) -> Principal:
        return ADA


def asked(guard: Guard, during: Callable[[], None] = lambda: None, request_id: str = "r1") -> str:
    """Ask once; gives the answer, where one leaves."""

    async def answer() -> str:
        async with guard.request(ADA, "rag:query", "query", request_id):
            during()
        return "the answer"

    return asyncio.run(answer())


def guard_over(log: AuditLog) -> Guard:
    return Guard(Knows(), Roles.load({}), log, "v1")


def lines(log: AuditLog) -> list[tuple[str, str]]:
    return [(record.kind, record.outcome) for record in log.records(limit=1000)]


def test_a_database_that_somebody_holds_locked(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite", patience_s=0.1)
    guard = guard_over(log)
    assert asked(guard) == "the answer"
    holder = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    with pytest.raises(Unavailable):
        asked(guard)
    holder.execute("ROLLBACK")
    with pytest.raises(Unavailable):  # while it is answered: the intent stands, the answer does not leave
        asked(guard, lambda: holder.execute("BEGIN IMMEDIATE"))  # type: ignore[arg-type, return-value]
    holder.execute("ROLLBACK")
    assert asked(guard) == "the answer"
    assert lines(log) == [("intent", ""), ("outcome", "ok"), ("intent", ""), ("intent", ""), ("outcome", "ok")]
    log.close()


def test_a_database_that_was_taken_away(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    guard = guard_over(log)
    keeper = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    with pytest.raises(Unavailable):
        asked(guard, lambda: keeper.execute("ALTER TABLE audit_records RENAME TO away"))  # type: ignore[arg-type, return-value]
    with pytest.raises(Unavailable):
        asked(guard)
    log.close()


def test_a_trigger_that_refuses_the_outcome_keeps_the_answer_back(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    keeper = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    keeper.execute(
        "CREATE TRIGGER no BEFORE INSERT ON audit_records WHEN NEW.kind = 'outcome' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(Unavailable):
        asked(guard_over(log))
    assert lines(log) == [("intent", "")]
    log.close()


FILLING = """
import resource, signal, sys
from policies.audit import AuditLog
from test_audit_failing import asked, guard_over  # tests are no package
from policies.errors import Unavailable

log = AuditLog(sys.argv[1])
guard = guard_over(log)
assert asked(guard) == "the answer"
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails, as on a disk that is full
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
answered = 0
try:
    while answered < 5000:
        asked(guard, request_id=f"r{answered}")
        answered += 1
except Unavailable:
    print("refused after", answered)
try:
    asked(guard)
    print("answered")
except Unavailable:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(asked(guard))
verdict, outcomes = log.verify(), [r.request_id for r in log.records(limit=100000) if r.kind == "outcome"]
print(verdict.ok, len(outcomes) >= answered + 2, len(set(outcomes)) >= answered)
"""


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    root = Path(policies.__file__).parent.parent
    paths = {"PYTHONPATH": f"{root}:{Path(__file__).parent}", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", FILLING, f"sqlite:///{tmp_path}/audit.sqlite"]
    said = subprocess.run(command, env=paths, cwd=root, capture_output=True, text=True, timeout=60, check=False)

    assert said.returncode == 0, said.stderr
    words = said.stdout.split("\n")
    assert words[0].startswith("refused after") and int(words[0].split()[-1]) > 5
    assert words[1:4] == ["refused", "the answer", "True True True"]


def test_a_database_that_may_only_be_read(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    assert asked(guard_over(log)) == "the answer"
    with log._engine.connect() as connection:  # what a mount that became read-only does, also for root
        connection.exec_driver_sql("PRAGMA query_only=ON")
        connection.rollback()
    with pytest.raises(Unavailable):
        asked(guard_over(log))
    log.close()


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        AuditLog(f"sqlite:///{tmp_path}/file/audit.sqlite")


def test_a_postgresql_that_is_gone_and_comes_back(postgres_url: str) -> None:
    name = "audit_gone"
    plain = postgres_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as keeper:
        keeper.execute(f"CREATE DATABASE {name}".encode())
        log = AuditLog(postgres_url.replace("/postgres?", f"/{name}?"))
        guard = guard_over(log)
        assert asked(guard) == "the answer"

        def gone() -> None:
            keeper.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            keeper.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

        with pytest.raises(Unavailable):
            asked(guard, gone)
        with pytest.raises(Unavailable):
            asked(guard)
        keeper.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        assert asked(guard) == "the answer"
        assert lines(log) == [("intent", ""), ("outcome", "ok"), ("intent", ""), ("intent", ""), ("outcome", "ok")]
        log.close()
        keeper.execute(f"DROP DATABASE {name}".encode())


# ---- what is refused at the door


def test_what_needs_no_permission_is_on_the_record_all_the_same(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")

    async def me() -> None:
        async with guard_over(log).request(Principal("bob", "acme"), KNOWN, "auth.me", "r1"):
            pass

    asyncio.run(me())
    assert lines(log) == [("intent", ""), ("outcome", "ok")]
    log.close()


def test_who_is_refused_again_and_again_cannot_fill_the_record(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    left = [3]

    def limit(who: Principal, action: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Overloaded("too many", 1)

    guard = Guard(Knows(), Roles.load({}), log, "v1", limits=[limit])

    async def ask(permission: str) -> Exception | None:
        try:
            async with guard.request(ADA, permission, "query", "r"):
                return None
        except (Forbidden, Overloaded) as error:
            return error

    allowed = asyncio.run(ask("rag:query"))
    refused = [asyncio.run(ask("documents:delete")) for _ in range(20)]
    limited = [asyncio.run(ask("rag:query")) for _ in range(20)]

    assert allowed is None
    assert [type(error) for error in refused] == [Forbidden] * 20, "not told that it was too much: it may not at all"
    assert [type(error) for error in limited] == [Overloaded] * 20
    recorded = [error for error in (*refused, *limited) if error is not None and error.recorded]  # type: ignore[attr-defined]
    assert len(recorded) == 3, "two within the limit, and the first that was too much"
    assert [outcome for kind, outcome in lines(log) if kind == "outcome"] == ["ok", "denied", "denied", "denied"]
    log.close()


def test_the_rules_that_held_passages_back_are_named_and_their_ids_are_bounded(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")

    async def ask() -> None:
        async with guard_over(log).request(ADA, "rag:query", "query", "r1") as request:
            request.withhold([f"c{number}" for number in range(70)], "ledger")
            request.withhold(["d1"], "suppressed")
            request.withhold([], "right_lost")
            request.note({"redactions": {"EMAIL_ADDRESS": 2}})

    asyncio.run(ask())
    outcome = log.records()[-1]
    assert outcome.chunks_withheld == 71
    assert outcome.detail["withheld"] == {"ledger": 70, "suppressed": 1}
    assert outcome.detail["withheld:ledger"] == [f"c{number}" for number in range(50)]
    assert outcome.detail["withheld:suppressed"] == ["d1"]
    assert outcome.detail["redactions"] == {"EMAIL_ADDRESS": 2}
    log.close()
