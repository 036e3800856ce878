"""`rayrag privacy`: people's requests at this machine, and the physical erasure. All of it is on the audit record."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.operators import Operator, opened_operator
from cluster.terminal import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    json_text,
    print_table,
    read_settings,
    shown,
    steps,
)
from policies.errors import ConfigurationError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from index.privacy_requests import PrivacyRequest
    from ingest.privacy_work import PrivacyWork
    from policies.privacy.subject import Subject

privacy_app = typer.Typer(no_args_is_help=True, help="What people ask for of their own data: docs/peoples-requests.md.")
TenantOption = Annotated[str, typer.Option("--tenant", help="The tenant.")]


class Kind(StrEnum):
    """What a person may ask for."""

    access = "access"
    rectification = "rectification"
    erasure = "erasure"
    portability = "portability"
    restriction = "restriction"
    objection = "objection"


@privacy_app.command("request")
def privacy_request(
    kind: Annotated[Kind, typer.Argument(help="What is asked for.")],
    tenant: TenantOption,
    identifier: Annotated[list[str] | None, typer.Option(help="What is theirs alone; may be given again.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="A name, in each spelling; may be given again.")] = None,
    subject: Annotated[
        Path | None, typer.Option(help="A JSON file {identifiers, names, corrections}: keeps them out of the history.")
    ] = None,
    owned: Annotated[bool, typer.Option("--owned", help="Erase what they uploaded as well.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """File what a person asks for, and work on it."""
    from ingest.privacy_work import Asked

    told = _told(subject)
    who = _subject([*told.get("identifiers", []), *(identifier or [])], [*told.get("names", []), *(name or [])])
    corrections = {each["old"]: each["new"] for each in told.get("corrections", [])}
    asked = Asked(kind.value, who, owned, corrections)
    with _working(config, data_dir) as (operator, work):
        opened = operator.do(
            "privacy.request", tenant, {"type": kind.value}, lambda: work.open(tenant, operator.name, asked)
        )
        with steps(f"{kind.value} {opened.privacy_request_id}"):
            work.run_due()
    _show(_get(config, data_dir, tenant, opened.privacy_request_id), as_json)


@privacy_app.command("list")
def privacy_list(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of one tenant.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List requests, newest first."""
    from index.privacy_requests import PrivacyRequests

    requests = PrivacyRequests(read_settings(config, data_dir).store.ledger)
    try:
        found = requests.of_tenant(tenant)
    finally:
        requests.close()
    if as_json:
        print(json_text([_dict(each) for each in found]))
        return
    rows = [
        (each.privacy_request_id, each.tenant, each.type, each.state, each.physical, _when(each.requested_at))
        for each in found
    ]
    print_table(("request", "tenant", "type", "state", "disk", "asked at"), rows)


@privacy_app.command("show")
def privacy_show(
    request_id: Annotated[str, typer.Argument(help="The request's id.")],
    tenant: TenantOption,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far a request is, what was found, and its receipt."""
    _show(_get(config, data_dir, tenant, request_id), as_json)


@privacy_app.command("export")
def privacy_export(
    request_id: Annotated[str, typer.Argument(help="An access or a portability request's id.")],
    file: Annotated[Path, typer.Argument(help="The zip to write.")],
    tenant: TenantOption,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write the answer to an access or a portability request."""
    with _working(config, data_dir) as (operator, work):
        detail = {"privacy_request": request_id}
        made = operator.do("privacy.export", tenant, detail, lambda: work.export(tenant, request_id))
    if made is None:
        raise NotFound(f"Request {request_id} has no export, or its time is over.")
    try:
        file.touch(mode=0o600)
        file.write_bytes(made)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or error}") from error
    print(f"{file} written: read it before it leaves, for it may name others as well")


