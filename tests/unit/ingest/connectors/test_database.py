from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url

from ingest.connector import Entry, Gone, Mark
from ingest.connectors.database import DatabaseConnector, DatabaseSettings
from ingest.connectors.database_documents import NO_ID
from ingest.connectors.database_notify import trigger_sql
from ingest.parsing import parse
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, RightsUnreadable, SourceUnavailable, TooLarge

ROOT = Path(__file__).parents[4]
NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(days=30)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Source:
    """A database as those see it who write to it, and connectors that read it."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.engine: Engine = create_engine(url)
        self.is_postgresql = self.engine.dialect.name == "postgresql"
        self._monkeypatch = monkeypatch

    def run(self, sql: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(sql), values)

    def script(self, sql: str) -> None:
        """Statements with nothing to bind: colons and percent signs stand for themselves."""
        with self.engine.begin() as connection:
            connection.connection.cursor().execute(sql)

    def settings(self, **changes: Any) -> DatabaseSettings:
        self._monkeypatch.setenv("CRM_DATABASE_URL", self.url)
        values = {
            "kind": "database",
            "name": "crm",
            "tenant": "acme",
            "url_env": "CRM_DATABASE_URL",
            "table": "tickets",
            "id_column": "id",
            "text_columns": ["body"],
            **changes,
        }
        if "query" in changes:
            del values["table"]
        return DatabaseSettings.model_validate(values)

    def connector(self, **changes: Any) -> DatabaseConnector:
        return DatabaseConnector(self.settings(**changes))


@pytest.fixture
def source(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    source = Source(database_url, monkeypatch)
    yield source
    source.engine.dispose()


@pytest.fixture
def tickets(source: Source) -> Source:
    time_type = "timestamptz" if source.is_postgresql else "text"
    source.run(
        f"CREATE TABLE tickets (id integer PRIMARY KEY, subject text, body text, changed {time_type}, closed boolean,"
        " readers text, excluded text)"
    )
    return source


TICKETS: dict[str, Any] = {
    "title_column": "subject",
    "updated_column": "changed",
    "deleted_column": "closed",
    "allow_columns": ["readers"],
    "deny_columns": ["excluded"],
    "uri": "https://crm.example/tickets/{id}",
}


def put(source: Source, id_: int, body: str | None = "text", at: datetime | None = LONG_AGO, **more: Any) -> None:
    row = {"subject": None, "closed": None, "readers": "everyone", "excluded": None, **more}
    changed = at if at is None or source.is_postgresql else at.isoformat(sep=" ")
    source.run("DELETE FROM tickets WHERE id = :id", id=id_)
    source.run(
        "INSERT INTO tickets VALUES (:id, :subject, :body, :changed, :closed, :readers, :excluded)",
        id=id_,
        body=body,
        changed=changed,
        **row,
    )


def listed(connector: DatabaseConnector, cursor: str | None = None) -> tuple[dict[str, Entry | Gone], Mark]:
    """A listing by id; fails where an id comes twice or no mark ends it."""
    by_id: dict[str, Entry | Gone] = {}
    listing = connector.list(cursor)
    for item in listing:
        if isinstance(item, Mark):
            assert list(listing) == []
            return by_id, item
        assert id_of(item) not in by_id
        by_id[id_of(item)] = item
    pytest.fail("the listing has no mark")


def id_of(item: Entry | Gone | Mark) -> str:
    assert not isinstance(item, Mark)
    return item.external_id if isinstance(item, Gone) else item.ref.external_id


def entry_of(item: Entry | Gone | Mark) -> Entry:
    assert isinstance(item, Entry)
    return item


def body_of(item: Entry | Gone | Mark) -> str:
    inline = entry_of(item).inline
    assert inline is not None
    return inline.text


def only(items: Iterator[Entry | Gone]) -> Entry:
    [item] = items
    return entry_of(item)


# ---- listing


def test_first_listing_names_every_row_with_its_text_readers_and_address(tickets: Source) -> None:
    put(tickets, 1, "The pump leaks.", subject="Pump", readers="group:service, user:ada", excluded="user:bob")
    put(tickets, 2, "Nothing.", at=None)

    items, mark = listed(tickets.connector(**TICKETS))

    first = entry_of(items["1"])
    assert (first.ref.tenant, first.ref.source, first.ref.uri) == ("acme", "crm", "https://crm.example/tickets/1")
    assert first.inline is not None
    assert (first.inline.title, first.inline.text) == ("Pump", "The pump leaks.")
    assert first.ref.rule == AccessRule.of(["group:service", "user:ada"], ["user:bob"])
    assert first.changed_at == LONG_AGO.timestamp()
    assert entry_of(items["2"]).changed_at is None
    assert (set(items), mark.complete) == ({"1", "2"}, True)


def test_next_listing_names_what_changed_since_and_not_what_rests(tickets: Source) -> None:
    for id_ in range(1, 5):
        put(tickets, id_, at=LONG_AGO + timedelta(days=id_))
    connector = tickets.connector(**TICKETS)
    _, mark = listed(connector)
    put(tickets, 2, "another text", at=NOW)
    put(tickets, 9, "a new one", at=NOW)

    items, mark = listed(connector, mark.cursor)

    assert set(items) == {"2", "4", "9"}  # 4 is the newest that the first listing saw: it lies in the overlap
    assert body_of(items["2"]) == "another text"
    assert not mark.complete
    assert set(listed(connector, mark.cursor)[0]) == {"2", "9"}


def test_fingerprint_follows_the_content_and_nothing_else(tickets: Source) -> None:
    put(tickets, 1, "text", subject="Title")
    connector = tickets.connector(**TICKETS)

    def fingerprint() -> str:
        return entry_of(listed(connector)[0]["1"]).ref.fingerprint

    before = fingerprint()
    put(tickets, 1, "text", at=NOW, subject="Title", readers="group:few", excluded="user:ada")
    assert fingerprint() == before
    put(tickets, 1, "texts", subject="Title")
    edited = fingerprint()
    put(tickets, 1, "text", subject="Other title")
    assert len({before, edited, fingerprint()}) == 3


def test_change_of_rights_alone_is_listed_with_the_new_rule(tickets: Source) -> None:
    put(tickets, 1, readers="everyone")
    connector = tickets.connector(**TICKETS)
    items, mark = listed(connector)
    put(tickets, 1, readers="group:few", at=NOW)

    changed = entry_of(listed(connector, mark.cursor)[0]["1"])

    assert changed.ref.rule == AccessRule.of(["group:few"])
    assert changed.ref.fingerprint == entry_of(items["1"]).ref.fingerprint


def test_deleted_row_is_missing_in_a_full_listing_and_gone_when_looked_at(tickets: Source) -> None:
    put(tickets, 1)
    put(tickets, 2)
    connector = tickets.connector(**TICKETS)
    _, mark = listed(connector)
    tickets.run("DELETE FROM tickets WHERE id = 1")

    assert "1" not in listed(connector, mark.cursor)[0]
    items, full = listed(connector)
    assert (set(items), full.complete) == ({"2"}, True)
    assert list(connector.look(["1"])) == [Gone("1")]


def test_softly_deleted_row_is_gone_in_the_next_listing_and_comes_back(tickets: Source) -> None:
    put(tickets, 1)
    connector = tickets.connector(**TICKETS)
    _, mark = listed(connector)
    put(tickets, 1, closed=True, at=NOW)

    items, mark = listed(connector, mark.cursor)
    assert items == {"1": Gone("1")}
    assert list(connector.look(["1"])) == [Gone("1")]

    put(tickets, 1, closed=False, at=NOW)
    assert isinstance(listed(connector, mark.cursor)[0]["1"], Entry)


def test_deleted_column_may_be_text_number_or_time(source: Source) -> None:
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text, gone text, code integer, at timestamp)")
    kept, deleted = (None, "", "0", "false", "No"), ("yes", "2026-01-01", "deleted")
    for id_, value in enumerate((*kept, *deleted)):
        source.run("INSERT INTO tickets VALUES (:id, 'text', :gone, :id, NULL)", id=id_, gone=value)
    source.run("UPDATE tickets SET at = '2026-01-01' WHERE id = 7")
    for column, there in (("gone", {"0", "1", "2", "3", "4"}), ("code", {"0"}), ("at", set("0123456"))):
        items, _ = listed(source.connector(deleted_column=column))
        assert {key for key, item in items.items() if isinstance(item, Entry)} == there


def test_rows_without_a_time_of_change_are_in_every_listing(tickets: Source) -> None:
    put(tickets, 1, at=None)
    put(tickets, 2, at=LONG_AGO)
    put(tickets, 3, at=NOW - timedelta(days=1))
    connector = tickets.connector(**TICKETS)
    _, mark = listed(connector)
    assert set(listed(connector, mark.cursor)[0]) == {"1", "3"}


def test_table_in_which_no_row_has_a_time_is_listed_whole_each_time(tickets: Source) -> None:
    put(tickets, 1, at=None)
    connector = tickets.connector(**TICKETS)
    _, mark = listed(connector)
    assert mark == Mark(None, complete=True)


def test_empty_table_is_listed_to_its_end_and_filled_later(tickets: Source) -> None:
    connector = tickets.connector(**TICKETS)
    connector.check()
    assert listed(connector) == ({}, Mark(None, complete=True))
    assert list(connector.look(["1"])) == [Gone("1")]
    put(tickets, 1)
    assert set(listed(connector)[0]) == {"1"}


def test_without_an_updated_column_each_listing_is_complete(tickets: Source) -> None:
    put(tickets, 1)
    connector = tickets.connector()
    assert listed(connector)[1] == Mark(None, complete=True)
    assert listed(connector, '{"settings": "x"}')[1].complete


# ---- pages, clocks and late commits


@pytest.mark.parametrize("page_rows", [1, 3, 7])
def test_rows_of_one_time_are_listed_once_each_across_page_borders(tickets: Source, page_rows: int) -> None:
    for id_ in range(7):
        put(tickets, id_, at=LONG_AGO)
    connector = tickets.connector(**TICKETS, page_rows=page_rows)
    items, mark = listed(connector)
    assert len(items) == 7
    assert set(listed(connector, mark.cursor)[0]) == set(items)


@pytest.mark.parametrize("incremental", [False, True])
def test_rows_changed_while_the_pages_are_read_are_neither_lost_nor_named_twice(
    tickets: Source, incremental: bool
) -> None:
    for id_ in range(1, 21):
        put(tickets, id_, "old", at=NOW - timedelta(minutes=5))
    connector = tickets.connector(**TICKETS, page_rows=4)
    cursor = listed(connector)[1].cursor if incremental else None
    named: list[Entry | Gone] = []
    mark = None
    for number, item in enumerate(connector.list(cursor)):
        if isinstance(item, Mark):
            mark = item
            break
        named.append(item)
        if number == 9:
            later = datetime.now(UTC)
            put(tickets, 2, "behind us", at=later)
            put(tickets, 18, "before us", at=later)
            put(tickets, 0, "new, behind us", at=later)
            put(tickets, 30, "new, before us", at=later)
            tickets.run("DELETE FROM tickets WHERE id IN (3, 17)")
    ids = [int(id_of(item)) for item in named]
    assert ids == sorted(set(ids))
    assert set(range(1, 21)) - {17} <= set(ids)
    assert mark is not None
    assert {"0", "2", "18", "30"} <= set(listed(connector, mark.cursor)[0])


@on_postgresql
def test_transaction_that_commits_after_a_newer_one_was_seen_is_listed(tickets: Source) -> None:
    connector = tickets.connector(**TICKETS)
    hasty = tickets.connector(**TICKETS, overlap_s=0)
    insert = text("INSERT INTO tickets VALUES (:id, NULL, :body, now(), NULL, 'everyone', NULL)")
    with tickets.engine.connect() as slow, tickets.engine.connect() as fast:
        slow.execute(insert, {"id": 1, "body": "began first"})  # now() is when its transaction began
        time.sleep(0.01)
        fast.execute(insert, {"id": 2, "body": "committed first"})
        fast.commit()
        items, mark = listed(connector)
        _, hasty_mark = listed(hasty)
        assert set(items) == {"2"}
        slow.commit()
    assert set(listed(connector, mark.cursor)[0]) == {"1", "2"}
    assert set(listed(hasty, hasty_mark.cursor)[0]) == {"2"}  # what the overlap is for


def test_writer_whose_clock_runs_behind_is_heard_within_the_overlap(tickets: Source) -> None:
    put(tickets, 1, at=NOW)
    connector = tickets.connector(**TICKETS, overlap_s=600)
    _, mark = listed(connector)
    put(tickets, 2, at=NOW - timedelta(minutes=9))
    put(tickets, 3, at=NOW - timedelta(minutes=11))
    items, mark = listed(connector, mark.cursor)
    assert set(items) == {"1", "2"}
    assert "3" in listed(connector)[0]


def test_writer_whose_clock_runs_ahead_does_not_hide_the_others(tickets: Source) -> None:
    put(tickets, 1, at=NOW + timedelta(days=3650))
    connector = tickets.connector(**TICKETS, overlap_s=0)  # as where more time passes than the overlap covers
    _, mark = listed(connector)
    put(tickets, 2, at=datetime.now(UTC))
    time.sleep(0.02)
    items, mark = listed(connector, mark.cursor)
    assert set(items) == {"1", "2"}
    put(tickets, 3, at=datetime.now(UTC))
    assert "3" in listed(connector, mark.cursor)[0]


def test_clock_that_was_set_back_does_not_hide_later_changes(tickets: Source) -> None:
    put(tickets, 1, at=NOW)
    connector = tickets.connector(**TICKETS)
    said = json.loads(str(listed(connector)[1].cursor))
    said["watermark"]["at"] += 3_600_000_000  # as a server would have written whose clock ran an hour ahead
    put(tickets, 2, at=datetime.now(UTC))
    assert "2" in listed(connector, json.dumps(said))[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 6), st.floats(0, 599)),
            st.tuples(st.just("list"), st.just(0), st.just(0.0)),
        ),
        max_size=25,
    ),
    page_rows=st.integers(1, 4),
)
@on_sqlite
def test_any_history_of_late_writers_ends_with_the_newest_text_of_each_row(
    source: Source, history: list[tuple[str, int, float]], page_rows: int
) -> None:
    source.run("DROP TABLE IF EXISTS tickets")
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text, changed text)")
    connector = source.connector(updated_column="changed", page_rows=page_rows, overlap_s=601)
    heard: dict[str, str] = {}
    cursor: str | None = None
    for step, (what, id_, late_s) in enumerate([*history, ("list", 0, 0.0)]):
        if what == "list":
            items, mark = listed(connector, cursor)
            heard.update({key: body_of(item) for key, item in items.items()})
            cursor = mark.cursor
        else:
            at = (datetime.now(UTC) - timedelta(seconds=late_s)).isoformat()
            source.run("DELETE FROM tickets WHERE id = :id", id=id_)
            source.run("INSERT INTO tickets VALUES (:id, :body, :at)", id=id_, body=f"step {step}", at=at)
    with source.engine.connect() as connection:
        rows = connection.execute(text("SELECT id, body FROM tickets")).all()
    assert heard == {str(row.id): row.body for row in rows}


@pytest.mark.parametrize(
    ("column", "old", "older", "new", "more"),
    [
        ("bigint", "1700000000", "1600000000", "1700000500", {"updated_unit": "s"}),
        ("bigint", "1700000000000", "1600000000000", "1700000500000", {"updated_unit": "ms"}),
        ("numeric", "1700000000.5", "1600000000.25", "1700000500.5", {"updated_unit": "s"}),
        ("bigint", "70000", "60000", "70001", {}),
        ("text", "'2023-11-14T22:13:20Z'", "'2020-01-01T00:00:00Z'", "'2023-11-14T22:13:21.5Z'", {}),
        ("text", "'2023-11-14 22:13:20'", "'2020-01-01 00:00:00'", "'2023-11-14 22:13:21'", {}),
        ("text", "'2023-11-14T22:13:20Z'", "'2020-01-01T00:00:00Z'", "'2023-11-14 22:20:00'", {}),
        ("text", "'2023-11-14'", "'2020-01-01'", "'2023-11-14'", {}),
        ("text", "'2023-11-14T10:00:00-05:00'", "'2020-01-01T00:00:00-05:00'", "'2023-11-14T10:01:00-05:00'", {}),
        ("date", "'2023-11-14'", "'2020-01-01'", "'2023-11-14'", {}),
        ("timestamp", "'2023-11-14 22:13:20'", "'2020-01-01 00:00:00'", "'2023-11-14 22:13:20'", {}),
        ("timestamp", "'2023-11-14 22:13:20'", "'2020-01-01'", "'2023-11-14 22:14:00'", {"updated_zone": "Asia/Tokyo"}),
    ],
)
def test_time_of_change_may_be_of_many_types(
    source: Source, column: str, old: str, older: str, new: str, more: dict[str, Any]
) -> None:
    source.run(f"CREATE TABLE tickets (id integer PRIMARY KEY, body text, changed {column})")
    source.run(f"INSERT INTO tickets VALUES (1, 'older', {older}), (2, 'old', {old})".replace(":", "\\:"))
    connector = source.connector(updated_column="changed", **more)
    connector.check()
    _, mark = listed(connector)
    source.run(f"INSERT INTO tickets VALUES (3, 'new', {new})".replace(":", "\\:"))
    items, _ = listed(connector, mark.cursor)
    assert set(items) == {"2", "3"}
    is_counter = column == "bigint" and not more
    changed_at = entry_of(items["2"]).changed_at
    assert (
        (changed_at is None) if is_counter else (changed_at is not None and 1_699_900_000 < changed_at < 1_700_100_000)
    )


def test_local_times_of_after_the_end_of_summer_time_are_listed(source: Source) -> None:
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text, changed timestamp)")
    source.run("INSERT INTO tickets VALUES (1, 'at 02\\:50 in summer', '2025-10-26 02\\:50\\:00')")
    connector = source.connector(updated_column="changed", updated_zone="Europe/Berlin")
    _, mark = listed(connector)
    source.run("INSERT INTO tickets VALUES (2, 'twenty minutes later', '2025-10-26 02\\:10\\:00')")
    assert "2" in listed(connector, mark.cursor)[0]


@on_sqlite
def test_column_of_times_and_numbers_has_no_order_and_is_listed_whole(source: Source) -> None:
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text, changed)")
    source.run("INSERT INTO tickets VALUES (1, 'a', '2023-11-14'), (2, 'b', 5)")
    assert listed(source.connector(updated_column="changed"))[1] == Mark(None, complete=True)


# ---- cursors


@on_sqlite
def test_cursor_that_is_not_known_begins_again(tickets: Source) -> None:
    put(tickets, 1)
    connector = tickets.connector(**TICKETS)
    ours = json.loads(str(listed(connector)[1].cursor))
    watermarks: list[Any] = [7, None, [], {"at": 1}]
    for key, value in (("kind", "never"), ("kind", []), ("at", "x"), ("at", True), ("at", 2**70), ("offset_us", 0.5)):
        watermarks.append({**ours["watermark"], key: value})
    cursors = ["", "{", "[" * 100_000, "null", "[]", "{}", '{"settings": 1}', "not ours"]
    cursors += [json.dumps({**ours, "watermark": watermark}) for watermark in watermarks]
    for cursor in cursors:
        items, mark = listed(connector, cursor)
        assert (set(items), mark.complete) == ({"1"}, True), cursor[:100]
    assert not listed(connector, json.dumps(ours))[1].complete


@pytest.mark.parametrize(
    "change",
    [
        {"text_columns": ["body", "subject"]},
        {"acl": ["group:new"]},
        {"uri": "https://other.example/{id}"},
        {"updated_zone": "Asia/Tokyo"},
        {"inline_bytes": 1},
    ],
    ids=lambda change: next(iter(change)),
)
@on_sqlite
def test_changed_settings_list_everything_again(tickets: Source, change: dict[str, Any]) -> None:
    put(tickets, 1)
    _, mark = listed(tickets.connector(**TICKETS))
    assert not listed(tickets.connector(**TICKETS, poll_s=1.0, page_rows=7), mark.cursor)[1].complete
    assert listed(tickets.connector(**{**TICKETS, **change}), mark.cursor)[1].complete


def test_cursor_of_another_database_begins_again(tickets: Source) -> None:
    put(tickets, 1)
    _, mark = listed(tickets.connector(**TICKETS))
    elsewhere = make_url(tickets.url)
    if tickets.is_postgresql:
        tickets.url = elsewhere.update_query_dict({"host": f"/tmp,{elsewhere.query['host']}"}).render_as_string(False)
    else:
        copy = Path(str(elsewhere.database)).with_name("copy.sqlite")
        copy.write_bytes(Path(str(elsewhere.database)).read_bytes())
        tickets.url = f"sqlite:///{copy}"
    assert listed(tickets.connector(**TICKETS), mark.cursor)[1].complete


# ---- ids


IN_SQLITE = ("integer", "text", "varchar(40)")
IDS: list[tuple[str, list[str], list[str]]] = [
    ("integer", ["1", "-7", "2147483647"], ["01", "1.0", "1e0", "x", "", "9" * 30, "１", "1; DROP TABLE tickets"]),
    ("text", ["a/b", "../x", "line-3", "Ä", "%41", "' OR 1=1 --", "x" * 1000], ["a", "A/B", "a\x00b", "\ud800", "%"]),
    ("numeric(20,0)", ["18446744073709551615", "0"], ["1_8", "NaN", "Infinity", "1e5", " 0"]),
    ("uuid", ["7d444840-9dc0-11d1-b245-5ffdce74fad2"], ["7d444840", "", "{", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
    ("bytea", ["00ff", "6162"], ["zz", "0", "ab"]),
    ("char(8)", ["short", "longer12"], ["shor", "shorter_"]),
    ("varchar(40)", ["b", "B", "a", "_", "ä"], ["c"]),
]


@pytest.mark.parametrize(
    ("database_url", "column", "ids", "others"),
    [("postgresql", *row) for row in IDS] + [("sqlite", *row) for row in IDS if row[0] in IN_SQLITE],
    indirect=["database_url"],
)
def test_ids_of_many_types_are_listed_and_looked_at(
    source: Source, column: str, ids: list[str], others: list[str]
) -> None:
    source.run(f"CREATE TABLE tickets (id {column} PRIMARY KEY, body text)")
    for value in ids:
        bound = bytes.fromhex(value) if column == "bytea" else value
        source.run(f"INSERT INTO tickets VALUES (CAST(:id AS {column}), :body)", id=bound, body=f"body of {value}")
    connector = source.connector(page_rows=1)
    connector.check()

    assert set(listed(connector)[0]) == set(ids)
    looked = list(connector.look([*ids, *others]))

    assert {id_of(item): body_of(item) for item in looked if isinstance(item, Entry)} == {
        value: f"body of {value}" for value in ids
    }
    assert {item.external_id for item in looked if isinstance(item, Gone)} == set(others)


@on_postgresql
def test_uuid_is_found_in_the_form_in_which_somebody_else_writes_it(source: Source) -> None:
    source.run("CREATE TABLE tickets (id uuid PRIMARY KEY, body text)")
    known = uuid.uuid4()
    source.run("INSERT INTO tickets VALUES (:id, 'text')", id=known)
    assert [id_of(item) for item in source.connector().look([str(known).upper()])] == [str(known)]


@on_sqlite
def test_sqlite_may_keep_numbers_and_text_in_one_column(source: Source) -> None:
    source.run("CREATE TABLE tickets (id PRIMARY KEY, body text)")
    source.run("INSERT INTO tickets VALUES (5, 'a'), ('six', 'b'), ('07', 'c')")
    connector = source.connector(page_rows=1)
    assert set(listed(connector)[0]) == {"5", "six", "07"}
    assert {id_of(item) for item in connector.look(["5", "six", "07"]) if isinstance(item, Entry)} == {"5", "six", "07"}
    assert list(connector.look(["7", "05"])) == [Gone("7"), Gone("05")]


def test_many_ids_are_looked_at_in_one_call(tickets: Source) -> None:
    for id_ in range(3):
        put(tickets, id_)
    looked = list(tickets.connector().look([str(number) for number in range(1_200)] * 2))
    assert (sum(isinstance(item, Entry) for item in looked), len(looked)) == (3, 1_200)


def test_ids_that_cannot_go_on_are_errors_and_leave_their_neighbours_alone(source: Source) -> None:
    source.run("CREATE TABLE tickets (id text, body text)")
    source.run("INSERT INTO tickets VALUES ('', 'a'), (:long, 'b'), ('c', 'c'), (NULL, 'd')", long="x" * 5_000)
    items, mark = listed(source.connector(page_rows=1, acl=["everyone"]))
    assert {key for key, item in items.items() if entry_of(item).error is None} == {"c"}
    assert len(items) == 4
    assert "NULL" in str(entry_of(items[NO_ID]).error)
    assert all(len(key) < 100 for key in items)
    assert mark.complete


# ---- the same id twice


@pytest.mark.parametrize("page_rows", [1, 2, 50])
def test_id_that_stands_in_several_rows_is_one_error_that_nobody_reads(source: Source, page_rows: int) -> None:
    source.run("CREATE TABLE tickets (id integer, body text, readers text, gone integer)")
    source.run(
        "INSERT INTO tickets VALUES (1, 'a', 'everyone', 0), (2, 'secret', 'group:few', 0), (2, 'x', 'everyone', 0),"
        " (2, 'y', 'everyone', 0), (3, 'old', 'everyone', 1), (3, 'now', 'everyone', 0), (3, 'older', 'everyone', 1),"
        " (4, 'd', 'everyone', 1), (4, 'd', 'everyone', 1), (5, 'e', 'everyone', 0)"
    )
    connector = source.connector(page_rows=page_rows, allow_columns=["readers"], deleted_column="gone")
    items, _ = listed(connector)

    twice = entry_of(items["2"])
    assert (twice.error, twice.ref.rule, twice.inline) == ("the same id twice in this source", NOBODY, None)
    assert body_of(items["3"]) == "now"
    assert items["4"] == Gone("4")
    assert body_of(items["1"]) == "a" and body_of(items["5"]) == "e"
    assert {id_of(item): entry_of(item).error for item in connector.look(["2"])} == {"2": twice.error}
    with pytest.raises(DocumentRejected, match="twice"):
        connector.fetch(replace(twice, location="2"), 1_000)


def test_check_refuses_an_id_column_that_is_not_unique(source: Source) -> None:
    source.run("CREATE TABLE tickets (id integer, body text)")
    source.run("INSERT INTO tickets VALUES (1, 'a'), (2, 'b')")
    connector = source.connector()
    connector.check()
    source.run("INSERT INTO tickets VALUES (2, 'c')")
    with pytest.raises(ConfigurationError, match="'id' is not unique"):
        connector.check()


# ---- text


def test_several_columns_are_joined_under_their_headings(source: Source) -> None:
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, state text, due_on date, notes text, empty text)")
    source.run("INSERT INTO tickets VALUES (1, 'open', '2026-03-01', :notes, NULL)", notes="One.\r\nTwo.")
    named = only(source.connector(text_columns=["state", "due_on", "empty", "notes"]).look(["1"]))
    assert body_of(named) == "state: open\n\ndue on: 2026-03-01\n\nnotes:\nOne.\nTwo."
    given = only(source.connector(text_columns={"notes": "What happened", "state": "State"}).look(["1"]))
    assert body_of(given) == "What happened:\nOne.\nTwo.\n\nState: open"


def test_row_with_a_title_alone_is_searchable_by_it_and_one_with_neither_is_an_error(tickets: Source) -> None:
    put(tickets, 1, None, subject="Pump leaks")
    put(tickets, 2, "  \n ", subject=None)
    connector = tickets.connector(**TICKETS, acl=["everyone"])
    items, _ = listed(connector)
    assert body_of(items["1"]) == "Pump leaks"
    empty = entry_of(items["2"])
    assert (empty.error, empty.ref.rule) == ("text is empty", AccessRule.of(["everyone"]))


def test_long_text_is_fetched_when_it_is_due(tickets: Source) -> None:
    put(tickets, 1, "ä" * 5_000, subject="Long")
    connector = tickets.connector(**TICKETS, inline_bytes=9_999)
    entry = only(connector.look(["1"]))
    assert (entry.inline, entry.name, entry.ref.title, entry.ref.size_bytes) == (None, "row.txt", "Long", 10_000)
    assert connector.fetch(entry, 10_000) == ("ä" * 5_000).encode()
    with pytest.raises(TooLarge):
        connector.fetch(entry, 9_999)
    put(tickets, 1, "", subject=None)
    with pytest.raises(DocumentRejected, match="text is empty"):
        connector.fetch(entry, 10_000)
    tickets.run("DELETE FROM tickets")
    with pytest.raises(DocumentRejected, match="deleted while reading"):
        connector.fetch(entry, 10_000)


def test_a_long_row_that_changed_since_it_was_listed_is_not_read_under_its_old_rule(tickets: Source) -> None:
    put(tickets, 1, "old" * 100)
    connector = tickets.connector(**TICKETS, inline_bytes=1)
    entry = only(connector.look(["1"]))
    stamped = replace(entry, ref=replace(entry.ref, fingerprint=f"{entry.ref.fingerprint}|1.1"))
    assert connector.fetch(entry, 10_000) == connector.fetch(stamped, 10_000) == b"old" * 100
    other = replace(entry, ref=replace(entry.ref, rule=AccessRule.of(["user:nobody"])))
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        connector.fetch(other, 10_000)
    put(tickets, 1, "new" * 100)
    for each in (entry, stamped):
        with pytest.raises(SourceUnavailable, match="changed while it was read"):
            connector.fetch(each, 10_000)


def test_fetch_of_a_row_that_was_deleted_softly_gives_no_text(tickets: Source) -> None:
    put(tickets, 1, "secret" * 100)
    connector = tickets.connector(**TICKETS, inline_bytes=1)
    entry = only(connector.look(["1"]))
    put(tickets, 1, "secret" * 100, closed=True)
    with pytest.raises(DocumentRejected, match="deleted while reading"):
        connector.fetch(entry, 10_000)


def test_html_is_left_to_the_parser_and_its_scripts_stay_behind(tickets: Source) -> None:
    put(tickets, 1, "<p>The <b>pump</b> leaks.</p><script>alert(1)</script><!-- x -->", subject="Pump & <i>co</i>")
    connector = tickets.connector(**TICKETS, html=True)
    entry = only(connector.look(["1"]))
    assert (entry.inline, entry.name) == (None, "row.html")

    found = parse(connector.fetch(entry, 1_000_000), str(entry.name))

    assert found.title == "Pump & <i>co</i>"
    assert "The **pump** leaks." in found.text
    assert "alert" not in found.text


def test_html_of_several_columns_is_one_page(tickets: Source) -> None:
    put(tickets, 1, "<ul><li>One</li></ul>", subject="<div>Unclosed")
    connector = tickets.connector(html=True, text_columns=["subject", "body", "excluded"])
    found = parse(connector.fetch(only(connector.look(["1"])), 1_000_000), "row.html")
    assert "## subject" in found.text and "Unclosed" in found.text and "One" in found.text
    assert "excluded" not in found.text


def test_text_without_end_is_an_error_of_its_own_row(source: Source) -> None:
    endless = "repeat('x', 5000001)" if source.is_postgresql else "printf('%.5000001c', 'x')"
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text)")
    source.run(f"INSERT INTO tickets VALUES (1, {endless}), (2, 'text')")
    items, _ = listed(source.connector())
    assert "longer than 5000000 characters" in str(entry_of(items["1"]).error)
    assert body_of(items["2"]) == "text"


# ---- rights


def test_readers_come_from_columns_and_null_falls_back_to_the_sources_rule(tickets: Source) -> None:
    temps, eve = "group:temps", "user:eve"
    cases: list[tuple[str | None, str | None, list[str], list[str]]] = [
        ("user:ada", None, ["user:ada"], [temps]),
        ("user:ada; group:x | role:y\nuser:bob,", eve, ["user:ada", "group:x", "role:y", "user:bob"], [temps, eve]),
        ('["group:a, b", "everyone"]', "[]", ["group:a, b", "everyone"], [temps]),
        (None, None, ["group:default"], [temps]),
        (None, eve, ["group:default"], [temps, eve]),
        ("", None, [], [temps]),
        ("[]", eve, [], [temps, eve]),
        (" , ", "", [], [temps]),
    ]
    for id_, (readers, excluded, _, _) in enumerate(cases):
        put(tickets, id_, readers=readers, excluded=excluded)
    items, _ = listed(tickets.connector(**TICKETS, acl={"allow": ["group:default"], "deny": [temps]}))
    for id_, (_, _, allow, deny) in enumerate(cases):
        entry = entry_of(items[str(id_)])
        assert (entry.error, entry.ref.rule) == (None, AccessRule.of(allow, deny)), cases[id_]


def test_null_permits_nobody_unless_the_source_has_a_rule(tickets: Source) -> None:
    put(tickets, 1, readers=None)
    assert only(tickets.connector(**TICKETS).look(["1"])).ref.rule == NOBODY


@pytest.mark.parametrize("column", ["readers", "excluded"])
def test_rights_that_are_wrong_permit_nobody_and_say_so(tickets: Source, column: str) -> None:
    wrong = ["ada", "user:", "user:ada, bob", "user:a\x01b", "user:\u202eada", "[", '["user:ada", 7]']
    wrong += ['["user:ada", null]', '{"allow": ["everyone"]}', '[["user:ada"]]', "[" * 5_000, "user:" + "x" * 300]
    wrong += ["Everyone", "{everyone}", ",".join(f"user:{number}" for number in range(10_001))]
    for id_, value in enumerate(wrong):
        more: dict[str, Any] = {"readers": "everyone", column: value}
        put(tickets, id_, **more)
    put(tickets, 99, readers="everyone")
    items, _ = listed(tickets.connector(**TICKETS, acl=["everyone"]))
    assert entry_of(items.pop("99")).error is None
    assert len(items) == len(wrong)
    for item in map(entry_of, items.values()):
        assert (item.ref.rule, item.inline, item.location) == (NOBODY, None, None), wrong[int(item.ref.external_id)]
        assert str(item.error).startswith("access: ")


def test_columns_of_rights_that_are_gone_are_rights_that_cannot_be_read(tickets: Source) -> None:
    put(tickets, 1, readers="user:ada")
    source = tickets.connector(**TICKETS)
    assert len(listed(source)[0]) == 1
    tickets.run("ALTER TABLE tickets DROP COLUMN readers")
    with pytest.raises(RightsUnreadable, match="tickets"):
        list(source.list(None))
    tickets.run("DROP TABLE tickets")
    with pytest.raises(ConfigurationError) as caught:
        list(source.list(None))
    assert not isinstance(caught.value, RightsUnreadable)


def test_a_row_s_readers_are_compared_in_our_names_when_its_text_is_read(tickets: Source) -> None:
    put(tickets, 1, readers="group:Finance Team", body="word " * 50_000)
    aliases = {"groups": {"Finance Team": "finance"}, "unmapped": "drop"}
    source = tickets.connector(**TICKETS, **aliases, inline_bytes=10)
    entry = entry_of(listed(source)[0]["1"])
    ours = replace(entry, ref=replace(entry.ref, rule=AccessRule.of(["group:finance"])))
    assert source.fetch(ours, 1_000_000).startswith(b"word")
    tickets.run("UPDATE tickets SET readers = 'group:Other'")
    with pytest.raises(SourceUnavailable):
        source.fetch(ours, 1_000_000)


@on_postgresql
def test_arrays_json_and_numbers_name_readers(source: Source) -> None:
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text, teams text[], roles jsonb, owner bigint)")
    source.run(
        "INSERT INTO tickets VALUES (1, 'x', '{a,\"b, c\"}', '[\"auditor\"]', 42), (2, 'x', '{a,NULL}', '[]', 1)"
    )
    source.run("INSERT INTO tickets VALUES (3, 'x', NULL, NULL, 7), (4, 'x', '{{a},{b}}', '[]', 1)")
    source.run("INSERT INTO tickets VALUES (5, 'x', '{}', '{\"a\": 1}', 1)")
    kinds = {"teams": "group", "roles": "role", "owner": "user"}
    items, _ = listed(source.connector(allow_columns=kinds))
    rules = {key: entry_of(item).ref.rule for key, item in items.items()}
    assert rules["1"] == AccessRule.of(["group:a", "group:b, c", "role:auditor", "user:42"])
    assert rules["3"] == AccessRule.of(["user:7"])
    assert rules["2"] == rules["4"] == rules["5"] == NOBODY


# ---- hostile names and values


HOSTILE = ['we"ird', "a'b; DROP TABLE victims; --", "%s %(x)s", ":name :\\x", "{id}", "Grüße\n\t", "select", "c0"]


def test_names_are_names_whatever_they_hold(source: Source) -> None:
    quote = source.engine.dialect.identifier_preparer.quote_identifier
    table, id_, title, body, changed, readers, gone, extra = HOSTILE
    columns = ", ".join(quote(name).replace("%%", "%") + " text" for name in HOSTILE[1:])
    source.script("CREATE TABLE victims (id integer)")
    source.script(f"CREATE TABLE {quote(table)} ({columns})")
    source.script(
        f"INSERT INTO {quote(table)} VALUES ('x%s', 'T', 'B', '2024-01-01', 'user:ada', NULL, 'E')",
    )
    connector = source.connector(
        table=table,
        id_column=id_,
        title_column=title,
        text_columns=[body, extra],
        updated_column=changed,
        allow_columns=[readers],
        deleted_column=gone,
        uri="https://crm.example/{c0}/{id}",
    )
    connector.check()
    items, mark = listed(connector)
    again, _ = listed(connector, mark.cursor)
    entry = only(connector.look(["x%s"]))
    assert again == items == {"x%s": entry}
    assert (entry.ref.title, entry.ref.uri) == ("T", "https://crm.example/E/x%25s")
    assert entry.ref.rule == AccessRule.of(["user:ada"])
    source.run("SELECT * FROM victims")


def test_values_stay_values(tickets: Source) -> None:
    nasty = "Ab\u202ecd' \"; DROP TABLE tickets; -- %s :x \x07" + "y" * 10_000
    put(tickets, 1, nasty, subject=nasty)
    connector = tickets.connector(**TICKETS)
    entry = only(connector.look(["1"]))
    assert entry.inline is not None
    assert entry.inline.text == nasty.replace("\x07", "").replace("\u202e", "")
    assert len(str(entry.ref.title)) <= 200
    assert list(connector.look(["1; DROP TABLE tickets", "1 OR 1=1"])) == [
        Gone("1; DROP TABLE tickets"),
        Gone("1 OR 1=1"),
    ]


def test_no_value_leaves_its_place_in_the_address(source: Source) -> None:
    source.run("CREATE TABLE tickets (id text PRIMARY KEY, body text, slug text)")
    source.run("INSERT INTO tickets VALUES (:id, 'text', :slug)", id="../../?a=b#c", slug="javascript:alert(1)//")
    entry = only(source.connector(uri="https://crm.example/{slug}/{id}").look(["../../?a=b#c"]))
    assert entry.ref.uri == "https://crm.example/javascript%3Aalert%281%29%2F%2F/..%2F..%2F%3Fa%3Db%23c"
    assert only(source.connector().look(["../../?a=b#c"])).ref.uri == "database://crm/..%2F..%2F%3Fa%3Db%23c"


@on_postgresql
def test_values_that_python_cannot_hold_stop_no_listing(source: Source) -> None:
    source.run(
        "CREATE TABLE tickets (id integer PRIMARY KEY, body text, changed timestamptz, day date, at time, deep json,"
        " since interval, amount numeric)"
    )
    deep = "[" * 3_000 + "]" * 3_000
    source.run(
        "INSERT INTO tickets VALUES (1, 'a', 'infinity', 'infinity', '24\\:00', :deep, '999999999 days', 'NaN'),"
        " (2, 'b', '-infinity', '0044-03-15 BC', '00\\:00', 'null', '1 day', 1),"
        " (3, 'c', now(), now(), now(), '1', '1s', 2)",
        deep=deep,
    )
    columns = ["body", "day", "at", "deep", "since", "amount"]
    connector = source.connector(text_columns=columns, updated_column="changed", acl=["everyone"])
    items, mark = listed(connector)
    assert "day: infinity\n\nat: 24:00:00" in body_of(items["1"])
    assert [entry_of(items[key]).changed_at for key in ("1", "2")] == [None, None]
    assert set(listed(connector, mark.cursor)[0]) == {"1", "3"}
    for column in columns[1:]:
        rights = source.connector(allow_columns=[column])
        assert all(entry_of(item).ref.rule == NOBODY for item in listed(rights)[0].values())


@on_sqlite
def test_sqlite_may_hold_anything_anywhere(source: Source) -> None:
    source.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text, changed datetime, readers json)")
    source.run("INSERT INTO tickets VALUES (1, CAST(x'6162ff' AS text), 'never', '{')")
    source.run("INSERT INTO tickets VALUES (2, x'ff00', 5, NULL), (3, 'a' || char(0) || 'b', '2024-01-01', NULL)")
    source.run("INSERT INTO tickets VALUES (4, 7, '2024-02-30', x'00')")
    items, _ = listed(source.connector(updated_column="changed"))
    assert body_of(items["1"]) == "ab\ufffd"
    assert "bytes" in str(entry_of(items["2"]).error)
    assert (body_of(items["3"]), body_of(items["4"])) == ("ab", "7")
    rights, _ = listed(source.connector(allow_columns=["readers"], acl=["everyone"]))
    assert [key for key, item in rights.items() if entry_of(item).ref.rule != NOBODY] == ["2", "3"]


# ---- queries


def test_query_is_read_like_a_table(tickets: Source) -> None:
    for id_ in range(5):
        put(tickets, id_, "text: 50% :x", at=LONG_AGO + timedelta(days=id_))
    query = "SELECT id, body || ' %s :y' AS \"the body\", changed FROM tickets WHERE body LIKE '%50\\%%' ESCAPE '\\'"
    query += " -- end;"
    connector = tickets.connector(query=query, text_columns=["the body"], updated_column="changed", page_rows=2)
    connector.check()
    items, mark = listed(connector)
    assert len(items) == 5
    assert body_of(items["0"]) == "text: 50% :x %s :y"
    assert set(listed(connector, mark.cursor)[0]) == {"4"}
    assert [id_of(item) for item in connector.look(["3", "9"])] == ["3", "9"]


@on_postgresql
@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (DELETE FROM tickets RETURNING id, body) SELECT * FROM gone",
        "SELECT id, body || nextval('numbers') AS body FROM tickets",
        "SELECT id, body FROM tickets) AS x; DELETE FROM tickets; SELECT * FROM (SELECT 1",
        "SELECT id, body FROM tickets WHERE id / 0 = 1",
        "SELECT id, body FORM tickets",
    ],
)
def test_query_can_only_read(tickets: Source, query: str) -> None:
    tickets.run("CREATE SEQUENCE numbers")
    put(tickets, 1)
    connector = tickets.connector(query=query)
    with pytest.raises(ConfigurationError):
        connector.check()
    with pytest.raises(ConfigurationError):
        list(connector.list(None))
    assert set(listed(tickets.connector())[0]) == {"1"}


@on_sqlite
def test_sqlite_session_can_only_read(tickets: Source) -> None:
    from ingest.connectors.database_engine import open_engine, parse_url

    engine = open_engine(parse_url(tickets.url), 1.0)
    with engine.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.execute(text("DELETE FROM tickets"))
    engine.dispose()


# ---- what an operator gets wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "ticket"}, "no table 'ticket'; there are: .*tickets"),
        ({"id_column": "ID number"}, "tickets has no column 'ID number'; it has: body, .*, subject"),
        ({"text_columns": ["body", "note"]}, "no column 'note'"),
        ({"allow_columns": ["acl"]}, "no column 'acl'"),
        ({"uri": "https://crm.example/{slug}"}, "no column 'slug'"),
        ({"updated_column": "subject"}, "'subject' holds str that is neither a time"),
        ({"query": "SELECT id FROM tickets"}, "the query has no column 'body'; it has: id"),
        ({"query": "SELECT id, body FROM nowhere"}, "nowhere"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_check_names_what_is_missing_and_what_there_is(tickets: Source, changes: dict[str, Any], message: str) -> None:
    put(tickets, 1, subject="yesterday")
    with pytest.raises(ConfigurationError, match=message):
        tickets.connector(**changes).check()


def test_check_refuses_ids_and_texts_of_types_that_are_none(source: Source) -> None:
    blob = "bytea" if source.is_postgresql else "blob"
    source.run(f"CREATE TABLE tickets (id double precision PRIMARY KEY, n integer, body {blob})")
    source.run("INSERT INTO tickets VALUES (1.5, 1, NULL)")
    with pytest.raises(ConfigurationError, match="'id' holds float"):
        source.connector(text_columns=["n"]).check()
    with pytest.raises(ConfigurationError, match="'body' holds bytes"):
        source.connector(id_column="n").check()


def test_view_may_be_a_source(tickets: Source) -> None:
    put(tickets, 1)
    tickets.run("CREATE VIEW open_tickets AS SELECT * FROM tickets")
    connector = tickets.connector(**TICKETS, table="open_tickets")
    connector.check()
    assert set(listed(connector)[0]) == {"1"}


def test_table_may_lie_in_a_schema(tickets: Source) -> None:
    put(tickets, 1)
    with tickets.engine.connect() as connection:
        schema = connection.scalar(text("SELECT current_schema()")) if tickets.is_postgresql else "main"
    connector = tickets.connector(**TICKETS, table_schema=schema)
    connector.check()
    assert set(listed(connector)[0]) == {"1"}
    with pytest.raises(ConfigurationError, match=f"no table '{schema}.other'; there are: .*tickets"):
        tickets.connector(table="other", table_schema=schema).check()


@pytest.fixture
def reader(tickets: Source) -> Iterator[str]:
    """The URL of a role that may read nothing, at the same schema."""
    role = f"reader_{uuid.uuid4().hex[:8]}"
    tickets.run(f"CREATE ROLE {role} LOGIN")
    yield make_url(tickets.url).set(username=role).render_as_string(False)
    tickets.run(f"DROP OWNED BY {role}")
    tickets.run(f"DROP ROLE {role}")


@on_postgresql
def test_missing_permission_is_named_and_enough_of_it_suffices(tickets: Source, reader: str) -> None:
    put(tickets, 1)
    with tickets.engine.connect() as connection:
        schema = connection.scalar(text("SELECT current_schema()"))
    role = make_url(reader).username
    owner, tickets.url = tickets.url, reader
    connector = tickets.connector(table_schema=schema, acl=["everyone"])
    for grant in (f"GRANT USAGE ON SCHEMA {schema} TO {role}", f"GRANT SELECT (id) ON tickets TO {role}"):
        with pytest.raises(ConfigurationError, match=r"no permission to read .*tickets: grant SELECT"):
            connector.check()
        with pytest.raises(ConfigurationError, match="no permission"):
            list(connector.list(None))
        tickets.run(grant)
    tickets.run(f"GRANT SELECT (body) ON tickets TO {role}")
    connector.check()
    assert set(listed(connector)[0]) == {"1"}
    assert tickets.url != owner


@on_postgresql
@pytest.mark.parametrize("change", [{"username": "nobody_here"}, {"database": "nothing_here"}])
def test_address_that_the_server_does_not_know_is_the_operators(tickets: Source, change: dict[str, Any]) -> None:
    tickets.url = make_url(tickets.url).set(password="hunter2", **change).render_as_string(False)
    with pytest.raises(ConfigurationError, match="does not know the user or the database") as error:
        tickets.connector().check()
    assert not {"hunter2", "nobody_here", "nothing_here", "/pg-"} & set(error.value.detail.split())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgres//secret", "no SQLAlchemy URL"),
        ("sqlite://", "must be a file"),
        ("mysql+pymysql://user:secret@127.0.0.1/db", "driver for mysql.pymysql is not installed"),
        ("nosuch://user:secret@host/db", "knows no such dialect"),
        ("", "CRM_DATABASE_URL is not set"),
    ],
)
def test_address_that_cannot_work_is_named_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    source = Source("sqlite://", monkeypatch)
    source.url = url
    connector = source.connector()
    for call in (connector.check, lambda: list(connector.list(None)), lambda: list(connector.look(["1"]))):
        with pytest.raises(ConfigurationError, match=message) as error:
            call()
        assert "secret" not in error.value.detail


def test_address_may_stand_in_a_file(tickets: Source, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(tickets.url + "\n")
    (tmp_path / "url").chmod(0o600)
    put(tickets, 1)
    assert listed(tickets.connector(url_env=None, url_file=str(tmp_path / "url")))[0]
    (tmp_path / "url").write_text("\n")
    with pytest.raises(ConfigurationError, match="empty"):
        tickets.connector(url_env=None, url_file=str(tmp_path / "url")).check()
    with pytest.raises(ConfigurationError, match="No such file"):
        tickets.connector(url_env=None, url_file=str(tmp_path / "none")).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url_env": None}, "exactly one of url_env"),
        ({"url_file": "x"}, "exactly one of url_env"),
        ({"table": None}, "exactly one of table"),
        ({"query": "SELECT 1", "table_schema": "x"}, "table_schema goes with table"),
        ({"text_columns": []}, "at least 1"),
        ({"text_columns": ["a\x00b"]}, "pattern"),
        ({"uri": "javascript:alert(1)//{id}"}, "must begin with"),
        ({"uri": "{id}"}, "must begin with"),
        ({"uri": "https://{id}.example/"}, "host without placeholders"),
        ({"uri": "https://x/{id"}, "placeholders"),
        ({"notify_channel": 'x"; DROP'}, "pattern"),
        ({"updated_zone": "Mars/Olympus"}, "time zone"),
        ({"updated_zone": "../../etc/passwd"}, "time zone"),
        ({"allow_columns": {"owner": "person"}}, "user"),
        ({"pasword": "x"}, "Extra inputs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    source = Source("sqlite://", monkeypatch)
    with pytest.raises(ValidationError, match=message):
        source.settings(**changes)


# ---- what a source suffers


@on_sqlite
def test_missing_file_is_unavailable_and_none_is_made(source: Source, tmp_path: Path) -> None:
    source.url = f"sqlite:///{tmp_path}/none.sqlite"
    with pytest.raises(SourceUnavailable):
        source.connector().check()
    assert list(tmp_path.iterdir()) == []


@on_sqlite
def test_lock_that_passes_is_waited_for(tickets: Source) -> None:
    put(tickets, 1)
    connector = tickets.connector(timeout_s=0.05)
    with tickets.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        release = threading.Timer(0.3, connection.rollback)
        release.start()
        assert set(listed(connector)[0]) == {"1"}
        release.join()


@on_sqlite
def test_lock_that_stays_is_unavailable(tickets: Source) -> None:
    connector = tickets.connector(timeout_s=0.01)
    with tickets.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnavailable, match="does not answer, or is locked"):
            list(connector.list(None))
        connection.rollback()


@on_postgresql
def test_server_that_is_not_there_is_unavailable_and_its_address_stays_inside(tickets: Source) -> None:
    tickets.url = "postgresql://someone:hunter2@127.0.0.1:1/crm"
    with pytest.raises(SourceUnavailable) as error:
        tickets.connector().check()
    assert error.value.detail == "the database does not answer, or is locked"


@on_postgresql
def test_page_that_takes_too_long_is_unavailable(tickets: Source) -> None:
    put(tickets, 1)
    slow = tickets.connector(query="SELECT id, body || pg_sleep(2) AS body FROM tickets", timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="longer than timeout_s"):
        list(slow.list(None))
    assert time.monotonic() - began < 1.5  # and not tried again


def end_sessions(source: Source) -> int:
    """Cut the connections of connectors, as an operator or a restart does; say how many."""
    return asked(source, "count(pg_terminate_backend(pid))")


def sessions(source: Source) -> int:
    return asked(source, "count(*)")


def asked(source: Source, what: str) -> int:
    with source.engine.connect() as connection:  # of each, the server shows a transaction one state only
        counted = text(f"SELECT {what} FROM pg_stat_activity WHERE application_name = 'rayrag'")
        return int(connection.scalar(counted) or 0)


def wait_for_sessions(source: Source, expected: int) -> None:
    deadline = time.monotonic() + 5
    while sessions(source) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sessions(source) == expected


@on_postgresql
def test_listing_goes_on_where_the_server_cut_its_connection(tickets: Source) -> None:
    for id_ in range(10):
        put(tickets, id_)
    connector = tickets.connector(**TICKETS, page_rows=3)
    items = []
    for number, item in enumerate(connector.list(None)):
        if number == 4:
            assert end_sessions(tickets) >= 1
        items.append(item)
    assert [id_of(item) for item in items[:-1]] == [str(number) for number in range(10)]


@on_postgresql
def test_table_that_goes_away_between_pages_breaks_the_listing_off(tickets: Source) -> None:
    for id_ in range(10):
        put(tickets, id_)
    listing = tickets.connector(**TICKETS, page_rows=3).list(None)
    next(listing)
    tickets.run("DROP TABLE tickets")
    with pytest.raises(ConfigurationError, match="refuses the statement"):
        list(listing)


@on_postgresql
def test_connection_ends_with_its_connector(tickets: Source) -> None:
    put(tickets, 1)
    connector = tickets.connector()
    listed(connector)
    before = sessions(tickets)
    del connector
    wait_for_sessions(tickets, before - 1)


def test_ten_thousand_rows_do_not_sit_in_memory(source: Source) -> None:
    series = (
        "SELECT generate_series(1, 10000) AS id"
        if source.is_postgresql
        else "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 10000) SELECT id FROM n"
    )
    source.run(f"CREATE TABLE numbers AS {series}")
    source.run("CREATE UNIQUE INDEX by_id ON numbers (id)")
    source.run("CREATE VIEW tickets AS SELECT id, 'text ' || id AS body FROM numbers")
    count = 0
    for item in source.connector(page_rows=100).list(None):
        count += not isinstance(item, Mark)
        if count % 2_000 == 1_999:
            assert sum(isinstance(each, Entry) for each in gc.get_objects()) <= 250  # a page, and the next
    assert count == 10_000


LISTING = """
import resource, sys
from ingest.connector import Mark
from ingest.connectors.database import DatabaseConnector, DatabaseSettings

