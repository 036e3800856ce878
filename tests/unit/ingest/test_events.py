"""What an event means, and that nothing which comes in from outside can be more than "look" or "list"."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as some

from ingest.events import LIST, MAX_BYTES, MAX_ID_CHARS, MAX_IDS, ids_of, together


def cloud_event(subject: str | None = "handbook.md", **more: Any) -> CloudEvent:
    named = {} if subject is None else {"subject": subject}
    return CloudEvent({"type": "file.changed", "source": "/share", **named, **more}, {"size": 5})


def structured(*subjects: str | None) -> list[dict[str, Any]]:
    return [json.loads(to_structured_event(cloud_event(subject)).body) for subject in subjects]


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_the_subject_of_a_cloud_event_is_the_document() -> None:
    assert ids_of(to_structured_event(cloud_event()).body) == ("handbook.md",)


def test_a_cloud_event_in_headers_names_its_subject_there() -> None:
    message = to_binary_event(cloud_event("Übersicht 100 %.md"))

    assert ids_of(message.body, message.headers) == ("Übersicht 100 %.md",)


def test_kafka_spells_the_headers_of_a_cloud_event_with_an_underscore() -> None:
    headers = {name.replace("ce-", "ce_"): value for name, value in to_binary_event(cloud_event()).headers.items()}

    assert ids_of(b"", headers) == ("handbook.md",)


def test_a_batch_of_cloud_events_names_all_their_subjects_once() -> None:
    assert ids_of(as_json(structured("b", "a", "b"))) == ("b", "a")


def test_an_older_cloud_event_is_understood() -> None:
    assert ids_of(as_json({"specversion": "0.3", "id": "1", "type": "t", "source": "s", "subject": "a"})) == ("a",)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"id": "a"}, ("a",)),
        ({"ids": ["b", "a", "b"]}, ("b", "a")),
        ({"ids": ["a"], "id": "b"}, ("a",)),
        ({"id": 17}, ("17",)),  # a table's key
        ({"id": "a", "sender": "crm"}, ("a",)),
    ],
)
def test_plain_json_names_ids(body: Any, ids: tuple[str, ...]) -> None:
    assert ids_of(as_json(body)) == ids


def test_the_id_of_a_cloud_event_is_no_document() -> None:
    (event,) = structured(None)

    assert event["id"]
    assert ids_of(as_json(event)) == LIST


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"5",
        b'"ids"',
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"{",
        b"[" * 60_000,
        b'{"id": ' + b"9" * 10_000 + b"}",
        as_json({"ids": []}),
        as_json({"ids": "a"}),
        as_json({"ids": ["a", None]}),
        as_json({"ids": ["a", ["b"]]}),
        as_json({"id": ""}),
        as_json({"id": True}),
        as_json({"id": 1.5}),
        as_json({"id": "x" * (MAX_ID_CHARS + 1)}),
        as_json({"ids": [f"{n}" for n in range(MAX_IDS + 1)]}),
        as_json(["a", "b"]),
        as_json([*structured("a"), {"id": "b"}]),
        as_json(structured("a", None)),
        as_json({**structured("a")[0], "specversion": "9"}),
        as_json({**structured("a")[0], "time": "yesterday"}),
        as_json({**structured("a")[0], "data_base64": 5}),
        as_json({"id": "a", "filler": "x" * MAX_BYTES}),
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_what_is_not_understood_asks_for_a_listing(body: bytes) -> None:
    assert ids_of(body) == LIST


@pytest.mark.parametrize("headers", [{"ce-specversion": "1.0"}, {"ce-specversion": "1.0", "ce-time": "%"}])
def test_a_broken_cloud_event_in_headers_asks_for_a_listing_whatever_its_body_says(headers: dict[str, str]) -> None:
    assert ids_of(as_json({"id": "a"}), headers) == LIST


def test_as_many_ids_as_are_allowed_are_taken() -> None:
    longest = ["x" * MAX_ID_CHARS] + [f"{n}" for n in range(MAX_IDS - 1)]

    assert ids_of(as_json({"ids": longest})) == tuple(longest)


anything = some.recursive(
    some.none() | some.booleans() | some.floats() | some.integers() | some.text(max_size=5),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["id", "ids", "specversion", "subject", "time", "data"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(body=some.binary(max_size=50) | anything.map(as_json), headers=some.dictionaries(some.text(), some.text()))
def test_no_event_can_make_its_reader_fail(body: bytes, headers: dict[str, str]) -> None:
    for found in (ids_of(body), ids_of(body, headers), ids_of(body, {**headers, "ce-specversion": "1.0"})):
        assert all(isinstance(each, str) and 0 < len(each) <= MAX_ID_CHARS for each in found)


@pytest.mark.parametrize(
    ("events", "asked"),
    [
        ([("a",), ("b", "a")], ("a", "b")),
        ([("a",), LIST, ("b",)], LIST),
        ([tuple(f"{n}" for n in range(MAX_IDS)), ("one more",)], LIST),
    ],
    ids=["each once", "a listing covers all", "too many are quicker listed"],
)
def test_several_events_ask_for_what_covers_them_all(events: list[tuple[str, ...]], asked: tuple[str, ...]) -> None:
    assert together(events) == asked
