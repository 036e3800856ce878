"""The vector store: one Milvus collection per embedding model and schema, one alias that names the live one.

The same client code talks to Milvus Lite, standalone and distributed. Rows are derived from the ledger: a row
counts only while the ledger names its (document, version, access rule). The alias is for operators and their tools:
which model is live is the ledger's word (`index.models`), and who asks names the collection.
"""

from __future__ import annotations

import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from index.access_ranges import Range, cover, runs, width
from index.access_rules import Visible
from index.document import Vector, Vectors, chunk_id, embedded_text
from index.settings import StoreSettings, read_secret
from policies.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from pymilvus import MilvusClient

SCHEMA_VERSION = 3
LIVE_ALIAS = "rayrag_live"
# All vectors have unit length, so the inner product is the cosine. Asked for the cosine, Milvus Lite computes the norms
# of all its rows again for each search, which takes as long as the rest of it.
_DENSE_METRIC = "IP"
MAX_TEXT_BYTES = 65_535
ROWS_PER_CALL = 512
# Milvus caps a search at 16,384 results and a gRPC message at 64 MiB by default.
MAX_LIMIT = 1_000
# What these cost in Milvus Lite, in microseconds: an id in a list, a range, a row that is found to be sifted out. As
# `bench.rights` measures them; only which filter is written depends on them, never what is found.
ID_US, RANGE_US, ROW_US = 12, 250, 150
SHORT = RANGE_US // ID_US
"""A run of fewer ids than this is cheaper in the list."""
MOST_RANGES = 8
SPARE = 1.25
"""Hidden rows are not spread evenly: this many times as many rows are asked for as would do if they were."""
MAX_SIFTED = 10_000
MAX_STARVED = 4_096
"""Sets of rights for which a wide filter is known to find too little."""
_SCALAR_INDEXES = ("tenant_id", "access_id")
_FIELDS = ["document_id", "version", "access_id", "position", "start", "end", "page", "text", "text_hash"]
_STORED = [*_FIELDS, "tenant_id", "context", "analysed"]

# The client's own default pings an idle connection every 10 s, which Milvus Lite's server answers by closing it.
_GRPC_OPTIONS = {"grpc.keepalive_time_ms": 600_000, "grpc.keepalive_permit_without_calls": 0}
_DOCUMENT_ID = re.compile(r"[0-9a-f]{32}")
_TEXT_HASH = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk as it is stored. `text_hash` is the 64 hex digits under which its embedding is cached.

    `context`: the lines before `text` in what was embedded; so a row can be embedded anew without its source.
    """

    document_id: str
    version: int
    tenant_id: int
    access_id: int
    position: int
    start: int
    end: int
    page: int | None
    context: str
    text: str
    analysed: str
    text_hash: str
    dense: Vectors

    @property
    def embedded_text(self) -> str:
        """What the model and the keyword index read."""
        return embedded_text(self.context, self.text)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that a search found, before the second gate. `score`: cosine or BM25; more is better."""

    chunk_id: str
    document_id: str
    version: int
    access_id: int
    position: int
    start: int
    end: int
    page: int | None
    text: str
    text_hash: str
    score: float


class Rows(Protocol):
    """Where chunks are written: one model's collection, or those of all models that the index holds."""

    def upsert(self, rows: Sequence[ChunkRow]) -> int:
        """Write rows and return how many were acknowledged."""
        ...

    def set_access(self, document_id: str, version: int, chunk_count: int, access_id: int) -> None:
        """Point a version's rows at another access rule, embedding nothing."""
        ...

    def delete(self, document_id: str, version: int, chunk_count: int) -> None:
        """Remove a version's rows; removing what is not there is no error."""
        ...

    def flush(self) -> None:
        """Seal what was written."""
        ...


@dataclass(frozen=True, slots=True)
class RightsFilter:
    """A search's filter. `spread`: how many times as many rules it lets through as may be seen; 1: just those.

    What comes through a wider one is to be sifted by `Visible.holds`.
    """

    text: str
    spread: float = 1.0

    @property
    def is_exact(self) -> bool:
        """Say whether it lets through nothing that may not be seen."""
        return self.spread == 1.0


