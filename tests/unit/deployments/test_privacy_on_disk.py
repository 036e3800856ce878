"""What was erased is on no disk: every file of the data directory is decoded and searched, byte by byte."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.privacy_desk import privacy_work
from index.document import chunk_id, document_id
from ingest.embedding import CachedEmbedder
from tests.byte_scan import needles, scan, vector_needle
from tests.leaks.service import Service
from tests.privacy_service import (
    ACCOUNT,
    MAIL,
    MEMORY,
    NAME,
    TENANT,
    Home,
    ask,
    done,
    fill,
    finished,
    put,
    rows_of,
    served,
)


@pytest.fixture
def home() -> Iterator[Home]:
    path = Path(tempfile.mkdtemp(prefix="privacy-", dir=MEMORY))
    made = Home(path / "data")
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(path)


def vectors_of(service: Service, name: str) -> list[bytes]:
    """The exact bytes of the vectors of a document's passages."""
    held = service.ledger.document(document_id(TENANT, "uploads/upl", name))
    assert held is not None and held.version is not None
    keys = [chunk_id(held.document_id, held.version, position) for position in range(held.chunk_count)]
    rows = service.stores()[0].copies(keys)
    return [vector_needle(vector) for row in rows.values() for vector in row.dense.values()]


def purged(service: Service) -> list[Any]:
    work = privacy_work(service.args, CachedEmbedder(service.args))
    try:
        return work.purge(TENANT)
    finally:
        work.close()


def everything(service: Service) -> list[bytes]:
    names = ("letter", "payments", "mail", "Quorinda Vexhollow CV")
    return [each for name in names for each in vectors_of(service, name)]


TEXTS = needles(NAME, "Vexhollow", MAIL, "DE89370400440532013000", ACCOUNT, "4711-0815", "4711 0815")


def test_after_the_purge_no_file_holds_the_person_or_a_vector_of_theirs(home: Home) -> None:
    with served(home) as service:
        vectors = _erased_and_purged(service, home)
    home.stop()
    assert scan(home.path, TEXTS, vectors) == []
    assert "and one that does not" in (home.path / "logs" / "some.log").read_text()


def _erased_and_purged(service: Service, home: Home) -> list[bytes]:
    fill(service)
    service.ledger.delete([document_id("globex", "uploads/upl", "other")])  # or it would rightly be found
    put(service, "letter", f"{NAME} wrote to us on Tuesday. The bridge at Tarn is closed until June.")
    vectors = everything(service)
    before = ask(service, "When does the ferry leave?")
    (home.path / "logs" / "some.log").write_text(f"a line that names {NAME}\nand one that does not\n")
    service.flush()
    assert len(scan(home.path, [], vectors)) >= 2, "the store and the cache hold the vectors"
    told = done(service, "erasure")
    left = scan(home.path, TEXTS, vectors)
    assert left, "what was only deleted is still on the disk: this test can fail"
    (request,) = purged(service)
    told = finished(service, request.privacy_request_id)
    assert told["physical"] == "done" and told["receipt"]["signature"], told
    put(service, "later", "Written after the purge.")
    assert "The ferry leaves at noon" in ask(service, "When does the ferry leave?") and "ferry" in before
    return vectors


def test_a_backup_that_is_put_back_is_erased_again_before_anybody_is_answered_from_it(home: Home) -> None:
    backup = home.path.with_name("backup")
    with served(home) as service:
        fill(service)
        service.ledger.delete([document_id("globex", "uploads/upl", "other")])
        vectors = everything(service)
    home.stop()
    shutil.copytree(home.path, backup)
    home.start()
    with served(home) as service:
        done(service, "erasure")
        purged(service)
    home.stop()
    shutil.rmtree(home.path)
    shutil.copytree(backup, home.path)
    home.start()
    with served(home) as service:
        assert "Quorinda" in json.dumps([row.text for row in rows_of(service)]), "the backup has it"
        for question in (NAME, MAIL, "heron", "ferry for nine years"):
            assert "vexhollow" not in ask(service, question).lower(), "not even before it is erased again"
        service.run(service.sync.check_health())
        service.run(service.sync._privacy.settled())
        assert "The ferry leaves at noon" in ask(service, "When does the ferry leave?")
    home.stop()
    assert scan(home.path, TEXTS, vectors) == []


@pytest.mark.parametrize("how", ["plain", "utf-16", "base64", "gzip", "zip", "sqlite", "parquet", "arrow", "vector"])
def test_the_scan_finds_what_is_planted(how: str, tmp_path: Path) -> None:
    text, vector = f"...{NAME}...", np.arange(8, dtype=np.float32) / 7
    column = pa.table({"text": [text], "dense": [vector.tolist()]})
    if how == "sqlite":
        with sqlite3.connect(tmp_path / "x.sqlite") as connection:
            connection.execute("CREATE TABLE t (x TEXT)")
            connection.execute("INSERT INTO t VALUES (?)", (text,))
    elif how == "parquet":
        pq.write_table(column, tmp_path / "x.parquet", compression="zstd")
    elif how == "arrow":
        with pa.ipc.new_stream(tmp_path / "x.arrow", column.schema) as stream:
            stream.write_table(column)
    elif how == "zip":
        with zipfile.ZipFile(tmp_path / "x.docx", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.xml", text)
    elif how == "vector":
        pq.write_table(column.drop_columns("text"), tmp_path / "x.parquet", compression="zstd")
    else:
        spelt = {
            "plain": text.encode(),
            "utf-16": text.encode("utf-16"),
            "base64": base64.b64encode(text.encode()),
            "gzip": gzip.compress(text.encode()),
        }
        (tmp_path / "x").write_bytes(spelt[how])
    (tmp_path / "nothing").write_text("nothing")
    assert len(scan(tmp_path, needles(NAME), [vector_needle(vector)])) >= 1
    assert scan(tmp_path, needles("Somebody Else"), [vector_needle(-vector)]) == []
