"""Planning: a listing against the ledger, without Ray or a store."""

from __future__ import annotations

from dataclasses import replace

from index.document import DocumentRef
from index.ledger_records import KnownDocument
from ingest.connector import Entry, Mark, Unreadable
from ingest.plan import TWICE, plan
from policies.access import NOBODY, AccessRule

EVERYONE = AccessRule.of(["everyone"])
ADA = AccessRule.of(["user:ada"])
RULES = {EVERYONE: 1, ADA: 2, NOBODY: 3}


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
    return plan([*listing, Mark(None, complete)], {row.document_id: row for row in ledger}, RULES.__getitem__)


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


def test_a_rule_that_comes_with_other_text_only_narrows_until_that_text_is_live():
    todo = made([entry("a", "f2", ADA)], [known(entry("a"))])
    assert (len(todo.narrowed), len(todo.process), todo.rights, todo.discovered) == (1, 1, [], 1)


def test_what_the_source_no_longer_names_is_deleted():
    assert made([entry("a")], [known(entry("a")), known(entry("b"))]).deleted == [entry("b").ref.document_id]


def test_a_partial_listing_deletes_nothing():
    assert made([entry("a")], [known(entry("a")), known(entry("b"))], complete=False).deleted == []


def test_a_document_that_cannot_be_read_is_rejected_and_not_deleted():
    todo = made([entry("a", error="bad row")], [known(entry("a"))])
    assert len(todo.rejected) == 1 and todo.deleted == [] and todo.discovered == 1


def test_a_version_that_was_never_finished_is_processed_again():
    assert len(made([entry("a")], [known(entry("a"), version=None, fingerprint="")]).process) == 1


def test_a_document_whose_rule_became_malformed_loses_its_readers_and_stays_rejected():
    todo = made([entry("a", "", NOBODY, error="acl must be a list")], [known(entry("a"))])
    assert [e.ref.rule for e in todo.narrowed] == [NOBODY]
    assert (len(todo.rejected), todo.rights, todo.deleted, todo.discovered) == (1, [], [], 1)


def test_a_bad_document_that_was_never_live_has_no_readers_to_lose():
    assert made([entry("a", "", NOBODY, error="bad")], []).narrowed == []


def ids(entries):
    return [e.ref.external_id for e in entries]


def test_two_entries_with_one_id_are_both_rejected_whatever_the_first_would_have_been():
    ledger = [known(entry(name)) for name in ("changed", "same", "rights", "moved")]
    ledger[3] = replace(ledger[3], uri="file:///elsewhere")
    first = [entry("new"), entry("changed", "f2"), entry("same"), entry("rights", rule=ADA), entry("moved")]
    second = [entry(name, "other", EVERYONE) for name in ("new", "changed", "same", "rights", "moved")]
    todo = made([*first, *second, entry("alone")], ledger)
    assert (ids(todo.process), todo.rights, todo.relabelled, todo.unchanged, todo.deleted) == (["alone"], [], [], 0, [])
    assert sorted(ids(todo.rejected)) == sorted(2 * ["new", "changed", "same", "rights", "moved"])
    assert {e.error for e in todo.rejected} == {TWICE}
    assert todo.discovered == 11
    assert [(e.ref.external_id, e.ref.rule) for e in todo.narrowed] == [("rights", ADA)]


def test_a_second_entry_cannot_widen_and_both_of_them_narrow():
    todo = made([entry("a", rule=EVERYONE), entry("a", "f2", NOBODY), entry("a", "f3", ADA)], [known(entry("a"))])
    assert [e.ref.rule for e in todo.narrowed] == [NOBODY, ADA]
    assert len(todo.rejected) == todo.discovered == 3


def test_an_entry_that_had_a_reason_of_its_own_keeps_it_when_its_id_comes_again():
    todo = made([entry("a", error="bad row"), entry("a")], [])
    assert [e.error for e in todo.rejected] == ["bad row", TWICE]


def test_what_lies_below_something_unreadable_is_neither_named_nor_gone():
    rows = [known(entry(name)) for name in ("b/same", "b/gone", "b/text", "b/rule", "b/moved", "bc", "out")]
    moved = entry("b/moved")
    listing = [
        entry("b/same"),
        entry("b/new"),
        entry("b/text", "f2", ADA),
        entry("b/rule", rule=ADA),
        replace(moved, ref=replace(moved.ref, uri="elsewhere")),
        entry("b/bad", error="no regular file"),
        Unreadable("b/", "b/acl.yaml: entry 1"),
        entry("b/same"),
        entry("bc", rule=ADA),
    ]
    todo = made(listing, rows)
    assert [each.ref.external_id for each in todo.rights] == ["bc"]
    assert todo.deleted == [entry("out").ref.document_id]
    assert (todo.process, todo.narrowed, todo.relabelled, todo.rejected, todo.unchanged) == ([], [], [], [], 0)
