import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest.connector import Entry, Gone, Mark
from ingest.connectors import sharepoint_transport
from ingest.connectors.sharepoint import SharepointConnector, SharepointSettings
from policies.errors import ConfigurationError, DocumentRejected, RightsUnreadable, SourceUnavailable, TooLarge
from tests.unit.ingest.connectors.graph_server import (
    CLIENT,
    DRIVE,
    SECRET,
    TENANT,
    GraphServer,
    group,
    link,
    make_certificate,
    running,
    site_group,
    user,
)

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}:DeprecationWarning")
    for text in ("This class is deprecated", "GetQueryParameters is deprecated")  # the SDK about itself
]

ROOT = "01ROOT"
OWNERS = "group:00000000-0000-0000-0000-0000000000aa"
TEAM = "00000000-0000-0000-0000-0000000000bb"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def graph(certificates, monkeypatch):
    monkeypatch.setenv("GRAPH_SECRET", SECRET)
    monkeypatch.setattr(sharepoint_transport, "FIRST_DELAY_S", 0.02)
    with running(GraphServer(), certificates[1]) as server:
        server.ca = str(certificates[0])
        yield server


def settings(server, **changes):
    told = {"kind": "sharepoint", "name": "docs", "tenant": "acme", "tenant_id": TENANT, "client_id": CLIENT}
    told |= {"client_secret_env": "GRAPH_SECRET", "base_url": f"{server.base}/v1.0", "authority": server.base}
    told |= {"ca_file": server.ca, "requests_per_s": 10_000, "timeout_s": 20.0}
    told |= {} if {"site", "user"} & changes.keys() else {"drive_id": DRIVE}
    return SharepointSettings(**{key: value for key, value in (told | changes).items() if value is not None})


@dataclass
class Seen:
    """One listing, by id."""

    entries: dict
    gone: set
    mark: Mark

    def rules(self):
        return {key: set(entry.ref.rule.allow) for key, entry in self.entries.items()}


class Follower:
    """A connector and the cursor it has come to."""

    def __init__(self, server, **changes):
        self.connector = SharepointConnector(settings(server, **changes))
        self.cursor = None

    def next(self):
        seen = sort(list(self.connector.list(self.cursor)))
        self.cursor = seen.mark.cursor
        return seen


def sort(items):
    mark = items.pop() if items and isinstance(items[-1], Mark) else None
    entries = [item for item in items if isinstance(item, Entry)]
    assert len({entry.ref.external_id for entry in entries}) == len(entries)
    gone = {item.external_id for item in items if isinstance(item, Gone)}
    return Seen({entry.ref.external_id: entry for entry in entries}, gone, mark)


def every(server, **changes):
    return Follower(server, **changes).next()


# ---- everything ----


def test_the_first_listing_names_every_file_with_its_rights_and_is_complete(graph):
    folder = graph.add("Finance", ROOT, permissions=[group(TEAM), user("u1")])
    inherits, own = graph.add("a.txt", folder, b"hello"), graph.add("b.pdf", folder, b"%PDF", permissions=[user("u2")])
    seen = every(graph)
    assert seen.rules() == {inherits: {f"group:{TEAM}", "user:u1"}, own: {"user:u2"}}
    assert seen.mark.complete and not seen.gone
    entry = seen.entries[inherits]
    assert entry.ref.uri == "https://contoso.sharepoint.example/Docs/Finance/a.txt"
    assert (entry.name, entry.ref.size_bytes, entry.changed_at) == ("a.txt", 5, 1793491260.0)
    assert entry.ref.fingerprint == f'"c:{{{inherits}}},1"'
    assert entry.ref.seen_at <= time.time()


def test_every_page_is_read(graph):
    graph.page_size = 3
    files = {graph.add(f"{number}.txt", ROOT, b"x") for number in range(11)}
    assert every(graph).entries.keys() == files
    assert graph.asked("delta()") == 4


def test_what_is_no_file_is_not_named(graph):
    graph.add("Shortcut", ROOT, b"x", remoteItem={"id": "01ELSE", "parentReference": {"driveId": "b!other"}})
    graph.add("Notebook", ROOT, package={"type": "oneNote"})
    assert every(graph).entries == {}


def test_a_file_with_malware_is_an_error_and_is_not_fetched(graph):
    bad = graph.add("bad.exe", ROOT, b"x", malware={"description": "EICAR"})
    entry = every(graph).entries[bad]
    assert entry.error == "SharePoint has found malware in it" and entry.location is None


def test_only_what_is_below_the_folder_is_named(graph):
    reports = graph.add("Reports", graph.add("Finance", ROOT))
    deep = graph.add("c.txt", graph.add("2026", reports), b"x")
    graph.add("other.txt", ROOT, b"x")
    assert every(graph, folder="/Finance/Reports/").entries.keys() == {deep}


