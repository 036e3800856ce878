"""What is wrong with a request is said in one problem document that shows nothing it should not."""

from __future__ import annotations

import jwt
import pytest

HOSTILE = ("/", "Traceback", "sqlite", "milvus", "access_id", "ray::")


def cases(service, alice):
    expired = jwt.encode({"iss": "rayrag-development", "sub": "a", "exp": 1}, "x" * 32, algorithm="HS256")
    ask = {"question": "hello"}
    said = [{"role": "user", "content": "x"}]
    as_json = {"content-type": "application/json"}
    return {
        "no token": (401, "POST", "/v1/query", None, {"json": ask}),
        "not a token": (401, "POST", "/v1/query", "abc", {"json": ask}),
        "expired": (401, "POST", "/v1/query", expired, {"json": ask}),
        "a stranger's bad body": (401, "POST", "/v1/query", expired, {"json": {"nonsense": 1}}),
        "a stranger's bad parameter": (401, "GET", "/v1/documents?limit=0", expired, {}),
        "no permission": (403, "GET", "/v1/documents", alice, {}),
        "may not upload": (403, "POST", "/v1/documents", alice, {"json": {"id": "a", "text": "b"}}),
        "bad json": (422, "POST", "/v1/query", alice, {"content": b"{", "headers": as_json}),
        "unknown key": (422, "POST", "/v1/query", alice, {"json": {**ask, "tenant": "x"}}),
        "top_k 0": (422, "POST", "/v1/query", alice, {"json": {**ask, "top_k": 0}}),
        "top_k 51": (422, "POST", "/v1/retrieve", alice, {"json": {**ask, "top_k": 51}}),
        "blank question": (422, "POST", "/v1/query", alice, {"json": {"question": " "}}),
        "2 MB question": (413, "POST", "/v1/query", alice, {"json": {"question": "x" * 2_000_000}}),
        "long question": (413, "POST", "/v1/query", alice, {"json": {"question": "x" * 9_000}}),
        "filter injection": (
            422, "POST", "/v1/retrieve", alice, {"json": {**ask, "filters": {"document_ids": ['"] or 1 == 1 or "']}}}
        ),
        "unknown model": (404, "POST", "/v1/chat/completions", alice, {"json": {"model": "gpt", "messages": said}}),
        "unknown route": (404, "GET", "/v1/nothing", alice, {}),
        "wrong method": (405, "GET", "/v1/query", alice, {}),
    }  # fmt: skip


@pytest.mark.parametrize("case", list(cases(None, "")))
def test_a_bad_request_is_answered_as_the_contract_says(service, alice, case):
    status, method, path, token, kwargs = cases(service, alice)[case]
    answer = service.call(method, path, token, **kwargs)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "request_id"} and body["status"] == status
    assert not [word for word in HOSTILE if word in body["detail"]]


def test_probes_need_no_token_and_say_one_word(service):
    for path in ("/healthz", "/readyz"):
        answer = service.call("GET", path, None)
        assert answer.status_code == 200 and answer.json() == {"status": "ok"}
