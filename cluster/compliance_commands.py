"""`rayrag compliance`: what rules did to documents, for what purposes data may be used, what is held, what expires."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.operators import Operator, opened_operator
from cluster.terminal import ConfigOption, DataDirOption, JsonOption, json_text, opened_ledger, print_table, shown
from policies.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from policies.compliance.policy import Policy

DAY_S = 86_400.0
compliance_app = typer.Typer(no_args_is_help=True, help="Regimes, purposes and consent, retention and legal holds.")
consent_app = typer.Typer(no_args_is_help=True, help="Consent that was given, and objections and opt-outs.")
hold_app = typer.Typer(no_args_is_help=True, help="Legal holds: what nobody erases, expires or overwrites.")
compliance_app.add_typer(consent_app, name="consent")
compliance_app.add_typer(hold_app, name="hold")

TenantOption = Annotated[str, typer.Option(help="Whose.")]
PurposeOption = Annotated[str, typer.Option(help="As a regime, or the configuration, names it.")]
SubjectOption = Annotated[list[str] | None, typer.Option(help="A person's identifier or name; may be given again.")]
SourceOption = Annotated[str, typer.Option(help="All documents of this source.")]


@compliance_app.command("explain")
def explain(
    document: Annotated[str, typer.Option(help="The document's id, or its beginning.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say of a document what it was taken for and why, what was done to it by which rule, and what holds for it now."""
    with opened_operator(config, data_dir) as operator:
        found = _explained(operator, document)
    if as_json:
        print(json_text(found))
        return
    for name in ("document", "tenant", "source", "label", "minimum_label", "outcome", "screened", "expires", "held"):
        print(f"{name:<14} {shown(str(found[name] if found[name] is not None else '-'))}")
    print_table(("category", "because"), [(name, "; ".join(why)) for name, why in found["categories"].items()])
    columns = ("regime", "rule", "article", "action", "entity", "count")
    print_table(columns, [tuple(str(each[name]) for name in columns) for each in found["done"]])
    print_table(
        ("regime", "rule", "article", "action", "lifted for"),
        [(e["regime"], e["rule"], e["article"], e["action"], ", ".join(e["lifted_for"])) for e in found["in_answers"]],
    )


def _explained(operator: Operator, document: str) -> dict[str, Any]:
    from index.regimes import policies_of

    ledger = operator.ledger
    record = ledger.classifications.get(document)
    policy = policies_of(operator.args.compliance).of(record.tenant, record.source)
    return {
        "document": record.document_id,
        "tenant": record.tenant,
        "source": record.source,
        "label": record.label.word,
        "minimum_label": None if record.minimum is None else record.minimum.word,
        "categories": {name: list(why) for name, why in record.categories.items()},
        "outcome": record.outcome,
        "screened": _moment(record.at),
        "expires": _moment(record.expires_at),
        "held": ledger.holds.of([record.document_id]).get(record.document_id),
        "under_current_policy": record.policy_version == policy.version,
        "done": [
            {name: value for name, value in each.items() if name != "document_id"}
            for each in ledger.classifications.actions(record.document_id)
        ],
        "in_answers": _in_answers(policy, frozenset(record.categories)),
    }


def _in_answers(policy: Policy, categories: frozenset[str]) -> list[dict[str, Any]]:
    return [
        {
            "regime": rule.name.regime,
            "rule": rule.name.rule,
            "article": rule.name.article,
            "action": rule.action.word,
            "lifted_for": sorted(rule.purposes),
        }
        for rule in policy.rules_at("answer")
        if not rule.categories or not rule.categories.isdisjoint(categories)
    ]


