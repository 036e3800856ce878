"""The retrieval deployment: rights → search → second gate → fusion → reranking → the gate again → hits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.calls import idempotent
from deployments.embedding import QuestionVectors
from deployments.fusion import Scored, fuse, rerank
from deployments.metrics import Metrics
from index.access_rules import LiveDocument, Visible
from index.analysis import analyse
from index.document import Hit
from index.ledger import Ledger
from index.settings import AppArgs
from index.stores import Live, LiveIndex
from index.suppressions import open_suppressions
from index.vectors import Candidate
from policies.errors import Unavailable
from policies.principals import Principal
from policies.privacy.suppression import Matcher

GATE = "ledger"
"""The rule that holds back what the store found and the ledger does not let this caller read in this version."""
GATE_AGAIN = "right_lost"
"""The rule that holds back what was let through, and lost its right, or was replaced, while it was ranked or read."""
SUPPRESSED = "suppressed"
"""The rule that holds back what mentions somebody whose data were erased, or may not be used at the moment."""
Mode = Literal["auto", "hybrid", "dense", "keyword"]


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for. `keep=False`: leave no trace in caches."""

    question: str
    top_k: int
    mode: Mode = "auto"
    document_ids: tuple[str, ...] | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages that the caller may read, best first, and what it took. `withheld`: found, and held back, by rule.

    `model_id`: the embedding model that all of it comes from; None where nothing is visible to the caller.
    """

    hits: tuple[Hit, ...]
    degraded: tuple[str, ...] = ()
    withheld: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    model_id: str | None = None


@serve.deployment(name="Retrieval")
class Retrieval:
    """Searches within the caller's rights. Raises `Unavailable` when the ledger or the vector store does not answer."""

    def __init__(self, args: AppArgs, embedding: DeploymentHandle[Any], reranking: DeploymentHandle[Any]) -> None:
        self._settings = args.retrieval
        self._reranking_settings = args.reranking
        self._embedding = embedding
        self._reranking = reranking
        self._ledger = Ledger(args.store.ledger)
        self._live = Live(args)
        self._live.ask()
        self._suppressions = open_suppressions(args)
        self._metrics = Metrics("retrieval")

    async def search(self, caller: Principal, search: Search) -> Retrieved:
        """Find the passages that answer, among those that the caller may read at this moment.

        One model gives all of it, also while another becomes the live one: which it is, is decided here.
        """
        index = await self._index()
        try:
            return await self._search(index, caller, search)
        except Unavailable:
            newest = await asyncio.to_thread(self._live.ask)
            if newest is index:
                raise
            return await self._search(newest, caller, search)  # the former one was dropped meanwhile

    async def _index(self) -> LiveIndex:
        kept = self._live.kept()
        return kept if kept is not None else await asyncio.to_thread(self._live.ask)

    async def _search(self, index: LiveIndex, caller: Principal, search: Search) -> Retrieved:
        timings: dict[str, float] = {}
        degraded: list[str] = []
        with self._metrics.stage("rights", timings):
            visible = await asyncio.to_thread(self._ledger.visible_rules, caller)
        if visible is None:
            return Retrieved((), timings_ms=timings)
        searching = asyncio.create_task(self._keyword(index, search, visible))  # goes on while the question is embedded
        try:
            with self._metrics.stage("embedding", timings):
                vectors = await self._question(index, caller, search, degraded)
            with self._metrics.stage("search", timings):
                dense, keyword = await asyncio.gather(self._dense(index, search, visible, vectors), searching)
        finally:
            searching.cancel()
        with self._metrics.stage("gate", timings):
            candidates = {candidate.chunk_id: candidate for candidate in (*dense, *keyword)}
            live = await self._gate(candidates.values(), caller)
        allowed = {key: c for key, c in candidates.items() if _passes(c, live)}
        with self._metrics.stage("fusion", timings):
            cosines = await self._cosines(index, vectors, dense, allowed)
            fused = fuse(_scored(dense, allowed), _scored(keyword, allowed), self._settings.dense_weight, cosines)
        with self._metrics.stage("reranking", timings):
            ranked = await self._rerank(index, search, vectors, fused, allowed, degraded)
        with self._metrics.stage("gate", timings):
            ordered = [allowed[item.id] for item in ranked]
            best, suppressed = await asyncio.to_thread(self._unsuppressed, caller.tenant, ordered, live, search.top_k)
            now = await self._gate(best, caller) if best else {}
        scores = {item.id: item.score for item in ranked}
        hits = tuple(_hit(c, now[c.document_id], scores[c.chunk_id]) for c in best if _passes(c, now))
        withheld = {
            GATE: tuple(key for key in candidates if key not in allowed),
            GATE_AGAIN: tuple(c.chunk_id for c in best if not _passes(c, now)),
            SUPPRESSED: suppressed,
        }
        self._metrics.withheld(sum(map(len, withheld.values())), "ledger")
        for stage in degraded:
            self._metrics.degraded(stage)
        return Retrieved(hits, tuple(degraded), withheld, timings, index.model_id)

    async def confirm(self, caller: Principal, hits: Sequence[Hit]) -> frozenset[str]:
        """Give the chunk ids that may still be shown now: the gate for citations, right before they leave."""
        return await asyncio.to_thread(self._confirm, caller, hits)

    def _confirm(self, caller: Principal, hits: Sequence[Hit]) -> frozenset[str]:
        keys = [(hit.document_id, hit.version) for hit in hits]
        live = self._ledger.gate(keys, caller)
        matcher = self._suppressions.matcher(caller.tenant, restricting=True)
        return frozenset(
            hit.chunk_id
            for hit, key in zip(hits, keys, strict=True)
            if hit.document_id in live
            and live[hit.document_id].key == key
            and not _is_suppressed(matcher, hit.text, live[hit.document_id])
        )

    async def check_health(self) -> None:
        """Raise when the store does not answer, so that Serve replaces a replica that lost its connection."""
        index = await self._index()
        await asyncio.to_thread(index.store.healthy)

    async def _question(
        self, index: LiveIndex, caller: Principal, search: Search, degraded: list[str]
    ) -> QuestionVectors | None:
        if search.mode == "keyword":
            return None
        try:
            vectors: QuestionVectors = await idempotent(
                lambda: self._embedding.question.remote(caller.tenant, search.question, index.model_id, search.keep)
            )
            return vectors
        except (RayError, RayServeException):
            degraded.append("embedding")  # keyword search goes on alone
            return None

    async def _dense(
        self, index: LiveIndex, search: Search, visible: Visible, vectors: QuestionVectors | None
    ) -> list[Candidate]:
        if vectors is None:
            return []
        depth = max(self._settings.depth, search.top_k)
        return await asyncio.to_thread(index.store.search_dense, vectors.dense, visible, depth, search.document_ids)

    async def _keyword(self, index: LiveIndex, search: Search, visible: Visible) -> list[Candidate]:
        if search.mode == "dense":
            return []
        depth = max(self._settings.depth, search.top_k)
        terms = analyse(search.question)
        return await asyncio.to_thread(index.store.search_keyword, terms, visible, depth, search.document_ids)

    async def _cosines(
        self,
        index: LiveIndex,
        vectors: QuestionVectors | None,
        dense: Sequence[Candidate],
        allowed: Mapping[str, Candidate],
    ) -> dict[str, float]:
        """Score what only keyword search found: its vector is in the cache, and a zero would bury it."""
        found = {candidate.chunk_id for candidate in dense}
        others = [candidate for candidate in allowed.values() if candidate.chunk_id not in found]
        if vectors is None or not others:
            return {}
        keys = [bytes.fromhex(candidate.text_hash) for candidate in others]
        kept = await asyncio.to_thread(index.embeddings.get_dense, keys)
        pairs = zip(others, keys, strict=True)
        return {candidate.chunk_id: float(kept[key] @ vectors.dense) for candidate, key in pairs if key in kept}

    def _unsuppressed(
        self, tenant: str, ordered: Sequence[Candidate], live: Mapping[str, LiveDocument], wanted: int
    ) -> tuple[list[Candidate], tuple[str, ...]]:
        """Give the first passages that may be used, and the ids of those before them that may not.

        What was erased is not shown from the moment that it is on the list, whether or not its rows are rewritten yet,
        and however old the rows are that somebody put back.
        """
        matcher = self._suppressions.matcher(tenant, restricting=True)
        if not matcher:
            return list(ordered[:wanted]), ()
        best: list[Candidate] = []
        suppressed: list[str] = []
        for candidate in ordered:
            if len(best) == wanted:
                break
            if _is_suppressed(matcher, candidate.text, live[candidate.document_id]):
                suppressed.append(candidate.chunk_id)
            else:
                best.append(candidate)
        return best, tuple(suppressed)

    async def _gate(self, candidates: Iterable[Candidate], caller: Principal) -> dict[str, LiveDocument]:
        keys = [(c.document_id, c.version) for c in candidates]
        return await asyncio.to_thread(self._ledger.gate, keys, caller) if keys else {}

    async def _rerank(
        self,
        index: LiveIndex,
        search: Search,
        vectors: QuestionVectors | None,
        fused: list[Scored],
        allowed: Mapping[str, Candidate],
        degraded: list[str],
    ) -> list[Scored]:
        reranking = self._reranking
        if self._reranking_settings.kind == "none" or not fused:
            return fused
        first = [allowed[item.id] for item in fused[: max(self._reranking_settings.depth, search.top_k)]]
        texts, hashes = [c.text for c in first], [c.text_hash for c in first]
        try:
            scores: list[float | None] = await idempotent(
                lambda: reranking.scores.remote(search.question, vectors, texts, hashes, index.model_id)
            )
        except (RayError, RayServeException):
            degraded.append("reranking")
            return fused
        if None in scores:
            degraded.append("reranking")
        found = {c.chunk_id: score for c, score in zip(first, scores, strict=True) if score is not None}
        return rerank(fused, found, self._reranking_settings.weight)


def _is_suppressed(matcher: Matcher, text: str, document: LiveDocument) -> bool:
    names = (document.title, document.uri, document.external_id)
    return bool(matcher) and (bool(matcher.find(text)) or any(map(matcher.names, names)))


def _passes(candidate: Candidate, live: Mapping[str, LiveDocument]) -> bool:
    document = live.get(candidate.document_id)
    return document is not None and document.key == (candidate.document_id, candidate.version)


def _scored(candidates: Sequence[Candidate], allowed: Mapping[str, Candidate]) -> list[Scored]:
    return [Scored(c.chunk_id, c.score) for c in candidates if c.chunk_id in allowed]


def _hit(candidate: Candidate, document: LiveDocument, score: float) -> Hit:
    return Hit(
        chunk_id=candidate.chunk_id,
        document_id=candidate.document_id,
        version=candidate.version,
        external_id=document.external_id,
        title=document.title,
        uri=document.uri,
        text=candidate.text,
        score=round(score, 6),
        start=candidate.start,
        end=candidate.end,
        page=candidate.page,
        as_of=document.as_of,
        source_id=document.source_id,
    )
