"""A person is erased from a running service: no answer, no file and no backup that is put back has them any more.

It starts and stops a service of its own, because every file of its data directory is read when it is down.
"""

from __future__ import annotations

import json
import random
import shutil
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from cluster.local import UpOptions, stop, up
from deployments.identity import development_issuer
from examples.build_documents import read_source, write_docx, write_eml, write_pdf
from index.document import chunk_id
from index.ledger import Ledger
from index.models import Models
from index.settings import load
from index.vectors import VectorStore
from tests.byte_scan import needles, scan, vector_needle
from tests.e2e.conftest import ROOT, Service, free_ports

TENANT = "erasure"
HEAD = (
    "---\ntitle: {title}\nsubtitle: a subtitle\nnumber: X-1\nversion: 1\ndate: 2026-02-23\nowner: Oda\n"
    "class: internal\n---\n"
)
MAIL_HEAD = (
    "---\nFrom: {person} <{mail}>\nTo: office@tarn.example.com\nSubject: About the heron\n"
    "Date: Wed, 11 Feb 2026 10:42:00 +0000\nMessage-ID: <1@tarn.example.com>\ntitle: About the heron\n"
    "date: 2026-02-11\nowner: Oda\nclass: internal\nattachment: nests.csv\n---\n"
)
TABLE = "| bird | seen by |\n|---|---|\n| heron | {person} |\n"


@dataclass(frozen=True)
class Person:
    """A person of this run alone: what is found of them was written by it."""

    name: str
    mail: str
    account: str

    @classmethod
    def random(cls) -> Person:
        first, last = ("".join(random.sample(string.ascii_lowercase, 10)).capitalize() for _ in range(2))
        account = f"DE{random.randrange(10**20):020d}"
        return cls(f"{first} {last}", f"{first}.{last}@example.org".lower(), account)

    @property
    def grouped(self) -> str:
        return " ".join(self.account[start : start + 4] for start in range(0, len(self.account), 4))

    @property
    def subject(self) -> dict[str, list[str]]:
        return {"identifiers": [self.mail, self.account], "names": [self.name]}

    @property
    def needles(self) -> list[bytes]:
        return needles(self.name, *self.name.split(), self.mail, self.account, self.grouped)

    def is_in(self, text: str) -> bool:
        return any(each.lower() in text.lower() for each in (*self.name.split(), self.mail, self.account, self.grouped))


def sources(into: Path, person: Person) -> Path:
    """Documents of several kinds that mention the person, one that is named after them, and others' documents."""
    into.mkdir()
    made = into.parent / "made"
    made.mkdir()
    bodies = {
        "letter.docx": HEAD.format(title="A letter") + f"# Bridge\n\n{person.name} asks about the bridge at Tarn.\n",
        "account.pdf": HEAD.format(title="An account") + f"# Fee\n\nThe harbour fee is paid from {person.grouped}.\n",
        "heron.eml": MAIL_HEAD.format(person=person.name, mail=person.mail)
        + f"The heron nests by the mill again.\n\n{TABLE.format(person=person.name)}",
    }
    writers = {".docx": write_docx, ".pdf": write_pdf, ".eml": write_eml}
    for name, body in bodies.items():
        source = made / f"{name}.md"
        source.write_text(body)
        writers[Path(name).suffix](read_source(source), into / name)
    (into / "note.txt").write_text(f"Call {person.name.upper()}, {person.mail.upper()}.\n\nThe ferry leaves at noon.\n")
    (into / f"{person.name} CV.txt").write_text("Nine years on the night ferry.\n")
    for number in range(5):
        (into / f"other {number}.txt").write_text(
            f"Basin {number} is dredged in week {number + 30}, says Oda Brennic.\n"
        )
    return into


