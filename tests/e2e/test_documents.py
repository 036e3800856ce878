"""Uploads, versions, rights and deletion over HTTP: what is acknowledged holds at once."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def name() -> str:
    return f"note-{uuid.uuid4().hex[:8]}"


def put(service, token, name, text, acl=("everyone",), **extra):
    return service.call("POST", "/v1/documents", token, json={"id": name, "text": text, "acl": list(acl), **extra})


def texts(service, token, question):
    return " ".join(hit["text"] for hit in service.retrieve(token, question, top_k=50))


def test_an_upload_is_searchable_when_it_answers(service, editor, alice, name):
    answer = put(service, editor, name, f"The code word of {name} is bluebell.")
    assert answer.status_code == 201 and answer.json()["status"] == "indexed" and answer.json()["version"] == 1
    assert "bluebell" in texts(service, alice, f"code word of {name}")


def test_a_new_version_replaces_the_old_one_whole(service, editor, alice, name):
    put(service, editor, name, f"The old word of {name} is snowdrop.")
    second = put(service, editor, name, f"The new word of {name} is foxglove.")
    assert second.json()["version"] == 2
    found = texts(service, alice, f"the word of {name}")
    assert f"new word of {name}" in found and f"old word of {name}" not in found


def test_the_same_content_again_is_unchanged(service, editor, name):
    first = put(service, editor, name, f"{name} stays as it is.").json()
    again = put(service, editor, name, f"{name} stays as it is.").json()
    assert (again["document_id"], again["version"], again["status"]) == (first["document_id"], 1, "unchanged")


def test_a_document_without_an_acl_is_visible_to_nobody(service, editor, alice, name):
    service.call("POST", "/v1/documents", editor, json={"id": name, "text": f"secret of {name}"})
    for token in (alice, editor):
        assert f"secret of {name}" not in texts(service, token, f"secret of {name}")


def test_a_revoked_reader_loses_the_document_at_once(service, editor, alice, bob, name):
    text = f"The budget of {name} is 42."
    document = put(service, editor, name, text, ["user:alice", "user:bob"]).json()["document_id"]
    assert text in texts(service, alice, text)
    rule = {"allow": ["user:alice", "user:bob"], "deny": ["user:alice"]}
    assert service.call("PUT", f"/v1/documents/{document}/acl", editor, json=rule).status_code == 200
    assert text not in texts(service, alice, text)
    assert text in texts(service, bob, text)


def test_a_deleted_document_is_gone_at_once(service, editor, alice, name):
    text = f"The budget of {name} is 43."
    document = put(service, editor, name, text).json()["document_id"]
    assert service.call("DELETE", f"/v1/documents/{document}", editor).status_code == 200
    assert text not in texts(service, alice, text)
    assert service.call("DELETE", f"/v1/documents/{document}", editor).status_code == 404


def test_foreign_and_unknown_documents_answer_alike(service, editor, name):
    viewer = service.token("victor", (), ("power_user",))
    foreign = put(service, editor, name, "not for victor", ["user:eve"]).json()["document_id"]
    answers = []
    for document in (foreign, "0" * 32, "no-such-thing", "%00", "' or 1=1"):
        response = service.call("GET", f"/v1/documents/{document}", viewer, headers={"x-request-id": "same"})
        answers.append((response.status_code, response.text))
    assert set(answers) == {answers[0]} and answers[0][0] == 404


def test_nobody_overwrites_what_somebody_else_uploaded(service, editor, name):
    put(service, editor, name, f"original of {name}")
    other = service.token("mallory", (), ("power_user",))
    forged = put(service, other, name, f"forged of {name}").json()
    mine = put(service, editor, name, f"original of {name}").json()
    assert forged["document_id"] != mine["document_id"] and mine["status"] == "unchanged"


def test_files_come_as_a_form(service, editor, alice, name):
    files = [("file", (f"{name}.md", f"# Notes\n\nThe key to {name} hangs behind the door.".encode()))]
    answer = service.call("POST", "/v1/documents", editor, files=files, data={"acl": "everyone"})
    assert answer.status_code == 201, answer.text
    hit = service.retrieve(alice, f"key to {name}")[0]
    assert hit["external_id"] == f"{name}.md" and "behind the door" in hit["text"]


def test_listing_shows_only_what_the_caller_may_see(service, editor, name):
    put(service, editor, name, "for eve alone", ["user:eve"])
    viewer = service.token("victor", (), ("power_user",))
    seen = service.call("GET", "/v1/documents?limit=500", viewer).json()["documents"]
    own = service.call("GET", "/v1/documents?limit=500", editor).json()["documents"]
    assert name not in {d["external_id"] for d in seen} and name in {d["external_id"] for d in own}


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"file": ("empty.pdf", b"")}, 422),
        ({"file": ("broken.pdf", b"%PDF-1.7 broken")}, 422),
        ({"file": ("tool.exe", b"MZ\x90\x00" + bytes(range(256)) * 8)}, 415),
    ],
    ids=["empty", "broken pdf", "unknown type"],
)
def test_a_bad_file_is_refused_with_a_reason(service, editor, files, status):
    answer = service.call("POST", "/v1/documents", editor, files=files)
    assert answer.status_code == status and answer.json()["detail"], answer.text
