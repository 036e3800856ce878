"""The `rayrag` command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster import identity_commands, rights_commands
from cluster.audit_commands import audit_app
from cluster.compliance_commands import compliance_app
from cluster.dead_letter_commands import dead_letters_app
from cluster.group_commands import groups_app
from cluster.operators import operator_of
from cluster.privacy_commands import privacy_app
from cluster.reindex_command import reindex
from cluster.source_commands import print_sources, sources_app
from cluster.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    DataDirOption,
    JsonOption,
    documents_bar,
    find_data_dir,
    find_running,
    json_text,
    print_table,
    read_settings,
    shown,
    steps,
    words,
)
from policies.errors import ConfigurationError, InvalidRequest, RayragError, Unavailable
from policies.labels import Label

if TYPE_CHECKING:
    from cluster.jobs import JobResult
    from policies.audit_chain import Detail


app = typer.Typer(
    name="rayrag",
    help="Questions and cited answers over a company's documents, within each person's rights.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
INSECURE = "INSECURE: started with --insecure-dev. Whoever reaches this cluster may run code on it. No production data."
render_app = typer.Typer(no_args_is_help=True, help="Files for other platforms.")
app.add_typer(audit_app, name="audit")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(groups_app, name="groups")
app.add_typer(compliance_app, name="compliance")
app.add_typer(privacy_app, name="privacy")
app.add_typer(sources_app, name="sources")
app.add_typer(render_app, name="render")
app.command()(reindex)
identity_commands.register(app)
rights_commands.register(app)


def main() -> int:
    """Run the command line. An expected error is one sentence on stderr and exit code 1."""
    try:
        app()
    except RayragError as error:
        print(shown(error.detail), file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader has had enough (`rayrag status | head`): closing stdout must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


@app.command()
def up(
    config: Annotated[Path, typer.Option(help="The Serve configuration file.")] = DEFAULT_CONFIG,
    data_dir: DataDirOption = None,
    port: Annotated[int | None, typer.Option(help="HTTP port; default: the file's.", min=1, max=65535)] = None,
    ray_port: Annotated[int, typer.Option(help="Port of Ray's head.", min=1, max=65535)] = 6379,
    dashboard_port: Annotated[int, typer.Option(help="Port of Ray's dashboard.", min=1, max=65535)] = 8265,
    metrics_port: Annotated[int, typer.Option(help="Port of Ray's metrics.", min=1, max=65535)] = 8266,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it is ready.", min=1)] = 600.0,
    insecure_dev: Annotated[
        bool,
        typer.Option("--insecure-dev", help="Go on where the cluster is open to others, and say so. No production."),
    ] = False,
) -> None:
    """Start Ray, Milvus Lite and the application on this machine, and wait until it answers."""
    from cluster.local import UpOptions, addresses
    from cluster.local import up as start

    options = UpOptions(config, data_dir, port, ray_port, dashboard_port, metrics_port, timeout, insecure_dev)
    with steps("starting") as progress:
        result = start(options, progress)
    if result.state.insecure_dev:
        print(INSECURE, file=sys.stderr)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("rayrag was running already" if result.already else f"rayrag is up after {result.seconds:.0f} s")
    for name, address in addresses(result.state).items():
        print(f"  {name.replace('_', ' '):<14} {address}")
    print(f"  {'Ray token':<14} {result.state.ray_token_file}")


@app.command()
def down(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Stop what `rayrag up` started, nothing else."""
    from cluster.local import down as stop

    where = find_data_dir(config, data_dir)
    with steps("stopping"):
        count = stop(where)
    print(f"{count} processes ended" if count else f"nothing runs in {where}")


@app.command()
def status(config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show deployments, replicas, documents, dead letters and processes. Exit code 1 unless all of it runs."""
    from cluster.local import status as describe
    from cluster.state import read_state

    where = find_data_dir(config, data_dir)
    state = read_state(where)
    found = describe(state) if state else {"running": False, "ready": False, "data_dir": str(where)}
    if as_json:
        print(json.dumps(found, indent=2))
    elif state is None:
        print(f"nothing runs in {where}")
    else:
        _print_status(found)
    if not found["ready"]:
        raise typer.Exit(1)


@app.command()
def token(
    sub: Annotated[str, typer.Option(help="Who the token is for.")],
    tenant: Annotated[str, typer.Option(help="Whose documents it opens.")],
    roles: Annotated[str, typer.Option(help="Comma-separated.")] = "user",
    groups: Annotated[str, typer.Option(help="Comma-separated.")] = "",
    ttl: Annotated[int, typer.Option(help="Seconds that it lives.")] = 3600,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print a token signed by the development issuer on this machine. That it was signed is on the audit record."""
    from deployments.identity import development_issuer

    args = read_settings(config, data_dir)
    issuer = development_issuer(args.identity)
    with operator_of(args) as operator:
        detail: Detail = {"subject": sub, "roles": words(roles), "groups": len(words(groups)), "seconds": ttl}
        signed = operator.do(
            "token.sign", tenant, detail, lambda: issuer.sign(sub, tenant, words(roles), words(groups), ttl)
        )
    print(signed)


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="A directory, a file, a *.jsonl, or an address such as s3://…")],
    tenant: Annotated[str, typer.Option(help="Whose documents these are.")],
    acl: Annotated[str, typer.Option(help="Who may read: group:a,user:b; none: nobody.")] = "",
    label: Annotated[str, typer.Option(help="Of what says none itself; none: identity.default_label.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end.")] = True,
    report: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the index to what a source holds now, as a job of the cluster."""
    from cluster.jobs import IngestJob

    if report is not None and not wait:
        raise InvalidRequest("--report needs the job's end: leave out --no-wait.")
    if label:
        Label.of(label)  # before a job is started
    job = IngestJob(find_running(find_data_dir(config, data_dir)), source, tenant, acl, label)
    if not wait:
        print(json.dumps({"job_id": job.job_id}) if as_json else job.job_id)
        return
    print(f"job {job.job_id}", file=sys.stderr)
    try:
        with documents_bar() as on_progress:
            result = job.follow(on_progress)
    except KeyboardInterrupt:
        job.stop()
        raise InvalidRequest(f"Job {job.job_id} was stopped: run the same command again to go on.") from None
    _finish_ingest(result, report, as_json)


@app.command()
def ask(
    question: str,
    token: Annotated[str, typer.Option(envvar="RAYRAG_TOKEN", help="A bearer token.", show_envvar=True)] = "",
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is written.")] = False,
    top_k: Annotated[int, typer.Option(min=1, max=50)] = 8,
    url: Annotated[str | None, typer.Option(help="The service; default: the one on this machine.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question and print the answer with its citations."""
    from cluster.questions import ask as ask_once
    from cluster.questions import ask_streaming

    if not token:
        raise ConfigurationError("A token is needed: give --token, or RAYRAG_TOKEN=$(rayrag token …).")
    base_url = url.rstrip("/") if url else find_running(find_data_dir(config, data_dir)).api
    if stream and not as_json:
        answer = ask_streaming(base_url, token, question, top_k, lambda text: print(shown(text), end="", flush=True))
        print()
    else:
        answer = ask_once(base_url, token, question, top_k)
        print(json_text(answer) if as_json else shown(answer["answer"]))
    if not as_json:
        _print_citations(answer)


