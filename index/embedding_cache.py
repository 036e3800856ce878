"""Embeddings by content: a text is embedded once per model, wherever and however often it occurs.

The cache can be rebuilt from the documents, so it stands apart from the ledger and does not wait for the disk. It
holds what reveals the text, so erasing a text means `drop` as well.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import DDL, Column, Integer, LargeBinary, MetaData, Select, Table, Text, and_, event, func, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.document import TokenVectors, Vector
from policies.errors import Unavailable

VERSION = 1
BATCH = 500  # hashes in a statement
PAGE = 5_000
PRAGMAS: dict[str, str | int] = {
    "page_size": 16_384,  # before journal_mode, which writes the first page
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "mmap_size": 2**31 - 65_536,  # the most that SQLite takes; beyond it, it reads as usual
    "journal_size_limit": 2**28,
    "secure_delete": "ON",
}

metadata = MetaData()
embeddings = Table(
    "embeddings",
    metadata,
    # By hash before model: `drop` asks for all models of a text.
    Column("text_hash", LargeBinary(32), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("token_count", Integer, nullable=False),
    Column("dense", LargeBinary, nullable=False),
    Column("tokens", LargeBinary),  # last, so that reading the others does not touch its pages
)
# Vectors do not compress: PostgreSQL would try, for each of them, both ways.
event.listen(
    embeddings,
    "after_create",
    DDL("ALTER TABLE %(fullname)s ALTER COLUMN tokens SET STORAGE EXTERNAL").execute_if(  # type: ignore[no-untyped-call]
        dialect="postgresql"
    ),
)


@dataclass(frozen=True, slots=True)
class CachedEmbedding:
    """A text under one model. `dense`: float32[dim]; `tokens`: int8[tokens, dim], `None` when none were kept."""

    dense: Vector
    tokens: TokenVectors | None = None


def text_hash(text: str) -> bytes:
    """Give the 32 bytes of SHA-256 of the text in Unicode's composed form (NFC)."""
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")).digest()


