from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import pytest
from pydantic import ValidationError

from ingest.connector import Entry, Gone, Mark
from ingest.connectors.http_client import Patience
from ingest.connectors.rest import RestConnector, RestSettings
from ingest.connectors.rest_fields import ItemReader, unix_time
from ingest.connectors.rest_paging import next_link, with_parameters
from ingest.parsing import parse
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge
from tests.unit.ingest.connectors.loopback_server import Answer, Asked, Loopback, as_json, serving

QUICK = Patience(connect_s=2, read_s=1, whole_s=5, attempts=2, first_wait_s=0.01)
TEXT_FIELDS = {"id": "$.id", "text": "$.text", "title": "$.title"}
SECRET = "s3cret-value"


def settings(url: str = "https://api.example/docs", **given: Any) -> RestSettings:
    defaults = {"kind": "rest", "name": "api", "tenant": "acme", "acl": ["group:all"], "requests_per_s": 10_000}
    return RestSettings.model_validate(defaults | {"url": url, "items": "$.items", "fields": TEXT_FIELDS} | given)


def connector(server: Loopback, **given: Any) -> RestConnector:
    return RestConnector(settings(server.url + "/docs", **given), QUICK)


def item(number: int, **changed: Any) -> dict[str, Any]:
    return {"id": f"d{number}", "title": f"Title {number}", "text": f"Text {number}."} | changed


def listed(source: RestConnector, cursor: str | None = None) -> tuple[dict[str, Entry], list[str], Mark]:
    """What a listing named, by id; what it says is gone; its mark."""
    *items, mark = source.list(cursor)
    assert isinstance(mark, Mark)
    entries = [each for each in items if isinstance(each, Entry)]
    assert len({entry.ref.external_id for entry in entries}) == len(entries)
    return (
        {entry.ref.external_id: entry for entry in entries},
        [each.external_id for each in items if isinstance(each, Gone)],
        mark,
    )


@dataclass
class Api:
    """A listing that changes between its pages, as `before_page` says. Newest last."""

    items: list[dict[str, Any]]
    size: int = 3
    before_page: Callable[[int], None] = field(default=lambda number: None)
    tells_total: bool = False
    asked: int = 0

    def page(self, start: int) -> dict[str, Any]:
        self.asked += 1
        self.before_page(self.asked)
        answer: dict[str, Any] = {"items": self.items[start : start + self.size]}
        return answer | ({"total": len(self.items)} if self.tells_total else {})

    def by_number(self, asked: Asked) -> Answer:
        return as_json(self.page((int(asked.query["page"]) - 1) * self.size))

    def by_offset(self, asked: Asked) -> Answer:
        assert asked.query["limit"] == "100"  # more than the API gives at once
        return as_json(self.page(int(asked.query["offset"])))

    def by_cursor(self, asked: Asked) -> Answer:
        start = int(asked.query.get("after", "0"))
        following = start + self.size
        return as_json(self.page(start) | {"next": str(following) if following < len(self.items) else None})

    def by_link(self, asked: Asked) -> Answer:
        start = int(asked.query.get("start", "0"))
        following = f'</docs?start={start + self.size}&x=1,2>; rel="next", </docs>; rel="first"'
        more = start + self.size < len(self.items)
        return as_json(self.page(start), link=following if more else '</docs>; rel="first"')

    def by_next_url(self, asked: Asked) -> Answer:
        start = int(asked.query.get("start", "0"))
        more = start + self.size < len(self.items)
        return as_json(self.page(start) | {"next": f"?start={start + self.size}" if more else ""})


PAGINGS = {
    "page": ({"kind": "page"}, Api.by_number),
    "offset": ({"kind": "offset"}, Api.by_offset),
    "cursor": ({"kind": "cursor", "parameter": "after", "next": "$.next"}, Api.by_cursor),
    "link": ({"kind": "link"}, Api.by_link),
    "next_url": ({"kind": "next_url", "next": "$.next"}, Api.by_next_url),
}
SHIFTING = ["page", "offset", "link", "next_url"]


def paged(server: Loopback, api: Api, kind: str, **given: Any) -> RestConnector:
    paging, route = PAGINGS[kind]
    server.routes["/docs"] = lambda asked: route(api, asked)
    return connector(server, paging=paging, **given)


# ---- a listing


def test_a_listing_names_what_the_api_holds() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1), item(2, title=None)]})
        entries, gone, mark = listed(connector(server))
        assert entries["d1"].inline is not None
        assert (entries["d1"].inline.text, entries["d1"].ref.title) == ("Text 1.", "Title 1")
        assert entries["d1"].ref.rule == AccessRule.of(["group:all"])
        assert (entries["d2"].ref.title, gone, mark) == (None, [], Mark(None, complete=True))
        assert server.asked[0].headers["accept"] == "application/json"


def test_an_unchanged_item_keeps_its_fingerprint_and_an_edit_changes_it() -> None:
    with serving() as server:
        prints = []
        for text, views in (("a", 1), ("a", 2), ("b", 2)):
            server.routes["/docs"] = as_json({"items": [item(1, text=text, views=views)]})
            prints.append(listed(connector(server))[0]["d1"].ref.fingerprint)
        assert prints[0] == prints[1] != prints[2]


