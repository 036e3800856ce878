"""Another embedding model on the running service: no question fails or is answered by two, and there is a way back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index.stores import KEPT_S
from tests.tiny_models import write_tiny_model

TENANT = "reindex"
QUESTION = "How is the turbine's blade cooled?"
SWITCHED_S = 3 * KEPT_S


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / f"tiny-{uuid.uuid4().hex[:8]}", dim=24, seed=5)


def rayrag(service: Any, *words: str) -> str:
    command = [sys.executable, "-m", "cluster", *words, "--data-dir", service.state.data_dir]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def states(service: Any) -> dict[str, str]:
    return {each["model_id"]: each["state"] for each in json.loads(rayrag(service, "reindex", "--status", "--json"))}


class Asking:
    """Asks one question over and over; each answer is its hits with their scores, best first."""

    def __init__(self, service: Any, token: str) -> None:
        self._service, self._token = service, token
        self.seen: list[tuple[tuple[str, float], ...]] = []
        self.failures: list[str] = []
        self._over = threading.Event()

    def once(self) -> tuple[tuple[str, float], ...]:
        body = {"question": QUESTION, "mode": "dense", "top_k": 8}  # keyword scores follow what others upload
        answer = self._service.call("POST", "/v1/retrieve", self._token, json=body)
        if answer.status_code != 200 or answer.json()["degraded"]:
            self.failures.append(answer.text[:500])
            return ()
        return tuple((hit["chunk_id"], hit["score"]) for hit in answer.json()["hits"])

    def __enter__(self) -> Asking:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            self.seen.append(self.once())
            time.sleep(0.05)


@pytest.fixture
def changed_back(company: Any) -> Iterator[None]:
    """Whatever happens here, the other tests find the model that they began with."""
    (before,) = states(company)
    yield
    now = states(company)
    if now.get(before) == "previous":
        rayrag(company, "reindex", "--rollback")
    if len(now) > 1:
        rayrag(company, "reindex", "--abandon" if "filling" in now.values() else "--drop-previous")


def test_the_model_is_changed_and_changed_back_under_questions_and_uploads(company, alice, model, changed_back):
    asking = Asking(company, alice)
    # Documents that change belong to another tenant: the answers above depend on the model alone.
    editor = company.token("eve", roles=("power_user", "editor-in-chief", "admin"), tenant=TENANT)
    reader = company.token("ada", tenant=TENANT)
    old = asking.once()
    names = [f"reindex-{number}-{uuid.uuid4().hex[:8]}" for number in range(3)]
    ids = [_put(company, editor, name, f"The pass word of {name} is bluebell.") for name in names]
    with asking:
        changing = threading.Thread(target=_change_documents, args=[company, editor, names, ids])
        changing.start()
        rayrag(company, "reindex", "--model", str(model), "--sample", "20", "--yes", "--force")
        changing.join()
        time.sleep(SWITCHED_S)
        new = asking.once()
        found = _texts(company, reader, names)
        back_at = len(asking.seen)
        rayrag(company, "reindex", "--rollback")
        time.sleep(SWITCHED_S)
        back = asking.once()
    assert asking.failures == []
    assert old and new and old != new == asking.seen[back_at - 1]
    assert set(asking.seen) <= {old, new}, "an answer that is neither model's"
    assert back == old
    for texts in (found, _texts(company, reader, names)):
        assert "foxglove" in texts[names[0]] and "bluebell" not in texts[names[0]], "the edit, and only the edit"
        assert texts[names[1]] == "", "deleted"
        assert texts[names[2]] == "", "its rights were taken away"
    assert sorted(states(company).values()) == ["live", "previous"]
    rayrag(company, "reindex", "--drop-previous")
    assert list(states(company).values()) == ["live"] and asking.once() == old


def _change_documents(service: Any, editor: str, names: list[str], ids: list[str]) -> None:
    time.sleep(2)  # while the job starts, or fills, or compares: it must not matter
    _put(service, editor, names[0], f"The pass word of {names[0]} is foxglove.")
    assert service.call("DELETE", f"/v1/documents/{ids[1]}", editor).status_code == 200
    rule = {"allow": ["user:eve"], "deny": []}
    assert service.call("PUT", f"/v1/documents/{ids[2]}/acl", editor, json=rule).status_code == 200


def _put(service: Any, token: str, name: str, text: str) -> str:
    body = {"id": name, "text": text, "acl": ["everyone"]}
    answer = service.call("POST", "/v1/documents", token, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["document_id"])


def _texts(service: Any, token: str, names: list[str]) -> dict[str, str]:
    found = {}
    for name in names:
        hits = service.retrieve(token, f"pass word of {name}", top_k=50)
        found[name] = " ".join(hit["text"] for hit in hits if name in hit["text"])
    return found
