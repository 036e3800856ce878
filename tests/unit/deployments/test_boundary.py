"""What every answer carries, to whom pages of other origins may show it, and how large a request may be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from ray import serve

from deployments.ingress import api
from index.limit_settings import HttpSettings, LimitSettings, RateSettings
from policies.errors import Overloaded, Unauthenticated
from policies.principals import Principal


class Reader:
    """What an upload needs to read its body: somebody who lets it in."""

    _args = SimpleNamespace(limits=LimitSettings())

    @property
    def _guard(self) -> Any:
        return self

    @asynccontextmanager
    async def request(self, *_: Any) -> AsyncIterator[None]:
        yield None


WIKI = "https://wiki.acme.example"
TOKEN = {"authorization": "Bearer good"}
EVERY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}
PREFLIGHT = {
    "origin": WIKI,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}


@pytest.fixture
def state() -> Iterator[Any]:
    async def authenticate(token: str) -> Principal:
        if token == "tired":
            raise Overloaded("too many requests", 7)
        if token != "good":
            raise Unauthenticated("no")
        return Principal("ada", "acme")

    before: dict[str, Any] = dict(api.state._state)
    api.state.limits, api.state.http, api.state.authenticate = LimitSettings(), HttpSettings(), authenticate
    yield api.state
    api.state._state.clear()
    api.state._state.update(before)


@pytest.fixture
def client(state: Any) -> TestClient:
    return TestClient(api, raise_server_exceptions=False, follow_redirects=False)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/openapi.json", TOKEN, 200),
        ("GET", "/openapi.json", {}, 401),
        ("GET", "/openapi.json", {"authorization": "Bearer tired"}, 429),
        ("GET", "/nothing", {}, 404),
        ("DELETE", "/healthz", {}, 405),
        ("TRACE", "/v1/query", {}, 405),
        ("GET", "/healthz", {}, 500),  # no replica stands behind this test
    ],
)
def test_every_answer_has_the_headers_and_names_no_server(
    client: TestClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = client.request(method, path, headers=headers)

    assert answer.status_code == status
    assert EVERY.items() <= dict(answer.headers).items()
    assert not {"server", "x-powered-by", "location", "strict-transport-security"} & set(answer.headers)
    assert len(answer.headers.get_list("x-request-id")) == 1


def test_strict_transport_security_is_sent_where_it_is_configured(client: TestClient, state: Any) -> None:
    state.http = HttpSettings(hsts_s=31_536_000)

    for path in ("/nothing", "/openapi.json"):
        assert client.get(path).headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


def test_too_many_requests_say_when_to_come_back(client: TestClient) -> None:
    answer = client.get("/openapi.json", headers={"authorization": "Bearer tired"})

    assert (answer.headers["retry-after"], answer.headers["content-type"]) == ("7", "application/problem+json")


# ---- pages of other origins


@pytest.mark.parametrize("configured", [[], ["https://other.example"], [f"{WIKI}:8443"], ["http://wiki.acme.example"]])
def test_an_origin_that_is_not_configured_may_not_even_ask(
    client: TestClient, state: Any, configured: list[str]
) -> None:
    state.http = HttpSettings(cors_origins=configured)

    asked = client.options("/v1/query", headers=PREFLIGHT)
    assert asked.status_code == 405 and asked.headers["content-type"] == "application/problem+json"
    answer = client.get("/openapi.json", headers={**TOKEN, "origin": WIKI})
    assert not [name for reply in (asked, answer) for name in reply.headers if name.startswith("access-control")]


def test_a_configured_origin_may_ask_without_a_token_and_read_with_one(client: TestClient, state: Any) -> None:
    state.http = HttpSettings(cors_origins=["https://other.example", WIKI])

    asked = client.options("/v1/query", headers=PREFLIGHT)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == WIKI
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert asked.headers["access-control-max-age"] == "600"
    answer = client.get("/openapi.json", headers={**TOKEN, "origin": WIKI})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, WIKI)
    assert "Origin" in answer.headers["vary"]
    for reply in (asked, answer):
        assert EVERY.items() <= dict(reply.headers).items()
        assert "access-control-allow-credentials" not in reply.headers


def test_a_configured_origin_may_read_what_went_wrong(client: TestClient, state: Any) -> None:
    state.http = HttpSettings(cors_origins=[WIKI])

    for headers, status in (({}, 401), ({"authorization": "Bearer tired"}, 429)):
        answer = client.get("/openapi.json", headers={**headers, "origin": WIKI})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, WIKI)
        assert "retry-after" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "change", [{"access-control-request-method": "PATCH"}, {"access-control-request-headers": "x"}]
)
def test_a_configured_origin_may_not_ask_for_more(client: TestClient, state: Any, change: dict[str, str]) -> None:
    state.http = HttpSettings(cors_origins=[WIKI])

    assert client.options("/v1/query", headers={**PREFLIGHT, **change}).status_code == 400


@pytest.mark.parametrize(
    "origin",
    ["*", "https://*.acme.example", "null", "wiki.acme.example", "ftp://acme.example", f"{WIKI}/", f"{WIKI}/page"]
    + ["https://user@acme.example", "https://Wiki.acme.example", "https://", ""],
)
def test_what_is_no_single_origin_is_refused_at_start(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        HttpSettings(cors_origins=[origin])


# ---- sizes


@pytest.mark.parametrize(
    "request_with", [{"headers": {"x-long": "x" * 5_000}}, {"params": {"after": "x" * 5_000}}, {"path": "x" * 5_000}]
)
def test_a_head_over_its_limit_is_refused(client: TestClient, state: Any, request_with: dict[str, Any]) -> None:
    state.limits = LimitSettings(max_header_bytes=4_096)
    path = f"/{request_with.pop('path', 'openapi.json')}"

    answer = client.get(path, **{**request_with, "headers": {**TOKEN, **request_with.get("headers", {})}})
    assert (answer.status_code, answer.headers["content-type"]) == (431, "application/problem+json")
    assert client.get("/openapi.json", headers=TOKEN).status_code == 200


def test_many_small_headers_are_one_large_head(client: TestClient, state: Any) -> None:
    state.limits = LimitSettings(max_header_bytes=4_096)

    assert client.get("/openapi.json", headers={**TOKEN, **{f"x-{n}": "x" for n in range(1_000)}}).status_code == 431


def test_a_huge_token_is_no_token(client: TestClient) -> None:
    assert client.get("/openapi.json", headers={"authorization": f"Bearer {'x' * 1_000_000}"}).status_code == 401


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("path", ["/v1/query", "/v1/chat/completions", "/v1/documents"])
def test_a_body_over_its_limit_is_refused_whether_it_says_so_or_not(
    client: TestClient, state: Any, monkeypatch: pytest.MonkeyPatch, path: str, declared: bool
) -> None:
    state.limits = LimitSettings(max_upload_mb=2)
    size = 2_000_001 if path == "/v1/documents" else 1_000_001
    content = b"x" * size if declared else iter([b"x" * 1_000] * (size // 1_000 + 1))
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(servable_object=Reader()))

    answer = client.post(path, content=content, headers={**TOKEN, "content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize("wrong", ["60", "many/minute", "0/hour"])
def test_a_wrong_rate_is_refused_at_start(wrong: str) -> None:
    with pytest.raises(ValidationError, match="is no rate"):
        RateSettings(person=[wrong])


def test_a_password_does_not_stand_in_the_configuration() -> None:
    with pytest.raises(ValidationError, match="redis_url_env or redis_url_file"):
        LimitSettings(redis_url="redis://:hunter2@redis:6379/0")
    with pytest.raises(ValidationError, match="at most one"):
        LimitSettings(redis_url="redis://redis:6379/0", redis_url_env="REDIS_URL")
