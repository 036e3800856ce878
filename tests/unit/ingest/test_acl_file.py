from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.acl_file import AclFile, parse_acl, rule_of
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError

HR = AccessRule.of(["group:hr"])


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("hr/**", "hr/a.pdf", True),
        ("hr/**", "hr/deep/er/a.pdf", True),
        ("hr/**", "hr", False),
        ("hr/**", "hrx/a.pdf", False),
        ("hr/", "hr/deep/a.pdf", True),
        ("**/*.pdf", "a.pdf", True),
        ("**/*.pdf", "x/y/a.pdf", True),
        ("**/*.pdf", "x/y/a.pdfx", False),
        ("*.pdf", "a.pdf", True),
        ("*.pdf", "x/a.pdf", False),
        ("a/**/b.md", "a/b.md", True),
        ("a/**/b.md", "a/x/y/b.md", True),
        ("**", "x/y", True),
        ("q?.md", "q1.md", True),
        ("q?.md", "q/.md", False),
        ("a.b", "axb", False),
        ("[x].md", "[x].md", True),
        ("[x].md", "x.md", False),
        ("CAPS/*", "caps/a", False),
        ("caf\u00e9/*", "cafe\u0301/a", True),
        ("with space/*", "with space/a b.md", True),
        ("*a*b*", "xxaxxbxx", True),
        ("*a*b", "ab-ab", True),
        ("*ab*ab", "aab", False),
        ("a*a", "a", False),
        ("a**", "a", None),
        ("**/**/x", "x", True),
        ("**/**/x", "a/b/c/x", True),
        ("hr/**/**", "hr/a", True),
        ("hr/**/**", "hr", False),
        ("**/a/**/b", "a/a/b/b", True),
        ("**/a/*/b/**", "x/a/a/y/b/z", True),
        ("**/a/*/b/**", "x/a/y/z/b/c", False),
        ("**/a?/b*/**/c", "a1/x/a2/bb/c", True),
        ("*\n*", "a\nb", True),
    ],
)
def test_glob_matches_as_documented(glob: str, path: str, matches: bool | None) -> None:
    """None: it is refused."""
    entry = json.dumps([{"path": glob, "allow": ["group:hr"]}]).encode()
    if matches is None:
        with pytest.raises(ConfigurationError):
            AclFile.parse(entry)
    else:
        assert (AclFile.parse(entry).rule_for(path) == HR) is matches


def slow_match(names: list[str], path: list[str]) -> bool:
    """The documented meaning, by trying everything."""
    if not names:
        return not path
    if names == ["**"]:
        return bool(path)
    if names[0] == "**":
        return any(slow_match(names[1:], path[start:]) for start in range(len(path) + 1))
    return bool(path) and slow_name(names[0], path[0]) and slow_match(names[1:], path[1:])


def slow_name(glob: str, name: str) -> bool:
    if not glob:
        return not name
    if glob[0] == "*":
        return any(slow_name(glob[1:], name[start:]) for start in range(len(name) + 1))
    return bool(name) and glob[0] in ("?", name[0]) and slow_name(glob[1:], name[1:])


NAMES = st.text("ab", min_size=1, max_size=5)
GLOBS = st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=6).filter(lambda name: "**" not in name))


