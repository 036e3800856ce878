"""`rayrag audit`: export the record, verify it with or without its database, move its older part, change its key."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.operators import opened_operator
from cluster.terminal import ConfigOption, DataDirOption, JsonOption, read_settings, steps
from policies.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from index.settings import AppArgs
    from policies.audit import AuditLog
    from policies.audit_checkpoints import Checkpoint
    from policies.audit_verdict import Verdict

audit_app = typer.Typer(no_args_is_help=True, help="The record of who was shown what: docs/audit.md.")


class Format(StrEnum):
    """How an export is written. Only `jsonl` can be verified."""

    jsonl = "jsonl"
    ocsf = "ocsf"


@audit_app.command("export")
def audit_export(
    file: Path,
    form: Annotated[
        Format, typer.Option("--format", help="jsonl: to be verified; ocsf: events for a SIEM, no evidence.")
    ] = Format.jsonl,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write the whole record, one JSON object a line, and a signed checkpoint over its end. This is on the record."""
    from policies.audit_ocsf import write_ocsf

    with opened_operator(config, data_dir) as operator, _signing(operator.args) as log:
        work = (lambda: log.export(file)) if form is Format.jsonl else (lambda: write_ocsf(log, file))
        count = operator.do("audit.export", "", {"format": form.value}, work)
    print(f"{count} records written to {file}")


@audit_app.command("key")
def audit_key(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Print the public key that checkpoints are signed for: keep it where the record's keeper cannot change it."""
    with _signing(read_settings(config, data_dir)) as log:
        print(log.public_key_pem(), end="")


@audit_app.command("verify")
def audit_verify(
    export: Annotated[Path | None, typer.Option(help="An exported file, checked without any database.")] = None,
    key: Annotated[Path | None, typer.Option(help="The public key that you trust (`rayrag audit key`).")] = None,
    since: Annotated[Path | None, typer.Option(help="With --export: an earlier export, which it must go on.")] = None,
    segments: Annotated[
        Path | None, typer.Option(help="The directory with older records; default without --export: as configured.")
    ] = None,
    anchor: Annotated[
        str | None, typer.Option(help="Checkpoints kept elsewhere; default without --export: store.audit_anchor.")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that no record was changed, moved, removed or slipped in. Exit code 1 names the first bad one.

    With --anchor also: that the record was neither cut at its end nor made anew, but for what came after the last
    checkpoint there.
    """
    from policies.audit_checkpoints import public_key
    from policies.audit_files import segment_files, verify_export

    trusted = public_key(key) if key else None
    if export is not None:
        older = segment_files(segments) if segments else []
        verdict = verify_export(export, trusted, since, older, _anchored(anchor))
    elif since is not None:
        raise InvalidRequest("--since compares two exports: give the later one with --export.")
    else:
        args = read_settings(config, data_dir)
        directory = segments or (Path(args.store.audit_segments) if args.store.audit_segments else None)
        with _signing(args) as log:
            files = segment_files(directory) if directory else []
            verdict = log.verify(_anchored(anchor or args.store.audit_anchor), trusted, files)
    if verdict.ok and verdict.begins > 1:
        moved = f"missing: the records up to {verdict.begins - 1} are said to be in segments, give --segments"
        verdict = replace(verdict, ok=False, first_bad=1, reason=moved)
    _say(verdict, as_json, signatures=export is None or key is not None)


@audit_app.command("rotate")
def audit_rotate(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Write what came since the last segment to a file in store.audit_segments, and let old segments go."""
    from policies.audit_segments import DAY_S, Segments

    with opened_operator(config, data_dir) as operator, _signing(operator.args) as log:
        store = operator.args.store
        if store.audit_segments is None:
            raise ConfigurationError("store.audit_segments names no directory.")
        segments = Segments(log, Path(store.audit_segments), operator.policy_version)
        with steps("signing, and writing a segment"):
            signed = log.checkpoint()
            cut = segments.cut(signed, operator.name) if signed else None
            gone = segments.remove(store.audit_keep_days * DAY_S) if store.audit_keep_days else 0
    print(f"{cut.file}: records {cut.first} to {cut.last}" if cut else "there is nothing new")
    if gone:
        print(f"{gone} records have left the database")


@audit_app.command("rotate-key")
def audit_rotate_key(
    to: Annotated[
        Path | None, typer.Option(help="The new key's file, made where there is none; you put it in place yourself.")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Make a new signing key; the old one signs that, and is removed. Print the new public key: keep it as well.

    Where the key is a mounted secret: give --to, and put that file in the secret. Nothing is signed until it is there.
    """
    from policies.audit_checkpoints import key_hex
    from policies.audit_signing import signing_key

    with opened_operator(config, data_dir) as operator, _signing(operator.args) as log:
        kept = Path(operator.args.store.audit_key_file)
        coming = to or kept.with_name(f"{kept.name}.next")
        try:
            new = signing_key(coming)
            detail = {"next_key": key_hex(new.public_key())}
            operator.do("audit.rotate_key", "", detail, lambda: _hand_over(log, new, operator.args.store.audit_anchor))
            if to is None:
                os.replace(coming, kept)
        except OSError as error:
            raise ConfigurationError(f"{coming}: {error.strerror or error}: give another file with --to.") from error
        log.use_key(new)
        print(log.public_key_pem(), end="")


def _hand_over(log: AuditLog, new: Ed25519PrivateKey, anchor: str | None) -> None:
    from policies.audit_anchor import open_anchor
    from policies.audit_checkpoints import key_hex

    named = [each.next_key for each in log.signed_checkpoints() if each.next_key]
    if key_hex(new.public_key()) in named[-1:]:
        return  # the command died behind this before
    signed = log.hand_over(new)
    if anchor:
        open_anchor(anchor).add(signed)


@contextmanager
def _signing(args: AppArgs) -> Iterator[AuditLog]:
    from deployments.identity import signing_audit_log

    log = signing_audit_log(args.store)
    try:
        yield log
    finally:
        log.close()


def _anchored(place: str | None) -> list[Checkpoint]:
    from policies.audit_anchor import open_anchor

    if place is None:
        return []
    found = open_anchor(place).all()
    if not found:
        raise ConfigurationError(f"The anchor {place} holds no checkpoint: nothing was signed yet, or they are gone.")
    return found


def _say(verdict: Verdict, as_json: bool, signatures: bool) -> None:
    if as_json:
        print(json.dumps(asdict(verdict)))
    elif verdict.ok:
        end = "to the end" if verdict.signed == verdict.count else f"up to {verdict.signed}"
        signed = f", signed {end}" if signatures else "; the signatures were not checked: give --key"
        print(f"{verdict.count} records, all as they were written{signed}")
    if not verdict.ok:
        if not as_json:
            print(f"Record {verdict.first_bad} is the first bad one: {verdict.reason}.", file=sys.stderr)
        raise typer.Exit(1)
