"""A sync of one source: real ledger, rows in memory, a source whose every answer the test decides."""

from __future__ import annotations

import time

import pytest

from index.document import document_id
from ingest.connector import Mark
from ingest.source_sync import SourceSync
from policies.access import AccessRule
from policies.errors import SourceUnavailable
from policies.principals import Principal

HR, PUBLIC = AccessRule.of(["group:hr"]), AccessRule.of(["everyone"])
BOB, HAL = Principal("bob", "acme"), Principal("hal", "acme", groups=frozenset({"hr"}))


def test_a_listing_of_changes_follows_create_edit_rights_and_delete(world):
    world.desk.put("a", "one")
    world.desk.put("b", "two")
    first = world.sync.list()
    assert (first.created, first.updated, first.discovered) == (2, 0, 2)
    world.desk.put("a", "one more")
    world.desk.put("b", "two", HR)
    world.desk.put("c", "three")
    world.desk.take("c")
    second = world.sync.list()
    assert world.desk.asked == [None, "2"]
    assert (second.created, second.updated, second.access_changed, second.deleted) == (0, 1, 1, 0)
    assert [world.reads(BOB, name) for name in "abc"] == ["one more", None, None]
    assert world.reads(HAL, "b") == "two"
    world.desk.take("a")
    assert world.sync.list().deleted == 1
    assert world.reads(BOB, "a") is None


def test_what_a_listing_of_changes_does_not_name_stays(world):
    world.desk.put("a", "one")
    world.sync.list()
    assert world.sync.list().deleted == 0
    assert world.reads(BOB, "a") == "one"


def test_a_listing_that_breaks_off_deletes_nothing_and_keeps_its_cursor(world):
    world.desk.put("a", "one")
    world.sync.list()
    world.desk.put("b", "two")
    world.desk.breaks_off = True
    with pytest.raises(SourceUnavailable):
        world.sync.list(full=True)
    world.desk.breaks_off = False
    world.sync.list()
    assert world.desk.asked[-1] == "1" and world.reads(BOB, "b") == "two"


def test_the_cursor_waits_for_a_document_that_could_not_be_read(world):
    world.desk.put("a", "one")
    world.sync.list()
    world.desk.unreadable = {"b"}
    world.desk.put("b", "two")
    world.desk.put("c", "three")
    report = world.sync.list()
    assert report.unread == 1 and world.reads(BOB, "c") == "three"
    run = world.ledger.source_run(world.sync.source_id)
    assert run.failures == 1 and "locked" in run.error
    world.desk.unreadable = set()
    assert world.sync.list().unread == 0
    assert world.desk.asked == [None, "1", "1"] and world.reads(BOB, "b") == "two"
    assert world.ledger.source_run(world.sync.source_id).failures == 0


def test_another_pipeline_or_other_settings_list_everything_again(world):
    world.desk.put("a", "one")
    world.sync.list()
    other = replace_settings(world, world.desk.settings.model_copy(update={"acl": ["group:hr"]}))
    other.list()
    assert world.desk.asked == [None, None]


def replace_settings(world, settings):
    return SourceSync(settings, "desk:", world.desk, world.ledger, world.rows, "key", world.sync._process)


def test_a_look_changes_only_what_it_looks_at(world):
    for name in "abc":
        world.desk.put(name, name)
    world.sync.list()
    world.desk.put("a", "edited")
    world.desk.put("b", "edited")
    world.desk.take("c")
    report = world.sync.look(["a", "c"])
    assert (report.updated, report.deleted) == (1, 1)
    assert [world.reads(BOB, name) for name in "abc"] == ["edited", "b", None]


def test_a_folder_that_is_gone_takes_what_lay_below_it_and_nothing_else(world):
    for name in ("f/a", "f/b/c", "f.txt", "fa", "f#row"):
        world.desk.put(name, name)
    world.sync.list()
    for name in ("f/a", "f/b/c", "f#row"):
        world.desk.take(name)
    assert world.sync.look(["f"]).deleted == 3
    assert world.reads(BOB, "f.txt") == "f.txt" and world.reads(BOB, "fa") == "fa"


def test_an_earlier_listing_does_not_bring_back_a_right_that_was_taken_later(world):
    world.desk.put("a", "one")
    world.sync.list()
    stale = world.desk.entry("a")  # heard while everyone could read
    world.desk.put("a", "one", HR)
    world.sync.look(["a"])
    world.desk.changes.append(stale)
    world.sync.list()
    assert world.reads(BOB, "a") is None and world.reads(HAL, "a") == "one"


def test_an_earlier_listing_does_not_bring_back_what_was_deleted_later(world):
    world.desk.put("a", "one")
    stale = world.desk.entry("a")
    world.sync.list()
    world.desk.take("a")
    world.sync.look(["a"])
    world.desk.changes.append(stale)
    world.sync.list()
    assert world.reads(BOB, "a") is None


def test_new_text_that_was_read_before_a_right_was_taken_does_not_open_it_again(world):
    world.desk.put("a", "one")
    world.sync.list()
    world.desk.put("a", "two")

    def meanwhile():
        world.before_write = lambda: None
        world.desk.documents["a"] = ("two", HR)
        world.ledger.set_rule(document_id("acme", world.desk.settings.name, "a"), HR)

    world.before_write = meanwhile
    world.sync.list()
    assert world.reads(BOB, "a") is None


def test_a_change_is_as_old_as_its_source_says_and_never_older_than_the_listing_before(world):
    world.desk.put("a", "one")
    world.sync.list()
    assert world.ages == []  # what the first listing finds was there before
    listed = world.ledger.source_run(world.sync.source_id).as_of
    world.desk.changed_at = listed + 0.001
    world.desk.put("a", "two")
    began = time.time()
    world.sync.look(["a"])
    world.desk.changed_at = 0.0
    world.desk.put("a", "three")
    world.sync.look(["a"])
    assert began - listed - 0.001 <= world.ages[0] <= time.time() - listed
    assert world.ages[0] < world.ages[1] <= time.time() - listed, "as old as the listing, and not as the epoch"


def test_a_thousand_rules_change_in_one_commit_before_any_row_follows(world, monkeypatch):
    for number in range(1000):
        world.desk.documents[f"d{number}"] = ("same", PUBLIC)
    world.sync.list()
    for name in world.desk.documents:
        world.desk.documents[name] = ("same", HR)
    seen = []
    carry = world.rows.set_access

    def first(*arguments):
        if not seen:
            seen.append(len(world.reading(BOB)))
        carry(*arguments)

    monkeypatch.setattr(world.rows, "set_access", first)
    report = world.sync.list(full=True)
    assert (report.access_changed, report.embedded, seen) == (1000, 0, [0])
    assert world.reads(HAL, "d7") == "same"


def test_a_first_listing_that_does_not_claim_to_be_complete_deletes_nothing(world):
    world.desk.put("a", "one")
    world.desk.put("b", "two")
    world.sync.list()
    world.desk.take("b")
    original = world.desk.list
    world.desk.list = lambda cursor: (Mark(None, False) if isinstance(i, Mark) else i for i in original(None))
    assert world.sync.list(full=True).deleted == 0 and world.reads(BOB, "b") == "two"
    assert world.ledger.source_run(world.sync.source_id).full_at is not None
    world.desk.list = original
    assert world.sync.list(full=True).deleted == 1
