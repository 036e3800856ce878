"""What a document passes between being read and being cut: nothing of it is stored that its rules keep out.

    findings → classification → rules of whole documents → actions on values → label, record

Whatever fails here keeps the document out: `Unavailable` where a database is down, else a dead letter whose reason
quotes nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from index.compliance import DROPPED, QUARANTINED, SCREENED, ScreeningRecord
from index.compliance_settings import DAY_S
from index.document import DocumentRef, Extracted, Page
from index.ledger import Ledger
from index.regimes import LazyFinder, policies_of
from index.settings import AppArgs
from ingest.connector import Entry
from policies.compliance.actions import Action, Done, Offsets, RuleName, apply
from policies.compliance.classification import Classification, classify
from policies.compliance.combining import Policies
from policies.compliance.policy import Policy, Rules
from policies.compliance.screening import Finder, pseudonym
from policies.errors import DocumentRejected, RayragError
from policies.keyed_hashes import KeyedHashes
from policies.pii.findings import Finding


class Withheld(DocumentRejected):
    """A rule keeps the document out, or what looks for personal data failed on it. Nothing of it may stay shown."""


class ScreeningFailed(Withheld):
    """What looks for personal data failed: nobody knows what is in it."""


@dataclass(frozen=True, slots=True)
class ScreenedDocument:
    """A document as it may be stored: its rule with the label that rules demand, its text and title."""

    ref: DocumentRef
    extracted: Extracted
    title: str | None


@dataclass(frozen=True, slots=True)
class _Read:
    """A document that was looked at: `content_hash` tells its text and title from any other."""

    ref: DocumentRef
    policy: Policy
    kind: Classification
    content_hash: str = ""


class Screen(Protocol):
    """Screens one document."""

    def __call__(self, entry: Entry, extracted: Extracted, since: float | None = None) -> ScreenedDocument:
        """`since`: when it was indexed first. Raises `Withheld`, and `Unavailable`."""
        ...

    def key(self, tenant: str, source: str) -> str:
        """Name what decides the outcome, beside the document: a change of it makes the source's documents new."""
        ...


