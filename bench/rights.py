"""What rights cost: looking up what a person may see, and searching among it.

Lookup: a ledger with 100,000 rules, people in 1,000 groups, half of them by way of other groups. Cold: the first time
for each person; warm: again.

Search: rows with pre-made vectors and a rule each, in Milvus Lite as the product starts it. The callers see so many of
the tenant's rules, scattered among all of them: the costliest case, for what one source brought lies side by side. Each
search is compared with the same one without a filter, right beside it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.engine import Connection

from bench.context import Figure, directory, machine, quantile, save, say
from bench.retrieve import WORDS_OF_CHUNK, noisy
from bench.texts import SEED, Vocabulary, sentences
from cluster import milvus
from cluster.preflight import free_ports
from index.access_rules import Visible
from index.analysis import analyse
from index.ledger import Ledger
from index.ledger_schema import access_members, access_rules
from index.settings import StoreSettings
from index.vectors import _FIELDS, ChunkRow, RightsFilter, VectorStore, visibility_filter
from policies.groups import Membership
from policies.principals import Principal

TENANT, TENANT_ID = "bench", 7
RULES, GROUPS, GROUPS_OF_PERSON = 100_000, 20_000, 1_000
PEOPLE, WARM = 20, 20
RULES_OF_TENANT = 110_000
SIZES = (20_000, 100_000)
SEEN = (1, 100, 1_000, 10_000, 50_000, 100_000)
DIM, DEPTH = 384, 60
TEXTS, SUBJECTS, ROWS_PER_WRITE = 3_000, 256, 2_048
COLD_MS, WARM_MS, RATIO = 10.0, 1.0, 1.5
BATCH = 20_000


def run(sizes: Sequence[int], questions: int, kept: Path | None = None) -> list[Figure]:
    """Measure, write `rights.json`, and give the table's lines. `kept`: a directory to fill once and to use again."""
    before = machine()
    with directory() as home:
        lookup = look_up(Ledger(f"sqlite:///{home}/ledger.sqlite"))
    searches: dict[str, Any] = {}
    with directory(kept) as home, _server(home) as settings:
        for size in sizes:
            searches[str(size)] = search(settings, size, questions)
    save("rights", {"lookup": lookup, "questions": questions, "depth": DEPTH, "search": searches}, before)
    return [*_lookup_figures(lookup), *(line for size in sizes for line in _search_figures(size, searches[str(size)]))]


# ---- looking up


def look_up(ledger: Ledger) -> dict[str, Any]:
    """Time the expansion of groups and the choice of rules, both as a request does them. Milliseconds."""
    say(f"{RULES} rules")
    people = _fill_ledger(ledger)
    cold, warm, seen = list[float](), list[float](), list[int]()
    for person in people:
        for attempt in range(1 + WARM):
            started = time.perf_counter()
            groups = ledger.groups.expand(TENANT, person.groups, person.subject)
            visible = ledger.visible_rules(Principal(person.subject, TENANT, groups=groups))
            (warm if attempt else cold).append((time.perf_counter() - started) * 1e3)
        assert visible is not None, "everybody sees something"
        assert len(groups) == GROUPS_OF_PERSON, "a person's groups are all found"
        seen.append(len(visible.access_ids))
    return {
        "rules": RULES,
        "groups_of_person": GROUPS_OF_PERSON,
        "rules_seen": round(float(np.mean(seen))),
        "cold": _times(cold),
        "warm": _times(warm),
    }


def _fill_ledger(ledger: Ledger) -> list[Principal]:
    chance = np.random.default_rng(SEED)
    tenant_id = ledger.tenant_id(TENANT)
    rules, members = [], []
    for number in range(1, RULES + 1):
        key = hashlib.sha256(str(number).encode()).hexdigest()
        rules.append({"id": number, "tenant_id": tenant_id, "key_hash": key})
        groups = chance.integers(GROUPS, size=int(chance.integers(1, 4)))
        for name in {int(group) for group in groups}:
            is_denied = bool(len(groups) > 1 and name == groups[0] and number % 20 == 0)
            of_rule = {"access_id": number, "name": f"group:g{name}", "deny": is_denied, "tenant_id": tenant_id}
            members.append(of_rule)

    def work(connection: Connection) -> None:
        for table, rows in ((access_rules, rules), (access_members, members)):
            for start in range(0, len(rows), BATCH):
                connection.execute(table.insert(), rows[start : start + BATCH])

    ledger._database.write(work)
    people, edges = [], []
    for number in range(PEOPLE):
        names = [f"g{group}" for group in chance.permutation(GROUPS)[: GROUPS_OF_PERSON - 1]]
        subject, team, half = f"person-{number}", f"team-{number}", GROUPS_OF_PERSON // 2
        edges.append(Membership(f"user:{subject}", team))
        edges += [Membership(f"group:{team}", group) for group in names[half:]]
        people.append(Principal(subject, TENANT, groups=frozenset(names[:half])))
    ledger.groups.replace(TENANT, "bench", edges)
    return people


# ---- searching


@contextmanager
def _server(home: Path) -> Iterator[StoreSettings]:
    (home / "logs").mkdir(mode=0o700, exist_ok=True)
    port = free_ports(1)[0]
    server = milvus.start(home, port)
    try:
        milvus.wait_until_up(server, port, home / "logs" / "milvus.log")
        yield StoreSettings(uri=f"http://127.0.0.1:{port}", timeout_s=120)
        milvus.closed_cleanly(home)
    finally:
        server.terminate()
        server.wait(60)