class Own:
    """A service of its own, started and stopped at will."""

    def __init__(self, home: Path) -> None:
        self.home = home / "data"
        document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
        args = document["applications"][0]["args"]
        args["data_dir"] = str(self.home)
        args["store"]["uri"] = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.config = home / "serve_config.yaml"
        self.config.write_text(yaml.safe_dump(document))

    @contextmanager
    def running(self) -> Iterator[Service]:
        http, gcs, dashboard, metrics = free_ports(4)
        options = UpOptions(
            self.config, str(self.home), port=http, gcs_port=gcs, dashboard_port=dashboard, metrics_port=metrics,
            ready_s=300,
        )  # fmt: skip
        state = up(options, lambda line: print(line, file=sys.stderr)).state
        try:
            issuer = development_issuer(load(self.config, str(self.home)).identity)
            with httpx2.Client(timeout=120) as client:
                yield Service(state, self.config, issuer, client)
        finally:
            stop(state)

    def vectors(self, tenant: str) -> list[bytes]:
        """The exact bytes of the vectors of all passages of the tenant."""
        args = load(self.config, str(self.home))
        ledger, models = Ledger(args.store.ledger), Models(args.store.ledger)
        live = models.live()
        store = VectorStore(args.store, live.model_id, live.dim, live.generation)
        found = ledger.find(ledger.tenant_id(tenant))
        keys = [chunk_id(each.document_id, each.version or 0, n) for each in found for n in range(each.chunk_count)]
        rows = [row for row in store.copies(keys).values() if "Oda Brennic" not in row.text]
        return [vector_needle(row.dense[live.model_id]) for row in rows]

    def rayrag(self, *words: str) -> str:
        command = [sys.executable, "-m", "cluster", "privacy", *words, "--data-dir", str(self.home)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture
def own() -> Iterator[Own]:
    home = Path(tempfile.mkdtemp(prefix="rr-", dir="/tmp"))
    yield Own(home)
    shutil.rmtree(home, ignore_errors=True)


def shown(service: Service, question: str) -> str:
    return json.dumps(service.retrieve(service.token("reader", tenant=TENANT), question, top_k=50), ensure_ascii=False)


def others(service: Service) -> list[tuple[str, str]]:
    hits = service.retrieve(service.token("reader", tenant=TENANT), "When is basin 3 dredged?", top_k=50)
    return sorted((hit["external_id"], hit["text"]) for hit in hits if hit["external_id"].startswith("other"))


def erased(service: Service, person: Person) -> dict[str, Any]:
    """Erase over HTTP while the source is ingested again and again, and give what is told at the end."""
    officer = service.token("olga", roles=("privacy_officer",), tenant=TENANT)
    began = time.monotonic()
    body = {"type": "erasure", "subject": person.subject}
    answer = service.call("POST", "/v1/privacy/requests", officer, json=body)
    assert answer.status_code == 202, answer.text
    path = f"/v1/privacy/requests/{answer.json()['privacy_request_id']}"
    while (told := service.call("GET", path, officer).json())["status"] not in ("done", "refused"):
        assert time.monotonic() - began < 60, "logical erasure takes at most a minute"
        time.sleep(0.2)
    print(f"logical erasure: {time.monotonic() - began:.1f} s, {told['found']}", file=sys.stderr)
    return dict(told)


def test_an_erased_person_is_in_no_answer_no_file_and_no_backup(own: Own, tmp_path: Path) -> None:
    person = Person.random()
    source = sources(tmp_path / "source", person)
    backup = own.home.with_name("backup")
    with own.running() as service:
        assert service.ingest(source, TENANT, "everyone")["indexed"] == 10
        before = others(service)
        assert len(before) == 5 and all(person.is_in(shown(service, each)) for each in (person.name, person.mail))
        vectors = own.vectors(TENANT)
    assert scan(own.home, person.needles, vectors), "they are on the disk now"
    shutil.copytree(own.home, backup, symlinks=True, ignore=shutil.ignore_patterns("sockets"))

    with own.running() as service:
        racing = threading.Thread(target=service.run_in_one_process, args=(source, TENANT, "everyone"))
        racing.start()
        (source / "note.txt").write_text(f"Call {person.name} again: {person.mail}.\n\nThe ferry leaves at one.\n")
        told = erased(service, person)
        racing.join()
        again = service.sync(source, TENANT, "everyone")
        assert again["quarantined"] == 1, "what is named after them is kept out"
        assert told["status"] == "done" and told["found"]["documents"] == 5, told
        for question in (person.name, person.mail, person.account, "bridge at Tarn", "harbour fee", "heron", "ferry"):
            assert not person.is_in(shown(service, question)), question
        assert "bridge at Tarn" in shown(service, "bridge at Tarn") and "leaves at one" in shown(service, "ferry")
        assert "Nine years" not in shown(service, "night ferry")
        assert others(service) == before, "nobody else's documents change"
        began = time.monotonic()
        (purged,) = json.loads(own.rayrag("purge", "--now", "--json"))
        print(f"purge: {time.monotonic() - began:.1f} s, {purged['receipt']['physical']}", file=sys.stderr)
        receipt = tmp_path / "receipt.json"
        receipt.write_text(json.dumps(purged))
        assert "is as it was signed" in own.rayrag("verify-receipt", str(receipt))
        assert not person.is_in(receipt.read_text()) and purged["receipt"]["left"]["documents"] == 0
        assert others(service) == before
    assert scan(own.home, person.needles, vectors) == []

    shutil.rmtree(own.home)
    shutil.copytree(backup, own.home, symlinks=True)
    with own.running() as service:
        for question in (person.name, person.mail, "heron", "night ferry"):
            assert not person.is_in(shown(service, question)), "not shown, though it is not erased again yet"
        deadline = time.monotonic() + 120
        while not any(each["physical"] == "done" for each in json.loads(own.rayrag("list", "--json"))):
            assert time.monotonic() < deadline, "it is erased again by itself"
            time.sleep(2)
        assert others(service) == before
    assert scan(own.home, person.needles, vectors) == []