def test_an_item_that_is_listed_no_more_is_not_named_and_the_listing_is_complete() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": []})
        assert listed(connector(server)) == ({}, [], Mark(None, complete=True))


def test_rights_alone_change_no_fingerprint() -> None:
    with serving() as server:
        found = []
        for groups in (["a"], ["b"]):
            server.routes["/docs"] = as_json({"items": [item(1, groups=groups)]})
            fields = TEXT_FIELDS | {"allow": {"path": "$.groups", "kind": "group"}}
            found.append(listed(connector(server, fields=fields))[0]["d1"].ref)
        assert found[0].fingerprint == found[1].fingerprint
        assert [ref.rule for ref in found] == [AccessRule.of(["group:a"]), AccessRule.of(["group:b"])]


@pytest.mark.parametrize("kind", PAGINGS)
@pytest.mark.parametrize("count", [0, 1, 3, 7, 9])
def test_all_pages_are_read(kind: str, count: int) -> None:
    with serving() as server:
        entries, _, mark = listed(paged(server, Api([item(n) for n in range(count)]), kind))
        assert (set(entries), mark.complete) == ({f"d{n}" for n in range(count)}, True)


def test_a_cursors_pages_are_read_once_and_shifting_pages_until_two_readings_agree() -> None:
    with serving() as server:
        apis = {kind: Api([item(n) for n in range(7)]) for kind in PAGINGS}
        for kind, api in apis.items():
            assert listed(paged(server, api, kind))[2].complete
        assert {kind: api.asked for kind, api in apis.items()} == {
            "page": 8,
            "offset": 8,
            "cursor": 3,
            "link": 6,
            "next_url": 6,
        }


def test_a_total_spares_the_empty_last_page() -> None:
    with serving() as server:
        api = Api([item(n) for n in range(6)], tells_total=True)
        assert listed(paged(server, api, "page", total="$.total"))[2].complete
        assert api.asked == 4


# ---- pages that shift


@pytest.mark.parametrize("kind", SHIFTING)
def test_a_deletion_during_the_listing_makes_nothing_vanish(kind: str) -> None:
    """d0 goes after page 1 was read: d3 moves to page 1, unseen. No id comes twice, no page is short."""
    with serving() as server:
        api = Api([item(n) for n in range(9)])
        api.before_page = lambda number: api.items.pop(0) if number == 2 else None
        entries, _, mark = listed(paged(server, api, kind))
        assert {f"d{n}" for n in range(1, 9)} <= set(entries)
        assert mark.complete  # the second reading missed d0, the third agreed with the second


@pytest.mark.parametrize("kind", SHIFTING)
def test_an_insertion_during_the_listing_names_nothing_twice(kind: str) -> None:
    with serving() as server:
        api = Api([item(n) for n in range(9)])
        api.before_page = lambda number: api.items.insert(0, item(100)) if number == 2 else None
        entries, _, mark = listed(paged(server, api, kind))
        assert set(entries) == {f"d{n}" for n in range(9)} | {"d100"}
        assert mark.complete


@pytest.mark.parametrize("kind", SHIFTING)
def test_a_listing_that_never_stands_still_is_not_complete(kind: str) -> None:
    with serving() as server:
        api = Api([item(n) for n in range(30)])
        api.before_page = lambda number: api.items.pop(0)
        entries, _, mark = listed(paged(server, api, kind))
        assert not mark.complete
        assert len(entries) > 10


@pytest.mark.parametrize("kind", SHIFTING)
def test_a_page_that_empties_once_makes_nothing_vanish(kind: str) -> None:
    with serving() as server:
        api = Api([item(n) for n in range(9)])
        whole = list(api.items)
        api.before_page = lambda number: setattr(api, "items", [] if number == 2 else whole)
        entries, _, mark = listed(paged(server, api, kind))
        assert (set(entries), mark.complete) == ({f"d{n}" for n in range(9)}, True)


def test_an_update_that_moves_an_item_to_the_front_hides_nothing() -> None:
    with serving() as server:
        api = Api([item(n) for n in range(9)])
        api.before_page = lambda number: api.items.insert(0, api.items.pop(7)) if number == 2 else None
        entries, _, mark = listed(paged(server, api, "page"))
        assert (set(entries), mark.complete) == ({f"d{n}" for n in range(9)}, True)


def test_fewer_items_than_the_api_says_it_has_are_not_complete() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1)], "total": 2})
        assert not listed(connector(server, total="$.total"))[2].complete


def test_a_cursors_total_that_changes_makes_it_read_again() -> None:
    with serving() as server:
        api = Api([item(n) for n in range(7)], tells_total=True)
        api.before_page = lambda number: api.items.append(item(50)) if number == 2 else None
        entries, _, mark = listed(paged(server, api, "cursor", total="$.total"))
        assert (len(entries), mark.complete, api.asked) == (8, True, 6)


@pytest.mark.parametrize("kind", ["cursor", "next_url"])
def test_pages_in_a_circle_end(kind: str) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1)], "next": "7" if kind == "cursor" else "/docs?start=3"})
        with pytest.raises(SourceUnavailable, match="circle"):
            listed(connector(server, paging=PAGINGS[kind][0]))