def search(settings: StoreSettings, size: int, questions: int) -> dict[str, Any]:
    """Time both searches of each question with and without a filter, one right after the other. Milliseconds."""
    store = VectorStore(settings, f"bench{size}", DIM)
    store.open()
    if store.count() < size:
        say(f"filling {size} chunks")
        _fill_store(store, size)
    chance, vocabulary = np.random.default_rng(SEED + 1), Vocabulary(sentences(), seed=SEED + 1)
    asked = [(_unit(chance.standard_normal((1, DIM)))[0], analyse(vocabulary.question())) for _ in range(questions)]
    everything = Visible(TENANT_ID, tuple(range(1, RULES_OF_TENANT + 1)), RULES_OF_TENANT)
    _both(store, everything, *asked[0])  # builds what Milvus Lite builds at the first search
    found: dict[str, Any] = {"unfiltered": _times([_timed(partial(_without, store, *q)) for q in asked])}
    for count in SEEN:
        ids = np.sort(chance.permutation(RULES_OF_TENANT)[:count] + 1).tolist()
        found[str(count)] = _compared(store, Visible(TENANT_ID, tuple(ids), RULES_OF_TENANT), asked)
        say(f"{size} chunks, {count} rules: {found[str(count)]}")
    return found


def _compared(store: VectorStore, visible: Visible, asked: Sequence[tuple[Any, str]]) -> dict[str, Any]:
    rights = visibility_filter(visible, None, DEPTH)
    first = _timed(lambda: _both(store, visible, *asked[0]))
    pairs = [(_timed(partial(_both, store, visible, *q)), _timed(partial(_without, store, *q))) for q in asked]
    rows = [len(hits) for q in asked for hits in _both(store, visible, *q)]
    filtered, plain = (quantile([pair[at] for pair in pairs], 0.5) for at in (0, 1))
    return {
        "plan": _plan(rights),
        "filter_chars": len(rights.text),
        "first_ms": round(first, 1),
        "p50_ms": round(filtered, 1),
        "unfiltered_p50_ms": round(plain, 1),
        "ratio": round(filtered / plain, 2),
        "rows": round(float(np.mean(rows)), 1),
    }


def _plan(rights: RightsFilter) -> str:
    if not rights.is_exact:
        return f"ranges, ×{rights.spread:.1f} sifted"
    return "list" if " in [" in rights.text else "ranges"


def _both(store: VectorStore, visible: Visible, vector: Any, terms: str) -> tuple[list[Any], list[Any]]:
    return store.search_dense(vector, visible, DEPTH), store.search_keyword(terms, visible, DEPTH)


def _without(store: VectorStore, vector: Any, terms: str) -> None:
    """Search as nobody may in the product: without a filter."""
    for field, data, metric in (("dense", vector.tolist(), "IP"), ("sparse", terms, "BM25")):
        store._client.search(
            store.collection,
            data=[data],
            anns_field=field,
            search_params={"metric_type": metric},
            limit=DEPTH,
            output_fields=_FIELDS,
            consistency_level="Strong",
        )


def _fill_store(store: VectorStore, size: int) -> None:
    chance, vocabulary = np.random.default_rng(SEED), Vocabulary(sentences(), seed=SEED)
    texts = [vocabulary.text(WORDS_OF_CHUNK) for _ in range(TEXTS)]
    analysed = [analyse(text) for text in texts]
    base = _unit(chance.standard_normal((SUBJECTS, DIM)))
    rules = np.resize(np.random.default_rng(3).permutation(RULES_OF_TENANT) + 1, size)
    for start in range(0, size, ROWS_PER_WRITE):
        numbers = range(start, min(start + ROWS_PER_WRITE, size))
        vectors = noisy(base[chance.integers(SUBJECTS, size=len(numbers))], chance)
        rows = []
        for number, vector in zip(numbers, vectors, strict=True):
            at = int(chance.integers(TEXTS))
            key = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
            place = key, 1, TENANT_ID, int(rules[number]), 0, 0, len(texts[at]), None, ""
            rows.append(ChunkRow(*place, texts[at], analysed[at], "0" * 64, {store.model_id: vector}))
        store.upsert(rows)
    store.flush()


def _unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def _times(values: Sequence[float]) -> dict[str, float]:
    shares = {"p50_ms": 0.5, "p95_ms": 0.95}
    return {"n": len(values), **{name: round(quantile(values, share), 2) for name, share in shares.items()}}


# ---- the table


def _lookup_figures(result: dict[str, Any]) -> list[Figure]:
    name = f"lookup, {RULES:,} rules, {GROUPS_OF_PERSON:,} groups, {result['rules_seen']:,} seen"
    return [
        Figure(
            "rights",
            f"{name}, {state} p50 / p95",
            f"{times['p50_ms']:.2f} / {times['p95_ms']:.2f} ms",
            times["n"],
            f"≤ {limit:g}",
            times["p50_ms"] <= limit,
        )
        for state, limit in (("cold", COLD_MS), ("warm", WARM_MS))
        for times in (result[state],)
    ]


def _search_figures(size: int, result: dict[str, Any]) -> list[Figure]:
    n = result["unfiltered"]["n"]
    return [
        Figure(
            "rights",
            f"search, {size:,} chunks, {count:,} rules seen ÷ unfiltered",
            f"×{each['ratio']:.2f}, {each['p50_ms']:.0f} ms ({each['plan']})",
            n,
            f"≤ {RATIO:g}",
            each["ratio"] <= RATIO,
        )
        for count in SEEN
        for each in (result[str(count)],)
    ]
