"""What sources and bulk jobs do to documents is on the audit record: announced, and each document's end of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.access import AccessRule
from policies.audit import AuditLog
from policies.audit_changes import CHANGE, NAMED_IN_A_LINE, ChangeRecord
from policies.errors import RightsUnreadable, SourceUnavailable, Unavailable

ADA = AccessRule.of(["user:ada"])


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    yield log
    log.close()


@pytest.fixture
def recorded(world: Any, audit: AuditLog) -> Any:
    world.sync._record = ChangeRecord(audit, "v1", "sources")
    return world


def lines(audit: AuditLog, since: int = 0) -> list[tuple[str, str, str]]:
    return [(record.kind, record.action, record.outcome) for record in audit.records(since, 10_000)]


def newest(audit: AuditLog) -> int:
    return max((record.sequence for record in audit.records(limit=100_000)), default=0)


def test_each_change_of_a_source_is_announced_and_its_end_recorded(recorded: Any, audit: AuditLog) -> None:
    recorded.desk.put("zoe-oberg.txt", "one")
    recorded.desk.put("b", "two")
    recorded.sync.list()

    assert lines(audit) == [
        ("intent", CHANGE, ""),
        ("outcome", "document.indexed", "ok"),
        ("outcome", "document.indexed", "ok"),
        ("outcome", CHANGE, "ok"),
    ]
    intent, first, second, end = audit.records()
    assert {first.detail["document"], second.detail["document"]} == set(intent.detail["index"])
    assert {record.request_id for record in audit.records()} == {intent.request_id}
    assert (first.actor, first.tenant, first.detail["version"]) == ("sources", "acme", 1)
    assert end.detail["became"] == {"indexed": 2}
    assert "oberg" not in str([record.values() for record in audit.records()])


def test_rights_deletions_and_what_cannot_be_read_are_recorded(recorded: Any, audit: AuditLog) -> None:
    for name in ("a", "b", "c"):
        recorded.desk.put(name, name)
    recorded.sync.list()
    since = newest(audit)
    recorded.desk.put("a", "a", ADA)
    recorded.desk.take("b")
    recorded.desk.unreadable.add("c")
    recorded.desk.put("c", "another")
    recorded.sync.list()

    found = Counter(action for kind, action, _ in lines(audit, since) if kind == "outcome")
    assert found == {"document.deleted": 1, "document.rights": 1, "document.quarantined": 1, CHANGE: 1}
    announced = [
        set(record.detail) - {"source_id", "source"} for record in audit.records(since) if record.kind == "intent"
    ]
    assert announced == [{"index"}, {"rights"}, {"delete"}]


def test_a_listing_without_a_change_leaves_no_line(recorded: Any, audit: AuditLog) -> None:
    recorded.desk.put("a", "one")
    recorded.sync.list()
    since = newest(audit)
    recorded.sync.list()
    recorded.sync.list(full=True)

    assert lines(audit, since) == []


def test_what_is_hidden_is_recorded_once(recorded: Any, audit: AuditLog) -> None:
    recorded.desk.put("a", "one")
    recorded.sync.list()
    since = newest(audit)
    recorded.desk.broken = RightsUnreadable("no rights", "")
    for _ in range(3):
        with pytest.raises(RightsUnreadable):
            recorded.sync.list(full=True)

    assert lines(audit, since) == [
        ("intent", CHANGE, ""),
        ("outcome", "document.hidden", "ok"),
        ("outcome", CHANGE, "ok"),
    ]


def test_nothing_changes_where_it_cannot_be_announced(recorded: Any, audit: AuditLog) -> None:
    class Fails:
        def append(self, lines: Any) -> int:
            raise Unavailable("The audit record cannot be written.")

    recorded.desk.put("a", "one")
    recorded.sync._record = ChangeRecord(Fails(), "v1", "sources")
    with pytest.raises(Unavailable):
        recorded.sync.list()
    assert recorded.rows.carried == {}
    recorded.sync._record = ChangeRecord(audit, "v1", "sources")
    assert recorded.sync.list().indexed == 1


def test_a_run_that_breaks_off_says_so(recorded: Any, audit: AuditLog) -> None:
    def fails() -> None:
        raise SourceUnavailable("gone")

    recorded.desk.put("a", "one")
    recorded.before_write = fails
    with pytest.raises(SourceUnavailable):
        recorded.sync.list()
    assert lines(audit) == [("intent", CHANGE, ""), ("outcome", CHANGE, "refused")]
    assert audit.records()[-1].detail["error"] == "SourceUnavailable"


def test_many_documents_are_announced_in_several_lines_and_bulk_paths_are_not_named(audit: AuditLog) -> None:
    ids = [f"{number:032x}" for number in range(NAMED_IN_A_LINE + 1)]
    with ChangeRecord(audit, "v1", "bulk").run("acme", 7, "/home/zoe.oberg/letters") as run:
        run.begins(index=ids)
        for document_id in ids:
            run.became(document_id, "indexed", 1)

    found = audit.records(limit=1000)
    assert [len(record.detail["index"]) for record in found if record.kind == "intent"] == [NAMED_IN_A_LINE, 1]
    assert Counter(record.action for record in found) == {CHANGE: 3, "document.indexed": len(ids)}
    assert "zoe" not in str([record.values() for record in found])
    assert found[0].detail["source_id"] == 7
