"""A small company in which every way to get rights wrong shows: each document is there for one mistake.

`examine` raises `Leak` at the first thing that is shown and may not be, or hidden and may not be. It looks at each gate
by itself, since behind two gates a hole in one of them is not seen.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deployments.retrieval import Search
from index import embedding_cache
from index.access_rules import Visible
from index.document import DocumentRef, Hit, document_id
from index.embedding_cache import CachedEmbedding
from index.ledger import Ledger
from index.ledger_records import NewVersion
from index.vectors import ChunkRow
from policies.access import AccessRule
from policies.labels import Label
from policies.principals import Principal
from tests.leaks.service import Service

RULES: dict[str, AccessRule] = {
    "public": AccessRule.of(["everyone"]),
    "by name": AccessRule.of(["user:ann"]),
    "by group": AccessRule.of(["group:a"]),
    "by role": AccessRule.of(["role:user"]),
    "a person called as the group": AccessRule.of(["user:a"]),
    "a group called as the person": AccessRule.of(["group:ann"]),
    "a role called as the group": AccessRule.of(["role:a"]),
    "denied by name": AccessRule.of(["everyone"], ["user:ann"]),
    "denied by group": AccessRule.of(["user:ann", "user:bob"], ["group:a"]),
    "nobody": AccessRule.of(),
    "only denied": AccessRule.of([], ["user:bob"]),
    "several": AccessRule.of(["group:b", "user:cleo", "role:editor"]),
    "confidential": AccessRule.of(["everyone"], label=Label.CONFIDENTIAL),
    "restricted": AccessRule.of(["user:ann"], label=Label.RESTRICTED),
    "for the public": AccessRule.of(["group:a"], label=Label.PUBLIC),
}
HIDDEN_STATES = ("revoked", "deleted", "unwritten")
numbers = itertools.count()
MANY = 1_200


class Leak(AssertionError):
    """Somebody saw what they may not, or missed what they may."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A document in the world: what its row says of it, and the rule that it has."""

    name: str
    tenant: str
    ref: DocumentRef
    live: bool = True

    @property
    def document_id(self) -> str:
        return self.ref.document_id


class DenseWorld:
    """Two tenants alike in everything but the name, and the states between two steps of a change."""

    def __init__(self, service: Service) -> None:
        self.service = service
        n = next(numbers)
        self.mine, self.other = f"acme{n}", f"rival{n}"
        service.ledger.close()
        ledger = Ledger(service.args.store.ledger)  # nothing remembered; its methods are those of this moment
        service.use(ledger)
        self.ledger = ledger
        self.store = service.stores()[0]
        self.placed: list[Placed] = []
        self.people = [person for tenant in (self.mine, self.other) for person in _people(tenant)]
        self._remember_before_the_rules()
        for tenant in (self.mine, self.other):
            self._fill(tenant)
        self._leave_half_done()
        service.flush()

    def _remember_before_the_rules(self) -> None:
        # What is remembered of these people now must not hold when there are more rules.
        for tenant in (self.mine, self.other):
            self.ledger.intern_rule(self.ledger.tenant_id(tenant), AccessRule.of(["group:long-ago"]))
        for person in self.people:
            self.ledger.visible_rules(person)

    def _fill(self, tenant: str) -> None:
        rules = {**RULES, **dict.fromkeys(HIDDEN_STATES, RULES["public"]), "renewed": RULES["public"]}
        refs = {name: self._ref(tenant, name, rule) for name, rule in rules.items()}
        # The first text of what is renewed is never to be seen again.
        self.service.write([refs["renewed"]], ["The former password of the vault was swordfish."])
        self.former = self.store.rows(refs["renewed"].document_id, 1, 1)[0] if tenant == self.mine else self.former
        written = [ref for name, ref in refs.items() if name != "unwritten"]
        self.service.write(written, [f"The password of the vault {ref.external_id} is here." for ref in written])
        self.placed += [Placed(name, tenant, ref, name not in HIDDEN_STATES) for name, ref in refs.items()]

    def _leave_half_done(self) -> None:
        """What a process leaves that dies between two steps, and what a store holds that went wrong."""
        of = {placed.name: placed for placed in self.placed if placed.tenant == self.mine}
        tenant = self.ledger.tenant_id(self.mine)
        public = self.ledger.intern_rule(tenant, RULES["public"])
        self.ledger.set_rule(of["revoked"].document_id, RULES["nobody"])  # its row still says: everyone
        self.ledger.delete([of["deleted"].document_id])  # its row is still there
        ref = of["unwritten"].ref
        (version,) = self.ledger.begin_versions([NewVersion(ref, "hash", 1)], "run")
        rows = [self._row(ref.document_id, version, tenant, public, "The password is not published yet.")]
        renewed = of["renewed"].document_id
        rows.append(self._row(renewed, 1, tenant, public, self.former.text))  # the version before, not swept yet
        foreign = next(p for p in self.placed if p.tenant == self.other and p.name == "public")
        # A row that says it is ours, of a document that is not; and one of ours that says it is not.
        self.claimed = self._row(foreign.document_id, 1, tenant, public, "The password of the other house.", 7)
        self.disowned = self._row(
            of["public"].document_id, 1, self.ledger.tenant_id(self.other), public, "The password, disowned.", 8
        )
        self.store.upsert([*rows, self.claimed, self.disowned])
        self.half = rows

    def _ref(self, tenant: str, name: str, rule: AccessRule) -> DocumentRef:
        return DocumentRef(tenant, "dense", name, f"mem:{name}", name, "1", rule)

    def _row(self, document: str, version: int, tenant: int, access: int, text: str, position: int = 0) -> ChunkRow:
        vectors, _ = self.service.embedding._passages([text])
        return ChunkRow(
            document_id=document,
            version=version,
            tenant_id=tenant,
            access_id=access,
            position=position,
            start=0,
            end=len(text),
            page=None,
            context="",
            text=text,
            analysed="password vault",
            text_hash=embedding_cache.text_hash(text).hex(),
            dense=vectors[0],
        )

    def may_read(self, person: Principal, placed: Placed) -> bool:
        """By hand, as the documentation says it: not by the product's own words."""
        rule = placed.ref.rule
        names = {"everyone", f"user:{person.subject}"}
        names |= {f"group:{g}" for g in person.groups} | {f"role:{r}" for r in person.roles}
        named = any(name in names for name in rule.allow) and not any(name in names for name in rule.deny)
        return placed.tenant == person.tenant and named and int(rule.label) <= int(person.clearance)