class Screening:
    """Screens documents under their tenant's and source's policy. Safe to use from many threads."""

    def __init__(
        self,
        ledger: Ledger,
        policies: Policies,
        finder: Finder,
        hashes: KeyedHashes,
        region: str | None = None,
        quick: Finder | None = None,
    ) -> None:
        """`quick` finds all but names, places, ages and dates: for policies that ask for none of these."""
        self._ledger = ledger
        self._policies = policies
        self._finder = finder
        self._quick = quick
        self._hashes = hashes
        self._region = region

    @classmethod
    def of(cls, args: AppArgs, ledger: Ledger) -> Screening:
        """Build it. Raises `ConfigurationError`."""
        settings = args.compliance
        hashes = KeyedHashes.load(Path(settings.key_file))
        policies = policies_of(settings)
        quick = LazyFinder(settings.detection, names=False)
        return cls(ledger, policies, LazyFinder(settings.detection), hashes, settings.region, quick)

    def key(self, tenant: str, source: str) -> str:
        """Give the version of the policy of a source."""
        return self._policies.of(tenant, source).version

    def __call__(self, entry: Entry, extracted: Extracted, since: float | None = None) -> ScreenedDocument:
        """Screen a document, and keep on record what was done and why. Raises as `Screen` says."""
        ref = entry.ref
        policy = self._policies.of(ref.tenant, ref.source)
        begun = time.time() if since is None else since
        try:
            return self._screened(entry, extracted, policy, begun)
        except RayragError:
            raise
        except Exception as error:
            # Quotes nothing: an error's words may hold what it failed on.
            raise ScreeningFailed(f"its personal data could not be looked for: {type(error).__name__}") from error

    def _screened(self, entry: Entry, extracted: Extracted, policy: Policy, since: float) -> ScreenedDocument:
        ref = entry.ref
        if policy.residency is not None and self._region not in policy.residency:
            nothing = _Read(ref, policy, Classification(ref.rule.label))
            self._refuse(nothing, RuleName("settings", "residency", "args.compliance"), Action.DROP_DOCUMENT)
        called = extracted.title or ref.title or ""
        finder = self._finder if policy.asks_names("ingest") or self._quick is None else self._quick
        found, in_title = finder.find(extracted.text), finder.find(called) if called else []
        every = [*found, *in_title]
        kind = classify(every, extracted.text, _names(entry, called), ref.rule.label, policy.categories)
        read = _Read(ref, policy, kind, _content_hash(f"{called}\n{extracted.text}"))
        expiry = policy.expiry(kind.categories)
        if expiry is not None and since + expiry.days * DAY_S <= time.time():
            self._refuse(read, expiry.by, Action.DROP_DOCUMENT)
        rules = Rules(policy.rules_at("ingest"), kind.categories.keys())
        self._refuse_whole(read, rules, every)
        text = apply(extracted.text, rules.decide(found), lambda _, value: self._pseudonym(ref, value))
        title = apply(called, rules.decide(in_title), lambda _, value: self._pseudonym(ref, value))
        labelled = self._keep(ref, policy, kind, text.counts + title.counts, since)
        pages = _moved(extracted.pages, text.offsets)
        # What the ledger falls back to where there is no title is never the title as it was.
        named = replace(labelled, title=title.text or None)
        return ScreenedDocument(named, replace(extracted, text=text.text, pages=pages), title.text or None)

    def title(self, ref: DocumentRef, title: str) -> str:
        """Give a title that a document gets without being read again, as it may be stored. Raises `ScreeningFailed`."""
        policy = self._policies.of(ref.tenant, ref.source)
        try:
            kinds = self._ledger.classifications.categories([ref.document_id]).get(ref.document_id)
            decided = Rules(policy.rules_at("ingest"), kinds).decide(self._finder.find(title))
            return apply(title, decided, lambda _, value: self._pseudonym(ref, value)).text
        except RayragError:
            raise
        except Exception as error:
            raise ScreeningFailed(f"its title could not be looked at: {type(error).__name__}") from error

    def _pseudonym(self, ref: DocumentRef, value: str) -> str:
        return pseudonym(self._hashes, ref.tenant, value)

    def _refuse_whole(self, read: _Read, rules: Rules, findings: Sequence[Finding]) -> None:
        asked = [(rule.action, rule.name, "") for rule in rules.documents]
        asked += [(d.action, d.by, d.finding.entity) for d in rules.decide(findings) if d.action.is_of_document]
        if not asked:
            return
        action, by, entity = max(asked, key=lambda each: each[0])
        released = self._ledger.classifications.is_released
        if action is Action.QUARANTINE and released(read.ref.document_id, read.content_hash):
            return  # somebody looked at it; what is in it is masked all the same
        done = {Done(by, entity or "document", action): sum(each == (action, by, entity) for each in asked)}
        self._refuse(read, by, action, done)

    def _refuse(self, read: _Read, by: RuleName, action: Action, done: Mapping[Done, int] | None = None) -> None:
        outcome = QUARANTINED if action is Action.QUARANTINE else DROPPED
        counted = done or {Done(by, "document", action): 1}
        record = self._record(read.ref, read.policy, read.kind, counted, outcome)
        self._ledger.classifications.keep(replace(record, content_hash=read.content_hash))
        what = "held for review" if outcome == QUARANTINED else "kept out"
        raise Withheld(f"{what} by {by.regime}/{by.rule} ({by.article})")

    def _keep(
        self, ref: DocumentRef, policy: Policy, kind: Classification, done: Counter[Done], since: float
    ) -> DocumentRef:
        record = self._record(ref, policy, kind, done)
        expiry, kept = policy.expiry(kind.categories), policy.kept(kind.categories)
        if expiry is not None:
            record = replace(record, expires_at=since + expiry.days * DAY_S)
        self._ledger.classifications.keep(record)
        if kept is not None:
            until = since + kept.days * DAY_S
            day = datetime.fromtimestamp(until, UTC).date().isoformat()
            why = f"kept unchanged until {day} by {kept.by.regime}/{kept.by.rule} ({kept.by.article})"
            if until > time.time():
                self._ledger.holds.keep(ref.tenant, ref.document_id, why, until)
        return replace(ref, rule=ref.rule.at_least(record.minimum))

    def _record(
        self,
        ref: DocumentRef,
        policy: Policy,
        kind: Classification,
        done: Mapping[Done, int],
        outcome: str = SCREENED,
    ) -> ScreeningRecord:
        minimum = policy.minimum(kind.categories)
        return ScreeningRecord(
            document_id=ref.document_id,
            tenant=ref.tenant,
            source=ref.source,
            label=kind.label,
            minimum=None if minimum is None else minimum.label,
            categories=kind.categories,
            policy_version=policy.version,
            outcome=outcome,
            done=done,
        )


def _names(entry: Entry, title: str) -> list[str]:
    ref = entry.ref
    said = list(entry.inline.metadata.values()) if entry.inline is not None and entry.inline.metadata else []
    return [title, ref.external_id, ref.source, ref.name or "", *(str(each)[:200] for each in said)]


def _content_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _moved(pages: Sequence[Page], offsets: Offsets) -> tuple[Page, ...]:
    return tuple(Page(page.number, offsets.after(page.start), offsets.after(page.end)) for page in pages)
