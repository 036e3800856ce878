"""`rayrag roles` and `rayrag access`: why somebody may or may not. They ask the ledger, and are on the audit record."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.operators import Operator, opened_operator
from cluster.terminal import ConfigOption, DataDirOption, JsonOption, json_text, print_table, shown, words
from policies.errors import InvalidRequest, NotFound
from policies.explanations import Check, explain_permission, explain_rule
from policies.principals import Principal, bare_name
from policies.roles import Roles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from index.ledger_records import HeldDocument

roles_app = typer.Typer(no_args_is_help=True, help="What roles give, and why somebody may or may not do something.")
access_app = typer.Typer(no_args_is_help=True, help="Who may read a document, and why.")
SubOption = Annotated[str, typer.Option("--sub", help="The person: the subject of their tokens.")]
TenantOption = Annotated[str, typer.Option("--tenant", help="Their tenant.")]
RolesOption = Annotated[str, typer.Option("--roles", help="Comma-separated, as in their token.")]
GroupsOption = Annotated[str, typer.Option("--groups", help="Comma-separated, as in their token.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token", help="A file with their token, in place of --sub, --tenant, --roles, --groups."),
]
DocumentOption = Annotated[str, typer.Option("--document", help="The document's id.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(roles_app, name="roles")
    app.add_typer(access_app, name="access")


@roles_app.command("explain")
def roles_explain(
    permission: Annotated[str, typer.Option("--permission", help="Such as documents:delete.")],
    sub: SubOption = "",
    tenant: TenantOption = "",
    roles: RolesOption = "",
    groups: GroupsOption = "",
    token: TokenOption = None,
    resource: Annotated[str | None, typer.Option("--resource", help="Such as source/hr-wiki.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a person may do something, which line of which role says so, and which role would."""
    with opened_operator(config, data_dir) as operator:
        known = Roles.load(operator.args.identity.roles)
        caller = _caller(operator, known, sub, tenant, roles, groups, token)
        detail = {"subject": caller.subject, "permission": permission, "resource": resource or ""}
        said = operator.do(
            "rights.explain", caller.tenant, detail, lambda: explain_permission(known, caller, permission, resource)
        )
    if as_json:
        print(json_text({**asdict(said), "clearance": said.clearance.word}))
        return
    print(shown(f"{'allowed' if said.allowed else 'refused'}: {permission}{f' on {resource}' if resource else ''}"))
    for reason in said.reasons:
        print(shown(f"  {reason}"))
    if not said.allowed:
        print(f"  roles that would give it: {', '.join(said.would_give) or 'none'}")
    print(f"  clearance: {said.clearance.word}")


