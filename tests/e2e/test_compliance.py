"""Personal data under regimes, over HTTP: what is stored, who is shown it, what may not go, and who says why."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

CARD, MAIL = "4111 1111 1111 1111", "ada.lovelace@example.org"
TEXT = f"The heron desk takes the card {CARD}. Letters about herons go to {MAIL}. The heron eats at noon."


@pytest.fixture(scope="module")
def reader(service):
    return service.token("rita", tenant="veil")


@pytest.fixture(scope="module")
def officer(service):
    """Somebody who may do everything, in the tenant under GDPR's rules."""
    return service.token("olga", roles=("admin",), tenant="veil")


@pytest.fixture(scope="module")
def document(service, officer):
    body = {"id": "desk", "title": f"Heron desk of {MAIL}", "text": TEXT, "acl": ["everyone"]}
    answer = service.call("POST", "/v1/documents", officer, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["document_id"]


def rayrag(service, *arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "rayrag"), "compliance", *arguments]
    command += ["--config", str(service.config), "--data-dir", service.state.data_dir]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_reader_sees_what_a_regime_leaves_and_places_stay_true(service, reader, officer, document):
    hits = service.retrieve(reader, "heron desk")
    shown = json.dumps(hits)
    assert "[CREDIT_CARD]" in shown and "[EMAIL_ADDRESS]" in shown
    assert CARD not in shown and MAIL not in shown
    assert "heron eats at noon" in shown
    revealed = service.retrieve(officer, "heron desk", purpose="customer_support")
    assert MAIL in json.dumps(revealed) and CARD not in json.dumps(revealed)
    # A quote's place is one of the stored text: that which somebody reads who may.
    stored = {hit["chunk_id"]: hit for hit in revealed}
    answer = service.query(reader, "When does the heron eat?")
    assert answer["citations"]
    for citation in answer["citations"]:
        hit = stored[citation["chunk_id"]]
        assert hit["text"][citation["start"] - hit["start"] : citation["end"] - hit["start"]] == citation["quote"]


def test_a_stream_says_no_more_than_the_whole_answer(service, reader, document):
    body = {"question": "Where do letters about herons go?", "stream": True}
    answer = service.call("POST", "/v1/query", reader, json=body)
    assert answer.status_code == 200
    assert MAIL not in answer.text and "lovelace" not in answer.text
    assert "event: done" in answer.text


def test_a_document_is_listed_without_the_values_in_its_name(service, reader, officer, document):
    viewer = service.token("vera", roles=("power_user",), tenant="veil")
    listed = service.call("GET", "/v1/documents", viewer)
    assert listed.status_code == 200 and document in listed.text and MAIL not in listed.text
    one = service.call("GET", f"/v1/documents/{document}", viewer)
    assert one.json()["title"].endswith("desk of [EMAIL_ADDRESS]")


@pytest.mark.parametrize("purpose", ["profiling_of_special_categories", "curiosity"])
def test_a_purpose_that_is_forbidden_or_unknown_is_refused(service, officer, document, purpose):
    answer = service.call("POST", "/v1/query", officer, json={"question": "Who?", "purpose": purpose})
    assert answer.status_code == 422
    assert "purpose" in answer.json()["detail"]


def test_consent_opens_and_withdrawal_closes(service, reader, document):
    def found() -> list[dict[str, object]]:
        return service.retrieve(reader, "heron desk", purpose="marketing")

    assert found() == []
    rayrag(service, "consent", "grant", "--tenant", "veil", "--purpose", "marketing", "--everything")
    assert found()
    rayrag(service, "consent", "withdraw", "--tenant", "veil", "--purpose", "marketing", "--subject", MAIL.upper())
    assert found() == []
    rayrag(service, "consent", "withdraw", "--tenant", "veil", "--purpose", "marketing", "--everything")
    assert MAIL not in rayrag(service, "consent", "list", "--json")


def test_a_reveal_is_on_the_record_with_its_purpose_and_no_value(service, officer, document):
    service.retrieve(officer, "heron desk", purpose="customer_support")
    records = service.call("GET", "/v1/audit?limit=1000", officer).json()["records"]
    details = [record["detail"] for record in records if "revealed" in record.get("detail", {})]
    assert any(each["revealed_for"] == "customer_support" for each in details)
    assert MAIL not in json.dumps(records)


def test_what_was_done_to_a_document_is_explained_and_reported(service, document):
    said = json.loads(rayrag(service, "explain", "--document", document, "--json"))
    assert {"PCI", "personal_data"} <= set(said["categories"])
    assert ("gdpr", "payment", "CREDIT_CARD") in {(e["regime"], e["rule"], e["entity"]) for e in said["done"]}
    report = json.loads(rayrag(service, "report", "--regime", "gdpr", "--json"))
    assert any(each["rule"] == "payment" and each["documents"] >= 1 for each in report)
    assert CARD not in json.dumps([said, report])


def test_a_financial_record_is_neither_changed_nor_deleted(service):
    keeper = service.token("kim", roles=("cleared",), tenant="books")
    body = {"id": f"ledger-{uuid.uuid4().hex[:6]}", "title": "General ledger 2026", "acl": ["everyone"]}
    first = service.call("POST", "/v1/documents", keeper, json={**body, "text": "Journal entry 17 of the dam."})
    assert first.status_code == 201
    changed = service.call("POST", "/v1/documents", keeper, json={**body, "text": "Journal entry 18 of the dam."})
    deleted = service.call("DELETE", f"/v1/documents/{first.json()['document_id']}", keeper)
    assert (changed.status_code, deleted.status_code) == (409, 409)
    assert "17 CFR 210.2-06" in changed.json()["detail"] and "17 CFR 210.2-06" in deleted.json()["detail"]
    assert "Journal entry 17" in json.dumps(service.retrieve(keeper, "Journal entry of the dam"))


def test_a_hold_keeps_a_document_until_it_is_released(service, officer):
    body = {"id": "held", "text": "The ouzel is held.", "acl": ["everyone"]}
    document_id = service.call("POST", "/v1/documents", officer, json=body).json()["document_id"]
    made = rayrag(service, "hold", "add", "--tenant", "veil", "--document", document_id, "--reason", "case 7", "--json")
    refused = service.call("DELETE", f"/v1/documents/{document_id}", officer)
    assert (refused.status_code, refused.json()["detail"]) == (409, "case 7")
    rayrag(service, "hold", "release", json.loads(made)[0]["hold_id"])
    assert service.call("DELETE", f"/v1/documents/{document_id}", officer).status_code == 200


def test_health_documents_show_no_identifiers_and_a_clinician_with_a_purpose_sees_them(service):
    text = "Patient MRN: 00482913 was admitted on 3 March 1941, aged 93. Diagnosis of the heron ward: asthma."
    clinician = service.token("cleo", roles=("cleared",), tenant="hospice")
    body = {"id": "note", "title": "Patient note", "text": text, "acl": ["everyone"]}
    assert service.call("POST", "/v1/documents", clinician, json=body).status_code == 201
    plain = json.dumps(service.retrieve(clinician, "diagnosis of the heron ward"))
    assert "asthma" in plain and "00482913" not in plain and "3 March" not in plain and "93" not in plain
    assert "00482913" in json.dumps(service.retrieve(clinician, "diagnosis of the heron ward", purpose="treatment"))
