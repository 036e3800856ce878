"""Webhooks: who may say "look", what is told to who may not, and that what was accepted is done."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import subprocess
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from fastapi.testclient import TestClient
from httpx2 import Response
from standardwebhooks.webhooks import Webhook

from deployments.ingress import api
from deployments.webhooks import MAX_BODY_BYTES, PER_SECOND, Webhooks, signing_key
from index.ledger import Ledger
from index.settings import LimitSettings
from policies.audit import AuditLog
from policies.errors import ConfigurationError
from tests.servers import program

JSON = {"content-type": "application/json"}
LIST_HINT = ""


def new_secret(size: int = 32) -> str:
    return f"whsec_{b64encode(secrets.token_bytes(size)).decode()}"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Service:
    """The ingress' route for webhooks with a real ledger and a real audit record. Source `crm` takes webhooks."""

    home: Path
    ledger: Ledger
    audit: AuditLog
    clock: Clock
    client: TestClient
    secret: str

    def source(self, name: str, secret: str | None, tenant: str = "acme", **settings: Any) -> int:
        webhook: Any = {"secret_file": str(self.home / f"{name}.secret")}
        if secret is not None:
            (self.home / f"{name}.secret").write_text(secret + "\n")
            (self.home / f"{name}.secret").chmod(0o600)
        config = json.dumps({"name": name, "tenant": tenant, "webhook": webhook} | settings)
        return self.ledger.keep_source(tenant, name, f"https://{name}.example", config)

    def post(
        self,
        body: bytes | Any = b'{"id": "a"}',
        source: str = "crm",
        secret: str | None = None,
        event_id: str | None = None,
        sent: timedelta = timedelta(0),
        **headers: str,
    ) -> Response:
        """Sign and send."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = signature(body, secret or self.secret, event_id, sent)
        return self.client.post(
            f"/v1/webhooks/{source}",
            content=body,
            headers=JSON | signed | {k.replace("_", "-"): v for k, v in headers.items()},
        )

    def hints(self, source: str = "crm") -> list[str]:
        """What another process would find in the ledger."""
        source_id = self.ledger.kept_source(source).source_id
        fresh = Ledger(f"sqlite:///{self.home}/ledger.sqlite")
        return sorted(hint.external_id for hint in fresh.hints() if hint.source_id == source_id)

    def break_ledger(self, table: str) -> None:
        with sqlite3.connect(self.home / "ledger.sqlite") as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO broken")

    def mend_ledger(self, table: str) -> None:
        with sqlite3.connect(self.home / "ledger.sqlite") as connection:
            connection.execute(f"ALTER TABLE broken RENAME TO {table}")


def signature(body: bytes, secret: str, event_id: str | None = None, sent: timedelta = timedelta(0)) -> dict[str, str]:
    event_id = event_id or f"msg_{uuid.uuid4().hex}"
    at = datetime.now(UTC) + sent
    signed = Webhook(secret).sign(event_id, at, body.decode())
    return {"webhook-id": event_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signed}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    audit = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    clock = Clock()
    ingress = SimpleNamespace(_webhooks=Webhooks(ledger, audit, "0123", clock))
    (route,) = (route for route in api.routes if getattr(route, "path", "") == "/v1/webhooks/{source}")
    (replica,) = (each.call for each in route.dependant.dependencies if each.name == "self")
    before: dict[str, Any] = dict(api.state._state)
    api.state.limits = LimitSettings()
    api.dependency_overrides[replica] = lambda: ingress
    made = Service(tmp_path, ledger, audit, clock, TestClient(api, raise_server_exceptions=False), new_secret())
    made.source("crm", made.secret)
    yield made
    del api.dependency_overrides[replica]
    api.state._state.clear()
    api.state._state.update(before)
    audit.close()


# ---- what is accepted


def test_what_a_signed_event_names_is_in_the_ledger_when_it_is_answered(service: Service) -> None:
    answer = service.post({"ids": ["a", "b/c.md"]}, x_request_id="mine-1")

    assert answer.status_code == 202
    assert answer.json() == {"request_id": "mine-1", "accepted": 2}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert service.hints() == ["a", "b/c.md"]


def test_what_is_signed_and_not_understood_has_the_source_listed(service: Service) -> None:
    answer = service.post({"type": "invoice.paid", "data": {"amount": 5}})

    assert (answer.status_code, answer.json()["accepted"]) == (202, 0)
    assert service.hints() == [LIST_HINT]


@pytest.mark.parametrize("mode", ["binary", "structured", "batch"])
def test_cloud_events_name_the_document_as_their_subject(service: Service, mode: str) -> None:
    event = CloudEvent({"type": "changed", "source": "/crm", "subject": "äbc"}, {"more": 1})
    message = to_binary_event(event) if mode == "binary" else to_structured_event(event)
    body, headers = message.body, message.headers
    if mode == "batch":
        body, headers = b"[" + body + b"]", {"content-type": "application/cloudevents-batch+json"}

    answer = service.post(body, **headers)

    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    assert service.hints() == ["äbc"]


def test_a_cloud_event_without_data_needs_no_content_type(service: Service) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "changed", "ce-source": "/crm", "ce-subject": "a"}

    answer = service.client.post("/v1/webhooks/crm", headers=headers | signature(b"", service.secret))

    assert answer.status_code == 202
    assert service.hints() == ["a"]


def test_an_event_stands_on_the_record_once(service: Service) -> None:
    answer = service.post({"ids": ["a", "b"]})

    intent, record = service.audit.records()
    assert (intent.kind, intent.outcome, intent.detail) == ("intent", "", record.detail)
    assert (record.request_id, record.actor, record.tenant) == (answer.json()["request_id"], "webhook:crm", "acme")
    assert (record.action, record.outcome, record.detail) == ("webhook", "ok", {"documents": 2, "source": "crm"})
    assert service.audit.verify().ok


def test_an_event_can_be_signed_with_openssl(service: Service) -> None:
    recipe = """
        key=$(printf %s "${SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \\n')
        printf %s "$ID.$AT.$BODY" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A
    """
    event = {"ID": "msg_1", "AT": str(int(time.time())), "BODY": '{"id": "handbuch-ä.md"}'}
    signed = subprocess.run(
        ["sh", "-euc", recipe],
        env={**event, "SECRET": service.secret, "PATH": os.path.dirname(program("openssl")) + ":/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    headers = {"webhook-id": event["ID"], "webhook-timestamp": event["AT"]}

    answer = service.client.post(
        "/v1/webhooks/crm",
        content=event["BODY"].encode(),
        headers=JSON | headers | {"webhook-signature": f"v1,{signed.stdout.decode()}"},
    )

    assert answer.status_code == 202
    assert service.hints() == ["handbuch-ä.md"]


# ---- who may not is told nothing


def test_every_refusal_is_the_same_answer(service: Service) -> None:
    service.source("paused", service.secret)
    service.ledger.pause_source(service.ledger.kept_source("paused").source_id, True)
    service.source("deaf", service.secret, webhook=None)
    service.source("no-file", None)
    service.source("weak", "whsec_" + b64encode(b"short").decode())
    service.source("no-base64", "whsec_a secret that is typed")
    service.source("odd-settings", service.secret, webhook={"secret": "x"})
    service.ledger.keep_source("acme", "no-json", "https://x", "{")
    body, good = b'{"id": "a"}', signature(b'{"id": "a"}', service.secret)
    send = service.client.post
    answers = {
        "unknown": service.post(source="unknown"),
        "unknown name with odd characters": service.post(source="%00..%FF"),
        **{name: service.post(source=name) for name in ("paused", "deaf", "no-file", "odd-settings", "no-json")},
        "weak": service.post(source="weak", secret="whsec_" + b64encode(b"short").decode()),
        "no base64": service.post(source="no-base64", secret="a secret that is typed"),
        "another secret": service.post(secret=new_secret()),
        "no signature": send("/v1/webhooks/crm", content=body, headers=JSON),
        "a token": send("/v1/webhooks/crm", content=body, headers=JSON | {"authorization": "Bearer good"}),
        "too old": service.post(sent=-timedelta(minutes=5, seconds=2)),
        "too new": service.post(sent=timedelta(minutes=5, seconds=5)),
        "another body": send("/v1/webhooks/crm", content=b'{"id": "b"}', headers=JSON | good),
        "another id": send("/v1/webhooks/crm", content=body, headers=JSON | good | {"webhook-id": "msg_2"}),
        "another time": send("/v1/webhooks/crm", content=body, headers=JSON | good | {"webhook-timestamp": "1"}),
        "no time": send("/v1/webhooks/crm", content=body, headers=JSON | good | {"webhook-timestamp": "nan"}),
        "no text": send("/v1/webhooks/crm", content=b"\xff", headers=JSON | good),
        "no JSON": send("/v1/webhooks/crm", content=b"x", headers={"content-type": "text/plain"}),
        "odd signature": send("/v1/webhooks/crm", content=body, headers=JSON | good | {"webhook-signature": "v1"}),
        "odd base64": send("/v1/webhooks/crm", content=body, headers=JSON | good | {"webhook-signature": b"v1,\xe9"}),
        "unknown version": send(
            "/v1/webhooks/crm", content=body, headers=JSON | good | {"webhook-signature": "v2,AAAA v1a,AAAA"}
        ),
    }

    told = {
        name: (
            answer.status_code,
            answer.json() | {"request_id": "any"},
            sorted((k, v) for k, v in answer.headers.items() if k not in ("x-request-id", "content-length")),
        )
        for name, answer in answers.items()
    }
    expected = told["unknown"]
    assert expected[0] == 401
    assert {name for name, answer in told.items() if answer != expected} == set()
    assert service.ledger.hints() == []
    assert service.audit.records() == []


def test_what_is_wrong_with_a_body_is_only_told_to_who_can_sign(service: Service) -> None:
    assert service.post(b"id=a", content_type="application/x-www-form-urlencoded").status_code == 415
    assert service.post(b"id=a", content_type="text/plain", secret=new_secret()).status_code == 401
    assert service.hints() == []


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "streamed"])
def test_a_body_has_a_limit(service: Service, declared: bool) -> None:
    body = b'{"id": "a"}'.ljust(MAX_BODY_BYTES + 1)
    content: Any = body if declared else iter([body[:40_000], body[40_000:]])

    answer = service.client.post("/v1/webhooks/crm", content=content, headers=JSON | signature(body, service.secret))

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert service.hints() == []


def test_a_body_may_be_as_large_as_the_limit(service: Service) -> None:
    assert service.post(b'{"id": "a"}'.ljust(MAX_BODY_BYTES)).status_code == 202


def test_strangers_make_the_ledger_read_once_a_second(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    kept_sources = service.ledger.kept_sources
    monkeypatch.setattr(service.ledger, "kept_sources", lambda: reads.append(1) or kept_sources())

    for _ in range(20):
        service.post(source="unknown", secret=new_secret())
    service.clock.now += 1.0
    service.post(source="unknown", secret=new_secret())

    assert len(reads) == 2


# ---- keys change


def test_one_of_several_signatures_is_enough(service: Service) -> None:
    body = b'{"id": "a"}'
    old, new = (signature(body, secret, "msg_1") for secret in (new_secret(), service.secret))
    both = f"v1a,c29tZXRoaW5n {old['webhook-signature']} {new['webhook-signature']}"

    assert service.post(body, event_id="msg_1", webhook_signature=both).status_code == 202


def test_a_changed_secret_counts_after_half_a_minute_and_the_old_one_no_longer(service: Service) -> None:
    assert service.post().status_code == 202
    changed = new_secret()
    service.source("crm", changed)

    service.clock.now += 29
    assert service.post(secret=service.secret).status_code == 202
    service.clock.now += 1
    assert service.post(secret=service.secret).status_code == 401
    assert service.post(secret=changed).status_code == 202


def test_a_secret_may_come_from_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKI_WEBHOOK", service.secret)
    service.source("wiki", None, webhook={"secret_env": "WIKI_WEBHOOK"})

    assert service.post(source="wiki").status_code == 202
    assert service.hints("wiki") == ["a"]
    assert service.hints() == []


def test_a_source_takes_webhooks_a_second_after_it_was_added_or_goes_on(service: Service) -> None:
    assert service.post(source="wiki").status_code == 401
    source_id = service.source("wiki", service.secret)
    service.clock.now += 1
    assert service.post(source="wiki").status_code == 202
    service.ledger.pause_source(source_id, True)
    service.clock.now += 1
    assert service.post(source="wiki").status_code == 401


@pytest.mark.parametrize(
    ("secret", "size"),
    [("whsec_" + b64encode(bytes(24)).decode(), 24), (b64encode(bytes(64)).decode(), 64), ("A" * 34, 25)],
    ids=["with its prefix", "without", "without padding"],
)
def test_a_secret_is_read_as_standard_webhooks_writes_it(secret: str, size: int) -> None:
    assert signing_key(secret) == bytes(size)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_that_could_be_guessed_is_none(size: int) -> None:
    with pytest.raises(ConfigurationError, match="24 to 64"):
        signing_key(new_secret(size))


# ---- again, too often, and when a part is down


def test_an_event_that_is_sent_again_does_nothing_new(service: Service) -> None:
    first = service.post({"ids": ["a", "b"]}, event_id="msg_1")
    service.ledger.clear_hints(service.ledger.hints())

    again = service.post({"ids": ["a", "b"]}, event_id="msg_1")

    assert (again.status_code, again.json()["accepted"]) == (first.status_code, 2)
    assert service.hints() == []
    assert len(service.audit.records()) == 2


def test_an_id_is_one_sources_own(service: Service) -> None:
    service.source("wiki", service.secret)
    service.post(event_id="msg_1")

    service.post(source="wiki", event_id="msg_1")

    assert service.hints("wiki") == ["a"]


def test_an_event_is_accepted_only_when_the_ledger_has_it(service: Service) -> None:
    service.break_ledger("source_hints")
    refused = service.post(event_id="msg_1")
    service.mend_ledger("source_hints")

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert "ledger" not in refused.text
    assert service.hints() == []
    assert service.post(event_id="msg_1").status_code == 202
    assert service.hints() == ["a"]


def test_strangers_and_senders_are_told_the_same_when_no_name_can_be_looked_up(service: Service) -> None:
    service.break_ledger("source_settings")

    answers = [service.post(), service.post(source="unknown"), service.post(secret=new_secret())]

    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "2")}


def test_no_event_is_accepted_that_cannot_be_recorded(service: Service) -> None:
    with sqlite3.connect(service.home / "audit.sqlite") as connection:
        connection.execute("ALTER TABLE audit_records RENAME TO broken")

    answer = service.post()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_a_source_is_told_to_slow_down_and_the_others_are_not(service: Service) -> None:
    service.source("wiki", service.secret)

    answers = [service.post({"id": f"{n}"}) for n in range(PER_SECOND + 1)]

    assert [answer.status_code for answer in answers] == [202] * PER_SECOND + [429]
    assert answers[-1].headers["retry-after"] == "1"
    assert len(service.audit.records(limit=500)) == 2 * PER_SECOND
    assert service.post(source="wiki").status_code == 202
    service.clock.now += 2.5 / PER_SECOND
    assert [service.post().status_code for _ in range(3)] == [202, 202, 429]


def test_strangers_do_not_use_up_what_a_source_may_send(service: Service) -> None:
    for _ in range(PER_SECOND + 1):
        service.post(secret=new_secret())

    assert service.post().status_code == 202
