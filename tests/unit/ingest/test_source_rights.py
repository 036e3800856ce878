"""Rights between a source and the index: names that are spelt anew, and rights that cannot be read."""

from __future__ import annotations

import time

import pytest

from index.ledger_records import StoredSource
from ingest.connector import Mark
from ingest.hiding import hide_overdue
from ingest.source_settings import SourceSettings
from ingest.source_sync import SourceSync
from policies.access import AccessRule
from policies.errors import ConfigurationError, RightsUnreadable, SourceUnavailable, Unavailable
from policies.principals import Principal

BOB = Principal("bob", "acme")
FIN = Principal("fin", "acme", groups=frozenset({"finance"}))
EX = Principal("ex", "acme", groups=frozenset({"finance", "left"}))
TEAM = AccessRule.of(["group:Finance Team"], ["group:Leavers"])


def follow(world, **settings) -> None:
    """Follow the desk under other settings from here on."""
    desk = world.desk
    desk.settings = SourceSettings(name=desk.settings.name, tenant="acme", **settings)
    world.sync = SourceSync(
        desk.settings, "desk:", desk, world.ledger, world.rows, "key", world.sync._process, observe=world.ages.append
    )


def test_a_source_s_groups_are_called_as_in_tokens_for_allow_and_deny_alike(world):
    follow(world, groups={"Finance Team": "finance", "Leavers": "left"})
    world.desk.put("a", "one", TEAM)
    world.sync.list()
    assert [world.reads(who, "a") for who in (BOB, FIN, EX)] == [None, "one", None]


def test_another_map_gives_other_rights_and_embeds_nothing(world):
    world.desk.put("a", "one", TEAM)
    world.desk.put("b", "two")
    world.sync.list()
    assert [world.reads(who, "a") for who in (BOB, FIN, EX)] == [None, None, None]
    follow(world, groups={"Finance Team": "finance", "Leavers": "left"})
    report = world.sync.list()
    assert (report.access_changed, report.created, report.updated, report.embedded) == (1, 0, 0, 0)
    assert [world.reads(who, "a") for who in (BOB, FIN, EX)] == [None, "one", None]
    follow(world, groups={"Finance Team": "finance"}, unmapped="drop")
    assert world.sync.list().access_changed == 1
    assert [world.reads(who, "a") for who in (BOB, FIN, EX)] == [None, None, None]  # whom it denies cannot be told
    assert world.reads(BOB, "b") == "two"


def test_a_look_goes_by_the_same_map(world):
    follow(world, groups={"Finance Team": "finance"}, users={"bob@example.org": "bob"}, unmapped="drop")
    world.desk.put("a", "one", AccessRule.of(["user:Bob@example.org"]))
    world.sync.look(["a"])
    assert [world.reads(who, "a") for who in (BOB, FIN)] == ["one", None]


def test_maps_that_cannot_hold_are_an_error_of_the_settings():
    with pytest.raises(ValueError, match="groups, users: "):
        SourceSettings(name="wiki", tenant="acme", groups={"Finance": ""})
    with pytest.raises(ValueError, match="unmapped"):
        SourceSettings(name="wiki", tenant="acme", unmapped="ignore")


def test_rights_that_cannot_be_read_hide_what_was_indexed_until_they_can(world):
    world.desk.put("a", "one")
    world.desk.put("b", "two")
    world.sync.list()
    world.desk.broken = RightsUnreadable("permissions: refused")
    with pytest.raises(RightsUnreadable, match="permissions: refused"):
        world.sync.list()
    assert [world.reads(BOB, name) for name in "ab"] == [None, None]
    world.desk.broken = None
    report = world.sync.list()  # only of changes, and there are none: everything must be named again
    assert world.desk.asked[-1] is None
    assert (report.access_changed, report.embedded) == (2, 0)
    assert [world.reads(BOB, name) for name in "ab"] == ["one", "two"]


def test_rights_of_one_folder_that_cannot_be_read_hide_that_folder(world):
    for name in ("hr/a", "hr/deep/b", "hrx", "c"):
        world.desk.put(name, name)
    world.sync.list()
    world.desk.broken = RightsUnreadable("hr/acl.yaml: entry 1", "hr/")
    with pytest.raises(RightsUnreadable):
        world.sync.list()
    assert [world.reads(BOB, name) for name in ("hr/a", "hr/deep/b", "hrx", "c")] == [None, None, "hrx", "c"]


def test_a_look_that_cannot_read_rights_hides_too(world, monkeypatch):
    world.desk.put("a", "one")
    world.sync.list()

    def refused(_):
        raise RightsUnreadable("permissions: refused")

    monkeypatch.setattr(world.desk, "look", refused)
    with pytest.raises(RightsUnreadable):
        world.sync.look(["a"])
    assert world.reads(BOB, "a") is None


@pytest.mark.parametrize("error", [SourceUnavailable("down"), ConfigurationError("the token ran out")])
def test_a_source_that_is_only_away_keeps_its_readers_for_as_long_as_is_allowed(world, error):
    world.desk.put("a", "one")
    world.sync.list()
    world.desk.broken = error
    with pytest.raises(type(error)):
        world.sync.list()
    assert world.reads(BOB, "a") == "one"
    follow(world, rights_s=0.05)
    time.sleep(0.06)
    with pytest.raises(type(error)):
        world.sync.list()
    assert world.reads(BOB, "a") is None
    world.desk.broken = None
    world.sync.list()
    assert world.reads(BOB, "a") == "one"


