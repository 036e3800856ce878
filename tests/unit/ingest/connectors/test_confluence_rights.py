"""Rights of Confluence against a small oracle, and storage format to HTML."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.connectors.confluence_html import page_html
from ingest.connectors.confluence_items import path_within, web_link
from ingest.connectors.confluence_rights import (
    ANYONE,
    NO_READERS,
    Readers,
    access_rule,
    cloud_space_readers,
    meet,
    read_restriction,
    server_space_readers,
)
from ingest.parsing import parse
from policies.access import MAX_NAMES, NOBODY
from policies.principals import Principal

PEOPLE = ["ada", "bob", "eve", "kim"]
GROUPS = ["hr", "it", "staff"]


def some(names: list[str], bits: int) -> frozenset[str]:
    return frozenset(name for n, name in enumerate(names) if bits >> n & 1)


def level_of(bits: int) -> Readers:
    """Bits as a set of readers: cheap to draw, and to shrink. One of eight is open to everyone."""
    return Readers(some(PEOPLE, bits), some(GROUPS, bits >> 4), everyone=bits >> 7 == 7)


def membership_of(bits: int) -> dict[str, frozenset[str]]:
    return {group: some(PEOPLE, bits >> 4 * n) for n, group in enumerate(GROUPS)}


levels = st.integers(0, 2**10 - 1).map(level_of)
memberships = st.integers(0, 2**12 - 1).map(membership_of)


def principal(person: str, members: dict[str, frozenset[str]]) -> Principal:
    return Principal(person, "t", groups=frozenset(group for group in GROUPS if person in members[group]))


def is_in(person: str, level: Readers, members: dict[str, frozenset[str]]) -> bool:
    return level.everyone or person in level.users or any(person in members[group] for group in level.groups)


def meet_all(found: list[Readers], told: Any) -> Readers:
    result = ANYONE
    for level in found:
        result = meet(result, level, told)
    return result


@settings(max_examples=200, deadline=None)
@given(st.lists(levels, max_size=5), memberships)
def test_whoever_is_in_all_levels_reads_and_nobody_else(
    found: list[Readers], members: dict[str, frozenset[str]]
) -> None:
    rule = access_rule(meet_all(found, members.__getitem__), str, str)
    for person in PEOPLE:
        expected = all(is_in(person, level, members) for level in found)
        assert rule.permits(principal(person, members)) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(levels, max_size=5), memberships, st.integers(0, 7).map(lambda bits: some(GROUPS, bits)))
def test_members_that_are_not_told_permit_fewer_people_and_never_more(
    found: list[Readers], members: dict[str, frozenset[str]], hidden: frozenset[str]
) -> None:
    def told(group: str) -> frozenset[str]:
        return frozenset() if group in hidden else members[group]

    rule = access_rule(meet_all(found, told), str, str)
    for person in PEOPLE:
        if rule.permits(principal(person, members)):
            assert all(is_in(person, level, members) for level in found)


@settings(max_examples=200, deadline=None)
@given(st.lists(levels, max_size=4), memberships, st.integers(0, 127).map(lambda bits: some(PEOPLE + GROUPS, bits)))
def test_names_that_are_not_told_permit_fewer_people_and_never_more(
    found: list[Readers], members: dict[str, frozenset[str]], nameless: frozenset[str]
) -> None:
    def name(key: str) -> str | None:
        return None if key in nameless else key

    rule = access_rule(meet_all(found, members.__getitem__), name, name)
    for person in PEOPLE:
        if rule.permits(principal(person, members)):
            assert all(is_in(person, level, members) for level in found)


@settings(deadline=None)
@given(levels, levels, memberships)
def test_the_order_of_levels_does_not_matter(
    first: Readers, second: Readers, members: dict[str, frozenset[str]]
) -> None:
    assert meet(first, second, members.__getitem__) == meet(second, first, members.__getitem__)


def test_groups_that_all_levels_name_are_not_expanded() -> None:
    def asked(group: str) -> frozenset[str]:
        raise AssertionError(f"asked for {group}")

    space = Readers(frozenset({"ada"}), frozenset({"staff", "hr"}))
    assert meet(space, Readers(groups=frozenset({"hr"})), asked) == Readers(groups=frozenset({"hr"}))
    assert meet(space, ANYONE, asked) == space
    assert meet(Readers(frozenset({"ada"})), Readers(frozenset({"bob"})), asked) == NO_READERS


def test_more_names_than_a_rule_holds_leave_the_groups_alone() -> None:
    many = frozenset(f"u{n}" for n in range(MAX_NAMES))
    assert access_rule(Readers(many), str, str).allow == {f"user:{user}" for user in many}
    assert access_rule(Readers(many, frozenset({"hr"})), str, str).allow == {"group:hr"}
    assert access_rule(Readers(groups=frozenset([*many, "hr"])), str, str) == NOBODY


@pytest.mark.parametrize("name", ["a\x00b", " ada", "", "ad\u202ea", "x" * 300, "a\nb"])
def test_names_that_no_token_can_carry_are_left_out(name: str) -> None:
    readers = Readers(frozenset({"1", "2"}), frozenset({"3"}))
    rule = access_rule(readers, {"1": name, "2": "bob"}.get, lambda _: name)
    assert rule.allow == {"user:bob"}


# ---- what Confluence says


def user(value: Any) -> str | None:
    return value.get("key") if isinstance(value, dict) else None


def restriction(users: Any, groups: Any) -> dict[str, Any]:
    return {"operation": "read", "restrictions": {"user": users, "group": groups}}


def rows(*found: Any, **more: Any) -> dict[str, Any]:
    return {"results": list(found), "start": 0, "limit": 100, "size": len(found)} | more


@pytest.mark.parametrize(
    ("value", "expected", "why"),
    [
        (restriction(rows(), rows()), ANYONE, "it names nobody: no restriction"),
        (restriction(rows({"key": "a"}), rows()), Readers(frozenset("a")), "one user"),
        (restriction(rows(), rows({"key": "g"})), Readers(groups=frozenset("g")), "one group"),
        (restriction(rows({}), rows()), NO_READERS, "somebody without a key restricts, and is nobody"),
        (restriction(rows("x", None), rows()), NO_READERS, "malformed subjects restrict"),
        (None, None, "not there"),
        ([], None, "no object"),
        ({"restrictions": {}}, None, "not expanded"),
        (restriction(rows(), None), None, "groups are not told"),
        (restriction(rows(), {"results": None}), None, "no list"),
        (restriction(rows(size=3), rows()), None, "it says that there are more"),
        (restriction(rows({"key": "a"}, limit=1), rows()), None, "as many as fit: there may be more"),
        (restriction(rows(_links={"next": "/x"}), rows()), None, "there is a next page"),
        (restriction(rows(_links="x"), rows()), None, "malformed links"),
    ],
)
def test_a_restriction_is_read_whole_or_not_at_all(value: Any, expected: Readers | None, why: str) -> None:
    assert read_restriction(value, user, user) == expected, why


def test_only_permission_to_read_a_space_counts() -> None:
    read, write = (
        {"targetType": "space", "operationKey": "read"},
        {"targetType": "page", "operationKey": "create"},
    )
    found, anonymous = server_space_readers(
        [
            {"operation": read, "subject": {"type": "user", "key": "a"}},
            {"operation": read, "subject": {"type": "group", "key": "g"}},
            {"operation": write, "subject": {"type": "group", "key": "w"}},
            {"operation": write, "subject": {"type": "anonymous"}},
            {"operation": read, "subject": {"type": "robot", "key": "r"}},
            {"operation": read, "subject": None},
            {"operation": "read"},
            "x",
        ],
        user,
        user,
    )
    assert (found, anonymous) == (Readers(frozenset("a"), frozenset("g")), False)
    assert server_space_readers([{"operation": read, "subject": {"type": "anonymous"}}], user, user)[1]


def test_a_principal_of_an_unknown_kind_is_nobody() -> None:
    read = {"key": "read", "targetType": "space"}
    found = cloud_space_readers(
        [
            {"principal": {"type": "user", "id": "a"}, "operation": read},
            {"principal": {"type": "group", "id": "g"}, "operation": read},
            {"principal": {"type": "role", "id": "everybody"}, "operation": read},
            {"principal": {"type": "group", "id": "w"}, "operation": {"key": "delete", "targetType": "page"}},
            {"principal": {"type": "group"}, "operation": read},
            None,
        ],
        lambda value: value.get("accountId"),
        lambda value: value.get("id"),
    )
    assert found == Readers(frozenset("a"), frozenset("g"))


# ---- links


@pytest.mark.parametrize(
    "path", ["//evil.test/x", "javascript:alert(1)", "https://evil.test/", "/a\\b", "/a/../../b", 7]
)
def test_a_path_that_leads_elsewhere_is_not_followed(path: Any) -> None:
    assert path_within(path) is None
    assert web_link("https://wiki.test", path, "https://own.test", "/p?id=1") == "https://wiki.test/p?id=1"


@pytest.mark.parametrize(
    "base", ["javascript:alert(1)//", "data:text/html,x", "file:///etc", None, "https://[", "ftp://x"]
)
def test_a_link_is_one_of_the_web(base: Any) -> None:
    assert web_link(base, "/display/A B", "https://own.test/wiki", "/p") == "https://own.test/wiki/display/A%20B"


# ---- storage format

MACRO = '<ac:structured-macro ac:name="{0}" ac:macro-id="9f">{1}</ac:structured-macro>'


@pytest.mark.parametrize(
    ("storage", "shown", "hidden"),
    [
        (MACRO.format("info", "<ac:parameter ac:name='title'>Mind</ac:parameter>"
         "<ac:rich-text-body><p>the gap</p></ac:rich-text-body>"), ["Mind", "the gap"], ["9f"]),
        (MACRO.format("code", '<ac:parameter ac:name="language">py</ac:parameter><ac:plain-text-body>'
         "<![CDATA[if a < b && c: print('</ac:plain-text-body>')]]></ac:plain-text-body>"),
         ["if a < b && c: print('</ac:plain-text-body>')"], ["py\n", "language"]),
        (MACRO.format("status", '<ac:parameter ac:name="colour">Green</ac:parameter>'
         '<ac:parameter ac:name="title">DONE</ac:parameter>'), ["DONE"], ["Green"]),
        (MACRO.format("jira", '<ac:parameter ac:name="key">ABC-12</ac:parameter>'
         '<ac:parameter ac:name="serverId">77-88</ac:parameter>'), ["ABC-12"], ["77-88"]),
        (MACRO.format("view-file", '<ac:parameter ac:name="name"><ri:attachment ri:filename="plan &amp; b.pdf"/>'
         "</ac:parameter>"), ["plan & b.pdf"], []),
        ('<p>see <ac:link><ri:page ri:space-key="HR" ri:content-title="Pay &lt;2&gt;"/></ac:link>.</p>',
         ["see Pay <2>."], ["HR"]),
        ('<p><ac:link><ri:page ri:content-title="Real"/><ac:plain-text-link-body><![CDATA[shown]]>'
         "</ac:plain-text-link-body></ac:link></p>", ["shown"], ["Real"]),
        ('<ac:link><ri:attachment ri:filename="x.pdf"/><ac:link-body>the <b>file</b></ac:link-body></ac:link>',
         ["the **file**"], ["x.pdf"]),
        ('<p><ac:link><ri:user ri:account-id="557058:ab"/></ac:link> ok</p>', ["ok"], ["557058"]),
        ("<ac:task-list><ac:task><ac:task-id>41</ac:task-id><ac:task-status>incomplete</ac:task-status>"
         "<ac:task-body>call Kim</ac:task-body></ac:task></ac:task-list>", ["call Kim"], ["41", "incomplete"]),
        ('<ac:image ac:alt="a red door"><ri:attachment ri:filename="IMG_1.png"/><ac:caption><p>Door</p></ac:caption>'
         "</ac:image>", ["a red door", "Door"], ["IMG_1"]),
        ('<p>by <time datetime="2024-05-01"/> at the latest</p>', ["by", "2024-05-01", "at the latest"], []),
        ('<p>fine <ac:emoticon ac:name="smile" ac:emoji-fallback="🙂"/></p>', ["fine", "🙂"], ["smile"]),
        ("<ac:layout><ac:layout-section ac:type='single'><ac:layout-cell><p>cell</p></ac:layout-cell>"
         "</ac:layout-section></ac:layout>", ["cell"], ["single"]),
        ("<p>a <ac:inline-comment-marker ac:ref='r1'>marked</ac:inline-comment-marker> word</p>",
         ["a marked word"], ["r1"]),
        ('<ac:adf-extension><ac:adf-node type="panel"><ac:adf-attribute key="panel-type">note</ac:adf-attribute>'
         "<ac:adf-content><p>once</p></ac:adf-content></ac:adf-node><ac:adf-fallback><p>twice</p></ac:adf-fallback>"
         "</ac:adf-extension>", ["once"], ["twice", "note"]),
        ("<ac:adf-extension><ac:adf-fallback><p>only</p></ac:adf-fallback></ac:adf-extension>", ["only"], []),
        (MACRO.format("style", "<ac:plain-text-body><![CDATA[.a{color:red}]]></ac:plain-text-body>") + "<p>x</p>",
         ["x"], ["color"]),
        (MACRO.format("panel", "<ac:rich-text-body>" + MACRO.format("expand", "<ac:parameter ac:name='title'>More"
         "</ac:parameter><ac:rich-text-body><p>inner</p></ac:rich-text-body>") + "</ac:rich-text-body>")
         + "<p>after</p>",
         ["More", "inner", "after"], []),
        ("<p>before</p><ac:parameter ac:name='x'>never closed", ["before"], ["never"]),
        ("<p>x</p><![CDATA[open <b>", ["x", "open <b>"], []),
        ("<table><tbody><tr><th>k</th></tr><tr><td>v</td></tr></tbody></table>", ["k", "v"], []),
    ],
)  # fmt: skip
def test_what_a_reader_sees_of_a_page_is_kept(storage: str, shown: list[str], hidden: list[str]) -> None:
    extracted = parse(page_html("Guide", storage), "1.html")
    assert extracted.title == "Guide"
    for text in shown:
        assert text in extracted.text
    for text in hidden:
        assert text not in extracted.text


def test_a_page_without_text_shows_its_title() -> None:
    assert parse(page_html("Team <A>", "<p>&nbsp;</p>"), "1.html").text == "# Team <A>"


@pytest.mark.parametrize(
    "part",
    [
        "<ac:link>",
        "<ac:x a='",
        '<ac:parameter ac:name="',
        "<![CDATA[",
        "<ac:structured-macro ac:name='a'>",
        "</ac:link>",
        '<time datetime="',
        "<ri:page ",
        "<ac:parameter>",
    ],
)
def test_hostile_markup_takes_linear_time(part: str) -> None:
    began = time.perf_counter()
    page_html("t", part * (400_000 // len(part)))
    assert time.perf_counter() - began < 3.0
