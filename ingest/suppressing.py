"""The suppression list, held against documents on their way in: before they are cut, and again when the list grew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from index.document import Chunk, DocumentRef, Extracted, Page
from ingest.report import Outcome
from policies.errors import ContentBlocked
from policies.privacy.suppression import Matcher, Mention, joined_rows, moved, replaced

KEPT_OUT = "kept out: it is named after somebody whose data were erased"


def is_kept_out(ref: DocumentRef, matcher: Matcher, title: str | None = None) -> bool:
    """Say whether a document is named after somebody on the list: it is not taken in again. `title`: its content's."""
    names = (ref.external_id, ref.uri, ref.title, ref.name, title)
    return bool(matcher) and any(matcher.erases(name) for name in names if name)


def kept_out(ref: DocumentRef, matcher: Matcher) -> Outcome:
    """The outcome of such a document; it does not say the name."""
    external_id, uri = matcher.masked(ref.external_id), matcher.masked(ref.uri)
    return Outcome(ref.document_id, external_id, uri, "quarantined", reason=KEPT_OUT, failure=ContentBlocked)


def suppressed(extracted: Extracted, matcher: Matcher) -> Extracted:
    """Take out of a document's text and title what is on the list; pages stay where they are in the text."""
    if not matcher:
        return extracted
    title = extracted.title and matcher.redact(extracted.title)[0]
    found = matcher.find(extracted.text)
    if not found:
        return replace(extracted, title=title)
    pages = tuple(Page(page.number, moved(page.start, found), moved(page.end, found)) for page in extracted.pages)
    return replace(extracted, text=replaced(extracted.text, found), title=title, pages=pages)


def suppressed_chunks(chunks: Sequence[Chunk], matcher: Matcher) -> tuple[Chunk, ...]:
    """Take out of passages what is on the list, also where it goes from one into the next; offsets follow."""
    spans = list(joined_rows([chunk.text for chunk in chunks], matcher))
    everywhere = absolute([chunk.start for chunk in chunks], spans)
    made = []
    for chunk, found in zip(chunks, spans, strict=True):
        text, start = replaced(chunk.text, found), moved(chunk.start, everywhere)
        headings = tuple(matcher.redact(heading)[0] for heading in chunk.headings)
        made.append(replace(chunk, text=text, start=start, end=start + len(text), headings=headings))
    return tuple(made)


def absolute(starts: Sequence[int], spans: Sequence[Sequence[Mention]]) -> list[Mention]:
    """Give mentions by their places in the whole text, ascending; passages may overlap, and say one twice."""
    found = {
        (start + mention.start, start + mention.end): Mention(start + mention.start, start + mention.end, mention.entry)
        for start, each in zip(starts, spans, strict=True)
        for mention in each
    }
    return [found[place] for place in sorted(found)]