def test_an_api_that_takes_no_notice_of_the_page_is_seen_by_check() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1)]})
        with pytest.raises(ConfigurationError, match="second page"):
            connector(server, paging={"kind": "page"}).check()


# ---- ids


def test_an_id_twice_in_a_page_is_named_twice_for_the_plan_to_refuse() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1), item(1, text="other")]})
        *entries, mark = connector(server).list(None)
        assert [entry.ref.external_id for entry in entries] == ["d1", "d1"]
        assert mark.complete


def test_an_id_on_two_pages_with_other_readers_is_named_twice_for_the_plan_to_refuse() -> None:
    with serving() as server:
        api = Api([item(1, groups=["a"]), item(2, groups=["a"]), item(1, groups=["everybody"])], size=2)
        fields = TEXT_FIELDS | {"allow": {"path": "$.groups", "kind": "group"}}
        *entries, _ = paged(server, api, "page", fields=fields).list(None)
        rules = {entry.ref.rule for entry in entries if entry.ref.external_id == "d1"}
        assert rules == {AccessRule.of(["group:a"]), AccessRule.of(["group:everybody"])}


@pytest.mark.parametrize(
    "bad",
    [None, "", True, 1.5, [], ["a"], {}, {"a": 1}, "x" * 1025, "a\x00b", "without-id:1"],
)
def test_an_item_without_usable_id_is_told_and_nothing_counts_as_deleted(bad: Any) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1), item(2, id=bad), item(3, id=7)]})
        entries, _, mark = listed(connector(server))
        assert set(entries) == {"d1", "without-id:1", "7"}
        assert (entries["without-id:1"].ref.rule, mark.complete) == (NOBODY, False)
        assert "id" in (entries["without-id:1"].error or "")


@pytest.mark.parametrize("bad", ["text", 7, None, [1], True])
def test_an_item_that_is_no_object_is_told(bad: Any) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1), bad]})
        entries, _, mark = listed(connector(server))
        assert (set(entries), mark.complete) == ({"d1", "without-id:1"}, False)


HOSTILE_IDS = [
    "line-3",
    "../../etc/passwd",
    "a/b#c",
    "\u202egnp.exe",
    "x" * 1024,
    "{id}",
    "%2e%2e",
    "ä",
    "\ud800",
    "'; --",
]


def test_hostile_ids_are_names_like_any_other() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1, id=each) for each in HOSTILE_IDS]})
        entries, _, mark = listed(connector(server, link="https://app.example/d/{id}?x=1"))
        assert set(entries) == {each.encode("utf-8", "replace").decode() for each in HOSTILE_IDS}
        assert all(entry.error is None for entry in entries.values())
        assert mark.complete
        assert entries["a/b#c"].ref.uri == "https://app.example/d/a%2Fb%23c?x=1"
        assert entries["../../etc/passwd"].ref.uri == "https://app.example/d/..%2F..%2Fetc%2Fpasswd?x=1"


# ---- fields


def read(value: dict[str, Any], **given: Any) -> Entry:
    entry = ItemReader(settings(**given)).read(value)
    assert isinstance(entry, Entry)
    return entry


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"text": ["a"]}, "text is a list"),
        ({"text": {"a": 1}}, "text is an object"),
        ({"text": True}, "text is true or false"),
        ({"text": ""}, "text is empty"),
        ({"text": None}, "text is empty"),
        ({"text": " \x00\n"}, "text is empty"),
        ({"title": ["a"]}, "title is a list"),
        ({"title": {}}, "title is an object"),
    ],
)
def test_a_field_of_the_wrong_type_is_the_items_error_and_no_others(changed: dict, reason: str) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1) | changed, item(2)]})
        entries, _, mark = listed(connector(server))
        assert reason in (entries["d1"].error or "")
        assert (entries["d2"].error, mark.complete) == (None, True)
        assert entries["d1"].ref.rule == AccessRule.of(["group:all"])


def test_several_paths_make_one_text() -> None:
    fields = {"id": "$.id", "text": ["$.intro", "$.parts[*].body", "$.none"]}
    entry = read({"id": 1, "intro": "One", "parts": [{"body": "Two"}, {"body": 3}, {}]}, fields=fields)
    assert entry.inline is not None
    assert entry.inline.text == "One\n\nTwo\n\n3"


def test_text_and_titles_are_cleaned() -> None:
    entry = read(item(1, text="a\x00b\r\nc\ud800", title="  A\x07 \n title " + "x" * 10_000))
    assert entry.inline is not None
    assert entry.inline.text == "ab\nc"
    assert (entry.ref.title or "").startswith("A title x")
    assert len(entry.ref.title or "") == 200


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://app.example/d/1", "https://app.example/d/1"),
        ("/d/1", "https://api.example/d/1"),
        ("javascript:alert(1)", "https://api.example/docs#d1"),
        ("data:text/html,x", "https://api.example/docs#d1"),
        ("https://u:p@app.example/", "https://api.example/docs#d1"),
        (None, "https://api.example/docs#d1"),
    ],
)
def test_only_links_that_can_be_clicked_are_shown(said: str | None, shown: str) -> None:
    assert read(item(1, link=said), fields=TEXT_FIELDS | {"uri": "$.link"}).ref.uri == shown


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2024-01-02T03:04:05Z", 1704164645),
        ("2024-01-02T04:04:05+01:00", 1704164645),
        ("2024-01-02 03:04:05", 1704164645),
        ("Tue, 02 Jan 2024 03:04:05 GMT", 1704164645),
        ("1704164645", 1704164645),
        ("1704164645000", 1704164645),
        ("yesterday", None),
        ("nan", None),
        ("-1", None),
        ("", None),
        (None, None),
    ],
)
def test_times_are_read(value: str | None, seconds: float | None) -> None:
    assert unix_time(value) == seconds