def test_a_folder_that_is_not_there_is_a_matter_for_the_operator(graph):
    with pytest.raises(ConfigurationError, match="folder"):
        every(graph, folder="Finance/Nothing")
    graph.add("a.txt", ROOT, b"x")
    with pytest.raises(ConfigurationError, match="no folder"):
        every(graph, folder="a.txt")


@pytest.mark.parametrize(
    "place",
    [
        {"site": "contoso.sharepoint.example:/sites/finance"},
        {"site": "contoso.sharepoint.example"},
        {"site": "contoso.sharepoint.example:/sites/finance", "library": "Documents"},
        {"user": "ada@contoso.com"},
    ],
)
def test_a_site_a_library_and_a_onedrive_are_found(graph, place):
    graph.users["ada@contoso.com"] = {"id": "u1"}
    file = graph.add("a.txt", ROOT, b"x")
    assert every(graph, **place).entries.keys() == {file}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"site": "contoso.sharepoint.example:/sites/nothing"}, "site:"),
        ({"site": "contoso.sharepoint.example:/sites/finance", "library": "Nothing"}, "library:"),
        ({"user": "bob@contoso.com"}, "user:"),
        ({"drive_id": "b!nothing"}, "drive_id:"),
    ],
)
def test_a_place_that_is_not_there_is_named(graph, place, said):
    with pytest.raises(ConfigurationError, match=said):
        every(graph, **place)


# ---- what changed ----


def test_nothing_changed_costs_three_requests_and_names_nothing(graph):
    graph.add("a.txt", graph.add("Finance", ROOT), b"x")
    follower = Follower(graph)
    follower.next()
    graph.requests.clear()
    seen = follower.next()
    assert (seen.entries, seen.gone, seen.mark.complete) == ({}, set(), False)
    assert len(graph.requests) == 3


def test_an_edit_names_the_file_with_another_fingerprint_and_asks_for_no_other_file(graph):
    folder = graph.add("Finance", ROOT)
    edited, other = graph.add("a.txt", folder, b"x"), graph.add("b.txt", folder, b"x")
    follower = Follower(graph)
    before = follower.next().entries[edited]
    graph.edit(edited, b"other words")
    graph.requests.clear()
    seen = follower.next()
    assert seen.entries.keys() == {edited}
    assert seen.entries[edited].ref.fingerprint != before.ref.fingerprint
    assert seen.entries[edited].changed_at > before.changed_at
    assert graph.asked(f"{other}/permissions") == 0 and graph.asked("/children") == 0


def test_a_rename_keeps_id_and_fingerprint(graph):
    file = graph.add("a.txt", ROOT, b"x")
    follower = Follower(graph)
    before = follower.next().entries[file].ref
    graph.rename(file, "b.md")
    after = follower.next().entries[file]
    assert (after.ref.external_id, after.ref.fingerprint, after.name) == (file, before.fingerprint, "b.md")
    assert after.ref.uri.endswith("/b.md")


def test_a_move_keeps_id_and_fingerprint_and_takes_the_rights_of_the_new_place(graph):
    secret = graph.add("Board", ROOT, permissions=[user("boss")])
    file = graph.add("a.txt", ROOT, b"x")
    follower = Follower(graph)
    before = follower.next().entries[file].ref
    graph.move(file, secret)
    seen = follower.next()
    assert seen.entries[file].ref.fingerprint == before.fingerprint
    assert seen.rules() == {file: {"user:boss"}}


def test_a_deleted_file_is_gone(graph):
    file = graph.add("a.txt", ROOT, b"x")
    follower = Follower(graph)
    follower.next()
    graph.delete(file)
    seen = follower.next()
    assert (seen.entries, seen.gone) == ({}, {file})


def test_a_deleted_folder_takes_what_was_below_it(graph):
    folder = graph.add("Finance", ROOT)
    files = {graph.add("a.txt", folder, b"x"), graph.add("b.txt", graph.add("2026", folder), b"x")}
    follower = Follower(graph)
    follower.next()
    graph.delete(folder)
    seen = follower.next()
    assert files <= seen.gone and not seen.entries and not seen.mark.complete


def test_a_deleted_folder_of_which_the_delta_says_no_more_leads_to_a_listing_of_everything(graph):
    graph.names_below_deleted = False
    folder = graph.add("Finance", ROOT)
    graph.add("a.txt", folder, b"x")
    kept = graph.add("kept.txt", ROOT, b"x")
    follower = Follower(graph)
    follower.next()
    graph.delete(folder)
    seen = follower.next()
    assert seen.entries.keys() == {kept} and seen.mark.complete


def test_a_deleted_folder_that_was_empty_is_no_reason_to_list_everything(graph):
    folder = graph.add("Finance", ROOT)
    file = graph.add("a.txt", folder, b"x")
    follower = Follower(graph)
    follower.next()
    graph.delete(file)
    assert follower.next().gone == {file}
    graph.delete(folder)
    assert not follower.next().mark.complete


