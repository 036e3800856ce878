"""Erasure: what mentions a person goes from every place, and stays away.

    suppression list (committed first) → documents named after the person: deleted
                                       → mentions: a new version of the document from its stored rows, embedded anew
                                       → every other place (`index.subject_rows`, `ingest.subjects`)
                                       → all of it again, until nothing is found

No source is read. Whoever writes holds its texts against the list after its version is begun (`ingest.stages.write`),
and an erasure waits for versions that were begun before the list grew: so a re-ingestion that races it brings nothing
back. All steps can be repeated, so an erasure that was killed is run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from index.analysis import analyse
from index.document import DocumentRef, embedded_text
from index.embedding_cache import EmbeddingCache, text_hash
from index.ledger import Ledger
from index.ledger_records import NewVersion, WrittenVersion
from index.ledger_schema import documents, open_database
from index.live_versions import LiveVersions
from index.privacy_requests import PrivacyRequests
from index.settings import AppArgs
from index.stores import Live, ModelsChanged, Stores
from index.subject_rows import NamedDocuments, Place, Sought, ledger_places
from index.vectors import ChunkRow
from ingest.reindex import await_writers
from ingest.stages import Embed, sweep
from ingest.subjects import CachePlace, ExportPlace, LogPlace, Mentioned, mentioned
from ingest.suppressing import absolute
from policies.errors import NotFound, Unavailable
from policies.privacy.suppression import moved, replaced

MOST_ROUNDS = 50
PATIENCE_S = 60.0
Beat = Callable[[], None]
"""Called often, so that whoever waits knows that the work goes on."""


@dataclass(frozen=True, slots=True)
class KnownRef(DocumentRef):
    """A document as the ledger has it, whatever its source was called when its id was made."""

    known_id: str = ""

    @property
    def document_id(self) -> str:
        """The id that it has."""
        return self.known_id


@dataclass(slots=True)
class Found:
    """What there is of a person. `counts` by place; `document_ids` of what mentions the person or is named so."""

    counts: dict[str, int] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    document_ids: list[str] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How much of it is there that does not stay for a reason."""
        return sum(count for name, count in self.counts.items() if name not in self.kept)

    def as_dict(self) -> dict[str, Any]:
        """As a request keeps it."""
        kept = {name: why for name, why in self.kept.items() if self.counts.get(name)}
        return {**self.counts, **({"kept": kept} if kept else {})}


