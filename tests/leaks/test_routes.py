"""Every route, every method, every kind of caller, against a checked-in table; and ids that belong to somebody else."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from index.document import document_id
from tests.leaks.service import AUDIENCE, ISSUER, Service, routes_of

TABLE: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("routes.yaml").read_text(encoding="utf-8"))
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE")
TENANT = "matrix"
MISSING = document_id("no", "such", "document")
STRANGERS = (
    "none", "garbage", "basic", "expired", "not yet", "wrong audience", "wrong issuer", "other key", "no tenant",
    "disabled", "revoked", "unknown service",
)  # fmt: skip
ROLES = ("user", "power_user", "admin", "readonly", "privacy_officer", "auditor", "operator")
OTHERS = ("no role", "unknown role", "role of another tenant", "role in capitals", "service")


@dataclass(frozen=True)
class Callers:
    """An authorization header for each kind of caller: of a new token each time, since one can be signed out."""

    make: Callable[[], dict[str, dict[str, str]]]

    @property
    def headers(self) -> dict[str, dict[str, str]]:
        return self.make()


@pytest.fixture(scope="module")
def callers(service: Service) -> Callers:
    service.ledger.revocations.disable(TENANT, "disabled", "test")
    service.ledger.revocations.revoke_token("matrix-revoked", "test", TENANT)
    service.forget_revocations()
    return Callers(lambda: headers_of(service))


def headers_of(service: Service) -> dict[str, dict[str, str]]:
    now = int(time.time())

    def claims(subject: str, **changed: Any) -> dict[str, Any]:
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "tenant": TENANT, "roles": ["admin"], "groups": []}
        token_id = "matrix-revoked" if subject == "revoked" else secrets.token_hex(8)
        times = {"iat": now, "exp": now + 600, "jti": token_id}
        return {key: value for key, value in {**said, **times, **changed}.items() if value is not None}

    tokens = {
        "garbage": "x.y.z",
        "expired": service.sign(claims("a", iat=now - 7_200, exp=now - 3_600)),
        "not yet": service.sign(claims("a", nbf=now + 3_600)),
        "wrong audience": service.sign(claims("a", aud="somebody-else")),
        "wrong issuer": service.sign(claims("a", iss="https://evil.example")),
        "other key": service.sign(claims("a"))[:-6] + "AAAAAA",
        "no tenant": service.sign(claims("a", tenant=None)),
        "disabled": service.sign(claims("disabled")),
        "revoked": service.sign(claims("revoked")),
        "unknown service": service.sign(claims("svc", kind="service", client_id="stranger")),
        "no role": service.token("n", TENANT, []),
        "unknown role": service.token("u", TENANT, ["superuser"]),
        "role of another tenant": service.token("o", TENANT, ["elsewhere"]),
        "role in capitals": service.token("c", TENANT, ["ADMIN"]),
        "service": service.sign(claims("svc", kind="service", client_id="crawler", roles=[])),
        **{role: service.token(role, TENANT, [role, "cleared-internal"]) for role in ROLES},
    }
    headers = {name: {"authorization": f"Bearer {token}"} for name, token in tokens.items()}
    return {**headers, "none": {}, "basic": {"authorization": "Basic YWRtaW46YWRtaW4="}}


def declared(service: Service) -> set[str]:
    return {f"{method} {route.path}" for route in routes_of(service.api) for method in route.methods}


def test_every_route_has_a_row_and_every_row_a_route(service: Service) -> None:
    described = {f"{method.upper()} {path}" for path, item in service.api.openapi()["paths"].items() for method in item}
    assert described <= declared(service)
    assert declared(service) - TABLE.keys() == set(), "routes without a row in tests/leaks/routes.yaml"
    assert TABLE.keys() - declared(service) == set(), "rows whose route is gone"
    others = [route for route in service.api.routes if not hasattr(route, "dependant")]
    assert not [route for route in others if hasattr(route, "path")], "a mounted application or a plain route"


def test_every_caller_is_told_what_the_table_says(
    service: Service, callers: Callers, count: Callable[[str, int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Metrics are of a Ray cluster, and there is none here: who may have them is decided before.
    monkeypatch.setitem(type(service.ingress).metrics.__globals__, "exposition", lambda: b"")
    wrong, cases = [], 0
    for name, row in TABLE.items():
        for who in (*STRANGERS, *ROLES, *OTHERS):
            cases += 1
            answer = send(service, name, callers.headers[who])
            if answer.status_code != expected(row, who):
                wrong.append(f"{name} as {who}: {answer.status_code}, not {expected(row, who)}: {answer.text[:200]}")
            if answer.status_code >= 400 and answer.headers["content-type"] != "application/problem+json":
                wrong.append(f"{name} as {who}: {answer.headers['content-type']}")
    count("routes: route and caller", cases, len(wrong))
    assert not wrong, "\n".join(wrong)


def expected(row: dict[str, Any], who: str) -> int:
    if who in STRANGERS:
        return int(row["strangers"])
    return int(row.get("roles", {}).get(who, row.get("others", 403)))


def send(service: Service, name: str, headers: dict[str, str], **changed: Any) -> Any:
    method, path = name.split(" ")
    given = TABLE[name].get("send", {})
    kinds = {"json": given.get("json"), "data": given.get("form"), "params": given.get("params")}
    path = path.replace("{document_id}", MISSING).replace("{source}", "nothing").replace("{name}", "nothing")
    options = {**{kind: value for kind, value in kinds.items() if value is not None}, **changed}
    return service.call(method, path, None, headers=headers, **options)


def test_methods_that_are_not_declared_are_refused(
    service: Service, callers: Callers, count: Callable[[str, int, int], None]
) -> None:
    wrong, cases = [], 0
    for path in sorted({name.split(" ")[1] for name in TABLE}):
        filled = path.replace("{document_id}", MISSING).replace("{source}", "nothing").replace("{name}", "nothing")
        for method in METHODS:
            if f"{method} {path}" in TABLE:
                continue
            for who in ("none", "user", "admin"):
                cases += 1
                answer = service.call(method, filled, None, headers=callers.headers[who])
                if answer.status_code not in (401, 404, 405):
                    wrong.append(f"{method} {path} as {who}: {answer.status_code}")
    count("routes: undeclared methods", cases, len(wrong))
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def owned(service: Service) -> Iterator[dict[str, str]]:
    """A document of another tenant, one of one's own that is hidden, one that was deleted: all of `boss`."""
    made = {}
    for name, tenant in (("foreign", "elsewhere"), ("hidden", TENANT), ("deleted", TENANT)):
        token = service.token("boss", tenant, ["admin", "cleared-restricted"])
        body = {"id": f"{name}.txt", "text": f"The {name} password is cnryt000000000001.", "acl": ["user:boss"]}
        answer = service.call("POST", "/v1/documents", token, json=body)
        assert answer.status_code == 201, answer.text
        made[name] = answer.json()["document_id"]
        if name == "deleted":
            assert service.call("DELETE", f"/v1/documents/{made[name]}", token).status_code == 200
    yield made


