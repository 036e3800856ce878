"""What is remembered for one person is never what another is told; and nothing is remembered that is not named here."""

from __future__ import annotations

import ast
import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.retrieval import Search
from index.document import DocumentRef
from index.embedding_cache import text_hash
from policies.access import AccessRule
from policies.labels import Label
from policies.principals import Principal
from tests.leaks.service import Service
from tests.leaks.sizes import seed, sizes

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("policies", "index", "ingest", "deployments")
WORDS = ("salary", "merger", "harvest", "lantern", "turbine", "ferry", "orchard", "kestrel")
FORMS = (
    "what is the {} code",
    "What is the {} code?",
    "tell me the {} code",
    "the {} code, please",
    "{} code what is it",
)
numbers = itertools.count()

# Where a process keeps an answer for the next who asks: what it holds, and what keeps it apart.
KEPT = {
    "deployments/embedding.py": "a question's vector, by tenant, model and text",
    "index/access_rules.py": "a rule's id by tenant and rule; visible rules by tenant, clearance, names, newest rule",
    "index/groups.py": "a person's groups by tenant, subject, groups of the token and version of the memberships",
    "index/embedders.py": "loaded models by id",
    "index/regimes.py": "regimes as their files say",
    "policies/guard.py": "whom the record names as limited already, by tenant, subject and action",
    "policies/pii/gazetteers.py": "lists of names that ship with the project",
    "policies/pii/tagger.py": "the weights that ship with the project",
    "policies/overage.py": "a person's groups at their directory, by the directory's id of them, for minutes",
    "deployments/prompting.py": "the prompt's template",
    "deployments/webhooks.py": "ids of events that were taken, so that none is taken twice",
    "ingest/source_settings.py": "what follows from a source's own settings",
}


def test_no_other_cache_exists() -> None:
    """Whoever adds one says here what keeps its readers apart, and adds it to this module."""
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if _keeps(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(KEPT)


def _keeps(tree: ast.AST) -> bool:
    """Whether a module uses a cache by any of their usual names."""
    names = {"cache", "lru_cache", "cached", "cachedmethod", "cached_property"}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr != "cache"}
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
        if node.module in ("functools", "cachetools", "cachetools.func")
    }  # fmt: skip
    kinds = {name for name in used | imported if name.endswith("Cache") and name != "EmbeddingCache"}
    return bool(kinds & {"LRUCache", "TTLCache", "LFUCache", "FIFOCache", "TLRUCache", "RRCache"} or imported & names)


def test_the_same_and_a_similar_question_of_another_person_is_answered_by_their_rights(
    service: Service, count: Callable[[str, int, int], None]
) -> None:
    """A fills every cache, then B asks: of another tenant, in another role, after a change, after an erasure."""
    source = random.Random(seed())
    wrong: list[str] = []
    pairs = 0
    while pairs < sizes().cache_pairs:
        tenant, other = (f"cache{next(numbers)}-{n}" for n in "ab")
        refs = [_ref(tenant, word, AccessRule.of(["group:a"])) for word in WORDS]
        twins = [_ref(other, word, AccessRule.of(["user:bob"])) for word in WORDS]
        service.write(refs, [f"The {word} code is of {tenant}." for word in WORDS])
        service.write(twins, [f"The {word} code is of {other}." for word in WORDS])
        service.flush()
        ann = Principal("ann", tenant, groups=frozenset({"a"}))
        for _ in range(10):
            word, first, second = source.choice(WORDS), *source.sample(FORMS, 2)
            again = source.choice((first, second)).format(word)
            _told(service, ann, first.format(word), {ref.document_id for ref in refs}, wrong)
            for asker, expected in _others(tenant, other, refs, twins):
                _told(service, asker, again, expected, wrong)
                pairs += 1
        pairs += _after_changes(service, ann, refs, wrong)
    count("caches: question after another's", pairs, len(wrong))
    assert not wrong, "\n".join(wrong[:20])


def _others(tenant: str, other: str, refs: Any, twins: Any) -> list[tuple[Principal, set[str]]]:
    nothing: set[str] = set()
    mine, theirs = {ref.document_id for ref in refs}, {ref.document_id for ref in twins}
    group = frozenset({"a"})
    return [
        (Principal("bob", tenant), nothing),
        (Principal("bob", tenant, groups=group), mine),
        (Principal("bob", tenant, groups=group, clearance=Label.PUBLIC), nothing),
        (Principal("bob", tenant, roles=group), nothing),
        (Principal("ann", other, groups=group), nothing),
        (Principal("bob", other, groups=group), theirs),
    ]