@pytest.mark.parametrize("value", [True, 1, "true", "2024-01-01T00:00:00Z"])
def test_an_item_marked_as_deleted_is_gone(value: Any) -> None:
    assert ItemReader(settings(fields=TEXT_FIELDS | {"deleted": "$.gone"})).read(item(1, gone=value)) == Gone("d1")


@pytest.mark.parametrize("value", [False, 0, None, "", "false"])
def test_an_item_not_marked_as_deleted_is_there(value: Any) -> None:
    assert read(item(1, gone=value), fields=TEXT_FIELDS | {"deleted": "$.gone"}).error is None


def test_a_deletion_mark_of_the_wrong_type_deletes_nothing() -> None:
    entry = read(item(1, gone=["yes"]), fields=TEXT_FIELDS | {"deleted": "$.gone"})
    assert "deleted is a list" in (entry.error or "")


def test_a_deep_item_is_the_items_error() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = {"a": deep}
    entry = read({"id": "d1", "deep": deep}, fields={"id": "$.id", "text": "$..body"})
    assert "cannot be followed" in (entry.error or "")


# ---- rights


def rule(value: dict[str, Any], **fields: Any) -> AccessRule:
    return read(item(1) | value, fields=TEXT_FIELDS | fields).ref.rule


GROUPS = {"allow": {"path": "$.groups", "kind": "group"}}


@pytest.mark.parametrize(
    ("value", "fields", "expected"),
    [
        ({"groups": ["a", "b"]}, GROUPS, AccessRule.of(["group:a", "group:b"])),
        ({"groups": "a"}, GROUPS, AccessRule.of(["group:a"])),
        ({"groups": [12]}, GROUPS, AccessRule.of(["group:12"])),
        ({"who": ["user:ada", "everyone"]}, {"allow": "$.who"}, AccessRule.of(["user:ada", "everyone"])),
        (
            {"groups": ["a"], "owner": "ada", "not": ["user:bob"]},
            {"allow": [GROUPS["allow"], {"path": "$.owner", "kind": "user"}], "deny": "$.not"},
            AccessRule.of(["group:a", "user:ada"], ["user:bob"]),
        ),
        ({"not": ["user:bob"]}, {"deny": "$.not"}, AccessRule.of(["group:all"], ["user:bob"])),
        ({"not": None}, {"deny": "$.not"}, AccessRule.of(["group:all"])),
        (
            {"g": [{"n": "a"}, {"n": "b"}]},
            {"allow": {"path": "$.g[*].n", "kind": "role"}},
            AccessRule.of(["role:a", "role:b"]),
        ),
        # what is not said is not known
        ({}, GROUPS, NOBODY),
        ({"groups": None}, GROUPS, NOBODY),
        ({"groups": []}, GROUPS, NOBODY),
        ({}, {"deny": "$.not"}, NOBODY),
        ({"groups": ["a"]}, GROUPS | {"deny": "$.not"}, NOBODY),
    ],
)
def test_readers_are_those_the_item_names(value: dict, fields: dict, expected: AccessRule) -> None:
    assert rule(value, **fields) == expected


@pytest.mark.parametrize(
    "who",
    [["finance"], ["team:a"], [7], [True], [{}], [["user:a"]], {"allow": ["user:a"]}, "user:", "user: a", "user:a\x07"]
    + ["user:\u202ea", "group:" + "x" * 300, True, 7, [f"user:{n}" for n in range(10_001)]],
)
def test_malformed_readers_are_nobody_and_an_error(who: Any) -> None:
    entry = read(item(1, who=who), fields=TEXT_FIELDS | {"allow": "$.who"})
    assert (entry.ref.rule, bool(entry.error)) == (NOBODY, True)


# ---- what changed since


def test_a_later_listing_asks_for_what_changed_by_the_apis_own_clock() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1)]}, date=formatdate(1_700_000_000, usegmt=True))
        source = connector(server, since={"parameter": "updated_after", "overlap_s": 100})
        _, _, mark = listed(source)
        assert mark.complete
        assert "updated_after" not in server.asked[0].query
        _, _, again = listed(source, mark.cursor)
        assert server.asked[1].query["updated_after"] == "2023-11-14T22:11:40Z"  # 100 s before
        assert not again.complete


@pytest.mark.parametrize(("format", "expected"), [("unix", "1699999700"), ("unix_ms", "1699999700000")])
def test_times_are_sent_as_the_api_takes_them(format: str, expected: str) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": []}, date=formatdate(1_700_000_000, usegmt=True))
        source = connector(server, since={"parameter": "since", "format": format})
        listed(source, listed(source)[2].cursor)
        assert server.asked[1].query["since"] == expected


