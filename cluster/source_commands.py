"""`rayrag sources`: which sources are kept fresh, and how that goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.operators import Operator, opened_operator
from cluster.terminal import ConfigOption, DataDirOption, JsonOption, json_text, opened_ledger, print_table, steps
from policies.errors import Conflict, Held, InvalidRequest, NotFound, RayragError, SourceUnavailable, Unavailable

if TYPE_CHECKING:
    from index.ledger import Ledger
    from ingest.source_settings import SourceSettings
    from ingest.source_states import SourceState

QUIET_S = 3.0
"""After a source was forgotten: for so long nothing of it may turn up before its removal counts as done."""

sources_app = typer.Typer(no_args_is_help=True, help="Sources that are kept fresh.")
NameArgument = Annotated[str, typer.Argument(help="The source's name.")]


@sources_app.command("add")
def sources_add(
    name: Annotated[str, typer.Argument(help="What to call it: lower-case letters, digits, '.', '_', '-'.")] = "",
    uri: Annotated[str, typer.Argument(help="A folder, a file, s3://…, or https://…")] = "",
    tenant: Annotated[str, typer.Option(help="Whose documents these are.")] = "",
    acl: Annotated[str, typer.Option(help="Who reads what the source says nothing about: group:a,user:b.")] = "",
    label: Annotated[str, typer.Option(help="Of what says none itself: public, internal, confidential…")] = "",
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow changes as they happen.")] = True,
    file: Annotated[Path | None, typer.Option(help="A sources.yaml: every kind of source, all settings.")] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Reach the source first, from here.")] = True,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Keep a source fresh from now on, or give a known one new settings."""
    wanted = _described(name, uri, tenant, acl, label, watch, file)
    with opened_operator(config, data_dir) as operator:
        for settings in wanted:
            if check:
                _check(settings)
            work = partial(_keep, operator.ledger, settings)
            operator.do("sources.keep", settings.tenant, {"source": settings.name}, work)
            print(f"{settings.name} is kept fresh")


