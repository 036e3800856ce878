from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from index.document import DocumentRef
from index.ledger import Ledger
from index.ledger_records import NewVersion, StaleVersion, WrittenVersion
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, NotFound, Unavailable
from policies.principals import EVERYONE, Principal

ROOT = Path(__file__).parents[3]
PUBLIC = AccessRule.of([EVERYONE])
FINANCE = AccessRule.of(["group:finance"])
ADA = Principal("ada", "acme", groups=frozenset({"finance"}))
BOB = Principal("bob", "acme")
EVE = Principal("eve", "evil", groups=frozenset({"finance"}))


def make_ref(external_id: str = "a.md", **changes: Any) -> DocumentRef:
    ref = DocumentRef("acme", "wiki", external_id, f"file:///{external_id}", None, "mtime-1", PUBLIC)
    return replace(ref, **changes)


def publish(ledger: Ledger, ref: DocumentRef, chunk_count: int = 3, content_hash: str = "hash", **more: Any) -> int:
    version = ledger.begin_version(ref, content_hash, chunk_count, "run", **more)
    assert ledger.flip(ref, version)
    return version


def key_of(ledger: Ledger, ref: DocumentRef) -> tuple[str, int]:
    stored = ledger.document(ref.document_id)
    assert stored is not None and stored.version is not None
    return stored.document_id, stored.version


def access_of(ledger: Ledger, ref: DocumentRef) -> int:
    stored = ledger.document(ref.document_id)
    assert stored is not None
    return stored.access_id


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


# ---- becoming visible


def test_document_is_invisible_until_its_version_is_flipped(ledger: Ledger) -> None:
    ref = make_ref()
    version = ledger.begin_version(ref, "hash", 3, "run", owner="ada")
    assert ledger.get(BOB, ref.document_id) is None
    assert ledger.list(BOB, 10) == []
    assert ledger.gate([(ref.document_id, version)], BOB) == {}

    assert ledger.flip(ref, version, title="From the content")

    record = ledger.get(BOB, ref.document_id)
    assert record is not None
    assert (record.version, record.chunk_count, record.title) == (version, 3, "From the content")
    assert (record.source, record.owner, record.external_id, record.uri) == ("wiki", "ada", "a.md", "file:///a.md")
    assert ledger.list(BOB, 10) == [record]
    live = ledger.gate([(ref.document_id, version)], BOB)[ref.document_id]
    assert live.key == (ref.document_id, version)
    assert (live.title, live.uri) == ("From the content", "file:///a.md")


def test_title_falls_back_to_the_source_then_to_the_external_id(ledger: Ledger) -> None:
    for ref, title in ((make_ref("a.md", title="From the source"), "From the source"), (make_ref("b.md"), "b.md")):
        publish(ledger, ref)
        stored = ledger.document(ref.document_id)
        assert stored is not None and stored.title == title


def test_new_version_replaces_the_old_one_at_the_flip_and_not_before(ledger: Ledger) -> None:
    ref = make_ref()
    first = publish(ledger, ref)
    old = key_of(ledger, ref)
    changed = make_ref(fingerprint="mtime-2", uri="file:///moved.md")
    second = ledger.begin_version(changed, "hash-2", 5, "run-2")
    new = (ref.document_id, second)
    assert second > first
    assert ledger.gate([old, new], BOB)[ref.document_id].version == first

    assert ledger.flip(changed, second)

    assert ledger.gate([old, new], BOB)[ref.document_id].version == second
    assert ledger.gate([old], BOB) == {}
    stored = ledger.document(ref.document_id)
    assert stored is not None
    assert (stored.fingerprint, stored.content_hash, stored.uri) == ("mtime-2", "hash-2", "file:///moved.md")
    assert ledger.stale_versions([ref.document_id]) == [StaleVersion(ref.document_id, first, 3)]


def test_flip_again_after_success_is_true_and_changes_nothing(ledger: Ledger) -> None:
    version = publish(ledger, make_ref())
    assert ledger.flip(make_ref(), version)
    assert ledger.stale_versions() == []


def test_overtaken_writer_cannot_flip(ledger: Ledger) -> None:
    ref = make_ref()
    slow = ledger.begin_version(ref, "old", 2, "slow")
    fast = ledger.begin_version(ref, "new", 4, "fast")
    assert ledger.stale_versions([ref.document_id]) == [StaleVersion(ref.document_id, slow, 2)]
    assert ledger.flip(ref, fast)
    assert not ledger.flip(ref, slow)
    assert key_of(ledger, ref)[1] == fast