def _people(tenant: str) -> list[Principal]:
    def person(subject: str, groups: set[str], role: str, clearance: Label = Label.INTERNAL) -> Principal:
        return Principal(subject, tenant, frozenset({role}), frozenset(groups), clearance)

    return [
        person("ann", {"a"}, "user"),
        person("ann", {"a"}, "user", Label.RESTRICTED),
        person("ann", {"a"}, "user", Label.PUBLIC),
        # One thing different from the first of them each.
        person("ann", set(), "user"),
        person("ann", {"a"}, "visitor"),
        person("bob", {"a"}, "user"),
        person("bob", {"b"}, "user", Label.CONFIDENTIAL),
        person("cleo", set(), "editor"),
        person("dan", {"ann", "long-ago"}, "visitor"),
        person("a", set(), "visitor"),
    ]


def examine(service: Service) -> None:
    """Look at everything, the small parts first. Raises `Leak`."""
    caches(service)
    wide_filters(service)
    world = DenseWorld(service)
    for person in world.people:
        first_gate(world, person)
        second_gate(world, person)
        lists(world, person)
    for person in world.people:
        whole_search(world, person)
    meanwhile(world)
    routes(world)


def first_gate(world: DenseWorld, person: Principal) -> None:
    """The store's filter alone lets through what rows say, and nothing else."""
    tenant = world.ledger.find_tenant(person.tenant)
    readable = {p.name: p for p in world.placed if world.may_read(person, p)}
    rules = {world.ledger.intern_rule(tenant or 0, p.ref.rule) for p in readable.values()}
    visible = world.ledger.visible_rules(person)
    ids = set(visible.access_ids) if visible else set()
    remembered = {world.ledger.intern_rule(tenant or 0, AccessRule.of(["group:long-ago"]))}
    _same("visible rules", ids - remembered, rules)
    if visible is None:
        return
    _require("visible rules are of one tenant", visible.tenant_id == tenant)
    expected = {p.document_id for p in readable.values() if (person.tenant, p.name) != (world.other, "unwritten")}
    if person.tenant == world.mine and "public" in readable:
        expected.add(world.claimed.document_id)
    found = _searched(world, visible, None)
    _same("the first gate", found, expected)
    some = sorted(expected)[:2] + [p.document_id for p in world.placed if p.document_id not in expected][:3]
    _same("the first gate, narrowed", _searched(world, visible, some), expected & set(some))


def _searched(world: DenseWorld, visible: Visible, only: list[str] | None) -> set[str]:
    vector = world.service.question("what is the password?")
    dense = world.store.search_dense(vector, visible, 200, only)
    keyword = world.store.search_keyword("password", visible, 200, only)
    for candidate in (*dense, *keyword):
        _require("no row of another tenant is found", "disowned" not in candidate.text)
    _same("both kinds of search", {c.document_id for c in dense}, {c.document_id for c in keyword})
    return {candidate.document_id for candidate in dense}


