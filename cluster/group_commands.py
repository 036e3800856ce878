"""`rayrag groups`: who is in which group, groups within groups, and why somebody is in one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.operators import opened_operator
from cluster.terminal import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    json_text,
    opened_ledger,
    print_table,
    shown,
    words,
)
from policies.errors import InvalidRequest
from policies.groups import Membership
from policies.principals import bare_name

if TYPE_CHECKING:
    from policies.audit_chain import Detail

groups_app = typer.Typer(no_args_is_help=True, help="Groups within groups, beside those that tokens name.")
TenantOption = Annotated[str, typer.Option("--tenant", help="Whose groups these are.")]
COMMAND = "command"
"""The origin of what `rayrag groups set` says."""


@groups_app.command("list")
def groups_list(
    tenant: TenantOption,
    group: Annotated[str | None, typer.Option(help="Only members of this group.")] = None,
    origin: Annotated[str | None, typer.Option(help="Only what this origin says.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List members of groups, with the origin that says so."""
    with opened_ledger(config, data_dir) as ledger:
        found = ledger.groups.memberships(_name(tenant), group and _name(group), origin and _name(origin))
    if as_json:
        print(json_text([asdict(each) for each in found]))
        return
    print_table(("group", "member", "origin"), [(each.group, each.member, each.origin) for each in found])


@groups_app.command("set")
def groups_set(
    group: Annotated[str, typer.Argument(help="The group's name.")],
    members: Annotated[list[str], typer.Argument(help="user:NAME or group:NAME, all that it shall have.")],
    tenant: TenantOption,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Give a group these members, in place of those that it had from this command."""
    edges = [Membership.of(member, group) for member in members]
    with opened_operator(config, data_dir) as operator:
        groups, group = operator.ledger.groups, edges[0].group
        detail: Detail = {"group": group, "members": len(edges)}
        count = operator.do("groups.set", tenant, detail, lambda: groups.replace(tenant, COMMAND, edges, group))
    print(f"{shown(edges[0].group)} has {count} members; it holds from the next request on")


@groups_app.command("import")
def groups_import(
    file: Annotated[Path, typer.Argument(help="CSV (group,member), YAML or JSON ({groups: {NAME: [MEMBER]}}).")],
    tenant: TenantOption,
    origin: Annotated[str, typer.Option(help="Who says this: all that it said before is replaced.")] = "import",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Replace all that an origin says by what a file says, at once; a file that is wrong changes nothing."""
    from ingest.group_file import read_group_file

    edges = read_group_file(file)
    if origin == COMMAND:
        raise InvalidRequest(f"--origin {COMMAND}: that is what rayrag groups set says; choose another name")
    with opened_operator(config, data_dir) as operator:
        groups = operator.ledger.groups
        detail: Detail = {"origin": origin, "memberships": len(edges)}
        count = operator.do("groups.import", tenant, detail, lambda: groups.replace(tenant, origin, edges))
    print(f"{shown(origin)} says {count} memberships; they hold from the next request on")


@groups_app.command("remove")
def groups_remove(
    tenant: TenantOption,
    group: Annotated[str | None, typer.Option(help="Members of this group.")] = None,
    member: Annotated[str | None, typer.Option(help="user:NAME or group:NAME, wherever it is a member.")] = None,
    origin: Annotated[str | None, typer.Option(help="What this origin says.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Remove memberships that are all of what is named."""
    if group is None and member is None and origin is None:
        raise InvalidRequest("Say which: --group, --member, --origin, or several of them.")
    if member is not None:
        member = Membership.of(member, "any").member
    with opened_operator(config, data_dir) as operator:
        groups, whose = operator.ledger.groups, _name(tenant)
        named = group and _name(group), member, origin and _name(origin)
        detail = dict(zip(("group", "member", "origin"), named, strict=True))
        count = operator.do("groups.remove", whose, detail, lambda: groups.remove(whose, *named))
    print(f"{count} memberships are gone; it holds from the next request on")


@groups_app.command("explain")
def groups_explain(
    tenant: TenantOption,
    sub: Annotated[str, typer.Option(help="The person, as their token names them.")],
    groups: Annotated[str, typer.Option(help="Groups of their token, comma-separated.")] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which groups a person is in, and by which way."""
    with opened_ledger(config, data_dir) as ledger:
        found = ledger.groups.explain(_name(tenant), frozenset(map(_name, words(groups))), _name(sub))
    if as_json:
        print(json_text({group: list(way) for group, way in sorted(found.items())}))
        return
    rows = [(group, " > ".join(way) if len(way) > 1 else "their token") for group, way in sorted(found.items())]
    print_table(("group", "by way of"), rows)


def _name(text: str) -> str:
    try:
        return bare_name(text)
    except ValueError as error:
        raise InvalidRequest(f"{text[:64]!a}: {error}") from error
