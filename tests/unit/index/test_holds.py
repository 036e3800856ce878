"""Holds: on a document, a source and a person; until they are released, or their time is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.document import DocumentRef
from index.ledger import Ledger
from policies.access import AccessRule
from policies.errors import InvalidRequest, NotFound


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield ledger
    ledger.close()


def place(ledger: Ledger, name: str, tenant: str = "acme", source: str = "s") -> str:
    ref = DocumentRef(tenant, source, name, f"mem:{name}", None, "f", AccessRule.of(["everyone"]))
    ledger.flip(ref, ledger.begin_version(ref, "h", 1, "run"))
    return ref.document_id


def test_a_hold_is_of_its_tenant_and_ends_when_it_is_released(ledger):
    ours, theirs = place(ledger, "a"), place(ledger, "a", "rival")
    hold = ledger.holds.add("acme", "source", "s", "an audit", "me")
    assert ledger.holds.of([ours, theirs]) == {ours: "an audit"}
    released = ledger.holds.release(hold.hold_id, "you")
    assert (released.released_by, ledger.holds.of([ours])) == ("you", {})
    assert ledger.holds.all() == []
    assert [each.hold_id for each in ledger.holds.all(released=True)] == [hold.hold_id]
    with pytest.raises(NotFound):
        ledger.holds.release(hold.hold_id, "you")


def test_two_holds_hold_until_both_are_released(ledger):
    document = place(ledger, "a")
    first, second = (ledger.holds.add("acme", "document", document, why, "me") for why in ("one", "two"))
    ledger.holds.release(first.hold_id, "me")
    assert ledger.holds.of([document]) == {document: "two"}
    ledger.holds.release(second.hold_id, "me")
    assert ledger.holds.of([document]) == {}


def test_a_hold_that_ends_by_itself_ends(ledger):
    document = place(ledger, "a")
    ledger.holds.add("acme", "document", document, "for a day", "me", until=time.time() + 86_400)
    assert ledger.holds.of([document])
    assert ledger.holds.of([document], now=time.time() + 86_500) == {}


def test_what_a_rule_keeps_is_kept_once_made_longer_and_never_released_by_hand(ledger):
    document, soon = place(ledger, "a"), time.time() + 100
    for until in (soon, soon + 50, soon - 50):
        ledger.holds.keep("acme", document, "by a rule", until)
    [hold] = ledger.holds.all()
    assert hold.until == soon + 50
    assert ledger.holds.immutable(document) == "by a rule"
    with pytest.raises(InvalidRequest):
        ledger.holds.release(hold.hold_id, "me")


def test_a_person_is_held_by_any_of_the_hashes_that_name_them(ledger):
    ledger.holds.add("acme", "subject", "h1", "a claim", "me")
    assert ledger.holds.any_for("acme", {"h0", "h1"}) == "a claim"
    assert ledger.holds.any_for("acme", {"h0"}) is None
    assert ledger.holds.any_for("rival", {"h1"}) is None


@pytest.mark.parametrize(("reason", "until"), [("", None), (" ", None), ("x" * 501, None), ("ok", 1.0)])
def test_a_hold_says_why_and_does_not_lie_in_the_past(ledger, reason, until):
    with pytest.raises(InvalidRequest):
        ledger.holds.add("acme", "source", "s", reason, "me", until)
