"""Planning: a listing against the ledger, without Ray or a store."""

from __future__ import annotations

from dataclasses import replace

from index.document import DocumentRef
from index.ledger_records import KnownDocument
from ingest.listing import Entry
from ingest.plan import plan
from policies.access import AccessRule

EVERYONE = AccessRule.of(["everyone"])
RULES = {EVERYONE: 1, AccessRule.of(["user:ada"]): 2}


def entry(name: str, fingerprint: str = "f1", rule: AccessRule = EVERYONE, error: str | None = None) -> Entry:
    ref = DocumentRef("t", "s", name, f"file:///s/{name}", None, fingerprint, rule)
    return Entry(ref, location=ref.uri, error=error)


def known(of: Entry, **changes: object) -> KnownDocument:
    ref = of.ref
    row = KnownDocument(
        ref.document_id, ref.external_id, ref.fingerprint, "hash", RULES[ref.rule], 1, ref.uri, ref.external_id, 3
    )
    return replace(row, **changes)


def made(listing, ledger, complete=True):
    return plan(listing, {row.document_id: row for row in ledger}, RULES.__getitem__, complete)


def test_a_new_document_is_processed():
    todo = made([entry("a")], [])
    assert [e.ref.external_id for e in todo.process] == ["a"] and todo.discovered == 1


def test_an_unchanged_document_needs_nothing():
    todo = made([entry("a")], [known(entry("a"))])
    assert (todo.unchanged, todo.process, todo.rights, todo.deleted) == (1, [], [], [])


def test_changed_content_is_processed():
    assert len(made([entry("a", "f2")], [known(entry("a"))]).process) == 1


def test_a_change_of_rights_alone_embeds_nothing():
    todo = made([entry("a", rule=AccessRule.of(["user:ada"]))], [known(entry("a"))])
    assert len(todo.rights) == 1 and todo.process == [] and todo.unchanged == 0 and todo.discovered == 1


def test_rights_change_at_once_also_when_the_content_changed_too():
    todo = made([entry("a", "f2", AccessRule.of(["user:ada"]))], [known(entry("a"))])
    assert len(todo.rights) == 1 and len(todo.process) == 1 and todo.discovered == 1


def test_what_the_source_no_longer_names_is_deleted():
    assert made([entry("a")], [known(entry("a")), known(entry("b"))]).deleted == [entry("b").ref.document_id]


def test_a_partial_listing_deletes_nothing():
    assert made([entry("a")], [known(entry("a")), known(entry("b"))], complete=False).deleted == []


def test_a_document_that_cannot_be_read_is_rejected_and_not_deleted():
    todo = made([entry("a", error="bad row")], [known(entry("a"))])
    assert len(todo.rejected) == 1 and todo.deleted == [] and todo.discovered == 1


def test_a_version_that_was_never_finished_is_processed_again():
    assert len(made([entry("a")], [known(entry("a"), version=None, fingerprint="")]).process) == 1
