"""What became of each document, and of all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from policies.errors import RayragError, SourceUnavailable

MAX_ERRORS = 10_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document. `reason` and `failure` stand exactly where `status` is quarantined.

    `warning`: what somebody should look at, though the document is indexed.
    """

    document_id: str
    external_id: str
    uri: str
    status: Literal["indexed", "unchanged", "quarantined"]
    version: int | None = None
    chunks: int = 0
    embedded: int = 0
    reason: str | None = None
    failure: type[RayragError] | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentError:
    """A quarantined document and why; or one that is indexed, and what is to be looked at."""

    uri: str
    reason: str


@dataclass(slots=True)
class Report:
    """The sum of a run. `discovered == indexed + unchanged + quarantined`; `embedded` counts texts, not documents.

    `created`, `updated`, `deleted` and `access_changed` count the changes that were found. `unread`: those that
    their source did not give this time, or that another writer took up as well; they are tried again. `warned`:
    documents that are indexed and should be looked at; `warnings` has the first `MAX_ERRORS` of them.
    """

    discovered: int = 0
    indexed: int = 0
    unchanged: int = 0
    quarantined: int = 0
    deleted: int = 0
    chunks: int = 0
    embedded: int = 0
    created: int = 0
    updated: int = 0
    access_changed: int = 0
    unread: int = 0
    seconds: float = 0.0
    errors: list[DocumentError] = field(default_factory=list)
    warned: int = 0
    warnings: list[DocumentError] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one document."""
        self.chunks += outcome.chunks
        self.embedded += outcome.embedded
        if outcome.warning is not None:
            self.warned += 1
            if len(self.warnings) < MAX_ERRORS:
                self.warnings.append(DocumentError(outcome.uri, outcome.warning))
        if outcome.status == "indexed":
            self.indexed += 1
        elif outcome.status == "unchanged":
            self.unchanged += 1
        else:
            self.reject(outcome.uri, outcome.reason or "no reason was given")
            self.unread += outcome.failure is SourceUnavailable

    def reject(self, uri: str, reason: str) -> None:
        """Count a quarantined document; the first `MAX_ERRORS` reasons are kept, all are in the dead letters."""
        self.quarantined += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(DocumentError(uri, reason))

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}