@settings(max_examples=500, deadline=None)
@given(st.lists(GLOBS, min_size=1, max_size=5), st.lists(NAMES, min_size=1, max_size=5))
def test_first_fit_matches_what_trying_everything_matches(globs: list[str], path: list[str]) -> None:
    acl = AclFile.parse(json.dumps([{"path": "/".join(globs), "allow": ["group:hr"]}]).encode())
    meant = [name for index, name in enumerate(globs) if globs[index - 1 : index] != ["**"] or name != "**"]
    assert (acl.rule_for("/".join(path)) == HR) is slow_match(meant, path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("*a" * 100 + "*b", "a" * 4000),
        ("**/" * 100 + "x", "a/" * 2000 + "b"),
        ("**/a/" * 100 + "x", "a/" * 2000 + "b"),
        ("**/*a*a*a*/" * 30 + "x", "aaaaaaaaa/" * 400 + "b"),
        ("?*" * 100 + "b", "a" * 4000),
    ],
)
def test_no_glob_takes_long_on_any_path(glob: str, path: str) -> None:
    acl = AclFile.parse(json.dumps([{"path": glob, "allow": ["group:hr"]}]).encode())
    assert acl.rule_for(path) is None


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"password: hunter2 {{{ : ]\n", "at line 1, column "),
        (b"- path: a\n  allow: *hunter2\n", "at line 2, column 10"),
        (b"- !hunter2 x\n", "at line 1, column 3"),
        (b"- hunter2 \xff\n", "at 10"),
        (b"- hunter2 \x01\n", "at 10"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_error_of_broken_yaml_names_the_place_and_quotes_nothing(content: bytes, place: str) -> None:
    with pytest.raises(ConfigurationError, match=place) as caught:
        AclFile.parse(content)
    assert "hunter2" not in caught.value.detail


def test_last_matching_entry_gives_the_whole_rule() -> None:
    acl = AclFile.parse(
        b"- {path: '**', allow: [everyone]}\n"
        b"- {path: 'hr/**', allow: ['group:hr'], deny: ['user:eve']}\n"
        b"- {path: 'hr/open.md', allow: [everyone]}\n"
    )
    assert acl.rule_for("a.md") == AccessRule.of(["everyone"])
    assert acl.rule_for("hr/x.md") == AccessRule.of(["group:hr"], ["user:eve"])
    assert acl.rule_for("hr/open.md") == AccessRule.of(["everyone"])


def test_path_that_nothing_matches_has_no_rule() -> None:
    assert AclFile.parse(b"- {path: 'hr/**', allow: []}").rule_for("x.md") is None
    assert AclFile.parse(b"[]").rule_for("x.md") is None


def test_empty_allow_means_nobody() -> None:
    assert AclFile.parse(b"- {path: '**', allow: []}").rule_for("x.md") == NOBODY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a list"),
        (b"path: x", "must be a list"),
        (b"- [", "no valid YAML"),
        (b"\xff\xfe\x00", "no valid YAML"),
        (
            b"- {path: a, allow: [everyone]}\n- {path: b, alow: [everyone]}",
            "entry 2: unknown key 'alow'; allowed here: path",
        ),
        (b"- {path: a}", "entry 1: give allow or deny"),
        (b"- {allow: [everyone]}", "entry 1: path must be a glob"),
        (b"- {path: 3, allow: [everyone]}", "entry 1: path must be a glob"),
        (b"- {path: /etc/x, allow: [everyone]}", "must be relative"),
        (b"- {path: ../x, allow: [everyone]}", "must be relative"),
        (b"- {path: 'a**b', allow: [everyone]}", "must stand alone"),
        (b"- {path: a, allow: everyone}", "allow must be a list"),
        (b"- {path: a, allow: [1]}", "allow must be a list"),
        (b"- {path: a, allow: null}", "allow must be a list"),
        (b"- {path: a, deny: ['finance']}", "entry 1: acl: 'finance' is no principal"),
        (b"- just text", "entry 1: must be a mapping"),
    ],
)
def test_wrong_file_names_the_entry_and_what_is_allowed(content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AclFile.parse(content)
    assert message in caught.value.detail


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("group:a,user:b", AccessRule.of(["group:a", "user:b"])),
        (" everyone ", AccessRule.of(["everyone"])),
        ("", NOBODY),
        ('{"allow": ["group:a"], "deny": ["user:b"]}', AccessRule.of(["group:a"], ["user:b"])),
        ('{"deny": ["user:b"]}', AccessRule.of([], ["user:b"])),
        ('["group:with, comma"]', AccessRule.of(["group:with, comma"])),
    ],
)
def test_command_line_form(text: str, rule: AccessRule) -> None:
    assert parse_acl(text) == rule


@pytest.mark.parametrize("text", ["finance", "group:", "{", '{"alow": []}', '{"allow": "everyone"}', "[1]", "[[]]"])
def test_wrong_command_line_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_acl(text)


@pytest.mark.parametrize("value", [None, "everyone", 3, {"x": []}])
def test_rule_of_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError):
        rule_of(value)
