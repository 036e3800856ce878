"""Hiding what nobody can tell the readers of: it holds from the ledger's commit on, and its rows follow."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

from index.ledger import Ledger
from index.ledger_records import RuleSeen, StoredSource
from index.vectors import Rows
from ingest.sources import parse_source
from ingest.stages import repoint
from policies.access import NOBODY
from policies.audit_changes import UNRECORDED, ChangeRecord
from policies.errors import ConfigurationError, RayragError

EVERYTHING = ("",)
log = logging.getLogger(__name__)


def hide(
    ledger: Ledger,
    tenant: str,
    source_id: int,
    below: Sequence[str],
    seen_at: float,
    record: ChangeRecord,
    name: str,
) -> None:
    """Give a source's documents whose ids begin with one of `below` to nobody, but for what was heard of later.

    The next listing names everything: were the cursor kept, nothing would show them again.
    """
    tenant_id = ledger.tenant_id(tenant)
    nobody, beginnings = ledger.intern_rule(tenant_id, NOBODY), tuple(below)
    known = (each for each in ledger.known(source_id) if each.access_id != nobody)
    hidden = [RuleSeen(each.document_id, NOBODY, seen_at) for each in known if each.external_id.startswith(beginnings)]
    if not hidden:
        return
    with record.run(tenant, source_id, name) as run:
        run.begins(hide=[each.document_id for each in hidden])
        ledger.forget_cursor(source_id)  # first: whatever happens next, they are listed again
        ledger.set_rules(tenant_id, hidden)
        for each in hidden:
            run.became(each.document_id, "hidden")


def is_overdue(ledger: Ledger, source_id: int, rights_s: float | None, now: float) -> bool:
    """Say whether no listing of a source ended well for `rights_s`, counted from its first document where none did."""
    if rights_s is None:
        return False
    run = ledger.source_run(source_id)
    since = ledger.first_indexed(source_id) if run is None or run.as_of is None else run.as_of
    return since is not None and now - since > rights_s


def let_rows_follow(ledger: Ledger, store: Rows, source_id: int) -> None:
    """Let the rows carry what the ledger says already: those that nobody may read would take up a search's places.

    Where the store is away that is logged, and the next time does it: the ledger's gate holds meanwhile.
    """
    try:
        for rows in ledger.unwritten_rules(source_id):
            repoint(rows, ledger, store)
    except RayragError as error:
        log.warning("source %d: rows of hidden documents could not follow: %s", source_id, error.detail)


def hide_overdue(source: StoredSource, ledger: Ledger, store: Rows, record: ChangeRecord = UNRECORDED) -> None:
    """Hide a kept source that cannot even be opened, where its `rights_s` is over."""
    began_at = time.time()
    if is_overdue(ledger, source.source_id, _rights_s(source), began_at):
        hide(ledger, source.tenant, source.source_id, EVERYTHING, began_at, record, source.name)
        let_rows_follow(ledger, store, source.source_id)


def _rights_s(source: StoredSource) -> float | None:
    try:
        return parse_source(source.config, source.name).rights_s
    except ConfigurationError:  # maybe that is why it cannot be opened; what it says of this holds all the same
        said = json.loads(source.config).get("rights_s")
        return said if isinstance(said, int | float) else None
