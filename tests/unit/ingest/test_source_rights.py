"""Rights between a source and the index: names that are spelt anew, and rights that cannot be read."""

from __future__ import annotations

import time

import pytest

from ingest.source_settings import SourceSettings
from ingest.source_sync import SourceSync
from policies.access import AccessRule
from policies.errors import ConfigurationError, RightsUnreadable, SourceUnavailable
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