connector = DatabaseConnector(DatabaseSettings.model_validate_json(sys.argv[1]))
next(connector.look(["1"]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sizes = [item.ref.size_bytes for item in connector.list(None) if not isinstance(item, Mark)]
print(len(sizes), sum(sizes), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@on_postgresql
def test_long_texts_of_a_page_do_not_sit_in_memory_together(source: Source) -> None:
    texts = "SELECT id, repeat('wort ', 45000) || id AS body FROM generate_series(1, 250) AS id"
    source.run(f"CREATE VIEW tickets AS {texts}")
    # A process of its own, by what the system gave it: what a driver holds is not in Python's memory.
    command = [sys.executable, "-c", LISTING, source.settings().model_dump_json(exclude_unset=True)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    count, size, growth = map(int, done.stdout.split())
    assert (count, size > 56_000_000) == (250, True)
    assert growth < 12_000_000  # all at once: about 27 MB


# ---- LISTEN


class Watched:
    """What `watch` yields, with a limit on waiting."""

    def __init__(self, looks: AsyncIterator[Sequence[str]]) -> None:
        self._looks = looks

    async def next(self) -> list[str]:
        return list(await asyncio.wait_for(anext(self._looks), 10))


def watch(connector: DatabaseConnector, test: Callable[[Watched], Any]) -> None:
    async def main() -> None:
        looks = connector.watch()
        assert looks is not None
        async with aclosing(looks):  # type: ignore[type-var]
            await test(Watched(looks))

    asyncio.run(main())


@pytest.fixture
def telling(tickets: Source) -> Source:
    """Tickets whose table tells of its changes."""
    tickets.script(trigger_sql("tickets", None, "id", "tickets_changed"))
    return tickets


@on_postgresql
def test_trigger_says_where_to_look_on_insert_update_and_delete(telling: Source) -> None:
    connector = telling.connector(**TICKETS, notify_channel="tickets_changed")
    connector.check()

    async def test(watched: Watched) -> None:
        assert await watched.next() == []  # what came before nobody told: list
        telling.run("INSERT INTO tickets (id, body) VALUES (1, 'first')")
        assert await watched.next() == ["1"]
        assert [body_of(item) for item in connector.look(["1"])] == ["first"]
        telling.run("UPDATE tickets SET body = 'second' WHERE id = 1")
        assert await watched.next() == ["1"]
        assert [body_of(item) for item in connector.look(["1"])] == ["second"]
        telling.run("UPDATE tickets SET id = 2")
        looks = await watched.next()
        assert looks == ["1", "2"]
        assert [isinstance(item, Gone) for item in sorted(connector.look(looks), key=id_of)] == [True, False]
        telling.run("DELETE FROM tickets")
        assert await watched.next() == ["2"]
        assert list(connector.look(["2"])) == [Gone("2")]

    watch(connector, test)


@on_postgresql
def test_transaction_over_many_rows_is_few_looks_and_one_that_fails_is_none(telling: Source) -> None:
    connector = telling.connector(notify_channel="tickets_changed")

    async def test(watched: Watched) -> None:
        await watched.next()
        with telling.engine.connect() as connection:
            connection.execute(text("INSERT INTO tickets (id) VALUES (777)"))
            connection.rollback()
        telling.run("INSERT INTO tickets (id) SELECT generate_series(1, 300)")
        looks = await watched.next()
        assert looks[:2] == ["1", "2"]
        while len(looks) < 300:
            more = await watched.next()
            assert len(more) > 20
            looks += more
        assert sorted(map(int, looks)) == list(range(1, 301))

    watch(connector, test)


@on_postgresql
def test_payload_is_an_id_json_with_an_id_or_nothing(tickets: Source) -> None:
    payloads: list[tuple[str, list[str]]] = [
        ("17", ["17"]),
        ('{"id": 17, "op": "update"}', ["17"]),
        ('{"id": "a/b"}', ["a/b"]),
        ("", []),
        ('{"op": "truncate"}', []),
        ('{"id": null}', []),
        ('{"id": true}', []),
        ('{"id": ["x"]}', []),
        ("{not json", ["{not json"]),
        ("{" * 7_000, ["{" * 7_000]),
    ]

    async def test(watched: Watched) -> None:
        await watched.next()
        for payload, expected in payloads:
            tickets.run("SELECT pg_notify('tickets_changed', :payload)", payload=payload)
            assert await watched.next() == expected

    watch(tickets.connector(notify_channel="tickets_changed"), test)


@on_postgresql
def test_connection_that_is_cut_is_made_again_and_begins_with_a_listing(telling: Source) -> None:
    connector = telling.connector(notify_channel="tickets_changed")

    async def test(watched: Watched) -> None:
        assert await watched.next() == []
        assert end_sessions(telling) >= 1
        telling.run("INSERT INTO tickets (id) VALUES (1)")  # while nobody listens
        assert await watched.next() == []
        telling.run("INSERT INTO tickets (id) VALUES (2)")
        assert await watched.next() == ["2"]

    watch(connector, test)


@on_postgresql
def test_cancelled_watch_leaves_no_connection(telling: Source) -> None:
    connector = telling.connector(notify_channel="tickets_changed")
    before = sessions(telling)

    async def test(watched: Watched) -> None:
        await watched.next()
        waiting = asyncio.ensure_future(watched.next())
        await asyncio.sleep(0.05)
        assert sessions(telling) == before + 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(wait_for_sessions, telling, before)

    watch(connector, test)


@on_postgresql
def test_watch_of_an_address_that_is_refused_says_so(tickets: Source) -> None:
    tickets.url = make_url(tickets.url).set(username="nobody_here").render_as_string(False)

    async def test(watched: Watched) -> None:
        with pytest.raises(ConfigurationError):
            await watched.next()

    watch(tickets.connector(notify_channel="tickets_changed"), test)


def test_only_postgresql_tells_and_only_where_a_channel_is_named(tickets: Source) -> None:
    assert tickets.connector().watch() is None
    told = tickets.connector(notify_channel="tickets_changed")
    if not tickets.is_postgresql:
        with pytest.raises(ConfigurationError, match="sqlite has no LISTEN"):
            told.check()


@on_postgresql
def test_trigger_stands_names_and_ids_of_any_kind(source: Source) -> None:
    quote = source.engine.dialect.identifier_preparer.quote_identifier
    table, column = 'we"ird $rayrag$ %s', "i'd"
    source.script(f"CREATE TABLE {quote(table).replace('%%', '%')} ({quote(column)} text, body text)")
    source.script(trigger_sql(table, None, column, "odd"))

    async def test(watched: Watched) -> None:
        await watched.next()
        for written, told in (("a'b\"", ["a'b\""]), ("x" * 7_500, []), ("ä" * 3_499, ["ä" * 3_499])):
            source.script(
                f"INSERT INTO {quote(table).replace('%%', '%')} VALUES ('{written.replace(chr(39), chr(39) * 2)}')"
            )
            assert await watched.next() == told

    watch(source.connector(table=table, id_column=column, notify_channel="odd"), test)
