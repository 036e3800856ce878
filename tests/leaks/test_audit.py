"""The audit record: a pair of lines for every request of every route that knows its caller, and no text of anybody."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.audit import AuditLog
from tests.leaks.service import Service, routes_of

TABLE: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("routes.yaml").read_text(encoding="utf-8"))
TENANT = "recorded"
MISSING = "0" * 32
UNRECORDED = {"GET /openapi.json", "GET /healthz", "GET /readyz", "GET /v1/auth", "POST /v1/webhooks/{source}"}
"""Those that say nothing of anybody; and the webhooks, which know no caller: tests/unit has theirs."""
ONLY_REFUSED = {name for name in TABLE if name.startswith(("GET /v1/auth/", "POST /v1/auth/"))} - {
    "GET /v1/auth/me", "POST /v1/auth/logout", "POST /v1/auth/revoke"
}  # fmt: skip
"""Where nobody signs in."""
HOSTILE = (
    "Zoë Quintessa-Öberg",
    "zoe.oberg@private.example",
    "DE89 3702 0044 0532 0130 99",
    "079-05-1120",
    "'; DROP TABLE audit_records; --",
    '{"tenant":"other"}',
)


@pytest.fixture
def audit(service: Service) -> Iterator[AuditLog]:
    log = AuditLog(service.args.store.audit)
    yield log
    log.close()


def newest(audit: AuditLog) -> int:
    return max((record.sequence for record in audit.records(limit=1_000_000)), default=0)


def admin(service: Service) -> str:
    return service.token("boss", TENANT, ["admin", "cleared-restricted"])


def test_every_route_that_knows_its_caller_leaves_an_intent_and_an_outcome(
    service: Service, audit: AuditLog, count: Callable[[str, int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(type(service.ingress).metrics.__globals__, "exposition", lambda: b"")
    names = {f"{method} {route.path}" for route in routes_of(service.api) for method in route.methods}
    wrong = []
    for name in sorted(names - UNRECORDED - ONLY_REFUSED):
        method, path = name.split(" ")
        given = TABLE.get(name, {}).get("send", {})
        options = {kind: given[kind] for kind in ("json", "params") if kind in given}
        since, request_id = newest(audit), f"route-{abs(hash(name))}"
        for hole in ("{document_id}", "{request_id}", "{source}", "{name}", "{hold_id}"):
            path = path.replace(hole, MISSING)
        answer = service.call(method, path, admin(service), headers={"x-request-id": request_id}, **options)
        lines = [record for record in audit.records(since, limit=1000) if record.request_id == request_id]
        if [record.kind for record in lines] != ["intent", "outcome"]:
            wrong.append(f"{name}: {answer.status_code} {[(line.kind, line.action, line.outcome) for line in lines]}")
    count("audit: routes", len(names), len(wrong))
    assert not wrong, "\n".join(wrong)
    assert audit.verify().ok


def test_what_may_not_be_done_is_on_the_record_too(service: Service, audit: AuditLog) -> None:
    since = newest(audit)
    nobody = service.token("nobody", TENANT, [])
    asked = service.call("POST", "/v1/query", nobody, json={"question": "may I?"})
    deleted = service.call("DELETE", f"/v1/documents/{MISSING}", nobody)
    assert (asked.status_code, deleted.status_code) == (403, 403)
    found = [(r.action, r.outcome) for r in audit.records(since) if r.actor == "nobody"]
    assert found == [("query", "denied"), ("documents.delete", "denied")]


def test_no_text_of_anybody_is_on_the_record(
    service: Service, audit: AuditLog, count: Callable[[str, int, int], None]
) -> None:
    since, token = newest(audit), admin(service)
    for number, text in enumerate(HOSTILE):
        body = {"id": f"{text}.txt", "text": f"Of {text}: all is well.", "title": text, "acl": ["everyone"]}
        service.call("POST", "/v1/documents", token, json=body)
        service.call("POST", "/v1/documents", token, files={"file": (f"{text}.txt", text.encode())})
        for path in ("/v1/query", "/v1/retrieve"):
            service.call("POST", path, token, json={"question": f"what of {text}?", "purpose": text})
            service.call("POST", path, token, json={"question": text, "no such key": text})
        chat = {"model": text, "messages": [{"role": "user", "content": text}]}
        service.call("POST", "/v1/chat/completions", token, json=chat)
        for method, path in (("GET", "/v1/documents"), ("DELETE", "/v1/documents"), ("GET", "/v1/sources")):
            service.call(method, f"{path}/{text}", token)
            service.call(method, path, token, params={"after": text, "since": text})
        service.call("PUT", f"/v1/documents/{text}/acl", token, json={"allow": [f"user:{text}"]})
        service.call("POST", "/v1/auth/refresh", None, json={"refresh_token": f"rr_{text}"})
        service.call("GET", "/v1/documents", f"{text}.{number}.x".encode("ascii", "ignore").decode())
    service.api.state.refusals.flush()
    lines = [record.values() for record in audit.records(since, limit=10_000)]
    said = json.dumps(lines, ensure_ascii=False)
    leaked = [text for text in HOSTILE if text in said or json.dumps(text)[1:-1] in said]
    count("audit: texts of people", len(lines), len(leaked))
    assert len(lines) > 20 * len(HOSTILE)
    assert leaked == []


def test_the_same_question_has_the_same_hash_and_another_in_another_tenant(service: Service, audit: AuditLog) -> None:
    since = newest(audit)
    for tenant, question in (("one", "Why?"), ("one", "Why?"), ("one", "Who?"), ("two", "Why?")):
        service.call("POST", "/v1/retrieve", service.token("ada", tenant, ["user"]), json={"question": question})
    hashes = [r.detail["question_hash"] for r in audit.records(since) if r.kind == "intent"]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_the_record_says_which_chunks_were_shown_and_by_whom_the_answer_was_written(
    service: Service, audit: AuditLog
) -> None:
    token = admin(service)
    body = {"id": "shown.txt", "text": "The canteen opens at noon on Fridays.", "acl": ["everyone"]}
    assert service.call("POST", "/v1/documents", token, json=body).status_code == 201
    since = newest(audit)
    answer = service.call("POST", "/v1/query", token, json={"question": "When does the canteen open?"}).json()
    outcome = audit.records(since)[-1]

    assert outcome.detail["generator"] == answer["generator"] == "extractive"
    cited = {citation["chunk_id"] for citation in answer["citations"]}
    assert cited and cited <= set(outcome.chunks_shown)


def test_the_start_with_another_policy_is_on_the_record_before_the_first_request(audit: AuditLog) -> None:
    changes = [record for record in audit.records(limit=1_000_000) if record.action == "policy.change"]
    assert changes and changes[0].sequence == 1
    assert set(changes[0].detail["parts"]) == {"identity", "roles", "compliance", "regimes"}
    version = changes[-1].detail["new"]
    assert audit.note_policy(version, changes[-1].detail["parts"], "service") is False
    parts = {**changes[-1].detail["parts"], "roles": "f" * 16}
    assert audit.note_policy("another", parts, "service") is True
    said = audit.records(newest(audit) - 1)[-1]
    assert (said.detail["old"], said.detail["new"], said.detail["changed"]) == (version, "another", ["roles"])
    assert audit.note_policy(version, changes[-1].detail["parts"], "service") is True


def test_no_record_no_answer_on_every_route(
    service: Service, audit: AuditLog, count: Callable[[str, int, int], None]
) -> None:
    keeper = sqlite3.connect(service.args.store.audit.removeprefix("sqlite:///"), isolation_level=None)
    keeper.execute("ALTER TABLE audit_records RENAME TO away")
    wrong = []
    try:
        for name in sorted(TABLE.keys() - UNRECORDED - ONLY_REFUSED):
            method, path = name.split(" ")
            given = TABLE[name].get("send", {})
            options = {kind: given[kind] for kind in ("json", "params") if kind in given}
            for hole in ("{document_id}", "{request_id}", "{hold_id}"):
                path = path.replace(hole, MISSING)
            answer = service.call(method, path, admin(service), **options)
            if answer.status_code != 503:
                wrong.append(f"{name}: {answer.status_code}")
    finally:
        keeper.execute("ALTER TABLE away RENAME TO audit_records")
        keeper.close()
    count("audit: no record, no answer", len(TABLE), len(wrong))
    assert not wrong, "\n".join(wrong)
