"""One real local cluster for all end-to-end tests: Ray, Milvus Lite, the Serve application, tokens, files."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from cluster.local import UpOptions, stop, up
from cluster.preflight import in_use
from cluster.ray_head import environment
from cluster.state import State
from deployments.identity import development_issuer
from index.settings import load
from policies.issuing import DevelopmentIssuer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ROOT / "examples" / "documents"
TENANT = "tarnfell"
# The bulk run with its stages called one after another in one process: the same code without a job's start.
ONE_PROCESS = """
import importlib, json, os, signal, sys
from pathlib import Path
point, when, config, data_dir, source, tenant, acl = sys.argv[1:]
if point:
    module, _, path = point.partition(":")
    owner, _, name = path.partition(".")
    owner = getattr(importlib.import_module(module), owner)
    original = getattr(owner, name)
    def dying(*args, **kwargs):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dying)
from index.settings import load
from ingest.acl_file import parse_acl
from ingest.bulk import Bulk
import ingest.bulk as bulk
class InOneProcess(Bulk):
    def _stream(self, settings, entries):
        prepare, embed = bulk.Prepare(self._args, settings), bulk.Embed(self._args)
        write = bulk.Write(self._args, "test")
        for entry in entries:
            yield from write(embed(prepare({"item": [entry]})))["item"]
report = InOneProcess(load(Path(config), data_dir), lambda report: None).run(source, tenant, parse_acl(acl))
print(json.dumps(report.as_dict()))
"""


def free_ports(number: int) -> list[int]:
    """Ports below those that the system hands out: Ray's own processes would take one of those meanwhile."""
    return [port for port in random.sample(range(18_000, 28_000), 50) if not in_use("127.0.0.1", port)][:number]


@dataclass
class Service:
    """The running application and how to talk to it."""

    state: State
    config: Path
    issuer: DevelopmentIssuer
    client: httpx2.Client = field(repr=False)

    def token(
        self, sub: str, groups: tuple[str, ...] = (), roles: tuple[str, ...] = ("user",), tenant: str = TENANT
    ) -> str:
        return self.issuer.sign(sub, tenant, roles, groups)

    def call(self, method: str, path: str, token: str | None, **kwargs: Any) -> httpx2.Response:
        headers = {**kwargs.pop("headers", {}), **({"authorization": f"Bearer {token}"} if token else {})}
        return self.client.request(method, f"{self.state.api}{path}", headers=headers, **kwargs)

    def query(self, token: str, question: str, **body: Any) -> dict[str, Any]:
        answer = self.call("POST", "/v1/query", token, json={"question": question, **body})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def retrieve(self, token: str, question: str, **body: Any) -> list[dict[str, Any]]:
        answer = self.call("POST", "/v1/retrieve", token, json={"question": question, **body})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["hits"])

    def job(self, source: Path, tenant: str, acl: str = "") -> subprocess.Popen[str]:
        """Start `ray job submit` as an operator does."""
        command = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", self.state.dashboard]
        command += ["--working-dir", str(ROOT), "--", "python", "-m", "ingest", "bulk", "--config", str(self.config)]
        command += ["--source", str(source), "--tenant", tenant, *(["--acl", acl] if acl else [])]
        env = {**os.environ, **environment(self.state)}
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ingest(self, source: Path, tenant: str, acl: str = "") -> dict[str, Any]:
        """Run the bulk job to its end and give its report."""
        job = self.job(source, tenant, acl)
        output, _ = job.communicate(timeout=300)
        reports = [line for line in output.splitlines() if line.startswith("report ")]
        assert job.returncode == 0 and reports, output[-4000:]
        return dict(json.loads(reports[-1].removeprefix("report ")))

    def run_in_one_process(
        self, source: Path, tenant: str, acl: str, point: tuple[str, str] = ("", "")
    ) -> subprocess.CompletedProcess[str]:
        """Run the bulk ingestion without Ray Data; `point` names a call at which the process dies by SIGKILL."""
        arguments = [*point, str(self.config), self.state.data_dir, str(source), tenant, acl]
        command = [sys.executable, "-c", ONE_PROCESS, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)

    def sync(self, source: Path, tenant: str, acl: str) -> dict[str, Any]:
        """Run it to its end and give its report."""
        done = self.run_in_one_process(source, tenant, acl)
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A data directory with a space in its name."""
    directory = Path(tempfile.mkdtemp(prefix="rr-", dir="/tmp")) / "data dir"
    yield directory
    shutil.rmtree(directory.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def config(home: Path) -> Path:
    """The product's configuration on free ports."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    args = document["applications"][0]["args"]
    args["data_dir"] = str(home)
    args["store"]["uri"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    args["ingest"] = {"parsing": {"timeout_s": 10, "memory_mb": 512}}
    regimes = {"veil": ["gdpr"], "hospice": ["hipaa"], "books": ["sox"]}
    args["identity"].setdefault("roles", {})["cleared"] = {"permissions": ["*"], "clearance": "restricted"}
    args["compliance"] = {"tenants": {tenant: {"regimes": names} for tenant, names in regimes.items()}}
    path = home.parent / "serve_config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="session")
def service(home: Path, config: Path) -> Iterator[Service]:
    http, gcs, dashboard, metrics = free_ports(4)
    options = UpOptions(
        config, str(home), port=http, gcs_port=gcs, dashboard_port=dashboard, metrics_port=metrics, ready_s=300
    )
    state = up(options, lambda line: print(line, file=sys.stderr)).state
    try:
        issuer = development_issuer(load(config, str(home)).identity)
        with httpx2.Client(timeout=120) as client:
            yield Service(state, config, issuer, client)
    finally:
        stop(state)


@pytest.fixture(scope="session")
def company(service: Service) -> Service:
    """The service with the example company's documents in it, by `ray job submit`."""
    report = service.ingest(DOCUMENTS, TENANT)
    assert report["quarantined"] == 0, report["errors"]
    return service


@pytest.fixture(scope="session")
def alice(service: Service) -> str:
    return service.token("alice", ("engineering",))


@pytest.fixture(scope="session")
def bob(service: Service) -> str:
    return service.token("bob", ("finance", "people"))


@pytest.fixture(scope="session")
def editor(service: Service) -> str:
    """Somebody who may upload, view, change and delete."""
    return service.token("eve", ("editors",), ("power_user", "editor-in-chief", "admin"))
