"""How soon, how cheaply and how wholly a change arrives: sources kept fresh by a service of the measurement's own."""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
from standardwebhooks import Webhook

from bench.context import ROOT, Figure, Service, busy_share, directory, machine, quantile, save, say, service
from bench.texts import sentences
from index.ledger import Ledger

TENANT = "bench"
POLL_S = 0.02
SECRET = base64.b64encode(b"bench-secret-bench-secret-bench!").decode()
SENTENCES_EACH = 40
"""Of a document whose sentences are edited: about four passages."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each thing is done."""

    files: int = 10_000
    saves: int = 40
    changes: int = 334
    questions: int = 100
    cycles: int = 50


class Desk:
    """A service with a ledger to read, an operator's commands, and people who ask."""

    def __init__(self, running: Service, home: Path) -> None:
        self.running = running
        self.home = home
        self.ledger = Ledger(running.args.store.ledger)
        self.client = running.client(TENANT)
        self.editor = running.issuer.sign("editor", TENANT, ["admin"], [], 21_600)

    def add(self, name: str, path: Path, **settings: Any) -> None:
        """Keep a folder fresh. Only hints and `sync` cause a listing unless it is watched."""
        from ingest.sources import parse_source, uri_of

        path.mkdir(exist_ok=True)
        given = {"name": name, "kind": "filesystem", "path": str(path), "tenant": TENANT, "acl": ["everyone"]}
        source = parse_source({**given, "watch": False, "poll_s": 1e6, **settings})
        self.ledger.keep_source(TENANT, name, uri_of(source), source.model_dump_json(exclude_unset=True))
        self.sync(name)

    def sync(self, name: str) -> dict[str, Any]:
        """List the source now, and give the report of that."""
        source = self.ledger.kept_source(name)
        before = self._as_of(source.source_id)
        self.ledger.hint(source.source_id, [])
        self.until(lambda: self._as_of(source.source_id) > before, 7200)
        run = self.ledger.source_run(source.source_id)
        assert run is not None
        assert run.report is not None
        return dict(json.loads(run.report))

    def forget(self, name: str) -> None:
        """Drop a source and its documents."""
        source = self.ledger.kept_source(name)
        self.ledger.forget_source(source.source_id)
        self.ledger.delete([document.document_id for document in self.ledger.known(source.source_id)])

    def hits(self, question: str, token: str | None = None) -> list[dict[str, Any]]:
        """Ask, without reranking's cost for what only has to be there."""
        headers = {"authorization": f"Bearer {token}"} if token else None
        answer = self.client.post("/v1/retrieve", json={"question": question, "mode": "keyword"}, headers=headers)
        answer.raise_for_status()
        return list(answer.json()["hits"])

    def shows(self, word: str, token: str | None = None) -> bool:
        """Say whether a passage with this word is shown."""
        return any(word in hit["text"] for hit in self.hits(word, token))

    def until(self, condition: Callable[[], bool], patience_s: float = 120.0) -> float:
        """Wait, and give the seconds that it took."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > patience_s:
                raise TimeoutError("it did not come about")
            time.sleep(POLL_S)
        return time.monotonic() - started

    def _as_of(self, source_id: int) -> float:
        run = self.ledger.source_run(source_id)
        return run.as_of or 0.0 if run is not None else 0.0


def run(counts: Counts) -> list[Figure]:
    """Measure, write `freshness.json`, and give the table's lines."""
    before, busy = machine(), busy_share()
    with directory() as home, service(home) as running:
        desk = Desk(running, home)
        parts: list[tuple[str, Callable[[], tuple[dict[str, Any], list[Figure]]]]] = [
            ("what is embedded", lambda: embedded(desk)),
            ("file and webhook to searchable", lambda: latency(desk, counts.saves)),
            ("stale passages", lambda: stale(desk, counts.changes)),
            ("rights", lambda: rights(desk)),
            ("questions beside a bulk job", lambda: beside_bulk(desk, counts.questions)),
            ("memory", lambda: memory(desk, counts.cycles)),
            ("no-change listing", lambda: unchanged(desk, counts.files)),
        ]
        result: dict[str, Any] = {"busy_share_before": busy}
        figures: list[Figure] = []
        for name, part in parts:
            say(f"{name} (load {os.getloadavg()[0]:.1f})")
            found, lines = part()
            result |= found
            figures += lines
            save("freshness", result, before)
    return figures


def histories(count: int) -> list[Figure]:
    """Run that many connector histories of the model-based test; a miss is a fault."""
    before = machine()
    command = [sys.executable, "-m", "pytest", "-q", "tests/unit/ingest/test_histories.py", "--timeout=7200"]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "RAYRAG_HISTORIES": str(count)}, capture_output=True, text=True
    )
    missed = 0 if done.returncode == 0 else 1
    result = {"histories": count, "missed": missed, "seconds": round(time.monotonic() - started, 1)}
    save("histories", result, before)
    return [Figure("histories", "missed", "0" if not missed else "some", count, "0", missed == 0, must=True)]


