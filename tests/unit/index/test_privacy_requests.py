"""People's requests, the suppression list and the ledger's places, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.document import DocumentRef
from index.ledger import Ledger
from index.ledger_schema import open_database
from index.privacy_requests import DEAD_S, PrivacyRequests
from index.subject_rows import Sought, ledger_places
from index.suppressions import SuppressionList
from policies.access import AccessRule
from policies.errors import ConfigurationError, NotFound
from policies.keyed_hashes import KeyedHashes
from policies.privacy.subject import Subject
from policies.privacy.suppression import Matcher, entries_of

KEYED = KeyedHashes(b"k" * 32)
JANE = Subject(("jane.doe@acme.example",), ("Jane Doe",))


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def requests(database_url: str, clock: Clock) -> Iterator[PrivacyRequests]:
    made = PrivacyRequests(database_url, clock)
    yield made
    made.close()


def test_a_request_is_worked_on_by_one_and_by_another_when_that_one_is_lost(
    requests: PrivacyRequests, clock: Clock
) -> None:
    requests.add("a" * 32, "acme", "erasure", "olga", "sealed", ["h1"])
    first = requests.claim()
    assert first is not None and (first.state, first.sealed, first.physical) == ("running", "sealed", "pending")
    assert requests.claim() is None
    clock.now += DEAD_S - 1
    requests.heard("a" * 32, {"documents": 2})
    clock.now += DEAD_S - 1
    assert requests.claim() is None, "it was heard of"
    clock.now += 2
    again = requests.claim()
    assert again is not None and again.found == {"documents": 2}
    requests.finish("a" * 32, "done", {"documents": 2})
    ended = requests.get("acme", "a" * 32)
    assert (ended.state, ended.sealed, ended.done_at) == ("done", None, clock.now)
    assert [each.privacy_request_id for each in requests.pending()] == ["a" * 32]
    assert requests.pending(clock.now - 1) == []
    requests.purged("a" * 32, {"signature": "s"})
    assert requests.get("acme", "a" * 32).receipt == {"signature": "s"} and requests.pending() == []


def test_a_request_is_its_tenants(requests: PrivacyRequests) -> None:
    requests.add("b" * 32, "acme", "access", "olga", "sealed", [])
    with pytest.raises(NotFound):
        requests.get("globex", "b" * 32)
    assert requests.of_tenant("globex") == [] and len(requests.of_tenant("acme")) == 1 == len(requests.of_tenant())


def test_an_export_ends_with_its_time_and_with_its_person(requests: PrivacyRequests, clock: Clock) -> None:
    for number, subject in enumerate((["h1"], ["h2"], ["h1", "h3"])):
        request_id = str(number) * 32
        requests.add(request_id, "acme", "access", "olga", None, subject)
        requests.keep_export(request_id, b"sealed", clock.now + 10 * (number + 1))
    assert requests.count_exports(["h1"]) == 2 and requests.drop_exports(["h3"]) == 1
    assert requests.export("2" * 32) is None and requests.export("0" * 32) == b"sealed"
    clock.now += 15
    assert requests.export("0" * 32) is None and requests.drop_exports() == 1
    assert requests.export("1" * 32) == b"sealed"


@pytest.fixture
def listed(database_url: str) -> Iterator[SuppressionList]:
    made = SuppressionList(database_url, KEYED)
    yield made
    made.close()


def test_the_list_keeps_what_it_is_given_by_tenant_and_request(listed: SuppressionList, database_url: str) -> None:
    assert (listed.revision(), listed.entries("acme"), listed.requests()) == (0, [], [])
    entries = entries_of(JANE, "acme", KEYED, "r1", "replace", {"janedoe": "Jane Doe-Smith"})
    listed.add("acme", entries)
    listed.add("acme", entries)
    assert sorted(listed.entries("acme"), key=repr) == sorted(entries, key=repr)
    assert listed.entries("globex") == [] and listed.requests() == [("acme", "r1")]
    later = listed.revision()
    assert later > 0 and SuppressionList(database_url, KEYED).revision() == later
    assert listed.lift("globex", "r1") == 0 and listed.lift("acme", "r1") == len(entries)
    assert listed.entries("acme") == [] and listed.revision() > later


def test_a_list_of_another_key_is_not_opened(listed: SuppressionList, database_url: str) -> None:
    listed.add("acme", entries_of(JANE, "acme", KEYED, "r1"))
    with pytest.raises(ConfigurationError, match="another key"):
        SuppressionList(database_url, KeyedHashes(b"x" * 32))


def test_no_file_is_made_before_there_is_an_entry_and_none_holds_a_name(tmp_path: Path) -> None:
    file = tmp_path / "data.suppressions.sqlite"
    made = SuppressionList(f"sqlite:///{file}", KEYED)
    assert made.revision() == 0 and made.lift("acme", "r") == 0 and not file.exists()
    made.add("acme", entries_of(JANE, "acme", KEYED, "r1", "replace", {"janedoe": "Jane Doe-Smith"}))
    assert file.stat().st_mode & 0o077 == 0
    made.close()
    whole = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"jane" not in whole.lower() and b"smith" not in whole.lower()
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM suppressions").fetchone()[0] > 0


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    made = Ledger(database_url)
    yield made
    made.close()


def test_every_place_of_the_ledger_finds_and_erases_the_person_and_nobody_else(
    ledger: Ledger, database_url: str
) -> None:
    tenant_id = ledger.tenant_id("acme")
    for name in ("Jane Doe CV.pdf", "John Roe CV.pdf"):
        ref = DocumentRef("acme", "wiki", name, f"file:///{name}", None, "f", AccessRule.of([f"user:{name[:4]}.x"]))
        ledger.reject(ref, "no text in it", 1)
        ledger.hint(ledger.place("acme", "wiki")[1], [name])
        ledger.begin_version(ref, "hash", 1, "run", owner=f"{name[:8].replace(' ', '.').lower()}@acme.example")
        ledger.delete([ref.document_id])
        ledger.reject(ref, "no text in it", 1)
    who = Sought("acme", tenant_id, Matcher("acme", KEYED, entries_of(JANE, "acme", KEYED, "r")))
    database = open_database(database_url)
    places = {place.name: place for place in ledger_places(database)}
    found = {name: place.find(who) for name, place in places.items()}
    assert (found["dead_letters"], found["source_hints"], found["deleted_documents"]) == (1, 1, 1), found
    exported = json.dumps([list(place.export(who)) for place in places.values()])
    assert "Jane Doe CV" in exported and "John" not in exported
    for place in places.values():
        place.erase(who)
    assert not any(place.find(who) for place in places.values() if place.kept is None)
    john = Matcher("acme", KEYED, entries_of(Subject((), ("John Roe",)), "acme", KEYED, "r"))
    left = {name: place.find(Sought("acme", tenant_id, john)) for name, place in places.items()}
    assert (left["dead_letters"], left["source_hints"], left["deleted_documents"]) == (1, 1, 1), left
    database.dispose()
