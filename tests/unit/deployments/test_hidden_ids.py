"""What is hidden and what does not exist are one answer: on every route that takes an id, whichever there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray import serve

from deployments.ingress import Ingress, api
from deployments.sync import Sync
from index.document import DocumentRef
from index.ledger import Ledger
from index.limit_settings import LimitSettings
from policies.access import AccessRule
from policies.guard import Guard
from policies.principals import Principal
from policies.roles import Roles

ADA = Principal("ada", "acme", frozenset({"admin"}), frozenset({"staff"}))
HEADERS = {"authorization": "Bearer good", "x-request-id": "same-id"}
DOCUMENTS = {
    ("get", "/v1/documents/{document_id}"): None,
    ("put", "/v1/documents/{document_id}/acl"): {"allow": ["everyone"], "deny": []},
    ("delete", "/v1/documents/{document_id}"): None,
}
"""The routes whose id is a document's, with a body that they take."""
ELSEWHERE = {
    ("post", "/v1/webhooks/{source}"): "the caller has no token: test_webhooks.py",
    ("get", "/v1/privacy/requests/{privacy_request_id}"): "a tenant's requests: test_privacy.py",
    ("get", "/v1/privacy/requests/{privacy_request_id}/export"): "a tenant's requests: test_privacy.py",
}
"""The routes with an id that says nothing of who may see what, and where they are tested."""


class Record:
    """Keeps nothing: what is on the record is tested where it is written."""

    def intent(self, _: Any) -> int:
        return 1

    def outcome(self, _: Any) -> int:
        return 1


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture
def client(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The ingress in this process, with its real ledger, guard and writer behind it."""

    async def authenticate(_: str) -> Principal:
        return ADA

    sync: Any = Sync.func_or_class.__new__(Sync.func_or_class)
    sync._ledger, sync._store = ledger, SimpleNamespace()
    plain: Any = Ingress.func_or_class.__mro__[1]  # below Serve's wrapper, which wants a replica
    ingress: Any = plain.__new__(plain)
    ingress._ledger, ingress._roles = ledger, Roles.load({})
    ingress._guard = Guard(SimpleNamespace(verify=lambda _: ADA), ingress._roles, Record(), "1")
    ingress._sync = SimpleNamespace(
        set_rule=SimpleNamespace(remote=sync.set_rule), delete=SimpleNamespace(remote=sync.delete)
    )
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(servable_object=ingress))
    before: dict[str, Any] = dict(api.state._state)
    api.state.limits, api.state.authenticate = LimitSettings(), authenticate
    yield TestClient(api, raise_server_exceptions=False, follow_redirects=False)
    api.state._state.clear()
    api.state._state.update(before)


def place(ledger: Ledger, tenant: str, name: str, rule: AccessRule) -> str:
    ref = DocumentRef(tenant, "wiki", name, name, None, "1", rule)
    assert ledger.flip(ref, ledger.begin_version(ref, "hash", 1, "run", None))
    return ref.document_id


def with_id() -> set[tuple[str, str]]:
    paths = api.openapi()["paths"]
    return {(method, path) for path, methods in paths.items() if "{" in path for method in methods}


def test_every_route_with_an_id_is_known_here() -> None:
    # The name of a way to sign in is on the page where one signs in.
    found = {(method, path) for method, path in with_id() if not path.startswith("/v1/auth/")}
    assert found == set(DOCUMENTS) | set(ELSEWHERE), "a new route with an id: say here what hides it"


@pytest.mark.parametrize(("method", "path"), DOCUMENTS, ids=lambda part: part.replace("/", " "))
def test_hidden_and_unknown_are_one_answer(client: TestClient, ledger: Ledger, method: str, path: str) -> None:
    hr, everyone = AccessRule.of(["group:hr"]), AccessRule.of(["everyone"])
    deleted = place(ledger, "acme", "deleted", everyone)
    ledger.delete([deleted])
    ids = {
        "unknown": "0" * 32,
        "hidden": place(ledger, "acme", "hidden", hr),
        "denied": place(ledger, "acme", "denied", AccessRule.of(["everyone"], ["group:staff"])),
        "of another tenant": place(ledger, "rival", "theirs", everyone),
        "deleted": deleted,
        "no id at all": "x' or '1'='1",
    }

    def ask(document_id: str) -> tuple[int, bytes, list[tuple[str, str]]]:
        url = path.replace("{document_id}", document_id)
        answer = client.request(method, url, json=DOCUMENTS[method, path], headers=HEADERS)
        return answer.status_code, answer.content, sorted(answer.headers.items())

    answers = {kind: ask(document_id) for kind, document_id in ids.items()}
    assert answers["unknown"][0] == 404
    assert {kind: answer for kind, answer in answers.items() if answer != answers["unknown"]} == {}


def test_what_the_caller_may_see_is_another_answer(client: TestClient, ledger: Ledger) -> None:
    seen = place(ledger, "acme", "seen", AccessRule.of(["group:staff"]))

    assert client.get(f"/v1/documents/{seen}", headers=HEADERS).status_code == 200
    assert asyncio.run(asyncio.to_thread(ledger.get, ADA, seen)) is not None
