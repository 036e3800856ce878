"""Threads for what waits for directories and programs: a slow one holds up who signs in, and no question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from policies.errors import Overloaded

T = TypeVar("T")
P = ParamSpec("P")


class DirectoryThreads:
    """A few threads; who comes when `waiting` are under way is told to come again."""

    def __init__(self, threads: int = 8, waiting: int = 64) -> None:
        self._pool = ThreadPoolExecutor(threads, "sign-in")
        self._room = waiting

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` in one of them. Raises `Overloaded`, and what the work raises."""
        if self._room == 0:
            raise Overloaded("too many people sign in at once", 2)
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))
        finally:
            self._room += 1
