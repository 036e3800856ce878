from __future__ import annotations

from pathlib import Path

import pytest

from ingest.group_file import read_group_file
from policies.errors import ConfigurationError
from policies.groups import Membership

WANTED = {
    Membership("user:ada", "finance"),
    Membership("group:controllers", "finance"),
    Membership("user:bob", "controllers"),
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "group,member\nfinance,user:ada\nfinance, group:controllers\n\ncontrollers,user:bob\n"),
        ("a.csv", "\ufeffGroup,Member\r\nfinance,user:ada\r\nfinance,group:controllers\r\ncontrollers,user:bob\r\n"),
        ("a.YAML", "groups:\n  finance: [user:ada, group:controllers]\n  controllers: [user:bob]\n"),
        ("a.yml", "groups: {finance: ['user:ada', 'group:controllers'], controllers: ['user:bob']}"),
        ("a.json", '{"groups": {"finance": ["user:ada", "group:controllers"], "controllers": ["user:bob"]}}'),
    ],
)
def test_every_form_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert set(read_group_file(tmp_path / name)) == WANTED


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "", "line 1: the columns must be"),
        ("a.csv", "finance,user:ada\n", "line 1: the columns must be"),
        ("a.csv", "group,member\n", "names no member"),
        ("a.csv", "group,member\nfinance,user:ada\nfinance\n", "line 3: 1 columns"),
        ("a.csv", "group,member\nfinance,user:ada,user:bob\n", "line 2: 3 columns"),
        ("a.csv", "group,member\nfinance,ada\n", "line 2: 'ada' is no member"),
        ("a.csv", 'group,member\nfinance,"user:ada\n', "no valid CSV"),
        ("a.yaml", "groups: {finance: user:ada}", "groups.finance: must be a list"),
        ("a.yaml", "groups: {finance: [1]}", "groups.finance: must be a list"),
        ("a.yaml", "groups: {on: [user:ada]}", "put it in quotes"),
        ("a.yaml", "groups: {finance: [user:ada], finance: [user:bob]}", "twice"),
        ("a.yaml", "groups: {finance: [role:admin]}", "groups.finance: 'role:admin' is no member"),
        ("a.yaml", "groups: {}", "names no member"),
        ("a.yaml", "finance: [user:ada]", "one key, groups"),
        ("a.yaml", "groups: [", "no valid YAML"),
        ("a.yaml", "!!python/object:os.system {}", "no valid YAML"),
        ("a.json", '{"groups": {"a": ["user:x"], "a": ["user:y"]}}', "twice"),
        ("a.json", '{"groups": {"a": ["user:x"]}, "more": 1}', "one key, groups"),
        ("a.json", "[", "no valid JSON"),
        ("a.txt", "x", "its name must end in"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_group_file(tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name)) and reason in str(raised.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"group,member\n\xff")
    for name, reason in (("a.csv", "no UTF-8"), ("b.csv", "No such file")):
        with pytest.raises(ConfigurationError, match=reason):
            read_group_file(tmp_path / name)
