from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

import policies
from policies.audit import AuditLog
from policies.audit_chain import (
    GENESIS,
    AuditIntent,
    AuditOutcome,
    canonical,
    record_hash,
)
from policies.audit_files import verify_export
from policies.errors import ConfigurationError, Unavailable

KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def log(database_url: str) -> Iterator[AuditLog]:
    log = AuditLog(database_url, KEY)
    yield log
    log.close()


@pytest.fixture
def local_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/audit.sqlite"


def make_intent(request_id: str = "r1", **changes: Any) -> AuditIntent:
    values: dict[str, Any] = {"actor": "ada", "tenant": "acme", "action": "query", "policy_version": "v1", "detail": {}}
    return AuditIntent(request_id=request_id, **{**values, **changes})


def make_outcome(request_id: str = "r1", **changes: Any) -> AuditOutcome:
    values: dict[str, Any] = {"actor": "ada", "tenant": "acme", "action": "query", "policy_version": "v1"}
    values |= {
        "outcome": "ok",
        "chunks_shown": ("c1", "c2"),
        "chunks_withheld": 3,
        "detail": {"generator": "extractive"},
    }
    return AuditOutcome(request_id=request_id, **{**values, **changes})


def filled(log: AuditLog, pairs: int = 5) -> None:
    for number in range(pairs):
        log.intent(make_intent(f"r{number}"))
        log.outcome(make_outcome(f"r{number}"))


def tampered(url: str, statement: str, **values: Any) -> int:
    """Change the record as someone who owns the database could."""
    engine = create_engine(url)
    with engine.begin() as connection:
        if url.startswith("sqlite"):
            names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            for name in names:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql("ALTER TABLE audit_records DISABLE TRIGGER USER")
            connection.exec_driver_sql("ALTER TABLE audit_checkpoints DISABLE TRIGGER USER")
        changed = connection.execute(text(statement), values).rowcount
    engine.dispose()
    return changed


def test_what_is_recorded_is_read_back(log: AuditLog) -> None:
    assert log.intent(make_intent(detail={"question_hash": "00ff"})) == 1
    assert (
        log.outcome(make_outcome(actor="Łukasz", detail={"stages": ["a", "b"], "n": 1, "ok": True, "none": None})) == 2
    )

    intent, outcome = log.records()
    assert (intent.kind, intent.sequence, intent.outcome, intent.chunks_shown) == ("intent", 1, "", [])
    assert intent.detail == {"question_hash": "00ff"}
    assert (outcome.kind, outcome.actor, outcome.chunks_shown, outcome.chunks_withheld) == (
        "outcome", "Łukasz", ["c1", "c2"], 3,
    )  # fmt: skip
    assert outcome.detail == {"stages": ["a", "b"], "n": 1, "ok": True, "none": None}
    assert (intent.previous_hash, outcome.previous_hash) == (GENESIS, intent.hash)
    assert 0 <= outcome.time - intent.time < 60_000_000


def test_the_hash_is_that_of_the_canonical_json_of_all_other_fields(log: AuditLog) -> None:
    log.outcome(make_outcome(actor='quote " and ü \u2028', detail={"b": "ü", "a": [1]}))

    values = log.records()[0].values()
    covered = {name: value for name, value in values.items() if name != "hash"}
    expected = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    assert values["hash"] == hashlib.sha256(expected.encode()).hexdigest()


def test_records_are_paged_and_kept_apart_by_tenant(log: AuditLog) -> None:
    for number in range(6):
        log.intent(make_intent(f"r{number}", tenant="acme" if number % 2 else "rival"))

    assert [record.sequence for record in log.records(since=2, limit=3)] == [3, 4, 5]
    assert [record.sequence for record in log.records(tenant="acme")] == [2, 4, 6]
    assert [record.sequence for record in log.records(since=4, tenant="rival")] == [5]
    assert log.records(since=6) == []
    assert log.records(tenant="acme' OR '1'='1") == []


def test_an_untouched_record_holds(log: AuditLog) -> None:
    assert log.verify().ok
    filled(log)
    verdict = log.verify()
    assert (verdict.ok, verdict.count, verdict.first_bad) == (True, 10, None)