def _after_changes(service: Service, ann: Principal, refs: Any, wrong: list[str]) -> int:
    """A rule changes, a label changes, a text is erased: the same question, the same person."""
    left = {ref.document_id for ref in refs}
    question = FORMS[0].format(WORDS[0])
    for ref, rule in zip(refs, (AccessRule.of([]), replace(ref_rule(), label=Label.RESTRICTED)), strict=False):
        service.ledger.set_rule(ref.document_id, rule)
        left.discard(ref.document_id)
        _told(service, ann, question, left, wrong)
    erased = refs[2]
    service.ledger.delete([erased.document_id])
    left.discard(erased.document_id)
    _told(service, ann, question, left, wrong)
    return 3


def ref_rule() -> AccessRule:
    return AccessRule.of(["group:a"])


def _told(service: Service, asker: Principal, question: str, expected: set[str], wrong: list[str]) -> None:
    found = service.run(service.retrieval.search(asker, Search(question, 50)))
    shown = {hit.document_id for hit in found.hits}
    if shown != expected:
        wrong.append(f"{asker}: {question}: {len(shown - expected)} too many, {len(expected - shown)} too few")


def test_a_question_leaves_a_trace_for_its_own_tenant_only_and_none_of_a_reader(service: Service) -> None:
    embedding, asked = service.embedding, []
    encode = embedding._encode

    def counted(model_id: str, texts: Any) -> Any:
        asked.extend(texts)
        return encode(model_id, texts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_encode", counted)
        embedding._questions.clear()
        for tenant, keep in (
            ("one", True),
            ("one", True),
            ("two", True),
            ("two", False),
            ("three", False),
            ("three", True),
        ):
            caller = Principal("p", tenant)
            service.ledger.intern_rule(service.ledger.tenant_id(tenant), AccessRule.of(["everyone"]))
            service.run(service.retrieval.search(caller, Search("has this been asked?", 3, keep=keep)))
    assert len(asked) == 5, "one, two, and two's reader, three's, and three: a reader neither finds nor leaves anything"
    assert {key[0] for key in embedding._questions} == {"one", "two", "three"}


def test_a_reader_asks_without_a_trace_through_the_whole_service(service: Service) -> None:
    tenant = f"reader{next(numbers)}"
    service.write([_ref(tenant, "ferry", AccessRule.of(["everyone"]))], ["The ferry code."])
    for role, traces in (("readonly", 0), ("user", 1)):
        token = service.token("p", tenant, [role, "cleared-internal"])
        assert service.call("POST", "/v1/query", token, json={"question": "ferry code?"}).status_code == 200
        assert len([key for key in service.embedding._questions if key[0] == tenant]) == traces


def test_an_erased_text_is_gone_from_the_embeddings(service: Service) -> None:
    text = "A text that is to be forgotten, word by word."
    service.embedding._passages([text])
    cache = service.retrieval._live.ask().embeddings
    assert cache.get_dense([text_hash(text)])
    cache.drop([text_hash(text)])
    assert not cache.get_dense([text_hash(text)])


def test_many_at_once_are_told_apart(service: Service, count: Callable[[str, int, int], None]) -> None:
    """The same question by forty people in the same moment, batched together: each gets their own."""
    tenants = [f"crowd{next(numbers)}" for _ in range(4)]
    refs = [_ref(tenant, f"n{n}", AccessRule.of([f"user:p{n}"])) for tenant in tenants for n in range(10)]
    service.write(refs, [f"The ferry code number {n}." for n in range(len(refs))])
    service.flush()
    people = [Principal(f"p{n}", tenant) for tenant in tenants for n in range(10)]

    async def ask() -> list[Any]:
        return await asyncio.gather(
            *(service.retrieval.search(person, Search("what is the ferry code?", 50)) for person in people)
        )

    found = service.run(ask())
    wrong = [
        person
        for person, ref, answer in zip(people, refs, found, strict=True)
        if [hit.document_id for hit in answer.hits] != [ref.document_id]
    ]
    count("caches: at the same moment", len(people), len(wrong))
    assert not wrong


def _ref(tenant: str, name: str, rule: AccessRule) -> DocumentRef:
    return DocumentRef(tenant, "leaks", name, f"mem:{name}", None, "1", rule)
