"""The whole service, once: a small company on a real cluster, and nobody is told of what they may not read.

`tests/leaks` tries thousands of companies against the same code in one process; here it is that the parts are put
together rightly: Serve's proxy and handles, replicas in processes of their own, what they write to their logs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TENANT = "leaks"
RULES = {
    "all": {"allow": ["everyone"]},
    "ann": {"allow": ["user:ann"]},
    "group": {"allow": ["group:vault"]},
    "denied": {"allow": ["everyone"], "deny": ["user:ann"]},
    "nobody": {"allow": [], "deny": []},
}
READERS = {
    ("ann", "vault"): {"all", "ann", "group"},
    ("ann", "other"): {"all", "ann"},
    ("bob", "vault"): {"all", "group", "denied"},
    ("cleo", ""): {"all", "denied"},
}
WORD = re.compile(r"canary(\w+?)x[0-9a-f]{8}")
QUESTION = "What is the password of the vault?"
MODEL_REQUEST = {"model": "rayrag", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def documents(service):
    editor = service.token("eve", (), ("admin",), TENANT)
    found = {}
    for place, (name, rule) in enumerate(RULES.items()):
        body = {
            "id": f"{name}.txt",
            "text": f"The password of the vault {name} is canary{name}x{place:08x}.",
            "acl": rule,
        }
        answer = service.call("POST", "/v1/documents", editor, json=body)
        assert answer.status_code == 201, answer.text
        found[name] = answer.json()["document_id"]
    return found


def told(service, token):
    """Everything that somebody is told, by every route that tells of documents."""
    asks = [
        ("POST", "/v1/query", {"json": {"question": QUESTION}}),
        ("POST", "/v1/query", {"json": {"question": QUESTION, "stream": True}}),
        ("POST", "/v1/retrieve", {"json": {"question": QUESTION, "top_k": 50}}),
        ("POST", "/v1/chat/completions", {"json": MODEL_REQUEST}),
        ("POST", "/v1/chat/completions", {"json": {**MODEL_REQUEST, "stream": True}}),
    ]
    answers = [service.call(method, path, token, **options) for method, path, options in asks]
    assert {answer.status_code for answer in answers} == {200}
    return "\n".join(answer.text for answer in answers)


@pytest.mark.parametrize(("who", "readable"), READERS.items())
def test_people_are_told_of_what_they_may_read_and_of_nothing_else(service, documents, who, readable):
    subject, group = who
    assert (
        set(WORD.findall(told(service, service.token(subject, (group,) if group else (), tenant=TENANT)))) == readable
    )


def test_another_tenant_is_told_of_nothing(service, documents):
    assert WORD.findall(told(service, service.token("ann", ("vault",), tenant="leaks-other"))) == []


def test_the_next_question_after_a_revocation_is_clean(service, documents):
    editor = service.token("eve", (), ("admin",), TENANT)
    ann = service.token("ann", ("vault",), tenant=TENANT)
    path = f"/v1/documents/{documents['all']}/acl"
    assert service.call("PUT", path, editor, json={"allow": ["user:eve"]}).status_code == 200
    assert "all" not in WORD.findall(told(service, ann))
    assert service.call("PUT", path, editor, json={"allow": ["everyone"]}).status_code == 200
    assert "all" in WORD.findall(told(service, ann))


def test_no_log_holds_a_word_of_a_document(service, documents):
    """Of all processes, after all of the above."""
    folders = [Path(service.state.data_dir) / "logs", Path(service.state.ray_temp)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and "logs" in path.parts]
    assert files
    assert not [path for path in files if WORD.search(path.read_text(encoding="utf-8", errors="replace"))]