@pytest.mark.parametrize("status", [400, 410, 422])
def test_a_time_that_the_api_does_not_take_any_more_lists_everything(status: int) -> None:
    with serving() as server:
        server.routes["/docs"] = lambda asked: (
            Answer(status=status) if "since" in asked.query else as_json({"items": [item(1)]})
        )
        entries, _, mark = listed(connector(server, since={"parameter": "since"}), '{"since": 1000.0}')
        assert (set(entries), mark.complete) == ({"d1"}, True)


@pytest.mark.parametrize("cursor", ["", "no json", "{}", '{"since": "x"}', '{"since": 1e300}', "[]"])
def test_a_cursor_that_is_none_lists_everything(cursor: str) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1)]})
        assert listed(connector(server, since={"parameter": "since"}), cursor)[2].complete
        assert server.asked[0].query == {}


def test_tombstones_are_gone() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1, deleted=True), item(2)]})
        source = connector(server, since={"parameter": "since"}, fields=TEXT_FIELDS | {"deleted": "$.deleted"})
        entries, gone, mark = listed(source, '{"since": 1000.0}')
        assert (set(entries), gone, mark.complete) == ({"d2"}, ["d1"], False)


# ---- one item


def test_looking_at_items_by_their_address() -> None:
    with serving() as server:
        server.routes["/docs/d1"] = as_json({"data": item(1)})
        server.routes["/docs/a%2Fb"] = as_json({"data": item(2, id="a/b")})
        server.routes["/docs/other"] = as_json({"data": item(3)})
        server.routes["/docs/secret"] = Answer(status=403)
        source = connector(server, item_url=server.url + "/docs/{id}", item="$.data")
        seen = list(source.look(["d1", "a/b", "missing", "other", "secret", ".."]))
        assert [each for each in seen if isinstance(each, Gone)] == [Gone("missing"), Gone("..")]
        assert [each.ref.external_id for each in seen if isinstance(each, Entry)] == ["d1", "a/b", "other", "secret"]
        assert [each.ref.rule for each in seen if isinstance(each, Entry) and each.error] == [NOBODY, NOBODY]


def test_looking_without_an_address_reads_the_listing() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1), item(2)]})
        seen = list(connector(server).look(["d2", "d9"]))
        assert isinstance(seen[0], Entry)
        assert (seen[0].ref.external_id, seen[1:]) == ("d2", [Gone("d9")])


def test_looking_in_a_listing_that_shifts_tells_of_nothing_missing() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1), {"text": "no id"}]})
        with pytest.raises(SourceUnavailable):
            list(connector(server).look(["d1", "d9"]))


# ---- texts that are elsewhere

DETAIL = {"fields": {"id": "$.id", "text": "$.body", "version": "$.v"}, "text_in": "item"}


def test_a_text_that_the_item_holds_is_fetched_and_known_by_its_version() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [{"id": "1", "v": 1}, {"id": "2", "v": 1}, {"id": "3"}]})
        server.routes["/docs/1"] = as_json({"id": "1", "v": 1, "body": "The text."})
        server.routes["/docs/2"] = as_json({"id": "2", "v": 1, "body": ["x"]})
        source = connector(server, item_url=server.url + "/docs/{id}", **DETAIL)
        entries, _, mark = listed(source)
        assert source.fetch(entries["1"], 100) == b"The text."
        with pytest.raises(DocumentRejected, match="text is a list"):
            source.fetch(entries["2"], 100)
        with pytest.raises(TooLarge):
            source.fetch(entries["1"], 5)
        assert ("neither" in (entries["3"].error or ""), mark.complete) == (True, True)
        server.routes["/docs"] = as_json({"items": [{"id": "1", "v": 2}]})
        assert listed(source)[0]["1"].ref.fingerprint != entries["1"].ref.fingerprint


def test_html_is_fetched_as_a_page_for_the_parser() -> None:
    with serving() as server:
        one = {"id": "1", "title": "A & B", "text": "<p>Para &amp; graph</p>"}
        server.routes["/docs"] = as_json({"items": [one]})
        server.routes["/docs/1"] = as_json(one)
        source = connector(server, item_url=server.url + "/docs/{id}", text_format="html")
        entry = listed(source)[0]["1"]
        extracted = parse(source.fetch(entry, 10_000), entry.name or "")
        assert extracted.text.strip() == "Para & graph"


@pytest.mark.parametrize("change", [{"v": 2}, {"groups": ["b"]}])
def test_an_item_that_changed_since_it_was_listed_is_not_read_under_its_old_rule(change: dict[str, Any]) -> None:
    fields = DETAIL["fields"] | {"allow": {"path": "$.groups", "kind": "group"}}
    with serving() as server:
        one = {"id": "1", "v": 1, "groups": ["a"], "body": "The text."}
        server.routes["/docs"] = as_json({"items": [one]})
        server.routes["/docs/1"] = as_json(one)
        source = connector(server, item_url=server.url + "/docs/{id}", text_in="item", fields=fields)
        entry = listed(source)[0]["1"]
        assert source.fetch(entry, 100) == b"The text."
        server.routes["/docs/1"] = as_json(one | change)
        with pytest.raises(SourceUnavailable, match="changed while it was read"):
            source.fetch(entry, 100)
        with pytest.raises(ConfigurationError, match="another version or other readers"):
            source.check()


