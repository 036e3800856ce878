"""People's requests over HTTP, on a real ledger and Milvus Lite: what each of them does, and to whom it is told."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.privacy_desk import privacy_work
from index.privacy_requests import PrivacyRequests
from index.suppressions import open_suppressions
from ingest.embedding import CachedEmbedder
from ingest.privacy_work import Asked
from policies.audit_signing import signing_key
from policies.errors import ConfigurationError
from policies.privacy.receipt import why_not
from policies.privacy.subject import Subject
from tests.leaks.service import Service
from tests.privacy_service import (
    ACCOUNT,
    MAIL,
    MEMORY,
    NAME,
    TENANT,
    Home,
    ask,
    done,
    done_of,
    file,
    fill,
    finished,
    officer,
    put,
    rows_of,
    served,
)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    path = Path(tempfile.mkdtemp(prefix="privacy-", dir=MEMORY))
    made = Home(path / "data")
    try:
        with served(made) as running:
            yield running
    finally:
        made.stop()
        shutil.rmtree(path)


def test_an_erased_person_is_found_nowhere_and_others_are_untouched(service: Service) -> None:
    fill(service)
    before = ask(service, "When does the ferry leave?")
    told = done(service, "erasure")
    assert told["status"] == "done" and told["physical"] == "pending", told
    assert told["found"]["documents"] == 4 and told["found"]["chunks"] >= 3, told
    for question in (NAME, MAIL, ACCOUNT, "bridge at Tarn", "harbour fee", "heron", "ferry for nine years"):
        shown = ask(service, question)
        for needle in ("Quorinda", "Vexhollow", "DE89", "4711", "nine years"):
            assert needle.lower() not in shown.lower(), (question, needle)
    assert "bridge at Tarn is closed" in ask(service, "bridge at Tarn"), "the rest of the document stays"
    assert "harbour fee" in ask(service, "harbour fee")
    plain = [hit for hit in json.loads(before) if hit["external_id"] == "plain"]
    after = [hit for hit in json.loads(ask(service, "When does the ferry leave?")) if hit["external_id"] == "plain"]
    assert after == plain or after[0]["text"] == plain[0]["text"]
    assert NAME in ask(service, NAME, tenant="globex"), "another tenant's affair"


UNCLEAR: list[tuple[str, Any, str]] = [
    ("erasure", {}, "empty"),
    ("erasure", {"identifiers": [], "names": []}, "empty"),
    ("access", {"identifiers": ["a1"]}, "too short"),
    ("access", {"identifiers": ["12345"]}, "too short"),
    ("erasure", {"identifiers": [MAIL], "names": ["Anna"]}, "one word"),
    ("access", {"names": ["Elizabeth"]}, "one word"),
    ("erasure", {"names": [NAME]}, "subject.identifiers: missing"),
    ("erasure", {"identifiers": [NAME]}, "put it under subject.names"),
    ("erasure", {"identifiers": ["..."]}, "too short"),
    ("rectification", {"identifiers": [MAIL]}, "corrections: missing"),
    ("forgetting", {"identifiers": [MAIL]}, "type"),
]


@pytest.mark.parametrize(("kind", "subject", "word"), UNCLEAR)
def test_an_unclear_subject_is_refused_and_told_what_is_missing(
    service: Service, kind: str, subject: Any, word: str
) -> None:
    answer = file(service, kind, subject)
    assert answer.status_code == 422 and word in answer.json()["detail"], answer.text
    assert MAIL not in answer.text and NAME not in answer.text


def test_a_request_is_told_to_officers_of_its_tenant_alone(service: Service) -> None:
    opened = file(service, "objection", {"identifiers": ["nobody@acme.example"]}).json()["privacy_request_id"]
    finished(service, opened)
    path = f"/v1/privacy/requests/{opened}"
    assert service.call("GET", path, officer(service, "globex")).status_code == 404
    assert service.call("GET", path, service.token("u", TENANT, ["user"])).status_code == 403
    assert service.call("GET", path + "/export", officer(service)).status_code == 404, "an objection has none"


def test_what_was_erased_stays_away_when_it_is_sent_again(service: Service) -> None:
    tenant = "again"
    put(service, "note", "Ottilie Marwick-Sand, o.marwick@sand.example, paid. The mill stands.", tenant)
    subject = {"identifiers": ["o.marwick@sand.example"], "names": ["Ottilie Marwick-Sand"]}
    done_of(service, tenant, "erasure", subject)
    put(service, "note", "OTTILIE MARWICK SAND paid twice, says O.Marwick@Sand.example. The mill still stands.", tenant)
    shown = ask(service, "mill stands", tenant)
    assert "still stands" in shown and "marwick" not in shown.lower()
    token = service.token("upl", tenant, ["power_user", "cleared-internal"])
    body = {"id": "cv", "title": "Ottilie Marwick-Sand", "text": "Nine years at sea.", "acl": ["everyone"]}
    answer = service.call("POST", "/v1/documents", token, json=body)
    assert answer.status_code == 422 and "marwick" not in answer.text.lower()
    assert "Nine years" not in ask(service, "years at sea", tenant)


HELD = {"identifiers": ["iban GB33BUKB20201555555555"], "names": ["Perpetua Holloway"]}


def test_held_data_are_not_erased_and_the_hold_is_named(service: Service) -> None:
    tenant = "held"
    held = put(service, "claim", "Perpetua Holloway claims damages. Account GB33 BUKB 2020 1555 5555 55.", tenant)
    put(service, "free", "Perpetua Holloway also wrote this.", tenant)
    hold = service.ledger.holds.add(tenant, "document", held, "Holloway v. Acme, discovery", "operator:x")
    answer = file(service, "erasure", HELD, tenant)
    assert answer.status_code == 409 and "discovery" in answer.json()["detail"], answer.text
    shown = ask(service, "Perpetua Holloway", tenant)
    assert "claims damages" in shown and "also wrote" in shown, "nothing of it is erased"
    service.ledger.holds.release(hold.hold_id, "operator:x")
    assert done_of(service, tenant, "erasure", HELD)["status"] == "done"
    assert "Perpetua" not in ask(service, "Perpetua Holloway", tenant)


def test_a_hold_that_comes_while_a_request_waits_refuses_it(service: Service) -> None:
    tenant = "held-later"
    held = put(service, "claim", "Ignatius Thornbury, staff number TB-99-1234, objects.", tenant)
    work = privacy_work(service.args, CachedEmbedder(service.args))
    asked = Asked("erasure", Subject(("TB-99-1234",), ("Ignatius Thornbury",)))
    opened = work.open(tenant, "olga", asked)
    service.ledger.holds.add(tenant, "document", held, "case 77", "operator:x")
    work.run_due()
    told = finished(service, opened.privacy_request_id, tenant)
    assert told["status"] == "refused" and "case 77" in told["reason"] and told["physical"] is None
    assert "Thornbury" in ask(service, "Ignatius Thornbury", tenant)
    work.close()


def test_a_person_gets_all_that_is_kept_about_them_and_nothing_of_others(service: Service) -> None:
    tenant = "access"
    lines = {f"d{n}": f"Line {n}: Wenzel Ackerby ordered {n} lamps." for n in range(12)}
    ids = {put(service, name, text, tenant): text for name, text in lines.items()}
    for n in range(8):
        put(service, f"o{n}", f"Line {n}: Gundula Fenwick ordered {n} chairs.", tenant)
    mail = put(service, "mail", "An answer to w.ackerby@lamps.example.", tenant)
    ask(service, "Who ordered lamps?", tenant)
    subject = {"identifiers": ["w.ackerby@lamps.example"], "names": ["Wenzel Ackerby"]}
    told = done_of(service, tenant, "access", subject)
    assert told["found"] == {"documents": 13, "chunks": 13}
    path = f"/v1/privacy/requests/{told['privacy_request_id']}/export"
    answer = service.call("GET", path, officer(service, tenant))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        about = json.loads(archive.read("subject.json"))
        passages = {
            name.removeprefix("documents/").removesuffix(".json"): json.loads(archive.read(name))
            for name in archive.namelist()
            if name.startswith("documents/") and name.endswith(".json")
        }
        whole = b"".join(archive.read(name) for name in archive.namelist())
    assert set(passages) == {*ids, mail}
    assert all(passages[each]["passages"][0]["text"] == text for each, text in ids.items())
    assert (
        about["sources"] == ["uploads/upl"] and about["retention"] and about["subject"]["names"] == ["Wenzel Ackerby"]
    )
    assert {each["who"] for each in about["recipients"]} == {"rea"}
    assert b"Gundula" not in whole and b"chairs" not in whole, "nothing of others"
    other = service.call("GET", path, officer(service, "globex"))
    assert other.status_code == 404


def test_a_wrong_value_is_replaced_everywhere_and_when_it_is_sent_again(service: Service) -> None:
    tenant = "right"
    put(service, "file", "Account of Fenja Ostrow: NL91ABNA0417164300, opened in May.", tenant)
    corrections = [
        {"old": "NL91 ABNA 0417 1643 00", "new": "NL20INGB0001234567"},
        {"old": "Fenja Ostrow", "new": "Fenja Ostrow-Lind"},
    ]
    told = done_of(service, tenant, "rectification", {"identifiers": ["fenja@ostrow.example"]}, corrections=corrections)
    assert told["status"] == "done" and told["physical"] == "pending"
    shown = ask(service, "account of Fenja Ostrow", tenant)
    assert "Account of Fenja Ostrow-Lind: NL20INGB0001234567, opened in May." in shown and "0417" not in shown
    put(service, "file", "Account of Fenja Ostrow: NL91ABNA0417164300, closed in June.", tenant)
    shown = ask(service, "account of Fenja Ostrow", tenant)
    assert "Fenja Ostrow-Lind: NL20INGB0001234567, closed" in shown and "Lind-Lind" not in shown


@pytest.mark.parametrize("kind", ["restriction", "objection"])
def test_restricted_data_are_kept_and_not_used_until_that_is_lifted(service: Service, kind: str) -> None:
    tenant = f"kept-{kind}"
    put(service, "a", "Balthasar Quince wants his file let be.", tenant)
    put(service, "b", "The quince tree has nothing to do with it.", tenant)
    told = done_of(service, tenant, kind, {"names": ["Balthasar Quince"]})
    assert told["found"] == {"documents": 1, "chunks": 1} and told["physical"] is None
    shown = ask(service, "quince file", tenant)
    assert "Balthasar" not in shown and "quince tree" in shown
    assert "Balthasar" in json.dumps([row.text for row in rows_of(service)]), "it is kept"
    work = privacy_work(service.args, CachedEmbedder(service.args))
    work.lift(tenant, told["privacy_request_id"])
    work.close()
    assert "Balthasar" in ask(service, "quince file", tenant)


def test_what_names_the_person_is_sealed_while_the_request_runs_and_gone_at_its_end(service: Service) -> None:
    tenant = "sealed"
    work = privacy_work(service.args, CachedEmbedder(service.args))
    subject = Subject(("rosalba-tennant@example.org",), ("Rosalba Tennant",))
    opened = work.open(tenant, "olga", Asked("erasure", subject))
    assert opened.sealed and "osalba" not in repr(opened)
    work.run_due()
    ended = PrivacyRequests(service.args.store.ledger).get(tenant, opened.privacy_request_id)
    assert ended.state == "done" and ended.sealed is None
    records = [
        record for record in work._audit.records(0, 10_000, tenant) if record.request_id == ended.privacy_request_id
    ]  # type: ignore[attr-defined]
    assert [record.action for record in records] == ["privacy.erasure"] * 2 and records[-1].outcome == "ok"
    assert "osalba" not in repr(records)
    work.close()


def test_a_receipt_is_verified_and_a_changed_one_is_not(service: Service) -> None:
    tenant = "receipt"
    put(service, "a", "Crispin Uhlmann-Vey was here.", tenant)
    subject = {"identifiers": ["cuv-2204-x"], "names": ["Crispin Uhlmann-Vey"]}
    told = done_of(service, tenant, "erasure", subject)
    work = privacy_work(service.args, CachedEmbedder(service.args))
    work.purge(tenant)
    work.close()
    receipt = finished(service, told["privacy_request_id"], tenant)["receipt"]
    key = signing_key(Path(service.args.store.audit_key_file)).public_key()
    assert why_not(receipt, key) is None
    assert "rispin" not in repr(receipt) and receipt["found"]["documents"] == 1
    assert receipt["left"]["documents"] == 0 and receipt["physical"]["way"] == "rewritten"
    for name in receipt:
        assert why_not({**receipt, name: "0" * 128}, key) is not None, name
        assert why_not({each: value for each, value in receipt.items() if each != name}, key) is not None, name


def test_a_list_that_was_lost_stops_the_start(service: Service) -> None:
    done_of(service, "lost", "restriction", {"names": ["Ambrosius Quist"]})
    assert open_suppressions(service.args).matcher("lost", restricting=True)
    elsewhere = {"suppressions": f"sqlite:///{service.args.data_dir}/elsewhere.sqlite"}
    lost = service.args.model_copy(update={"store": service.args.store.model_copy(update=elsewhere)})
    with pytest.raises(ConfigurationError, match="missing, or older"):
        open_suppressions(lost)