def test_a_renamed_folder_names_all_below_with_new_addresses(graph):
    folder = graph.add("Finance", ROOT)
    files = {graph.add("a.txt", folder, b"x"), graph.add("b.txt", graph.add("2026", folder), b"x")}
    other = graph.add("other.txt", ROOT, b"x")
    follower = Follower(graph)
    before = follower.next().entries
    graph.rename(folder, "Accounting")
    seen = follower.next()
    assert seen.entries.keys() == files and other not in seen.entries
    assert all("/Accounting/" in entry.ref.uri for entry in seen.entries.values())
    assert all(entry.ref.fingerprint == before[key].ref.fingerprint for key, entry in seen.entries.items())


def test_files_and_folders_moved_out_of_the_source_are_gone(graph):
    top = graph.add("Finance", ROOT)
    inner = graph.add("2026", top)
    deep, file = graph.add("a.txt", graph.add("May", inner), b"x"), graph.add("b.txt", top, b"x")
    follower = Follower(graph, folder="Finance")
    assert follower.next().entries.keys() == {deep, file}
    graph.move(inner, ROOT)
    graph.move(file, ROOT)
    seen = follower.next()
    assert (seen.entries, seen.gone >= {deep, file}, seen.mark.complete) == ({}, True, False)
    assert follower.next().gone == set()


def test_files_and_folders_moved_into_the_source_are_named(graph):
    top, outside = graph.add("Finance", ROOT), graph.add("2026", ROOT)
    deep, file = graph.add("a.txt", graph.add("May", outside), b"x"), graph.add("b.txt", ROOT, b"x")
    follower = Follower(graph, folder="Finance")
    assert follower.next().entries == {}
    graph.move(outside, top)
    graph.move(file, top)
    assert follower.next().entries.keys() == {deep, file}


def test_a_change_outside_of_the_source_names_nothing_of_it(graph):
    graph.add("a.txt", graph.add("Finance", ROOT), b"x")
    outside = graph.add("b.txt", graph.add("Deep", graph.add("Other", ROOT)), b"x")
    follower = Follower(graph, folder="Finance")
    follower.next()
    graph.edit(outside, b"y")
    seen = follower.next()
    assert seen.entries == {} and seen.gone == {outside}  # never known, so nothing goes


def test_where_the_delta_leaves_the_content_tag_out_the_item_is_asked_for_it(graph):
    file = graph.add("a.txt", ROOT, b"x")
    graph.tags_in_delta = False
    follower = Follower(graph)
    before = follower.next().entries[file].ref.fingerprint
    assert before == f'"c:{{{file}}},1"'
    graph.rename(file, "b.txt")
    assert follower.next().entries[file].ref.fingerprint == before


# ---- rights ----


def test_a_change_of_rights_alone_names_the_file_with_the_same_fingerprint(graph):
    file = graph.add("a.txt", ROOT, b"x", permissions=[user("u1"), user("u2")])
    follower = Follower(graph)
    before = follower.next().entries[file].ref.fingerprint
    graph.share(file, user("u2"))
    seen = follower.next()
    assert seen.rules() == {file: {"user:u2"}} and seen.entries[file].ref.fingerprint == before


def test_a_folder_s_rights_reach_all_below_that_inherits_them(graph):
    folder = graph.add("Finance", ROOT)
    deep = graph.add("a.txt", graph.add("2026", folder), b"x")
    own = graph.add("b.txt", folder, b"x", permissions=[user("u9")])
    other = graph.add("other.txt", ROOT, b"x")
    follower = Follower(graph)
    follower.next()
    graph.share(folder, user("u1"))
    seen = follower.next()
    assert seen.rules() == {deep: {"user:u1"}, own: {"user:u9"}} and other not in seen.entries
    graph.share(folder)
    assert follower.next().rules()[deep] == set()


def test_rights_that_change_above_the_library_are_in_no_delta_and_are_seen(graph):
    file = graph.add("a.txt", graph.add("Finance", ROOT), b"x")
    follower = Follower(graph)
    follower.next()
    graph.nodes[ROOT].permissions = [user("u1")]  # untouched: the delta does not know of it
    seen = follower.next()
    assert seen.rules() == {file: {"user:u1"}} and seen.mark.complete


def test_links_let_those_read_whom_they_are_for(graph):
    files = {
        graph.add("anyone.txt", ROOT, b"x", permissions=[link("anonymous")]): {"everyone"},
        graph.add("org.txt", ROOT, b"x", permissions=[link("organization")]): {"everyone"},
        graph.add("some.txt", ROOT, b"x", permissions=[link("users", {"user": {"id": "u1"}})]): {"user:u1"},
        graph.add("none.txt", ROOT, b"x", permissions=[link("existingAccess")]): set(),
        graph.add("odd.txt", ROOT, b"x", permissions=[link("galaxy"), {"roles": 7}, "x"]): set(),
    }
    assert every(graph).rules() == files


