"""`rayrag revoke`, `disable`, `enable` and `sessions`: who may go on, and who not. Each is on the audit record.

They write to the ledger; every replica reads it within seconds, whether or not it runs on this machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.operators import opened_operator
from cluster.terminal import ConfigOption, DataDirOption, JsonOption, print_table
from policies.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from index.sessions import Session

sessions_app = typer.Typer(no_args_is_help=True, help="People who are signed in here.")
SubOption = Annotated[str, typer.Option(help="The person: the subject of their tokens.")]
TenantOption = Annotated[str, typer.Option(help="Their tenant.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(revoke)
    app.command()(disable)
    app.command()(enable)
    app.add_typer(sessions_app, name="sessions")


def revoke(
    tenant: Annotated[str, typer.Option(help="The tenant; with --sub, one person of it; else everyone.")] = "",
    sub: Annotated[str, typer.Option(help="The person: the subject of their tokens.")] = "",
    token: Annotated[str, typer.Option(help="A token's id (its jti), not the token itself.")] = "",
    before: Annotated[str, typer.Option(help="What was issued by then: 2026-01-31T12:00:00Z; default: now.")] = "",
    everyone: Annotated[bool, typer.Option("--everyone", help="Yes, everyone of the tenant.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Revoke a token, or what a person or a whole tenant was given so far; sessions end."""
    _check_revocation(tenant, sub, token, before, everyone)
    at = _time(before) if before else None
    with opened_operator(config, data_dir) as operator:
        known, by = operator.ledger.revocations, operator.name
        if token:
            operator.do("auth.revoke", tenant, {"token_id": token}, lambda: known.revoke_token(token, by, tenant))
        elif sub:
            detail = {"subject": sub, "before": before or "now"}
            operator.do("auth.revoke", tenant, detail, lambda: known.revoke_person(tenant, sub, by, at))
        else:
            detail = {"everyone": "yes", "before": before or "now"}
            operator.do("auth.revoke", tenant, detail, lambda: known.revoke_tenant(tenant, by, at))
    print("revoked; no replica takes it after 30 seconds")


def disable(sub: SubOption, tenant: TenantOption, config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Let nothing that a person has or gets hold any more, until `rayrag enable`."""
    with opened_operator(config, data_dir) as operator:
        known = operator.ledger.revocations
        operator.do("auth.disable", tenant, {"subject": sub}, lambda: known.disable(tenant, sub, operator.name))
    print("disabled; no replica lets them in after 30 seconds")


def enable(sub: SubOption, tenant: TenantOption, config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Let a disabled person sign in anew; what they had before stays revoked."""
    with opened_operator(config, data_dir) as operator:
        known = operator.ledger.revocations

        def work() -> None:
            if not known.enable(tenant, sub, operator.name):
                raise NotFound(f"{sub} of {tenant} is not disabled.")

        operator.do("auth.enable", tenant, {"subject": sub}, work)
    print("enabled")


@sessions_app.command("list")
def list_sessions(
    tenant: Annotated[str | None, typer.Option(help="Of one tenant.")] = None,
    sub: Annotated[str | None, typer.Option(help="Of one person.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the sessions that go on, newest first, 1000 at most."""
    with opened_operator(config, data_dir) as operator:
        rows = [_shown(session) for session in operator.ledger.sessions.alive(tenant, sub)]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        columns = ("session", "tenant", "subject", "way", "since", "last_seen", "until")
        print_table(columns, [tuple(row[column] for column in columns) for row in rows])


@sessions_app.command("end")
def end_session(session: str, config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """End a session, with all its tokens."""
    with opened_operator(config, data_dir) as operator:

        def work() -> None:
            if operator.ledger.sessions.end(session, operator.name) is None:
                raise NotFound(f"No session {session} goes on: rayrag sessions list shows those that do.")

        operator.do("auth.end_session", "", {"session": session}, work)
    print("ended; no replica takes its tokens after 30 seconds")


def _check_revocation(tenant: str, sub: str, token: str, before: str, everyone: bool) -> None:
    if bool(sub) + bool(token) + everyone != 1:
        raise InvalidRequest("Say what to revoke: --sub, --token, or --everyone of a tenant.")
    if not tenant and not token:
        raise InvalidRequest("Say of which tenant: --tenant.")
    if token and before:
        raise InvalidRequest("--before is for people: a token is revoked whenever it was issued.")
    if token.count(".") == 2:
        raise InvalidRequest("This is a token: give its id (jti), so that the token itself stays out of the history.")


def _time(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"--before {text[:40]!a}: write a time such as 2026-01-31T12:00:00Z.") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _shown(session: Session) -> dict[str, Any]:
    who = asdict(session.principal)
    times = (session.started_at, session.seen_at, session.expires_at)
    since, seen, until = (datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") for at in times)
    return {
        "session": session.session_id,
        "tenant": who["tenant"],
        "subject": who["subject"],
        "way": session.way,
        "since": since,
        "last_seen": seen,
        "until": until,
    }
