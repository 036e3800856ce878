"""Hostile text in any field of a request, a token, a rule or a document finds no row more, loses none, breaks nothing.

`victim` holds documents that nobody but their people may read; `mallory`, of the same tenant and of another, sends.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from index.document import DocumentRef, document_id
from ingest.acl_file import AclFile, parse_acl
from ingest.cleaning import given_title
from policies.access import AccessRule
from policies.errors import RayragError
from tests.leaks.payloads import NUMBER, SPECIAL, payloads
from tests.leaks.service import AUDIENCE, ISSUER, Service
from tests.leaks.sizes import seed, sizes
from tests.leaks.worlds import WORD

TENANT, OTHER = "victim", "mallory's"
SECRETS = 6


@dataclass
class Target:
    """The documents that must stay as they are, and the rows of all documents."""

    service: Service
    ids: set[str]
    mallory: str
    stranger: str

    def untouched(self) -> None:
        """Every document of the victim is there for its reader, in its text and under its rule."""
        reader = self.service.token("victor", TENANT, ["admin", "cleared-restricted"])
        found = self.service.call("POST", "/v1/retrieve", reader, json={"question": "password", "top_k": 50}).json()
        assert {hit["document_id"] for hit in found["hits"]} >= self.ids
        for each in self.ids:
            kept = self.service.ledger.document(each)
            assert kept is not None and not kept.deleted and kept.version == 1
            row = self.service.stores()[0].rows(each, 1, 1)
            assert row[0].access_id == self.service.ledger.intern_rule(kept.tenant_id, AccessRule.of(["user:victor"]))


@pytest.fixture(scope="module")
def target(service: Service) -> Iterator[Target]:
    rule = AccessRule.of(["user:victor"])
    refs = [
        DocumentRef(tenant, "leaks", f"secret-{n}", f"mem:{n}", f"Secret {n}", "1", rule)
        for tenant in (TENANT, OTHER)
        for n in range(SECRETS)
    ]
    service.write(refs, [f"The password of vault {n} is cnryt{n:012x}." for n in range(len(refs))])
    service.flush()
    found = Target(
        service,
        {ref.document_id for ref in refs if ref.tenant == TENANT},
        service.token("mallory", TENANT, ["admin", "cleared-restricted"]),
        service.token("mallory", OTHER, ["admin", "cleared-restricted"]),
    )
    found.untouched()
    yield found


def told(text: str) -> set[str]:
    return {word for word in WORD.findall(text) if word.startswith("cnryt0")}


QUESTION = "what is the password?"
FIELDS: dict[str, Callable[[str], tuple[str, str, dict[str, Any]]]] = {
    "question": lambda p: ("POST", "/v1/query", {"json": {"question": p}}),
    "question, by words": lambda p: ("POST", "/v1/retrieve", {"json": {"question": f"{p} code", "mode": "keyword"}}),
    "document id in a filter": lambda p: (
        "POST", "/v1/retrieve", {"json": {"question": QUESTION, "filters": {"document_ids": [p]}}}
    ),
    "document ids in a filter": lambda p: (
        "POST", "/v1/retrieve", {"json": {"question": QUESTION, "filters": {"document_ids": ["0" * 32, p, p]}}}
    ),
    "key of a filter": lambda p: ("POST", "/v1/retrieve", {"json": {"question": QUESTION, "filters": {p: ["x"]}}}),
    "key of a question": lambda p: ("POST", "/v1/query", {"json": {"question": QUESTION, p: 1}}),
    "list for a text": lambda p: ("POST", "/v1/query", {"json": {"question": [p, {"question": p}]}}),
    "mode": lambda p: ("POST", "/v1/retrieve", {"json": {"question": QUESTION, "mode": p}}),
    "top_k": lambda p: ("POST", "/v1/retrieve", {"json": {"question": QUESTION, "top_k": p}}),
    "purpose": lambda p: ("POST", "/v1/retrieve", {"json": {"question": QUESTION, "purpose": p}}),
    "chat message": lambda p: ("POST", "/v1/chat/completions", chat(p, "rayrag")),
    "chat history": lambda p: ("POST", "/v1/chat/completions", chat(QUESTION, "rayrag", p)),
    "chat model": lambda p: ("POST", "/v1/chat/completions", chat(QUESTION, p)),
    "chat part": lambda p: ("POST", "/v1/chat/completions", chat([{"type": p, "text": p}], "rayrag")),
    "path: document": lambda p: ("GET", f"/v1/documents/{in_path(p)}", {}),
    "path: deletion": lambda p: ("DELETE", f"/v1/documents/{in_path(p)}", {}),
    "path: rule": lambda p: ("PUT", f"/v1/documents/{in_path(p)}/acl", {"json": {"allow": ["everyone"]}}),
    "path: webhook": lambda p: ("POST", f"/v1/webhooks/{in_path(p)}", {"json": {}}),
    "page": lambda p: ("GET", "/v1/documents", {"params": {"after": p}}),
    "page size": lambda p: ("GET", "/v1/documents", {"params": {"limit": p}}),
    "rule: allow": lambda p: ("PUT", f"/v1/documents/{HIDDEN}/acl", {"json": {"allow": [p]}}),
    "rule: deny": lambda p: ("PUT", f"/v1/documents/{HIDDEN}/acl", {"json": {"deny": [p, f"user:{p}"]}}),
    "upload: id": lambda p: ("POST", "/v1/documents", {"json": upload(id=p)}),
    "upload: title": lambda p: ("POST", "/v1/documents", {"json": upload(title=p)}),
    "upload: text": lambda p: ("POST", "/v1/documents", {"json": upload(text=p)}),
    "upload: uri": lambda p: ("POST", "/v1/documents", {"json": upload(uri=p)}),
    "upload: acl": lambda p: ("POST", "/v1/documents", {"json": upload(acl=[p])}),
    "upload: acl, with a kind": lambda p: ("POST", "/v1/documents", {"json": upload(acl=[f"group:{p}"])}),
    "upload: label": lambda p: ("POST", "/v1/documents", {"json": upload(label=p)}),
    "upload: metadata value": lambda p: ("POST", "/v1/documents", {"json": upload(metadata={"a": [p, {"b": p}]})}),
    "upload: metadata key": lambda p: ("POST", "/v1/documents", {"json": upload(metadata={p: {p: 1}})}),
    "form: acl": lambda p: ("POST", "/v1/documents", form(acl=p)),
    "form: id": lambda p: ("POST", "/v1/documents", form(id=p)),
    "header: request id": lambda p: ("POST", "/v1/retrieve", {"json": {"question": QUESTION}, "x-request-id": p}),
    "revoked person": lambda p: ("POST", "/v1/auth/revoke", {"json": {"action": "enable", "subject": p}}),
}  # fmt: skip
HIDDEN = document_id(TENANT, "leaks", "secret-0")


def chat(content: Any, model: str, earlier: str | None = None) -> dict[str, Any]:
    history = [{"role": "user", "content": earlier}, {"role": "assistant", "content": earlier}] if earlier else []
    return {"json": {"model": model, "messages": [*history, {"role": "user", "content": content}]}}


def upload(**changed: Any) -> dict[str, Any]:
    return {"id": "injected", "text": "Nothing to see.", "acl": ["user:mallory"], **changed}


def form(**fields: str) -> dict[str, Any]:
    given = {"id": "injected", "acl": "user:mallory", **fields}
    return {"data": given, "files": {"file": ("a.txt", b"Nothing to see.", "text/plain")}}


def in_path(text: str) -> str:
    """Percent-encoded, as far as it can be: a path holds bytes."""
    return "".join(f"%{byte:02X}" for byte in text[:2_000].encode("utf-8", "surrogatepass")) or "%20"


def shares(field: str) -> list[str]:
    """Each field gets the special ones and a part of the others, in the full size all; together they get all."""
    everything = payloads(seed(), NUMBER)
    number = min(sizes().injections_per_field, NUMBER)
    first = list(FIELDS).index(field) * number if field in FIELDS else random.Random(field).randrange(NUMBER)
    return list(dict.fromkeys([*SPECIAL, *(everything[(first + n) % NUMBER] for n in range(number))]))


@pytest.mark.parametrize("field", FIELDS)
def test_no_text_in_a_request_finds_or_breaks_anything(
    target: Target, field: str, count: Callable[[str, int, int], None]
) -> None:
    wrong, sent = [], 0
    target.service.writes(obedient=True)
    for number, payload in enumerate(shares(field)):
        method, path, options = FIELDS[field](payload)
        headers = {}
        if "x-request-id" in options:
            options = dict(options)
            headers = {
                b"x-request-id": options.pop("x-request-id").encode("utf-8", "replace").translate(None, b"\r\n\x00")
            }
        if "json" in options:  # as any program writes it: lone surrogates travel as escapes
            options = dict(options)
            options["content"] = json.dumps(options.pop("json")).encode()
            headers[b"content-type"] = b"application/json"
        token = (target.mallory, target.stranger)[number % 2]
        headers[b"authorization"] = b"Bearer " + token.encode()
        if "data" in options:
            options = {
                **options,
                "data": {k: v.encode("utf-8", "replace").decode() for k, v in options["data"].items()},
            }
        if "params" in options:
            options = {"params": {k: v.encode("utf-8", "replace").decode() for k, v in options["params"].items()}}
        answer = target.service.call(method, path, None, headers=headers, **options)
        sent += 1
        if answer.status_code >= 500 or told(answer.text) - told(payload):
            wrong.append(f"{field}: {ascii(payload)[:120]}: {answer.status_code} {answer.text[:300]}")
    count("injection: payload and field", sent, len(wrong))
    assert not wrong, "\n".join(wrong[:20])
    target.untouched()


CLAIMS = ("sub", "tenant", "groups", "roles", "jti", "nested groups")


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_text_in_a_token_finds_or_breaks_anything(
    target: Target, claim: str, count: Callable[[str, int, int], None]
) -> None:
    wrong, sent = [], 0
    for payload in shares(claim):
        value: Any = [payload, f"user:{payload}", "victor"] if claim in ("groups", "roles") else payload
        if claim == "nested groups":
            claim, value = "groups", [[payload], {payload: payload}]
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mallory", "tenant": TENANT, "groups": [], "roles": ["user"]}
        token = target.service.sign({**said, **fresh(), claim: value})
        answer = target.service.call("POST", "/v1/retrieve", token, json={"question": QUESTION, "top_k": 50})
        sent += 1
        if answer.status_code not in (200, 401, 403, 431) or told(answer.text):
            wrong.append(f"{claim}: {ascii(payload)[:120]}: {answer.status_code} {answer.text[:300]}")
    count("injection: payload and claim", sent, len(wrong))
    assert not wrong, "\n".join(wrong[:20])
    target.untouched()


def fresh() -> dict[str, int]:
    return {"iat": int(time.time()), "exp": int(time.time()) + 600}


def test_no_text_in_a_rule_allows_anybody(target: Target, count: Callable[[str, int, int], None]) -> None:
    """Rules as they come with documents: a rule is what it says, or it is refused; it never turns into a wider one."""
    wrong, sent = [], 0
    names = {"everyone", "user:mallory"}
    for payload in payloads(seed(), NUMBER):
        for form in (
            payload,
            json.dumps([payload]),
            json.dumps({"allow": [payload], "deny": [payload]}),
            f"group:{payload}",
        ):
            sent += 1
            try:
                rule = parse_acl(form)
            except RayragError:
                continue
            said = {part.strip() for part in payload.split(",")} | {payload}
            if rule.allow & names and not said & names:
                wrong.append(f"{ascii(form)[:200]}: {sorted(rule.allow)}")
        try:
            entries = json.dumps([{"path": payload, "allow": ["everyone"]}]).encode()  # JSON is YAML
            rule_for = AclFile.parse(entries).rule_for("hr/salaries.md")
        except RayragError:
            continue
        if rule_for is not None and not any(character in payload for character in "*?"):
            wrong.append(f"path {ascii(payload)[:200]} matches hr/salaries.md")
    count("injection: payload and rule", sent, len(wrong))
    assert not wrong, "\n".join(wrong[:20])


def test_no_text_in_what_is_ingested_loses_or_finds_rows(
    target: Target, count: Callable[[str, int, int], None]
) -> None:
    """External ids, titles, addresses, texts and sources of ingested documents; and their deletion, by id."""
    service, wrong = target.service, []
    chosen = shares("ingested")
    rule = AccessRule.of(["user:mallory"])
    mallory = service.principal(target.mallory)
    for start in range(0, len(chosen), 16):
        batch = chosen[start : start + 16]
        refs = [
            DocumentRef(TENANT, f"s{p[:200]}", f"x{p}"[:1_000], p[:2_000] or "u", given_title(p[:1_000]), p, rule)
            for p in batch
        ]
        refs = list({ref.document_id: ref for ref in refs}.values())
        outcomes = service.write(refs, [f"Nothing to see {ascii(ref.external_id)[:100]}" for ref in refs])
        shown = {record.document_id for record in service.ledger.list(mallory, 10_000)}
        wrong += [ascii(ref.external_id)[:120] for ref in refs if ref.document_id not in shown]
        wrong += [str(outcome) for outcome in outcomes if outcome.status != "indexed"]
        for ref in refs:
            gone = service.call("DELETE", f"/v1/documents/{ref.document_id}", target.mallory)
            if gone.status_code != 200:
                wrong.append(f"not deleted: {ascii(ref.external_id)[:120]}")
        left = {record.document_id for record in service.ledger.list(mallory, 10_000)}
        wrong += [ascii(ref.external_id)[:120] for ref in refs if ref.document_id in left]
    count("injection: payload and document", len(chosen), len(wrong))
    assert not wrong, "\n".join(wrong[:20])
    target.untouched()