def test_a_site_s_groups_give_what_the_settings_say_and_otherwise_nothing(graph, caplog):
    file = graph.add("a.txt", ROOT, b"x", permissions=[site_group("Finance Visitors"), site_group("Finance Members")])
    seen = every(graph, site_groups={"Finance Visitors": ["group:finance"]})
    assert seen.rules() == {file: {"group:finance"}}
    assert "Finance Members" in caplog.text and "Finance Visitors" not in caplog.text


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("id", {"user:u1", "user:u2", "user:gone"}),
        ("userPrincipalName", {"user:ada@contoso.com", "user:bob@contoso.com"}),
        ("mail", {"user:ada.lovelace@contoso.com"}),  # the other has none
    ],
)
def test_users_are_named_as_in_their_tokens(graph, claim, expected):
    graph.users["u1"] = {"id": "u1", "userPrincipalName": "ada@contoso.com", "mail": "ada.lovelace@contoso.com"}
    graph.users["u2"] = {"id": "u2", "userPrincipalName": "bob@contoso.com", "mail": None}
    readers = [user("u1"), user("u2"), user("gone")]
    files = [graph.add(f"{number}.txt", ROOT, b"x", permissions=readers) for number in range(3)]
    assert every(graph, user_claim=claim).rules() == dict.fromkeys(files, expected)
    assert graph.asked("/users/u1") == (0 if claim == "id" else 1)


def test_groups_can_be_named_by_their_display_name(graph):
    graph.groups[TEAM] = {"displayName": "Team"}
    file = graph.add("a.txt", ROOT, b"x", permissions=[group(TEAM), group("00000000-0000-0000-0000-0000000000cc")])
    assert every(graph, group_claim="displayName").rules() == {file: {"group:Team"}}


def test_expanded_groups_name_the_members_of_nested_groups_and_follow_their_changes(graph):
    graph.users |= {key: {"id": key} for key in ("u1", "u2", "u3", "u4")}
    inner = "00000000-0000-0000-0000-0000000000dd"
    graph.groups[TEAM] = {"displayName": "Team", "members": ["u1"], "groups": [inner]}
    graph.groups[inner] = {"displayName": "Inner", "members": ["u2", "u3"]}
    file = graph.add("a.txt", ROOT, b"x", permissions=[group(TEAM)])
    follower = Follower(graph, expand_groups=True)
    assert follower.next().rules() == {file: {"user:u1", "user:u2", "user:u3"}}
    assert follower.next().entries == {}
    graph.groups[inner]["members"] = ["u2", "u4"]
    seen = follower.next()
    assert seen.rules() == {file: {"user:u1", "user:u2", "user:u4"}} and seen.mark.complete


def test_rights_that_cannot_be_read_are_nobody_s_and_are_asked_for_again(graph):
    file, other = graph.add("a.txt", ROOT, b"x"), graph.add("b.txt", ROOT, b"x")
    graph.fail(f"{file}/permissions", 403)
    follower = Follower(graph)
    assert follower.next().rules() == {file: set(), other: {OWNERS}}
    assert follower.next().rules() == {file: {OWNERS}}
    assert follower.next().entries == {}


def test_an_item_that_graph_always_fails_over_hurts_only_itself(graph):
    bad, *good = (graph.add(f"{number}.txt", ROOT, b"x") for number in range(9))
    graph.fail(f"{bad}/permissions", 500, times=99)
    assert every(graph).rules() == {bad: set()} | dict.fromkeys(good, {OWNERS})
    for file in good:
        graph.fail(f"{file}/permissions", 500, times=99)
    with pytest.raises(RightsUnreadable, match="500"):
        every(graph)


def test_where_nobody_s_rights_can_be_read_the_listing_says_so(graph):
    graph.add("a.txt", ROOT, b"x")
    follower = Follower(graph)
    follower.next()
    graph.fail("/permissions", 403, times=99)
    with pytest.raises(RightsUnreadable, match="Sites.FullControl.All"):
        follower.next()
    with pytest.raises(RightsUnreadable, match="Sites.FullControl.All"):
        every(graph)


def test_a_right_that_ends_is_taken_back_though_no_delta_says_so(graph):
    ends = time.time() + 1.5
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ends)) + f".{int(ends % 1 * 10)}Z"
    file = graph.add("a.txt", ROOT, b"x", permissions=[user("u1"), user("u2") | {"expirationDateTime": when}])
    follower = Follower(graph)
    assert follower.next().rules() == {file: {"user:u1", "user:u2"}}
    time.sleep(max(0.0, ends - time.time()))
    assert follower.next().rules() == {file: {"user:u1"}}
    assert follower.next().entries == {}


def test_a_reader_s_name_that_no_token_can_hold_is_no_reader(graph):
    odd = ["a\x00b", "a\u202eb", "a\nb", " u1", "x" * 300, ""]
    file = graph.add("a.txt", ROOT, b"x", permissions=[*map(user, odd), user("u1")])
    assert every(graph).rules() == {file: {"user:u1"}}


