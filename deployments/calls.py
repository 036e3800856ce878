"""Calls from one deployment to another: what is idempotent is tried once more when its replica died."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ray.exceptions import ActorUnavailableError, RayActorError

T = TypeVar("T")
REPLICA_LOST = (RayActorError, ActorUnavailableError)


async def idempotent(call: Callable[[], Awaitable[T]]) -> T:
    """Await `call()`, and once more if the replica died with it: Serve does not replay a call that was accepted."""
    try:
        return await call()
    except REPLICA_LOST:
        return await call()
