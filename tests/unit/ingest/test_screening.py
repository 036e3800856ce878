"""What passes on the way in: values, labels, whole documents, holds and time; and that nothing passes unscreened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.compliance_settings import DAY_S
from index.document import Chunk, DocumentRef, Extracted, Page
from index.ledger import Ledger
from ingest.connector import Entry, InlineDocument
from ingest.expiry import expire
from ingest.report import Outcome
from ingest.screening import Screening, ScreeningFailed
from ingest.stages import Embedded, Preparation, Prepared, change_rights, pipeline_key, stamped, write
from policies.access import AccessRule
from policies.errors import Held, InvalidRequest, NotFound, Unavailable
from policies.labels import Label
from tests.unit.ingest.conftest import World
from tests.unit.ingest.screens import screening

CARD = "4111 1111 1111 1111"
MAIL = "ada.lovelace@example.org"
TEXT = f"# Note\n\nThe card is {CARD}.\nWrite to {MAIL}.\nAKIAIOSFODNN7EXAMPLE is the key."
EVERYONE = AccessRule.of(["everyone"])


class Rows:
    def upsert(self, rows: Any) -> int:
        return len(rows)

    def delete(self, *_: Any) -> None:
        pass

    def set_access(self, *_: Any) -> None:
        pass


@pytest.fixture
def make_world(ledger: Ledger) -> Callable[..., World]:
    return lambda *regimes: World(ledger, "desk", regimes)


class OneChunk:
    def split(self, extracted: Extracted) -> tuple[Chunk, ...]:
        return (Chunk(0, extracted.text, 0, len(extracted.text)),) if extracted.text.strip() else ()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield ledger
    ledger.close()


def entry(text: str = TEXT, screen: Screening | None = None, name: str = "note", title: str | None = None) -> Entry:
    ref = DocumentRef("acme", "s", name, f"mem:{name}", title, str(hash(text)), EVERYONE)
    key = "" if screen is None else pipeline_key(screen, "acme", "s")
    return stamped(Entry(ref, inline=InlineDocument(title, text)), key)


def put(ledger: Ledger, screen: Screening, given: Entry) -> Outcome | Prepared:
    """Prepare and write. Gives the prepared document, or what became of it."""
    prepare = Preparation(ledger, None, OneChunk(), 3, 1_000_000, screen=screen)  # type: ignore[arg-type]
    made = prepare(given, lambda *_: b"")
    if isinstance(made, Prepared):
        vectors = tuple({"m": np.zeros(2, np.float32)} for _ in made.chunks)
        write([Embedded(made, vectors, 0)], ledger, Rows(), "run")  # type: ignore[arg-type]
    return made


def stored(ledger: Ledger, name: str = "note") -> Any:
    return ledger.document(entry(name=name).ref.document_id)


def text_of(made: Outcome | Prepared) -> str:
    assert isinstance(made, Prepared)
    return made.chunks[0].text


def test_without_a_regime_a_document_is_classified_and_left_as_it_is(ledger):
    made = put(ledger, screening(ledger), entry())
    assert text_of(made) == TEXT
    record = ledger.classifications.get(made.ref.document_id)
    assert set(record.categories) >= {"PCI", "personal_data", "secrets"}
    assert (record.label, record.minimum) == (Label.RESTRICTED, None)
    assert made.ref.rule.label is Label.INTERNAL
    assert all(value not in str(record) for value in (CARD, MAIL, "AKIA"))


def test_values_are_changed_before_the_text_is_cut_and_the_title_too(ledger):
    made = put(ledger, screening(ledger, "gdpr"), entry(title=f"The card {CARD}"))
    assert isinstance(made, Prepared)
    assert CARD not in text_of(made) and "AKIA" not in text_of(made)
    assert "[CREDIT_CARD]" in text_of(made) and "[API_KEY]" in text_of(made)
    assert made.title == "The card [CREDIT_CARD]"
    done = {
        (each["regime"], each["entity"]): each["count"] for each in ledger.classifications.actions(made.ref.document_id)
    }
    assert done == {("gdpr", "CREDIT_CARD"): 2, ("gdpr", "API_KEY"): 1}


def test_a_title_that_goes_does_not_come_back_as_the_sources_word(ledger, make_world):
    screen = screening(ledger, "gdpr")
    given = entry(title=CARD)
    made = put(ledger, screen, replace(given, ref=replace(given.ref, title=CARD)))
    assert CARD not in ledger.document(made.ref.document_id).title
    assert screen.title(given.ref, f"Card {CARD}") == "Card [CREDIT_CARD]"
    screen._finder = BrokenFinder()
    with pytest.raises(ScreeningFailed):
        screen.title(given.ref, CARD)


def test_pages_stay_where_their_text_is(ledger):
    text = f"{CARD} is first.\nSecond page."
    cut = text.index("Second")
    extracted = Extracted(text, pages=(Page(1, 0, cut), Page(2, cut, len(text))))
    found = screening(ledger, "gdpr")(entry(), extracted).extracted
    first, second = (found.text[page.start : page.end] for page in found.pages)
    assert (first, second) == ("[CREDIT_CARD] is first.\n", "Second page.")


def test_a_pseudonym_is_the_same_in_every_document(ledger):
    screen = screening(ledger, "gdpr")
    made = [put(ledger, screen, entry(f"US SSN {ssn} here.", name=ssn)) for ssn in ("536-90-4399", "536 90 4399")]
    first, second = (text_of(each) for each in made)
    assert first == second
    assert "[US_SSN:" in first


# ---- labels


def test_a_label_that_a_rule_demands_holds_also_when_rights_change_later(ledger):
    made = put(ledger, screening(ledger, "gdpr"), entry())
    assert made.ref.rule.label is Label.RESTRICTED
    document_id = made.ref.document_id
    assert ledger.held(document_id).label is Label.RESTRICTED
    change_rights(document_id, AccessRule.of(["user:ada"], label=Label.PUBLIC), ledger, Rows())
    assert ledger.held(document_id).label is Label.RESTRICTED
    assert ledger.rule(ledger.held(document_id).document.access_id).allow == {"user:ada"}


def test_a_source_that_says_a_lower_label_again_and_again_changes_nothing(ledger, make_world):
    world = make_world("gdpr")
    world.desk.put("a", "The key AKIAIOSFODNN7EXAMPLE is here.", EVERYONE)
    world.sync.list()
    document_id = world.desk.entry("a").ref.document_id
    label = world.ledger.held(document_id).label
    assert label is Label.RESTRICTED
    report = world.sync.list(full=True)
    assert (report.unchanged, report.access_changed) == (1, 0)
    world.desk.put("a", "The key AKIAIOSFODNN7EXAMPLE is here.", AccessRule.of(["user:ada"]))
    assert world.sync.list().access_changed == 1
    held = world.ledger.held(document_id)
    assert (held.label, world.ledger.rule(held.document.access_id).allow) == (Label.RESTRICTED, {"user:ada"})
    assert world.rows.carried == {(document_id, 1): held.document.access_id}


def test_what_is_held_stays_when_its_source_says_that_it_is_gone(ledger, make_world):
    world = make_world()
    world.desk.put("a", "The heron.", EVERYONE)
    world.desk.put("b", "The ouzel.", EVERYONE)
    world.sync.list()
    document_id = world.desk.entry("a").ref.document_id
    hold = world.ledger.holds.add("acme", "document", document_id, "a claim is pending", "me")
    world.desk.take("a")
    world.desk.take("b")
    assert world.sync.list(full=True).deleted == 1
    assert world.ledger.document(document_id).version == 1
    world.ledger.holds.release(hold.hold_id, "me")
    assert world.sync.list(full=True).deleted == 1


def test_a_rule_never_lowers_a_label(ledger):
    given = entry("The heron counts.")
    given = replace(given, ref=replace(given.ref, rule=replace(EVERYONE, label=Label.RESTRICTED)))
    assert put(ledger, screening(ledger, "gdpr"), given).ref.rule.label is Label.RESTRICTED


# ---- whole documents


def house(tmp_path: Path, ledger: Ledger, action: str = "quarantine") -> Screening:
    from policies.compliance.combining import Applied, Policies
    from policies.keyed_hashes import KeyedHashes
    from policies.pii.detector import Detector

    path = tmp_path / "house.yaml"
    path.write_text(
        "regime: house\ntitle: House\nrules:\n"
        f"  - {{id: no-keys, article: House 1, why: so, at: ingest, entities: [SECRETS], action: {action}}}\n"
    )
    policies = Policies(Applied(regimes=("house",)), files=[path])
    return Screening(ledger, policies, Detector(), KeyedHashes(b"k" * 32))


@pytest.mark.parametrize(("action", "word"), [("quarantine", "held for review"), ("drop_document", "kept out")])
def test_a_document_that_a_rule_keeps_out_is_a_dead_letter_that_names_the_rule(ledger, tmp_path, action, word):
    outcome = put(ledger, house(tmp_path, ledger, action), entry())
    assert (outcome.status, outcome.reason) == ("quarantined", f"{word} by house/no-keys (House 1)")
    [letter] = ledger.dead_letters()
    assert letter.reason == outcome.reason
    assert ledger.classifications.get(letter.document_id).outcome in ("quarantined", "dropped")


def test_a_document_that_a_person_released_passes_with_its_values_masked_and_only_as_it_was(ledger, tmp_path):
    screen = house(tmp_path, ledger)
    document_id = entry().ref.document_id
    with pytest.raises(NotFound):
        ledger.classifications.release(document_id, "fine", "me")
    put(ledger, screen, entry())
    ledger.classifications.release(document_id, "an example key", "me")
    made = put(ledger, screen, entry())
    assert "[API_KEY]" in text_of(made) and "AKIA" not in text_of(made)
    assert put(ledger, screen, entry(TEXT + " AKIAIOSFODNN7EXAMPLF too.")).status == "quarantined"
    with pytest.raises(InvalidRequest):
        ledger.classifications.release(document_id, " ", "me")


def test_a_new_policy_screens_again_and_takes_away_what_it_keeps_out(ledger, tmp_path):
    before, after = screening(ledger), house(tmp_path, ledger)
    assert isinstance(put(ledger, before, entry(screen=before)), Prepared)
    assert put(ledger, before, entry(screen=before)).status == "unchanged"
    assert put(ledger, after, entry(screen=after)).status == "quarantined"
    assert stored(ledger).version is None


def test_a_policy_that_another_source_got_screens_nothing_again(ledger):
    from policies.compliance.combining import Applied, Policies

    plain = Policies(Applied())
    other = Policies(Applied(), sources={None: {"hr": Applied(regimes=("gdpr",))}})
    assert plain.of("acme", "s").version == other.of("acme", "s").version
    assert plain.of("acme", "hr").version != other.of("acme", "hr").version


# ---- failures


class BrokenFinder:
    def find(self, text: str) -> Any:
        raise ValueError(f"could not read {text}")


def test_where_the_detector_fails_the_document_is_quarantined_and_nothing_is_quoted(ledger):
    screen = screening(ledger)
    screen._finder = BrokenFinder()
    outcome = put(ledger, screen, entry())
    assert (outcome.status, outcome.reason) == ("quarantined", "its personal data could not be looked for: ValueError")
    assert stored(ledger) is None or stored(ledger).version is None


def test_where_the_detector_fails_on_a_new_text_the_screened_one_stays(ledger):
    screen = screening(ledger)
    put(ledger, screen, entry(screen=screen))
    screen._finder = BrokenFinder()
    assert put(ledger, screen, entry(TEXT + " More.", screen)).status == "quarantined"
    assert stored(ledger).version == 1


def test_where_the_detector_fails_under_a_new_policy_what_is_live_goes(ledger):
    before, after = screening(ledger), screening(ledger, "gdpr")
    put(ledger, before, entry(screen=before))
    after._finder = BrokenFinder()
    assert put(ledger, after, entry(screen=after)).status == "quarantined"
    assert stored(ledger).version is None


@pytest.mark.parametrize("part", ["_policies", "_hashes"])
def test_where_a_policy_or_a_key_fails_nothing_passes(ledger, part):
    screen = screening(ledger, "gdpr")
    setattr(screen, part, object())
    given = entry("US SSN 536-90-4399 here.")
    if part == "_hashes":
        assert put(ledger, screen, given).status == "quarantined"
    else:
        with pytest.raises(AttributeError):
            put(ledger, screen, given)
    assert stored(ledger) is None or stored(ledger).version is None


def test_where_the_ledger_is_down_the_run_ends_and_the_document_is_not_blamed(ledger, monkeypatch):
    def down(_: Any) -> Any:
        raise Unavailable("the ledger database is locked")

    monkeypatch.setattr(ledger.classifications, "keep", down)
    with pytest.raises(Unavailable):
        put(ledger, screening(ledger, "gdpr"), entry())
    assert ledger.dead_letters() == []


# ---- holds, records and time


def record(text: str = "Journal entry 17.") -> Entry:
    return entry(text, name="ledger 2026", title="General ledger")


def test_a_financial_record_is_kept_as_it_is_for_seven_years(ledger):
    screen = screening(ledger, "sox")
    made = put(ledger, screen, record())
    assert made.ref.rule.label is Label.CONFIDENTIAL
    refused = put(ledger, screen, record("Journal entry 18."))
    assert (refused.status, refused.failure) == ("quarantined", Held)
    assert "sox/seven-years (17 CFR 210.2-06" in refused.reason
    assert ledger.holds.of([made.ref.document_id])
    assert not ledger.holds.of([made.ref.document_id], now=time.time() + 2558 * DAY_S)
    assert put(ledger, screen, record()).status == "unchanged"


def test_a_record_that_may_not_change_is_screened_under_a_new_policy_all_the_same(ledger):
    before, after = screening(ledger, "sox"), screening(ledger, "sox", "gdpr")
    given = f"Journal entry 17 of {CARD}."
    put(ledger, before, replace(record(given), ref=replace(record(given).ref, fingerprint="f|before")))
    made = put(ledger, after, replace(record(given), ref=replace(record(given).ref, fingerprint="f|after")))
    assert "[CREDIT_CARD]" in text_of(made)


def test_what_is_held_neither_expires_nor_is_withdrawn(ledger, tmp_path):
    screen = screening(ledger, retention_days={"*": 30})
    held, free = (put(ledger, screen, entry("The heron.", screen, name)) for name in ("held", "free"))
    hold = ledger.holds.add("acme", "document", held.ref.document_id, "a claim is pending", "me")
    later = time.time() + 31 * DAY_S
    assert expire(ledger, Rows(), now=time.time()).removed == []
    done = expire(ledger, Rows(), now=later)
    assert (done.removed, done.held) == ([free.ref.document_id], {held.ref.document_id: "a claim is pending"})
    assert (stored(ledger, "held").deleted, stored(ledger, "free").deleted) == (False, True)
    ledger.holds.release(hold.hold_id, "me")
    assert expire(ledger, Rows(), now=later).removed == [held.ref.document_id]


def test_what_expired_does_not_come_back_from_its_source(ledger, monkeypatch):
    screen = screening(ledger, retention_days={"*": 30})
    put(ledger, screen, entry("The heron.", screen))
    later = time.time() + 31 * DAY_S
    expire(ledger, Rows(), now=later)
    monkeypatch.setattr(time, "time", lambda: later)
    outcome = put(ledger, screen, entry("The heron.", screen))
    assert outcome.reason == "kept out by settings/retention_days (args.compliance)"


def test_a_hold_on_a_source_holds_its_documents(ledger):
    made = put(ledger, screening(ledger), entry())
    ledger.holds.add("acme", "source", "s", "an audit is under way", "me")
    ledger.holds.add("rival", "source", "s", "not ours", "me")
    assert ledger.holds.of([made.ref.document_id, "0" * 32]) == {made.ref.document_id: "an audit is under way"}


def test_documents_of_another_region_are_not_stored(ledger):
    screen = screening(ledger, residency=("eu",))
    assert put(ledger, screen, entry()).reason == "kept out by settings/residency (args.compliance)"
    screen._region = "eu"
    assert isinstance(put(ledger, screen, entry(name="other")), Prepared)