# ---- any history ----


def told(seen):
    return {key: (e.ref.rule, e.ref.uri, e.ref.fingerprint, e.name) for key, e in seen.entries.items()}


def happen(graph, rng):
    """Something that people do in SharePoint."""
    alive = [node for node in graph.nodes.values() if not node.deleted and node.id not in (ROOT, "01TOP")]
    folders = [ROOT, "01TOP", "01TOP", *(node.id for node in alive if node.content is None)]
    what = rng.choice(["add", "add", "folder", "edit", "rename", "move", "share", "share", "inherit", "delete"])
    if what in ("add", "folder") or not alive:
        graph.add(f"n{graph.moment}", rng.choice(folders), None if what == "folder" else b"x")
        return
    node = rng.choice(alive)
    if what == "edit" and node.content is not None:
        graph.edit(node.id, node.content + b"y")
    elif what == "rename":
        graph.rename(node.id, f"r{graph.moment}")
    elif what == "move":
        places = [key for key in folders if f"/{node.name}/" not in graph.path(graph.nodes[key]) + "/"]
        graph.move(node.id, rng.choice(places))
    elif what == "share":
        graph.share(rng.choice([node.id, "01TOP"]), user(f"u{rng.randrange(5)}"))
    elif what == "inherit":
        graph.nodes[node.id].permissions = None
        graph.touch(node.id)
    elif what == "delete":
        graph.delete(node.id)


@pytest.mark.parametrize(("seed", "folder"), [(1, None), (2, "Top"), (3, "Top")])
def test_after_any_history_what_was_told_is_what_is_there(graph, seed, folder):
    rng = random.Random(seed)
    graph.add("Top", ROOT, item_id="01TOP")
    graph.page_size = 7
    follower, known, whole = Follower(graph, folder=folder), {}, 0
    for step in range(15):
        for _ in range(rng.randrange(1, 5)):
            happen(graph, rng)
        graph.names_below_deleted = rng.random() < 0.8
        seen = follower.next()
        known = {} if seen.mark.complete else {key: value for key, value in known.items() if key not in seen.gone}
        known |= told(seen)
        whole += seen.mark.complete
        if step % 3 == 2:
            assert known == told(sort(list(follower.connector.list(None)))), f"step {step}"
    assert whole <= 8  # mostly changes, or this would show little


# ---- cursors ----


def test_a_cursor_that_graph_forgot_leads_to_a_listing_of_everything(graph):
    kept, lost = graph.add("a.txt", ROOT, b"x"), graph.add("b.txt", ROOT, b"x")
    follower = Follower(graph)
    follower.next()
    graph.delete(lost)
    graph.expired_before = graph.moment
    new = graph.add("c.txt", ROOT, b"x")
    seen = follower.next()
    assert seen.entries.keys() == {kept, new} and seen.mark.complete
    graph.edit(kept, b"y")
    assert not follower.next().mark.complete


def test_a_cursor_forgotten_between_two_pages_leads_to_a_listing_of_everything(graph):
    graph.page_size = 2
    files = {graph.add(f"{number}.txt", ROOT, b"x") for number in range(3)}
    follower = Follower(graph)
    follower.next()
    for file in files:
        graph.edit(file, b"y")
    graph.fail(f".{graph.moment}.2", 410)  # the address of the second page
    seen = follower.next()
    assert seen.entries.keys() == files and seen.mark.complete


def test_a_listing_of_everything_starts_once_more_where_graph_loses_its_place(graph):
    graph.page_size = 2
    files = {graph.add(f"{number}.txt", ROOT, b"x") for number in range(5)}
    graph.fail(f"-1.{graph.moment}.2", 410)
    assert every(graph).entries.keys() == files
    graph.fail(f"-1.{graph.moment}.2", 410, times=2)
    with pytest.raises(SourceUnavailable, match="410"):
        every(graph)


def test_a_cursor_that_is_none_leads_to_a_listing_of_everything(graph):
    graph.add("a.txt", ROOT, b"x")
    connector = SharepointConnector(settings(graph))
    for cursor in ["", "1:", "1:AAAA", "x", "1:\u0663", '{"link": "https://evil.example"}', "\x00" * 99]:
        assert sort(list(connector.list(cursor))).mark.complete, cursor


def test_a_cursor_holds_for_its_place_and_its_settings_only(graph):
    graph.add("a.txt", graph.add("Finance", ROOT), b"x")
    cursor = every(graph).mark.cursor
    for changes in ({"folder": "Finance"}, {"everyone_for_organization_links": False}, {"expand_groups": True}):
        connector = SharepointConnector(settings(graph, **changes))
        assert sort(list(connector.list(cursor))).mark.complete


# ---- looking ----


