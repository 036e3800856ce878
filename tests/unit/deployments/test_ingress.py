"""The door: nothing is told to a stranger, not even which routes there are or what the server is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from deployments.ingress import api
from index.settings import LimitSettings
from policies.errors import Unauthenticated

TOKEN = {"authorization": "Bearer good"}


@pytest.fixture
def client() -> Iterator[TestClient]:
    async def authenticate(token: str) -> None:
        if token != "good":
            raise Unauthenticated("no")

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


@pytest.mark.parametrize("path", ["/v1/documents/", "/v1/query/", "/v1/models/", "/metrics/", "/healthz/"])
def test_a_slash_too_many_is_unknown_and_leads_nowhere(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"host": "evil.example"})

    assert (answer.status_code, answer.headers.get("location")) == (404, None)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json/", "/openapi"])
def test_no_other_page_describes_the_routes(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
