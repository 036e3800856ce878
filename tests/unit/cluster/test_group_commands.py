from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cluster.cli import main

CONFIG = str(Path(__file__).resolve().parents[3] / "serve_config.yaml")


class Command:
    """`rayrag groups` on a data directory of its own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._home, self._monkeypatch, self._capsys = home, monkeypatch, capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        at = ["--tenant", "acme", "--config", CONFIG, "--data-dir", str(self._home)]
        self._monkeypatch.setattr(sys, "argv", ["rayrag", "groups", *words, *at])
        try:
            found = main()
        except SystemExit as end:
            found = int(end.code or 0)
        told = self._capsys.readouterr()
        assert found == code, told
        return told.out + told.err

    def explained(self, sub: str, groups: str = "") -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(self("explain", "--sub", sub, "--groups", groups, "--json"))
        return found


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path / "data", monkeypatch, capsys)


def test_groups_are_set_listed_explained_and_removed(groups: Command) -> None:
    assert "finance has 2 members" in groups("set", "finance", "user:ada", "group:controllers")
    groups("set", "controllers", "user:bob")
    assert groups.explained("bob", "staff") == {
        "controllers": ["user:bob", "group:controllers"],
        "finance": ["user:bob", "group:controllers", "group:finance"],
        "staff": ["group:staff"],
    }
    assert "user:bob > group:controllers > group:finance" in groups("explain", "--sub", "bob")
    assert [each["member"] for each in json.loads(groups("list", "--group", "finance", "--json"))] == [
        "group:controllers",
        "user:ada",
    ]
    assert "1 memberships are gone" in groups("remove", "--member", "group:controllers")
    assert groups.explained("bob") == {"controllers": ["user:bob", "group:controllers"]}


def test_a_failed_import_changes_nothing(groups: Command, tmp_path: Path) -> None:
    file = tmp_path / "members.csv"
    file.write_text("group,member\nfinance,user:ada\n")
    assert "1 memberships" in groups("import", str(file), "--origin", "hr")
    file.write_text("group,member\nfinance,user:bob\nfinance,nobody\n")
    assert "line 3" in groups("import", str(file), "--origin", "hr", code=1)
    assert [each["member"] for each in json.loads(groups("list", "--json"))] == ["user:ada"]
    file.write_text("group,member\n")
    assert "names no member" in groups("import", str(file), "--origin", "hr", code=1)
    file.write_text("group,member\nfinance,user:bob\n")
    groups("import", str(file), "--origin", "hr")
    assert [each["member"] for each in json.loads(groups("list", "--json"))] == ["user:bob"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["remove"], "Say which"),
        (["set", "finance", "ada"], "no member of a group"),
        (["set", "finance", "role:admin"], "no member of a group"),
        (["remove", "--member", "ada"], "no member of a group"),
        (["import", "absent.csv"], "No such file"),
    ],
)
def test_what_is_wrong_is_one_sentence(groups: Command, words: list[str], sentence: str) -> None:
    told = groups(*words, code=1)
    assert sentence in told and "Traceback" not in told and told.count("\n") == 1
