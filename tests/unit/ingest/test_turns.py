"""Turns: who asked first is served first."""

from __future__ import annotations

import threading
import time

from ingest.turns import Turns


def test_one_who_gives_back_and_asks_again_stands_behind_those_who_wait():
    turns, order = Turns([object()]), []
    started, small_waits = threading.Event(), threading.Event()

    def big():
        for slice_number in range(3):
            with turns.turn():
                order.append(f"big {slice_number}")
                started.set()
                small_waits.wait(5)

    def small():
        started.wait(5)
        threading.Timer(0.2, small_waits.set).start()
        with turns.turn():
            order.append("small")

    threads = [threading.Thread(target=job) for job in (big, small)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert order == ["big 0", "small", "big 1", "big 2"]


def test_no_worker_is_with_two_at_once_and_none_is_lost():
    workers = [[0], [0]]
    turns, together = Turns(workers), []

    def job():
        for _ in range(50):
            with turns.turn() as worker:
                worker[0] += 1
                together.append(worker[0])
                time.sleep(0.0001)
                worker[0] -= 1

    threads = [threading.Thread(target=job) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert together == [1] * 400 and len(turns._idle) == 2


def test_a_worker_comes_back_from_work_that_failed():
    turns = Turns([object()])
    for _ in range(2):
        try:
            with turns.turn():
                raise ValueError
        except ValueError:
            pass
    with turns.turn():
        pass
