"""People's requests over HTTP, for tests: a data directory with its own Milvus Lite, an officer, and those who ask."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import milvus
from deployments.embedding import Embedding
from tests.leaks.service import Service, serving

TENANT = "acme"
NAME, MAIL, ACCOUNT = "Quorinda Vexhollow", "Quorinda.Vexhollow@example.org", "DE89 3704 0044 0532 0130 00"
SUBJECT = {"identifiers": [MAIL, ACCOUNT, "K-4711-0815"], "names": [NAME]}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Home:
    """A data directory with its own Milvus Lite in it, as `rayrag up` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "logs").mkdir(parents=True)
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = milvus.start(self.path, self.port)
        milvus.wait_until_up(self.server, self.port, self.path / "logs" / "milvus.log")

    def stop(self) -> None:
        self.server.terminate()
        self.server.wait(timeout=30)


@contextmanager
def served(home: Home) -> Iterator[Service]:
    """Run the service there. What Serve keeps of one for the whole process, another does not go on with."""
    _forget_batches()
    try:
        with serving(home.path, home.uri) as service:
            yield service
    finally:
        _forget_batches()


def _forget_batches() -> None:
    batching: Any = Embedding.func_or_class._batch
    batching.set_max_batch_size.__self__._queue = None


def officer(service: Service, tenant: str = TENANT) -> str:
    return service.token("olga", tenant, ["privacy_officer"])


def put(service: Service, name: str, text: str, tenant: str = TENANT, title: str | None = None) -> str:
    body = {"id": name, "text": text, "acl": ["everyone"], **({"title": title} if title else {})}
    token = service.token("upl", tenant, ["power_user", "cleared-internal"])
    answer = service.call("POST", "/v1/documents", token, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["document_id"])


def ask(service: Service, question: str, tenant: str = TENANT) -> str:
    token = service.token("rea", tenant, ["user", "cleared-internal"])
    answer = service.call("POST", "/v1/retrieve", token, json={"question": question, "top_k": 50})
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json()["hits"], ensure_ascii=False)


def file(service: Service, kind: str, subject: Any = SUBJECT, tenant: str = TENANT, **more: Any) -> Any:
    body = {"type": kind, "subject": subject, **more}
    return service.call("POST", "/v1/privacy/requests", officer(service, tenant), json=body)


def finished(service: Service, request_id: str, tenant: str = TENANT) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = service.call("GET", f"/v1/privacy/requests/{request_id}", officer(service, tenant))
        assert answer.status_code == 200, answer.text
        found = dict(answer.json())
        if found["status"] in ("done", "refused"):
            return found
        time.sleep(0.05)
    pytest.fail(f"not done: {found}")


def done(service: Service, kind: str, subject: Any = SUBJECT, **more: Any) -> dict[str, Any]:
    answer = file(service, kind, subject, **more)
    assert answer.status_code == 202, answer.text
    return finished(service, answer.json()["privacy_request_id"])


def fill(service: Service) -> None:
    put(service, "letter", f"{NAME} wrote to us on Monday. The bridge at Tarn is closed until May.")
    put(service, "payments", "Pay to DE89370400440532013000 for customer K 4711 0815.\n\nThe harbour fee is 40 crowns.")
    put(service, "mail", f"From: {MAIL.lower()}\n\nThe heron nests again by the mill.")
    put(service, "Quorinda Vexhollow CV", "She has worked on the ferry for nine years.")
    put(service, "plain", "The ferry leaves at noon. Its captain is Oda Brennic, oda.brennic@example.org.")
    put(service, "other", f"{NAME} is a customer of ours, too.", tenant="globex")


def done_of(service: Service, tenant: str, kind: str, subject: Any, **more: Any) -> dict[str, Any]:
    answer = file(service, kind, subject, tenant, **more)
    assert answer.status_code == 202, answer.text
    return finished(service, answer.json()["privacy_request_id"], tenant)


def rows_of(service: Service) -> list[Any]:
    store = service.stores()[0]
    return list(store.stored(list(store.primary_keys())).values())
