"""The door: nothing is told to a stranger, not even which routes there are or what the server is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from deployments.ingress import api
from deployments.metrics import Metrics
from index.settings import LimitSettings
from policies.errors import TokenRejected, Unauthenticated
from policies.principals import Principal

TOKEN = {"authorization": "Bearer good"}
SEEN: list[str] = []
"""Every token that was asked about."""


@pytest.fixture
def client() -> Iterator[TestClient]:
    async def authenticate(token: str) -> Principal:
        SEEN.append(token)
        if token != "good":
            raise Unauthenticated("no")
        return Principal("ada", "acme")

    SEEN.clear()

    before: dict[str, Any] = dict(api.state._state)
    api.state.limits, api.state.authenticate = LimitSettings(), authenticate
    yield TestClient(api, raise_server_exceptions=False, follow_redirects=False)
    api.state._state.clear()
    api.state._state.update(before)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer bad"}, {"authorization": "Basic good"}])
def test_the_description_of_the_routes_needs_a_token(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/openapi.json", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "paths" not in answer.json()


def test_the_description_of_the_routes_is_there_for_any_valid_token(client: TestClient) -> None:
    answer = client.get("/openapi.json", headers=TOKEN)

    assert answer.status_code == 200
    assert answer.json() == api.openapi()
    assert "/openapi.json" not in answer.json()["paths"]


def test_a_caller_is_asked_who_they_are_once_for_each_request(client: TestClient) -> None:
    assert client.get("/openapi.json", headers=TOKEN).status_code == 200
    assert SEEN == ["good"]


def test_every_route_behind_a_token_is_given_who_calls_and_never_the_token() -> None:
    ways = ("ldap/{name}", "oidc/{name}/login", "oidc/{name}/callback", "saml/{name}/metadata", "saml/{name}/login",
            "saml/{name}/acs", "refresh")  # fmt: skip
    open_routes = {"/healthz", "/readyz", "/v1/webhooks/{source}", "/metrics", "/v1/auth"}
    open_routes |= {f"/v1/auth/{way}" for way in ways}
    takes = {route.path: _dependencies(route.dependant) for route in api.routes if isinstance(route, APIRoute)}
    assert len(takes) > 10
    for path, names in takes.items():
        assert names.count("_caller") == (path not in open_routes), f"{path} asks who calls, once"


def _dependencies(dependant: Dependant) -> list[str]:
    below = [name for inner in dependant.dependencies for name in _dependencies(inner)]
    return [*below, *(getattr(inner.call, "__name__", "") for inner in dependant.dependencies)]


@pytest.mark.parametrize("path", ["/v1/documents/", "/v1/query/", "/v1/models/", "/metrics/", "/healthz/"])
def test_a_slash_too_many_is_unknown_and_leads_nowhere(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"host": "evil.example"})

    assert (answer.status_code, answer.headers.get("location")) == (404, None)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json/", "/openapi"])
def test_no_other_page_describes_the_routes(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_refused_token_is_counted_by_its_reason(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(Metrics, "refused", lambda _, reason: counted.append(reason))

    async def authenticate(token: str) -> Principal:
        raise TokenRejected("expired")

    api.state.authenticate = authenticate
    client.get("/openapi.json", headers=TOKEN)
    client.get("/openapi.json")

    assert counted == ["expired", "absent"]