class Erasure:
    """Finds and erases. Raises `Unavailable` where a place does not answer, and as `Stores`."""

    def __init__(self, args: AppArgs, embed: Embed, requests: PrivacyRequests, patience_s: float = PATIENCE_S) -> None:
        url = args.store.ledger
        self._embed = embed
        self._patience_s = patience_s
        self._ledger, self._live, self._stores = Ledger(url), LiveVersions(url), Stores(args)
        self._stores.open()
        self._index = Live(args)
        self._database = open_database(url)
        self._named = NamedDocuments(self._database)
        self._cache = EmbeddingCache(args.store.embeddings, "")
        self._cached = CachePlace(self._cache)
        self._logs = LogPlace(Path(args.data_dir))
        others: list[Place] = [ExportPlace(requests), self._logs]
        self._places = [*ledger_places(self._database), *others]

    @property
    def places(self) -> Sequence[Place]:
        """All places but the documents and their vectors."""
        return self._places

    def find(self, who: Sought, beat: Beat = lambda: None, everywhere: bool = True) -> Found:
        """Count what there is of a person; with `everywhere` not in the documents alone."""
        found, chunks, hashes = Found(), 0, set[bytes]()
        ids = {row.document_id for row in self._named.of(who)}
        for each in mentioned(self._live, self._index.ask().store, who):
            beat()
            ids.add(each.version.document_id)
            chunks += len(each.chunks)
            hashes |= {bytes.fromhex(row.text_hash) for row in each.chunks}
        found.document_ids = sorted(ids)
        found.counts = {"documents": len(ids), "chunks": chunks}
        if everywhere:
            found.counts["embeddings"] = self._cache.count(hashes)
            for place in self._places:
                beat()
                found.counts[place.name] = place.find(who)
                if place.kept:
                    found.kept[place.name] = place.kept
        return found

    def of(self, who: Sought, document_ids: Sequence[str]) -> list[Mentioned]:
        """Give those of these documents that mention a person."""
        return list(mentioned(self._live, self._index.ask().store, who, document_ids))

    def named(self, who: Sought) -> list[str]:
        """Give the documents that are named after a person."""
        return [row.document_id for row in self._named.of(who)]

    def rows(self, document_ids: Sequence[str]) -> dict[str, list[ChunkRow]]:
        """Give all rows of these documents, as far as they are live."""
        store = self._index.ask().store
        found: dict[str, list[ChunkRow]] = {}
        for document_id, version in self._live.of(list(document_ids)).items():
            rows = store.stored(version.keys)
            found[document_id] = [rows[key] for key in version.keys if key in rows]
        return found

    def held(self, document_ids: Sequence[str]) -> str | None:
        """Give why one of these documents may not be erased; None where all may."""
        return next(iter(self._ledger.holds.of(document_ids).values()), None)

    def erase(self, who: Sought, beat: Beat = lambda: None, correcting: bool = False) -> Found:
        """Erase a person, who is on the list already, until nothing is found, and give what is left.

        `correcting`: names of documents are corrected, where they are ours, and none is deleted.
        """
        writing = self._live.writing()
        sweep(self._ledger, self._stores)
        for _ in range(MOST_ROUNDS):
            changed = self._round(who, beat, correcting)
            if writing:
                await_writers(self._live, self._ledger, self._stores, writing, self._patience_s, beat)
                sweep(self._ledger, self._stores)
                writing = set()
                continue
            if changed == 0:
                self._logs.erase(who)  # last: what was done may have been logged
                return self.find(who, beat)
        raise Unavailable("documents of this person are written faster than they are erased: it goes on later")

    def _round(self, who: Sought, beat: Beat, correcting: bool) -> int:
        hashes: set[bytes] = set()
        changed = self._retitle(who) if correcting else self._delete_named(who, hashes)
        for each in mentioned(self._live, self._index.ask().store, who):
            beat()
            changed += 1
            if self._rewrite(each, who):
                hashes |= {bytes.fromhex(row.text_hash) for row in each.chunks}
        self._drop_cached(who, hashes)
        return changed + (0 if correcting else self._erase_places(who, beat))

    def _erase_places(self, who: Sought, beat: Beat) -> int:
        changed = 0
        for place in self._places:
            beat()
            if place.kept is None and place is not self._logs:
                changed += place.erase(who)
        return changed

    def _delete_named(self, who: Sought, hashes: set[bytes]) -> int:
        ids = [row.document_id for row in self._named.of(who)]
        store = self._index.ask().store
        for version in self._live.of(ids).values():
            rows = store.stored(version.keys)
            hashes |= {bytes.fromhex(row.text_hash) for row in rows.values()}
        if ids:
            self._ledger.delete(ids)
            sweep(self._ledger, self._stores, ids)
        return len(ids)

    def _retitle(self, who: Sought) -> int:
        changed = 0
        for row in self._named.of(who):
            title, count = who.matcher.redact(row.title)
            stored = self._ledger.document(row.document_id)
            if count and stored is not None and stored.version is not None:
                changed += self._ledger.touch(row.document_id, stored.fingerprint, stored.uri, title)
        return changed

    def _rewrite(self, found: Mentioned, who: Sought) -> bool:
        """Make a version without the mentions live. False: it was overtaken, and is looked at again."""
        document_id, before = found.version.document_id, found.version.version
        held = self._ledger.held(document_id)
        if held is None or held.document.version != before:
            return False
        try:
            rule = self._ledger.rule(held.document.access_id)
        except NotFound:
            return False
        stored = held.document
        ref = KnownRef(
            tenant=who.tenant,
            source=held.source,
            external_id=stored.external_id,
            uri=stored.uri,
            title=stored.title,
            fingerprint=stored.fingerprint,
            rule=rule,
            seen_at=self._seen_at(document_id),
            known_id=document_id,
        )
        rows = redacted(found, who)
        vectors, _ = self._embed([row.embedded_text for row in rows])
        number = self._ledger.begin_versions(
            [NewVersion(ref, stored.content_hash, len(rows), stored.owner)], "erasure"
        )[0]
        made = [replace(row, version=number, dense=dense) for row, dense in zip(rows, vectors, strict=True)]
        try:
            acknowledged = self._stores.upsert([replace(row, access_id=stored.access_id) for row in made])
        except ModelsChanged:
            return False  # the next round embeds it for the other model, too
        if acknowledged != len(rows):
            raise Unavailable(f"the vector store took {acknowledged} of {len(rows)} rows")
        # It is the newest version now: was the old one still live when it was begun, then nothing newer is overwritten.
        now = self._ledger.document(document_id)
        live = now is not None and now.version == before
        flipped = live and self._ledger.flip_versions([WrittenVersion(ref, number, stored.title)])[0]
        sweep(self._ledger, self._stores, [document_id])
        return bool(flipped)

    def _drop_cached(self, who: Sought, hashes: set[bytes]) -> None:
        """Drop vectors of texts that no row has any more; another tenant may have the same text."""
        if not hashes:
            return
        others = self._index.ask().store.holding([each.hex() for each in sorted(hashes)])
        self._cached.hashes = {each for each in hashes if each.hex() not in others}
        self._cached.erase(who)

    def _seen_at(self, document_id: str) -> float:
        rows = select(documents.c.seen_at).where(documents.c.document_id == document_id)
        return float(self._database.read(lambda connection: connection.scalar(rows)) or 0.0)

    def close(self) -> None:
        """Close the connections that are not in use."""
        for each in (self._ledger, self._live, self._cache):
            each.close()
        self._database.dispose()


def redacted(found: Mentioned, who: Sought) -> list[ChunkRow]:
    """Make a document's rows without the mentions; offsets follow, and there are no vectors yet."""
    everywhere = absolute([row.start for row in found.rows], found.spans)
    rows = []
    for position, (row, spans) in enumerate(zip(found.rows, found.spans, strict=True)):
        text, start = replaced(row.text, spans), moved(row.start, everywhere)
        context = who.matcher.redact(row.context)[0]
        whole = embedded_text(context, text)
        rows.append(
            replace(
                row,
                position=position,
                start=start,
                end=start + len(text),
                context=context,
                text=text,
                analysed=analyse(whole),
                text_hash=text_hash(whole).hex(),
            )
        )
    return rows


def monotonic_beat(beat: Beat, every_s: float = 5.0) -> Beat:
    """Call `beat` at most once in a while, however often this is called."""
    last = time.monotonic()

    def beating() -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            beat()

    return beating