def visibility_filter(
    visible: Visible, document_ids: Sequence[str] | None = None, limit: int | None = None
) -> RightsFilter:
    """Write the filter of every search: the only place where one is written.

    Integers only, and `Visible` has no empty state: nothing to inject or to forget. `document_ids` narrows further;
    raises `InvalidRequest` for anything but 32 hex digits.

    Neighbouring ids are ranges, others a list. A long list costs more than the search: Milvus Lite reads and looks it
    up in Python. With a `limit` the filter may then be a few ranges that hold more, where to sift some rows is cheaper
    (measured by `bench.rights`). Not where documents are named: how long it takes must not tell of what is in them.
    """
    ids = visible.access_ids
    parts = runs(ids)
    ranges = [(first, last) for first, last in parts if last - first >= SHORT]
    listed = [each for first, last in parts if last - first < SHORT for each in range(first, last + 1)]
    spread = 1.0
    if limit is not None and document_ids is None and len(listed) + len(ranges) > MOST_RANGES:
        wide = cover(ids, MOST_RANGES)
        others = min(width(wide), visible.rules_of_tenant or width(wide)) / len(ids) - 1
        cost_us = RANGE_US * len(wide) + ROW_US * limit * SPARE * others
        if limit * SPARE * (1 + others) <= MAX_SIFTED and cost_us < ID_US * len(listed) + RANGE_US * len(ranges):
            ranges, listed, spread = wide, [], 1 + others
    rights = f"tenant_id == {int(visible.tenant_id)} and {_among('access_id', ranges, listed)}"
    if document_ids is None:
        return RightsFilter(rights, spread)
    if not all(_DOCUMENT_ID.fullmatch(document_id) for document_id in document_ids):
        raise InvalidRequest("filters.document_ids: a document id is 32 hex digits")
    quoted = ", ".join(f'"{document_id}"' for document_id in document_ids)
    return RightsFilter(f"{rights} and document_id in [{quoted}]")


def _among(field: str, ranges: Sequence[Range], listed: Sequence[int]) -> str:
    parts = [f"({field} >= {int(first)} and {field} <= {int(last)})" for first, last in ranges]
    if listed:
        parts.append(f"{field} in [{', '.join(str(int(each)) for each in listed)}]")
    return parts[0] if len(parts) == 1 else f"({' or '.join(parts)})"


