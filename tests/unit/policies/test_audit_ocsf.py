"""The record in the shape of OCSF: what a SIEM sorts and counts by is there, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policies.audit import AuditLog
from policies.audit_chain import AuditIntent, AuditOutcome
from policies.audit_ocsf import ocsf, write_ocsf
from policies.errors import ConfigurationError

BASE = {"activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "status_id", "metadata"}


def events(folder: Path) -> list[dict[str, object]]:
    log = AuditLog(f"sqlite:///{folder}/audit.sqlite")
    log.append(
        [
            AuditIntent("r1", "ada", "acme", "query", "v1", {"purpose": "support"}),
            AuditOutcome("r1", "ada", "acme", "query", "v1", "ok", ("c1",), 2, {"generator": "extractive"}),
            AuditOutcome("r2", "ada", "acme", "auth.sign_in", "v1", "ok", detail={"way": "ldap"}),
            AuditOutcome("r3", "unknown", "acme", "auth.sign_in", "v1", "refused"),
            AuditOutcome("r4", "operator:x", "acme", "auth.disable", "v1", "ok", detail={"subject": "bob"}),
            AuditOutcome("r5", "ada", "acme", "documents.delete", "v1", "denied"),
            AuditOutcome("r6", "ada", "acme", "something.new", "v1", "ok"),
        ]
    )
    assert write_ocsf(log, folder / "ocsf.jsonl") == 7
    records = log.records()
    log.close()
    found = [json.loads(line) for line in (folder / "ocsf.jsonl").read_text().splitlines()]
    assert found == [ocsf(record) for record in records]
    for event, record in zip(found, records, strict=True):
        assert event.keys() >= BASE
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["category_uid"] == event["class_uid"] // 1000
        assert event["metadata"]["uid"] == record.hash and event["time"] == record.time // 1000
        assert event["unmapped"]["detail"] == record.detail
    return found


def test_each_action_has_its_class_activity_and_status(tmp_path: Path) -> None:
    assert [(event["class_uid"], event["activity_id"], event["status_id"]) for event in events(tmp_path)] == [
        (6003, 2, 0), (6003, 2, 1), (3002, 1, 1), (3002, 1, 2), (3001, 5, 1), (6003, 4, 2), (6003, 99, 1),
    ]  # fmt: skip


def test_who_and_what_stand_where_the_class_has_them(tmp_path: Path) -> None:
    _, answered, signed_in, _, disabled, *_ = events(tmp_path)
    assert answered["actor"] == {"user": {"uid": "ada"}}
    assert answered["api"] == {"operation": "query", "request": {"uid": "r1"}}
    assert answered["resources"] == [{"type": "chunk", "uid": "c1"}]
    assert signed_in["user"] == {"uid": "ada"}
    assert disabled["user"] == {"uid": "bob"} and disabled["actor"] == {"user": {"uid": "operator:x"}}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    with pytest.raises(ConfigurationError, match=r"no/file"):
        write_ocsf(log, tmp_path / "no" / "file")
    log.close()
