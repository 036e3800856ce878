"""Confluence, Cloud and Data Center, against a small one on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.connector import Entry, Gone, Mark
from ingest.connectors import confluence_http
from ingest.connectors.confluence import ConfluenceConnector, ConfluenceSettings
from ingest.connectors.confluence_cursor import Cursor
from ingest.parsing import parse
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, RightsUnreadable, SourceUnavailable, TooLarge
from policies.principals import Principal
from tests.unit.ingest.connectors.confluence_server import ACCOUNT, TOKEN, Content, FakeConfluence, MediaHost

CLAIMS = {"server": "username", "cloud": "email"}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeConfluence]:
    monkeypatch.setenv("CONFLUENCE_TOKEN", TOKEN)
    server = FakeConfluence()
    server.space("ENG")
    server.groups = {"staff": ["ada", "bob", "eve", "kim"], "hr": ["eve", "kim"], "it": ["ada", "bob"]}
    yield server
    server.close()


@pytest.fixture(params=["server", "cloud"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_settings(site: FakeConfluence, flavour: str = "server", **more: Any) -> ConfluenceSettings:
    values: dict[str, Any] = {
        "kind": "confluence",
        "name": "wiki",
        "tenant": "acme",
        "url": f"http://127.0.0.1:{site.port}",
        "flavour": flavour,
        "username": "bot@example.com" if flavour == "cloud" else None,
        "token_env": "CONFLUENCE_TOKEN",
        "user_claim": CLAIMS[flavour],
        "requests_per_s": 1e6,
    }
    return ConfluenceSettings.model_validate(values | more)


def connect(site: FakeConfluence, flavour: str = "server", **more: Any) -> ConfluenceConnector:
    return ConfluenceConnector(make_settings(site, flavour, **more))


def listed(connector: ConfluenceConnector, cursor: str | None = None) -> tuple[dict[str, Entry], dict[str, Gone], Mark]:
    """A listing's entries and goings by id, and its mark; a document is named once."""
    *items, mark = connector.list(cursor)
    assert isinstance(mark, Mark)
    entries = {item.ref.external_id: item for item in items if isinstance(item, Entry)}
    gone = {item.external_id: item for item in items if isinstance(item, Gone)}
    assert len(entries) + len(gone) == len(items)
    return entries, gone, mark


def looked(connector: ConfluenceConnector, *ids: str) -> tuple[dict[str, Entry], list[Gone]]:
    items = list(connector.look(ids))
    entries = {item.ref.external_id: item for item in items if isinstance(item, Entry)}
    return entries, [item for item in items if isinstance(item, Gone)]


def swept(mark: Mark, ago_s: float = 400.0) -> str:
    """A mark's cursor as it is when the last sweep is so long ago."""
    state = Cursor.of(mark.cursor)
    assert state is not None
    return Cursor(state.since, state.swept - ago_s, state.known).text()


def named(flavour: str, *people: str, groups: Sequence[str] = ()) -> AccessRule:
    at = "@example.com" if flavour == "cloud" else ""
    return AccessRule(frozenset([*(f"user:{person}{at}" for person in people), *(f"group:{each}" for each in groups)]))


STAFF = AccessRule(frozenset({"group:staff"}))
EVERYONE = AccessRule(frozenset({"everyone"}))


# ---- what is listed


def test_the_first_listing_names_pages_posts_and_files(site: FakeConfluence, flavour: str) -> None:
    root = site.page("Handbook", when=1_700_000_000.0)
    post = site.page("News", type="blogpost", parent=None)
    file = site.attach(root, "plan 2024.pdf", version=3)
    entries, gone, mark = listed(connect(site, flavour))
    assert mark.complete and not gone
    assert set(entries) == {root.id, post.id, f"{root.id}/{file.id}"}
    page = entries[root.id]
    assert (page.ref.title, page.ref.fingerprint, page.name) == ("Handbook", "1", f"{root.id}.html")
    assert page.changed_at == 1_700_000_000.0
    prefix = "/wiki" if flavour == "cloud" else ""
    assert page.ref.uri == f"http://127.0.0.1:{site.port}{prefix}/spaces/ENG/pages/{root.id}"
    attached = entries[f"{root.id}/{file.id}"]
    assert (attached.name, attached.ref.fingerprint, attached.ref.size_bytes) == ("plan 2024.pdf", "3", 8)
    assert {entry.ref.rule for entry in entries.values()} == {STAFF}


def test_what_holds_no_text_and_what_is_not_wanted_is_left_out(site: FakeConfluence, flavour: str) -> None:
    page = site.page("Root")
    site.attach(page, "photo.png", media="image/png")
    site.attach(page, "talk.mp4", media="video/mp4")
    assert set(listed(connect(site, flavour))[0]) == {page.id}
    site.attach(page, "a.pdf")
    assert set(listed(connect(site, flavour, attachments=False))[0]) == {page.id}


def test_only_the_named_spaces_are_listed(site: FakeConfluence, flavour: str) -> None:
    site.space("HR")
    site.space("~ada")
    site.space("OLD", status="archived")
    pages = {key: site.page(key, key) for key in ("ENG", "HR", "~ada", "OLD")}
    site.attach(pages["HR"], "a.pdf")
    found = listed(connect(site, flavour, spaces=["ENG", "~ada"]))[0]
    assert set(found) == {pages["ENG"].id, pages["~ada"].id}
    everything = listed(connect(site, flavour, attachments=False))[0]
    assert set(everything) == {pages[key].id for key in ("ENG", "HR", "~ada")}


