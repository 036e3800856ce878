"""People's requests, from the officer's words to the receipt. It runs where the index is written, and in `rayrag`.

open ──▶ queued ──▶ run_due: claim ──▶ find, erase, correct, restrict or export ──▶ done
                                                   what erases: ──▶ purge when due, or now ──▶ receipt
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from index.ledger import Ledger
from index.privacy_requests import PrivacyRequest, PrivacyRequests, Type
from index.settings import AppArgs
from index.subject_rows import Sought
from index.suppressions import STATE, SuppressionList, suppressions_url
from ingest.access_export import AccessExport, Records
from ingest.erasure import Erasure, Found, monotonic_beat
from ingest.purge import Purge
from ingest.stages import Embed
from ingest.subjects import LogPlace
from policies.audit_chain import AuditIntent, AuditOutcome
from policies.errors import Conflict, InvalidRequest, RayragError, Unavailable
from policies.guard import outcome_of
from policies.keyed_hashes import KeyedHashes
from policies.privacy.receipt import signed_receipt
from policies.privacy.sealing import Sealing
from policies.privacy.subject import Subject, normal
from policies.privacy.suppression import Action, Matcher, Suppression, entries_of

DAY_S = 86_400.0
MOST_HELD = 2_000
ERASING = ("erasure", "rectification")
ACTIONS: dict[Type, Action] = {
    "erasure": "erase",
    "rectification": "replace",
    "restriction": "restrict",
    "objection": "restrict",
}
RESTORED = "restored"
"""Who asked for what an older backup does not know of any more."""
log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Keeps the audit record."""

    def intent(self, intent: AuditIntent) -> int:
        """Record what is about to happen."""
        ...

    def outcome(self, outcome: AuditOutcome) -> int:
        """Record what came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What an officer asks for. `corrections`: by the old value, what is to stand in its place."""

    type: Type
    subject: Subject
    owned: bool = False
    corrections: Mapping[str, str] = field(default_factory=dict)

    def checked(self) -> Asked:
        """Give it back, checked. Raises `InvalidRequest`, which says what is missing."""
        if self.type != "rectification":
            if self.corrections:
                raise InvalidRequest("corrections: only a rectification has some")
            return Asked(self.type, self.subject.checked(names_alone=self.type != "erasure"), self.owned)
        if not self.corrections:
            raise InvalidRequest("corrections: missing; give each old value with the new one")
        if any(not new.strip() or len(new) > 200 for new in self.corrections.values()):
            raise InvalidRequest("corrections: a new value has 1 to 200 characters")
        self.wrong.checked()
        return Asked(self.type, self.subject.checked(), False, self.corrections)

    @property
    def wrong(self) -> Subject:
        """The old values of a rectification, told apart as identifiers and names."""
        names = tuple(old for old in self.corrections if " " in old.strip() and normal(old).isalpha())
        return Subject(tuple(old for old in self.corrections if old not in names), names)


