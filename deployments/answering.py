"""From a question that passed the door to an answer with citations: the steps of the guard, in its order."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.calls import idempotent
from deployments.contract import CitationBody, QueryRequest, QueryResponse
from deployments.generation import EXTRACTIVE, Delta, Task, Written
from deployments.metrics import Metrics
from deployments.prompting import UNKNOWN, Turn, balanced
from deployments.retrieval import GATE_AGAIN, Retrieved, Search
from deployments.screens import SourceNames
from index.document import Hit
from policies.citations import Evidence, holds
from policies.compliance.screening import Passage, Shown
from policies.guard import GuardedRequest
from policies.limits import CHARACTERS_PER_TOKEN
from policies.outgoing import Outgoing

MIN_ANSWER_PASSAGES = 8
CONFIRM_S = 1.0
"""While a model writes, its reader's rights are asked for again this often, and before its first words."""


@dataclass(frozen=True, slots=True)
class Text:
    """A checked piece of an answer: its marks are final and each has its citation."""

    text: str


@dataclass(frozen=True, slots=True)
class Options:
    """What a chat client may set for its answer; `model` is the name that it asked for."""

    history: tuple[Turn, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    model: str | None = None


class Answering:
    """Holds the handles of the stages behind the ingress."""

    def __init__(
        self,
        retrieval: DeploymentHandle[Any],
        generation: DeploymentHandle[Any],
        metrics: Metrics,
        context_chunks: int = MIN_ANSWER_PASSAGES,
        sources: SourceNames | None = None,
    ) -> None:
        self._retrieval = retrieval
        self._generation = generation
        self._metrics = metrics
        self._context_chunks = context_chunks
        self._sources = sources or SourceNames(dict)

    async def retrieve(self, guarded: GuardedRequest, body: QueryRequest, top_k: int) -> Retrieved:
        """Find passages within the caller's rights; what is found counts as shown."""
        question = await guarded.question(body.question, body.purpose)
        search = Search(
            question=question,
            top_k=top_k,
            mode=body.mode,
            document_ids=tuple(body.filters.document_ids) if body.filters and body.filters.document_ids else None,
            keep=not guarded.read_only,
        )
        found: Retrieved = await idempotent(lambda: self._retrieval.search.remote(guarded.principal, search))
        hits = await self._screened(guarded, found.hits)
        for rule, chunk_ids in found.withheld.items():
            guarded.withhold(chunk_ids, rule)
        return replace(found, hits=hits)

    async def _screened(self, guarded: GuardedRequest, found: Sequence[Hit]) -> tuple[Hit, ...]:
        """Give the passages as this caller may see them, without those that a rule holds back."""
        hits = list(found)
        if hits and guarded.asks_for_passages:
            sources = await asyncio.to_thread(self._sources.of, [hit.source_id for hit in hits])
            passages = {hit.chunk_id: _passage(hit, sources[hit.source_id]) for hit in hits}
            shown = await guarded.passages(passages)
            hits = [_shown(hit, shown[hit.chunk_id]) for hit in hits if shown[hit.chunk_id].withheld is None]
        return tuple([replace(hit, text=await guarded.context(hit.text)) for hit in hits])

    async def answer(
        self, guarded: GuardedRequest, body: QueryRequest, options: Options
    ) -> AsyncIterator[Text | QueryResponse]:
        """Stream checked text, then the whole answer.

        A model's words leave while the caller may read all that the model read; a citation, while they may read that.
        """
        started = time.perf_counter()
        passages = max(body.top_k, MIN_ANSWER_PASSAGES)
        found = await self.retrieve(guarded, body, 2 * passages)  # so that one source need not fill the context
        hits = balanced(found.hits, passages, self._context_chunks)
        found = replace(found, hits=hits)
        timings = dict(found.timings_ms)
        task = _task(guarded, body.question, found, options)
        checker = guarded.citing([_evidence(hit) for hit in hits])
        pieces: list[str] = []
        written: Written | None = None
        with self._metrics.stage("generation", timings):
            async with aclosing(self._write(guarded, task, checker)) as events:
                async for event in events:
                    if isinstance(event, Text):
                        pieces.append(event.text)
                        yield event
                    else:
                        written = event
        assert written is not None, "an answer's stream ends in Written"
        rest = await guarded.output(checker.quoting(written.answer) if written.answer else checker.finish())
        citations = await self._citations(guarded, written, checker, hits)
        if citations is None:  # a right went while the answer was written: nothing of it may leave
            rest, written, citations, pieces = UNKNOWN, replace(written, abstained=True), [], []
        elif written.abstained and not pieces:
            rest = rest if rest.strip() else UNKNOWN
        if rest:
            pieces.append(rest)
            yield Text(rest)
        timings["total"] = round((time.perf_counter() - started) * 1e3, 2)
        degraded = [*found.degraded, *written.degraded]
        for stage in written.degraded:
            self._metrics.degraded(stage)
        noted: dict[str, int | str | list[str]] = {"citations": len(citations), "generator": written.generator}
        guarded.note(
            noted | ({"degraded": degraded} if degraded else {}), outcome="abstained" if written.abstained else None
        )
        yield QueryResponse(
            request_id=guarded.request_id,
            answer="".join(pieces).strip(),
            abstained=written.abstained,
            citations=[] if written.abstained else citations,
            degraded=degraded,
            generator=written.generator,
            timings_ms=timings,
            as_of=as_of(hits),
        )

    async def _write(
        self, guarded: GuardedRequest, task: Task, checker: Outgoing
    ) -> AsyncGenerator[Text | Written, None]:
        """Stream a model's checked text, then how it ended: at once, abstained, when a right to what it read went."""
        stream: Any = self._generation.options(stream=True).answer.remote(task)
        confirmed = -math.inf
        said, written = 0, None
        try:
            async for event in stream:
                if not isinstance(event, Delta):
                    written = event
                    yield event
                    continue
                said += len(event.text)
                checked = await guarded.output(checker.feed(_encodable(event.text)))
                if checked and time.monotonic() - confirmed >= CONFIRM_S:
                    confirmed = time.monotonic()
                    if not await self._may_read(guarded, task.passages):
                        stream.cancel()
                        yield Written(event.generator, abstained=True)
                        return
                if checked:
                    yield Text(checked)
        finally:  # also for who left before the end
            guarded.spent(_tokens(task, said, written))

    async def _may_read(self, guarded: GuardedRequest, hits: Sequence[Hit]) -> bool:
        allowed = await idempotent(lambda: self._retrieval.confirm.remote(guarded.principal, hits))
        return all(hit.chunk_id in allowed for hit in hits)

    async def _citations(
        self, guarded: GuardedRequest, written: Written, checker: Outgoing, hits: Sequence[Hit]
    ) -> list[CitationBody] | None:
        if written.quotes:
            begins = [hit.start for hit in hits]
            places = [(q.passage, begins[q.passage] + q.start, begins[q.passage] + q.end) for q in written.quotes]
        else:
            places = [(citation.evidence, citation.start, citation.end) for citation in checker.citations]
        used = [hits[passage] for passage in dict.fromkeys(place[0] for place in places)]
        if written.generator != EXTRACTIVE:
            used = list(hits)  # a model read them all, and may repeat one that it does not cite
        if used and not await self._may_read(guarded, used):
            guarded.withhold([hit.chunk_id for hit in used], GATE_AGAIN)
            return None
        guarded.shown(hit.chunk_id for hit in used)
        return [_citation(n, guarded, hits[passage], start, end) for n, (passage, start, end) in enumerate(places, 1)]


def _task(guarded: GuardedRequest, question: str, found: Retrieved, options: Options) -> Task:
    return Task(
        question=question,
        passages=found.hits,
        tenant=guarded.principal.tenant,
        history=options.history,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        request_id=guarded.request_id,
        model_id=found.model_id,
        keep=not guarded.read_only,
    )


def _tokens(task: Task, said: int, written: Written | None) -> int:
    """Give what an answer cost: as its model says, else by its characters; nothing where no model spoke."""
    if written is not None and written.tokens is not None:
        return written.tokens
    if not said:
        return 0
    read = [task.question, *(hit.text for hit in task.passages), *(turn.content for turn in task.history)]
    return math.ceil((sum(map(len, read)) + said) / CHARACTERS_PER_TOKEN)


def _encodable(text: str) -> str:
    """Replace lone surrogates, which a model's tokens can break into and no UTF-8 text can hold."""
    return text.encode("utf-8", "replace").decode()


def as_of(hits: Sequence[Hit]) -> str:
    """The moment that an answer from these passages holds for: when the source that was listed longest ago was.

    Now, where none of them follows a source. UTC, as ISO 8601.
    """
    moment = min((hit.as_of for hit in hits if hit.as_of is not None), default=time.time())
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _evidence(hit: Hit) -> Evidence:
    return Evidence(hit.chunk_id, hit.document_id, hit.text, hit.start, hit.end, hit.title, hit.uri)


def _passage(hit: Hit, source: str) -> Passage:
    return Passage(hit.document_id, source, hit.text, (hit.title, hit.uri, hit.external_id))


def _shown(hit: Hit, shown: Shown) -> Hit:
    title, uri, external_id = shown.fields
    return replace(hit, text=shown.text, title=title, uri=uri, external_id=external_id)


def _citation(n: int, guarded: GuardedRequest, hit: Hit, start: int, end: int) -> CitationBody:
    quote = hit.text[start - hit.start : end - hit.start]
    if not holds(quote, start, end, hit.text, hit.start):
        raise AssertionError(f"quote {n} does not hold")
    begins, ends = guarded.stored(hit.chunk_id, start - hit.start, end - hit.start)
    return CitationBody(
        n=n,
        document_id=hit.document_id,
        chunk_id=hit.chunk_id,
        external_id=hit.external_id,
        title=hit.title,
        uri=hit.uri,
        page=hit.page,
        quote=quote,
        start=hit.start + begins,
        end=hit.start + ends,
        score=hit.score,
    )


async def collect(stream: AsyncIterator[Any]) -> QueryResponse:
    """Run an answer to its end and give the whole."""
    async with aclosing(stream):  # type: ignore[type-var]
        async for event in stream:
            if isinstance(event, QueryResponse):
                return event
    raise AssertionError("an answer ends in its response")