def test_a_record_is_there_after_a_restart_and_the_chain_goes_on(database_url: str) -> None:
    first = AuditLog(database_url)
    filled(first, 2)
    first.close()

    second = AuditLog(database_url)
    assert second.intent(make_intent()) == 5
    assert second.verify().count == 5
    second.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_records SET actor = 'eve' WHERE sequence = 3",
        "DELETE FROM audit_records WHERE sequence = 3",
        "DELETE FROM audit_records",
        "UPDATE audit_checkpoints SET hash = ''",
        "DELETE FROM audit_checkpoints",
    ],
)
def test_the_database_itself_refuses_changes(log: AuditLog, database_url: str, statement: str) -> None:
    filled(log)
    log.checkpoint()
    engine = create_engine(database_url)

    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)

    engine.dispose()
    assert log.verify().count == 10


def test_replacing_and_truncating_are_refused_too(log: AuditLog, database_url: str) -> None:
    filled(log)
    replacing = "INSERT OR REPLACE INTO audit_records SELECT * FROM audit_records WHERE sequence = 3"
    statement = replacing if database_url.startswith("sqlite") else "TRUNCATE audit_records"
    engine = create_engine(database_url)

    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)

    engine.dispose()


COLUMNS: list[tuple[str, Any]] = [
    ("time", 1), ("kind", "outcomes"), ("request_id", "r9"), ("actor", "eve"), ("tenant", "rival"), ("action", "other"),
    ("outcome", "denied"), ("policy_version", "v2"), ("chunks_shown", "[]"), ("chunks_shown", '["c1", "c2"]'),
    ("chunks_withheld", 4), ("detail", "{}"), ("detail", '{"generator":"vllm"}'), ("detail", "no JSON"),
    ("previous_hash", "f" * 64), ("hash", "f" * 64),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), COLUMNS)
def test_a_change_of_any_column_is_found_and_named(log: AuditLog, database_url: str, column: str, value: Any) -> None:
    filled(log)
    assert tampered(database_url, f"UPDATE audit_records SET {column} = :value WHERE sequence = 4", value=value) == 1

    verdict = log.verify()

    assert (verdict.ok, verdict.first_bad) == (False, 4)


@pytest.mark.parametrize(
    ("statements", "first_bad"),
    [
        (["DELETE FROM audit_records WHERE sequence = 4"], 4),
        (["DELETE FROM audit_records WHERE sequence = 1"], 1),
        (["DELETE FROM audit_records WHERE sequence = 4",
          "UPDATE audit_records SET sequence = sequence - 1 WHERE sequence = 5"], 4),
        (["UPDATE audit_records SET sequence = 40 WHERE sequence = 4", "UPDATE audit_records SET sequence = 4 WHERE "
          "sequence = 5", "UPDATE audit_records SET sequence = 5 WHERE sequence = 40"], 4),
        (["UPDATE audit_records SET sequence = 11 WHERE sequence = 10"], 10),
        (["INSERT INTO audit_records SELECT 11, time, kind, request_id, actor, tenant, action, outcome, "
          "policy_version, chunks_shown, chunks_withheld, detail, previous_hash, hash "
          "FROM audit_records WHERE sequence = 10"], 11),
    ],
    ids=["removed", "first removed", "removed and closed up", "two exchanged", "renumbered", "doubled"],
)  # fmt: skip
def test_what_is_removed_moved_or_slipped_in_is_found(
    log: AuditLog, database_url: str, statements: list[str], first_bad: int
) -> None:
    filled(log)
    for statement in statements:
        assert tampered(database_url, statement) == 1

    verdict = log.verify()
    assert (verdict.ok, verdict.first_bad) == (False, first_bad)


def test_a_cut_end_is_found_by_a_checkpoint(log: AuditLog, database_url: str) -> None:
    filled(log)
    assert log.checkpoint()
    assert tampered(database_url, "DELETE FROM audit_records WHERE sequence > 8") == 2

    verdict = log.verify()
    assert (verdict.ok, verdict.first_bad) == (False, 9)


