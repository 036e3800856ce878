"""An auditor reads the record of their tenant, and hears whether it holds; what strangers send is counted on it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from deployments.audit_routes import AuditDesk
from deployments.ingress import api
from index.limit_settings import LimitSettings
from policies.audit import AuditLog
from policies.audit_chain import AuditIntent
from policies.audit_refusals import MAX_COUNTED, REFUSED, Refusals
from policies.errors import TokenRejected, Unauthenticated, Unavailable
from policies.guard import Guard
from policies.principals import Principal
from policies.roles import Roles

PEOPLE = {
    "ada": Principal("ada", "acme", frozenset({"auditor"})),
    "bob": Principal("bob", "acme", frozenset({"user"})),
    "eve": Principal("eve", "rival", frozenset({"auditor"})),
}


@dataclass
class Service:
    audit: AuditLog
    refusals: Refusals
    client: TestClient
    desk: AuditDesk

    def get(self, path: str, who: str = "ada") -> Response:
        return self.client.get(path, headers={"authorization": f"Bearer {who}"})

    def lines(self, action: str) -> list[Any]:
        return [record for record in self.audit.records(limit=10_000) if record.action == action]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    async def authenticate(token: str) -> Principal:
        if token not in PEOPLE:
            raise TokenRejected("signature") if token == "forged" else Unauthenticated("no")
        return PEOPLE[token]

    audit = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    guard = Guard(None, Roles.load({}), audit, "v1")  # type: ignore[arg-type]
    desk, refusals = AuditDesk(guard, audit, wait_s=5, again_s=0), Refusals(audit, "v1", every_s=3600)
    before: dict[str, Any] = dict(api.state._state)
    api.state.limits, api.state.authenticate = LimitSettings(), authenticate
    api.state.audit, api.state.refusals = desk, refusals
    with TestClient(api, raise_server_exceptions=False) as client:
        yield Service(audit, refusals, client, desk)
    api.state._state.clear()
    api.state._state.update(before)
    audit.close()


def written(audit: AuditLog, count: int, tenant: str = "acme") -> None:
    audit.append([AuditIntent(f"r{number}", "bob", tenant, "query", "v1") for number in range(count)])


def test_an_auditor_reads_the_lines_of_their_tenant_page_by_page(service: Service) -> None:
    written(service.audit, 5)
    written(service.audit, 5, "rival")

    first = service.get("/v1/audit?limit=3").json()["records"]
    rest = service.get(f"/v1/audit?since={first[-1]['sequence']}&limit=1000").json()["records"]
    other = service.get("/v1/audit?since=5", "eve").json()["records"]

    assert [line["sequence"] for line in first] == [1, 2, 3]
    assert {line["tenant"] for line in first + rest} == {"acme"}
    assert [line["action"] for line in rest] == ["query"] * 2 + ["audit.read"] * 3
    assert [line["sequence"] for line in other if line["action"] == "query"] == [6, 7, 8, 9, 10]
    assert {line["tenant"] for line in other} == {"rival"}
    assert first[1]["previous_hash"] == first[0]["hash"]


def test_reading_the_record_is_on_the_record(service: Service) -> None:
    service.get("/v1/audit?since=0&limit=7")
    intent, outcome = service.lines("audit.read")

    assert (intent.kind, intent.actor, intent.detail["limit"]) == ("intent", "ada", 7)
    assert (outcome.kind, outcome.outcome, outcome.detail["lines"]) == ("outcome", "ok", 1)


@pytest.mark.parametrize("path", ["/v1/audit", "/v1/audit/verify"])
def test_nobody_else_reads_it(service: Service, path: str) -> None:
    assert service.get(path, "bob").status_code == 403
    assert service.get(path, "nobody").status_code == 401
    assert service.client.get(path).status_code == 401
    assert [record.outcome for record in service.audit.records()] == ["denied"]


@pytest.mark.parametrize("query", ["since=-1", "limit=0", "limit=1001", "since=x", f"since={2**70}"])
def test_what_makes_no_sense_is_refused(service: Service, query: str) -> None:
    assert service.get(f"/v1/audit?{query}").status_code == 422


def test_the_verdict_names_the_first_bad_line(service: Service, tmp_path: Path) -> None:
    written(service.audit, 4)
    written(service.audit, 2, "rival")
    good = service.get("/v1/audit/verify").json()
    assert (good["state"], good["ok"], good["begins"], good["first_bad"]) == ("done", True, 1, None)
    assert good["lines"] == 5, "of the tenant: four, and the intent of this"
    connection = sqlite3.connect(tmp_path / "audit.sqlite")
    connection.execute("DROP TRIGGER audit_records_keep")
    connection.execute("UPDATE audit_records SET actor = 'eve' WHERE sequence = 3")
    connection.commit()
    connection.close()

    bad = service.get("/v1/audit/verify").json()
    assert (bad["ok"], bad["first_bad"], bad["reason"]) == (False, 3, "its hash does not match")


def test_a_long_check_does_not_hold_the_caller_and_runs_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.desk._wait_s, service.desk._again_s = 0.05, 60
    goes_on, began = threading.Event(), []
    real = service.audit.verify

    def slow(**options: Any) -> Any:
        began.append(options)
        goes_on.wait(10)
        return real(**options)

    monkeypatch.setattr(service.audit, "verify", slow)
    assert [service.get("/v1/audit/verify").json()["state"] for _ in range(3)] == ["running"] * 3
    assert len(began) == 1 and began[0]["pause_s"] > 0
    goes_on.set()
    deadline = time.monotonic() + 10
    while (said := service.get("/v1/audit/verify").json())["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (said["ok"], len(began)) == (True, 1)
    assert service.get("/v1/audit/verify").json()["ok"] and len(began) == 1, "a verdict holds for a while"


def test_a_check_that_fails_is_tried_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> Any:
        raise Unavailable("The audit record cannot be read.")

    with monkeypatch.context() as patch:
        patch.setattr(service.audit, "verify", broken)
        assert service.get("/v1/audit/verify").status_code == 503
    assert service.get("/v1/audit/verify").json()["ok"]


# ---- what is refused before a request begins


def test_what_strangers_and_callers_send_amiss_is_counted_and_stands_on_the_record_once(service: Service) -> None:
    for _ in range(50):
        service.client.get("/v1/audit")
        service.get("/v1/audit", "forged")
        service.get("/v1/audit?limit=0")
        service.get("/no/such/route")
        service.get("/v1/audit?limit=0", "eve")
    assert service.audit.records() == [], "no line for each"

    assert service.refusals.flush() == 5
    details = [(record.actor, record.tenant, record.detail) for record in service.lines(REFUSED)]
    found = {(who, whose, each["status"], each["reason"]): each["count"] for who, whose, each in details}
    assert found == {
        ("unknown", "", 401, "absent"): 50,
        ("unknown", "", 401, "signature"): 50,
        ("ada", "acme", 422, "invalid"): 50,
        ("unknown", "", 404, "no_such_route"): 50,
        ("eve", "rival", 422, "invalid"): 50,
    }
    assert service.refusals.flush() == 0


def test_the_counts_are_written_by_themselves_and_kept_while_the_record_fails(tmp_path: Path) -> None:
    audit = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    refusals = Refusals(audit, "v1", every_s=0.05)
    refusals.count(401, "absent")
    deadline = time.monotonic() + 10
    while not audit.records() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [record.detail["count"] for record in audit.records()] == [1]
    keeper = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    keeper.execute("ALTER TABLE audit_records RENAME TO away")
    slow = Refusals(audit, "v1", every_s=3600)
    slow.count(401, "absent")
    with pytest.raises(Unavailable):
        slow.flush()
    slow.count(401, "absent")
    keeper.execute("ALTER TABLE away RENAME TO audit_records")
    assert slow.flush() == 1
    assert audit.records()[-1].detail["count"] == 2
    audit.close()


def test_many_people_are_counted_together_in_the_end(tmp_path: Path) -> None:
    audit = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    refusals = Refusals(audit, "v1", every_s=3600)
    for number in range(3 * MAX_COUNTED):
        refusals.count(422, "invalid", Principal(f"p{number}", "acme"))
    assert refusals.flush() == MAX_COUNTED + 1
    others = [record.detail for record in audit.records(limit=10_000) if record.detail["reason"] == "others"]
    assert [each["count"] for each in others] == [2 * MAX_COUNTED]
    audit.close()


def test_the_desk_checks_once_for_all_who_wait(service: Service) -> None:
    async def both() -> list[Any]:
        return await asyncio.gather(service.desk.verdict(), service.desk.verdict())

    one, other = asyncio.run(both())
    assert one is not None and other is not None and one[1] == other[1]