def test_a_file_whose_item_changed_since_it_was_listed_is_not_read_under_its_old_rule() -> None:
    with serving() as server:
        one = {"id": "1", "v": 1, "file": "/f"}
        server.routes |= {"/docs": as_json({"items": [one]}), "/docs/1": as_json(one), "/f": Answer(b"%PDF")}
        source = connector(server, item_url=server.url + "/docs/{id}", **FILES)
        entry = listed(source)[0]["1"]
        assert source.fetch(entry, 100) == b"%PDF"
        server.routes["/docs/1"] = as_json(one | {"v": 2})
        with pytest.raises(SourceUnavailable, match="changed while it was read"):
            source.fetch(entry, 100)


@pytest.mark.parametrize("status", [400, 422])
def test_an_id_that_the_api_does_not_take_leaves_that_item_as_it_was(status: int) -> None:
    with serving() as server:
        server.routes["/docs/d1"] = as_json({}, status)
        server.routes["/docs/d2"] = as_json(item(2))
        source = connector(server, item_url=server.url + "/docs/{id}")
        seen = list(source.look(["d1", "d2", "d3"]))
        assert [each.external_id if isinstance(each, Gone) else each.ref.external_id for each in seen] == ["d2", "d3"]
        server.routes["/docs"] = as_json({"items": [item(1)]})
        with pytest.raises(ConfigurationError, match="item_url"):
            source.check()


FILES = {"fields": {"id": "$.id", "content_url": "$.file", "name": "$.name", "version": "$.v", "title": "$.title"}}


def test_a_file_is_fetched_with_credentials_from_its_own_origin_only(monkeypatch) -> None:
    monkeypatch.setenv("API_TOKEN", SECRET)
    with serving() as server, serving() as store:
        store.routes["*"] = server.routes["/files/1"] = Answer(b"%PDF-1.7")
        server.routes["/files/2"] = Answer(status=302, headers={"location": "/files/1"})
        server.routes["/docs"] = as_json(
            {"items": [{"id": n, "v": 1, "file": f"/files/{n}", "name": "x/a.pdf"} for n in (1, 2)]}
        )
        auth = {"kind": "bearer", "token_env": "API_TOKEN"}
        source = connector(server, auth=auth, content_prefix=server.url + "/files/", **FILES)
        entries, _, _ = listed(source)
        assert (entries["1"].name, source.fetch(entries["1"], 100)) == ("a.pdf", b"%PDF-1.7")
        assert source.fetch(entries["2"], 100) == b"%PDF-1.7"
        with pytest.raises(TooLarge):
            source.fetch(entries["1"], 3)
        assert {asked.headers.get("authorization") for asked in server.asked} == {f"Bearer {SECRET}"}
        # A redirect to another origin without https is not followed, and a private address is not asked.
        server.routes["/files/1"] = Answer(status=302, headers={"location": store.url + "/x"})
        with pytest.raises(DocumentRejected, match="https"):
            source.fetch(entries["1"], 100)
        server.routes["/files/1"] = Answer(status=302, headers={"location": f"https://127.0.0.1:{store.port}/x"})
        with pytest.raises(DocumentRejected, match="public"):
            source.fetch(entries["1"], 100)
        assert store.asked == []


@pytest.mark.parametrize(
    ("path", "prefix", "trusted"),
    [
        ("/files/1", None, False),
        ("/files/1", "/files/", True),
        ("/admin/secrets", "/files/", False),
        ("/files/../admin/secrets", "/files/", False),
        ("/files/..%2Fadmin/secrets", "/files/", False),
        ("/filesystem", "/files/", False),
        ("/files/away", "/files/", False),
    ],
)
def test_only_a_file_below_the_prefix_gets_the_credential(
    monkeypatch: pytest.MonkeyPatch, path: str, prefix: str | None, trusted: bool
) -> None:
    monkeypatch.setenv("API_TOKEN", SECRET)
    with serving() as server:
        server.routes["*"] = Answer(b"%PDF-1.7")
        server.routes["/files/away"] = Answer(status=302, headers={"location": "/admin/secrets"})
        server.routes["/docs"] = as_json({"items": [{"id": 1, "v": 1, "file": path, "name": "a.pdf"}]})
        given = {"auth": {"kind": "bearer", "token_env": "API_TOKEN"}, **FILES}
        source = connector(server, content_prefix=prefix and server.url + prefix, **given)
        assert source.fetch(listed(source)[0]["1"], 100) == b"%PDF-1.7"
        assert ("authorization" in server.asked[-1].headers) == trusted


def test_a_link_never_shows_a_secret_of_the_listings_address() -> None:
    fields = TEXT_FIELDS | {"uri": "$.uri"}
    given = {"url": "https://api.example/docs?api_key=s3cret&project=5", "fields": fields}
    assert read(item(1, uri="#x"), **given).ref.uri == "https://api.example/docs"
    assert read(item(1, uri="/d?project=5"), **given).ref.uri == "https://api.example/d?project=5"
    assert "s3cret" not in read(item(1, uri="/d?api_key=s3cret"), **given).ref.uri


