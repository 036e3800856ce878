"""Processes that answer requests are killed at any moment: what was answered is on the record, whole, once.

`RAYRAG_AUDIT_REQUESTS=10000` asks so many; the default is what fits beside the other tests.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import policies
from policies.audit import AuditLog

REQUESTS = int(os.environ.get("RAYRAG_AUDIT_REQUESTS", "400"))
WRITERS = 3
LIVES_S = (0.1, 0.6)
"""How long a process works before it is killed."""
ANSWERING = """
import asyncio, os, sys
from policies.audit import AuditLog
from policies.guard import Guard
from policies.principals import Principal

url, name, history = sys.argv[1:]
ADA = Principal("ada", "acme", frozenset({"user"}))

class Everybody:
    def verify(self, token): return ADA
    def require_any(self, who, permissions): return permissions[0]

async def main():
    told = os.open(history, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    guard = Guard(Everybody(), Everybody(), AuditLog(url), "v1")
    print("ready", flush=True)
    async def ask(number):
        request_id = f"{name}-{number}"
        async with guard.request(ADA, "rag:query", "query", request_id) as request:
            os.write(told, f"began {request_id}\\n".encode())
            await asyncio.sleep(0)
            request.shown([f"c{number}"])
        os.write(told, f"answered {request_id}\\n".encode())
    async def one_after_the_other(first):
        for number in range(first, 1_000_000, 4):
            await ask(number)
    await asyncio.gather(*(one_after_the_other(first) for first in range(4)))

asyncio.run(main())
"""


@dataclass
class Writer:
    process: subprocess.Popen[str]
    ends_at: float


def started(url: str, name: str, history: Path) -> subprocess.Popen[str]:
    root = Path(policies.__file__).parent.parent
    command = [sys.executable, "-c", ANSWERING, url, name, str(history)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def killed_until(url: str, history: Path, requests: int, chance: random.Random) -> int:
    """Run processes, kill each after a random time, until so many requests were answered. Gives the number killed."""
    writers: list[Writer] = []
    count = 0
    while answered(history) < requests or writers:
        enough = answered(history) >= requests
        for writer in list(writers):
            if time.monotonic() >= writer.ends_at or enough:
                writer.process.kill()
                writer.process.wait(30)
                assert writer.process.stdout is not None
                writer.process.stdout.close()
                writers.remove(writer)
                count += 1
        while len(writers) < WRITERS and not enough:
            process = started(url, f"p{count}-{len(writers)}-{time.monotonic_ns()}", history)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            writers.append(Writer(process, time.monotonic() + chance.uniform(*LIVES_S)))
        time.sleep(0.005)
    return count


def answered(history: Path) -> int:
    return history.read_text().count("answered") if history.exists() else 0


def test_what_was_answered_is_on_the_record_whichever_process_is_killed(database_url: str, tmp_path: Path) -> None:
    history = tmp_path / "history"
    kills = killed_until(database_url, history, REQUESTS, random.Random(3))

    lines = history.read_text().splitlines()
    began = [line.split()[1] for line in lines if line.startswith("began")]
    done = [line.split()[1] for line in lines if line.startswith("answered")]
    log = AuditLog(database_url)
    verdict, found = log.verify(), log.records(limit=10_000_000)
    log.close()
    intents = Counter(record.request_id for record in found if record.kind == "intent")
    outcomes = Counter(record.request_id for record in found if record.kind == "outcome" and record.outcome == "ok")

    assert verdict.ok and verdict.count == len(found) == sum(intents.values()) + sum(outcomes.values())
    assert kills >= 3 and len(done) >= REQUESTS
    assert set(intents.values()) == {1} and set(outcomes.values()) == {1}, "no line twice"
    assert set(began) <= intents.keys(), "nothing was done that was not announced"
    assert set(done) <= outcomes.keys() <= intents.keys(), "nothing was answered without both of its lines"
    unanswered = intents.keys() - set(done)
    assert len(unanswered) <= kills * 4, "lines without an answer are those that a kill caught in between"
    before = {record.request_id: record.sequence for record in found if record.kind == "intent"}
    assert all(before[record.request_id] < record.sequence for record in found if record.kind == "outcome")
