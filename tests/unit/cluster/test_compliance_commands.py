"""`rayrag compliance`: what an officer reads and does, without a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.cli import app
from index.document import DocumentRef, Extracted
from index.settings import load
from ingest.connector import Entry
from ingest.screening import Screening
from policies.access import AccessRule

ROOT = Path(__file__).resolve().parents[3]
CARD = "4111 1111 1111 1111"


class Desk:
    """A configuration, its ledger, and the command."""

    def __init__(self, home: Path) -> None:
        document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
        document["applications"][0]["args"]["compliance"] = {"tenants": {"acme": {"regimes": ["gdpr"]}}}
        self.config, self.home = home / "config.yaml", home / "data"
        self.config.write_text(yaml.safe_dump(document))

    def __call__(self, *arguments: str, code: int = 0) -> str:
        options = ["--config", str(self.config), "--data-dir", str(self.home)]
        done = CliRunner().invoke(app, ["compliance", *arguments, *options])
        assert (done.exit_code != 0) == (code != 0), (done.output, done.exception)
        return done.output + str(done.exception or "")

    def screened(self, text: str) -> str:
        from index.ledger import Ledger

        args = load(self.config, str(self.home))
        ledger = Ledger(args.store.ledger)
        ref = DocumentRef("acme", "s", "note", "mem:note", None, "f", AccessRule.of(["everyone"]))
        Screening.of(args, ledger)(Entry(ref), Extracted(text))
        ledger.flip(ref, ledger.begin_version(ref, "h", 1, "run"))
        ledger.close()
        return ref.document_id


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_document_is_explained_with_rules_articles_and_reasons_and_no_value(desk):
    document = desk.screened(f"The card {CARD} and ada@example.org.")
    said: dict[str, Any] = json.loads(desk("explain", "--document", document[:12], "--json"))
    assert said["categories"]["PCI"] == ["1 CREDIT_CARD"]
    assert said["done"] == [
        {
            "regime": "gdpr",
            "rule": "payment",
            "entity": "CREDIT_CARD",
            "action": "mask",
            "article": "GDPR Art. 5(1)(c), Art. 32(1)(a)",
            "count": 1,
        }
    ]
    assert said["under_current_policy"] is True
    assert "customer_support" in str(said["in_answers"])
    assert CARD not in str(said) and "ada@" not in str(said)
    assert "GDPR Art. 5(1)(c)" in desk("explain", "--document", document)


def test_a_report_counts_what_each_rule_did(desk):
    document = desk.screened(f"The cards {CARD} and {CARD}.")
    [line] = json.loads(desk("report", "--regime", "gdpr", "--documents", "--json"))
    assert (line["rule"], line["documents"], line["values"], line["document_ids"]) == ("payment", 1, 2, [document])
    assert "payment" in desk("report")
    assert "no regime of that name" in desk("report", "--regime", "gpdr", code=1)


def test_consent_is_recorded_without_saying_whose(desk):
    desk("consent", "grant", "--tenant", "acme", "--purpose", "marketing", "--subject", "ada@example.org")
    desk("consent", "withdraw", "--tenant", "acme", "--purpose", "marketing", "--source", "s")
    listed = json.loads(desk("consent", "list", "--json"))
    assert [(each["granted"], each["scope"][:8]) for each in listed] == [(False, "source:s"), (True, "subject:")]
    assert "ada" not in str(listed)
    assert "no such purpose" in desk("consent", "grant", "--tenant", "acme", "--purpose", "fun", "--everything", code=1)
    assert "Say whose" in desk("consent", "grant", "--tenant", "acme", "--purpose", "marketing", code=1)


def test_holds_are_added_listed_and_released_and_stand_on_the_record(desk):
    document = desk.screened("The heron.")
    made = json.loads(desk("hold", "add", "--tenant", "acme", "--document", document, "--reason", "case 7", "--json"))
    assert json.loads(desk("explain", "--document", document, "--json"))["held"] == "case 7"
    assert "case 7" in desk("hold", "list")
    assert "no document of rival" in desk(
        "hold", "add", "--tenant", "rival", "--document", document, "--reason", "x", code=1
    )
    desk("hold", "release", made[0]["hold_id"])
    assert json.loads(desk("hold", "list", "--json")) == []
    assert len(json.loads(desk("hold", "list", "--all", "--json"))) == 1


def test_without_now_what_is_due_is_only_listed(desk):
    desk.screened("The heron.")
    assert json.loads(desk("expire", "--json")) == {"due": [], "held": {}}
