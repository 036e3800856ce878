"""The one order of checks, for every authenticated request.

    authenticate -> authorise -> limit -> [audit: intent] -> screen the question -> retrieve within rights
        -> screen the context -> generate -> screen the output -> cite-check -> [audit: outcome]

Every check fails closed: a filter that breaks refuses, and a record that cannot be written stops the request.

    caller = await guard.authenticate(token)             # once for each request
    async with guard.request(caller, "rag:query", "query", request_id) as request:
        question = await request.question(text)
        hits = ...                                       # retrieved for request.principal
        request.shown([hit.chunk_id for hit in hits])
        request.withhold([chunk_id, ...], "label")
        ...
    # here, not before, the answer may leave: its outcome is on the record
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from cachetools import TTLCache

from policies.audit_chain import AuditIntent, AuditOutcome, Detail
from policies.citations import CheckedAnswer, Evidence, check
from policies.compliance.actions import Offsets
from policies.compliance.screening import Passage, PersonalData, Screening, Shown
from policies.compliance.streaming import Window
from policies.errors import ContentBlocked, Forbidden, NotFound, Overloaded, RayragError, Unavailable
from policies.links import Links, without_links
from policies.outgoing import Outgoing, Redaction
from policies.principals import Principal

AT_THE_DOOR = 16
"""Tokens that are looked at side by side, for each replica."""
KNOWN: tuple[str, ...] = ()
"""The permission of what everybody may do who is known."""
MAX_WITHHELD_IDS = 50
"""So many chunks that were held back are named on the record, for each rule; all of them are counted."""
LIMITED_S = 60.0
"""Of what one person is refused for being too much, one line in this time is on the record; the rest is counted."""
_MAX_LIMITED = 10_000

_T = TypeVar("_T")


class Verifier(Protocol):
    """Says who calls."""

    def verify(self, token: str) -> Principal:
        """Raise `Unauthenticated` or `Unavailable`."""
        ...


class Permissions(Protocol):
    """Says what callers may do."""

    def require_any(self, principal: Principal, permissions: Sequence[str]) -> str:
        """Give the first that is held. Raise `Forbidden` where none is."""
        ...


class Recorder(Protocol):
    """Keeps the record. Both return once it is durable, and raise `Unavailable` where it is not."""

    def intent(self, intent: AuditIntent) -> int:
        """Record what is about to happen."""
        ...

    def outcome(self, outcome: AuditOutcome) -> int:
        """Record what came of it."""
        ...


Screen = Callable[[str, Principal], str]
"""A filter over text: gives it back, changed or not, or raises `ContentBlocked`."""
Limit = Callable[[Principal, str], None]
"""Takes the caller and the action; raises `Overloaded` when it is too much. Runs in a thread of its own."""
Charge = Callable[[Principal, int], None]
"""Takes the caller and the tokens of a model that their request cost, once that is known."""


@dataclass(frozen=True, slots=True)
class Screens:
    """The filters of each kind, in the order in which they run."""

    question: tuple[Screen, ...] = ()
    context: tuple[Screen, ...] = ()
    output: tuple[Screen, ...] = ()
    personal: PersonalData | None = None
    """What is done with personal data, from the question to the answer; without it nothing is."""
    links: Links = field(default_factory=Links)
    """Where links of an answer may lead, beside its own sources."""


class _Step(IntEnum):
    AUTHORISED = 0
    QUESTION = 1
    CONTEXT = 2
    OUTPUT = 3
    CITED = 4


@dataclass(slots=True)
class GuardedRequest:
    """A request that has passed the door. Its steps go forward only; `RuntimeError` for one that goes back."""

    principal: Principal
    permission: str
    """Which of the permissions asked for the caller holds."""
    action: str
    request_id: str
    _screens: Screens
    _step: _Step = _Step.AUTHORISED
    _shown: dict[str, None] = field(default_factory=dict)
    _withheld: int = 0
    _withheld_by: dict[str, list[str]] = field(default_factory=dict)
    _withheld_counts: dict[str, int] = field(default_factory=dict)
    _tokens: int = 0
    _detail: dict[str, str | int | bool | Sequence[str] | Mapping[str, int] | None] = field(default_factory=dict)
    _outcome: str = "ok"
    _screening: Screening | None = None
    _offsets: dict[str, Offsets] = field(default_factory=dict)

    @property
    def read_only(self) -> bool:
        """Whether the caller may only ask in the mode that leaves no trace in history or caches."""
        return self.permission.endswith(":readonly")

    async def question(self, text: str, purpose: str | None = None) -> str:
        """Screen the question, and why it is asked. Raises `ContentBlocked`, or `Unavailable` when a filter breaks."""
        self._go(_Step.QUESTION)
        personal = self._screens.personal
        if personal is not None:
            self._screening = await asyncio.to_thread(_checked, personal.begin, self.principal, purpose)
        return await self._screened(text, self._screens.question)

    @property
    def asks_for_passages(self) -> bool:
        """Whether anything is done to personal data here: `passages` then needs to know where they come from."""
        return self._screening is not None and not self._screening.asks_nothing

    async def passages(self, found: Mapping[str, Passage]) -> dict[str, Shown]:
        """Screen passages, best first, by chunk id, for this caller and purpose. Raises as `question` does.

        What a rule holds back is among them, empty, and on the record; `stored` then knows how places moved.
        """
        self._go(_Step.CONTEXT)
        screening = self._screening
        if screening is None:
            raise RuntimeError("the question was not screened")
        screened = await asyncio.to_thread(_checked, screening.passages, list(found.values()))
        shown = dict(zip(found, screened, strict=True))
        for chunk_id, each in shown.items():
            if each.withheld is not None:
                self.withhold([chunk_id], f"{each.withheld.regime}/{each.withheld.rule}")
            elif each.edits:
                self._offsets[chunk_id] = each.offsets
        return shown

    async def names(self, found: Sequence[Passage]) -> list[Shown]:
        """Screen what lists documents, and answers no question. Raises as `question` does."""
        personal = self._screens.personal
        if personal is None:
            return [Shown(each.text, each.fields) for each in found]
        self._screening = await asyncio.to_thread(_checked, personal.naming, self.principal)
        return await asyncio.to_thread(_checked, self._screening.passages, list(found), False)

    def stored(self, chunk_id: str, start: int, end: int) -> tuple[int, int]:
        """Give where a part of a passage as it was screened stands in the passage as it is stored."""
        moved = self._offsets.get(chunk_id)
        return (start, end) if moved is None else (moved.before(start), moved.before(end, ends=True))

    async def context(self, text: str) -> str:
        """Screen one passage before a model reads it. Raises as `question` does."""
        self._go(_Step.CONTEXT)
        return await self._screened(text, self._screens.context)

    async def output(self, text: str) -> str:
        """Screen what is about to leave. Raises as `question` does."""
        self._go(_Step.OUTPUT)
        return await self._screened(text, self._screens.output)

    def cite(self, answer: str, evidence: Sequence[Evidence]) -> CheckedAnswer:
        """Take out every mark that does not hold; what is cited counts as shown."""
        self._go(_Step.CITED)
        checked = check(answer, evidence)
        self.shown(citation.chunk_id for citation in checked.citations)
        return replace(checked, answer=without_links(checked.answer, self._links(evidence)))

    def citing(self, evidence: Sequence[Evidence]) -> Outgoing:
        """`cite`, for an answer that is streamed. All of the evidence counts as shown."""
        self.shown(item.chunk_id for item in evidence)
        return Outgoing(evidence, self._links(evidence), self._redact())

    def _redact(self) -> Callable[[], Redaction] | None:
        screening = self._screening
        if screening is None or not _checked(screening.redacts):
            return None
        return lambda: _Failing(_checked(screening.window))

    def _links(self, evidence: Sequence[Evidence]) -> Links:
        return Links.to(self._screens.links.hosts, (item.uri for item in evidence))

    def shown(self, chunk_ids: Iterable[str], withheld: int = 0) -> None:
        """Note what this request shows, and how many more passages it held back. Call it before they leave."""
        self._shown.update(dict.fromkeys(chunk_ids))
        self._withheld += withheld

    def withhold(self, chunk_ids: Sequence[str], rule: str) -> None:
        """Note passages that were found and held back, and the rule that did it, by a name of ours."""
        if not chunk_ids:
            return
        self._withheld += len(chunk_ids)
        self._withheld_counts[rule] = self._withheld_counts.get(rule, 0) + len(chunk_ids)
        named = self._withheld_by.setdefault(rule, [])
        named.extend(chunk_ids[: MAX_WITHHELD_IDS - len(named)])

    def spent(self, tokens: int) -> None:
        """Note what a model used for this request; it is charged and recorded however the request ends."""
        if tokens:
            self._tokens += tokens
            self._detail["tokens"] = self._tokens

    def note(self, detail: Detail, outcome: str | None = None) -> None:
        """Add to the record's detail; name another outcome than `ok`, such as `abstained` or `degraded`."""
        self._detail.update(detail)
        self._outcome = outcome or self._outcome

    def _go(self, step: _Step) -> None:
        if step < self._step:
            raise RuntimeError(f"{step.name} comes before {self._step.name}")
        self._step = step

    async def _screened(self, text: str, screens: Sequence[Screen]) -> str:
        if not screens:
            return text
        return await asyncio.to_thread(_screen, text, self.principal, screens)


