"""The main job: documents in, cited answers out, within rights."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = yaml.safe_load((ROOT / "examples" / "questions.yaml").read_text())
DEMO = QUESTIONS[:4]


def holds(answer: dict[str, Any], expect: dict[str, Any]) -> bool:
    if not expect["answered"]:
        return answer["abstained"] and not answer["citations"]
    phrase = " ".join(expect["contains"].split())
    return any(
        c["external_id"] == expect["external_id"] and phrase in " ".join(c["quote"].split())
        for c in answer["citations"]
    )


@pytest.mark.parametrize("row", DEMO, ids=lambda row: f"{row['ask_as']}: {row['question'][:40]}")
def test_each_person_gets_what_they_may_read_with_evidence(company, alice, bob, row):
    answer = company.query({"alice": alice, "bob": bob}[row["ask_as"]], row["question"])
    assert holds(answer, row["expect"]), answer


def test_a_pdf_answer_names_its_page(company, alice):
    answer = company.query(alice, DEMO[0]["question"])
    assert answer["citations"][0]["page"] == 2


def test_most_of_the_example_questions_come_out_as_their_author_says(company, alice, bob):
    tokens = {"alice": alice, "bob": bob}
    wrong = [
        row for row in QUESTIONS if not holds(company.query(tokens[row["ask_as"]], row["question"]), row["expect"])
    ]
    assert len(wrong) <= len(QUESTIONS) // 10, [(row["ask_as"], row["question"]) for row in wrong]


def test_an_answer_quotes_at_most_three_sentences_and_marks_each(company, bob):
    answer = company.query(bob, DEMO[1]["question"])
    assert 1 <= len(answer["citations"]) <= 3
    assert [c["n"] for c in answer["citations"]] == list(range(1, len(answer["citations"]) + 1))
    assert all(f"[{c['n']}]" in answer["answer"] for c in answer["citations"])
    assert answer["generator"] == "extractive"
    assert answer["degraded"] == []


def test_a_quote_is_verbatim_text_of_its_chunk_at_its_offsets(company, bob):
    answer = company.query(bob, DEMO[1]["question"])
    hits = {hit["chunk_id"]: hit for hit in company.retrieve(bob, DEMO[1]["question"], top_k=50)}
    for citation in answer["citations"]:
        hit = hits[citation["chunk_id"]]
        assert hit["text"][citation["start"] - hit["start"] : citation["end"] - hit["start"]] == citation["quote"]


def test_nobody_retrieves_the_sealed_document(company, alice, bob):
    for token in (alice, bob, company.token("root", (), ("admin",))):
        hits = company.retrieve(token, "ombudsperson report sealed", top_k=50)
        assert not [hit for hit in hits if "sealed" in hit["external_id"]]


def test_deny_wins_over_the_group(company, alice):
    denied = "engineering/tenders/tow-tank-carriage-evaluation.docx"
    colleague = company.token("walter", ("engineering",))
    question = "tow tank carriage tender evaluation bids"
    assert denied not in {hit["external_id"] for hit in company.retrieve(alice, question, top_k=50)}
    assert denied in {hit["external_id"] for hit in company.retrieve(colleague, question, top_k=50)}


def test_another_tenant_sees_nothing(company):
    stranger = company.token("alice", ("engineering",), tenant="elsewhere")
    assert company.retrieve(stranger, DEMO[0]["question"]) == []
    assert company.query(stranger, DEMO[0]["question"])["abstained"]


def test_hits_are_ordered_and_at_most_top_k(company, bob):
    hits = company.retrieve(bob, "travel expenses", top_k=5)
    assert 1 <= len(hits) <= 5
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


@pytest.mark.parametrize("mode", ["auto", "hybrid", "dense", "keyword"])
def test_every_mode_finds_the_document(company, alice, mode):
    hits = company.retrieve(alice, DEMO[0]["question"], mode=mode)
    assert DEMO[0]["expect"]["external_id"] in {hit["external_id"] for hit in hits}


def test_a_filter_by_document_narrows_and_never_widens(company, alice, bob):
    plan = "people/project-curlew-relocation-plan.docx"
    found = next(hit for hit in company.retrieve(bob, DEMO[2]["question"]) if hit["external_id"] == plan)
    only = {"document_ids": [found["document_id"]]}
    assert {hit["external_id"] for hit in company.retrieve(bob, "office", filters=only)} == {plan}
    assert company.retrieve(alice, "office", filters=only) == []


def test_a_stream_sends_text_then_citations_then_done(company, alice):
    answer = company.call("POST", "/v1/query", alice, json={"question": DEMO[0]["question"], "stream": True})
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    names = [lines[0].removeprefix("event: ") for lines in events]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert names[-2:] == ["citations", "done"] and set(names[:-2]) == {"token"}
    done = json.loads(events[-1][1].removeprefix("data: "))
    text = "".join(json.loads(lines[1].removeprefix("data: "))["text"] for lines in events[:-2])
    assert text.strip() == done["answer"] and done["citations"]


def test_the_official_openai_client_works_unchanged(company, alice):
    from openai import OpenAI

    client = OpenAI(base_url=f"{company.state.api}/v1", api_key=alice)
    assert [model.id for model in client.models.list()] == ["rayrag"]
    messages: list[Any] = [{"role": "user", "content": DEMO[0]["question"]}]
    whole = client.chat.completions.create(model="rayrag", messages=messages)
    assert whole.choices[0].message.citations[0]["external_id"] == DEMO[0]["expect"]["external_id"]
    stream = list(client.chat.completions.create(model="rayrag", messages=messages, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in stream).strip() == whole.choices[0].message.content
    assert stream[-1].choices[0].delta.citations == whole.choices[0].message.citations
    assert stream[-1].choices[0].finish_reason == "stop"


def test_a_request_id_comes_back_and_stands_in_the_record(company, alice):
    mine = f"test-{random.getrandbits(64):x}"
    answer = company.call("POST", "/v1/query", alice, json={"question": "Hello?"}, headers={"x-request-id": mine})
    assert answer.headers.get_list("x-request-id") == [mine] and answer.json()["request_id"] == mine
    from index.settings import load
    from policies.audit import AuditLog

    log = AuditLog(load(company.config).store.audit)
    kinds = [record.kind for record in log.records(0, 100_000) if record.request_id == mine]
    assert kinds == ["intent", "outcome"]
    assert log.verify().ok


def test_metrics_are_for_the_scrape_token_and_operators(company, alice):
    scrape = (Path(company.state.data_dir) / "secrets" / "scrape_token").read_text().strip()
    assert company.call("GET", "/metrics", None).status_code == 401
    assert company.call("GET", "/metrics", alice).status_code == 403
    assert company.call("GET", "/metrics", company.token("op", (), ("operator",))).status_code == 200
    text = company.call("GET", "/metrics", scrape).text
    assert "ray_rag_requests_total" in text
