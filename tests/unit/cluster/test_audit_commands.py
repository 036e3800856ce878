"""`rayrag audit`, and that what an operator changes is on the record: before, and after."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli import main
from deployments.audit_signing import signer
from deployments.identity import signing_audit_log
from index.settings import AppArgs, load
from policies.audit import AuditLog
from policies.audit_chain import AuditIntent

ROOT = Path(__file__).resolve().parents[3]
Say = Callable[..., str]


@pytest.fixture
def args(tmp_path: Path) -> AppArgs:
    """The product's configuration, with an anchor and segments."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    store = document["applications"][0]["args"]["store"]
    store |= {"audit_anchor": str(tmp_path / "elsewhere"), "audit_segments": str(tmp_path / "segments")}
    store |= {"audit_segment_records": 5, "audit_keep_days": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    return load(tmp_path / "config.yaml", str(tmp_path / "data"))


@pytest.fixture
def say(args: AppArgs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> str:
        where = ("--config", str(tmp_path / "config.yaml"), "--data-dir", str(tmp_path / "data"))
        monkeypatch.setattr(sys, "argv", ["rayrag", *words, *where])
        try:
            ended = main()
        except SystemExit as end:
            ended = int(end.code or 0)
        said = capsys.readouterr()
        assert ended == code, said
        return said.out + said.err

    return run


def filled(args: AppArgs, count: int = 4) -> None:
    log = AuditLog(args.store.audit)
    log.append([AuditIntent(f"r{number}", "ada", "acme", "query", "v1") for number in range(count)])
    log.close()


def signed(args: AppArgs) -> None:
    log = signing_audit_log(args.store)
    signer(args, log).sign()
    log.close()


def actions(args: AppArgs) -> list[tuple[str, str]]:
    log = AuditLog(args.store.audit)
    found = [(record.action, record.outcome or record.kind) for record in log.records(limit=1000)]
    log.close()
    return [each for each in found if each[0] != "query"]


def test_a_record_that_was_emptied_is_found_by_its_anchor(args: AppArgs, say: Say, tmp_path: Path) -> None:
    filled(args)
    signed(args)
    assert "4 records, all as they were written, signed to the end" in say("audit", "verify")
    for path in Path(args.store.audit.removeprefix("sqlite:///")).parent.glob("audit.sqlite*"):
        path.unlink()
    filled(args, 2)

    assert "Record 3 is the first bad one: the record ends before the checkpoint at 4" in say("audit", "verify", code=1)
    filled(args, 5)
    assert "Record 4 is the first bad one: the signed checkpoint has another hash" in say("audit", "verify", code=1)
    away = str(tmp_path / "empty")
    assert "holds no checkpoint" in say("audit", "verify", "--anchor", away, code=1)


def test_segments_are_cut_while_it_is_signed_and_followed_by_the_verifier(
    args: AppArgs, say: Say, tmp_path: Path
) -> None:
    filled(args, 6)
    signed(args)
    assert [path.name[6:37] for path in (tmp_path / "segments").iterdir()] == ["000000000000001-000000000000006"]
    filled(args, 2)
    assert "records 7 to" in say("audit", "rotate")
    filled(args, 2)
    assert "all as they were written" in say("audit", "verify")
    log = signing_audit_log(args.store)
    assert log.remove_until(6) == 6
    log.close()

    assert "all as they were written" in say("audit", "verify")
    assert "--segments" in say("audit", "verify", "--segments", str(tmp_path), code=1)
    say("audit", "export", "record.jsonl")
    (tmp_path / "key.pem").write_text(say("audit", "key"))
    export = ("audit", "verify", "--export", "record.jsonl", "--key", "key.pem")
    assert "are said to be in segments" in say(*export, code=1)
    assert "signed to the end" in say(*export, "--segments", str(tmp_path / "segments"))


def test_a_new_key_signs_on_and_the_old_public_key_still_tells(args: AppArgs, say: Say, tmp_path: Path) -> None:
    filled(args)
    signed(args)
    (tmp_path / "old.pem").write_text(say("audit", "key"))
    before = Path(args.store.audit_key_file).read_bytes()
    (tmp_path / "new.pem").write_text(say("audit", "rotate-key"))
    filled(args)
    signed(args)

    assert Path(args.store.audit_key_file).read_bytes() != before
    assert (tmp_path / "old.pem").read_text() != (tmp_path / "new.pem").read_text()
    assert not Path(args.store.audit_key_file + ".next").exists()
    for key in ("old.pem", "new.pem"):
        assert "11 records, all as they were written, signed up to 10" in say("audit", "verify", "--key", key)
    assert ("audit.rotate_key", "ok") in actions(args)


def test_a_new_key_may_wait_beside_a_secret_that_is_mounted(args: AppArgs, say: Say, tmp_path: Path) -> None:
    filled(args)
    new = tmp_path / "keys" / "new.pem"
    public = say("audit", "rotate-key", "--to", str(new))
    assert say("audit", "rotate-key", "--to", str(new)) == public, "again, as after a crash"
    assert "another key" in say("audit", "export", "record.jsonl", code=1)
    new.replace(args.store.audit_key_file)
    assert say("audit", "key") == public
    say("audit", "export", "record.jsonl")
    assert "give another file with --to" in say("audit", "rotate-key", "--to", "/proc/no/key.pem", code=1)


def test_an_export_is_on_the_record_and_may_be_in_the_shape_of_ocsf(args: AppArgs, say: Say, tmp_path: Path) -> None:
    filled(args)
    say("audit", "export", "events.jsonl", "--format", "ocsf")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]

    assert {event["class_uid"] for event in events} == {6003}
    assert actions(args) == [("audit.export", "intent"), ("audit.export", "ok")]


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (("token", "--sub", "ada", "--tenant", "acme"), "token.sign"),
        (("groups", "set", "staff", "user:ada", "--tenant", "acme"), "groups.set"),
        (("groups", "remove", "--group", "staff", "--tenant", "acme"), "groups.remove"),
        (("groups", "import", "groups.csv", "--tenant", "acme"), "groups.import"),
        (("disable", "--sub", "ada", "--tenant", "acme"), "auth.disable"),
        (("sources", "add", "desk", "desk", "--tenant", "acme"), "sources.keep"),
    ],
)
def test_what_an_operator_changes_is_on_the_record(
    args: AppArgs, say: Say, tmp_path: Path, words: tuple[str, ...], action: str
) -> None:
    (tmp_path / "groups.csv").write_text("group,member\nstaff,user:ada\n")
    (tmp_path / "desk").mkdir()
    said = say(*words)

    assert actions(args) == [(action, "intent"), (action, "ok")]
    if action == "token.sign":
        log = AuditLog(args.store.audit)
        assert said.strip() not in str([record.values() for record in log.records()])
        log.close()


def test_a_source_that_is_paused_resumed_and_removed_is_on_the_record(
    args: AppArgs, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.source_commands.QUIET_S", 0.1)
    (tmp_path / "desk").mkdir()
    say("sources", "add", "desk", "desk", "--tenant", "acme")
    for step in ("pause", "resume", "remove"):
        say("sources", step, "desk")
    say("sources", "pause", "desk", code=1)

    assert [action for action, outcome in actions(args) if outcome == "ok"] == [
        "sources.keep", "sources.pause", "sources.resume", "sources.remove",
    ]  # fmt: skip


def test_nothing_is_changed_where_it_cannot_be_recorded(args: AppArgs, say: Say, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "audit.sqlite").mkdir()
    assert "audit record" in say("groups", "set", "staff", "user:ada", "--tenant", "acme", code=1)
    (tmp_path / "data" / "audit.sqlite").rmdir()
    assert "staff" not in say("groups", "list", "--tenant", "acme")
