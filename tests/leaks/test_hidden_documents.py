"""What somebody is told does not change when documents that they may not see come or go: lists, counts, pages, scores.

Scores by words are the exception, and it is measured: the store's BM25 weighs words by all rows that it keeps together
(docs/leak-suite.md). What is held here is that the answer's documents, their texts and their number stay the same, and
everything of a search by meaning.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

from deployments.retrieval import Search
from index.document import DocumentRef
from policies.access import AccessRule
from policies.principals import Principal
from tests.leaks.service import Service
from tests.leaks.sizes import seed, sizes

WORDS = ("salary", "merger", "harvest", "lantern", "turbine", "ferry", "orchard", "kestrel", "quarry", "thistle")
MINE, MOST_HIDDEN, PER_COLLECTION = 12, 40, 20
numbers = itertools.count()


def test_hidden_documents_change_nothing_that_is_told(service: Service, count: Callable[[str, int, int], None]) -> None:
    """The same twelve documents twice, once with hidden ones beside them; and again when those are gone."""
    source = random.Random(seed())
    wrong: list[str] = []
    told = 0
    moved = {mode: [0, 0, 0] for mode in ("keyword", "hybrid")}
    for turn in range(sizes().metamorphic):
        if turn % PER_COLLECTION == 0:
            service.empty()
        n = next(numbers)
        alone, beside = f"meta{n}", f"meta{n}-beside"
        texts = [_text(source) for _ in range(MINE)]
        asked = " ".join(source.sample(WORDS, 3))
        _write(service, alone, texts)
        service.flush()
        _write(service, beside, texts)
        owner = source.choice((beside, f"meta{n}-other"))
        hidden = [_ref(owner, f"hidden{n}", AccessRule.of(["user:bob"])) for n in range(source.randint(1, MOST_HIDDEN))]
        word = asked.split()[0]
        service.write(hidden, [f"{word} {_text(source)} {word}" for _ in hidden])
        service.flush()  # a segment of its own, for all that was written since: statistics are kept by segment
        expected, found = _everything(service, alone, asked), _everything(service, beside, asked)
        wrong += [f"{beside}, {name}, {len(hidden)} hidden" for name in expected if expected[name] != found[name]]
        for mode, seen in moved.items():
            _compare(_ranked(service, alone, asked, mode), _ranked(service, beside, asked, mode), seen)
        service.ledger.delete([ref.document_id for ref in hidden])
        gone = _everything(service, beside, asked)
        wrong += [f"{beside}, {name}, after they went" for name in expected if expected[name] != gone[name]]
        told += 2 * len(expected)
    for mode, (order, first, score) in moved.items():
        for what, changed in (("order", order), ("first passage", first), ("scores", score)):
            count(f"known, not failed: {mode} search, {what} moved by hidden rows", sizes().metamorphic, changed)
    count("hidden documents: things told, with and without", told, len(wrong))
    assert not wrong, "\n".join(wrong[:20])


def _everything(service: Service, tenant: str, asked: str) -> dict[str, Any]:
    """All that `ann` is told that is not of BM25."""
    ann = Principal("ann", tenant)
    token = service.token("ann", tenant, ["power_user", "cleared-internal"])
    meaning = service.run(service.retrieval.search(ann, Search(asked, 50, "dense")))
    words = service.run(service.retrieval.search(ann, Search(asked, 50, "keyword")))
    both = service.run(service.retrieval.search(ann, Search(asked, 50)))
    page = service.call("GET", "/v1/documents?limit=500", token).json()
    short = service.call("GET", "/v1/documents?limit=3", token).json()
    return {
        "by meaning": sorted((-hit.score, hit.external_id, hit.text) for hit in meaning.hits),
        "by words, as a set": {hit.external_id for hit in words.hits},
        "by both, as a set": {hit.external_id for hit in both.hits},
        "withheld": (meaning.withheld, words.withheld, both.withheld),
        "list": sorted((body["external_id"], body["title"], body["chunks"]) for body in page["documents"]),
        "a page": (len(short["documents"]), short["next"] is None),
    }


def _ranked(service: Service, tenant: str, asked: str, mode: Any) -> list[tuple[str, float]]:
    """Names and scores; equal scores by name, since ids differ between the twins."""
    hits = service.run(service.retrieval.search(Principal("ann", tenant), Search(asked, 50, mode))).hits
    return sorted(((hit.external_id, hit.score) for hit in hits), key=lambda item: (-item[1], item[0]))


def _compare(alone: list[tuple[str, float]], beside: list[tuple[str, float]], seen: list[int]) -> None:
    seen[0] += [name for name, _ in alone] != [name for name, _ in beside]
    seen[1] += alone[:1] != [] and alone[0][0] != beside[0][0]
    seen[2] += alone != beside


def _write(service: Service, tenant: str, texts: list[str]) -> None:
    refs = [_ref(tenant, f"mine{n}", AccessRule.of(["user:ann"])) for n in range(len(texts))]
    service.write(refs, texts)


def _ref(tenant: str, name: str, rule: AccessRule) -> DocumentRef:
    return DocumentRef(tenant, "leaks", name, f"mem:{name}", None, "1", rule)


def _text(source: random.Random) -> str:
    return " ".join(source.choices(WORDS, k=source.randint(6, 14)))