@pytest.mark.parametrize("key", ["url", "item_url", "link", "content_prefix"])
def test_an_address_with_a_user_name_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="user name"):
        settings(**{key: "https://ada:x@api.example/{id}/"})


@pytest.mark.parametrize(
    "url", ["http://other.example/f", "file:///etc/passwd", "javascript:x", "https://u:p@x.example/", 7, None]
)
def test_a_files_address_must_be_https(url: Any) -> None:
    entry = read({"id": "1", "v": 1, "file": url}, **FILES)
    assert (entry.error is None) == (url == 7)  # relative to the API: https://api.example/7


def test_a_new_signature_in_a_files_address_is_no_change() -> None:
    prints = {
        read({"id": "1", "v": 1, "file": f"https://s.example/f?sig={n}"}, **FILES).ref.fingerprint for n in (1, 2)
    }
    assert len(prints) == 1


@pytest.mark.parametrize("status", [404, 410, 403, 418])
def test_a_file_that_cannot_be_had_is_that_documents_trouble(status: int) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [{"id": 1, "v": 1, "file": "/f"}]})
        server.routes["/f"] = Answer(status=status)
        source = connector(server, **FILES)
        with pytest.raises(DocumentRejected):
            source.fetch(listed(source)[0]["1"], 100)


# ---- trouble


@pytest.mark.parametrize(
    "answer",
    [
        Answer("no json"),
        Answer(""),
        Answer("[" * 100_000),
        Answer('{"items": ' + "9" * 5000),
        as_json({"error": "later"}),
        as_json({"items": None}),
        as_json({"items": {}}),
        as_json({"items": "x"}),
        as_json(None),
        as_json([]),
        Answer(status=500),
        Answer(status=503),
        Answer(lambda stream: None),
    ],
    ids=range(13),
)
def test_what_is_no_listing_is_never_an_empty_one(answer: Answer) -> None:
    with serving() as server:
        server.routes["/docs"] = answer
        with pytest.raises(SourceUnavailable):
            list(connector(server).list(None))


def test_a_listing_that_breaks_off_ends_without_a_mark() -> None:
    with serving() as server:
        api = Api([item(n) for n in range(9)])
        source = paged(server, api, "page")
        server.routes["/docs"] = lambda asked: (
            api.by_number(asked) if asked.query["page"] == "1" else Answer(status=500)
        )
        seen = []
        with pytest.raises(SourceUnavailable):
            seen.extend(source.list(None))
        assert not any(isinstance(each, Mark) for each in seen)


def test_later_is_told_with_its_time() -> None:
    with serving() as server:
        server.routes["/docs"] = Answer(status=429, headers={"retry-after": "90"})
        with pytest.raises(SourceUnavailable) as caught:
            list(connector(server).list(None))
        assert caught.value.retry_after_s == 90


def test_a_429_is_waited_for() -> None:
    with serving() as server:
        answers = [Answer(status=429, headers={"retry-after": "0"}), as_json({"items": [item(1)]})]
        server.routes["/docs"] = lambda asked: answers.pop(0)
        assert set(listed(connector(server))[0]) == {"d1"}


def test_a_silent_api_is_unavailable() -> None:
    with serving() as server:
        server.routes["/docs"] = Answer(lambda stream: time.sleep(0.6))
        source = RestConnector(settings(server.url + "/docs"), Patience(read_s=0.2, attempts=1))
        with pytest.raises(SourceUnavailable, match="in time"):
            list(source.list(None))


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_what_an_operator_must_change_is_said(status: int) -> None:
    with serving() as server:
        server.routes["/docs"] = Answer(status=status)
        for ask in (lambda s: s.check(), lambda s: list(s.list(None))):
            with pytest.raises(ConfigurationError, match=str(status)):
                ask(connector(server))


def test_redirects_stay_within_the_api() -> None:
    with serving() as server, serving() as other:
        server.routes["/new"] = as_json({"items": [item(1)]})
        server.routes["/docs"] = Answer(status=308, headers={"location": "/new"})
        assert set(listed(connector(server))[0]) == {"d1"}
        other.routes["*"] = as_json({"items": [item(666)]})
        for location in (other.url + "/docs", "//evil.example/", "https://127.0.0.1/"):
            server.routes["/docs"] = Answer(status=302, headers={"location": location})
            with pytest.raises(ConfigurationError, match="redirects"):
                list(connector(server).list(None))
        server.routes["/docs"] = Answer(status=302, headers={"location": "/docs"})
        with pytest.raises(ConfigurationError, match="more than 5"):
            list(connector(server).list(None))
        assert other.asked == []


@pytest.mark.parametrize("kind", ["link", "next_url"])
def test_a_next_page_elsewhere_is_not_asked(kind: str) -> None:
    with serving() as server, serving() as other:
        target = other.url + "/docs?page=2"
        server.routes["/docs"] = as_json({"items": [item(1)], "next": target}, link=f'<{target}>; rel="next"')
        with pytest.raises(ConfigurationError, match="next page"):
            list(connector(server, paging=PAGINGS[kind][0]).list(None))
        assert other.asked == []


def test_a_page_that_is_too_large_is_an_operators_matter() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1, text="x" * 20_000)]})
        with pytest.raises(ConfigurationError, match="max_page_mb"):
            list(connector(server, max_page_mb=0.01).list(None))


