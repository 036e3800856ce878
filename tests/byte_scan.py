"""Finds a text or a vector in files, whatever they are: raw bytes, Parquet, Arrow, SQLite, compressed, encoded."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def needles(*texts: str) -> list[bytes]:
    """Spell texts as files may hold them: UTF-8 and UTF-16, and base64 at each of its three offsets; in lower case."""
    found: set[bytes] = set()
    for text in texts:
        for spelt in {text, text.lower(), text.upper()}:
            for raw in (spelt.encode(), spelt.encode("utf-16-le"), spelt.encode("utf-16-be")):
                found.add(raw.lower())
                for offset in range(3):
                    whole = base64.b64encode(b"\0" * offset + raw)
                    # What depends on what stands before or after is left out.
                    found.add(whole[4 if offset else 0 : len(whole) // 4 * 4 - 4].lower())
    return sorted(found)


def vector_needle(vector: Any) -> bytes:
    """Give a float32 vector's bytes."""
    return np.asarray(vector, dtype="<f4").tobytes()


def scan(root: Path, texts: Iterable[bytes], vectors: Iterable[bytes] = ()) -> list[str]:
    """Name the files below `root` in which something of this is, and how it was read there."""
    lower, exact = list(texts), list(vectors)
    hits = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        for how, content in readings(path):
            folded = content.lower()
            if any(each in folded for each in lower) or any(each in content for each in exact):
                hits.append(f"{path.relative_to(root)} ({how})")
    return hits


def readings(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give a file's content in every way that it can be read."""
    raw = path.read_bytes()
    yield "raw", raw
    yield from _unpacked(raw)
    if raw.startswith(b"PAR1"):
        import pyarrow.parquet

        yield from _table("parquet", pyarrow.parquet.read_table(path))
    for opened in ("open_stream", "open_file"):
        table = _arrow(raw, opened)
        if table is not None:
            yield from _table(f"arrow {opened}", table)
    if raw.startswith(b"SQLite format 3"):
        yield from _sqlite(path)
    if path.suffix == ".npy" or path.suffix == ".npz":
        yield "numpy", _numpy(raw)


def _unpacked(raw: bytes, depth: int = 2) -> Iterator[tuple[str, bytes]]:
    if raw.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                content = archive.read(name)
                yield f"zip {name}", name.encode() + b"\0" + content
    for magic, name, unpack in (
        (b"\x1f\x8b", "gzip", gzip.decompress),
        (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
        (b"BZh", "bzip2", bz2.decompress),
        (b"\xfd7zXZ", "xz", lzma.decompress),
    ):
        if raw.startswith(magic) and depth:
            content = unpack(raw)
            yield name, content
            yield from _unpacked(content, depth - 1)
    if raw[:1] == b"\x78":
        try:
            yield "zlib", zlib.decompress(raw)
        except zlib.error:
            return


def _zstd(raw: bytes) -> bytes:
    import pyarrow

    with pyarrow.input_stream(io.BytesIO(raw), compression="zstd") as stream:
        return bytes(stream.read())


def _arrow(raw: bytes, opened: str) -> Any:
    import pyarrow
    import pyarrow.ipc

    try:
        with getattr(pyarrow.ipc, opened)(pyarrow.BufferReader(raw)) as reader:
            batches = []
            try:
                if opened == "open_stream":
                    batches.extend(reader)
                else:
                    batches.extend(reader.get_batch(n) for n in range(reader.num_record_batches))
            except pyarrow.ArrowInvalid:
                pass  # a log that was not closed ends in the middle: what was read counts
            return pyarrow.Table.from_batches(batches) if batches else None
    except (pyarrow.ArrowInvalid, OSError):
        return None


def _table(how: str, table: Any) -> Iterator[tuple[str, bytes]]:
    for name in table.column_names:
        column = table.column(name)
        parts = []
        for value in column.to_pylist():
            if isinstance(value, bytes):
                parts.append(value)
            elif isinstance(value, list) and value and isinstance(value[0], float):
                parts.append(np.asarray(value, dtype="<f4").tobytes())
            else:
                parts.append(str(value).encode("utf-8", "replace"))
        yield f"{how} {name}", b"\0".join(parts)


def _sqlite(path: Path) -> Iterator[tuple[str, bytes]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            parts = []
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - the file's own names
                parts += [each if isinstance(each, bytes) else str(each).encode("utf-8", "replace") for each in row]
            yield f"sqlite {table}", b"\0".join(parts)
    finally:
        connection.close()


def _numpy(raw: bytes) -> bytes:
    loaded = np.load(io.BytesIO(raw), allow_pickle=False)
    arrays = [loaded] if isinstance(loaded, np.ndarray) else [loaded[name] for name in loaded.files]
    return b"".join(np.asarray(each, dtype="<f4").tobytes() for each in arrays if each.dtype.kind == "f")
