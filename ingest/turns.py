"""Whose turn it is: workers are handed out in the order in which they were asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Worker = TypeVar("Worker")


class Turns(Generic[Worker]):
    """A pool that serves first come, first served.

    Who gives a worker back and asks for one again stands at the end of the line: a long job that takes its work in
    slices lets every short one pass. A lock, or a queue, would hand the worker to whoever runs at that moment.
    """

    def __init__(self, workers: list[Worker]) -> None:
        self._idle = list(workers)
        self._line: deque[_Place[Worker]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[Worker]:
        """Wait for a worker, and give it back at the end."""
        worker = self._take()
        try:
            yield worker
        finally:
            self._give(worker)

    def _take(self) -> Worker:
        with self._lock:
            if self._idle and not self._line:
                return self._idle.pop()
            place: _Place[Worker] = _Place()
            self._line.append(place)
        return place.wait()

    def _give(self, worker: Worker) -> None:
        with self._lock:
            if self._line:
                self._line.popleft().hand(worker)
            else:
                self._idle.append(worker)


class _Place(Generic[Worker]):
    """A place in the line."""

    def __init__(self) -> None:
        self._called = threading.Event()
        self._worker: list[Worker] = []

    def wait(self) -> Worker:
        self._called.wait()
        return self._worker[0]

    def hand(self, worker: Worker) -> None:
        self._worker.append(worker)
        self._called.set()
