"""`rayrag roles` and `rayrag access`: they agree with what decides, and are on the record."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli import main
from deployments.identity import audit_log
from index.document import DocumentRef
from index.ledger import Ledger
from index.settings import AppArgs, load
from policies.access import AccessRule
from policies.groups import Membership
from policies.labels import Label
from policies.principals import Principal

ROOT = Path(__file__).resolve().parents[3]
ROLES = {"keeper": {"permissions": ["documents:*@source/wik*"], "clearance": "restricted", "tenants": ["acme"]}}
WHO = ["--sub", "ada", "--tenant", "acme"]
Say = Callable[..., str]


@pytest.fixture
def args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppArgs:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYRAG_DATA_DIR", raising=False)
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["applications"][0]["args"]["identity"]["roles"] = ROLES
    Path("serve_config.yaml").write_text(yaml.safe_dump(config))
    return load(Path("serve_config.yaml"), str(tmp_path / ".rayrag"))


@pytest.fixture
def ledger(args: AppArgs) -> Any:
    ledger = Ledger(args.store.ledger)
    yield ledger
    ledger.close()


@pytest.fixture
def say(args: AppArgs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["rayrag", *words])
        try:
            ended = main()
        except SystemExit as end:
            ended = int(end.code or 0)
        told = capsys.readouterr()
        assert ended == code, told
        return told.out or told.err

    return run


def put(ledger: Ledger, name: str, rule: AccessRule, tenant: str = "acme", owner: str | None = None) -> str:
    ref = DocumentRef(tenant, "wiki", name, name, None, "1", rule)
    assert ledger.flip(ref, ledger.begin_version(ref, "hash", 1, "run", owner))
    return ref.document_id


def test_an_explanation_of_access_is_the_gates_answer_and_the_checks_agree(ledger: Ledger, say: Say) -> None:
    ledger.groups.replace("acme", "command", [Membership.of("group:a", "b")])
    rules = itertools.product([["everyone"], ["group:b"], []], [[], ["group:b"]], [Label.PUBLIC, Label.RESTRICTED])
    ids = [put(ledger, str(n), AccessRule.of(*rule)) for n, rule in enumerate(rules)]
    deleted, foreign = put(ledger, "deleted", AccessRule.of(["everyone"])), put(ledger, "f", AccessRule.of(), "rival")
    ledger.delete([deleted])
    for groups, roles in [("", ""), ("a", ""), ("a", "keeper")]:
        who = Principal(
            "ada",
            "acme",
            frozenset(roles.split()),
            frozenset({"a", "b"} if groups else ()),
            Label.RESTRICTED if roles else Label.INTERNAL,
        )
        for document in [*ids, deleted, foreign]:
            readable = ledger.get(who, document) is not None
            words = ["access", "explain", "--document", document, *WHO, "--groups", groups, "--roles", roles, "--json"]
            said = json.loads(say(*words, code=0 if readable else 1))
            assert said["readable"] == readable == all(check["holds"] for check in said["checks"]), said


def test_a_nested_group_an_uploader_and_a_removed_source_are_named(ledger: Ledger, say: Say) -> None:
    ledger.groups.replace("acme", "command", [Membership.of("group:a", "b"), Membership.of("group:b", "c")])
    document = put(ledger, "note", AccessRule.of(["group:c"]), owner="bob")
    said = say("access", "explain", "--document", document, *WHO, "--groups", "a")

    assert "allowed by group:c (by way of group:a > group:b)" in said and "uploaded by bob" in said
    ledger.delete([document])
    assert "NO  live   it was deleted at" in say("access", "explain", "--document", document, *WHO, code=1)
    gone = put(ledger, "gone", AccessRule.of(["everyone"]))
    ledger.keep_source("acme", "wiki", "wiki:", "{}")
    ledger.forget_source(ledger.kept_source("wiki").source_id, gone=True)
    ledger.delete([gone])
    assert "its source was removed" in say("access", "explain", "--document", gone, *WHO, code=1)


def test_a_token_says_who_it_is_as_a_request_would(ledger: Ledger, say: Say, tmp_path: Path) -> None:
    ledger.groups.replace("acme", "command", [Membership.of("group:a", "b")])
    document = put(ledger, "note", AccessRule.of(["group:b"], label=Label.RESTRICTED))
    token = tmp_path / "token"
    token.write_text(say("token", *WHO, "--roles", "keeper", "--groups", "a"))
    said = json.loads(say("access", "explain", "--document", document, "--token", str(token), "--json"))

    assert (said["readable"], said["subject"], said["clearance"]) == (True, "ada", "restricted")
    assert "group:b (by way of group:a)" in [check["why"] for check in said["checks"]][3]
    allowed = say(
        "roles", "explain", "--token", str(token), "--permission", "documents:write", "--resource", "source/wiki"
    )
    assert allowed.startswith("allowed: documents:write on source/wiki")
    token.write_text("no.to.ken")
    assert "token" in say("access", "explain", "--document", document, "--token", str(token), code=1)


def test_looking_up_rights_is_on_the_record_and_fails_closed_without_one(
    ledger: Ledger, say: Say, args: AppArgs, tmp_path: Path
) -> None:
    document = put(ledger, "note", AccessRule.of(["everyone"]))
    say("access", "explain", "--document", document, *WHO)
    say("access", "who", "--document", document)
    say("roles", "explain", *WHO, "--permission", "rag:query")
    log = audit_log(args)
    log_file = tmp_path / "export.jsonl"
    log.close()
    say("audit", "export", str(log_file))
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    records = [line for line in lines if line.get("action", "audit.export") != "audit.export"]

    assert [line["action"] for line in records] == [
        *["rights.explain"] * 2, *["rights.who"] * 2, *["rights.explain"] * 2
    ]  # fmt: skip
    assert all(line["actor"].startswith("operator:") and line["tenant"] == "acme" for line in records)


def test_who_shows_the_rule_and_the_label(ledger: Ledger, say: Say) -> None:
    rule = AccessRule.of(["group:b", "user:ada"], ["role:x"], Label.CONFIDENTIAL)
    said = json.loads(say("access", "who", "--document", put(ledger, "note", rule), "--json"))

    assert (said["allow"], said["deny"], said["label"]) == (["group:b", "user:ada"], ["role:x"], "confidential")
    assert "nobody may read it" in say("access", "who", "--document", put(ledger, "hidden", AccessRule()))


def test_all_roles_are_listed_with_clearance_and_tenants(say: Say) -> None:
    rows = {row["role"]: row for row in json.loads(say("roles", "list", "--json"))}

    assert rows["admin"] == {"role": "admin", "permissions": ["*"], "clearance": "internal", "tenants": None}
    assert (rows["keeper"]["clearance"], rows["keeper"]["tenants"]) == ("restricted", ["acme"])
    assert "keeper\tdocuments:*@source/wik*\trestricted\tacme" in say("roles", "list")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["access", "explain", "--document", "0" * 32, *WHO], "no document"),
        (["access", "who", "--document", "\x1b[2J"], "no document"),
        (["access", "explain", "--document", "0" * 32], "Say who: --sub and --tenant, or --token"),
        (["roles", "explain", "--permission", "rag:query", "--sub", "ada"], "Say who"),
        (["roles", "explain", "--permission", "rag:query", *WHO, "--token", "x"], "leave out --sub"),
        (["roles", "explain", "--permission", "rag:query", "--token", "absent"], "absent: cannot be read"),
        (["roles", "explain", "--permission", "rag:query", "--sub", " ", "--tenant", "acme"], "a name"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(ledger: Ledger, say: Say, words: list[str], sentence: str) -> None:
    said = say(*words, code=1)

    assert sentence in said and "\x1b" not in said and len(said.strip().splitlines()) == 1