# ---- one part of a source that is unreadable


def test_an_unreadable_folder_holds_up_neither_rights_nor_deletions_nor_text_of_the_others(world):
    for name in ("a/plan", "a/old", "b/x", "c/y", "d"):
        world.desk.put(name, name)
    world.sync.list(full=True)
    run = world.ledger.source_run(world.sync.source_id)
    world.desk.closed = ["b/", "c/"]
    world.desk.put("a/plan", "a/plan", AccessRule.of(["group:hr"]))
    world.desk.take("a/old")
    world.desk.put("d", "edited")
    for _ in range(2):  # and again: it stays so, and nothing below is taken for gone
        with pytest.raises(RightsUnreadable, match="b/acl.yaml: entry 1; and 1 more"):
            world.sync.list(full=True)
        assert world.reading(BOB) == {"d": "edited"}
    after = world.ledger.source_run(world.sync.source_id)
    assert (after.as_of, after.full_at) == (run.as_of, run.full_at)
    world.desk.closed = []
    report = world.sync.list()  # only of changes: but everything is named again
    assert world.desk.asked[-1] is None and (report.access_changed, report.embedded, report.deleted) == (2, 0, 0)
    assert world.reading(BOB) == {"b/x": "b/x", "c/y": "c/y", "d": "edited"}


def test_unreadable_folders_are_hidden_also_where_the_listing_breaks_off_later(world, monkeypatch):
    for name in ("b/x", "d"):
        world.desk.put(name, name)
    world.sync.list()
    world.desk.closed, listed = ["b/"], world.desk.list

    def broken(cursor):
        yield from (item for item in listed(cursor) if not isinstance(item, Mark))
        raise SourceUnavailable("away")

    monkeypatch.setattr(world.desk, "list", broken)
    with pytest.raises(SourceUnavailable):
        world.sync.list(full=True)
    assert world.reading(BOB) == {"d": "d"}


# ---- the rows of what is hidden


def test_the_rows_of_what_is_hidden_take_up_no_search_s_places(world):
    for name in ("hr/a", "b"):
        world.desk.put(name, name)
    world.sync.list()
    world.desk.broken = RightsUnreadable("hr/acl.yaml: entry 1", "hr/")
    with pytest.raises(RightsUnreadable):
        world.sync.list()
    visible = world.ledger.visible_rules(BOB)
    assert sorted(rule in visible.access_ids for rule in world.rows.carried.values()) == [False, True]
    assert not world.ledger.unwritten_rules(world.sync.source_id)


def test_rows_that_could_not_follow_do_so_the_next_time(world, monkeypatch):
    world.desk.put("a", "one")
    world.sync.list()
    world.desk.broken = RightsUnreadable("permissions: refused")

    def away(*_):
        raise Unavailable("the vector store is down")

    carry = world.rows.set_access
    monkeypatch.setattr(world.rows, "set_access", away)
    with pytest.raises(RightsUnreadable):
        world.sync.list()
    monkeypatch.setattr(world.rows, "set_access", carry)
    assert world.reads(BOB, "a") is None and len(world.ledger.unwritten_rules(world.sync.source_id)) == 1
    with pytest.raises(RightsUnreadable):
        world.sync.list()
    assert not world.ledger.unwritten_rules(world.sync.source_id)


# ---- rights_s


@pytest.mark.parametrize("error", [KeyError("value"), None])
def test_any_failure_of_a_listing_counts_for_rights_s(world, error):
    follow(world, rights_s=0.05)
    world.desk.put("a", "one")
    world.sync.list()
    world.desk.broken, world.desk.breaks_off = error, error is None
    time.sleep(0.06)
    with pytest.raises(KeyError if error else SourceUnavailable):
        world.sync.list()
    assert world.reads(BOB, "a") is None


def test_rights_s_holds_also_where_no_listing_ever_ended_well(world):
    follow(world, rights_s=0.2)
    world.desk.unreadable = {"b"}
    world.desk.put("a", "one")
    world.desk.put("b", "two")
    assert world.sync.list().unread == 1
    assert world.ledger.source_run(world.sync.source_id).as_of is None
    world.desk.broken = SourceUnavailable("away")
    with pytest.raises(SourceUnavailable):
        world.sync.list()
    assert world.reads(BOB, "a") == "one"
    time.sleep(0.25)
    with pytest.raises(SourceUnavailable):
        world.sync.list()
    assert world.reads(BOB, "a") is None


@pytest.mark.parametrize("config", ['{"rights_s": 0.05, "kind": "nothing"}', '{"rights_s": 60}', "{}"])
def test_a_source_that_cannot_be_opened_is_hidden_when_its_rights_are_too_old(world, config):
    world.desk.put("a", "one")
    world.sync.list()
    time.sleep(0.06)
    hide_overdue(StoredSource(world.sync.source_id, "acme", "desk", config, False), world.ledger, world.rows)
    is_hidden = "0.05" in config
    assert world.reads(BOB, "a") == (None if is_hidden else "one")
    assert not world.ledger.unwritten_rules(world.sync.source_id)
    world.sync.list()
    assert world.reads(BOB, "a") == "one"
