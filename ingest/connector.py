"""The seam between rayrag and what holds documents: a connector lists, looks, fetches and may watch.

    list ──▶ Entry | Gone | Unreadable …, then Mark ──▶ plan (against the ledger)
                                                         ──▶ created, updated, deleted, access_changed
    watch, webhooks, queues ──▶ "look" ──▶ look ──▶ Entry | Gone … ──▶ the same plan

An event never carries content or rights: it says where to look, and both are read from the source. A connector maps
what its source says of readers into the `AccessRule` of each entry; where it cannot tell, the rule permits nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from index.document import DocumentRef


@dataclass(frozen=True, slots=True)
class InlineDocument:
    """A document whose text came with the listing (a row). The text is clean as a parser's is.

    `unseen`: how many characters without a width were taken out of it.
    """

    title: str | None
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    unseen: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One document of a source, named and not read.

    `location` is what the connector's `fetch` takes, `inline` the content where the listing brought it; neither where
    `error` says why the document cannot be indexed. The rule of `ref` holds for what is there of the document, also
    where there is an error: it permits nobody where what the source says of its readers is wrong.

    `name` is the file name that the parser goes by, where `external_id` is none. `changed_at` is when the source says
    that it changed, in Unix seconds.
    """

    ref: DocumentRef
    location: str | None = None
    inline: InlineDocument | None = None
    error: str | None = None
    name: str | None = None
    changed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The source says that this document is no more, or is none of its own any longer.

    `below`: and so is all that lies below it (ids that go on with `/` or `#`), but for what this listing names.
    """

    external_id: str
    below: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Who may read what lies below cannot be told: nobody may, until a listing can tell again. None of it is gone.

    `below` is how the ids begin, and never empty: for the whole source, `RightsUnreadable` is raised. `reason`: for
    people.
    """

    below: str
    reason: str


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a listing that was read to its end.

    `cursor` is where the next one may go on, none where each starts afresh. `complete`: everything the source holds
    was named, so that what was not named is gone.
    """

    cursor: str | None
    complete: bool


class Connector(Protocol):
    """What a kind of source must do. One object is used by one thread at a time; its constructor connects to nothing.

    Every method raises `SourceUnavailable` where the source does not answer, refuses or says "later" (with its
    `retry_after_s`), after the few retries that are worth a caller's waiting. Nothing is then concluded about what was
    not seen. `ConfigurationError` says that an operator must act: wrong address, credentials, permissions or fields.
    """

    def check(self) -> None:
        """Reach the source and see that the credentials suffice for listing, reading and reading rights."""
        ...

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Unreadable | Mark]:
        """Name the documents; a `Mark` comes last. A part whose rights cannot be told is said to be `Unreadable`.

        With a `cursor` of an earlier mark: at least what changed since, in content, name or rights. Without one, or
        where the source does not know the cursor any more: everything, and the mark is `complete`.
        """
        ...

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        """Name these documents as they are now, `Gone` for one that is not there. Also raises `RightsUnreadable`.

        An id may stand for several documents (a folder, a file of rows): those are named then, after a `Gone` with
        `below`, so that what lay there before goes.
        """
        ...

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        """Give an entry's bytes. Also raises `TooLarge` and `DocumentRejected` (gone, or may not be read)."""
        ...

    def watch(self) -> AsyncIterator[Sequence[str]] | None:
        """Yield ids to look at as things change, an empty sequence for "list"; none where the source tells nothing.

        Ends by cancellation. It may miss changes: scheduled listings are the safety net.
        """
        ...
