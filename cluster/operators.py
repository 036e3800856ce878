"""Whoever works at this machine: what they do to people and rights goes on the audit record."""

from __future__ import annotations

import getpass
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.terminal import read_settings
from policies.errors import RayragError

if TYPE_CHECKING:
    from pathlib import Path

    from index.ledger import Ledger
    from index.settings import AppArgs
    from policies.audit import AuditLog
    from policies.audit_chain import Detail

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operator:
    """Who works at this machine, and where what they do is kept and recorded."""

    name: str
    args: AppArgs
    ledger: Ledger
    audit: AuditLog
    policy_version: str

    def do(self, action: str, tenant: str, detail: Detail, work: Callable[[], T]) -> T:
        """Put it on the record, do it, and put on the record what came of it."""
        from policies.audit_chain import AuditIntent, AuditOutcome
        from policies.guard import outcome_of

        line: dict[str, Any] = {
            "request_id": uuid.uuid4().hex,
            "actor": self.name,
            "tenant": tenant,
            "action": action,
            "policy_version": self.policy_version,
        }
        self.audit.intent(AuditIntent(**line, detail=detail))
        try:
            result = work()
        except RayragError as error:
            self.audit.outcome(AuditOutcome(**line, outcome=outcome_of(error), detail=detail))
            raise
        self.audit.outcome(AuditOutcome(**line, outcome="ok", detail=detail))
        return result


@contextmanager
def opened_operator(config: Path | None, data_dir: str | None) -> Iterator[Operator]:
    """Open the ledger and the audit record for one command."""
    with operator_of(read_settings(config, data_dir)) as operator:
        yield operator


@contextmanager
def operator_of(args: AppArgs) -> Iterator[Operator]:
    """Open them for a command that has read its settings."""
    from deployments.identity import audit_log, policy_version
    from index.ledger import Ledger

    ledger = Ledger(args.store.ledger)
    try:
        audit = audit_log(args)
        try:
            yield Operator(f"operator:{getpass.getuser()}", args, ledger, audit, policy_version(args))
        finally:
            audit.close()
    finally:
        ledger.close()
