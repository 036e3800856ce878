"""What a request costs before and beside its work: who calls, what they may do and see, and the record of it.

In this process, on a ledger, an audit record and keys of its own: token to caller (signature, revocations, nested
groups, clearance), permission, the rules that the caller sees (warm), and the two lines of the record.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.context import Figure
from deployments.identity import credentials, development_issuer
from index.ledger import Ledger
from index.settings import AppArgs, parse
from policies.audit import AuditLog
from policies.groups import Membership
from policies.guard import Guard
from policies.principals import Principal
from policies.roles import Roles

GROUPS = 20
NESTED = 200
TARGET_MS = 5.0
WARM = 50
"""Requests before the first that counts."""


@dataclass(slots=True)
class _Times:
    """Seconds by step."""

    taken: dict[str, list[float]] = field(default_factory=dict)
    processor_s: float = 0.0
    """Of all threads together: what other work on the machine changes least."""

    def add(self, step: str, began: float) -> float:
        now = time.perf_counter()
        self.taken.setdefault(step, []).append(now - began)
        return now


def run(requests: int) -> list[Figure]:
    """Measure, one request after another."""
    with tempfile.TemporaryDirectory() as home:
        args = _settings(Path(home))
        ledger = Ledger(args.store.ledger)
        ledger.groups.replace("acme", "bench", [Membership.of("group:g0", f"n{n}") for n in range(NESTED)])
        audit = AuditLog(args.store.audit)
        times = _Times()
        try:
            asyncio.run(_measure(requests, args, ledger, audit, times))
        finally:
            audit.close()
            ledger.close()
    figures = [_figure(name, taken) for name, taken in times.taken.items()]
    per_request = times.processor_s / requests * 1e3
    return [*figures, Figure("ingress", "processor time", f"{per_request:.2f} ms a request", requests)]


async def _measure(requests: int, args: AppArgs, ledger: Ledger, audit: AuditLog, times: _Times) -> None:
    issuer = development_issuer(args.identity)
    roles = Roles.load(args.identity.roles)
    guard = Guard(credentials(args.identity, ledger, roles).identity, roles, audit, "bench")
    groups = [f"g{number}" for number in range(GROUPS)]
    token = issuer.sign("ada", "acme", ["user"], groups)
    for number in range(WARM):
        await _one(guard, ledger, token, number, _Times())
    began = time.process_time()
    for number in range(requests):
        await _one(guard, ledger, token, WARM + number, times)
    times.processor_s = time.process_time() - began


async def _one(guard: Guard, ledger: Ledger, token: str, number: int, times: _Times) -> None:
    began = at = time.perf_counter()
    caller = await guard.authenticate(token)
    at = times.add("identity", at)
    async with guard.request(caller, "rag:query", "query", f"r{number}", {"question_hash": "0" * 64}) as request:
        at = times.add("permission and intent", at)
        await asyncio.to_thread(_rules(ledger), request.principal)
        at = times.add("rules (warm)", at)
        request.shown(["c" * 32] * 8)
        at = time.perf_counter()
    times.add("outcome", at)
    times.add("all of it", began)


def _rules(ledger: Ledger) -> Callable[[Principal], object]:
    return ledger.visible_rules


def _settings(home: Path) -> AppArgs:
    issuer = {
        "issuer": "bench",
        "audience": "rayrag",
        "algorithms": ["EdDSA"],
        "key_file": "${data_dir}/secrets/issuer.pem",
        "development": True,
    }
    return parse({"data_dir": str(home), "identity": {"issuers": [issuer]}})


def _figure(name: str, taken: list[float]) -> Figure:
    ordered = sorted(taken)
    p50, p95 = statistics.median(ordered) * 1e3, ordered[math.ceil(0.95 * len(ordered)) - 1] * 1e3
    whole = name == "all of it"
    value = f"p50 {p50:.2f} ms, p95 {p95:.2f} ms"
    return Figure(
        "ingress",
        name,
        value,
        len(ordered),
        f"p50 <= {TARGET_MS} ms" if whole else "",
        p50 <= TARGET_MS if whole else None,
    )