def _checked(work: Callable[..., _T], *args: Any) -> _T:
    """Run a check; what breaks in it refuses."""
    try:
        return work(*args)
    except RayragError:
        raise
    except Exception as error:
        raise Unavailable("A content check is unavailable.") from error


class _Failing:
    """A window whose failures refuse."""

    def __init__(self, window: Window) -> None:
        self._window = window

    @property
    def before_word(self) -> bool:
        return self._window.before_word

    def feed(self, piece: str) -> str:
        return _checked(self._window.feed, piece)

    def finish(self) -> str:
        return _checked(self._window.finish)


def _screen(text: str, principal: Principal, screens: Sequence[Screen]) -> str:
    for screen in screens:
        try:
            text = screen(text, principal)
        except RayragError:
            raise
        except Exception as error:
            raise Unavailable("A content check is unavailable.") from error
        if not isinstance(text, str):
            raise Unavailable("A content check is unavailable.")
    return text


class Guard:
    """Holds who verifies, permits, limits, screens and records, and runs them in the one order."""

    def __init__(
        self,
        verifier: Verifier,
        roles: Permissions,
        audit: Recorder,
        policy_version: str,
        screens: Screens | None = None,
        limits: Sequence[Limit] = (),
        charges: Sequence[Charge] = (),
    ) -> None:
        self._verifier = verifier
        self._roles = roles
        self._audit = audit
        self._policy_version = policy_version
        self._screens = screens or Screens()
        self._limits = tuple(limits)
        self._charges = tuple(charges)
        self._limited: TTLCache[tuple[str, str, str], bool] = TTLCache(_MAX_LIMITED, LIMITED_S)
        # Of its own: a slow identity provider must not take the threads in which records are written.
        self._door = ThreadPoolExecutor(AT_THE_DOOR, "authenticate")

    async def authenticate(self, token: str) -> Principal:
        """Say who calls. Raises `Unauthenticated`, or `Unavailable` where that cannot be known now."""
        return await asyncio.get_running_loop().run_in_executor(self._door, self._verifier.verify, token)

    @asynccontextmanager
    async def request(
        self,
        caller: Principal,
        permission: str | Sequence[str],
        action: str,
        request_id: str,
        detail: Detail | None = None,
    ) -> AsyncIterator[GuardedRequest]:
        """Let a request in, and put it on the record whatever becomes of it.

        `caller`: whom `authenticate` named, never a principal from elsewhere. `permission`: one, or several of which
        one is enough, or `KNOWN`. The work runs in the body, a stream's to its last event. Whatever the body raises
        goes on, cancellation included. Raises `Forbidden`, `Overloaded`, and `Unavailable` where the record cannot be
        written: then no answer may leave.
        """
        asked = (permission,) if isinstance(permission, str) else tuple(permission)
        request = GuardedRequest(caller, "", action, request_id, self._screens)
        request.note(detail or {})
        try:
            await self._at_the_door(request, asked)
        except RayragError as error:
            await self._record_refusal(request, error)
            raise
        await self._record_intent(request)
        try:
            yield request
        except BaseException as error:
            await self._record_outcome(request, error)
            raise
        await self._record_outcome(request, None)

    async def _at_the_door(self, request: GuardedRequest, asked: Sequence[str]) -> None:
        if asked:
            request.permission = self._roles.require_any(request.principal, asked)
        if self._limits:
            await asyncio.to_thread(self._count, request.principal, request.action)

    async def _record_refusal(self, request: GuardedRequest, error: RayragError) -> None:
        """Record what was refused at the door; of what is too much only the first, or who asks could fill the record.

        What may not be done at all counts against the limits like what may.
        """
        if isinstance(error, Forbidden) and self._limits:
            try:
                await asyncio.to_thread(self._count, request.principal, request.action)
            except Overloaded:
                if self._again(request):
                    return
        elif isinstance(error, Overloaded) and self._again(request):
            return
        await self._record_outcome(request, error)

    def _again(self, request: GuardedRequest) -> bool:
        who = request.principal
        known = (who.tenant, who.subject, request.action) in self._limited
        self._limited[who.tenant, who.subject, request.action] = True
        return known

    def _count(self, caller: Principal, action: str) -> None:
        for limit in self._limits:
            limit(caller, action)

    def _settle(self, request: GuardedRequest, outcome: AuditOutcome) -> None:
        if request._tokens:
            for charge in self._charges:
                charge(request.principal, request._tokens)
        self._audit.outcome(outcome)

    async def _record_intent(self, request: GuardedRequest) -> None:
        who = request.principal
        intent = AuditIntent(
            request_id=request.request_id,
            actor=who.subject,
            tenant=who.tenant,
            action=request.action,
            policy_version=self._policy_version,
            detail={"permission": request.permission, **request._detail},
        )
        try:
            await _finished(asyncio.to_thread(self._audit.intent, intent))
        except asyncio.CancelledError as error:
            # The intent is written; a caller that left before the work began must have an outcome, too.
            await self._record_outcome(request, error)
            raise

    async def _record_outcome(self, request: GuardedRequest, error: BaseException | None) -> None:
        who = request.principal
        detail = dict(request._detail)
        if request._screening is not None:
            detail |= request._screening.detail()
        if request._withheld_by:
            detail["withheld"] = dict(request._withheld_counts)
            detail |= {f"withheld:{rule}": tuple(named) for rule, named in request._withheld_by.items()}
        if error is not None:
            detail["error"] = type(error).__name__
        outcome = AuditOutcome(
            request_id=request.request_id,
            actor=who.subject,
            tenant=who.tenant,
            action=request.action,
            policy_version=self._policy_version,
            outcome=request._outcome if error is None else outcome_of(error),
            chunks_shown=tuple(request._shown),
            chunks_withheld=request._withheld,
            detail=detail,
        )
        try:
            await _finished(asyncio.to_thread(self._settle, request, outcome))
        except Unavailable as failure:
            if error is None or isinstance(error, RayragError):
                raise
            # Cancellation and faults go on as what they are; the intent without an outcome stays on the record.
            error.add_note(f"The audit outcome could not be written: {failure}")
            return
        if isinstance(error, RayragError):
            error.recorded = True


def outcome_of(error: BaseException) -> str:
    """Name a failure as the record does: denied, blocked, limited, not_found, refused, cancelled or failed."""
    named: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
        ((asyncio.CancelledError, GeneratorExit), "cancelled"),
        (Forbidden, "denied"),
        (ContentBlocked, "blocked"),
        (Overloaded, "limited"),
        (NotFound, "not_found"),
        (Unavailable, "failed"),
        (RayragError, "refused"),
    )
    return next((name for kind, name in named if isinstance(error, kind)), "failed")


async def _finished(work: Coroutine[Any, Any, _T]) -> _T:
    """Wait for a write to the end, even when the request is cancelled meanwhile, also again and again.

    A cancellation that arrives while it waits is raised afterwards.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            cancelled.add_note(f"The audit record could not be written: {failure}")
        raise cancelled
    return task.result()