# ---- credentials


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"kind": "bearer", "token_env": "API_SECRET"}, "authorization", f"Bearer {SECRET}"),
        ({"kind": "header", "name": "X-API-Key", "value_env": "API_SECRET"}, "x-api-key", SECRET),
        (
            {"kind": "basic", "user": "ada", "password_env": "API_SECRET"},
            "authorization",
            "Basic " + base64.b64encode(f"ada:{SECRET}".encode()).decode(),
        ),
    ],
)
def test_credentials_come_from_the_environment(monkeypatch, auth: dict, header: str, value: str) -> None:
    monkeypatch.setenv("API_SECRET", SECRET)
    with serving() as server:
        server.routes["/docs"] = as_json({"items": []})
        source = connector(server, auth=auth, headers={"X-Version": "2"})
        list(source.list(None))
        assert server.asked[0].headers[header] == value
        assert server.asked[0].headers["x-version"] == "2"


def test_a_missing_credential_names_its_variable(monkeypatch) -> None:
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    with serving() as server:
        source = connector(server, auth={"kind": "bearer", "token_env": "NO_SUCH_SECRET"})
        with pytest.raises(ConfigurationError, match="NO_SUCH_SECRET"):
            source.check()
        assert server.asked == []


def test_a_credential_that_ends_is_no_documents_fault(monkeypatch) -> None:
    monkeypatch.setenv("API_SECRET", SECRET)
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [{"id": "1", "v": 1}]})
        server.routes["/docs/1"] = Answer(status=401)
        auth = {"kind": "bearer", "token_env": "API_SECRET"}
        source = connector(server, item_url=server.url + "/docs/{id}", auth=auth, **DETAIL)
        with pytest.raises(ConfigurationError, match="auth"):
            source.fetch(listed(source)[0]["1"], 100)


# ---- check and settings


def test_check_is_content_with_what_works() -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1)]})
        server.routes["/docs/d1"] = as_json(item(1))
        connector(server, item_url=server.url + "/docs/{id}").check()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fields": {"id": "$.nr", "text": "$.text"}}, "fields.id"),
        ({"fields": {"id": "$.id", "text": "$.body"}}, "text is empty"),
        ({"item_url": "/nowhere/{id}"}, "item_url"),
    ],
)
def test_check_names_what_is_wrong(given: dict, words: str) -> None:
    with serving() as server:
        server.routes["/docs"] = as_json({"items": [item(1)]})
        if "item_url" in given:
            given = {"item_url": server.url + given["item_url"]}
        with pytest.raises(ConfigurationError, match=words):
            connector(server, **given).check()


def test_nothing_is_watched() -> None:
    assert RestConnector(settings()).watch() is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": "http://api.example/docs"}, "https"),
        ({"url": "https://user:pw@api.example/"}, "user name"),
        ({"url": "ftp://api.example/"}, "http"),
        ({"method": "POST"}, "GET"),
        ({"headers": {"Authorization": "Bearer x"}}, "auth"),
        ({"headers": {"X-API-Key": "x"}}, "auth"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "X-A"),
        ({"headers": {"X A": "a"}}, "header"),
        ({"auth": {"kind": "bearer", "token": "x"}}, "token"),
        ({"auth": {"kind": "bearer"}}, "exactly one"),
        ({"auth": {"kind": "basic", "user": "a:b", "password_env": "X"}}, "user"),
        ({"auth": {"kind": "header", "name": "a b", "value_env": "X"}}, "header"),
        ({"items": "items"}, "JSONPath"),
        ({"items": ""}, "JSONPath"),
        ({"items": "$.["}, "JSONPath"),
        ({"fields": {"id": "$.id"}}, "exactly one"),
        ({"fields": TEXT_FIELDS | {"content_url": "$.f"}}, "exactly one"),
        ({"fields": {"id": "$.id", "content_url": "$.f"}}, "version or updated"),
        ({"text_in": "item"}, "item_url"),
        ({"text_format": "html"}, "item_url"),
        ({"item_url": "https://api.example/docs/1"}, "{id}"),
        ({"item_url": "https://other.example/{id}"}, "item_url must have"),
        ({"link": "javascript:{id}"}, "http"),
        ({"allow_private": ["0.0.0.0/0"]}, "private"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**given)


@pytest.mark.parametrize("url", ["http://localhost:8000/docs", "http://127.0.0.1/docs", "http://[::1]:1/docs"])
def test_loopback_needs_no_https(url: str) -> None:
    assert settings(url).api.is_loopback


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a.example/?page=2>; rel="next"', "https://a.example/?page=2"),
        ("</a>; rel=prev, </b>; rel=next", "/b"),
        ('</a,b>; title="x"; rel="last next"', "/a,b"),
        ('</a>; rel="nextish"', None),
        ("<" * 50_000, None),
        ("", None),
    ],
)
def test_link_headers(header: str, target: str | None) -> None:
    assert next_link(header) == target


def test_query_parameters_are_set_in_place() -> None:
    assert with_parameters("https://a.example/x?page=1&q=a%20b&e=", {"page": "2"}) == (
        "https://a.example/x?q=a%20b&e=&page=2"
    )