def second_gate(world: DenseWorld, person: Principal) -> None:
    """The ledger's gate alone, asked for every document in every version that there ever was."""
    keys = [(p.document_id, version) for p in world.placed for version in (0, 1, 2, 3)]
    expected = {p.document_id for p in world.placed if _shown(world, person, p)}
    _same("the second gate", set(world.ledger.gate(keys, person)), expected)
    former = [(p.document_id, 1) for p in world.placed if p.name == "renewed"]
    _same("the second gate, asked for a former version", set(world.ledger.gate(former, person)), set())


def lists(world: DenseWorld, person: Principal) -> None:
    expected = {p.document_id for p in world.placed if _shown(world, person, p)}
    _same("the list of documents", {record.document_id for record in world.ledger.list(person, 500)}, expected)
    got = {p.document_id for p in world.placed if world.ledger.get(person, p.document_id) is not None}
    _same("documents, one by one", got, expected)


def whole_search(world: DenseWorld, person: Principal) -> None:
    """Both gates together: the right passages, in the right version, and the reranker was given no others."""
    service = world.service
    service.reranked.texts = []
    found = service.run(service.retrieval.search(person, Search("what is the password?", 200)))
    expected = {p.document_id for p in world.placed if _shown(world, person, p)}
    _same("a search", {hit.document_id for hit in found.hits}, expected)
    told = " ".join([*(hit.text for hit in found.hits), *service.reranked.texts])
    for secret in ("swordfish", "not published", "other house", "disowned"):
        _require(f"{secret!r} stays hidden", secret not in told)


def meanwhile(world: DenseWorld) -> None:
    """A right that goes while a question is answered."""
    service, ann = world.service, world.people[0]
    target = next(p for p in world.placed if p.tenant == world.mine and p.name == "by name")
    search = Search("what is the password?", 50, document_ids=(target.document_id,))

    def revoke() -> None:
        world.ledger.set_rule(target.document_id, RULES["nobody"])

    def restore() -> None:
        world.ledger.set_rule(target.document_id, target.ref.rule)

    before = service.run(service.retrieval.search(ann, search)).hits
    _require("the document is found", [hit.document_id for hit in before] == [target.document_id])
    _same("what may still be cited", set(service.run(service.retrieval.confirm(ann, before))), {before[0].chunk_id})
    former = replace(before[0], version=before[0].version - 1, chunk_id="former")
    both = service.run(service.retrieval.confirm(ann, [former, before[0]]))
    _same("a former version may not be cited", set(both), {before[0].chunk_id})
    service.reranked.before = revoke
    try:
        _same("revoked while it was reranked", set(service.run(service.retrieval.search(ann, search)).hits), set())
    finally:
        service.reranked.before = lambda: None
    _same("revoked, and cited", set(service.run(service.retrieval.confirm(ann, before))), set())
    restore()
    _told_after_revocation(world, ann, before, revoke)
    restore()


def _told_after_revocation(world: DenseWorld, ann: Principal, hits: tuple[Hit, ...], revoke: Any) -> None:
    service = world.service
    token = service.token(ann.subject, ann.tenant, [*ann.roles, "cleared-internal"], sorted(ann.groups))
    service.writes(obedient=True)
    service.obedient.while_writing = revoke
    try:
        body = {"question": "what is the password?", "filters": {"document_ids": [hits[0].document_id]}}
        answer = service.call("POST", "/v1/query", token, json=body)
    finally:
        service.obedient.while_writing = lambda: None
    _require("an answer comes", answer.status_code == 200 and answer.json()["generator"] == "obedient")
    _require("revoked while the model wrote", "here" not in answer.text)


def routes(world: DenseWorld) -> None:
    """An administrator of the other house, and documents of ours: as if they were not there."""
    service = world.service
    boss = service.token("boss", world.other, ["admin", "cleared-restricted"])
    plain = service.token("dan", world.mine, ["admin", "cleared-restricted"], [])
    missing = document_id("no", "such", "document")
    for token, names in ((boss, ("public", "by name")), (plain, ("by name", "revoked", "deleted"))):
        for name in names:
            target = next(p for p in world.placed if p.tenant == world.mine and p.name == name).document_id
            for method, tail, body in (
                ("GET", "", None),
                ("PUT", "/acl", {"allow": ["everyone"]}),
                ("DELETE", "", None),
            ):
                asked = {"json": body} if body else {}
                path = f"/v1/documents/{{}}{tail}"
                headers = {"x-request-id": "same"}
                found = service.call(method, path.format(target), token, headers=headers, **asked)
                none = service.call(method, path.format(missing), token, headers=headers, **asked)
                _require(f"{method} of a hidden document", found.status_code == none.status_code == 404)
                _require("hidden and missing are told alike", found.content == none.content)
    owner = service.token("boss", world.mine, ["admin", "cleared-restricted"])
    body = {"id": "boss.txt", "text": "The password of the boss.", "acl": ["user:boss"]}
    owned = service.call("POST", "/v1/documents", owner, json=body).json()["document_id"]
    refused = service.call("DELETE", f"/v1/documents/{owned}", boss).status_code == 404
    _require("an owner's name is no key to another tenant", refused)
    mine = next(p for p in world.placed if p.tenant == world.mine and p.name == "public")
    _require("and it is still there", world.ledger.get(world.people[0], mine.document_id) is not None)


