"""People's requests, where the index is written: they are taken, worked on in the background, and told of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from index.document import Vectors
from index.policy_versions import policy_version
from index.privacy_requests import PrivacyRequest, PrivacyRequests
from index.settings import AppArgs
from ingest.privacy_work import Asked, PrivacyWork
from ingest.stages import Embed
from policies.audit import AuditLog
from policies.audit_signing import signing_key
from policies.errors import RayragError

EMBEDDING_TIMEOUT_S = 600.0
log = logging.getLogger("ray.serve")
Passages = Callable[[Sequence[str]], Awaitable[tuple[list[Vectors], list[bool]]]]


class PrivacyDesk:
    """Built at the first request: until then there is nothing to connect to. Raises as `PrivacyWork`."""

    def __init__(self, args: AppArgs, passages: Passages) -> None:
        self._args = args
        self._passages = passages
        self._requests = PrivacyRequests(args.store.ledger)
        self._building = asyncio.Lock()
        self._work: PrivacyWork | None = None
        self._running: asyncio.Task[None] | None = None
        self._again = False

    async def open(self, tenant: str, by: str, asked: Asked) -> PrivacyRequest:
        """Take a request; work on it begins at once."""
        work = await self._built()
        request = await asyncio.to_thread(work.open, tenant, by, asked)
        self.look()
        return request

    async def get(self, tenant: str, request_id: str) -> PrivacyRequest:
        """Give a tenant's request. Raises `NotFound`, also for another tenant's."""
        return await asyncio.to_thread(self._requests.get, tenant, request_id)

    async def export(self, tenant: str, request_id: str) -> bytes | None:
        """Give the zip of an access or a portability request; None where there is none, or no longer."""
        work = await self._built()
        return await asyncio.to_thread(work.export, tenant, request_id)

    def look(self) -> None:
        """Work on what waits, in the background; whoever works already looks once more."""
        self._again = True
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    async def settled(self) -> None:
        """Wait until nothing is worked on."""
        while self._running is not None and not self._running.done():
            await asyncio.wait((self._running,))

    async def _run(self) -> None:
        while self._again:
            self._again = False
            try:
                await asyncio.to_thread((await self._built()).run_due)
            except RayragError as error:  # it is looked at again with the next check of this replica's health
                log.warning("people's requests wait: %s", error.detail)

    async def _built(self) -> PrivacyWork:
        async with self._building:
            if self._work is None:
                self._work = await asyncio.to_thread(self._build, asyncio.get_running_loop())
            return self._work

    def _build(self, loop: asyncio.AbstractEventLoop) -> PrivacyWork:
        def embed(texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
            # The work is done in a thread; the embedding deployment is asked from the loop that knows it.
            asked = asyncio.run_coroutine_threadsafe(_awaited(self._passages, texts), loop)
            return asked.result(EMBEDDING_TIMEOUT_S)

        return privacy_work(self._args, embed)


def privacy_work(args: AppArgs, embed: Embed) -> PrivacyWork:
    """Build what works on people's requests, with the audit record that it writes on."""
    audit = AuditLog(args.store.audit)
    key = partial(signing_key, Path(args.store.audit_key_file))
    return PrivacyWork(args, embed, audit, policy_version(args), audit.records, key)


async def _awaited(passages: Passages, texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
    return await passages(texts)
