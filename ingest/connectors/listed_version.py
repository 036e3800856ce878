"""Whether what was fetched is what was listed: rights are read with a listing, and hold for the text of that moment."""

from __future__ import annotations

from ingest.connector import Entry
from policies.errors import SourceUnavailable


def is_listed(entry: Entry, fingerprint: str) -> bool:
    """Say whether an entry was listed under this fingerprint of its connector's; `|` and the pipeline may follow it."""
    listed = entry.ref.fingerprint
    return fingerprint in (listed, listed.rpartition("|")[0])


def changed() -> SourceUnavailable:
    """The error for a document that is another one by now: the next listing names it with its readers of today."""
    return SourceUnavailable("changed while it was read", 1.0)
