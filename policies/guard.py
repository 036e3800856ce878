"""The one order of checks, for every authenticated request.

    authenticate -> authorise -> limit -> [audit: intent] -> screen the question -> retrieve within rights
        -> screen the context -> generate -> screen the output -> cite-check -> [audit: outcome]

Every check fails closed: a filter that breaks refuses, and a record that cannot be written stops the request.

    caller = await guard.authenticate(token)             # once for each request
    async with guard.request(caller, "rag:query", "query", request_id) as request:
        question = await request.question(text)
        hits = ...                                       # retrieved for request.principal
        request.shown([hit.chunk_id for hit in hits], withheld)
        ...
    # here, not before, the answer may leave: its outcome is on the record
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from policies.audit_chain import AuditIntent, AuditOutcome, Detail
from policies.citations import CheckedAnswer, Evidence, check
from policies.errors import ContentBlocked, Forbidden, NotFound, Overloaded, RayragError, Unavailable
from policies.links import Links, without_links
from policies.outgoing import Outgoing
from policies.principals import Principal

AT_THE_DOOR = 16
"""Tokens that are looked at side by side, for each replica."""

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
    _tokens: int = 0
    _detail: dict[str, str | int | bool | Sequence[str] | None] = field(default_factory=dict)
    _outcome: str = "ok"

    @property
    def read_only(self) -> bool:
        """Whether the caller may only ask in the mode that leaves no trace in history or caches."""
        return self.permission.endswith(":readonly")

    async def question(self, text: str) -> str:
        """Screen the question. Raises `ContentBlocked`, or `Unavailable` when a filter breaks."""
        self._go(_Step.QUESTION)
        return await self._screened(text, self._screens.question)

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
        return Outgoing(evidence, self._links(evidence))

    def _links(self, evidence: Sequence[Evidence]) -> Links:
        return Links.to(self._screens.links.hosts, (item.uri for item in evidence))

    def shown(self, chunk_ids: Iterable[str], withheld: int = 0) -> None:
        """Note what this request shows, and how many more passages it held back. Call it before they leave."""
        self._shown.update(dict.fromkeys(chunk_ids))
        self._withheld += withheld

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
        one is enough. The work runs in the body, a stream's to its last event. Whatever the body raises goes on,
        cancellation included. Raises `Forbidden`, `Overloaded`, and `Unavailable` where the record cannot be written:
        then no answer may leave.
        """
        asked = (permission,) if isinstance(permission, str) else tuple(permission)
        request = GuardedRequest(caller, "", action, request_id, self._screens)
        request.note(detail or {})
        try:
            request.permission = self._roles.require_any(caller, asked)
            if self._limits:
                await asyncio.to_thread(self._count, caller, action)
        except RayragError as error:
            await self._record_outcome(request, error)
            raise
        await self._record_intent(request)
        try:
            yield request
        except BaseException as error:
            await self._record_outcome(request, error)
            raise
        await self._record_outcome(request, None)

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
