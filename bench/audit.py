"""What the audit record costs: an append beside a bare synced append to a file, several writers, and verifying.

The bare append is the floor: what is acknowledged has to be on the disk. Both are measured by turns, on the same disk,
so that what else the machine does falls on both. Writers are processes, as replicas are; in each, one request after
another.
`--postgresql URL` measures a PostgreSQL beside SQLite; its records go to a schema of their own, which is dropped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.context import ROOT, Figure, directory, machine, quantile, save, say
from policies.audit import AuditLog
from policies.audit_chain import AuditIntent, AuditOutcome, Detail
from policies.audit_files import verify_export
from policies.audit_signing import Signer, signing_key

TARGET_MS = 2.0
TARGET_VERIFY = 50_000
WRITERS = (1, 4, 8)
VERIFIED = 200_000
_BATCH = 1_000
_WRITER = """
import sys, time
from bench.audit import line
from policies.audit import AuditLog
log, name, count = AuditLog(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(20):
    log.append([line(f"warm-{name}-{number}")])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    began = time.perf_counter()
    log.append([line(f"{name}-{number}")])
    print(time.perf_counter() - began)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of each append, and of all of them together."""

    each: list[float]
    whole_s: float

    @property
    def p50_ms(self) -> float:
        return quantile(self.each, 0.5) * 1e3

    @property
    def p95_ms(self) -> float:
        return quantile(self.each, 0.95) * 1e3

    @property
    def per_s(self) -> float:
        return len(self.each) / self.whole_s


def line(request_id: str) -> AuditOutcome:
    """A record of an answer as there are most: eight passages shown."""
    chunks = tuple(f"{number:032x}:1:{number}" for number in range(8))
    detail: Detail = {"permission": "rag:query", "question_hash": "0" * 64, "citations": 3, "generator": "extractive"}
    return AuditOutcome(request_id, "ada", "acme", "query", "0123456789abcdef", "ok", chunks, 2, detail)


def run(appends: int, postgresql: str | None, keep: Path | None) -> list[Figure]:
    """Measure. `appends`: for each number of writers."""
    before, figures, result = machine(), [], {}
    with directory(keep) as home:
        for name, url in _places(home, postgresql):
            with url as place:
                for writers in WRITERS:
                    say(f"{name}: {writers} writers")
                    floor = [_bare(home, appends // 4)]
                    measured = _appends(place, writers, appends // writers)
                    floor.append(_bare(home, appends // 4))
                    raw = quantile([taken for each in floor for taken in each.each], 0.5) * 1e3
                    figures.append(_figure(name, writers, measured, raw))
                    result[f"{name}, {writers}"] = _shown(measured, raw)
        say("threads of one process, which share their commits")
        threads = _threads(home, 8, appends)
        raw = _bare(home, appends // 4).p50_ms
        figures.append(_figure("sqlite, threads of one process", 8, threads, raw, target=False))
        result["sqlite, 8 threads"] = _shown(threads, raw)
        figures += _verifying(home, result)
    save("audit", result, before)
    return figures


def _places(home: Path, postgresql: str | None) -> Iterator[tuple[str, Any]]:
    yield "sqlite", _sqlite(home)
    if postgresql:
        yield "postgresql", _schema(postgresql)


@contextmanager
def _sqlite(home: Path) -> Iterator[str]:
    yield f"sqlite:///{home}/appends.sqlite"


@contextmanager
def _schema(url: str) -> Iterator[str]:
    from sqlalchemy import create_engine

    schema = f"bench_audit_{os.getpid()}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        try:
            yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"
        finally:
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    engine.dispose()


def _bare(home: Path, count: int) -> Measured:
    """Append as many bytes as a record has to a file, and sync each."""
    content = b"x" * 900
    descriptor = os.open(home / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    each = []
    began = time.perf_counter()
    try:
        for _ in range(count):
            at = time.perf_counter()
            os.write(descriptor, content)
            os.fsync(descriptor)
            each.append(time.perf_counter() - at)
    finally:
        os.close(descriptor)
    return Measured(each, time.perf_counter() - began)


def _appends(url: str, writers: int, count: int) -> Measured:
    AuditLog(url).close()
    command = [sys.executable, "-c", _WRITER, url]
    processes = [
        subprocess.Popen(
            [*command, f"w{number}", str(count)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(writers)
    ]
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a writer did not start")
    began = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    # Together: what one has to say must not wait until another is read.
    with ThreadPoolExecutor(writers) as pool:
        said = list(pool.map(lambda process: process.communicate()[0], processes))
    return Measured([float(word) for text in said for word in text.split()], time.perf_counter() - began)


def _threads(home: Path, threads: int, count: int) -> Measured:
    log = AuditLog(f"sqlite:///{home}/threads.sqlite")

    def one(number: int) -> float:
        began = time.perf_counter()
        log.append([line(f"t{number}")])
        return time.perf_counter() - began

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))
        began = time.perf_counter()
        each = list(pool.map(one, range(count)))
        whole_s = time.perf_counter() - began
    log.close()
    return Measured(each, whole_s)


def _verifying(home: Path, result: dict[str, Any]) -> list[Figure]:
    say(f"writing {VERIFIED} records, and verifying them")
    key = signing_key(home / "secrets" / "audit.pem")
    log = AuditLog(f"sqlite:///{home}/verified.sqlite", key)
    for start in range(0, VERIFIED, _BATCH):
        lines: list[AuditIntent | AuditOutcome] = [line(f"r{number}") for number in range(start, start + _BATCH)]
        log.append(lines)
    signer = Signer(log, lambda: key, None)
    signer.sign()
    figures = []
    export = home / "export.jsonl"
    works: dict[str, Callable[[], int]] = {
        "verify, database": lambda: log.verify().count,
        "export": lambda: log.export(export),
        "verify, export": lambda: verify_export(export, key.public_key()).count,
    }
    for name, work in works.items():
        began, processor = time.perf_counter(), time.process_time()
        count = work()
        wall, used = time.perf_counter() - began, time.process_time() - processor
        per_s, per_core = count / wall, count / used
        result[name] = {"records": count, "per_s": round(per_s), "per_processor_s": round(per_core)}
        verifies = name.startswith("verify")
        value = f"{per_s:,.0f}/s ({per_core:,.0f} for each second of processor)"
        target = f">= {TARGET_VERIFY:,}/s and core" if verifies else ""
        figures.append(Figure("audit", name, value, count, target, per_core >= TARGET_VERIFY if verifies else None))
    log.append([line("last")])
    began = time.perf_counter()
    signer.sign()
    taken = (time.perf_counter() - began) * 1e3
    result["checkpoint over what is new"] = {"ms": round(taken, 2)}
    figures.append(Figure("audit", "checkpoint over what is new", f"{taken:.1f} ms", 1))
    log.close()
    return figures


def _figure(name: str, writers: int, measured: Measured, raw_ms: float, target: bool = True) -> Figure:
    ratio = measured.p50_ms / raw_ms
    value = (
        f"p50 {measured.p50_ms:.2f} ms ({ratio:.1f} times a bare synced append), p95 {measured.p95_ms:.2f} ms, "
        f"{measured.per_s:,.0f}/s"
    )
    one = target and writers == 1
    met = measured.p50_ms <= TARGET_MS if one else None
    title = f"append, {name}, {writers} at once"
    return Figure("audit", title, value, len(measured.each), f"p50 <= {TARGET_MS} ms" if one else "", met)


def _shown(measured: Measured, raw_ms: float) -> dict[str, float]:
    return {
        "appends": len(measured.each),
        "p50_ms": round(measured.p50_ms, 3),
        "p95_ms": round(measured.p95_ms, 3),
        "per_s": round(measured.per_s, 1),
        "bare_synced_append_p50_ms": round(raw_ms, 3),
    }
