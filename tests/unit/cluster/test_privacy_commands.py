"""`rayrag privacy` on a data directory of its own, with a real Milvus Lite."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from cluster.cli import main
from index.settings import load
from policies.audit import AuditLog

ROOT = Path(__file__).resolve().parents[3]
JANE = {"identifiers": ["jane.doe@acme.example"], "names": ["Jane Doe"]}


class Command:
    """Runs `rayrag privacy`."""

    def __init__(
        self, home: Path, uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.home, self._monkeypatch, self._capsys = home, monkeypatch, capsys
        document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
        document["applications"][0]["args"]["store"]["uri"] = uri
        self.config = home / "serve_config.yaml"
        self.config.write_text(yaml.safe_dump(document))
        (home / "jane.json").write_text(json.dumps(JANE))

    def __call__(self, *words: str, code: int = 0) -> str:
        at = ["--config", str(self.config), "--data-dir", str(self.home / "data")]
        self._monkeypatch.setattr(sys, "argv", ["rayrag", "privacy", *words, *at])
        try:
            found = main()
        except SystemExit as end:
            found = int(end.code or 0)
        told = self._capsys.readouterr()
        assert found == code, told
        return told.out + (told.err if code else "")

    def file(self, kind: str) -> str:
        words = ("request", kind, "--tenant", "acme", "--subject", str(self.home / "jane.json"), "--json")
        found = json.loads(self(*words))
        assert found["status"] == "done", found
        return str(found["privacy_request_id"])


@pytest.fixture
def privacy(
    tmp_path: Path, milvus_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return Command(tmp_path, milvus_uri, monkeypatch, capsys)


def test_a_restriction_is_filed_listed_shown_and_lifted(privacy: Command) -> None:
    request_id = privacy.file("restriction")
    assert request_id in privacy("list") and "restriction" in privacy("show", request_id, "--tenant", "acme")
    assert privacy("show", request_id, "--tenant", "globex", code=1)
    privacy("lift", request_id, "--tenant", "acme")
    assert "lifted" in privacy("show", request_id, "--tenant", "acme")
    args = load(privacy.config, str(privacy.home / "data"))
    audit = AuditLog(args.store.audit)
    records = audit.records(0, 1_000, "acme")
    audit.close()
    assert {"privacy.request", "privacy.restriction", "privacy.lift"} <= {record.action for record in records}
    assert "ane" not in repr([record.detail for record in records])


def test_an_unclear_subject_is_refused_with_what_is_missing(privacy: Command) -> None:
    assert "too short" in privacy("request", "access", "--tenant", "acme", "--identifier", "x1", code=1)
    assert "missing" in privacy("request", "erasure", "--tenant", "acme", "--name", "Jane Doe", code=1)
    (privacy.home / "jane.json").write_text('{"nickname": "J"}')
    told = privacy("request", "access", "--tenant", "acme", "--subject", str(privacy.home / "jane.json"), code=1)
    assert "identifiers" in told


def test_an_export_is_written_for_its_owner_alone(privacy: Command) -> None:
    request_id = privacy.file("access")
    file = privacy.home / "answer.zip"
    privacy("export", request_id, str(file), "--tenant", "globex", code=1)
    privacy("export", request_id, str(file), "--tenant", "acme")
    assert file.stat().st_mode & 0o077 == 0 and file.read_bytes().startswith(b"PK")


def test_a_purge_ends_with_a_receipt_that_can_be_verified(privacy: Command) -> None:
    request_id = privacy.file("erasure")
    (done,) = json.loads(privacy("purge", "--now", "--json"))
    assert done["privacy_request_id"] == request_id and done["physical"] == "done"
    receipt = privacy.home / "receipt.json"
    receipt.write_text(json.dumps(done["receipt"]))
    assert request_id in privacy("verify-receipt", str(receipt))
    receipt.write_text(json.dumps({**done["receipt"], "tenant": "globex"}))
    assert "not as it was signed" in privacy("verify-receipt", str(receipt), code=1)
    assert "no request waited" in privacy("purge", "--now")