# `boss` owns them all: the hidden and the deleted one here, the foreign one as somebody else of that name elsewhere.
@pytest.mark.parametrize(
    ("who", "kind"),
    [("eve", "foreign"), ("eve", "hidden"), ("eve", "deleted"), ("boss", "foreign"), ("boss", "deleted")],
)
def test_ids_of_others_are_told_as_ids_of_nothing(
    service: Service, owned: dict[str, str], kind: str, who: str, count: Callable[[str, int, int], None]
) -> None:
    headers = {**bearer(service.token(who, TENANT, ["admin", "cleared-restricted"])), "x-request-id": "the-same"}
    wrong, cases = [], 0
    for name in (name for name in TABLE if "{document_id}" in name):
        method, path = name.split(" ")
        body = TABLE[name].get("send", {})
        answers = [
            service.call(method, path.replace("{document_id}", each), None, headers=headers, **body)
            for each in (owned[kind], MISSING)
        ]
        cases += 1
        if told(answers[0]) != told(answers[1]) or answers[0].status_code != 404:
            wrong.append(f"{name}: {[told(answer) for answer in answers]}")
    for name in ("/v1/retrieve", "/v1/query"):
        asked = [
            service.call("POST", name, None, headers=headers, json=narrowed(each)).json()
            for each in (owned[kind], MISSING)
        ]
        for answer in asked:
            answer.pop("timings_ms"), answer.pop("as_of")
        cases += 1
        if asked[0] != asked[1]:
            wrong.append(f"{name}, narrowed: {asked}")
    count("routes: ids of others", cases, len(wrong))
    assert not wrong, "\n".join(wrong)


def test_the_id_of_anothers_upload_is_a_document_of_ones_own(service: Service, owned: dict[str, str]) -> None:
    token = service.token("eve", TENANT, ["admin", "cleared-restricted"])
    body = {"id": "hidden.txt", "text": "Another text under the same id.", "acl": ["user:eve"]}
    answer = service.call("POST", "/v1/documents", token, json=body)
    assert answer.status_code == 201 and answer.json()["document_id"] != owned["hidden"]
    boss = service.token("boss", TENANT, ["admin", "cleared-restricted"])
    kept = service.call("GET", f"/v1/documents/{owned['hidden']}", boss)
    assert kept.status_code == 200 and kept.json()["version"] == 1


def test_pages_behind_any_id_are_ones_own(service: Service, owned: dict[str, str]) -> None:
    headers = bearer(service.token("eve", TENANT, ["admin", "cleared-restricted"]))
    for after in (*owned.values(), MISSING, "", "zzz", "0" * 32):
        page = service.call("GET", "/v1/documents", None, headers=headers, params={"after": after})
        assert page.status_code == 200
        assert not {body["document_id"] for body in page.json()["documents"]} & set(owned.values())


def narrowed(document: str) -> dict[str, Any]:
    return {"question": "what is the password?", "filters": {"document_ids": [document]}}


def told(answer: Any) -> tuple[int, int, bytes, list[tuple[str, str]]]:
    return answer.status_code, len(answer.content), answer.content, sorted(answer.headers.items())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