class EmbeddingCache:
    """The embeddings of one model, at an SQLAlchemy URL. Safe to use from many threads and processes.

    All arrays given out are read-only. Every method raises `Unavailable` when the database does not answer.
    """

    def __init__(self, url: str | Database, model_id: str) -> None:
        self._model = model_id
        self._database = Database(url, metadata, "embeddings", VERSION, PRAGMAS) if isinstance(url, str) else url

    def of(self, model_id: str) -> EmbeddingCache:
        """Give the embeddings of another model, over the same connections."""
        return EmbeddingCache(self._database, model_id)

    def get_dense(self, hashes: Collection[bytes]) -> dict[bytes, Vector]:
        """Give the dense vectors of the texts that are known."""
        return {row.text_hash: _vector(row.dense) for row in self._rows(hashes, "dense")}

    def get(self, hashes: Collection[bytes]) -> dict[bytes, CachedEmbedding]:
        """Give all that is kept of the texts that are known."""
        rows = self._rows(hashes, "dense", "tokens", "token_count")
        return {
            row.text_hash: CachedEmbedding(_vector(row.dense), _token_vectors(row.tokens, row.token_count))
            for row in rows
        }

    def token_vectors(self, hashes: Collection[bytes]) -> dict[bytes, TokenVectors]:
        """Give the token vectors, int8[tokens, dim], of the texts that have them."""
        rows = self._rows(hashes, "tokens", "token_count")
        found = ((row.text_hash, _token_vectors(row.tokens, row.token_count)) for row in rows)
        return {key: vectors for key, vectors in found if vectors is not None}

    def put(self, many: Mapping[bytes, CachedEmbedding]) -> None:
        """Keep embeddings by text hash, in one transaction.

        What is there stays as it is; only token vectors are added to a row that has none. Raises `ValueError`
        for arrays of another type or shape than `CachedEmbedding` says.
        """
        rows = [self._row(key, many[key]) for key in sorted(many)]  # one order of locks for all writers
        if not rows:
            return
        row = self._database.insert(embeddings)
        added = {"tokens": row.excluded.tokens, "token_count": row.excluded.token_count}
        missing = and_(embeddings.c.tokens.is_(None), row.excluded.tokens.is_not(None))
        put = row.on_conflict_do_update(index_elements=["text_hash", "model"], set_=added, where=missing)
        self._database.write(lambda connection: connection.execute(put, rows))

    def drop(self, hashes: Collection[bytes]) -> int:
        """Erase texts, under every model, and give how many rows there were.

        SQLite: physically; the bytes are overwritten, in the file and in its log, when this returns. Raises
        `Unavailable` when readers keep the log from being emptied: the rows are gone then, their bytes may not
        be; call again. PostgreSQL: the rows are deleted, their bytes are overwritten when vacuum and later writes
        come by; its log and backups have terms of their own.
        """

        def work(connection: Connection) -> int:
            batches = (embeddings.delete().where(embeddings.c.text_hash.in_(batch)) for batch in _batches(hashes))
            return sum(connection.execute(batch).rowcount for batch in batches)

        count = self._database.write(work)
        if self._database.is_sqlite:
            self._database.read(_empty_the_log)
        return count

    def count(self, hashes: Collection[bytes]) -> int:
        """Count the rows of these texts, under every model."""

        def work(connection: Connection) -> int:
            mine = (embeddings.c.text_hash.in_(batch) for batch in _batches(hashes))
            return sum(connection.scalar(select(func.count()).where(each)) or 0 for each in mine)

        return self._database.read(work)

    def pages(self) -> Iterator[list[bytes]]:
        """Go through the hashes of all texts that have a row, under whatever model, in pages of one short read each."""
        after = b""
        hashes = select(embeddings.c.text_hash).distinct().order_by(embeddings.c.text_hash).limit(PAGE)
        while page := self._read_hashes(hashes.where(embeddings.c.text_hash > after)):
            yield page
            after = page[-1]

    def _read_hashes(self, rows: Select[tuple[bytes]]) -> list[bytes]:
        return self._database.read(lambda connection: list(connection.scalars(rows)))

    def vacuum(self) -> None:
        """Write the database anew without what was deleted. Raises `Unavailable` while readers are in the way."""
        self._database.vacuum(metadata)

    def drop_model(self) -> int:
        """Remove all embeddings of this model, in short transactions, and give how many there were."""
        count, after = 0, b""
        while keys := self._page(after):
            count += self._drop_mine(keys)
            after = keys[-1]
        return count

    def _page(self, after: bytes) -> list[bytes]:
        mine = select(embeddings.c.text_hash).where(embeddings.c.model == self._model, embeddings.c.text_hash > after)
        rows = mine.order_by(embeddings.c.text_hash).limit(BATCH)
        return self._database.read(lambda connection: list(connection.scalars(rows)))

    def _drop_mine(self, keys: list[bytes]) -> int:
        gone = embeddings.delete().where(embeddings.c.model == self._model, embeddings.c.text_hash.in_(keys))
        return self._database.write(lambda connection: connection.execute(gone).rowcount)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._database.dispose()

    def _rows(self, hashes: Collection[bytes], *fields: str) -> list[Any]:
        chosen = select(embeddings.c.text_hash, *(embeddings.c[field] for field in fields))
        chosen = chosen.where(embeddings.c.model == self._model)

        def work(connection: Connection) -> list[Any]:
            batches = (chosen.where(embeddings.c.text_hash.in_(batch)) for batch in _batches(hashes))
            return [row for batch in batches for row in connection.execute(batch)]

        return self._database.read(work)

    def _row(self, key: bytes, embedding: CachedEmbedding) -> dict[str, Any]:
        dense, tokens = embedding.dense, embedding.tokens
        if dense.dtype != np.float32 or dense.ndim != 1 or len(key) != 32:
            raise ValueError(
                f"a hash of 32 bytes and float32[dim] are kept, not {len(key)}, {dense.dtype}{dense.shape}"
            )
        if tokens is not None and (tokens.dtype != np.int8 or tokens.ndim != 2 or not tokens.size):
            raise ValueError(f"int8[tokens, dim] with at least one token is kept, not {tokens.dtype}{tokens.shape}")
        return {
            "model": self._model,
            "text_hash": key,
            "dense": dense.astype("<f4", copy=False).tobytes(),
            "tokens": None if tokens is None else tokens.tobytes(),
            "token_count": 0 if tokens is None else len(tokens),
        }


def _vector(dense: bytes) -> Vector:
    vector: NDArray[np.float32] = np.frombuffer(dense, dtype="<f4")
    return vector


def _token_vectors(tokens: bytes | None, token_count: int) -> TokenVectors | None:
    return None if tokens is None else np.frombuffer(tokens, dtype=np.int8).reshape(token_count, -1)


def _batches(hashes: Collection[bytes]) -> list[list[bytes]]:
    wanted = sorted(set(hashes))
    return [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]


def _empty_the_log(connection: Connection) -> None:
    busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    if busy:
        raise Unavailable("the embeddings were deleted; a reader kept their bytes from being overwritten: drop again")
