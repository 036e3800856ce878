"""`rayrag dead-letters`: what was given up, why, and trying again."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.operators import opened_operator
from cluster.terminal import ConfigOption, DataDirOption, JsonOption, json_text, opened_ledger, print_table, shown
from policies.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from index.ledger import Ledger
    from index.ledger_records import DeadLetter
    from policies.audit_chain import Detail

NAMED = 50
"""So many documents are named on the audit record; all are counted."""
dead_letters_app = typer.Typer(no_args_is_help=True, help="Documents that were given up, with the reason.")


@dead_letters_app.command("list")
def dead_letters_list(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the documents that were given up, newest first."""
    with opened_ledger(config, data_dir) as ledger:
        found = ledger.dead_letters(tenant)
    if as_json:
        print(json_text([asdict(each) for each in found]))
        return
    rows = [(each.document_id, each.source, each.external_id, str(each.attempts), each.reason) for each in found]
    print_table(("id", "source", "document", "attempts", "reason"), rows)


@dead_letters_app.command("show")
def dead_letters_show(
    document_id: Annotated[str, typer.Argument(help="The id that `list` prints, or its beginning.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one document that was given up, with all that is known of it."""
    with opened_ledger(config, data_dir) as ledger:
        found = _find(ledger, document_id)
    if as_json:
        print(json_text(asdict(found)))
        return
    for name, value in (asdict(found) | {"at": datetime.fromtimestamp(found.at, UTC).isoformat()}).items():
        print(f"{name:<12} {shown(str(value))}")


@dead_letters_app.command("retry")
def dead_letters_retry(
    document_id: Annotated[str, typer.Argument(help="The id that `list` prints, or its beginning.")] = "",
    source: Annotated[str, typer.Option(help="All of this source.")] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Give documents their attempts again: at once where the source is kept fresh, else at its next `rayrag ingest`."""
    if bool(document_id) == bool(source):
        raise InvalidRequest("Say which: a document's id, or --source NAME.")
    with opened_operator(config, data_dir) as operator:
        ledger = operator.ledger
        chosen = [_find(ledger, document_id)] if document_id else _of(ledger, source)
        tenants = sorted({each.tenant for each in chosen})
        named = [each.document_id for each in chosen[:NAMED]]
        detail: Detail = {"documents": named, "count": len(chosen), "tenants": tenants}
        tenant = tenants[0] if len(tenants) == 1 else ""
        later = operator.do("dead_letters.retry", tenant, detail, lambda: _retry(ledger, chosen))
    print(f"{len(chosen) - later} are tried again now")
    if later:
        print(f"{later} are tried again at the next rayrag ingest of their source")


def _retry(ledger: Ledger, chosen: Sequence[DeadLetter]) -> int:
    """Give their attempts back. Gives how many are of sources that nobody keeps fresh."""
    kept = {(each.tenant, each.name): each.source_id for each in ledger.kept_sources()}
    later = 0
    for each in chosen:
        ledger.retry_dead_letter(each.document_id)
        source_id = kept.get((each.tenant, each.source))
        if source_id is None:
            later += 1
        else:
            ledger.hint(source_id, [each.external_id])
    return later


def _find(ledger: Ledger, document_id: str) -> DeadLetter:
    found = [each for each in ledger.dead_letters() if each.document_id.startswith(document_id)]
    if len(found) != 1:
        raise NotFound(f"{document_id}: {'no dead letter' if not found else 'several dead letters'} with that id")
    return found[0]


def _of(ledger: Ledger, source: str) -> list[DeadLetter]:
    found = [each for each in ledger.dead_letters() if each.source == source]
    if not found:
        raise NotFound(f"{source}: no dead letters of a source with that name")
    return found
