"""`rayrag reindex`: another embedding model for the index, without an outage and with a way back."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.operators import operator_of
from cluster.terminal import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    documents_bar,
    find_data_dir,
    find_running,
    json_text,
    print_table,
    read_settings,
    steps,
)
from policies.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from index.models import HeldModel
    from index.settings import AppArgs

STEPS = ("rollback", "drop_previous", "abandon", "status")


def reindex(
    model: Annotated[Path | None, typer.Option(help="The new model's directory, on every node.")] = None,
    sample: Annotated[int, typer.Option(help="Questions to compare the models with.", min=1, max=100_000)] = 200,
    seed: Annotated[int, typer.Option(help="Which questions; the same seed, the same questions.")] = 0,
    query_prefix: Annotated[str | None, typer.Option(help="What the model wants before a question.")] = None,
    passage_prefix: Annotated[str | None, typer.Option(help="What the model wants before a passage.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="How much of a passage it reads.", min=16)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Promote without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Promote a model that finds less, too.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Answer from the previous model again.")] = False,
    drop_previous: Annotated[bool, typer.Option("--drop-previous", help="Remove the previous model's rows.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Give up the model that is being filled.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show which models the index holds.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill the index for another embedding model from its stored text, compare, and answer from it."""
    chosen = [name for name, given in zip(STEPS, (rollback, drop_previous, abandon, status), strict=True) if given]
    if len(chosen) + (model is not None) != 1:
        raise InvalidRequest("Give exactly one of --model, --rollback, --drop-previous, --abandon and --status.")
    if chosen:
        _step(chosen[0], read_settings(config, data_dir), as_json)
        return
    assert model is not None
    changes = {"query_prefix": query_prefix, "passage_prefix": passage_prefix, "max_tokens": max_tokens}
    given = {key: value for key, value in changes.items() if value is not None}
    report = _fill(find_data_dir(config, data_dir), model, given, sample, seed)
    if as_json:
        print(json_text(report, indent=None))
    else:
        _print_report(report)
    if report["state"] == "live":
        print("it answers already", file=sys.stderr)
        return
    if not yes and not (sys.stdin.isatty() and typer.confirm("Answer from it from now on?")):
        print("it is filled and kept up to date: --model again promotes it, --abandon removes it", file=sys.stderr)
        return
    _promote(read_settings(config, data_dir), force)


def _fill(data_dir: Path, model: Path, given: dict[str, Any], sample: int, seed: int) -> dict[str, Any]:
    from cluster.jobs import ReindexJob

    directory = model.expanduser().absolute()
    if not directory.is_dir():
        raise InvalidRequest(f"{directory} is no directory: give the new embedding model's.")
    job = ReindexJob(find_running(data_dir), directory, given, sample, seed)
    print(f"job {job.job_id}", file=sys.stderr)
    try:
        with documents_bar() as on_progress:
            result = job.follow(on_progress)
    except KeyboardInterrupt:
        job.stop()
        raise InvalidRequest(f"Job {job.job_id} was stopped: run the same command again to go on.") from None
    if not result.succeeded or result.report is None:
        raise Unavailable(f"Job {result.job_id} failed: {result.reason or 'it left no report'}")
    return result.report


def _promote(args: AppArgs, force: bool) -> None:
    from index.models import is_behind
    from ingest.reindex import Reindex

    with steps("promoting"), operator_of(args) as operator:
        changes = Reindex(args)
        try:
            live = operator.do("models.promote", "", {"force": force}, lambda: changes.promote(force))
        finally:
            changes.close()
    print(f"{live.model_id} answers now; rayrag reindex --rollback goes back, --drop-previous makes it final")
    behind = is_behind(live, args.embedding)
    if behind:
        print(behind, file=sys.stderr)


def _step(name: str, args: AppArgs, as_json: bool) -> None:
    from index.models import FILLING, PREVIOUS
    from ingest.reindex import Reindex

    if name == "status":
        _print_status(args, as_json)
        return
    changes = Reindex(args)
    try:
        with steps(name.replace("_", " ")), operator_of(args) as operator:
            if name == "rollback":
                done = operator.do("models.rollback", "", {}, changes.rollback)
            else:
                which = PREVIOUS if name == "drop_previous" else FILLING
                done = operator.do("models.drop", "", {"which": which}, lambda: changes.drop(which))
    finally:
        changes.close()
    print(f"{done.model_id} {'answers again' if name == 'rollback' else 'is removed'}")


def _print_status(args: AppArgs, as_json: bool) -> None:
    from index.models import Models

    models = Models(args.store.ledger)
    try:
        found = [_shown(model) for model in models.all()]
    finally:
        models.close()
    if as_json:
        print(json_text(found))
        return
    rows = [(each["model_id"], each["state"], each["since"], each["filled"], _compared(each)) for each in found]
    print_table(("model", "state", "since", "filled", "recall@10 (before), overlap"), rows)


def _shown(model: HeldModel) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "state": model.state,
        "settings": dict(model.settings),
        "since": _when(model.live_at or model.started_at),
        "filled": _when(model.filled_at),
        "comparison": None if model.comparison is None else dict(model.comparison),
    }


def _compared(shown: dict[str, Any]) -> str:
    found = shown["comparison"]
    return f"{found['recall_new']:.3f} ({found['recall_old']:.3f}), {found['overlap']:.3f}" if found else ""


def _print_report(report: dict[str, Any]) -> None:
    names = ("model", "discovered", "indexed", "unchanged", "chunks", "embedded", "lost", "seconds")
    print_table(names, [tuple(str(report[name]) for name in names)])
    found = report["comparison"]
    if found is not None:
        row = [f"{found[name]:.3f}" for name in ("recall_old", "recall_new", "overlap", "truncated")]
        columns = ("questions", "recall@10 live", "recall@10 new", "overlap@10", "chunks cut short", "may lose")
        print_table(columns, [(str(found["questions"]), *row, str(found["margin"]))])


def _when(at: float | None) -> str:
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