def embedded(desk: Desk) -> tuple[dict[str, Any], list[Figure]]:
    """Count the texts that each kind of change embeds, by the report of its listing."""
    words = sentences()
    folder = desk.home / "embedded"
    folder.mkdir()
    documents = {
        f"d{n}.txt": [f"Case {n}-{m}. {words[(n * 31 + m) % len(words)]}" for m in range(SENTENCES_EACH)]
        for n in range(50)
    }
    for name, lines in documents.items():
        _write(folder / name, lines)
    desk.add("embedded", folder)
    found: dict[str, int] = {"unchanged": int(desk.sync("embedded")["embedded"])}
    for place, index in (("start", 0), ("middle", SENTENCES_EACH // 2), ("end", SENTENCES_EACH - 1)):
        lines = list(documents["d7.txt"])
        lines[index] = f"An edit at the {place}, of one sentence."
        _write(folder / "d7.txt", lines)
        found[f"edit, {place}"] = int(desk.sync("embedded")["embedded"])
        _write(folder / "d7.txt", documents["d7.txt"])
        desk.sync("embedded")
    (folder / "deeper").mkdir()
    (folder / "d8.txt").rename(folder / "deeper" / "d8.txt")
    found["move"] = int(desk.sync("embedded")["embedded"])
    (folder / "d9.txt").rename(folder / "renamed.txt")
    found["rename"] = int(desk.sync("embedded")["embedded"])
    (folder / "acl.yaml").write_text('- path: "**"\n  allow: [group:other]\n')
    report = desk.sync("embedded")
    found["rights of every document"] = int(report["embedded"])
    assert report["access_changed"] == 50, report
    desk.forget("embedded")
    limits = {name: 2 if name.startswith("edit") else 0 for name in found}
    lines = [
        Figure("freshness", f"embedded: {name}", str(value), 50, f"≤ {limits[name]}", value <= limits[name], must=True)
        for name, value in found.items()
    ]
    return {"embedded": found}, lines


def latency(desk: Desk, count: int) -> tuple[dict[str, Any], list[Figure]]:
    """Time from a saved file, and from a webhook's call, until a question finds the text."""
    watched, called = desk.home / "watched", desk.home / "called"
    secret = desk.home / "webhook_secret"
    secret.touch(mode=0o600)  # one that others may read is refused
    secret.write_text(f"whsec_{SECRET}")
    desk.add("watched", watched, watch=True)
    desk.add("called", called, webhook={"secret_file": str(secret)})
    saved, hooked = [], []
    for number in range(count):
        word = f"kestrel{uuid.uuid4().hex[:12]}"
        (watched / f"{number}.txt").write_text(f"The {word} nests behind the mill, as the keeper noted.")
        saved.append(desk.until(lambda: desk.shows(word)))  # noqa: B023 - done before the next round
        word = f"plover{uuid.uuid4().hex[:12]}"
        (called / f"{number}.txt").write_text(f"The {word} rests on the quay, as the keeper noted.")
        _call(desk, [f"{number}.txt"])
        hooked.append(desk.until(lambda: desk.shows(word)))  # noqa: B023
    found = {"file": _spread(saved), "webhook": _spread(hooked)}
    lines = [
        Figure("freshness", f"{name} to searchable, p95", f"{each['p95']:.2f} s", count, "≤ 2 s", each["p95"] <= 2)
        for name, each in found.items()
    ]
    desk.forget("watched")
    desk.forget("called")
    return {"latency_s": found}, lines


def stale(desk: Desk, each: int) -> tuple[dict[str, Any], list[Figure]]:
    """Ask right after each acknowledged delete, edit and shrink, and all the while beside, for what is no more."""
    seen = 0
    for number in range(each):
        words = [f"curlew{uuid.uuid4().hex[:12]}" for _ in range(3)]
        body = {"id": f"s{number}", "acl": ["everyone"]}
        long = "\n\n".join(f"# Part {part}\n\nThe {word} is noted in part {part}." for part, word in enumerate(words))
        desk_put(desk, {**body, "text": long})
        for word in words:  # what was never shown could not be stale
            desk.until(lambda: desk.shows(word))  # noqa: B023 - done before the next round
        with asked_meanwhile(desk) as asked:
            desk_put(desk, {**body, "text": long.replace(words[0], "sparrow")})
            asked.append(words[0])
            seen += desk.shows(words[0])
            desk_put(desk, {**body, "text": f"The {words[1]} alone is left."})
            asked.append(words[2])
            seen += desk.shows(words[2])
            document = desk_put(desk, {**body, "text": f"The {words[1]} alone is left."})
            answer = desk.client.delete(f"/v1/documents/{document}", headers=_bearer(desk.editor))
            answer.raise_for_status()
            asked.append(words[1])
            seen += desk.shows(words[1])
        seen += asked.seen
    return {"stale": {"changes": each * 3, "seen": seen}}, [
        Figure(
            "freshness", "stale passages after a delete, edit or shrink", str(seen), each * 3, "0", seen == 0, must=True
        )
    ]


class Asked(list[str]):
    """Words that must not be shown any more; another thread asks for them all the while.

    `failure`: why that thread ended early, which makes `seen` worth nothing.
    """

    seen = 0
    failure: Exception | None = None


@contextmanager
def asked_meanwhile(desk: Desk) -> Iterator[Asked]:
    """Ask for the words in the list until the end, on a connection of its own."""
    words, done = Asked(), threading.Event()
    client = desk.running.client(TENANT)

    def ask() -> None:
        while not done.is_set():
            for word in list(words):
                answer = client.post("/v1/retrieve", json={"question": word, "mode": "keyword"})
                answer.raise_for_status()
                words.seen += any(word in hit["text"] for hit in answer.json()["hits"])
            done.wait(POLL_S)

    def work() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001 - raised below, on the thread that counts
            words.failure = error

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield words
    finally:
        done.set()
        thread.join()
        client.close()
    if words.failure is not None:
        raise words.failure


def rights(desk: Desk) -> tuple[dict[str, Any], list[Figure]]:
    """Time from a change of readers until the old reader gets nothing: of one document, and of 1,000 at once."""
    word = f"heron{uuid.uuid4().hex[:8]}"
    ones = []
    for number in range(20):
        document = desk_put(desk, {"id": f"r{number}", "acl": ["everyone"], "text": f"The {word} of round {number}."})
        desk.until(lambda: desk.shows(word))
        started = time.monotonic()
        path = f"/v1/documents/{document}/acl"
        desk.client.put(
            path, json={"allow": ["user:editor"], "deny": []}, headers=_bearer(desk.editor)
        ).raise_for_status()
        desk.until(lambda: not desk.shows(word))
        ones.append(time.monotonic() - started)
    folder = desk.home / "rights"
    folder.mkdir()
    for number in range(1000):
        (folder / f"{number}.txt").write_text(f"The avocet of entry {number} wades in pool {number % 7}.")
    desk.add("rights", folder, watch=True)
    desk.until(lambda: desk.shows("avocet"))
    everyone, nobody = '- path: "**"\n  allow: [everyone]\n', '- path: "**"\n  allow: [user:editor]\n'
    many = []
    for _ in range(5):
        _rule(folder, nobody)
        started = time.monotonic()
        many.append(desk.until(lambda: not desk.shows("avocet")))
        say(f"1,000 documents: {time.monotonic() - started:.2f} s")
        _rule(folder, everyone)
        desk.until(lambda: desk.shows("avocet"), 600)
        desk.until(lambda: not desk.ledger.unwritten_rules(desk.ledger.kept_source("rights").source_id), 600)
    desk.forget("rights")
    found = {"one": _spread(ones), "thousand": _spread(many)}
    return {"rights_s": found}, [
        Figure(
            "freshness",
            "rights of 1 document, p95",
            f"{found['one']['p95']:.2f} s",
            20,
            "< 1 s",
            found["one"]["p95"] < 1,
        ),
        Figure("freshness", "rights of 1,000 documents, longest", f"{max(many):.2f} s", 5, "< 1 s", max(many) < 1),
    ]


def beside_bulk(desk: Desk, count: int) -> tuple[dict[str, Any], list[Figure]]:
    """Compare the time of questions while a bulk job runs with that of an idle service."""
    from cluster.jobs import IngestJob

    def ask() -> list[float]:
        times = []
        for number in range(count):
            started = time.monotonic()
            desk.client.post("/v1/retrieve", json={"question": f"where does the keeper note entry {number}"})
            times.append(time.monotonic() - started)
        return times

    corpus = desk.home / "beside.jsonl"
    words = sentences()
    with corpus.open("w", encoding="utf-8") as file:
        for number in range(1500):
            text = " ".join(words[(number * 13 + n) % len(words)] for n in range(12))
            file.write(json.dumps({"id": f"b{number}", "text": f"Entry {number}. {text}"}) + "\n")
    for number in range(200):
        desk_put(
            desk, {"id": f"q{number}", "acl": ["everyone"], "text": f"The keeper notes entry {number} at the mill."}
        )
    ask()
    idle = ask()
    job = IngestJob(desk.running.state, str(corpus), TENANT, "everyone")
    started = threading.Event()
    follower = threading.Thread(target=lambda: job.follow(lambda now: started.set() if now.done > 0 else None))
    follower.start()
    if not started.wait(300):
        raise TimeoutError("the bulk job did not begin: there is nothing to compare with")
    busy = ask()
    still = follower.is_alive()
    follower.join()
    found = {"idle": _spread(idle), "busy": _spread(busy), "the job outlasted the questions": still}
    ratio = found["busy"]["p95"] / found["idle"]["p95"]
    return {"beside_bulk_s": found | {"ratio_p95": round(ratio, 2)}}, [
        Figure("freshness", "p95 of questions beside a bulk job / idle", f"{ratio:.2f}", count, "≤ 2", ratio <= 2)
    ]


def memory(desk: Desk, cycles: int) -> tuple[dict[str, Any], list[Figure]]:
    """Fit a line through the memory of all processes over cycles of 20 edited documents."""
    folder = desk.home / "cycles"
    folder.mkdir()
    desk.add("cycles", folder)
    weights = []
    for cycle in range(cycles):
        for number in range(20):
            (folder / f"{number}.txt").write_text(
                f"Cycle {cycle} of document {number}: {uuid.uuid4().hex} at the mill."
            )
        desk.sync("cycles")
        weights.append(_weight_mb(desk))
    desk.forget("cycles")
    settled = weights[len(weights) // 5 :]
    slope = statistics.linear_regression(range(len(settled)), settled).slope
    found = {"cycles": cycles, "mb": [round(weight, 1) for weight in weights], "slope_mb_per_cycle": round(slope, 3)}
    share = slope * cycles / settled[0]
    return {"memory": found}, [
        Figure(
            "freshness",
            "memory slope",
            f"{slope:+.2f} MB a cycle of {settled[0]:.0f} MB",
            cycles,
            "about 0",
            share < 0.02,
        )
    ]


def unchanged(desk: Desk, count: int) -> tuple[dict[str, Any], list[Figure]]:
    """Compare a listing of files that did not change with taking them all in."""
    folder = desk.home / "many"
    folder.mkdir()
    words = sentences()
    for number in range(count):
        directory_ = folder / f"{number % 100:02}"
        directory_.mkdir(exist_ok=True)
        (directory_ / f"{number}.txt").write_text(f"Record {number}. {words[number % len(words)]}")
    started = time.monotonic()
    desk.add("many", folder)
    full = time.monotonic() - started
    times = []
    for _ in range(3):
        started = time.monotonic()
        report = desk.sync("many")
        times.append(time.monotonic() - started)
        assert (report["unchanged"], report["embedded"]) == (count, 0), report
    ratio = statistics.median(times) / full
    found = {
        "files": count,
        "full_s": round(full, 1),
        "no_change_s": [round(each, 2) for each in times],
        "ratio": round(ratio, 4),
    }
    return {"no_change": found}, [
        Figure("freshness", "no-change listing / full ingest", f"{ratio:.2%}", count, "≤ 1 %", ratio <= 0.01)
    ]


def desk_put(desk: Desk, body: dict[str, Any]) -> str:
    """Upload a document and give its id; it is searchable when this returns."""
    answer = desk.client.post("/v1/documents", json=body, headers=_bearer(desk.editor))
    answer.raise_for_status()
    return str(answer.json()["document_id"])


def _call(desk: Desk, ids: Sequence[str]) -> None:
    body, now, key = json.dumps({"ids": list(ids)}), datetime.now(UTC), f"msg_{uuid.uuid4().hex}"
    headers = {
        "webhook-id": key,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(f"whsec_{SECRET}").sign(key, now, body),
        "content-type": "application/json",
    }
    url = f"{desk.running.state.api}/v1/webhooks/called"
    httpx2.post(url, content=body, headers=headers, trust_env=False).raise_for_status()


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _rule(folder: Path, text: str) -> None:
    """Replace the access file in one step, as an editor does."""
    fresh = folder / ".acl.yaml.new"
    fresh.write_text(text)
    fresh.rename(folder / "acl.yaml")


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def _spread(times: Sequence[float]) -> dict[str, float]:
    spread = {"p50": quantile(times, 0.5), "p95": quantile(times, 0.95), "max": max(times)}
    return {name: round(value, 3) for name, value in spread.items()} | {"n": len(times)}


def _weight_mb(desk: Desk) -> float:
    total = 0
    for started in desk.running.state.processes:
        try:
            process = psutil.Process(started.pid)
            for each in (process, *process.children(recursive=True)):
                total += each.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6