class VectorStore:
    """The rows of one embedding model's collection.

    Raises `Unavailable` from every method when Milvus cannot be reached or refuses.
    """

    def __init__(self, settings: StoreSettings, model_id: str, dim: int, generation: int = 0) -> None:
        self._settings = settings
        self._dim = dim
        self.model_id = model_id
        self._base = f"chunks_{model_id}_{SCHEMA_VERSION}".replace("-", "_").replace(".", "_")
        self.collection = f"{self._base}_g{generation}" if generation else self._base
        self._client = _connect(settings)
        self._starved: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._starved_lock = Lock()

    def open(self) -> None:
        """Create the collection when it is missing, and load it. Safe to call from many processes."""
        self._call("open", self._open)

    def _open(self) -> None:
        if not self._client.has_collection(self.collection):
            try:
                self._create()
            except Exception:
                if not self._client.has_collection(self.collection):  # another process was faster
                    raise
        self._index_rights()
        self._client.load_collection(self.collection)

    def _index_rights(self) -> None:
        """Give a collection that was made before there were indexes of its rights those that it lacks."""
        from pymilvus.exceptions import MilvusException

        for field in _SCALAR_INDEXES:
            if field in self._client.list_indexes(self.collection):
                continue
            params = self._client.prepare_index_params()
            params.add_index(field, index_type="INVERTED")
            try:
                self._client.create_index(self.collection, params)
            except MilvusException:
                if field not in self._client.list_indexes(self.collection):  # another process was faster
                    raise

    def point_alias(self) -> None:
        """Let `LIVE_ALIAS` name this collection."""
        self._call("alias", self._point_alias)

    def _point_alias(self) -> None:
        from pymilvus.exceptions import MilvusException

        if LIVE_ALIAS in self._client.list_aliases(self.collection).get("aliases", []):
            return
        if LIVE_ALIAS not in self._client.list_aliases("").get("aliases", []):
            try:
                self._client.create_alias(self.collection, LIVE_ALIAS)
                return
            except MilvusException:  # another process was faster
                pass
        self._client.alter_alias(self.collection, LIVE_ALIAS)

    def drop(self) -> None:
        """Remove the collection and all its rows; removing what is not there is no error."""
        self._call("drop", self._drop)

    def _drop(self) -> None:
        if self._client.has_collection(self.collection):
            self._client.drop_collection(self.collection)

    def drop_generations(self, keep: Sequence[str]) -> list[str]:
        """Remove this model's collections but for those named, and give the names of what is gone."""

        def work() -> list[str]:
            mine = re.compile(re.escape(self._base) + r"(_g[0-9]+)?")
            others = [name for name in self._client.list_collections() if mine.fullmatch(name) and name not in keep]
            for name in others:
                self._client.drop_collection(name)
            return others

        return self._call("drop", work)

    def is_lite(self) -> bool:
        """Say whether Milvus Lite answers, whose compaction rewrites nothing."""
        return self._call("version", lambda: "lite" in str(self._client.get_server_version()).lower())

    def compact(self, timeout_s: float = 3_600.0) -> None:
        """Have a server rewrite its segments without what was deleted, and wait until it did."""

        def work() -> None:
            self._client.flush(self.collection)
            job = self._client.compact(self.collection)
            deadline = time.monotonic() + timeout_s
            while str(self._client.get_compaction_state(job)).lower() not in ("completed", "3"):
                if time.monotonic() >= deadline:
                    raise Unavailable("the vector store did not finish its compaction: see its log")
                time.sleep(1.0)

        self._call("compact", work)

    def _create(self) -> None:
        from pymilvus import DataType, Function, FunctionType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("chunk_id", DataType.VARCHAR, is_primary=True, max_length=80)
        schema.add_field("document_id", DataType.VARCHAR, max_length=32)
        for name in ("version", "tenant_id", "access_id", "position", "start", "end", "page"):
            schema.add_field(name, DataType.INT64)
        schema.add_field("context", DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
        schema.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
        schema.add_field("text_hash", DataType.VARCHAR, max_length=64)
        schema.add_field(
            "analysed",
            DataType.VARCHAR,
            max_length=MAX_TEXT_BYTES,
            enable_analyzer=True,
            analyzer_params={"tokenizer": "standard"},
        )
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=self._dim)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["analysed"],
                output_field_names=["sparse"],
            )
        )
        self._client.create_collection(
            self.collection,
            schema=schema,
            index_params=self._index_params(),
            consistency_level=self._settings.consistency,
        )

    def _index_params(self) -> Any:
        params = self._client.prepare_index_params()
        dense = {"M": 16, "efConstruction": 200} if self._settings.dense_index == "HNSW" else {}
        params.add_index("dense", index_type=self._settings.dense_index, metric_type=_DENSE_METRIC, params=dense)
        # k1 and b as in Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".
        params.add_index(
            "sparse",
            index_type="SPARSE_INVERTED_INDEX",
            metric_type="BM25",
            params={"bm25_k1": 1.2, "bm25_b": 0.75},
        )
        for field in _SCALAR_INDEXES:
            params.add_index(field, index_type="INVERTED")
        return params

    def upsert(self, rows: Sequence[ChunkRow]) -> int:
        """Write rows and return how many the store acknowledged."""
        written = 0
        for batch in _batches(rows, ROWS_PER_CALL):
            data = [_as_milvus(row, row.dense[self.model_id]) for row in batch]
            result = self._call("upsert", partial(self._client.upsert, self.collection, data))
            written += int(result["upsert_count"])
        return written

    def set_access(self, document_id: str, version: int, chunk_count: int, access_id: int) -> None:
        """Point a version's rows at another access rule, embedding nothing."""
        self.set_access_of([chunk_id(document_id, version, position) for position in range(chunk_count)], access_id)

    def set_access_of(self, keys: Sequence[str], access_id: int) -> None:
        """Point rows at another access rule by primary key. Raises `Unavailable` where one of them is not there."""
        for batch in _batches(keys, ROWS_PER_CALL):
            data = [{"chunk_id": key, "access_id": access_id} for key in batch]
            self._call("set_access", partial(self._client.upsert, self.collection, data, partial_update=True))

    def delete(self, document_id: str, version: int, chunk_count: int) -> None:
        """Remove a version's rows; removing what is not there is no error."""
        self.delete_keys([chunk_id(document_id, version, position) for position in range(chunk_count)])

    def search_dense(
        self, query: Vector, visible: Visible, limit: int, document_ids: Sequence[str] | None = None
    ) -> list[Candidate]:
        """Find the nearest rows by cosine. `query`: float32[dim]."""
        vector = np.asarray(query, dtype=np.float32).tolist()
        return self._visible("dense", vector, _DENSE_METRIC, visible, limit, document_ids)

    def search_keyword(
        self, analysed: str, visible: Visible, limit: int, document_ids: Sequence[str] | None = None
    ) -> list[Candidate]:
        """Find rows by BM25 of analysed text (`index.analysis.analyse`)."""
        return self._visible("sparse", analysed, "BM25", visible, limit, document_ids) if analysed else []

    def _visible(
        self,
        field: Literal["dense", "sparse"],
        data: Any,
        metric: str,
        visible: Visible,
        limit: int,
        document_ids: Sequence[str] | None,
    ) -> list[Candidate]:
        """Find the best rows that may be seen, whatever filter is the cheapest: the same rows come of each.

        That a second search was needed takes time, and tells that many hidden rows are near to what was asked. So it
        is done once for each set of rights and process: from then on its searches begin with the exact filter, and how
        long they take tells nothing of what was asked. What the one slow search tells remains.
        """
        limit = min(limit, MAX_LIMIT)
        rights = visibility_filter(visible, document_ids, limit)
        if rights.is_exact:
            return self._search(field, data, metric, rights, limit)
        if self._is_starved(visible):
            rights = visibility_filter(visible, document_ids)
            return self._search(field, data, metric, rights, limit)
        asked = math.ceil(limit * rights.spread * SPARE)
        found = self._search(field, data, metric, rights, asked)
        seen = [candidate for candidate in found if visible.holds(candidate.access_id)]
        if len(seen) >= limit or len(found) < asked:  # fewer than asked: there are no others
            return seen[:limit]
        # Hidden rows took the places: no number of rows would be enough for sure.
        self._note_starved(visible)
        return self._search(field, data, metric, visibility_filter(visible, document_ids), limit)

    def _is_starved(self, visible: Visible) -> bool:
        key = visible.tenant_id, hash(visible.access_ids)
        with self._starved_lock:
            if key in self._starved:
                self._starved.move_to_end(key)
                return True
        return False

    def _note_starved(self, visible: Visible) -> None:
        with self._starved_lock:
            self._starved[visible.tenant_id, hash(visible.access_ids)] = None
            if len(self._starved) > MAX_STARVED:
                self._starved.popitem(last=False)

    def _search(
        self, field: Literal["dense", "sparse"], data: Any, metric: str, rights: RightsFilter, limit: int
    ) -> list[Candidate]:
        found = self._call(
            f"search {field}",
            lambda: self._client.search(
                self.collection,
                data=[data],
                anns_field=field,
                search_params={"metric_type": metric},
                limit=limit,
                filter=rights.text,
                output_fields=_FIELDS,
                consistency_level=self._settings.consistency,
            ),
        )
        return [_candidate(hit, metric) for hit in found[0]]

    def count(self) -> int:
        """All rows of the collection, retired ones included."""
        rows = self._call("count", lambda: self._client.query(self.collection, output_fields=["count(*)"]))
        return int(rows[0]["count(*)"])

    def rows(self, document_id: str, version: int, chunk_count: int) -> list[Candidate]:
        """Fetch a version's rows in order of position; for verification and re-indexing. Scores are 0."""
        keys = [chunk_id(document_id, version, position) for position in range(chunk_count)]
        found = (_candidate({**row, "distance": 0.0}, _DENSE_METRIC) for row in self._get(keys, _FIELDS))
        return sorted(found, key=lambda row: row.position)

    def stored(self, keys: Sequence[str]) -> dict[str, ChunkRow]:
        """Fetch whole rows by primary key, without their vectors, to embed them anew; missing ones are left out."""
        return {row["chunk_id"]: _chunk_row(row) for row in self._get(keys, _STORED)}

    def copies(self, keys: Sequence[str]) -> dict[str, ChunkRow]:
        """Fetch whole rows by primary key with their vectors, to write them elsewhere; missing ones are left out."""
        found = {}
        for row in self._get(keys, [*_STORED, "dense"]):
            dense: Vector = np.asarray(row["dense"], dtype=np.float32)
            found[row["chunk_id"]] = replace(_chunk_row(row), dense={self.model_id: dense})
        return found

    def holding(self, text_hashes: Sequence[str]) -> set[str]:
        """Say which of these texts (hashes of 64 hex digits) some row has, whatever its document and tenant."""
        there: set[str] = set()
        for batch in _batches([each for each in text_hashes if _TEXT_HASH.fullmatch(each)], ROWS_PER_CALL):
            wanted = ", ".join(f'"{each}"' for each in batch)
            query = partial(
                self._client.query, self.collection, filter=f"text_hash in [{wanted}]", output_fields=["text_hash"]
            )
            there |= {row["text_hash"] for row in self._call("query", query)}
        return there

    def access_ids(self, keys: Sequence[str]) -> dict[str, int]:
        """Say which of these primary keys there are, with the access rule that each row carries."""
        return {row["chunk_id"]: int(row["access_id"]) for row in self._get(keys, ["access_id"])}

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Remove rows by primary key."""
        for batch in _batches(keys, ROWS_PER_CALL):
            self._call("delete", partial(self._client.delete, self.collection, ids=list(batch)))

    def _get(self, keys: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for batch in _batches(keys, ROWS_PER_CALL):
            get = partial(self._client.get, self.collection, ids=list(batch), output_fields=fields)
            found += self._call("get", get)
        return found

    def primary_keys(self) -> Iterator[str]:
        """Every primary key in the collection; for verification."""
        iterator = self._call(
            "iterate",
            lambda: self._client.query_iterator(
                self.collection, batch_size=1000, filter="version >= 0", output_fields=["chunk_id"]
            ),
        )
        while batch := iterator.next():
            yield from (row["chunk_id"] for row in batch)
        iterator.close()

    def text_hashes(self) -> set[str]:
        """Give the hash of every text that some row has."""
        iterator = self._call(
            "iterate",
            lambda: self._client.query_iterator(
                self.collection, batch_size=1000, filter="version >= 0", output_fields=["text_hash"]
            ),
        )
        found: set[str] = set()
        while batch := iterator.next():
            found.update(row["text_hash"] for row in batch)
        iterator.close()
        return found

    def flush(self) -> None:
        """Seal what was written. Milvus Lite searches unsealed rows one by one in Python, about 0.1 ms a row."""
        self._call("flush", lambda: self._client.flush(self.collection))

    def healthy(self) -> None:
        """Raise `Unavailable` unless the collection answers."""
        self._call("health", lambda: self._client.has_collection(self.collection))

    def _call(self, what: str, work: Callable[[], T]) -> T:
        from pymilvus.exceptions import MilvusException

        try:
            return work()
        except MilvusException as error:
            raise Unavailable(f"the vector store failed ({what}, code {error.code})") from error


def _connect(settings: StoreSettings, attempts: int = 5) -> MilvusClient:
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    token = read_secret(None, settings.token_env) or ""
    for attempt in range(attempts):
        try:
            return MilvusClient(
                uri=settings.uri,
                token=token,
                db_name=settings.database,
                timeout=settings.timeout_s,
                grpc_options=_GRPC_OPTIONS,
            )
        except MilvusException as error:
            if attempt == attempts - 1:
                raise Unavailable(f"Milvus cannot be reached at {settings.uri}: check store.uri") from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _as_milvus(row: ChunkRow, dense: Vector) -> dict[str, Any]:
    return {
        "chunk_id": chunk_id(row.document_id, row.version, row.position),
        "document_id": row.document_id,
        "version": row.version,
        "tenant_id": row.tenant_id,
        "access_id": row.access_id,
        "position": row.position,
        "start": row.start,
        "end": row.end,
        "page": -1 if row.page is None else row.page,
        "context": row.context,
        "text": row.text,
        "text_hash": row.text_hash,
        "analysed": row.analysed,
        "dense": dense,
    }


def _chunk_row(row: dict[str, Any]) -> ChunkRow:
    page = int(row["page"])
    return ChunkRow(
        document_id=row["document_id"],
        version=int(row["version"]),
        tenant_id=int(row["tenant_id"]),
        access_id=int(row["access_id"]),
        position=int(row["position"]),
        start=int(row["start"]),
        end=int(row["end"]),
        page=None if page < 0 else page,
        context=row["context"],
        text=row["text"],
        analysed=row["analysed"],
        text_hash=row["text_hash"],
        dense={},
    )


def _candidate(hit: Any, metric: str) -> Candidate:
    entity = hit.get("entity", hit)
    page = int(entity["page"])
    # Milvus Lite reports BM25 as a distance (negative, less is better); Milvus as a score.
    distance = float(hit["distance"])
    return Candidate(
        chunk_id=hit["chunk_id"] if "chunk_id" in hit else hit["id"],
        document_id=entity["document_id"],
        version=int(entity["version"]),
        access_id=int(entity["access_id"]),
        position=int(entity["position"]),
        start=int(entity["start"]),
        end=int(entity["end"]),
        page=None if page < 0 else page,
        text=entity["text"],
        text_hash=entity["text_hash"],
        score=abs(distance) if metric == "BM25" else distance,
    )


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