def test_looking_names_files_and_what_is_below_folders_and_says_what_is_not_there(graph):
    folder = graph.add("Finance", ROOT)
    below = {graph.add("a.txt", folder, b"x"), graph.add("b.txt", graph.add("2026", folder), b"x")}
    file, lost = graph.add("c.txt", ROOT, b"x"), graph.add("d.txt", ROOT, b"x")
    graph.delete(lost)
    odd = ["line-3", "../../users", "..", "a\x00b", "x" * 2_000, "\u202e", "a/b", ""]
    seen = sort(list(SharepointConnector(settings(graph)).look([folder, file, file, lost, *odd])))
    assert seen.entries.keys() == {*below, file} and seen.gone == {lost, *odd}
    assert seen.mark is None


def test_looking_outside_of_the_source_finds_nothing(graph):
    graph.add("Finance", ROOT)
    outside = graph.add("Other", ROOT)
    file = graph.add("a.txt", outside, b"x")
    seen = sort(list(SharepointConnector(settings(graph, folder="Finance")).look([outside, file])))
    assert seen.entries == {} and seen.gone == {outside, file}


def test_there_is_nothing_to_watch(graph):
    assert SharepointConnector(settings(graph)).watch() is None


# ---- fetching ----


def fetched(graph, content=b"hello", max_bytes=1_000):
    file = graph.add("a.txt", ROOT, content)
    connector = SharepointConnector(settings(graph))
    (entry,) = connector.look([file])
    return lambda: connector.fetch(entry, max_bytes)


def test_the_bytes_come_from_an_address_that_gets_no_token(graph):
    assert fetched(graph, b"\x00\xff" * 500)() == b"\x00\xff" * 500
    assert graph.downloads and all("authorization" not in headers for headers in graph.downloads)


def test_a_file_that_is_too_large_is_not_asked_for(graph):
    with pytest.raises(TooLarge):
        fetched(graph, b"x" * 1_001)()
    assert graph.asked("/content") == 0


def test_a_body_that_is_larger_than_was_said_is_cut_off(graph):
    fetch = fetched(graph, b"x")
    graph.fail("/download/", 200, body=b"x" * 5_000_000)
    with pytest.raises(TooLarge):
        fetch()
    graph.fail("/download/", 200, body=b"x" * 5_000, headers={"Content-Length": "2000", "Connection": "close"})
    with pytest.raises(TooLarge):
        fetch()


@pytest.mark.parametrize(("status", "reason"), [(404, "deleted while reading"), (403, "no permission to read it")])
def test_a_file_that_may_not_be_read_or_is_gone_is_rejected(graph, status, reason):
    fetch = fetched(graph)
    graph.fail("/content", status)
    with pytest.raises(DocumentRejected, match=reason):
        fetch()


