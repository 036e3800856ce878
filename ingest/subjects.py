"""Where a person is: passages and documents, the ledger's rows, cached vectors, exports, log files.

Places that the product does not have are not in the table. One that comes is one more `Place`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from index.embedding_cache import EmbeddingCache
from index.live_versions import LiveVersion, LiveVersions, by_chunks
from index.privacy_requests import PrivacyRequests
from index.subject_rows import Place, Sought
from index.vectors import ChunkRow, VectorStore
from policies.privacy.suppression import Mention, joined_rows

GROUP_CHUNKS = 512
LOG_BYTES = 262_144
"""Lines that are searched at a time: a mention may go from one into the next."""


@dataclass(frozen=True, slots=True)
class Mentioned:
    """A live document whose passages mention somebody. `rows` are all of it; `spans`: where, for each row's text.

    `headed`: rows in whose title or headings the person is.
    """

    version: LiveVersion
    rows: tuple[ChunkRow, ...]
    spans: tuple[list[Mention], ...]
    headed: frozenset[int]

    @property
    def chunks(self) -> list[ChunkRow]:
        """The rows that mention the person."""
        return [row for row, spans in zip(self.rows, self.spans, strict=True) if spans or row.position in self.headed]


def mentioned(
    live: LiveVersions, store: VectorStore, who: Sought, document_ids: Sequence[str] | None = None
) -> Iterator[Mentioned]:
    """Go through a tenant's live documents, or through these of them, and give those that mention the person.

    All stored text is read: an index finds words, and a number that is grouped in another way is no word of it.
    """
    pages = live.pages() if document_ids is None else iter([list(live.of(list(document_ids)).values())])
    for page in pages:
        mine = [version for version in page if version.tenant_id == who.tenant_id]
        for group in by_chunks(mine, GROUP_CHUNKS):
            held = store.stored([key for version in group for key in version.keys])
            for version in group:
                rows = tuple(held[key] for key in version.keys if key in held)
                found = _mentioned(version, rows, who)
                if found is not None:
                    yield found


def _mentioned(version: LiveVersion, rows: tuple[ChunkRow, ...], who: Sought) -> Mentioned | None:
    spans = tuple(joined_rows([row.text for row in rows], who.matcher))
    contexts = {row.context for row in rows}
    named = {context for context in contexts if who.matcher.find(context)}
    headed = frozenset(row.position for row in rows if row.context in named)
    return Mentioned(version, rows, spans, headed) if headed or any(spans) else None


class CachePlace:
    """Vectors of passages: who has a vector can tell the text. `hashes` are of passages that mention the person."""

    name = "embeddings"
    kept: str | None = None

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache
        self.hashes: set[bytes] = set()

    def find(self, who: Sought) -> int:
        return self._cache.count(self.hashes)

    def erase(self, who: Sought) -> int:
        return self._cache.drop(self.hashes)

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        return iter(())  # they say what the passages say


class ExportPlace:
    """Answers to earlier requests of the same person."""

    name = "exports"
    kept: str | None = None

    def __init__(self, requests: PrivacyRequests) -> None:
        self._requests = requests

    def find(self, who: Sought) -> int:
        return self._requests.count_exports(sorted(who.subject))

    def erase(self, who: Sought) -> int:
        return self._requests.drop_exports(sorted(who.subject))

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        return iter(())


class LogPlace:
    """Log files below the data directory: what is found is overwritten where it stands, as others go on writing."""

    name = "logs"
    kept: str | None = None

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def find(self, who: Sought) -> int:
        return sum(len(places) for _, places in self._found(who))

    def erase(self, who: Sought) -> int:
        count = 0
        for path, places in self._found(who):
            with path.open("r+b") as file:
                for start, end in places:
                    file.seek(start)
                    file.write(b"#" * (end - start))
                    count += 1
        return count

    def export(self, who: Sought) -> Iterator[dict[str, Any]]:
        for path, places in self._found(who):
            yield {"file": path.name, "mentions": len(places)}

    def _found(self, who: Sought) -> Iterator[tuple[Path, list[tuple[int, int]]]]:
        for path in log_files(self._data_dir):
            try:
                places = list(_places(path, who))
            except FileNotFoundError:  # it was rotated away meanwhile
                continue
            if places:
                yield path, places


def log_files(data_dir: Path) -> list[Path]:
    """List what programs of ours, and Ray's, wrote down of their work below the data directory."""
    found = chain((data_dir / "logs").rglob("*"), data_dir.glob("ray/session_2*/logs/**/*"))
    return sorted({path for path in found if path.is_file() and not path.is_symlink()})


def _places(path: Path, who: Sought) -> Iterator[tuple[int, int]]:
    start = 0
    with path.open("rb") as file:
        while lines := file.readlines(LOG_BYTES):
            raw = b"".join(lines)
            text = raw.decode("utf-8", "surrogateescape")
            for mention in who.matcher.find(text):
                before = len(text[: mention.start].encode("utf-8", "surrogateescape"))
                length = len(text[mention.start : mention.end].encode("utf-8", "surrogateescape"))
                yield start + before, start + before + length
            start += len(raw)


def counted(places: Sequence[Place], who: Sought) -> dict[str, int]:
    """Count what each place holds of the person."""
    return {place.name: place.find(who) for place in places}
