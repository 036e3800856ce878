"""Nobody is shown anything of a document outside their rights, and nobody is kept from one within them.

Random companies (`worlds`), and everything that leaves: passages, what the reranker and the model were given, answers
whole and streamed, both APIs, document routes, errors, log lines, metrics, the audit record. Each document has words of
its own in its text, title, address and id; where one turns up in front of somebody who may not read it, it leaked.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments.retrieval import Search
from index.document import DocumentRef, document_id
from policies.access import AccessRule
from policies.labels import Label
from tests.leaks.service import Service, Told
from tests.leaks.sizes import seed, sizes
from tests.leaks.worlds import LABELS, TOPICS, WORD, Document, Person, World, decomposed, may_read, renamed, world

PEOPLE, DOCUMENTS, QUESTIONS = 20, 44, 10
WORLDS_PER_COLLECTION = 10
SHOWN_FAILURES = 20
MODES = ("hybrid", "dense", "hybrid", "auto", "dense", "hybrid", "dense", "auto", "hybrid", "dense")
ANSWERED = ("rag:query", "rag:query:readonly")


@dataclass
class Findings:
    """What was looked at, by kind, and what was wrong."""

    cases: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def note(self, kind: str, problem: str | None) -> None:
        self.cases[kind] = self.cases.get(kind, 0) + 1
        if problem:
            self.failed[kind] = self.failed.get(kind, 0) + 1
            self.examples = [*self.examples, f"{kind}: {problem}"][:SHOWN_FAILURES]


class Company:
    """One world, in the service."""

    def __init__(self, service: Service, made: World, number: int, findings: Findings) -> None:
        self.service, self.made, self.number, self.findings = service, made, number, findings
        self.by_word: dict[str, Document] = {}
        for document in made.documents:
            for word in (*document.words, _id(document)):
                self.by_word[word] = document
        service.know(made.parents)
        outcomes = service.write([_ref(document) for document in made.documents], [d.text for d in made.documents])
        assert [outcome.status for outcome in outcomes] == ["indexed"] * len(outcomes)
        service.flush()

    def permitted(self, person: Person) -> set[Document]:
        parents: Mapping[str, frozenset[str]] = self.made.parents.get(person.tenant, {})
        return {document for document in self.made.documents if may_read(person, document, parents)}

    def note(self, kind: str, person: Person, told: str, wanted: set[Document] | None = None) -> None:
        """Hold what somebody was told against what they may read; `wanted`: it must be all of this.

        A word of a world before is one that nobody in this one may be told.
        """
        permitted = self.permitted(person)
        words = {word.lower() for word in WORD.findall(told)}
        told_of = {self.by_word[word] for word in words if word in self.by_word}
        strange = {word for word in words if word.startswith("cnry") and word not in self.by_word}
        problem = None
        if strange or told_of - permitted:
            problem = f"{person} was told of {[*strange, *(_short(d) for d in told_of - permitted)]}"
        elif wanted is not None and wanted - told_of:
            problem = f"{person} was kept from {[_short(d) for d in wanted - told_of]}"
        self.findings.note(kind, problem and f"world {self.number}, seed {seed()}: {problem}")


def test_no_document_leaves_its_rights_and_none_is_wrongly_hidden(
    service: Service, count: Callable[[str, int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(monkeypatch)
    findings = Findings()
    worlds = -(-sizes().questions // (PEOPLE * QUESTIONS))
    for number in range(worlds):
        source = random.Random(f"{seed()}/{number}")
        made = world(source, number, people=PEOPLE, documents=DOCUMENTS, nested=True, labelled=True)
        if number % WORLDS_PER_COLLECTION == 0:
            service.empty()
        company = Company(service, made, number, findings)
        for place, person in enumerate(made.people):
            service.writes(obedient=place % 3 > 0)
            ask_everything(company, source, person)
        operators(findings, "logs and metrics", told.take())
    operators(findings, "audit record", _audit(service))
    for kind in sorted(findings.cases):
        count(f"property: {kind}", findings.cases[kind], findings.failed.get(kind, 0))
    assert not findings.failed, "\n".join(findings.examples)
    assert findings.cases["question"] >= sizes().questions


def ask_everything(company: Company, source: random.Random, person: Person) -> None:
    """Ten questions by one person, who has another name or fewer groups for the last few; and every route."""
    later = renamed(source, person) if source.random() < 0.3 else person
    for asker, places in ((person, range(7)), (later, range(7, QUESTIONS))):
        subject = decomposed(asker.subject) if source.random() < 0.5 else asker.subject
        token = company.service.token_of(asker, subject)
        company.service.run(_questions(company, asker, token, [(MODES[n], source.choice(TOPICS)) for n in places]))
        if asker is person:
            company.service.run(_routes(company, asker, token, source))
        prompts, company.service.obedient.prompts = company.service.obedient.prompts, []
        company.note("prompt", asker, "\n".join(prompts))


async def _questions(company: Company, asker: Person, token: str, asked: list[tuple[Any, str]]) -> None:
    service = company.service
    caller = await service.authenticate(token)
    service.reranked.texts = []
    searches = [Search(f"What is the password of the {topic} vault?", 50, mode) for mode, topic in asked]
    found = await asyncio.gather(*(service.retrieval.search(caller, search) for search in searches))
    permitted = company.permitted(asker)
    for answer in found:
        assert not answer.degraded
        company.note("question", asker, repr(answer.hits), permitted)
        if any(answer.withheld.values()):  # nothing changed meanwhile: the first gate let something through
            company.findings.note("first gate", f"{asker} found {answer.withheld} that the second gate held back")
        else:
            company.findings.note("first gate", None)
    company.note("reranked", asker, "\n".join(service.reranked.texts))


async def _routes(company: Company, asker: Person, token: str, source: random.Random) -> None:
    """Every way to ask and to look, in the role that the person has."""
    service, permitted = company.service, company.permitted(asker)
    question = {"question": f"What is the password of the {source.choice(TOPICS)} vault?"}
    chat = {"model": "rayrag", "messages": [{"role": "user", "content": question["question"]}]}
    narrowed = [_id(d) for d in source.sample(company.made.documents, 10)]
    asks = [
        ("answer", "/v1/query", question),
        ("streamed answer", "/v1/query", {**question, "stream": True}),
        ("chat", "/v1/chat/completions", chat),
        ("streamed chat", "/v1/chat/completions", {**chat, "stream": True}),
        ("passages", "/v1/retrieve", {**question, "top_k": 50, "mode": source.choice(["keyword", "auto"])}),
        ("narrowed passages", "/v1/retrieve", {**question, "top_k": 50, "filters": {"document_ids": narrowed}}),
    ]
    for kind, path, body in source.sample(asks, 3):
        answer = await service.ask("POST", path, token, json=body)
        allowed = asker.roles[0] != "auditor"
        assert answer.status_code == (200 if allowed else 403), answer.text
        wanted = None
        if kind == "narrowed passages" and allowed:
            wanted = {d for d in permitted if _id(d) in narrowed}
        company.note(kind, asker, answer.text, wanted)
    await _documents(company, asker, token, source)


async def _documents(company: Company, asker: Person, token: str, source: random.Random) -> None:
    service, permitted = company.service, company.permitted(asker)
    listed, after = "", ""
    while True:
        page = await service.ask("GET", f"/v1/documents?limit=9{after}", token)
        listed += page.text
        if page.status_code != 200 or not page.json()["next"]:
            break
        after = f"&after={page.json()['next']}"
    may_list = asker.roles[0] in ("power_user", "admin")
    company.note("list of documents", asker, listed, permitted if may_list else None)
    for document in source.sample(company.made.documents, 2):
        found = await service.ask("GET", f"/v1/documents/{_id(document)}", token)
        told = found.text.replace(_id(document), "") if found.status_code != 200 else found.text
        company.note("document", asker, told, {document} if may_list and document in permitted else None)
    hidden = [document for document in company.made.documents if document not in permitted]
    if asker.roles[0] == "admin" and hidden:
        path = f"/v1/documents/{_id(hidden[0])}"
        for method, target in (("PUT", f"{path}/acl"), ("DELETE", path)):
            body = {"json": {"allow": ["everyone"]}} if method == "PUT" else {}
            refused = await service.ask(method, target, token, **body)
            assert refused.status_code == 404
            company.note("refused change", asker, refused.text)


def operators(findings: Findings, kind: str, told: str) -> None:
    """Log lines, metric labels and the audit record are read by people who may read none of it. Ids are no secret."""
    found = {word for word in WORD.findall(told) if word.lower().startswith("cnry")}
    findings.note(kind, f"they hold {sorted(found)[:5]}" if found else None)


def _audit(service: Service) -> str:
    with sqlite3.connect(service.args.store.audit.removeprefix("sqlite:///")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return "\n".join(repr(row) for table in tables for row in connection.execute(f'SELECT * FROM "{table}"'))


def _id(document: Document) -> str:
    return document_id(document.tenant, "leaks", document.external_id)


def _ref(document: Document) -> DocumentRef:
    rule = AccessRule.of(map(decomposed, document.allow), document.deny, Label.of(LABELS[document.label]))
    return DocumentRef(document.tenant, "leaks", document.external_id, document.uri, document.title, "1", rule)


def _short(document: Document) -> str:
    return f"{document.name} allow={sorted(document.allow)} deny={sorted(document.deny)} {LABELS[document.label]}"
