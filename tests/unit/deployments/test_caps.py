"""How much one request may ask for: each cap, at its edge and one over it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from deployments.contract import ChatRequest, Filters, QueryRequest
from deployments.ingress import Ingress
from deployments.openai_api import question_of
from deployments.uploads import read_uploads
from index.limit_settings import LimitSettings
from index.settings import GenerationSettings
from policies.errors import TooLarge


def chat(messages: int = 1, chars: int = 1, **more: Any) -> ChatRequest:
    earlier = [{"role": "user" if n % 2 else "assistant", "content": "x" * chars} for n in range(messages - 1)]
    return ChatRequest.model_validate({"model": "m", "messages": [*earlier, {"role": "user", "content": "q"}], **more})


def test_a_chat_has_so_many_messages_and_no_more() -> None:
    limits = LimitSettings(max_messages=3)

    assert question_of(chat(3), limits)[0] == "q"
    with pytest.raises(TooLarge, match="messages: at most 3"):
        question_of(chat(4), limits)


def test_a_chat_has_so_long_a_history_and_no_longer() -> None:
    limits = LimitSettings(max_history_chars=20)

    assert len(question_of(chat(3, 10), limits)[1].history) == 2
    with pytest.raises(TooLarge, match="at most 20 characters before the last question"):
        question_of(chat(3, 11), limits)
    assert question_of(chat(1), LimitSettings(max_history_chars=0))[0] == "q"


@pytest.mark.parametrize(
    "wrong",
    [{"messages": []}, {"messages": [{"role": "user", "content": "x"}] * 201}, {"n": 2}, {"max_tokens": 0}]
    + [{"max_completion_tokens": -1}, {"temperature": 2.1}],
)
def test_a_chat_beyond_the_contract_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **wrong})


@pytest.mark.parametrize(("top_k", "fine"), [(0, False), (1, True), (50, True), (51, False)])
def test_so_many_passages_and_no_more(top_k: int, fine: bool) -> None:
    if fine:
        assert QueryRequest(question="q", top_k=top_k).top_k == top_k
    else:
        with pytest.raises(ValidationError):
            QueryRequest(question="q", top_k=top_k)


def test_so_many_documents_in_a_filter_and_no_more() -> None:
    assert Filters(document_ids=["d"] * 200)
    with pytest.raises(ValidationError):
        Filters(document_ids=["d"] * 201)


def test_so_long_a_question_and_no_longer() -> None:
    plain: Any = Ingress.func_or_class.__mro__[1]
    ingress: Any = plain.__new__(plain)
    ingress._args = type("Args", (), {"limits": LimitSettings(max_question_chars=16)})

    ingress._check(QueryRequest(question="x" * 16))
    with pytest.raises(TooLarge, match="at most 16 characters"):
        ingress._check(QueryRequest(question="x" * 17))


def test_an_answer_is_no_longer_than_the_configuration_lets_a_model_write() -> None:
    with pytest.raises(ValidationError):
        GenerationSettings(max_tokens=32_769)


def sent(files: int = 1, fields: int = 0, field_chars: int = 1, file_bytes: int = 1) -> int:
    """The status of a form of so many parts, or the number of files that were taken."""

    async def take(request: Request) -> JSONResponse:
        return JSONResponse(len(await read_uploads(request, 1_000)))

    client = TestClient(Starlette(routes=[Route("/", take, methods=["POST"])]), raise_server_exceptions=True)
    parts = [("file", (f"{n}.txt", b"x" * file_bytes)) for n in range(files)]
    answer = client.post("/", files=parts, data={f"f{n}": "x" * field_chars for n in range(fields)})
    return int(answer.json()) if answer.status_code == 200 else answer.status_code


def test_a_form_has_so_many_files_and_fields_and_no_more() -> None:
    assert (sent(files=20), sent(files=21)) == (20, 400)
    assert (sent(fields=20), sent(fields=21)) == (1, 400)
    assert (sent(fields=1, field_chars=100_000), sent(fields=1, field_chars=100_001)) == (1, 400)


def test_a_file_of_a_form_is_so_large_and_no_larger() -> None:
    assert sent(file_bytes=1_000) == 1
    with pytest.raises(TooLarge, match="over 1000 bytes"):
        sent(file_bytes=1_001)
