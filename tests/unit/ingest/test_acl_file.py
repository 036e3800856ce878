from __future__ import annotations

import pytest

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
    ],
)
def test_glob_matches_as_documented(glob: str, path: str, matches: bool) -> None:
    acl = AclFile.parse(f"- path: '{glob}'\n  allow: ['group:hr']\n".encode())
    assert (acl.rule_for(path) == HR) is matches


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