def test_a_redirect_that_leads_nowhere_safe_is_not_followed(graph):
    fetch = fetched(graph)
    places = ["http://127.0.0.1:9/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "https://[oops", "/v1.0/x", ""]
    for headers in [*({"Location": place} for place in places), {}]:
        graph.failures.clear()
        graph.fail("/content", 302, headers=headers, times=9)
        with pytest.raises((SourceUnavailable, ConfigurationError)) as caught:
            fetch()
        scheme = headers.get("Location", "").partition(":")[0]
        assert ("not private" in caught.value.detail) == (scheme in ("http", "ftp", "file"))
    assert graph.downloads == []


@pytest.mark.parametrize("status", [401, 403])
def test_an_address_that_does_not_hold_any_more_is_no_fault_of_the_file(graph, status):
    fetch = fetched(graph)
    graph.fail("/download/", status)
    with pytest.raises(SourceUnavailable):
        fetch()
    assert fetch() == b"hello"


def test_a_download_that_is_cut_short_is_no_document(graph):
    fetch = fetched(graph)
    graph.fail("/download/", 200, body=b"hel", headers={"Content-Length": "5", "Connection": "close"}, times=9)
    with pytest.raises(SourceUnavailable):
        fetch()


def test_a_file_that_changed_since_it_was_listed_is_not_read_under_its_old_rule(graph):
    fetch = fetched(graph)
    graph.edit(next(reversed(graph.nodes)), b"HELLO")
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        fetch()


def test_a_download_without_end_is_given_up(graph, monkeypatch):
    async def dripping(answer, max_bytes):
        await asyncio.sleep(30)

    from ingest.connectors import sharepoint_graph

    fetch = fetched(graph)
    monkeypatch.setattr(sharepoint_graph, "WHOLE_S", 0.1)
    monkeypatch.setattr(sharepoint_graph, "_body", dripping)
    with pytest.raises(SourceUnavailable, match="takes longer"):
        fetch()


# ---- refusals ----


def test_later_is_waited_for_as_long_as_graph_says(graph):
    file = graph.add("a.txt", ROOT, b"x")
    graph.fail(f"{file}/permissions", 429, headers={"Retry-After": "1"})
    start = time.monotonic()
    assert every(graph).entries.keys() == {file}
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("after", ["120", "Fri, 31 Dec 2099 23:59:59 GMT"])
def test_later_than_a_caller_can_wait_is_passed_on(graph, after):
    graph.add("a.txt", ROOT, b"x")
    graph.fail("/permissions", 429, headers={"Retry-After": after}, times=9)
    with pytest.raises(SourceUnavailable) as caught:
        every(graph)
    assert caught.value.retry_after_s >= 120


def test_a_passing_fault_is_tried_again_and_a_lasting_one_ends_the_listing(graph):
    file = graph.add("a.txt", ROOT, b"x")
    connector = SharepointConnector(settings(graph))
    for where, status in itertools.product(["/root", "delta()", "/permissions"], [500, 503, 429]):
        graph.fail(where, status, times=2)
        assert sort(list(connector.list(None))).entries.keys() == {file}
        graph.fail(where, status, times=3)
        said = RightsUnreadable if (where, status) == ("/permissions", 500) else SourceUnavailable
        with pytest.raises(said, match=str(status)) as caught:
            list(connector.list(None))
        assert "db7" not in caught.value.detail and "127.0.0.1" not in caught.value.detail
        graph.failures.clear()


def test_a_fault_in_the_middle_gives_no_mark(graph):
    graph.page_size = 2
    for number in range(5):
        graph.add(f"{number}.txt", ROOT, b"x")
    graph.fail(f"-1.{graph.moment}.2", 500, times=99)
    items = []
    with pytest.raises(SourceUnavailable):
        items.extend(SharepointConnector(settings(graph)).list(None))
    assert items == []


def test_no_answer_in_time_is_an_unreachable_source(graph):
    graph.fail("delta()", 200, delay_s=1.0)
    with pytest.raises(SourceUnavailable, match="ReadTimeout"):
        every(graph, timeout_s=0.3)


def test_nobody_listening_is_an_unreachable_source(graph):
    with pytest.raises(SourceUnavailable, match="cannot be reached"):
        every(graph, base_url="http://127.0.0.1:9/v1.0")


def test_an_answer_that_cannot_be_read_ends_the_listing(graph):
    connector = SharepointConnector(settings(graph))
    bodies = [b"<html>", b"{", b"[]", b'{"value": 5}', b'{"value": [5]}', b'{"value": [{"id": 5}]}', b"", b"[" * 99_999]
    for body in [*bodies, b'{"value": [{"id": ".."}]}', b'{"value": [{"id": "a/b"}]}', b"\xff"]:
        graph.fail("delta()", 200, body=body)
        with pytest.raises(SourceUnavailable):
            list(connector.list(None))


def test_a_listing_that_leads_elsewhere_or_breaks_off_gives_no_mark(graph):
    connector = SharepointConnector(settings(graph))
    for more in [{}, {"nextLink": "https://evil.example/x"}, {"deltaLink": "https://evil.example/x"}, {"nextLink": 5}]:
        told = {"value": []} | {f"@odata.{key}": value for key, value in more.items()}
        graph.fail("delta()", 200, body=json.dumps(told).encode())
        with pytest.raises(SourceUnavailable):
            list(connector.list(None))


def test_pages_that_lead_in_a_circle_end(graph):
    circle = f'{{"value": [], "@odata.nextLink": "{graph.base}/v1.0/drives/{DRIVE}/items/root/delta()?x"}}'.encode()
    graph.fail("delta()", 200, body=circle, times=99)
    with pytest.raises(SourceUnavailable, match="nowhere"):
        every(graph)


def test_hostile_names_and_addresses_are_taken_for_what_they_are(graph):
    odd = ["a\x00b.txt", "../../etc/passwd", "\u202egnp.txt", "x" * 10_000, "a\ud800b.txt", ".."]
    addresses = ["javascript:alert(1)", "data:text/html,x", "https://a.example/\u202e", "https://u:p@a.example/", "", 7]
    files = [
        graph.add(
            "x", ROOT, b"x", told={"name": name, "webUrl": address, "size": "big", "lastModifiedDateTime": "soon"}
        )
        for name, address in zip(odd, addresses, strict=True)
    ]
    entries = every(graph).entries
    assert entries.keys() == set(files)
    assert [entries[file].name for file in files] == ["ab.txt", "passwd", "gnp.txt", "x" * 255, "ab.txt", ".."]
    assert all(entries[file].ref.uri == f"sharepoint:b!drive-1/{file}" for file in files)
    assert all(entries[file].changed_at is None and entries[file].ref.size_bytes == 0 for file in files)


@pytest.mark.parametrize(
    ("where", "permission"),
    [
        ("delta()", "Sites.Read.All"),
        ("01ROOT/permissions", "Sites.FullControl.All"),
        ("/users/u1", "User.ReadBasic.All"),
        ("/groups/", "GroupMember.Read.All"),
    ],
)
def test_a_missing_permission_is_named(graph, where, permission):
    graph.nodes[ROOT].permissions = [user("u1"), group(TEAM)]
    graph.users["u1"] = {"id": "u1", "mail": "a@b.example"}
    graph.groups[TEAM] = {"displayName": "Team"}
    connector = SharepointConnector(settings(graph, user_claim="mail", group_claim="displayName"))
    connector.check()
    graph.fail(where, 403, times=9, body=b'{"error": {"code": "accessDenied"}}')
    with pytest.raises(ConfigurationError, match=f"accessDenied.*{permission}"):
        connector.check()


@pytest.mark.parametrize("permissions", [[], [{"roles": [], "grantedToV2": {"user": {"id": "u1"}}}]])
def test_an_application_that_is_not_told_who_reads_does_not_pass_the_check(graph, permissions):
    graph.nodes[ROOT].permissions = permissions
    with pytest.raises(ConfigurationError, match="Sites.FullControl.All"):
        SharepointConnector(settings(graph)).check()


# ---- credentials ----


def test_a_certificate_is_as_good_as_a_secret(graph, certificates):
    connector = SharepointConnector(settings(graph, client_secret_env=None, certificate_file=str(certificates[1])))
    connector.check()
    assert graph.assertions[-1]["client_assertion"].count(".") == 2 and "client_secret" not in graph.assertions[-1]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("AADSTS7000222: The provided client secret keys are expired. host db7.corp", "expired"),
        ("AADSTS7000215: Invalid client secret provided.", "wrong"),
        ("AADSTS700016: Application not found", "client_id"),
        ("AADSTS123456: something new", "AADSTS123456"),
    ],
)
def test_a_token_that_is_not_given_says_what_to_do(graph, told, said):
    graph.secret_error = told
    with pytest.raises(ConfigurationError, match=said) as caught:
        SharepointConnector(settings(graph)).check()
    assert "db7" not in caught.value.detail and SECRET not in caught.value.detail