class PrivacyWork:
    """Takes requests and works on them, in threads of its caller. Raises `Unavailable` where a part does not answer."""

    def __init__(
        self,
        args: AppArgs,
        embed: Embed,
        audit: Recorder,
        policy_version: str,
        records: Records | None = None,
        signing_key: Callable[[], Ed25519PrivateKey] | None = None,
    ) -> None:
        """`records` gives the audit record, for who was shown what. `signing_key` is asked for with each receipt."""
        self._args = args
        self._embed = embed
        self._audit = audit
        self._policy_version = policy_version
        self._records = records
        self._signing_key = signing_key
        self._keyed = KeyedHashes.load(Path(args.compliance.key_file))
        self._sealing = Sealing(self._keyed)
        self._list = SuppressionList(suppressions_url(args), self._keyed)
        self._requests = PrivacyRequests(args.store.ledger)
        self._ledger = Ledger(args.store.ledger)
        self._erasure = Erasure(args, embed, self._requests)

    # ---- taking requests

    def open(self, tenant: str, by: str, asked: Asked) -> PrivacyRequest:
        """Take a request. Raises `InvalidRequest` for an unclear one, and `Conflict` for data that are held."""
        asked = asked.checked()
        request_id = uuid.uuid4().hex
        hashes = sorted(self._hashes(tenant, asked.subject))
        if asked.type in ERASING:
            reason = self._held_at_once(tenant, asked, request_id)
            if reason is not None:
                raise Conflict(f"data of this person are held: {reason}")
        sealed = self._sealing.seal(tenant, {**asdict(asked), "corrections": dict(asked.corrections)})
        self._requests.add(request_id, tenant, asked.type, by, sealed, hashes)
        return self._requests.get(tenant, request_id)

    def lift(self, tenant: str, request_id: str) -> None:
        """End a restriction or an objection: the data may be used again. Raises `Conflict` for what was erased."""
        request = self._requests.get(tenant, request_id)
        if ACTIONS.get(request.type) != "restrict":
            raise Conflict("only a restriction or an objection can be lifted")
        self._list.lift(tenant, request_id)
        self._requests.finish(request_id, "done", request.found, "lifted")

    def _held_at_once(self, tenant: str, asked: Asked, request_id: str) -> str | None:
        reason = self._ledger.holds.any_for(tenant, self._hashes(tenant, asked.subject))
        tenant_id = self._ledger.find_tenant(tenant)
        if reason is not None or tenant_id is None:
            return reason
        ids: list[str] = []
        for hold in self._ledger.holds.all(tenant):
            if hold.kind == "document":
                ids.append(hold.target)
            elif hold.kind == "source":
                ids += self._of_source(tenant, tenant_id, hold.target)
        who = self._who(tenant, self._entries(tenant, asked, request_id), asked)
        named = set(self._erasure.named(who)) & set(ids) if ids else set()
        found = [each.version.document_id for each in self._erasure.of(who, ids[:MOST_HELD])] if ids else []
        return self._erasure.held([*named, *found])

    def _of_source(self, tenant: str, tenant_id: int, name: str) -> list[str]:
        _, source_id = self._ledger.place(tenant, name)
        return [stored.document_id for stored in self._ledger.find(tenant_id, source_id=source_id)]

    # ---- working on them

    def run_due(self) -> int:
        """Work on all that waits, and purge what is due; give how many requests were worked on."""
        self._take_restored()
        count = 0
        while (request := self._requests.claim()) is not None:
            self._recorded(request, f"privacy.{request.type}", lambda request=request: self._run(request))  # type: ignore[misc]
            count += 1
        self._requests.drop_exports()
        due = self._requests.pending(time.time() - self._args.compliance.physical_erasure_days * DAY_S)
        restored = [each for each in self._requests.pending() if each.requested_by == RESTORED]
        if due or restored:
            self.purge()
        return count

    def purge(self, tenant: str | None = None, always: bool = False) -> list[PrivacyRequest]:
        """Erase physically whatever waits for it, at once, and give the requests with their receipts.

        `always`: also where nothing waits, as after an older store was put back under a newer ledger.
        """
        waiting = [each for each in self._requests.pending() if tenant is None or each.tenant == tenant]
        if not waiting and not always:
            return []
        founds = {each.privacy_request_id: self._recheck(each) for each in waiting}
        purge = Purge(self._args)
        try:
            physical = purge.run().as_dict()
        finally:
            purge.close()
        for request in waiting:
            self._recorded(request, "privacy.purge", lambda request=request: self._receipt(request, founds, physical))  # type: ignore[misc]
        return [self._requests.get(each.tenant, each.privacy_request_id) for each in waiting]

    def _recheck(self, request: PrivacyRequest) -> Found:
        """Look for the person again, and erase what came since: what is purged must be gone."""
        who = self._who(request.tenant, self._list.of_request(request.tenant, request.privacy_request_id), None)
        who = Sought(who.tenant, who.tenant_id, who.matcher, frozenset(request.subject))
        found = self._erasure.find(who)
        if found.left:
            found = self._erasure.erase(who, correcting=request.type == "rectification")
        LogPlace(Path(self._args.data_dir)).erase(who)
        return found

    def _receipt(
        self, request: PrivacyRequest, founds: Mapping[str, Found], physical: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        left = self._recheck(request)
        if left.left and request.type == "erasure":
            raise Unavailable("something of this person is still found: the purge has to be run again")
        if self._signing_key is None:
            raise Unavailable("there is no key for the receipt: run rayrag privacy purge --now where the audit key is")
        facts = {
            "privacy_request_id": request.privacy_request_id,
            "tenant": request.tenant,
            "type": request.type,
            "subject": sorted(request.subject),
            "requested_at": _iso(request.requested_at),
            "erased_at": _iso(request.done_at or request.requested_at),
            "purged_at": _iso(time.time()),
            "found": {name: count for name, count in request.found.items() if isinstance(count, int)},
            "left": dict(left.counts),
            "kept": {name: why for name, why in left.kept.items() if left.counts.get(name)},
            "physical": dict(physical),
        }
        receipt = signed_receipt(facts, self._signing_key())
        self._requests.purged(request.privacy_request_id, receipt)
        return {"left": left.left}

    def _run(self, request: PrivacyRequest) -> Mapping[str, Any]:
        beat = monotonic_beat(lambda: self._requests.heard(request.privacy_request_id))
        tenant, request_id = request.tenant, request.privacy_request_id
        asked = None if request.sealed is None else self._asked(tenant, request.sealed)
        entries = self._list.of_request(tenant, request_id)
        if asked is not None and not entries:
            entries = self._entries(tenant, asked, request_id)
        who = self._who(tenant, entries, asked)
        who = Sought(who.tenant, who.tenant_id, who.matcher, frozenset(request.subject), who.owned)
        if request.type in ("access", "portability"):
            return self._export(request, asked, who, beat)
        if request.type in ERASING:
            return self._erase(request, entries, who, beat)
        self._list_now(tenant, entries)
        found = self._erasure.find(who, beat, everywhere=False).as_dict()
        self._requests.finish(request_id, "done", found)
        return found

    def _erase(
        self, request: PrivacyRequest, entries: Sequence[Suppression], who: Sought, beat: Callable[[], None]
    ) -> Mapping[str, Any]:
        tenant, request_id = request.tenant, request.privacy_request_id
        found = self._erasure.find(who, beat)
        reason = self._ledger.holds.any_for(tenant, who.subject) or self._erasure.held(found.document_ids)
        if reason is not None:
            self._requests.finish(request_id, "refused", found.as_dict(), f"data of this person are held: {reason}")
            return {"refused": True}
        self._list_now(tenant, entries)  # before anything is rewritten, or it could come back behind us
        if not request.found:  # a run that was killed found more
            self._requests.heard(request_id, found.as_dict())
        self._erasure.erase(who, beat, correcting=request.type == "rectification")
        counts = request.found or found.as_dict()
        self._requests.finish(request_id, "done", counts)
        return counts

    def _list_now(self, tenant: str, entries: Sequence[Suppression]) -> None:
        self._list.add(tenant, entries)
        # So that a list that is lost is missed at the next start.
        self._ledger.set_state(STATE, str(self._list.revision()))

    def _export(
        self, request: PrivacyRequest, asked: Asked | None, who: Sought, beat: Callable[[], None]
    ) -> Mapping[str, Any]:
        if asked is None:
            raise Unavailable("what was asked is not known any more")
        days = self._args.compliance.physical_erasure_days
        retention = (
            "documents are kept for as long as their source has them, or until a retention rule of the tenant ends "
            f"that; what is erased leaves the disk within {days:g} days"
        )
        subject = {"identifiers": list(asked.subject.identifiers), "names": list(asked.subject.names)}
        export = AccessExport(self._erasure, self._ledger, self._records)
        made, found = export.make(who, subject, request.type, retention, beat)
        until = time.time() + self._args.compliance.export_days * DAY_S
        self._requests.keep_export(request.privacy_request_id, self._sealing.seal_bytes(request.tenant, made), until)
        self._requests.finish(request.privacy_request_id, "done", found)
        return found

    def _take_restored(self) -> None:
        """Queue what is on the list and unknown here: the ledger is older than the list, and came from a backup."""
        known = self._requests.known()
        for tenant, request_id in self._list.requests():
            if request_id in known:
                continue
            actions = {entry.action for entry in self._list.of_request(tenant, request_id)}
            kind: Type = next((kind for kind, action in ACTIONS.items() if action in actions), "erasure")
            log.warning("request %s is not in the ledger, which was put back: it is done again", request_id)
            self._requests.add(request_id, tenant, kind, RESTORED, None, ())

    def _recorded(self, request: PrivacyRequest, action: str, work: Callable[[], Mapping[str, Any]]) -> None:
        """Put it on the record, do it, and put on the record what came of it. What fails is tried again later."""
        line: dict[str, Any] = {
            "request_id": request.privacy_request_id,
            "actor": request.requested_by,
            "tenant": request.tenant,
            "action": action,
            "policy_version": self._policy_version,
        }
        try:
            self._audit.intent(AuditIntent(**line))
            done = work()
        except RayragError as error:
            log.warning("request %s: %s", request.privacy_request_id, error.detail)
            if action != "privacy.purge":
                self._requests.requeue(request.privacy_request_id)
            self._audit.outcome(AuditOutcome(**line, outcome=outcome_of(error)))
            raise
        outcome = "refused" if done.get("refused") else "ok"
        counts = {name: value for name, value in done.items() if isinstance(value, int)}
        self._audit.outcome(AuditOutcome(**line, outcome=outcome, detail=counts))

    def _asked(self, tenant: str, sealed: str) -> Asked:
        told = self._sealing.open(tenant, sealed)
        subject = Subject(tuple(told["subject"]["identifiers"]), tuple(told["subject"]["names"]))
        return Asked(told["type"], subject, told["owned"], told["corrections"])

    def _entries(self, tenant: str, asked: Asked, request_id: str) -> list[Suppression]:
        action = ACTIONS.get(asked.type, "erase")
        replacements = {normal(old): new.strip() for old, new in asked.corrections.items()}
        whom = asked.wrong if asked.corrections else asked.subject
        return entries_of(whom, tenant, self._keyed, request_id, action, replacements)

    def _who(self, tenant: str, entries: Sequence[Suppression], asked: Asked | None) -> Sought:
        matcher = Matcher(tenant, self._keyed, entries)
        return Sought(tenant, self._ledger.tenant_id(tenant), matcher, owned=asked is not None and asked.owned)

    def _hashes(self, tenant: str, subject: Subject) -> frozenset[str]:
        return self._keyed.subjects(tenant, [*subject.identifiers, *subject.names])

    def export(self, tenant: str, request_id: str) -> bytes | None:
        """Give the zip of an access or a portability request; None where there is none, or no longer."""
        self._requests.get(tenant, request_id)
        sealed = self._requests.export(request_id)
        return None if sealed is None else self._sealing.open_bytes(tenant, sealed)

    def close(self) -> None:
        """Close the connections that are not in use."""
        for each in (self._requests, self._ledger, self._erasure, self._list):
            each.close()


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