@roles_app.command("list")
def roles_list(config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show every role with its permissions, its clearance and its tenants."""
    from cluster.terminal import read_settings

    known = list(Roles.load(read_settings(config, data_dir).identity.roles).all())
    rows: list[dict[str, Any]] = [
        {
            "role": role.name,
            "permissions": [grant.written for grant in role.grants],
            "clearance": role.clearance.word,
            "tenants": None if role.tenants is None else sorted(role.tenants),
        }
        for role in known
    ]
    if as_json:
        print(json_text(rows))
        return
    cells = [
        (row["role"], " ".join(row["permissions"]), row["clearance"], " ".join(row["tenants"] or ["all"]))
        for row in rows
    ]
    print_table(("role", "permissions", "clearance", "tenants"), cells)


@access_app.command("explain")
def access_explain(
    document: DocumentOption,
    sub: SubOption = "",
    tenant: TenantOption = "",
    roles: RolesOption = "",
    groups: GroupsOption = "",
    token: TokenOption = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a person may read a document, and which name, group or label decides. Exit code 1: they may not."""
    with opened_operator(config, data_dir) as operator:
        known = Roles.load(operator.args.identity.roles)
        caller = _caller(operator, known, sub, tenant, roles, groups, token)
        ways = operator.ledger.groups.explain(caller.tenant, _given(operator, caller, groups, token), caller.subject)
        detail = {"subject": caller.subject, "document": document[:64]}
        said = operator.do(
            "rights.explain", caller.tenant, detail, lambda: _explained(operator, document, caller, ways)
        )
    if as_json:
        print(json_text(said))
    else:
        _print_access(said)
    if not said["readable"]:
        raise typer.Exit(1)


@access_app.command("who")
def access_who(
    document: DocumentOption, config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Show the names in a document's rule, its label, and where the rule came from."""
    with opened_operator(config, data_dir) as operator:
        held = _held(operator, document)
        tenant = operator.ledger.tenant_name(held.document.tenant_id)
        rule = operator.do(
            "rights.who", tenant, {"document": document[:64]}, lambda: operator.ledger.rule(held.document.access_id)
        )
        about = _about(operator, held)
    names = [("allow", name) for name in sorted(rule.allow)] + [("deny", name) for name in sorted(rule.deny)]
    if as_json:
        print(json_text({**about, "tenant": tenant, "allow": sorted(rule.allow), "deny": sorted(rule.deny)}))
        return
    print(shown(f"{about['title']} ({about['external_id']}), {about['label']}, of the tenant {tenant}"))
    print(shown(f"  {about['origin']}"))
    print_table(("rule", "name"), names)
    if not rule.allow:
        print("nobody may read it")


def _caller(
    operator: Operator, known: Roles, sub: str, tenant: str, roles: str, groups: str, token: Path | None
) -> Principal:
    """Make the caller that a request of this person would have: nested groups and clearance included."""
    if token is not None:
        if sub or tenant or roles or groups:
            raise InvalidRequest("--token says it all: leave out --sub, --tenant, --roles and --groups.")
        from deployments.identity import credentials

        text = _read(token)
        return credentials(operator.args.identity, operator.ledger, known).identity.verify(text)
    if not (sub and tenant):
        raise InvalidRequest("Say who: --sub and --tenant, or --token.")
    who = Principal(_name(sub), _name(tenant), _names(roles), _names(groups))
    who = replace(who, groups=operator.ledger.groups.expand(who.tenant, who.groups, who.subject))
    return replace(who, clearance=known.clearance(who))


def _given(operator: Operator, caller: Principal, groups: str, token: Path | None) -> frozenset[str]:
    """The groups that the token itself names, from which the others follow."""
    if token is None:
        return _names(groups)
    from deployments.identity import credentials

    tokens = credentials(operator.args.identity, operator.ledger, Roles.load(operator.args.identity.roles)).tokens
    return tokens.verify(_read(token)).principal.groups & caller.groups


def _explained(
    operator: Operator, document_id: str, caller: Principal, ways: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    held = _held(operator, document_id)
    rule = operator.ledger.rule(held.document.access_id)
    readable = operator.ledger.get(caller, document_id) is not None  # what a request is told; the rest says why
    checks = [_tenant(operator, held, caller), _state(held), *explain_rule(rule, caller, ways)]
    return {
        "readable": readable,
        "subject": caller.subject,
        "tenant": caller.tenant,
        "clearance": caller.clearance.word,
        **_about(operator, held),
        "checks": [asdict(check) for check in checks],
    }


def _tenant(operator: Operator, held: HeldDocument, caller: Principal) -> Check:
    tenant = operator.ledger.tenant_name(held.document.tenant_id)
    same = tenant == caller.tenant
    return Check("tenant", same, f"the document is of the tenant {tenant}{', as the caller' if same else ''}")


def _state(held: HeldDocument) -> Check:
    stored = held.document
    if stored.deleted:
        gone = "its source was removed" if held.source_gone_at is not None else "it was deleted"
        return Check("live", False, f"{gone} at {_time(stored.updated_at)}")
    if stored.version is None:
        return Check("live", False, "its first version is not written yet")
    return Check("live", True, f"version {stored.version} is live")


def _about(operator: Operator, held: HeldDocument) -> dict[str, Any]:
    stored = held.document
    return {
        "document_id": stored.document_id,
        "external_id": stored.external_id,
        "title": stored.title,
        "source": held.source,
        "label": held.label.word,
        "origin": _origin(operator, held),
    }


def _origin(operator: Operator, held: HeldDocument) -> str:
    """Where the rule comes from."""
    if held.document.owner is not None:
        return f"uploaded by {held.document.owner}, who gave the rule, or whoever changed it since"
    run = operator.ledger.source_run(held.document.source_id)
    if run is None or run.as_of is None:
        return f"the rule is the one that the source {held.source} was read with"
    failing = f"; its last listing failed: {run.error}" if run.failures else ""
    return f"the rule is what the source {held.source} said, last listed at {_time(run.as_of)}{failing}"


def _held(operator: Operator, document_id: str) -> HeldDocument:
    held = operator.ledger.held(document_id)
    if held is None:
        raise NotFound(f"no document {document_id[:64]!a}: its id is in a citation, or in rayrag ask --json")
    return held


def _print_access(said: dict[str, Any]) -> None:
    word = "may read" if said["readable"] else "may not read"
    print(shown(f"{said['subject']} of {said['tenant']} {word} {said['title']} ({said['external_id']})"))
    for check in said["checks"]:
        print(shown(f"  {'yes' if check['holds'] else 'NO ':<4}{check['name']:<7}{check['why']}"))
    print(shown(f"  {said['origin']}"))


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _read(token: Path) -> str:
    try:
        return token.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{token}: cannot be read: {type(error).__name__}") from error


def _names(text: str) -> frozenset[str]:
    return frozenset(map(_name, words(text)))


def _name(text: str) -> str:
    try:
        return bare_name(text)
    except ValueError as error:
        raise InvalidRequest(f"{text[:64]!a}: {error}") from error