def stored_rows(url: str) -> list[dict[str, Any]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM audit_records ORDER BY sequence")).mappings()
        rows = [dict(row) for row in found]
    engine.dispose()
    return rows


def test_a_record_with_a_right_hash_but_a_wrong_past_is_found(log: AuditLog, database_url: str) -> None:
    filled(log)
    row = stored_rows(database_url)[3] | {"actor": "eve"}
    change = "UPDATE audit_records SET actor = 'eve', hash = :hash WHERE sequence = 4"
    tampered(database_url, change, hash=record_hash(row))

    assert (log.verify().ok, log.verify().first_bad) == (False, 5)


def test_a_gap_that_was_linked_over_is_found(log: AuditLog, database_url: str) -> None:
    filled(log)
    tampered(database_url, "DELETE FROM audit_records WHERE sequence = 4")
    rewritten(database_url, "ada")

    assert (log.verify().ok, log.verify().first_bad) == (False, 4)


def rewritten(url: str, actor: str) -> None:
    """Change record 4 and compute the whole chain anew, as an attacker with time would."""
    rows = stored_rows(url)
    previous = GENESIS
    for row in rows:
        row["previous_hash"] = previous
        row["actor"] = actor if row["sequence"] == 4 else row["actor"]
        row["hash"] = previous = record_hash(row)
        change = "UPDATE audit_records SET actor = :actor, previous_hash = :previous_hash, hash = :hash "
        tampered(url, f"{change} WHERE sequence = :sequence", **{name: row[name] for name in
                 ("actor", "previous_hash", "hash", "sequence")})  # fmt: skip


def test_a_chain_made_anew_is_found_by_a_checkpoint(local_url: str) -> None:
    log = AuditLog(local_url, KEY)
    filled(log)
    rewritten(local_url, "eve")
    assert log.verify().ok, "nobody can tell without a checkpoint"
    rewritten(local_url, "ada")
    log.checkpoint()
    rewritten(local_url, "eve")

    verdict = log.verify()
    assert (verdict.ok, verdict.first_bad) == (False, 10)
    log.close()


def test_a_checkpoint_of_another_key_is_found(log: AuditLog, database_url: str) -> None:
    filled(log)
    log.checkpoint()
    assert tampered(database_url, "UPDATE audit_checkpoints SET time = time + 1") == 1

    assert (log.verify().ok, log.verify().first_bad) == (False, 10)


def test_a_checkpoint_is_made_once_for_a_record(log: AuditLog) -> None:
    assert log.checkpoint() is None, "nothing to sign"
    filled(log, 1)
    first = log.checkpoint()
    assert first is not None
    assert (first.sequence, first.holds(KEY.public_key())) == (2, True)
    assert not first.holds(Ed25519PrivateKey.generate().public_key())
    assert log.checkpoint() == first


def test_an_export_is_verified_without_the_database(log: AuditLog, tmp_path: Path) -> None:
    filled(log)
    file = tmp_path / "export.jsonl"

    assert log.export(file) == 10
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for key in (None, KEY.public_key()):
        verdict = verify_export(file, key)
        assert (verdict.ok, verdict.count) == (True, 10)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[1] == log.records()[1].values()
    assert lines[-1]["checkpoint"] == 10


def test_an_empty_export_is_signed_by_nobody(log: AuditLog, tmp_path: Path) -> None:
    assert log.export(tmp_path / "export.jsonl") == 0
    assert verify_export(tmp_path / "export.jsonl").ok

    verdict = verify_export(tmp_path / "export.jsonl", KEY.public_key())
    assert (verdict.ok, verdict.first_bad, verdict.reason) == (False, 1, "no signed checkpoint covers it")


@pytest.mark.parametrize("change", ["cut", "made anew", "one changed"])
def test_a_record_that_was_cut_or_made_anew_is_not_signed(
    log: AuditLog, database_url: str, tmp_path: Path, change: str
) -> None:
    filled(log)
    assert log.checkpoint()
    if change == "cut":
        tampered(database_url, "DELETE FROM audit_records WHERE sequence > 8")
    elif change == "made anew":
        rewritten(database_url, "eve")
    else:
        tampered(database_url, "UPDATE audit_records SET actor = 'eve' WHERE sequence = 4")
    if change != "cut":
        log.intent(make_intent("later"))

    for sign in (log.checkpoint, lambda: log.export(tmp_path / "export.jsonl")):
        with pytest.raises(ConfigurationError, match="is not signed, because record"):
            sign()
    assert not (tmp_path / "export.jsonl").exists()


def test_an_export_shows_that_its_database_was_emptied_or_taken_back(
    log: AuditLog, database_url: str, tmp_path: Path
) -> None:
    filled(log, 2)
    log.export(tmp_path / "first")
    filled(log, 1)
    log.export(tmp_path / "second")
    key = KEY.public_key()
    assert verify_export(tmp_path / "second", key, tmp_path / "first").ok
    assert verify_export(tmp_path / "first", key, tmp_path / "first").ok

    verdict = verify_export(tmp_path / "first", key, tmp_path / "second")
    assert (verdict.ok, verdict.first_bad) == (False, 5), "taken back"

    for table in ("audit_records", "audit_checkpoints"):
        tampered(database_url, f"DELETE FROM {table}")
    assert log.verify().ok, "from inside, nothing is missing"
    filled(log, 4)
    log.export(tmp_path / "third")
    assert verify_export(tmp_path / "third", key).ok
    verdict = verify_export(tmp_path / "third", key, tmp_path / "second")
    assert (verdict.ok, verdict.first_bad) == (False, 1), "emptied, and filled again"
    lines = (tmp_path / "first").read_text().splitlines(keepends=True)
    (tmp_path / "broken").write_text("".join(lines[1:]))
    with pytest.raises(ConfigurationError, match="does not hold itself"):
        verify_export(tmp_path / "third", key, tmp_path / "broken")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("audit")
    log = AuditLog(f"sqlite:///{folder}/audit.sqlite", KEY)
    filled(log)
    log.export(folder / "export.jsonl")
    log.close()
    return (folder / "export.jsonl").read_bytes().splitlines(keepends=True)


def verdict_of(lines: list[bytes], folder: Path, signed: bool = True) -> tuple[bool, int | None]:
    (folder / "changed.jsonl").write_bytes(b"".join(lines))
    verdict = verify_export(folder / "changed.jsonl", KEY.public_key() if signed else None)
    return verdict.ok, verdict.first_bad


def test_any_flipped_bit_of_an_export_is_found_at_its_record(export: list[bytes], tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(400):
        place = chance.randrange(10)
        line = bytearray(export[place])
        line[chance.randrange(len(line) - 1)] ^= 1 << chance.randrange(8)
        changed = [*export[:place], bytes(line), *export[place + 1 :]]

        assert verdict_of(changed, tmp_path) == (False, place + 1), bytes(line)


def test_a_changed_checkpoint_is_found(export: list[bytes], tmp_path: Path) -> None:
    for place in range(len(export[-1]) - 1):
        line = bytearray(export[-1])
        line[place] ^= 1
        ok, _ = verdict_of([*export[:-1], bytes(line)], tmp_path)
        assert not ok, bytes(line)


def test_exports_that_were_cut_joined_or_turned_around_are_found(export: list[bytes], tmp_path: Path) -> None:
    cases = {
        "end cut": (export[:8], 1),
        "end cut, checkpoint kept": ([*export[:8], export[-1]], 9),
        "no checkpoint": (export[:10], 1),
        "first cut": (export[1:], 1),
        "one missing": (export[:3] + export[4:], 4),
        "one twice": (export[:3] + export[2:], 4),
        "turned around": (export[:10][::-1] + export[-1:], 1),
        "replayed": (export + export, 11),
        "a record after the end": ([*export, export[9]], 11),
        "a blank line": ([*export[:3], b"\n", *export[3:]], 4),
        "other JSON": ([*export[:3], b"{}\n", *export[3:]], 4),
        "another spelling": ([*export[:3], export[3].replace(b'":', b'": ', 1), *export[4:]], 4),
        "no JSON": ([b"\x00\xff\n", *export], 1),
        "half a line": ([*export[:3], export[3][:40]], 4),
        "nested deep": ([b"[" * 100_000 + b"\n", *export], 1),
    }
    for name, (lines, first_bad) in cases.items():
        assert verdict_of(lines, tmp_path) == (False, first_bad), name


def test_without_the_key_a_cut_end_passes_and_the_docstring_says_so(export: list[bytes], tmp_path: Path) -> None:
    assert verdict_of(export[:8], tmp_path, signed=False) == (True, None)
    assert verdict_of([*export[:8], export[-1]], tmp_path, signed=False) == (False, 9)
    assert "passes" in str(verify_export.__doc__)


def test_fractions_are_refused_since_they_have_no_one_spelling(log: AuditLog) -> None:
    for detail in ({"score": 0.1}, {"a": [1.0]}, {"a": {"b": 2.5}}, {1: "a"}, {"a": {1, 2}}):
        with pytest.raises(TypeError):
            log.intent(make_intent(detail=detail))
    assert log.records() == []
    assert canonical({"b": 1, "a": "ü"}) == '{"a":"\\u00fc","b":1}'


@pytest.mark.parametrize("actor", ["a\x00b", "a\ud800"])
def test_text_that_cannot_be_stored_harms_no_neighbour(log: AuditLog, actor: str) -> None:
    with pytest.raises(ValueError, match="actor"):
        log.intent(make_intent(actor=actor))
    assert log.intent(make_intent()) == 1


def test_threads_that_append_together_make_one_chain(log: AuditLog) -> None:
    with ThreadPoolExecutor(16) as pool:
        numbers = list(pool.map(lambda number: log.intent(make_intent(f"r{number}")), range(200)))

    assert sorted(numbers) == list(range(1, 201))
    stored = {record.sequence: record.request_id for record in log.records(limit=1000)}
    assert [stored[sequence] for sequence in numbers] == [f"r{number}" for number in range(200)]
    assert log.verify().count == 200


APPENDER = """
import sys
from policies.audit import AuditLog
from policies.audit_chain import AuditIntent
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
log = AuditLog(url)
for number in range(count):
    print(log.intent(AuditIntent(f"{name}-{number}", "ada", "acme", "query", "v1")), flush=True)
"""


def start_appender(url: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDER, url, name, str(count)]
    root = Path(policies.__file__).parent.parent
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process


def test_processes_that_open_and_append_together_make_one_chain(database_url: str) -> None:
    workers = [start_appender(database_url, f"p{number}", 30) for number in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    numbers = [int(line) for worker in workers for line in worker.communicate(timeout=60)[0].split()]
    assert [worker.returncode for worker in workers] == [0] * 3

    log = AuditLog(database_url)
    assert (log.verify().ok, log.verify().count) == (True, 90)
    assert sorted(numbers) == list(range(1, 91))
    assert len({record.request_id for record in log.records(limit=1000)}) == 90
    log.close()


def test_a_killed_process_loses_nothing_that_it_acknowledged(database_url: str) -> None:
    worker = start_appender(database_url, "p", 1_000_000)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    acknowledged = [worker.stdout.readline() for _ in range(30)]
    worker.kill()
    acknowledged += worker.stdout.readlines()
    worker.wait(60)
    worker.stdin.close()
    worker.stdout.close()
    last = int([line for line in acknowledged if line.endswith("\n")][-1])
    assert last >= 29

    log = AuditLog(database_url)
    verdict = log.verify()
    assert verdict.ok
    assert verdict.count >= last
    assert log.intent(make_intent()) == verdict.count + 1
    log.close()


def test_a_database_that_fails_is_unavailable_and_recovers(local_url: str, tmp_path: Path) -> None:
    log = AuditLog(local_url)
    filled(log, 1)
    blocker = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    blocker.execute("ALTER TABLE audit_records RENAME TO gone")

    for use in (lambda: log.intent(make_intent()), log.records, log.verify, log.checkpoint):
        with pytest.raises(Unavailable) as raised:
            use()
        assert "sqlite" not in str(raised.value).lower()
        assert str(tmp_path) not in str(raised.value)
    blocker.execute("ALTER TABLE gone RENAME TO audit_records")
    blocker.close()

    assert log.intent(make_intent()) == 3
    assert log.verify().ok
    log.close()


def test_all_who_wait_for_a_write_that_fails_are_told(local_url: str, tmp_path: Path) -> None:
    log = AuditLog(local_url)
    blocker = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    blocker.execute("ALTER TABLE audit_records RENAME TO gone")
    failures: list[type[BaseException]] = []

    def append() -> None:
        try:
            log.intent(make_intent())
        except Unavailable as error:
            failures.append(type(error))

    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    blocker.close()

    assert failures == [Unavailable] * 8
    log.close()


def test_damaged_bytes_are_named_and_do_not_stop_the_check(local_url: str) -> None:
    log = AuditLog(local_url)
    filled(log)
    assert tampered(local_url, "UPDATE audit_records SET actor = CAST(x'6164ff' AS TEXT) WHERE sequence = 7") == 1

    assert (log.verify().ok, log.verify().first_bad) == (False, 7)
    log.close()


def test_the_file_is_its_owners_alone(local_url: str, tmp_path: Path) -> None:
    log = AuditLog(local_url)
    filled(log, 1)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    log.close()


def test_every_commit_reaches_the_disk(local_url: str) -> None:
    log = AuditLog(local_url)
    with log._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    log.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://h/d", "nonsense", ""])
def test_another_kind_of_database_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.audit"):
        AuditLog(url)


def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (f"sqlite:///{tmp_path}/file/audit.sqlite", f"postgresql://nobody@/none?host={tmp_path}"):
        with pytest.raises(Unavailable):
            AuditLog(url)