@compliance_app.command("report")
def report(
    regime: Annotated[str, typer.Option(help="Which; none: all.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant's documents.")] = "",
    documents: Annotated[bool, typer.Option("--documents", help="Name the documents, too.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which rule did what to how many documents."""
    from index.regimes import policies_of

    with opened_operator(config, data_dir) as operator:
        policies = policies_of(operator.args.compliance)
        records = operator.ledger.classifications
        counted = [asdict(each) for each in records.report(regime or None, tenant or None)]
        if regime and not counted and regime not in policies.regimes:
            raise NotFound(f"{regime[:64]}: no regime of that name is in force, and none did anything")
        if documents:
            for each in counted:
                each["document_ids"] = list(records.documents_of(each["regime"], each["rule"], each["tenant"]))
    if as_json:
        print(json_text(counted))
        return
    columns = ("tenant", "regime", "rule", "article", "action", "entity", "documents", "values")
    rows = [tuple(str(each[name]) for name in columns) for each in counted]
    print_table(columns, rows)
    for each in counted if documents else ():
        print(f"{each['regime']}/{each['rule']} {each['entity']}: {' '.join(each['document_ids'])}")


# ---- consent


@consent_app.command("grant")
def consent_grant(
    tenant: TenantOption,
    purpose: PurposeOption,
    subject: SubjectOption = None,
    source: SourceOption = "",
    everything: Annotated[bool, typer.Option("--everything", help="All of the tenant's documents.")] = False,
    days: Annotated[float, typer.Option(help="For how long; 0: without an end.", min=0)] = 0,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Record that consent was given: by a person, or for a source."""
    until = time.time() + days * DAY_S if days else None
    _set(config, data_dir, tenant, purpose, subject, source, everything, True, until)


@consent_app.command("withdraw")
def consent_withdraw(
    tenant: TenantOption,
    purpose: PurposeOption,
    subject: SubjectOption = None,
    source: SourceOption = "",
    everything: Annotated[bool, typer.Option("--everything", help="All of the tenant's documents.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Record that consent was withdrawn, or that a person objects or opts out. It holds from the next question on."""
    _set(config, data_dir, tenant, purpose, subject, source, everything, False, None)


def _set(
    config: Path | None,
    data_dir: str | None,
    tenant: str,
    purpose: str,
    subject: Sequence[str] | None,
    source: str,
    everything: bool,
    granted: bool,
    until: float | None,
) -> None:
    from index.regimes import policies_of
    from policies.compliance.consent import EVERYTHING, SOURCE, SUBJECT

    if sum((bool(subject), bool(source), everything)) != 1:
        raise InvalidRequest("Say whose: --subject, --source or --everything.")
    with opened_operator(config, data_dir) as operator:
        known = policies_of(operator.args.compliance).anywhere(tenant).purposes
        if purpose not in known:
            allowed = ", ".join(sorted(known)) or "none: no regime with purposes applies to this tenant"
            raise InvalidRequest(f"{purpose[:64]}: no such purpose; allowed: {allowed}")
        scopes = [SUBJECT + each for each in _hashed(operator, tenant, subject or ())]
        scopes += [SOURCE + source] if source else [EVERYTHING] if everything else []
        word = "consent.grant" if granted else "consent.withdraw"

        def work() -> None:
            for scope in scopes:
                operator.ledger.consents.set(tenant, purpose, scope, granted, operator.name, until)

        operator.do(word, tenant, {"purpose": purpose, "scopes": scopes}, work)
    print(f"{len(scopes)} recorded")


def _hashed(operator: Operator, tenant: str, subject: Sequence[str]) -> list[str]:
    from policies.keyed_hashes import KeyedHashes, normalised

    hashes = KeyedHashes.load(Path(operator.args.compliance.key_file))
    if any(len(normalised(each)) < 3 for each in subject):
        raise InvalidRequest("an identifier or a name has at least three letters or digits")
    return sorted(hashes.subjects(tenant, subject))


@consent_app.command("list")
def consent_list(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is on record. People stand there as keyed hashes."""
    with opened_ledger(config, data_dir) as ledger:
        found = ledger.consents.all(tenant or None)
    if as_json:
        print(json_text([asdict(each) for each in found]))
        return
    columns = ("tenant", "purpose", "scope", "state", "since", "until", "by")
    said = {True: "granted", False: "withdrawn"}
    rows = [
        (e.tenant, e.purpose, e.scope, said[e.granted], _moment(e.at) or "", _moment(e.until) or "", e.by)
        for e in found
    ]
    print_table(columns, rows)


# ---- holds


@hold_app.command("add")
def hold_add(
    tenant: TenantOption,
    reason: Annotated[str, typer.Option(help="Why; whoever is refused reads it.")],
    document: Annotated[str, typer.Option(help="This document, by its id.")] = "",
    source: SourceOption = "",
    subject: SubjectOption = None,
    days: Annotated[float, typer.Option(help="For how long; 0: until it is released.", min=0)] = 0,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a document, a source's documents or a person's data."""
    if sum((bool(document), bool(source), bool(subject))) != 1:
        raise InvalidRequest("Say what: --document, --source or --subject.")
    until = time.time() + days * DAY_S if days else None
    with opened_operator(config, data_dir) as operator:
        ledger = operator.ledger
        if document:
            stored = ledger.document(document)
            if stored is None or stored.deleted or ledger.tenant_name(stored.tenant_id) != tenant:
                raise NotFound(f"{document[:64]}: no document of {tenant} with that id")
        targets = [document or source] if not subject else _hashed(operator, tenant, subject)
        kind: Any = "document" if document else "source" if source else "subject"

        def work() -> list[dict[str, Any]]:
            return [asdict(ledger.holds.add(tenant, kind, each, reason, operator.name, until)) for each in targets]

        made = operator.do("hold.add", tenant, {"kind": kind, "targets": targets}, work)
    print(json_text(made) if as_json else "\n".join(each["hold_id"] for each in made))


@hold_app.command("release")
def hold_release(
    hold_id: Annotated[str, typer.Argument(help="The id that `list` prints.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """End a hold."""
    with opened_operator(config, data_dir) as operator:
        held = next((each for each in operator.ledger.holds.all() if each.hold_id == hold_id), None)
        if held is None:
            raise NotFound(f"{hold_id[:64]}: no hold with that id")
        release = operator.ledger.holds.release
        operator.do("hold.release", held.tenant, {"hold": hold_id}, lambda: release(hold_id, operator.name))
    print("released")


@hold_app.command("list")
def hold_list(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List holds, newest first."""
    with opened_ledger(config, data_dir) as ledger:
        found = ledger.holds.all(tenant or None, released=every)
    if as_json:
        print(json_text([asdict(each) for each in found]))
        return
    rows = [(e.hold_id, e.tenant, e.kind, e.target, _moment(e.until) or "", e.by, e.reason) for e in found]
    print_table(("id", "tenant", "kind", "on", "until", "by", "reason"), rows)


@compliance_app.command("release")
def release(
    document: Annotated[str, typer.Option(help="The document's id, or its beginning.")],
    reason: Annotated[str, typer.Option(help="What the review found.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Let a document pass that a rule holds for review: as it is now, with what was found in it masked."""
    with opened_operator(config, data_dir) as operator:
        ledger = operator.ledger
        record = ledger.classifications.get(document)
        document_id = record.document_id

        def work() -> bool:
            ledger.classifications.release(document_id, reason, operator.name)
            letters = [each for each in ledger.dead_letters(record.tenant) if each.document_id == document_id]
            kept = {(each.tenant, each.name): each.source_id for each in ledger.kept_sources()}
            for each in letters:
                ledger.retry_dead_letter(document_id)
                if (each.tenant, each.source) in kept:
                    ledger.hint(kept[each.tenant, each.source], [each.external_id])
                    return True
            return False

        now = operator.do("compliance.release", record.tenant, {"document": document_id}, work)
    print("it is read again now" if now else "it passes at the next rayrag ingest of its source, or when sent again")


@compliance_app.command("expire")
def expire_now(
    now: Annotated[bool, typer.Option("--now", help="Remove them; without it they are only listed.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove documents whose retention is over. The service does it by itself, every compliance.expire_every_s."""
    with opened_operator(config, data_dir) as operator:
        ledger = operator.ledger
        due = [document_id for document_id, _, _ in ledger.classifications.expired(time.time(), most=100_000)]
        held = ledger.holds.of(due)
        removed = [document_id for document_id in due if document_id not in held]
        if now:
            from index.stores import Stores
            from ingest.expiry import expire
            from policies.audit_changes import ChangeRecord

            store = Stores(operator.args)
            store.open()
            done = expire(ledger, store, ChangeRecord(operator.audit, operator.policy_version, operator.name))
            removed, held = done.removed, done.held
    if as_json:
        print(json_text({"removed" if now else "due": removed, "held": held}))
        return
    print(f"{len(removed)} {'removed' if now else 'due'}, {len(held)} held")
    print_table(("document", "held because"), sorted(held.items()))


def _moment(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