def test_all_pages_of_a_listing_are_read(site: FakeConfluence, flavour: str) -> None:
    site.max_limit, site.nested_limit = 3, 2
    site.groups["staff"] = [f"p{n}" for n in range(7)]
    pages = [site.page(f"P{n}") for n in range(10)]
    files = [site.attach(pages[0], f"{n}.pdf") for n in range(5)]
    pages[1].groups, pages[2].users = ["it"], ["p6"]
    entries, _, mark = listed(connect(site, flavour))
    assert mark.complete
    assert set(entries) == {page.id for page in pages} | {f"{pages[0].id}/{file.id}" for file in files}
    assert entries[pages[2].id].ref.rule == named(flavour, "p6")


def test_an_unchanged_source_costs_few_requests(site: FakeConfluence, flavour: str) -> None:
    for n in range(250):
        site.page(f"P{n}", when=1_700_000_000.0)
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    assert len(site.log) <= {"server": 8, "cloud": 12}[flavour]
    site.log.clear()
    entries, gone, _ = listed(connector, mark.cursor)
    assert not entries and not gone
    assert len(site.log) == 2  # who am I, and the search


# ---- changes


def test_an_edit_is_found_by_the_next_search(site: FakeConfluence, flavour: str) -> None:
    page, other = site.page("A", when=1_700_000_000.0), site.page("B", when=1_700_000_000.0)
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    site.edit(page, "<p>new</p>")
    entries, gone, mark = listed(connector, mark.cursor)
    assert set(entries) == {page.id} and not gone and not mark.complete
    assert entries[page.id].ref.fingerprint == "2"
    assert other.id not in entries
    site.edit(site.attach(page, "late.pdf", when=1_700_000_000.0))
    assert f"{page.id}/" in "".join(listed(connector, mark.cursor)[0])


