"""Whether the time of a refusal tells that there is something: a hidden document against none, n times each.

AUC: how often, of one answer of each kind, the one for the hidden document took longer; 0.5 is a coin. Measured in one
process, without a network: what cannot be told here cannot be told from afar.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

import numpy as np

from bench.context import Figure, directory, machine, quantile, save
from bench.selectivity import served
from index.access_rules import Visible
from index.document import DocumentRef, document_id
from index.ledger import Ledger
from index.vectors import ChunkRow
from policies.access import AccessRule
from policies.principals import Principal

DOCUMENTS = 2_000
MOST = 0.55
ASKER = Principal("eve", "bench", frozenset({"user"}), frozenset(f"g{n}" for n in range(20)))

Ask = Callable[[str], object]


def run(samples: int) -> list[Figure]:
    """Ask for hidden documents and for none, in turns, of each thing that takes a document's id."""
    before = machine()
    with directory() as home, served(home) as store:
        ledger = Ledger(f"sqlite:///{home / 'ledger.sqlite'}")
        hidden = _hide(ledger, store)
        vector = np.ones(384, np.float32) / np.float32(np.sqrt(384))
        visible = ledger.visible_rules(ASKER)
        assert visible is not None, "the asker may read something"
        seen: Visible = visible
        asks: dict[str, Ask] = {
            "GET of a document": lambda each: ledger.get(ASKER, each),
            "PUT or DELETE of a document": lambda each: (
                ledger.held(each),
                ledger.find_tenant(ASKER.tenant),
                ledger.get(ASKER, each),
            ),
            "the second gate": lambda each: ledger.gate([(each, 1)], ASKER),
            "a search narrowed to it": lambda each: store.search_dense(vector, seen, 10, [each]),
        }
        results = {name: _measure(ask, hidden, samples) for name, ask in asks.items()}
        ledger.close()
    save("existence", {"samples": samples, "documents": DOCUMENTS, "asks": results}, before)
    return [
        Figure(
            "existence",
            f"{name}: AUC of hidden against none",
            f"{each['auc']:.3f}",
            samples,
            f"≤ {MOST}",
            each["auc"] <= MOST,
        )
        for name, each in results.items()
    ]


def _hide(ledger: Ledger, store: object) -> list[str]:
    from index.vectors import VectorStore

    assert isinstance(store, VectorStore)
    tenant = ledger.tenant_id(ASKER.tenant)
    rules = [AccessRule.of([f"group:h{n}"]) for n in range(50)] + [AccessRule.of(["group:g1"])]
    random = np.random.default_rng(3)
    ids, rows = [], []
    for number in range(DOCUMENTS):
        rule = rules[number % len(rules)]
        ref = DocumentRef(ASKER.tenant, "bench", str(number), f"mem:{number}", None, "1", rule)
        assert ledger.flip(ref, ledger.begin_version(ref, "hash", 1, "run"))
        vector = random.normal(size=384).astype(np.float32)
        rows.append(_row(ref.document_id, tenant, ledger.intern_rule(tenant, rule), vector / np.linalg.norm(vector)))
        if not rule.permits(ASKER):
            ids.append(ref.document_id)
    store.upsert(rows)
    store.flush()
    return ids


def _row(document: str, tenant: int, access: int, vector: np.ndarray[tuple[int], np.dtype[np.float32]]) -> ChunkRow:
    text = f"passage of {document}"
    return ChunkRow(
        document, 1, tenant, access, 0, 0, len(text), None, "", text, "passage", "0" * 64, {"selectivity": vector}
    )


def _measure(ask: Ask, hidden: Sequence[str], samples: int) -> dict[str, float]:
    random = np.random.default_rng(5)
    taken: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(20):
        ask(hidden[0])
    gc.disable()
    try:
        for number in range(2 * samples):
            there = number % 2 == 0
            none = document_id("no", "such", str(number))
            each = hidden[int(random.integers(len(hidden)))] if there else none
            began = time.perf_counter()
            ask(each)
            taken[there].append(time.perf_counter() - began)
    finally:
        gc.enable()
    return {
        "auc": round(_auc(taken[True], taken[False]), 4),
        "hidden_p50_us": round(quantile(taken[True], 0.5) * 1e6, 1),
        "none_p50_us": round(quantile(taken[False], 0.5) * 1e6, 1),
    }


def _auc(one: Sequence[float], other: Sequence[float]) -> float:
    """Mann and Whitney's U over all pairs; 0.5 to 1, whichever is the slower."""
    ranks = np.argsort(np.argsort([*one, *other], kind="stable"), kind="stable") + 1
    above = float(ranks[: len(one)].sum() - len(one) * (len(one) + 1) / 2) / (len(one) * len(other))
    return max(above, 1 - above)
