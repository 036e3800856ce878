"""What a caller is shown: by role, purpose and consent; and that whatever breaks refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from policies.citations import Evidence
from policies.compliance.combining import Applied, Policies
from policies.compliance.consent import Consents
from policies.compliance.screening import Passage, PersonalData, Screening, pseudonym
from policies.errors import ContentBlocked, Unavailable
from policies.guard import GuardedRequest, Screens
from policies.keyed_hashes import KeyedHashes
from policies.pii.detector import Detector
from policies.principals import Principal
from policies.roles import Roles

HASHES = KeyedHashes(b"k" * 32)
ROLES = Roles({"user": ["rag:query"], "nurse": ["rag:query", "pii:reveal"], "admin": ["*"]})
TEXT = "Write to ada.lovelace@example.org about it, or call none."
MAIL = "ada.lovelace@example.org"


class Registry:
    def __init__(self, **kept: Consents) -> None:
        self.kept = kept

    def consents(self, tenant: str, purpose: str) -> Consents:
        return self.kept.get(purpose, Consents())


class Broken:
    def __getattr__(self, name: str) -> Any:
        def fails(*_: Any) -> Any:
            raise ValueError(MAIL)

        return fails


def personal(*regimes: str, **changes: Any) -> PersonalData:
    said = changes.pop("said", {})
    kinds: Mapping[str, frozenset[str]] = changes.pop("kinds", {"d": frozenset({"personal_data"})})
    parts = {
        "policies": Policies(Applied(regimes=regimes, **said), None, changes.pop("sources", None)),
        "finder": Detector(frozenset({"EMAIL_ADDRESS", "US_SSN", "CREDIT_CARD", "IBAN_CODE"})),
        "hashes": HASHES,
        "registry": Registry(),
        "categories": lambda ids: {each: kinds[each] for each in ids if each in kinds},
        "permissions": ROLES,
    }
    return PersonalData(**{**parts, **changes})


def caller(*roles: str) -> Principal:
    return Principal("p", "acme", frozenset(roles))


def shown(made: PersonalData, who: Principal, purpose: str | None = None, text: str = TEXT, **place: Any) -> Any:
    [found] = made.begin(who, purpose).passages([Passage("d", place.get("source", "s"), text, place.get("fields", ()))])
    return found


def test_without_a_regime_nothing_is_changed():
    assert shown(personal(), caller("user"), "whatever").text == TEXT


def test_who_may_not_reveal_sees_the_value_masked_and_the_places_are_kept():
    found = shown(personal("gdpr"), caller("user"), "customer_support")
    assert found.text == "Write to [EMAIL_ADDRESS] about it, or call none."
    start = found.text.index("about")
    assert TEXT[found.offsets.before(start) :].startswith("about")


@pytest.mark.parametrize(
    ("roles", "purpose", "sees"),
    [
        (("nurse",), "customer_support", True),
        (("admin",), "customer_support", True),
        (("nurse",), None, False),
        (("nurse",), "answering", False),
        (("user",), "customer_support", False),
    ],
)
def test_a_reveal_needs_the_permission_and_a_purpose_that_reveals(roles, purpose, sees):
    screening = personal("gdpr").begin(caller(*roles), purpose)
    [found] = screening.passages([Passage("d", "s", TEXT)])
    assert (MAIL in found.text) is sees
    if sees:
        assert screening.detail() == {"revealed": {"EMAIL_ADDRESS": 1}, "revealed_for": purpose}
    else:
        assert screening.detail() == {"redactions": {"EMAIL_ADDRESS": 1}}
    assert MAIL not in str(screening.detail())


def test_titles_and_addresses_are_screened_as_well():
    found = shown(personal("gdpr"), caller("user"), fields=(f"Letter of {MAIL}", f"file:///{MAIL}.txt"))
    assert all(MAIL not in field for field in found.fields)


@pytest.mark.parametrize("purpose", ["profiling_of_special_categories", "fun", ""])
def test_a_forbidden_or_unknown_purpose_is_refused_and_not_repeated(purpose):
    with pytest.raises(ContentBlocked) as raised:
        personal("gdpr").begin(caller("admin"), purpose)
    assert raised.value.detail.startswith("purpose: ")
    assert "fun" not in raised.value.detail


def test_a_purpose_may_be_asked_for_and_may_be_for_some_roles_only():
    said = {"require_purpose": True, "purposes": {"care": {"basis": "notice", "roles": ["nurse"], "reveals": True}}}
    made = personal("gdpr", said=said)
    with pytest.raises(ContentBlocked, match="purpose: state one of"):
        made.begin(caller("user"), None)
    with pytest.raises(ContentBlocked, match="refused by settings/care"):
        made.begin(caller("user"), "care")
    made.begin(caller("nurse"), "care")


def test_consent_is_asked_for_where_the_purpose_needs_it():
    subject = "subject:" + HASHES.subject("acme", MAIL.upper())
    given: Sequence[tuple[Consents, bool]] = [
        (Consents(), False),
        (Consents(frozenset({"*"})), True),
        (Consents(frozenset({"source:s"})), True),
        (Consents(frozenset({"source:other"})), False),
        (Consents(frozenset({subject})), True),
        (Consents(frozenset({"*"}), frozenset({subject})), False),
        (Consents(frozenset({"*"}), frozenset({"source:s"})), False),
    ]
    for consents, permitted in given:
        found = shown(personal("gdpr", registry=Registry(marketing=consents)), caller("user"), "marketing")
        assert (found.withheld is None) is permitted, consents
        if not permitted:
            assert (found.text, found.withheld.article) == ("", "GDPR Art. 6(1)(a), Art. 21(2)")


def test_everybody_who_is_named_must_have_consented():
    other = TEXT + " Or to bob.bold@example.org."
    subject = "subject:" + HASHES.subject("acme", MAIL)
    registry = Registry(marketing=Consents(frozenset({subject})))
    assert shown(personal("gdpr", registry=registry), caller("user"), "marketing", other).withheld is not None
    assert shown(personal("gdpr", registry=registry), caller("user"), "marketing", "None.").withheld is not None


def test_who_opted_out_is_left_out_of_that_purpose_only():
    subject = "subject:" + HASHES.subject("acme", MAIL)
    registry = Registry(sale_or_sharing=Consents(withdrawn=frozenset({subject})))
    made = personal("ccpa", registry=registry)
    assert shown(made, caller("user"), "sale_or_sharing").withheld.article == "Cal. Civ. Code 1798.120"
    assert shown(made, caller("user"), "business_purpose").withheld is None
    assert shown(made, caller("user"), "sale_or_sharing", "Of bob.bold@example.org.").withheld is None


def test_health_documents_give_no_more_passages_than_needed():
    made = personal("hipaa", kinds={"d": frozenset({"PHI"})})
    many = [Passage("d", "s", f"Passage {n}.") for n in range(30)]

    def given(who: Principal, purpose: str | None) -> int:
        return sum(each.withheld is None for each in made.begin(who, purpose).passages(many))

    assert given(caller("user"), None) == 5
    assert given(caller("nurse"), None) == 20
    assert given(caller("user"), "payment") == 10
    assert made.begin(caller("user"), None).passages(many)[9].withheld.article == "45 CFR 164.502(b), 164.514(d)"


def test_a_document_that_was_never_classified_is_treated_as_of_every_kind():
    made = personal("hipaa", kinds={})
    assert MAIL not in shown(made, caller("user")).text
    made = personal("hipaa", kinds={"d": frozenset()})
    assert MAIL in shown(made, caller("user")).text


@pytest.mark.parametrize(
    ("region", "residency", "there"),
    [("eu", ("eu",), True), ("us", ("eu",), False), (None, ("eu",), False), ("us", (), True)],
)
def test_what_may_not_be_in_this_region_is_not_shown(region, residency, there):
    made = personal(region=region, said={"residency": residency})
    assert (shown(made, caller("admin")).withheld is None) is there


def test_pseudonyms_are_stable_in_a_tenant_and_tell_nothing_to_another():
    one = pseudonym(HASHES, "acme", "12-34 5678")
    assert one == pseudonym(HASHES, "acme", "12345678")
    assert one != pseudonym(HASHES, "rival", "12345678")
    assert one.isalpha() and len(one) == 10


# ---- the guard around it


def request(made: PersonalData | None, *roles: str) -> GuardedRequest:
    return GuardedRequest(caller(*roles), "rag:query", "query", "id", Screens(personal=made))


EVIDENCE = [Evidence("c", "d", "The heron counts.", 0, 17, "T", "u")]


def run(guarded: GuardedRequest, *pieces: str) -> str:
    async def work() -> str:
        await guarded.question("who?", None)
        await guarded.passages({"c": Passage("d", "s", TEXT)})
        outgoing = guarded.citing(EVIDENCE)
        return "".join([*map(outgoing.feed, pieces), outgoing.finish()])

    return asyncio.run(work())


def test_a_models_words_are_screened_before_their_marks_and_links():
    answer = f"Ask {MAIL} now. The heron counts [1]. See https://{MAIL}/x."
    whole = run(request(personal("gdpr")), answer)
    assert MAIL not in whole and "lovelace" not in whole
    assert "The heron counts [1]." in whole
    for cut in range(1, len(answer)):
        assert run(request(personal("gdpr")), answer[:cut], answer[cut:]) == whole


def test_what_a_model_began_to_say_is_not_before_the_quotes_that_take_its_place():
    guarded = request(personal("gdpr"))

    async def work() -> str:
        await guarded.question("who?", None)
        await guarded.passages({"c": Passage("d", "s", TEXT)})
        outgoing = guarded.citing(EVIDENCE)
        outgoing.feed("I begin and")
        return outgoing.quoting(f"The heron counts [1], says {MAIL}")

    assert asyncio.run(work()) == "The heron counts [1], says [EMAIL_ADDRESS]"


def test_what_a_rule_held_back_is_on_the_record_by_its_name():
    guarded = request(personal("gdpr", registry=Registry()))

    async def work() -> None:
        await guarded.question("who?", "marketing")
        await guarded.passages({"c": Passage("d", "s", TEXT)})

    asyncio.run(work())
    assert guarded._withheld_counts == {"gdpr/marketing": 1}


@pytest.mark.parametrize("part", ["policies", "finder", "registry", "categories", "permissions", "hashes"])
def test_whatever_breaks_refuses_and_says_nothing(part):
    """Each of the parts raises something nobody foresaw, whose words hold a value."""
    broken: Any = Broken().anything if part == "categories" else Broken()
    purpose = "customer_support" if part == "permissions" else "marketing"
    subject = frozenset({"subject:x"})
    changes = {"registry": Registry(marketing=Consents(withdrawn=subject)), part: broken}
    guarded = request(personal("gdpr", **changes))

    async def work() -> None:
        await guarded.question("who?", purpose)
        await guarded.passages({"c": Passage("d", "s", TEXT)})

    with pytest.raises(Unavailable) as raised:
        asyncio.run(work())
    assert MAIL not in str(raised.value)


def test_a_detector_that_breaks_in_a_stream_refuses_the_rest():
    made = personal("gdpr")
    guarded = request(made)

    async def work() -> None:
        await guarded.question("who?", None)
        await guarded.passages({"c": Passage("d", "s", TEXT)})
        outgoing = guarded.citing(EVIDENCE)
        made.finder = Broken()
        outgoing.feed(f"Ask {MAIL} now. " * 40)

    with pytest.raises(Unavailable) as raised:
        asyncio.run(work())
    assert MAIL not in str(raised.value)


def test_a_registry_that_is_down_refuses():
    def down(*_: Any) -> Any:
        raise Unavailable("the ledger database is locked")

    with pytest.raises(Unavailable):
        shown(personal("gdpr", registry=SimpleNamespace(consents=down)), caller("user"), "marketing")
    with pytest.raises(Unavailable):
        shown(personal("hipaa", categories=down), caller("user"))


def test_the_window_holds_the_strictest_rules_of_all_that_was_shown():
    sources: Any = {None: {"hr": Applied(regimes=("gdpr",))}}
    made = personal(sources=sources)
    screening: Screening = made.begin(caller("user"), None)
    assert not screening.redacts()
    screening.passages([Passage("d", "hr", "Nothing in it.")])
    assert screening.redacts()
    window = screening.window()
    assert MAIL not in window.feed(TEXT) + window.finish()