@privacy_app.command("lift")
def privacy_lift(
    request_id: Annotated[str, typer.Argument(help="A restriction's or an objection's id.")],
    tenant: TenantOption,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """End a restriction or an objection: the data may be used again."""
    with _working(config, data_dir) as (operator, work):
        operator.do("privacy.lift", tenant, {"privacy_request": request_id}, lambda: work.lift(tenant, request_id))
    print(f"{request_id} is lifted")


@privacy_app.command("purge")
def privacy_purge(
    now: Annotated[bool, typer.Option("--now", help="Do it now, and not when it is due.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take what was erased off the disk as well: the store and the databases are written anew. Ends with receipts."""
    with _working(config, data_dir) as (_, work), steps("purging"):
        if now:
            done = work.purge(always=True)
        else:
            work.run_due()
            done = []
    if as_json:
        print(json_text([_dict(each) for each in done]))
        return
    if not done:
        print("done; no request waited for it" if now else "what was due is done; --now does not wait for the rest")
    for each in done:
        print(f"{each.privacy_request_id}: gone from the disk; rayrag privacy show has the receipt")


@privacy_app.command("verify-receipt")
def privacy_verify_receipt(
    file: Annotated[Path, typer.Argument(help="A receipt, or what `show --json` printed.")],
    key: Annotated[Path | None, typer.Option(help="The public key (`rayrag audit key`); default: this one's.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Check that a receipt is as it was signed. Exit code 1 says why it is not."""
    from policies.audit_checkpoints import public_key
    from policies.audit_signing import signing_key
    from policies.privacy.receipt import why_not

    try:
        receipt = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: no JSON can be read from it") from error
    if isinstance(receipt, dict) and "receipt" in receipt:
        receipt = receipt["receipt"]
    if key is None:
        trusted = signing_key(Path(read_settings(config, data_dir).store.audit_key_file)).public_key()
    else:
        trusted = public_key(key)
    reason = why_not(receipt, trusted)
    if reason is not None:
        print(f"The receipt does not hold: {reason}.", file=sys.stderr)
        raise typer.Exit(1)
    print(f"the receipt of request {receipt['privacy_request_id']} is as it was signed")


@contextmanager
def _working(config: Path | None, data_dir: str | None) -> Iterator[tuple[Operator, PrivacyWork]]:
    from deployments.privacy_desk import privacy_work
    from ingest.embedding import CachedEmbedder

    with opened_operator(config, data_dir) as operator:
        work = privacy_work(operator.args, CachedEmbedder(operator.args))
        try:
            yield operator, work
        finally:
            work.close()


def _get(config: Path | None, data_dir: str | None, tenant: str, request_id: str) -> PrivacyRequest:
    from index.privacy_requests import PrivacyRequests

    requests = PrivacyRequests(read_settings(config, data_dir).store.ledger)
    try:
        return requests.get(tenant, request_id)
    finally:
        requests.close()


def _subject(identifiers: list[str], names: list[str]) -> Subject:
    from policies.privacy.subject import Subject

    return Subject(tuple(identifiers), tuple(names))


def _told(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: no JSON can be read from it") from error
    if not isinstance(told, dict) or set(told) - {"identifiers", "names", "corrections"}:
        raise InvalidRequest(f"{file}: give an object with identifiers, names and, to correct something, corrections")
    return told


def _dict(request: PrivacyRequest) -> dict[str, Any]:
    return {
        "privacy_request_id": request.privacy_request_id,
        "tenant": request.tenant,
        "type": request.type,
        "status": request.state,
        "reason": request.reason,
        "requested_at": _when(request.requested_at),
        "done_at": None if request.done_at is None else _when(request.done_at),
        "found": dict(request.found),
        "physical": request.physical,
        "receipt": request.receipt,
    }


def _show(request: PrivacyRequest, as_json: bool) -> None:
    if as_json:
        print(json_text(_dict(request)))
        return
    print(f"{request.privacy_request_id}: {request.type}, {request.state}")
    if request.reason:
        print(shown(f"  {request.reason}"))
    counts = [(name, str(count)) for name, count in request.found.items() if isinstance(count, int) and count]
    print_table(("where", "found"), counts)
    for name, why in dict(request.found.get("kept", {})).items():
        print(shown(f"  {name} stays: {why}"))
    if request.physical != "none":
        print("  gone from the disk" if request.physical == "done" else "  not gone from the disk yet: privacy purge")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