@app.command("eval")
def evaluate_dataset(
    dataset: Annotated[Path, typer.Argument(help="A folder in BEIR's layout.", exists=True, file_okay=False)],
    report: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest a data set into a tenant of its own, ask its questions, and measure what is found."""
    from cluster.evaluation import CUTOFFS, evaluate, table
    from deployments.identity import development_issuer

    issuer = development_issuer(read_settings(config, data_dir).identity)
    with documents_bar() as on_progress:
        result = evaluate(dataset, find_running(find_data_dir(config, data_dir)), issuer, report, on_progress)
    if as_json:
        print(json_text(result))
    else:
        print_table(("data set", "questions", *CUTOFFS), table(result))


@render_app.command("kuberay")
def render_kuberay(
    out: Annotated[Path, typer.Option(help="The directory to write to.")] = Path("manifests"),
    config: Annotated[Path, typer.Option(help="The Serve configuration file.")] = Path("serve_config.gpu.yaml"),
    spec: Annotated[Path | None, typer.Option(help="Image, groups, secrets; default: cluster/spec.yaml.")] = None,
) -> None:
    """Write the Kubernetes manifests of a configuration."""
    from cluster.render import write_manifests
    from cluster.spec import DEFAULT_SPEC

    paths, warned = write_manifests(config, spec or DEFAULT_SPEC, out)
    for path in paths:
        print(path)
    for warning in warned:
        print(f"warning: {warning}", file=sys.stderr)


def _finish_ingest(result: JobResult, file: Path | None, as_json: bool) -> None:
    if not result.succeeded or result.report is None:
        reason = result.reason or "it ended without a report"
        raise Unavailable(f"Job {result.job_id} failed: {reason}")
    if file is not None:
        try:
            file.write_text(json.dumps(result.report, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{file}: {error.strerror or error}: give another file with --report.") from error
    if as_json:
        print(json_text(result.report, indent=None))
        return
    figures = {key: value for key, value in result.report.items() if key != "errors"}
    print_table(tuple(figures), [tuple(str(value) for value in figures.values())])
    errors = result.report.get("errors") or []
    if errors:
        print_table(("quarantined", "reason"), [(str(each["uri"]), str(each["reason"])) for each in errors])


def _print_status(found: dict[str, Any]) -> None:
    word = "ready" if found["ready"] else "running, not ready" if found["running"] else "not running as a whole"
    print(f"{word} ({found['data_dir']})")
    if found["insecure_dev"]:
        print(INSECURE)
    for name, address in found["addresses"].items():
        print(f"  {name.replace('_', ' '):<14} {address}")
    deployments = [
        (each["name"], each["status"].lower(), f"{each['running']}/{each['wanted']}")
        for application in found["applications"]
        for each in application["deployments"]
    ]
    print_table(("deployment", "status", "replicas"), deployments)
    if found["index"]:
        print_table(tuple(found["index"]), [tuple(str(value) for value in found["index"].values())])
    if found["sources"]:
        print_sources(found["sources"])
    rows = [
        (str(each["pid"]), each["name"], f"{each['rss_mb']:.0f}", _mb(each["pss_mb"]), " ".join(each["listening"]))
        for each in found["processes"]
    ]
    memory = found["memory"]
    rows.append(("", "all", f"{memory['rss_mb']:.0f}", _mb(memory["pss_mb"]), ""))
    print_table(("pid", "process", "RSS MB", "PSS MB", "listens on"), rows)
    for error in found["errors"]:
        print(error, file=sys.stderr)


def _mb(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def _print_citations(answer: dict[str, Any]) -> None:
    for citation in answer.get("citations") or []:
        page = f", page {citation['page']}" if citation.get("page") is not None else ""
        print(shown(f"[{citation['n']}] {' '.join(citation['title'].split())}{page}: {citation['uri']}"))
    if answer.get("degraded"):
        print(f"degraded: {', '.join(answer['degraded'])}", file=sys.stderr)
