"""A source that is kept fresh: what its people do to their files is what the others find, soon, and within rights."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

SOON_S = 20.0
"""Not a figure, which `make bench` gives: after this, something is broken."""
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture(scope="module")
def folder(service, tmp_path_factory) -> Iterator[Path]:
    """A folder of the tenant `fresh` that is kept fresh under the name `desk`, with a webhook."""
    place = tmp_path_factory.mktemp("desk")
    (place / "heron.txt").write_text("The heron nests in the mill on the northern shore.")
    secret = place.parent / "webhook-secret"
    secret.write_text(f"whsec_{SECRET}")
    secret.chmod(0o600)
    sources = place.parent / "sources.yaml"
    sources.write_text(
        json.dumps(
            {
                "sources": [
                    {
                        "name": "desk",
                        "kind": "filesystem",
                        "path": str(place),
                        "tenant": "fresh",
                        "acl": ["everyone"],
                        "poll_s": 3600,
                        "webhook": {"secret_file": str(secret)},
                    }
                ]
            }
        )
    )
    rayrag(service, "sources", "add", "--file", str(sources))
    yield place
    rayrag(service, "sources", "remove", "desk")


def rayrag(service, *arguments: str) -> str:
    command = [sys.executable, "-m", "cluster", *arguments, "--data-dir", service.state.data_dir]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def found(service, who: str, animal: str) -> list[str]:
    """The passages about an animal that somebody is shown."""
    hits = service.retrieve(service.token(who, tenant="fresh"), f"what does the {animal} do")
    return [hit["text"] for hit in hits if animal in hit["text"]]


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def sources(service, tenant: str = "fresh") -> dict:
    token = service.token("olga", roles=("operator",), tenant=tenant)
    answer = service.call("GET", "/v1/sources", token)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_files_are_found_when_they_are_saved_and_gone_when_they_are_gone(service, folder):
    soon(lambda: any("northern shore" in text for text in found(service, "ada", "heron")))
    (folder / "heron.txt").write_text("The heron moved to the quarry.")
    soon(lambda: found(service, "ada", "heron") == ["The heron moved to the quarry."])
    (folder / "heron.txt").rename(folder / "bird.txt")
    soon(lambda: _ids(service) == ["bird.txt"])
    (folder / "bird.txt").unlink()
    soon(lambda: found(service, "ada", "heron") == [])


def _ids(service) -> list[str]:
    return sorted({hit["external_id"] for hit in service.retrieve(service.token("ada", tenant="fresh"), "heron")})


def test_readers_follow_the_access_file(service, folder):
    (folder / "otter.txt").write_text("The otter keeps the ledger of the ferry.")
    soon(lambda: bool(found(service, "ada", "otter")))
    (folder / "acl.yaml").write_text("- path: otter.txt\n  allow: [user:bea]\n")
    soon(lambda: not found(service, "ada", "otter") and bool(found(service, "bea", "otter")))
    (folder / "acl.yaml").unlink()
    soon(lambda: bool(found(service, "ada", "otter")))


def test_operators_see_state_and_lag_of_their_tenants_sources_alone(service, folder):
    state = sources(service)
    assert state["kept_fresh"] is True
    (desk,) = state["sources"]
    assert (desk["name"], desk["kind"], desk["state"], desk["behind"]) == ("desk", "filesystem", "current", False)
    assert 0 <= desk["lag_s"] < 600 and desk["last_error"] is None
    assert sources(service, tenant="other")["sources"] == []
    assert "desk" in rayrag(service, "sources", "list")
    assert service.call("GET", "/v1/sources", service.token("ada", tenant="fresh")).status_code == 403


def test_an_answer_says_as_of_when_it_holds(service, folder):
    (folder / "stoat.txt").write_text("The stoat guards the lantern room.")
    soon(lambda: bool(found(service, "ada", "stoat")))
    rayrag(service, "sources", "sync", "desk")
    listed = datetime.fromisoformat(sources(service)["sources"][0]["as_of"])
    answer = service.query(service.token("ada", tenant="fresh"), "Who guards the lantern room?")
    as_of = datetime.fromisoformat(answer["as_of"])
    assert abs((as_of - listed).total_seconds()) < 2 and as_of <= datetime.now(UTC)


def test_a_signed_webhook_makes_us_look_and_an_unsigned_one_does_not(service, folder):
    rayrag(service, "sources", "pause", "desk")  # nobody watches now
    soon(lambda: sources(service)["sources"][0]["state"] == "paused")
    (folder / "vole.txt").write_text("The vole audits the granary in May.")
    rayrag(service, "sources", "resume", "desk")
    body = json.dumps({"ids": ["vole.txt"]})
    now = datetime.now(UTC)
    signed = {
        "webhook-id": f"msg_{os.getpid()}",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(f"whsec_{SECRET}").sign(f"msg_{os.getpid()}", now, body),
        "content-type": "application/json",
    }
    refused = service.call("POST", "/v1/webhooks/desk", None, content=body, headers={**signed, "webhook-id": "other"})
    assert refused.status_code == 401
    unknown = service.call("POST", "/v1/webhooks/nothing", None, content=body, headers=signed)
    assert unknown.status_code == 401
    assert service.call("POST", "/v1/webhooks/desk", None, content=body, headers=signed).status_code == 202
    soon(lambda: bool(found(service, "ada", "vole")))


def test_freshness_is_measured(service, folder):
    token = service.token("olga", roles=("operator",), tenant="fresh")
    soon(lambda: "rag_freshness_seconds_count{" in service.call("GET", "/metrics", token).text)


def test_what_a_removed_source_brought_goes_with_it(service, tmp_path):
    (tmp_path / "newt.txt").write_text("The newt signs the harbour permits.")
    rayrag(service, "sources", "add", "pond", str(tmp_path), "--tenant", "fresh", "--acl", "everyone")
    soon(lambda: bool(found(service, "ada", "newt")))
    rayrag(service, "sources", "remove", "pond")
    assert found(service, "ada", "newt") == []
    assert [each["name"] for each in sources(service)["sources"]] != ["pond"]


def test_a_source_that_cannot_be_reached_says_so_and_deletes_nothing(service, tmp_path):
    place = tmp_path / "cellar"
    place.mkdir()
    (place / "mole.txt").write_text("The mole counts the casks in the cellar.")
    rayrag(service, "sources", "add", "cellar", str(place), "--tenant", "fresh", "--acl", "everyone")
    soon(lambda: bool(found(service, "ada", "mole")))
    place.rename(tmp_path / "away")
    command = [sys.executable, "-m", "cluster", "sources", "sync", "cellar", "--data-dir"]
    done = subprocess.run([*command, service.state.data_dir], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "cellar" in done.stderr and "Traceback" not in done.stderr
    assert found(service, "ada", "mole")
    (tmp_path / "away").rename(place)
    rayrag(service, "sources", "remove", "cellar")