def test_a_rename_keeps_the_id(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A", when=1_700_000_000.0)
    file = site.attach(page, "a.pdf", when=1_700_000_000.0)
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    site.edit(page, title="Z")
    site.edit(file, title="z.pdf")
    entries = listed(connector, mark.cursor)[0]
    assert entries[page.id].ref.title == "Z"
    assert entries[f"{page.id}/{file.id}"].name == "z.pdf"


def test_the_index_may_lag_behind_a_search(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A", when=1_700_000_000.0)
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    site.index_frozen = True
    site.edit(page)
    missed, _, mark = listed(connector, mark.cursor)
    assert not missed
    site.reindex()
    assert set(listed(connector, mark.cursor)[0]) == {page.id}


@pytest.mark.parametrize("age_s", [0, 59, 61, 119, 600, 3_600])
def test_no_edit_falls_between_two_searches_that_count_in_minutes(site: FakeConfluence, age_s: int) -> None:
    page = site.page("A", when=1_700_000_000.0)
    connector = connect(site, overlap_s=60, rights_s=1e6)
    mark = listed(connector)[2]
    state = Cursor.of(mark.cursor)
    assert state is not None
    before = Cursor(state.since - age_s, state.swept, state.known).text()
    site.edit(page)
    page.when = state.since - age_s + 0.01  # right after the listing before looked
    site.reindex()
    assert set(listed(connector, before)[0]) == {page.id}


def test_a_move_to_another_space_keeps_the_page_and_changes_its_readers(site: FakeConfluence, flavour: str) -> None:
    site.space("HR", groups=["hr"])
    page = site.page("A", when=1_700_000_000.0)
    file = site.attach(page, "a.pdf", when=1_700_000_000.0)
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    site.move(page, "HR")
    assert not listed(connector, mark.cursor)[0]  # a search learns nothing of it
    entries, gone, _ = listed(connector, swept(mark))
    assert not gone
    assert entries[page.id].ref.rule == named(flavour, groups=["hr"])
    assert entries[f"{page.id}/{file.id}"].ref.rule == named(flavour, groups=["hr"])


def test_a_page_that_moves_between_spaces_during_a_sweep_is_not_gone(site: FakeConfluence) -> None:
    site.space("HR", groups=["hr"])
    page = site.page("A", "HR")
    site.page("B", "ENG")
    connector = connect(site)
    mark = listed(connector)[2]

    def before(path: str, query: dict[str, list[str]]) -> None:
        if query.get("spaceKey") == ["HR"]:
            site.move(page, "ENG")  # whose pages were listed already

    site.before = before
    entries, gone, _ = listed(connector, swept(mark))
    assert not gone
    assert entries[page.id].ref.rule == STAFF


def test_what_moves_out_of_the_named_spaces_is_gone(site: FakeConfluence, flavour: str) -> None:
    site.space("HR")
    page = site.page("A")
    file = site.attach(page, "a.pdf")
    connector = connect(site, flavour, spaces=["ENG"])
    mark = listed(connector)[2]
    site.move(page, "HR")
    entries, gone, _ = listed(connector, swept(mark))
    assert not entries and set(gone) == {page.id, f"{page.id}/{file.id}"}
    entries, goings = looked(connector, page.id)
    assert not entries and goings == [Gone(page.id, below=True)]


@pytest.mark.parametrize("how", ["trash", "purge"])
def test_a_deleted_page_goes_with_its_files_at_the_next_sweep(site: FakeConfluence, flavour: str, how: str) -> None:
    page, other = site.page("A"), site.page("B")
    file = site.attach(page, "a.pdf")
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    getattr(site, how)(page)
    entries, gone, mark = listed(connector, swept(mark))
    assert set(gone) == {page.id, f"{page.id}/{file.id}"} and other.id in entries
    assert not mark.complete
    assert not listed(connector, swept(mark))[1]  # it is said once
    entries, goings = looked(connector, page.id)
    assert not entries and goings == [Gone(page.id, below=True)]


def test_a_page_back_from_the_trash_is_there_again(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A")
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    site.trash(page)
    mark = listed(connector, swept(mark))[2]
    page.status = "current"
    assert page.id in listed(connector, swept(mark))[0]


def test_a_deleted_file_goes_alone(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A")
    file, kept = site.attach(page, "a.pdf"), site.attach(page, "b.pdf")
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    site.trash(file)
    entries, gone, _ = listed(connector, swept(mark))
    assert set(gone) == {f"{page.id}/{file.id}"} and f"{page.id}/{kept.id}" in entries


def test_many_missing_documents_are_gone_without_many_questions(
    site: FakeConfluence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.connectors.confluence.MAX_ASKED", 2)
    pages = [site.page(f"P{n}") for n in range(8)]
    connector = connect(site)
    mark = listed(connector)[2]
    for page in pages:
        site.purge(page)
    site.log.clear()
    assert len(listed(connector, swept(mark))[1]) == 8
    assert sum(path.startswith("/rest/api/content/1") for _, path, _, _ in site.log) == 2


def test_deletions_during_a_listing_hide_no_page(site: FakeConfluence) -> None:
    site.max_limit = 4
    pages = [site.page(f"P{n}") for n in range(12)]
    doomed = iter(pages[:3])

    def before(path: str, query: dict[str, list[str]]) -> None:
        if path == "/rest/api/content" and query["type"] == ["page"] and int(query["start"][0]) > 3:
            for page in [next(doomed, None)]:
                if page is not None:
                    site.purge(page)

    site.before = before
    entries, _, mark = listed(connect(site, attachments=False))
    assert mark.complete
    assert set(entries) == {page.id for page in pages[3:]}


def test_a_listing_that_never_holds_still_is_not_taken_for_whole(site: FakeConfluence) -> None:
    site.max_limit = 4
    for n in range(60):
        site.page(f"P{n}")

    def before(path: str, query: dict[str, list[str]]) -> None:
        if path == "/rest/api/content" and query["type"] == ["page"] and int(query["start"][0]) > 2:
            site.purge(next(iter(site.content.values())))

    site.before = before
    with pytest.raises(SourceUnavailable, match="moved again and again"):
        list(connect(site, attachments=False).list(None))


@pytest.mark.parametrize(
    "cursor", ["", "x", "[]", '{"v": 2}', '{"v": 1}', '{"v": 1, "since": 1, "swept": 1, "known": "?"}']
)
def test_an_unknown_cursor_lists_everything(site: FakeConfluence, cursor: str) -> None:
    page = site.page("A", when=1_700_000_000.0)
    entries, _, mark = listed(connect(site), cursor)
    assert set(entries) == {page.id} and mark.complete


def test_a_clock_that_went_back_brings_a_sweep(site: FakeConfluence) -> None:
    page = site.page("A", when=1_700_000_000.0)
    connector = connect(site)
    state = Cursor.of(listed(connector)[2].cursor)
    assert state is not None
    ahead = Cursor(state.since + 3_600, state.swept + 3_600, state.known).text()
    assert set(listed(connector, ahead)[0]) == {page.id}


def test_a_cursor_keeps_many_ids_in_little_room() -> None:
    known = frozenset(f"{98_304 + 1_709 * n}" for n in range(20_000))
    text = Cursor(1.0, 2.0, known).text()
    assert Cursor.of(text) == Cursor(1.0, 2.0, known)
    assert len(text) < 6 * len(known)


def test_all_is_heard_no_later_than_when_it_was_said(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A")
    said: list[float] = []
    site.before = lambda path, query: said.append(time.time())
    connector = connect(site, flavour)
    before = time.time()
    entry = listed(connector)[0][page.id]
    assert before <= entry.ref.seen_at <= min(said)
    said.clear()
    assert looked(connector, page.id)[0][page.id].ref.seen_at <= min(said)


# ---- rights


def test_restrictions_above_and_below_must_all_be_met(site: FakeConfluence, flavour: str) -> None:
    root = site.page("Root", groups=["hr", "it"])
    middle = site.page("Middle", parent=root.id)
    leaf = site.page("Leaf", parent=middle.id, users=["eve", "ada"])
    deep = site.page("Deep", parent=leaf.id, groups=["hr"])
    file = site.attach(deep, "a.pdf")
    entries = listed(connect(site, flavour))[0]
    rules = {page.title: entries[page.id].ref.rule for page in (root, middle, leaf, deep)}
    assert rules["Root"] == rules["Middle"] == named(flavour, "ada", "bob", "eve", "kim")
    assert rules["Leaf"] == named(flavour, "ada", "eve")
    assert rules["Deep"] == entries[f"{deep.id}/{file.id}"].ref.rule == named(flavour, "eve")


def test_a_group_that_space_and_page_name_stays_a_group(site: FakeConfluence, flavour: str) -> None:
    site.spaces["ENG"].groups = ["staff", "hr"]
    page = site.page("A", groups=["hr"])
    assert listed(connect(site, flavour))[0][page.id].ref.rule == named(flavour, groups=["hr"])
    assert not site.asked("/member")


def test_a_restriction_alone_narrows_a_page_and_all_below_at_the_next_sweep(site: FakeConfluence, flavour: str) -> None:
    root = site.page("Root", when=1_700_000_000.0)
    leaf = site.page("Leaf", parent=root.id, when=1_700_000_000.0)
    file = site.attach(leaf, "a.pdf", when=1_700_000_000.0)
    connector = connect(site, flavour)
    before, _, mark = listed(connector)
    root.users = ["eve"]
    assert not listed(connector, mark.cursor)[0]
    entries, _, mark = listed(connector, swept(mark))
    assert {entry.ref.rule for entry in entries.values()} == {named(flavour, "eve")}
    assert set(entries) == {root.id, leaf.id, f"{leaf.id}/{file.id}"}
    assert all(entries[key].ref.fingerprint == before[key].ref.fingerprint for key in entries)
    root.users = []
    assert {entry.ref.rule for entry in listed(connector, swept(mark))[0].values()} == {STAFF}


def test_a_restriction_that_comes_with_an_edit_holds_for_the_files_at_once(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A", when=1_700_000_000.0)
    file = site.attach(page, "a.pdf", when=1_700_000_000.0)
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    page.users = ["eve"]
    site.edit(page)
    entries = listed(connector, mark.cursor)[0]
    assert set(entries) == {page.id, f"{page.id}/{file.id}"}
    assert {entry.ref.rule for entry in entries.values()} == {named(flavour, "eve")}


def test_a_look_names_what_inherits_from_the_page(site: FakeConfluence, flavour: str) -> None:
    root = site.page("Root")
    leaf = site.page("Leaf", parent=root.id)
    file = site.attach(leaf, "a.pdf")
    root.groups = ["hr"]
    entries, gone = looked(connect(site, flavour), root.id)
    assert set(entries) == {root.id, leaf.id, f"{leaf.id}/{file.id}"}
    assert gone == [Gone(root.id, below=True), Gone(leaf.id, below=True)]
    assert {entry.ref.rule for entry in entries.values()} == {named(flavour, "eve", "kim")}


def test_a_look_names_one_file(site: FakeConfluence, flavour: str) -> None:
    page, other = site.page("A", users=["eve"]), site.page("B")
    file = site.attach(page, "a.pdf")
    connector = connect(site, flavour)
    for asked in (f"{page.id}/{file.id}", file.id):
        entries, gone = looked(connector, asked)
        assert not gone and entries[f"{page.id}/{file.id}"].ref.rule == named(flavour, "eve")
    assert looked(connector, f"{other.id}/{file.id}") == ({}, [Gone(f"{other.id}/{file.id}")])


def test_new_members_and_lost_ones_are_seen_by_a_sweep(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A", groups=["hr"], when=1_700_000_000.0)
    connector = connect(site, flavour)
    entries, _, mark = listed(connector)
    assert entries[page.id].ref.rule == named(flavour, "eve", "kim")
    site.groups["hr"] = ["kim", "ada"]
    assert listed(connector, swept(mark))[0][page.id].ref.rule == named(flavour, "ada", "kim")


def test_a_change_of_a_spaces_permissions_is_seen_by_a_sweep(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A", when=1_700_000_000.0)
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    site.spaces["ENG"].groups, site.spaces["ENG"].users = ["it"], ["eve"]
    assert listed(connector, swept(mark))[0][page.id].ref.rule == named(flavour, "eve", groups=["it"])


def test_a_page_that_the_account_loses_sight_of_is_gone(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A")
    child = site.page("B", parent=page.id)
    file = site.attach(child, "a.pdf")
    connector = connect(site, flavour)
    mark = listed(connector)[2]
    page.hidden = True
    entries, gone, _ = listed(connector, swept(mark))
    assert not entries and set(gone) == {page.id, child.id, f"{child.id}/{file.id}"}


def test_members_that_are_not_told_are_nobody(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A", groups=["hr"], users=["ada"])
    site.hidden_groups = {"hr"}
    assert listed(connect(site, flavour))[0][page.id].ref.rule == named(flavour, "ada")
    site.hidden_groups = {"staff"}
    assert listed(connect(site, flavour))[0][page.id].ref.rule == NOBODY


def test_a_list_of_readers_that_was_cut_is_asked_for_whole(site: FakeConfluence, flavour: str) -> None:
    site.restriction_limit = 2
    people = ["ada", "bob", "eve", "kim"]
    page = site.page("A", users=people)
    child = site.page("B", parent=page.id)
    entries = listed(connect(site, flavour))[0]
    assert entries[page.id].ref.rule == entries[child.id].ref.rule == named(flavour, *people)


def test_restrictions_that_cannot_be_read_leave_nobody(site: FakeConfluence, flavour: str) -> None:
    site.restriction_limit, site.restrictions_readable = 1, False
    page = site.page("A", users=["ada", "bob"])
    assert listed(connect(site, flavour))[0][page.id].ref.rule == NOBODY


def test_pages_that_the_search_does_not_know_are_asked_for_their_restrictions(site: FakeConfluence) -> None:
    page = site.page("A", users=["eve"])
    site.bulk_search_misses = {page.id}
    assert listed(connect(site, "cloud"))[0][page.id].ref.rule == named("cloud", "eve")


def test_a_space_that_is_open_to_all_is_for_everyone(site: FakeConfluence, flavour: str) -> None:
    site.space("PUB", anonymous=True)
    opened, restricted = site.page("A", "PUB"), site.page("B", "PUB", groups=["hr"])
    closed = site.page("C", "ENG")
    entries = listed(connect(site, flavour))[0]
    assert entries[opened.id].ref.rule == EVERYONE
    assert entries[restricted.id].ref.rule == named(flavour, groups=["hr"])
    assert entries[closed.id].ref.rule == STAFF
    without = listed(connect(site, flavour, anonymous=False))[0]
    assert without[opened.id].ref.rule == STAFF


def test_an_open_space_on_a_closed_site_is_for_its_readers(site: FakeConfluence, flavour: str) -> None:
    site.space("PUB", anonymous=True)
    site.site_anonymous = False
    page = site.page("A", "PUB")
    assert listed(connect(site, flavour))[0][page.id].ref.rule == STAFF


def test_a_space_whose_permissions_are_not_told_is_for_nobody_or_for_acl(site: FakeConfluence, flavour: str) -> None:
    site.spaces["ENG"].permissions_hidden = True
    opened, restricted = site.page("A"), site.page("B", groups=["hr"])
    entries = listed(connect(site, flavour))[0]
    assert entries[opened.id].ref.rule == entries[restricted.id].ref.rule == NOBODY
    entries = listed(connect(site, flavour, acl=["group:wiki"]))[0]
    assert entries[opened.id].ref.rule == AccessRule(frozenset({"group:wiki"}))
    assert entries[restricted.id].ref.rule == NOBODY


@pytest.mark.parametrize("failing", ["restriction", "permissions"])
def test_rights_that_confluence_fails_over_cannot_be_read(site: FakeConfluence, flavour: str, failing: str) -> None:
    page = site.page("A", users=["eve"])
    connector = connect(site, flavour)
    site.bulk_search_misses = {page.id}
    path = f"/content/{page.id}/restriction" if failing == "restriction" else "/permissions"
    if failing == "restriction" and flavour == "server":
        pytest.skip("Data Center's pages come with their restrictions")
    site.fail(path, 500, times=99)
    with pytest.raises(RightsUnreadable, match="500"):
        listed(connector)
    site.faults.clear()
    site.fail(path, 503, times=99)  # away, and not unable
    with pytest.raises(SourceUnavailable, match="503"):
        listed(connect(site, flavour))


def test_a_folder_lets_through_whom_confluence_says(site: FakeConfluence) -> None:
    site.spaces["ENG"].users = ["ada", "eve"]
    top = site.page("Top")
    folder = site.page("Folder", type="folder", parent=top.id, users=["eve"])
    inside = site.page("Inside", parent=folder.id)
    below = site.page("Below", parent=inside.id)
    assert looked(connect(site, "cloud"), below.id)[0][below.id].ref.rule == named("cloud", "eve")
    entries = listed(connect(site, "cloud"))[0]
    assert set(entries) == {top.id, inside.id, below.id}
    assert entries[top.id].ref.rule == named("cloud", "ada", "eve", groups=["staff"])
    assert entries[inside.id].ref.rule == entries[below.id].ref.rule == named("cloud", "eve")
    folder.users = []
    assert listed(connect(site, "cloud"))[0][inside.id].ref.rule == named("cloud", "ada", "eve", groups=["staff"])
    site.is_confluence_administrator = False
    assert listed(connect(site, "cloud"))[0][inside.id].ref.rule == NOBODY


def test_a_page_whose_place_cannot_be_told_is_for_nobody(site: FakeConfluence) -> None:
    odd = site.page("Odd", type="lists", parent=None)
    page = site.page("A", parent=odd.id)
    assert listed(connect(site, "cloud", acl=["group:wiki"]))[0][page.id].ref.rule == NOBODY
    site.spaces["ENG"].permissions_hidden = True
    assert listed(connect(site, "cloud", acl=["group:wiki"]))[0][page.id].ref.rule == NOBODY
    first, second = site.page("B"), site.page("C")
    first.parent, second.parent = second.id, None
    second.hidden = True
    assert first.id not in listed(connect(site, "cloud"))[0]


@pytest.mark.parametrize(
    ("flavour", "claims", "rule"),
    [
        ("server", {"user_claim": "userKey"}, ["user:key-ada", "group:it"]),
        ("server", {"user_claim": "username"}, ["user:ada", "group:it"]),
        ("cloud", {"user_claim": "accountId", "group_claim": "id"}, ["user:acc-ada", "group:gid-it"]),
        ("cloud", {"user_claim": "email", "group_claim": "name"}, ["user:ada@example.com", "group:it"]),
    ],
)
def test_readers_are_named_as_the_settings_say(
    site: FakeConfluence, flavour: str, claims: dict[str, str], rule: list[str]
) -> None:
    site.spaces["ENG"].users, site.spaces["ENG"].groups = ["ada"], ["it"]
    page = site.page("A")
    assert listed(connect(site, flavour, **claims))[0][page.id].ref.rule == AccessRule(frozenset(rule))


def test_an_email_that_is_hidden_names_nobody(site: FakeConfluence) -> None:
    page = site.page("A", users=["ada", "eve"])
    site.hidden_emails = {"eve"}
    assert listed(connect(site, "cloud"))[0][page.id].ref.rule == named("cloud", "ada")


PEOPLE = ("ada", "bob", "eve", "kim")
GROUPS = ("staff", "hr", "it")


@pytest.mark.parametrize("kind", ["server", "cloud"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_tree_exactly_its_readers_read(site: FakeConfluence, kind: str, data: st.DataObject) -> None:
    bits = data.draw(st.binary(min_size=30, max_size=30))

    def some(names: tuple[str, ...], byte: int) -> list[str]:
        return [name for n, name in enumerate(names) if byte >> n & 1]

    site.content.clear()
    site.index.clear()
    site.spaces.clear()
    for n, key in enumerate(("ENG", "HR")):
        site.space(key, users=some(PEOPLE, bits[n]), groups=some(GROUPS, bits[n + 2]), anonymous=bits[n + 4] > 200)
    site.groups = {group: some(PEOPLE, bits[n + 6]) for n, group in enumerate(GROUPS)}
    pages: list[Content] = []
    for n in range(7):
        byte = bits[10 + n]
        above = pages[byte % len(pages)] if pages and byte % 4 else None
        page = site.page(f"P{n}", above.space if above else ("ENG", "HR")[byte % 2])
        page.parent = above.id if above else None
        if bits[20 + n] % 3 == 0:
            page.users, page.groups = some(PEOPLE, bits[20 + n] >> 1), some(GROUPS, bits[20 + n] >> 5)
        pages.append(page)
    entries = listed(connect(site, kind, attachments=False))[0]
    at = "@example.com" if kind == "cloud" else ""
    for page in pages:
        rule, expected = entries[page.id].ref.rule, site.readers(page)
        for person in PEOPLE:
            groups = frozenset(group for group in GROUPS if person in site.groups[group])
            is_open = site.spaces[page.space].anonymous and rule == EVERYONE
            assert rule.permits(Principal(person + at, "acme", groups=groups)) == (person in expected or is_open)


# ---- content


def test_a_page_comes_as_html_with_its_title(site: FakeConfluence, flavour: str) -> None:
    body = '<p>Hello</p><ac:structured-macro ac:name="code"><ac:plain-text-body><![CDATA[x < 1]]></ac:plain-text-body>'
    page = site.page("Guide & more", body=body + "</ac:structured-macro>")
    post = site.page("Post", type="blogpost", body="<p>Fresh</p>")
    connector = connect(site, flavour)
    entries = listed(connector)[0]
    entry = entries[page.id]
    extracted = parse(connector.fetch(entry, 1_000_000), entry.name or "")
    assert extracted.title == "Guide & more"
    assert "Hello" in extracted.text and "x < 1" in extracted.text
    assert b"Fresh" in connector.fetch(entries[post.id], 1_000_000)


def test_a_file_comes_as_it_is(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A")
    file = site.attach(page, "a b?.pdf", data=b"%PDF" + bytes(range(256)) * 500)
    connector = connect(site, flavour)
    entry = listed(connector)[0][f"{page.id}/{file.id}"]
    assert connector.fetch(entry, 1_000_000) == file.data
    with pytest.raises(TooLarge):
        connector.fetch(entry, 1_000)


def test_a_page_that_was_edited_meanwhile_comes_as_it_was_listed(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A", body="<p>for all staff</p>")
    connector = connect(site, flavour)
    entry = listed(connector)[0][page.id]
    page.users = ["eve"]
    site.edit(page, "<p>for eve alone</p>")
    data = connector.fetch(entry, 1_000_000)
    assert b"for all staff" in data and b"eve" not in data


def test_what_is_deleted_while_reading_is_rejected(site: FakeConfluence, flavour: str) -> None:
    page = site.page("A")
    file = site.attach(page, "a.pdf")
    connector = connect(site, flavour)
    entries = listed(connector)[0]
    site.fail("/download", 404)
    with pytest.raises(DocumentRejected, match="deleted"):
        connector.fetch(entries[f"{page.id}/{file.id}"], 1_000_000)
    site.purge(page)
    with pytest.raises(DocumentRejected, match="deleted"):
        connector.fetch(entries[page.id], 1_000_000)
    too_long = site.page("B", body="x" * 5_000)
    with pytest.raises(TooLarge):
        connector.fetch(listed(connector)[0][too_long.id], 1_000)


def test_the_token_goes_to_no_other_host(site: FakeConfluence) -> None:
    media = MediaHost(b"%PDF from afar")
    try:
        site.media_port = media.port
        page = site.page("A")
        file = site.attach(page, "a.pdf")
        connector = connect(site, "cloud")
        entry = listed(connector)[0][f"{page.id}/{file.id}"]
        assert connector.fetch(entry, 1_000_000) == b"%PDF from afar"
        assert len(media.asked) == 1
        assert "authorization" not in media.asked[0] and "cookie" not in media.asked[0]
    finally:
        media.close()


@pytest.mark.parametrize(
    "to", ["http://example.com/x", "https://127.0.0.1/wiki/login?x", "/login.action?os_destination=x", "ftp://x/y"]
)
def test_a_download_that_leads_astray_is_not_followed(site: FakeConfluence, to: str) -> None:
    page = site.page("A")
    file = site.attach(page, "a.pdf")
    connector = connect(site)
    entry = listed(connector)[0][f"{page.id}/{file.id}"]
    site.fail("/download", 302, headers={"location": to})
    with pytest.raises(ConfigurationError, match="leads to"):
        connector.fetch(entry, 1_000_000)


def test_the_next_page_of_a_listing_is_never_sought_elsewhere(site: FakeConfluence) -> None:
    media = MediaHost(b"{}")
    try:
        away = f"http://127.0.0.1:{media.port}/rest/api/content?start=1&limit=2"
        body = {"results": [{"id": "1", "type": "page"}], "_links": {"next": away, "base": "javascript:alert(1)"}}
        site.fail("/rest/api/content", 200, body=json.dumps(body).encode())
        with pytest.raises(SourceUnavailable, match="in circles"):
            list(connect(site).list(None))
        assert not media.asked
    finally:
        media.close()


# ---- failures


def test_a_source_that_asks_to_wait_is_waited_for(site: FakeConfluence) -> None:
    page = site.page("A")
    site.fail("/content", 429, headers={"Retry-After": "1"})
    began = time.monotonic()
    entries = listed(connect(site))[0]
    assert page.id in entries and time.monotonic() - began >= 1.0


def test_a_source_that_asks_to_wait_for_long_is_left_alone(site: FakeConfluence) -> None:
    site.fail("/user/current", 429, headers={"Retry-After": "120"})
    began = time.monotonic()
    with pytest.raises(SourceUnavailable) as raised:
        list(connect(site).list(None))
    assert raised.value.retry_after_s == 120.0 and time.monotonic() - began < 5.0


def test_a_passing_failure_is_got_over(site: FakeConfluence, flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confluence_http, "FIRST_WAIT_S", 0.01)
    page = site.page("A")
    site.fail("/user/current", 503)
    site.fail("/spaces" if flavour == "cloud" else "/space", 500)
    site.fail("/search" if flavour == "cloud" else "/content", 200, body=b"<html>maintenance</html>")
    site.fail("/permissions", 200, body=b"[" * 100_000)
    entries, _, mark = listed(connect(site, flavour))
    assert page.id in entries and mark.complete


def test_a_timeout_is_got_over(site: FakeConfluence) -> None:
    page = site.page("A")
    site.fail("/rest/api/content", 200, delay=1.3, body=b"{}")
    assert page.id in listed(connect(site, timeout_s=1))[0]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/rest/api/content", 500, b""),
        ("/rest/api/space", 502, b"bad gateway"),
        ("/rest/api/content", 200, b"no json"),
        ("/rest/api/content", 200, b'{"results": 7}'),
        ("/rest/api/content", 200, b'{"results": [null]}'),
        ("/rest/api/content", 200, b"[]"),
    ],
)
def test_a_listing_that_breaks_off_ends_with_no_mark(
    site: FakeConfluence, monkeypatch: pytest.MonkeyPatch, path: str, status: int, body: bytes
) -> None:
    monkeypatch.setattr(confluence_http, "FIRST_WAIT_S", 0.01)
    site.page("A")
    site.fail(path, status, times=100, body=body)
    with pytest.raises(SourceUnavailable) as raised:
        list(connect(site).list(None))
    assert "127.0.0.1" not in raised.value.detail and TOKEN not in raised.value.detail


def test_a_source_that_is_not_there_is_unavailable(site: FakeConfluence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confluence_http, "FIRST_WAIT_S", 0.01)
    connector = connect(site)
    site.close()
    with pytest.raises(SourceUnavailable, match="does not answer"):
        list(connector.list(None))


def test_an_account_that_is_not_known_lists_nothing(site: FakeConfluence, flavour: str) -> None:
    site.page("A")
    site.knows_account = False  # it is answered as anybody is
    with pytest.raises(ConfigurationError, match="does not know the account"):
        list(connect(site, flavour).list(None))


def test_wrong_and_missing_credentials_are_said(site: FakeConfluence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFLUENCE_TOKEN", "wrong")
    with pytest.raises(ConfigurationError, match="does not take the credentials") as raised:
        connect(site).check()
    assert "wrong" not in raised.value.detail
    monkeypatch.setenv("CONFLUENCE_TOKEN", "a\tb")
    with pytest.raises(ConfigurationError, match="is no token"):
        connect(site).check()
    monkeypatch.delenv("CONFLUENCE_TOKEN")
    with pytest.raises(ConfigurationError, match="CONFLUENCE_TOKEN must hold"):
        connect(site).check()


def test_each_flavour_signs_in_its_way(site: FakeConfluence) -> None:
    connect(site).check()
    connect(site, "cloud").check()
    assert {line[3].partition(" ")[0] for line in site.log if line[3]} == {"Bearer", "Basic"}
    assert ACCOUNT not in make_settings(site).model_dump_json()


def test_what_an_operator_must_mend_is_said(site: FakeConfluence, flavour: str) -> None:
    site.page("A")
    connect(site, flavour).check()
    with pytest.raises(ConfigurationError, match="'NOPE' is not there"):
        connect(site, flavour, spaces=["ENG", "NOPE"]).check()
    with pytest.raises(ConfigurationError, match="'NOPE' is not there"):
        list(connect(site, flavour, spaces=["NOPE"]).list(None))
    site.spaces["ENG"].permissions_hidden = True
    with pytest.raises(ConfigurationError, match="space ENG: .* who may read it"):
        connect(site, flavour).check()
    connect(site, flavour, acl=["group:wiki"]).check()
    site.spaces["ENG"].permissions_hidden, site.restrictions_readable = False, False
    with pytest.raises(ConfigurationError, match="restrictions of pages"):
        connect(site, flavour).check()


def test_an_address_that_leads_elsewhere_is_no_api(site: FakeConfluence) -> None:
    site.fail("/user/current", 302, headers={"location": "https://sso.example.com/"})
    with pytest.raises(ConfigurationError, match="leads elsewhere"):
        connect(site).check()


# ---- hostile values


@pytest.mark.parametrize(
    "title", ["a\x00b", "../../etc/passwd", "\u202egnp.exe", "x" * 10_000, "", "line-3", "<script>", "\ud800", "a\\b"]
)
def test_hostile_titles_harm_nothing(site: FakeConfluence, flavour: str, title: str) -> None:
    page = site.page(title, body="<p>fine</p>")
    file = site.attach(page, f"{title}.pdf")
    connector = connect(site, flavour)
    entries = listed(connector)[0]
    ref = entries[page.id].ref
    assert entries[page.id].name == f"{page.id}.html"
    assert ref.title is None or (len(ref.title) <= 200 and ref.title.isascii() | ("\u202e" in title))
    assert parse(connector.fetch(entries[page.id], 1_000_000), "1.html").text == "fine"
    name = entries[f"{page.id}/{file.id}"].name or ""
    assert "/" not in name and "\x00" not in name and len(name) < 300 and name.endswith(".pdf")


def test_ids_that_are_none_are_not_asked_for(site: FakeConfluence, flavour: str) -> None:
    site.page("A")
    connector = connect(site, flavour)
    for hostile in ("line-3", "../user", "1 or 1=1", "", "1/../2", "a\x00", "1?x=1", "9" * 100, "1/att/2"):
        entries, gone = looked(connector, hostile)
        assert not entries and {each.external_id for each in gone} == {hostile}
    asked = [path for _, path, _, _ in site.log]
    assert not any(".." in path or " " in path for path in asked)


def test_rights_with_control_bytes_name_nobody(site: FakeConfluence, flavour: str) -> None:
    site.groups["h\x00r"] = ["ada"]
    site.spaces["ENG"].groups = ["staff", "h\x00r"]
    page, child = site.page("A", users=["a\x00da", "ada"]), site.page("B", groups=["h\x00r"])
    site.spaces["ENG"].raw = [{"operation": None}, {"subject": {"type": "group", "name": ["x"]}}, {"principal": 7}]
    entries = listed(connect(site, flavour))[0]
    assert entries[page.id].ref.rule == named(flavour, "ada")
    assert entries[child.id].ref.rule == NOBODY


def test_rows_that_lack_what_matters_are_errors_or_left_out(site: FakeConfluence) -> None:
    rows = [
        {"id": "1", "type": "page", "title": "no version"},
        {"id": "2", "type": "comment"},
        {"id": "../3", "type": "page"},
        {"type": "page", "id": None},
        {"id": "5", "type": "page", "title": 7, "version": {"number": True, "when": "soon"}, "_links": []},
        {"id": 6, "type": "page", "version": {"number": 2, "when": "9999-99-99"}, "ancestors": [], "restrictions": 1},
    ]
    site.restrictions_readable = False
    site.fail("/rest/api/content", 200, body=json.dumps({"results": rows}).encode())
    entries = listed(connect(site))[0]
    assert set(entries) == {"1", "5", "6"}
    assert entries["1"].error and entries["5"].error and not entries["6"].error
    assert {entry.ref.rule for entry in entries.values()} == {NOBODY}
    assert entries["6"].changed_at is None
    assert entries["1"].ref.uri == f"http://127.0.0.1:{site.port}/pages/viewpage.action?pageId=1"


# ---- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://wiki.example.com"},
        {"url": "ftp://127.0.0.1"},
        {"url": "https://user:pass@wiki.example.com"},
        {"url": "https://wiki.example.com?x=1"},
        {"url": "https://"},
        {"url": "https://wiki.example.com/\u202e"},
        {"spaces": []},
        {"spaces": ['ENG" or type = "page']},
        {"user_claim": "email"},
        {"group_claim": "id"},
        {"flavour": "cloud", "user_claim": "username"},
        {"token": "secret"},
        {"overlap_s": 1},
        {"timeout_s": 0},
    ],
)
def test_wrong_settings_are_refused(site: FakeConfluence, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_settings(site, **wrong)


def test_the_cloud_is_found_below_wiki(site: FakeConfluence) -> None:
    for url in ("https://acme.atlassian.net", "https://acme.atlassian.net/wiki/", "https://acme.atlassian.net/wiki"):
        assert make_settings(site, "cloud", url=url).base_url == "https://acme.atlassian.net/wiki"
    assert make_settings(site, url="https://wiki.acme.test/confluence/").base_url == "https://wiki.acme.test/confluence"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, ingest.connectors.confluence; print({'atlassian', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_has_nothing_to_watch(site: FakeConfluence) -> None:
    assert connect(site).watch() is None
    assert not site.log