def wide_filters(service: Service) -> None:
    """Somebody who may read under every second of many rules: the filter lets more through, and what may not be, goes.

    What they may not read is nearest to the question.
    """
    if service.wide is None:
        tenant = f"wide{next(numbers)}"
        rules = [AccessRule.of([f"group:g{n}"]) for n in range(MANY)]
        tenant_id = service.ledger.tenant_id(tenant)
        ids = [service.ledger.intern_rule(tenant_id, rule) for rule in rules]
        chosen = [*range(0, MANY, MANY // 40), *range(1, MANY, MANY // 40)]
        refs = [DocumentRef(tenant, "dense", f"{n}", f"mem:{n}", None, "1", rules[n]) for n in chosen]
        texts = ["what is the password?" if n % 2 else f"The ferry leaves at {n}, password or not." for n in chosen]
        service.write(refs, texts)
        service.flush()
        middle = {ref.document_id for ref in refs if MANY // 4 <= int(ref.external_id) < MANY // 2}
        run = Visible(tenant_id, tuple(ids[MANY // 4 : MANY // 2]), MANY)
        service.wide = Visible(tenant_id, tuple(ids[::2]), MANY), {ref.document_id for ref in refs[:40]}, run, middle
    visible, readable, run, middle = service.wide
    store, vector = service.stores()[0], service.question("what is the password?")
    for limit in (3, 10, 200):
        store._starved.clear()  # as one that was not asked for these rules yet
        for found in (store.search_dense(vector, visible, limit), store.search_keyword("password", visible, limit)):
            shown = {candidate.document_id for candidate in found}
            _require(f"{limit} of many: only what may be read", shown <= readable)
            _require(f"{limit} of many: as many as there are", len(shown) == min(limit, 40))
    found = {candidate.document_id for candidate in store.search_dense(vector, run, 200)}
    _same("a run of rules holds just these", found, middle)


def caches(service: Service) -> None:
    """What is remembered is remembered for one tenant and one model, and of readers not at all."""
    embedding, n = service.embedding, next(numbers)
    model = service.retrieval._live.ask().model_id
    text = f"question {n}"

    def kept() -> int:
        return len(embedding._questions)

    async def ask(tenant: str, model_id: str = model, keep: bool = True) -> Any:
        return await embedding.question(tenant, text, model_id, keep)

    size = kept()
    service.run(ask("one", keep=False))
    _require("a question of a reader leaves no trace", kept() == size)
    first = service.run(ask("one"))
    _require("a question is remembered", service.run(ask("one")) is first)
    _require("and not for readers", service.run(ask("one", keep=False)) is not first)
    _require("and for its tenant alone", service.run(ask("two")) is not first)
    _require("and under its model alone", _fails(service, ask("one", "another-model")))
    _embedding_cache(service, f"{'x' * 300} {n}")


def _fails(service: Service, work: Any) -> bool:
    try:
        service.run(work)
    except Exception:  # noqa: BLE001 - any refusal is one
        return True
    return False


def _embedding_cache(service: Service, text: str) -> None:
    cache = service.embedding._passages._cache
    mine, other = cache.of("m-one"), cache.of("m-two")
    vector = np.ones(4, np.float32)
    mine.put({embedding_cache.text_hash(text): CachedEmbedding(vector)})
    _same("embeddings under their model", len(other.get_dense([embedding_cache.text_hash(text)])), 0)
    _same(
        "embeddings by their whole text",
        len(mine.get_dense([embedding_cache.text_hash(text + "!"), embedding_cache.text_hash("!" + text)])),
        0,
    )
    _same("an embedding comes back", len(mine.get_dense([embedding_cache.text_hash(text)])), 1)
    mine.drop([embedding_cache.text_hash(text)])
    _same("an erased text's embedding", len(mine.get_dense([embedding_cache.text_hash(text)])), 0)


def _shown(world: DenseWorld, person: Principal, placed: Placed) -> bool:
    if placed.tenant == world.mine:
        return placed.live and world.may_read(person, placed)
    return placed.name != "unwritten" and world.may_read(person, placed)


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Leak(f"{what}: {found!r}, not {expected!r}"[:600])


def _require(what: str, holds: bool) -> None:
    if not holds:
        raise Leak(what)