def test_a_broken_token_service_is_an_unavailable_source(graph):
    graph.fail("oauth2/v2.0/token", 500, body=b"{}", times=99)
    with pytest.raises(SourceUnavailable):
        SharepointConnector(settings(graph)).check()


def test_a_token_that_graph_does_not_take_is_a_matter_for_the_operator(graph):
    graph.tokens.clear()
    with pytest.raises(ConfigurationError, match="401"):
        SharepointConnector(settings(graph)).check()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"client_secret_env": "NOT_SET"}, "NOT_SET"),
        ({"client_secret_env": None, "certificate_file": "/nowhere.pem"}, "certificate_file"),
        ({"client_secret_env": None, "certificate_file": __file__}, "certificate_file"),
        ({"ca_file": "/nowhere.pem"}, "ca_file"),
    ],
)
def test_credentials_that_are_not_there_are_named(graph, changes, said):
    with pytest.raises(ConfigurationError, match=said):
        SharepointConnector(settings(graph, **changes)).check()


def test_requests_keep_their_pace(graph):
    for number in range(2):
        graph.add(f"{number}.txt", ROOT, b"x")
    connector = SharepointConnector(settings(graph, requests_per_s=8))
    connector.check()
    start = time.monotonic()
    list(connector.list(None))  # the root, the delta, its rights and those of two files
    assert time.monotonic() - start >= 4 / 8


# ---- settings ----


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "http://graph.microsoft.com/v1.0"},
        {"base_url": "https://user@graph.microsoft.com/v1.0"},
        {"authority": "http://127.0.0.1:1"},
        {"authority": "http://login.microsoftonline.com"},
        {"tenant_id": "common"},
        {"tenant_id": "a/b"},
        {"client_id": "my-app"},
        {"client_secret_env": None},
        {"certificate_file": "x.pem"},
        {"certificate_password_env": "X"},
        {"site": "contoso.sharepoint.com:/sites/x", "drive_id": "b!1"},
        {"drive_id": None},
        {"drive_id": "../users"},
        {"library": "Documents"},
        {"site": "https://contoso.sharepoint.com/sites/x"},
        {"site": "contoso.sharepoint.com:/sites/../x"},
        {"site": "contoso.sharepoint.com:/sites/x?y"},
        {"folder": "a/../b"},
        {"folder": "/"},
        {"folder": "a\x00b"},
        {"site_groups": {"Visitors": ["finance"]}},
        {"acl": ["everyone"]},
        {"client_secret": "s3cret"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes):
    server = GraphServer()
    server.base, server.ca = "https://127.0.0.1:1", None
    with pytest.raises(ValidationError):
        settings(server, **changes)


def test_the_sdk_is_not_loaded_before_it_is_needed():
    code = (
        "import sys; import ingest.connectors.sharepoint as s;"
        "assert not {'msgraph', 'azure', 'httpx', 'kiota_http'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd(), env=os.environ | {"PYTHONPATH": "."})