def test_overtaken_writer_cannot_flip_before_the_newer_one_either(ledger: Ledger) -> None:
    ref = make_ref()
    slow = ledger.begin_version(ref, "old", 2, "slow")
    fast = ledger.begin_version(ref, "new", 4, "fast")
    assert not ledger.flip(ref, slow)
    assert ledger.flip(ref, fast)


def test_version_numbers_are_never_used_twice(ledger: Ledger) -> None:
    ref = make_ref()
    used = [publish(ledger, ref)]
    ledger.delete([ref.document_id])
    ledger.forget_versions(ledger.stale_versions())
    assert ledger.stale_versions() == []
    used.append(ledger.begin_version(ref, "hash", 1, "run"))
    used.append(ledger.begin_version(ref, "hash", 1, "run"))
    assert used == sorted(set(used))


def test_version_that_was_never_begun_cannot_flip(ledger: Ledger) -> None:
    ref = make_ref()
    assert not ledger.flip(ref, 1)
    publish(ledger, ref)
    assert not ledger.flip(ref, 99)


def test_killed_writer_leaves_the_old_version_live(ledger: Ledger, database_url: str) -> None:
    ref = make_ref()
    old = publish(ledger, ref)
    script = (
        "import os, signal, sys\n"
        "from index.document import DocumentRef\n"
        "from index.ledger import Ledger\n"
        "from policies.access import AccessRule\n"
        "ref = DocumentRef('acme', 'wiki', 'a.md', 'file:///a.md', None, 'mtime-2', AccessRule.of(['everyone']))\n"
        "print(Ledger(sys.argv[1]).begin_version(ref, 'hash-2', 9, 'killed'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    writer = subprocess.run([sys.executable, "-c", script, database_url], cwd=ROOT, capture_output=True, text=True)
    assert writer.returncode == -signal.SIGKILL, writer.stderr
    abandoned = int(writer.stdout)

    assert key_of(ledger, ref)[1] == old
    assert ledger.gate([key_of(ledger, ref)], BOB)
    assert ledger.stale_versions() == [], "its writer may be alive for all we know"
    assert ledger.stale_versions(abandoned_after_s=0) == [StaleVersion(ref.document_id, abandoned, 9)]
    again = publish(ledger, make_ref(fingerprint="mtime-2"))
    assert again > abandoned
    assert [stale.version for stale in ledger.stale_versions([ref.document_id])] == [old, abandoned]


def test_batches_begin_and_flip_each_document_on_its_own(ledger: Ledger) -> None:
    refs = [make_ref(f"{number}.md") for number in range(4)]
    overtaken = refs[2]
    numbers = ledger.begin_versions([NewVersion(ref, ref.external_id, 2) for ref in refs], "run")
    assert numbers == [1, 1, 1, 1]
    ledger.begin_version(overtaken, "newer", 1, "run-2")
    written = [WrittenVersion(ref, number) for ref, number in zip(refs, numbers, strict=True)]
    assert ledger.flip_versions(written) == [True, True, False, True]
    assert {record.external_id for record in ledger.list(BOB, 10)} == {"0.md", "1.md", "3.md"}
    hashes = {stored.external_id: stored.content_hash for stored in ledger.find(ledger.tenant_id("acme"))}
    assert hashes == {"0.md": "0.md", "1.md": "1.md", "2.md": "", "3.md": "3.md"}


def test_empty_batches_are_fine(ledger: Ledger) -> None:
    assert list(ledger.begin_versions([], "run")) == list(ledger.flip_versions([])) == []
    ledger.forget_versions([])
    assert ledger.delete([]) == 0


def test_forgotten_writer_cannot_flip(ledger: Ledger) -> None:
    ref = make_ref()
    version = ledger.begin_version(ref, "hash", 3, "run")
    ledger.forget_versions(ledger.stale_versions(abandoned_after_s=0))
    assert not ledger.flip(ref, version)


def test_live_version_is_never_forgotten(ledger: Ledger) -> None:
    ref = make_ref()
    version = publish(ledger, ref)
    ledger.forget_versions([StaleVersion(ref.document_id, version, 3)])
    assert ledger.flip(ref, version), "its row is still there"
    assert ledger.stale_versions(abandoned_after_s=0) == []


# ---- rights and deletion hold at once


def test_revoked_reader_loses_the_document_at_once(ledger: Ledger) -> None:
    ref = make_ref()
    version = publish(ledger, ref)
    key = key_of(ledger, ref)
    change = ledger.set_rule(ref.document_id, FINANCE)
    assert change.old_access_id != change.new_access_id
    assert (change.version, change.chunk_count) == (version, 3)
    assert ledger.gate([key], BOB) == {}
    assert ledger.get(BOB, ref.document_id) is None
    assert ledger.list(BOB, 10) == []
    assert ledger.gate([key], ADA)[ref.document_id].access_id == change.new_access_id, "and a reader of both does not"


def test_rule_revoked_while_a_version_is_written_is_not_undone_by_its_flip(ledger: Ledger) -> None:
    ref = make_ref()
    publish(ledger, ref)
    version = ledger.begin_version(make_ref(fingerprint="mtime-2"), "hash-2", 4, "run")
    change = ledger.set_rule(ref.document_id, NOBODY)
    assert not ledger.flip(make_ref(fingerprint="mtime-2"), version)
    assert access_of(ledger, ref) == change.new_access_id
    assert StaleVersion(ref.document_id, version, 4) in ledger.stale_versions([ref.document_id])
    stored = ledger.document(ref.document_id)
    assert stored is not None and stored.fingerprint == "mtime-1", "so the next listing takes it up again"


def test_flip_brings_the_rule_of_the_listing(ledger: Ledger) -> None:
    publish(ledger, make_ref())
    publish(ledger, make_ref(rule=FINANCE))
    assert ledger.get(BOB, make_ref().document_id) is None
    assert ledger.get(ADA, make_ref().document_id) is not None


def test_rule_of_an_unknown_or_deleted_document_cannot_be_set(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.set_rule("0" * 32, PUBLIC)
    publish(ledger, make_ref())
    ledger.delete([make_ref().document_id])
    with pytest.raises(NotFound):
        ledger.set_rule(make_ref().document_id, PUBLIC)


def test_deleted_document_is_gone_at_once_and_its_chunks_are_stale(ledger: Ledger) -> None:
    ref = make_ref()
    version = publish(ledger, ref)
    key = key_of(ledger, ref)
    assert ledger.delete([ref.document_id, "0" * 32]) == 1
    assert ledger.gate([key], BOB) == {}
    assert ledger.get(BOB, ref.document_id) is None
    assert ledger.find(ledger.tenant_id("acme")) == []
    assert ledger.stale_versions() == [StaleVersion(ref.document_id, version, 3)]
    assert ledger.delete([ref.document_id]) == 0


def test_delete_wins_over_a_flip_on_its_way(ledger: Ledger) -> None:
    ref = make_ref()
    version = ledger.begin_version(ref, "hash", 3, "run")
    ledger.delete([ref.document_id])
    assert not ledger.flip(ref, version)
    assert ledger.get(BOB, ref.document_id) is None
    assert ledger.stale_versions() == [StaleVersion(ref.document_id, version, 3)]


def test_deleted_document_may_come_back_with_another_owner_and_rule(ledger: Ledger) -> None:
    publish(ledger, make_ref(), owner="ada")
    ledger.delete([make_ref().document_id])
    version = ledger.begin_version(make_ref(rule=FINANCE), "hash", 1, "run", owner="bob")
    assert ledger.get(ADA, make_ref().document_id) is None
    assert ledger.flip(make_ref(rule=FINANCE), version)
    record = ledger.get(ADA, make_ref().document_id)
    assert record is not None and record.owner == "bob"
    assert ledger.get(BOB, make_ref().document_id) is None


def test_owner_of_a_live_document_stays(ledger: Ledger) -> None:
    publish(ledger, make_ref(), owner="ada")
    publish(ledger, make_ref(), owner="bob")
    record = ledger.get(BOB, make_ref().document_id)
    assert record is not None and record.owner == "ada"


def test_many_documents_are_deleted_in_one_go(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.documents.BATCH", 2)
    refs = [make_ref(f"{number}.md") for number in range(5)]
    for ref in refs:
        publish(ledger, ref)
    assert ledger.delete([ref.document_id for ref in refs]) == 5
    assert ledger.counts().documents == 0
    assert len(ledger.stale_versions()) == 5


def test_other_tenant_sees_nothing(ledger: Ledger) -> None:
    ref = make_ref()
    publish(ledger, ref)
    publish(ledger, replace(ref, tenant="evil"))
    assert ledger.gate([key_of(ledger, ref)], EVE) == {}
    assert ledger.get(EVE, ref.document_id) is None
    assert [record.document_id for record in ledger.list(EVE, 10)] == [replace(ref, tenant="evil").document_id]


# ---- attempts


def test_attempts_are_counted_and_end_in_the_dead_letters(ledger: Ledger) -> None:
    ref = make_ref()
    assert [ledger.begin_attempt(ref, 3) for _ in range(5)] == [1, 2, 3, None, None]
    [letter] = ledger.dead_letters("acme")
    assert (letter.document_id, letter.source, letter.attempts) == (ref.document_id, "wiki", 3)
    assert "3 attempts" in letter.reason


def test_attempt_that_is_given_back_does_not_count(ledger: Ledger) -> None:
    ref = make_ref()
    for _ in range(5):
        assert ledger.begin_attempt(ref, 3) == 1
        ledger.give_back_attempt(ref)
    assert [ledger.begin_attempt(ref, 3) for _ in range(4)] == [1, 2, 3, None]
    assert len(ledger.dead_letters()) == 1


def test_attempt_of_other_content_is_not_given_back(ledger: Ledger) -> None:
    ledger.give_back_attempt(make_ref())
    ledger.begin_attempt(make_ref(), 3)
    ledger.give_back_attempt(make_ref(fingerprint="mtime-0"))
    assert ledger.begin_attempt(make_ref(), 3) == 2
    for _ in range(5):
        ledger.give_back_attempt(make_ref())
    assert ledger.begin_attempt(make_ref(), 3) == 1, "none is given back that was not begun"


def test_reason_of_a_parser_is_kept_when_attempts_run_out(ledger: Ledger) -> None:
    ref = make_ref()
    ledger.begin_attempt(ref, 1)
    ledger.reject(ref, "page 3 is a bomb\x00", 1)
    assert ledger.begin_attempt(ref, 1) is None
    assert [letter.reason for letter in ledger.dead_letters()] == ["page 3 is a bomb\ufffd"]


def test_changed_content_gets_new_attempts(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.begin_attempt(make_ref(), 2)
    changed = make_ref(fingerprint="mtime-2")
    assert [ledger.begin_attempt(changed, 2) for _ in range(3)] == [1, 2, None]
    assert [letter.fingerprint for letter in ledger.dead_letters()] == ["mtime-2"]


def test_success_forgets_attempts_and_dead_letter(ledger: Ledger) -> None:
    ref = make_ref()
    ledger.begin_attempt(ref, 3)
    ledger.reject(ref, "no text", 1)
    publish(ledger, ref)
    assert ledger.dead_letters() == []
    assert ledger.begin_attempt(ref, 3) == 1


def test_dead_letters_are_listed_for_one_tenant_or_all(ledger: Ledger) -> None:
    ledger.reject(make_ref(), "first", 1)
    ledger.reject(make_ref(tenant="evil"), "second", 1)
    assert [letter.tenant for letter in ledger.dead_letters()] == ["evil", "acme"]
    assert [letter.reason for letter in ledger.dead_letters("acme")] == ["first"]
    assert ledger.dead_letters("nobody") == []


def test_dead_letter_of_a_document_that_left_its_source_is_forgotten(ledger: Ledger) -> None:
    ledger.reject(make_ref(), "no text", 1)
    assert ledger.delete([make_ref().document_id]) == 0
    assert ledger.dead_letters() == []


# ---- asking


def test_known_pages_through_a_source(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.documents.PAGE_ROWS", 3)
    refs = [make_ref(f"{number}.md") for number in range(7)]
    for ref in refs:
        publish(ledger, ref)
    publish(ledger, make_ref(source="other"))
    ledger.delete([refs[0].document_id])
    ledger.begin_version(make_ref("begun.md"), "hash", 1, "run")
    known = {document.external_id: document for document in ledger.known(ledger.source_id("acme", "wiki", ""))}
    assert sorted(known) == ["1.md", "2.md", "3.md", "4.md", "5.md", "6.md", "begun.md"]
    assert (known["1.md"].fingerprint, known["1.md"].content_hash) == ("mtime-1", "hash")
    assert (known["begun.md"].version, known["begun.md"].fingerprint) == (None, ""), "equal to no listing"


def test_touch_keeps_the_version_and_moves_the_fingerprint(ledger: Ledger) -> None:
    ref = make_ref()
    version = publish(ledger, ref)
    ledger.begin_attempt(make_ref(fingerprint="mtime-2"), 3)
    assert ledger.touch(ref.document_id, "mtime-2", "file:///b.md", "B")
    stored = ledger.document(ref.document_id)
    assert stored is not None
    assert (stored.version, stored.fingerprint, stored.uri, stored.title) == (version, "mtime-2", "file:///b.md", "B")
    assert ledger.begin_attempt(make_ref(fingerprint="mtime-2"), 3) == 1, "it was no failure"


def test_touch_of_what_is_not_live_does_nothing(ledger: Ledger) -> None:
    ledger.begin_version(make_ref(), "hash", 1, "run")
    assert not ledger.touch(make_ref().document_id, "mtime-2", "file:///a.md")


def test_list_pages_by_document_id_without_gaps(ledger: Ledger) -> None:
    refs = [make_ref(f"{number}.md", rule=FINANCE if number % 2 else PUBLIC) for number in range(9)]
    for ref in refs:
        publish(ledger, ref)
    seen: list[str] = []
    while page := ledger.list(BOB, 2, seen[-1] if seen else None):
        seen += [record.document_id for record in page]
    assert seen == sorted(ref.document_id for ref in refs if ref.rule is PUBLIC)


def test_find_gives_owner_and_rule_whoever_asks(ledger: Ledger) -> None:
    publish(ledger, make_ref(rule=NOBODY), owner="ada")
    publish(ledger, make_ref("b.md"))
    tenant, source = ledger.tenant_id("acme"), ledger.source_id("acme", "wiki", "")
    [found] = ledger.find(tenant, source, "a.md")
    assert (found.owner, ledger.rule(found.access_id), found.deleted) == ("ada", NOBODY, False)
    assert len(ledger.find(tenant)) == len(ledger.find(tenant, source)) == 2
    assert ledger.find(tenant, source, "c.md") == []


def test_counts_cover_what_is_live(ledger: Ledger) -> None:
    publish(ledger, make_ref(), chunk_count=4)
    publish(ledger, make_ref("b.md"), chunk_count=5)
    publish(ledger, make_ref("b.md"), chunk_count=6)
    ledger.begin_version(make_ref("c.md"), "hash", 7, "run")
    ledger.reject(make_ref("d.md"), "no text", 1)
    counts = ledger.counts()
    assert (counts.tenants, counts.sources, counts.documents, counts.chunks) == (1, 1, 2, 10)
    assert (counts.versions_writing, counts.versions_retired, counts.dead_letters) == (1, 1, 1)
    assert counts.access_rules == 1


def test_text_that_a_database_cannot_hold_is_replaced(ledger: Ledger) -> None:
    ref = make_ref(uri="file:///\udcff\x00.md")
    version = ledger.begin_version(ref, "hash", 1, "run", owner="ada\x00")
    assert ledger.flip(ref, version, title="nul\x00 and \ud800")
    stored = ledger.document(ref.document_id)
    assert stored is not None and stored.title == "nul\ufffd and ?"
    assert ledger.get(BOB, "\x00") is None


def test_sources_tenants_cursors_and_state_are_remembered(ledger: Ledger, database_url: str) -> None:
    source = ledger.source_id("acme", "wiki", "file:///old")
    assert ledger.source_id("acme", "wiki", "file:///new") == source
    assert ledger.source_id("evil", "wiki", "file:///new") != source
    assert ledger.find_tenant("acme") == ledger.tenant_id("acme")
    assert ledger.find_tenant("nobody") is None
    assert ledger.cursor(source) is None
    assert ledger.state("collection") is None
    for value in ("1", "2"):
        ledger.set_cursor(source, value)
        ledger.set_state("collection", value)
    again = Ledger(database_url)
    assert (again.cursor(source), again.state("collection")) == ("2", "2")
    again.close()


# ---- several at once

RACE = """
import json, sys
from index.document import DocumentRef
from index.ledger import Ledger
from policies.access import AccessRule

url, me = sys.argv[1:]
ledger = Ledger(url)
print("ready", flush=True)
sys.stdin.readline()
tenant = ledger.tenant_id("acme")
rules = [ledger.intern_rule(tenant, AccessRule.of([f"group:{n}"], [f"user:{n}"])) for n in range(8)]
ref = DocumentRef("acme", "wiki", "a.md", "file:///a.md", None, me, AccessRule.of(["everyone"]))
begun, flipped = [], []
for n in range(8):
    version = ledger.begin_version(ref, me, 1, me)
    begun.append(version)
    if ledger.flip(ref, version):
        flipped.append(version)
attempts = [ledger.begin_attempt(ref, 1000) for n in range(5)]
print(json.dumps({"tenant": tenant, "rules": rules, "begun": begun, "flipped": flipped}))
"""


def test_processes_that_race_agree_on_one_history(database_url: str) -> None:
    """The tables are created, rules interned and versions begun and flipped by several processes at once."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, database_url, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [json.loads(racer.communicate(timeout=300)[0]) for racer in racers]
    assert all(result["tenant"] == results[0]["tenant"] for result in results)
    assert all(result["rules"] == results[0]["rules"] for result in results)
    assert len(set(results[0]["rules"])) == 8
    begun = [version for result in results for version in result["begun"]]
    assert sorted(begun) == list(range(1, 25)), "no number twice, none left out"
    flipped = [version for result in results for version in result["flipped"]]
    ledger = Ledger(database_url)
    [document] = ledger.find(ledger.tenant_id("acme"))
    assert document.version == max(flipped)
    assert len(ledger.stale_versions()) + ledger.counts().versions_writing >= 23
    assert ledger.counts().documents == 1
    ledger.close()


def test_exactly_one_of_many_flips_wins(ledger: Ledger) -> None:
    ref = make_ref()
    begun = [ledger.begin_version(ref, "hash", 1, str(number)) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda version: ledger.flip(ref, version), begun))
    assert won == [False] * 7 + [True]


def test_threads_that_delete_and_publish_leave_a_consistent_document(ledger: Ledger) -> None:
    refs = [make_ref(f"{number}.md") for number in range(4)]
    ids = [ref.document_id for ref in refs]

    def work(number: int) -> None:
        if number % 3 == 0:
            ledger.delete(ids if number % 2 else ids[::-1])
        else:
            ref = refs[number % 4]
            ledger.flip(ref, ledger.begin_version(ref, "hash", 1, str(number)))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(36)))
    for stored in filter(None, map(ledger.document, ids)):
        stale = {item.version for item in ledger.stale_versions([stored.document_id], abandoned_after_s=0)}
        assert stored.version not in stale
        assert not (stored.deleted and stored.version)


# ---- opening


def test_ledger_of_a_newer_program_is_refused(database_url: str) -> None:
    Ledger(database_url).close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 99"))
    engine.dispose()
    with pytest.raises(ConfigurationError, match="schema version 99"):
        Ledger(database_url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("nonsense", "no SQLAlchemy URL", id="not a URL"),
        pytest.param("mysql://root:hunter2@db/x", "allowed are sqlite and postgresql", id="another database"),
        pytest.param("sqlite://", "needs a file", id="in memory"),
        pytest.param("sqlite:///:memory:", "needs a file", id="in memory by name"),
    ],
)
def test_address_that_cannot_work_is_a_configuration_error(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        Ledger(url)
    assert "hunter2" not in str(caught.value)


def test_unreachable_server_is_unavailable_and_its_password_stays_secret() -> None:
    with pytest.raises(Unavailable, match=r"server 127\.0\.0\.1") as caught:
        Ledger("postgresql://user:hunter2@127.0.0.1:1/ledger")
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "hunter2" not in str(cause)
        cause = cause.__cause__ or cause.__context__


def test_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    with pytest.raises(Unavailable, match=r"notes\.txt"):
        Ledger(f"sqlite:///{tmp_path}/notes.txt")


def test_health_says_whether_the_database_answers(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/deep/ledger.sqlite")
    assert ledger.healthy()
    ledger.close()
    shutil.rmtree(tmp_path / "deep")
    assert not ledger.healthy()


def test_connection_that_the_server_closed_is_replaced_unnoticed(
    postgres_url: str, ledger: Ledger, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no server")
    publish(ledger, make_ref())
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    idle = "FROM pg_stat_activity WHERE state = 'idle' AND application_name = 'rayrag-ledger'"
    for action in (lambda: ledger.get(BOB, make_ref().document_id), lambda: publish(ledger, make_ref())):
        with engine.connect() as connection:
            assert connection.execute(text(f"SELECT pg_terminate_backend(pid) {idle}")).all()
        assert action()
    engine.dispose()
