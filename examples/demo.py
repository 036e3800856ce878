"""`make run`: start everything, ingest this company's documents as a Ray job, ask three questions as two people.

Exits 0 only if each answer is what `questions.yaml` says that person gets.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import yaml
from rich.console import Console
from rich.markup import escape

from cluster.local import UpOptions, addresses, up
from cluster.ray_head import environment
from cluster.state import State
from deployments.identity import development_issuer
from index.settings import load
from policies.errors import RayragError
from policies.issuing import DevelopmentIssuer

HERE = Path(__file__).parent
DOCUMENTS = HERE / "documents"
QUESTIONS = 3
console = Console(highlight=False)


def main() -> int:
    """Run the demo and leave the service running."""
    started = time.monotonic()
    config, data_dir = Path("serve_config.yaml"), Path(os.environ.get("RAYRAG_DATA_DIR", ".rayrag"))
    try:
        running = up(UpOptions(config, str(data_dir)), lambda line: console.print(f"  {escape(line)}")).state
        issuer = development_issuer(load(config, str(data_dir)).identity)
    except RayragError as error:
        console.print(f"[red]{escape(error.detail)}[/red]")
        return 1
    people = {person["sub"]: person for person in yaml.safe_load((HERE / "people.yaml").read_text())}
    tenant = people["alice"]["tenant"]
    if not ingest(running, tenant):
        return 1
    ok = ask_all(running, issuer, people)
    hidden(running, issuer, people)
    console.rule("running")
    for name, address in addresses(running).items():
        console.print(f"  {name:14} {address}")
    bob = f"--sub bob --tenant {tenant} --roles user --groups {','.join(people['bob']['groups'])}"
    console.print(f"  be bob         export RAYRAG_TOKEN=$(.venv/bin/rayrag token {bob})", soft_wrap=True)
    console.print("  ask            .venv/bin/rayrag ask 'When are salaries paid?'")
    console.print("  stop           make stop")
    console.print(f"  {'all worked' if ok else '[red]NOT as expected[/red]'} after {time.monotonic() - started:.0f} s")
    return 0 if ok else 1


def ingest(running: State, tenant: str) -> bool:
    """Submit the bulk job as a platform engineer would."""
    console.rule("ray job submit: examples/documents")
    job = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", running.dashboard]
    job += ["--working-dir", ".", "--", "python", "-m", "ingest", "bulk", "--config", "serve_config.yaml"]
    job += ["--source", str(DOCUMENTS.resolve()), "--tenant", tenant]
    console.print(f"  ray job submit --working-dir . -- {' '.join(job[job.index('--') + 1 :])}")
    return subprocess.run(job, env={**os.environ, **environment(running)}, check=False).returncode == 0


def ask_all(running: State, issuer: DevelopmentIssuer, people: dict[str, Any]) -> bool:
    """Ask each of the first questions as both people; compare where the file says what to expect."""
    rows = yaml.safe_load((HERE / "questions.yaml").read_text())
    expected = {(row["question"], row["ask_as"]): row["expect"] for row in rows}
    questions = list(dict.fromkeys(row["question"] for row in rows))[:QUESTIONS]
    ok = True
    for question in questions:
        console.rule(f"[bold]{escape(question)}[/bold]")
        for name in ("alice", "bob"):
            answer = ask(running, issuer, people[name], question)
            show(name, people[name], answer)
            ok &= as_expected(answer, expected.get((question, name)))
    return ok


def ask(running: State, issuer: DevelopmentIssuer, person: dict[str, Any], question: str) -> dict[str, Any]:
    """Ask over HTTP with this person's token."""
    token = issuer.sign(person["sub"], person["tenant"], person["roles"], person["groups"])
    answer = httpx2.post(
        f"{running.api}/v1/query",
        json={"question": question},
        headers={"authorization": f"Bearer {token}"},
        timeout=60,
    )
    answer.raise_for_status()
    return dict(answer.json())


def show(name: str, person: dict[str, Any], answer: dict[str, Any]) -> None:
    """Print an answer with its evidence."""
    console.print(
        f"[cyan]{name}[/cyan] ({', '.join(person['groups'])}) gets, in {answer['timings_ms']['total']:.0f} ms:"
    )
    style = "yellow" if answer["abstained"] else "green"
    console.print(f"  [{style}]{escape(answer['answer'])}[/{style}]")
    for citation in answer["citations"]:
        page = f", page {citation['page']}" if citation["page"] else ""
        console.print(f"    \\[{citation['n']}] {escape(citation['external_id'])}{page}: “{escape(citation['quote'])}”")


def as_expected(answer: dict[str, Any], expect: dict[str, Any] | None) -> bool:
    """Compare with `questions.yaml`; the phrase must stand in a quote from the named document."""
    if expect is None:
        return True
    if not expect["answered"]:
        return bool(answer["abstained"]) and not answer["citations"]
    phrase = " ".join(expect["contains"].split())
    return any(
        citation["external_id"] == expect["external_id"] and phrase in " ".join(citation["quote"].split())
        for citation in answer["citations"]
    )


def hidden(running: State, issuer: DevelopmentIssuer, people: dict[str, Any]) -> None:
    """Print what each person may not see, by what the service lists for them."""
    console.rule("what each may not see")
    everything = {
        path.relative_to(DOCUMENTS).as_posix()
        for path in DOCUMENTS.rglob("*")
        if path.is_file() and path.name != "acl.yaml"
    }
    for name in ("alice", "bob"):
        person = people[name]
        token = issuer.sign(name, person["tenant"], ["power_user"], person["groups"])
        listed = httpx2.get(
            f"{running.api}/v1/documents?limit=500", headers={"authorization": f"Bearer {token}"}, timeout=30
        ).json()["documents"]
        missing = sorted(everything - {document["external_id"] for document in listed})
        console.print(f"[cyan]{name}[/cyan] sees {len(listed)} of {len(everything)} documents, and not:")
        console.print(f"  {escape(', '.join(missing))}")


if __name__ == "__main__":
    sys.exit(main())