@sources_app.command("list")
def sources_list(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each source's state, lag and last error."""
    from ingest.source_states import source_states

    with opened_ledger(config, data_dir) as ledger:
        found = source_states(ledger, tenant)
    if as_json:
        print(json_text([asdict(state) for state in found]))
    else:
        print_sources([asdict(state) for state in found])


@sources_app.command("sync")
def sources_sync(
    name: NameArgument,
    full: Annotated[bool, typer.Option("--full", help="List everything, not only what changed.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=1)] = 3600.0,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a source now."""
    with opened_ledger(config, data_dir) as ledger:
        source = ledger.kept_source(name)
        if source.paused:
            raise Conflict(f"{name} is paused: rayrag sources resume {name}")
        if full:
            ledger.forget_cursor(source.source_id)
        ledger.hint(source.source_id, [])
        if not wait:
            return
        with steps(f"listing {name}"):
            state = _synced(ledger, source.source_id, name, timeout)
    if as_json:
        print(json_text(asdict(state)))
    else:
        print_table(tuple(state.changes), [tuple(str(value) for value in state.changes.values())])


@sources_app.command("pause")
def sources_pause(name: NameArgument, config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Let a source rest; what is indexed stays."""
    with opened_operator(config, data_dir) as operator:
        _pause(operator, name, True)
    print(f"{name} is paused")


@sources_app.command("resume")
def sources_resume(name: NameArgument, config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Go on with a source that was paused."""
    with opened_operator(config, data_dir) as operator:
        _pause(operator, name, False)
    print(f"{name} goes on")


@sources_app.command("remove")
def sources_remove(
    name: NameArgument,
    keep_documents: Annotated[bool, typer.Option("--keep-documents", help="Leave what is indexed.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Keep a source fresh no longer, and delete its documents from the index (not from the source)."""
    with opened_operator(config, data_dir) as operator:
        ledger = operator.ledger
        source = ledger.kept_source(name)
        _require_not_held(ledger, source.source_id, keep_documents)

        def work() -> int:
            ledger.forget_source(source.source_id, gone=not keep_documents)
            if keep_documents:
                return 0
            with steps(f"deleting the documents of {name}"):
                return _delete_all(ledger, source.source_id)

        detail = {"source": name, "documents": "stay" if keep_documents else "go"}
        count = operator.do("sources.remove", source.tenant, detail, work)
    if keep_documents:
        print(f"{name} is no longer kept fresh; its documents stay")
        return
    print(f"{name} is gone, and {count} documents with it")


def _pause(operator: Operator, name: str, paused: bool) -> None:
    source = operator.ledger.kept_source(name)
    action, work = "sources.pause" if paused else "sources.resume", operator.ledger.pause_source
    operator.do(action, source.tenant, {"source": name}, lambda: work(source.source_id, paused))


def print_sources(states: Sequence[dict[str, Any]]) -> None:
    """Print how the sources are doing."""
    rows = [
        (
            state["name"],
            state["kind"],
            state["state"] + (", behind" if state["behind"] else ""),
            str(state["documents"]),
            str(state["dead_letters"]),
            "-" if state["lag_s"] is None else f"{state['lag_s']:.0f} s",
            state["last_error"] or "",
        )
        for state in states
    ]
    print_table(("source", "kind", "state", "documents", "dead letters", "lag", "last error"), rows)


def _described(
    name: str, uri: str, tenant: str, acl: str, label: str, watch: bool, file: Path | None
) -> Sequence[SourceSettings]:
    from ingest.acl_file import parse_acl
    from ingest.sources import read_sources_file, source_of
    from policies.access import NOBODY
    from policies.labels import Label

    if file is not None:
        if uri or tenant or acl or label:
            raise InvalidRequest("--file says it all: leave out URI, --tenant, --acl and --label.")
        found = [settings for settings in read_sources_file(file) if name in ("", settings.name)]
        if not found:
            raise NotFound(f"{file}: no source is named {name}")
        return found
    if not (name and uri and tenant):
        raise InvalidRequest("Give NAME, URI and --tenant, or --file sources.yaml.")
    rule, known = parse_acl(acl) if acl else NOBODY, Label.of(label) if label else None
    return [source_of(name, uri, tenant, rule, watch, known)]


def _check(settings: SourceSettings) -> None:
    from ingest.sources import open_connector

    try:
        open_connector(settings).check()
    except RayragError as error:
        raise type(error)(f"{settings.name}: {error.detail} (--no-check adds it all the same)") from error


def _keep(ledger: Ledger, settings: SourceSettings) -> None:
    from ingest.sources import uri_of

    ledger.keep_source(settings.tenant, settings.name, uri_of(settings), settings.model_dump_json(exclude_unset=True))


def _synced(ledger: Ledger, source_id: int, name: str, timeout: float) -> SourceState:
    """Wait until the hint that was given is followed. Raises what kept it from that."""
    from ingest.source_states import source_states

    before = ledger.source_run(source_id)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not any(hint.source_id == source_id and not hint.external_id for hint in ledger.hints()):
            return next(state for state in source_states(ledger) if state.name == name)
        run = ledger.source_run(source_id)
        if run is not None and run.failures > (before.failures if before is not None else 0):
            raise SourceUnavailable(f"{name}: {run.error}")
        time.sleep(0.2)
    raise Unavailable(f"{name} was not listed within {timeout:.0f} s: is rayrag up?")


def _require_not_held(ledger: Ledger, source_id: int, keep_documents: bool) -> None:
    from ingest.expiry import held_of

    held = {} if keep_documents else held_of(ledger, source_id)
    if held:
        raise Held(f"{len(held)} of its documents are held ({next(iter(held.values()))}): --keep-documents leaves them")


def _delete_all(ledger: Ledger, source_id: int) -> int:
    """Delete until nothing more turns up: a listing may be on its way, and ends when it sees that it is not wanted."""
    count, quiet_since = 0, time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        found = [document.document_id for document in ledger.known(source_id)]
        if found:
            count += ledger.delete(found)
            quiet_since = time.monotonic()
        time.sleep(0.3)
    return count
