"""Message queues: follow one, and say where to look.

    next … next (50 ms) ──▶ one hint ──▶ acknowledge all ──▶ next …
    broker away, or the hint not kept ──▶ wait, longer each time ──▶ open anew ──▶ hint "list" ──▶ next …

What is not acknowledged comes again, so that nothing is lost where a process dies; after a gap the source is listed, so
that nothing is lost where the broker forgot. A message that is not understood asks for a listing (`ingest.events`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from index.settings import read_secret
from ingest.brokers import Broker, Message, open_broker
from ingest.events import ids_of, together
from ingest.source_settings import QueueSettings
from policies.errors import Unavailable

BATCH_S = 0.05
"""Messages that come within this time of the first make one hint."""
MAX_BATCH = 1_000
POLL_S = 1.0
SILENCE_S = 10.0
"""After so long without a message, the broker is asked whether it is there."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0

Hint = Callable[[Sequence[str]], Awaitable[None]]
log = logging.getLogger(__name__)


async def follow_queue(settings: QueueSettings, hint: Hint) -> None:
    """Hint what the messages of a queue name, until it is cancelled.

    `hint` gets ids to look at, an empty sequence for "list"; when it returns, the hint is kept. It may raise
    `Unavailable`: the messages come again then. Raises `ConfigurationError` where the address is missing or wrong, or
    the queue's library is not installed.
    """
    url = read_secret(None, settings.url_env) or ""
    failures = 0
    while True:
        _end_if_cancelled()
        try:
            async with open_broker(settings, url) as broker:
                if failures:
                    await hint(())
                    log.info("the %s queue %s is followed again", settings.kind, settings.subject)
                failures = 0
                await _follow(broker, hint)
        except Unavailable as error:
            log.warning("the %s queue %s is not followed: %s", settings.kind, settings.subject, error.detail)
            log.debug("what its client said", exc_info=error)
        failures += 1
        await asyncio.sleep(wait_s(failures))


def wait_s(failures: int) -> float:
    """Give how long to wait after so many failures in a row: doubled each time, and anywhere in the upper half."""
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


async def _follow(broker: Broker, hint: Hint) -> None:
    heard_at = time.monotonic()
    while True:
        _end_if_cancelled()
        asked_at = time.monotonic()
        first = await broker.next(POLL_S)
        if first is not None:
            batch = await _with_more(first, broker)
            await hint(together(ids_of(message.body, message.headers) for message in batch))
            await broker.acknowledge(batch)
            heard_at = time.monotonic()
            continue
        if time.monotonic() - heard_at >= SILENCE_S:
            if not await broker.answers():
                raise Unavailable("the broker does not answer")
            heard_at = time.monotonic()
        await asyncio.sleep(asked_at + POLL_S - time.monotonic())  # where the client would not wait for so long


def _end_if_cancelled() -> None:
    """Clients turn a cancellation that comes while they close into an error of their own, and it would be forgotten."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _with_more(first: Message, broker: Broker) -> list[Message]:
    batch, until = [first], time.monotonic() + BATCH_S
    while len(batch) < MAX_BATCH and (left_s := until - time.monotonic()) > 0:
        message = await broker.next(left_s)
        if message is None:
            break
        batch.append(message)
    return batch
