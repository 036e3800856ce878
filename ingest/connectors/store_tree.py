"""Objects under a root: S3 as it is asked itself, any other store through fsspec."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import IO, Any, Protocol

from ingest.connectors.listed_version import changed
from ingest.connectors.store_asking import Asking
from ingest.folder_rules import is_left_out, speaks_of_rights
from policies.errors import SourceUnavailable, TooLarge

MAX_DEPTH = 100
PAGE = 1000
MAX_KEY_BYTES = 1024
WHOLE_S = 300.0
"""How long one body may take; a stream has a second more for each megabyte that came."""
BYTES_PER_S = 1_000_000
_FLAT = frozenset({"abfs", "abfss", "az", "gcs", "gs", "memory"})
_VERSION = ("ETag", "etag", "md5Hash", "version_id")
_CHANGED = ("LastModified", "mtime", "updated", "last_modified", "created")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object: its path under the root, and what its store calls it.

    `version` changes with the content; `changed_at` in Unix seconds; `problem` says why it is no document.
    """

    path: str
    address: str
    size: int
    version: str
    changed_at: float | None
    problem: str | None = None


class Tree(Protocol):
    """What is under a source's root. All raise as `Asking` does; paths are relative to the root."""

    def root(self) -> Stored | None:
        """The object that the whole source is; none where it is a folder. Raises `SourceUnavailable` without either."""
        ...

    def at(self, path: str) -> Stored | None:
        """The object with exactly this path; none where there is none, or a folder."""
        ...

    def under(self, prefix: str) -> Iterator[Stored]:
        """All objects whose path begins with this, in no order; some that are no documents may be left out."""
        ...

    def acl_files(self, folder: str) -> list[Stored]:
        """What lies in a folder ("" or ending in `/`) and is named like an `acl.yaml`."""
        ...

    def read(self, address: str, max_bytes: int, is_wanted: Callable[[str], bool] | None = None) -> bytes:
        """An object's bytes. Raises `TooLarge` without holding more than `max_bytes`, and `FileNotFoundError`.

        `is_wanted` is asked about its version; `SourceUnavailable` where that is another one.
        """
        ...

    def open(self, address: str) -> IO[bytes]:
        """A stream of an object."""
        ...


class Bucket:
    """S3: a listing is pages of 1,000 objects, however many folders they make.

    A prefix that no object has is an empty folder, for S3 knows no others; the bucket must be there.
    """

    def __init__(self, system: Any, path: str, ask: Asking, is_folder: bool) -> None:
        """`path` is `bucket` or `bucket/key`; `is_folder`: the key is surely no object."""
        self._system = system
        # Asking repeats calls itself, and heeds what the store says of when.
        self._system.retries = 1
        self._bucket, self._root, _ = system.split_path(path)
        self._ask = ask
        self._is_folder = is_folder or not self._root

    def root(self) -> Stored | None:
        return None if self._is_folder else self._head(self._root)

    def at(self, path: str) -> Stored | None:
        return self._head(self._start(path)) if self._may_be(path) else None

    def under(self, prefix: str) -> Iterator[Stored]:
        more: dict[str, Any] = {}
        while self._may_be(prefix):
            page = self._page(prefix, more)
            yield from self._of(page)
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == more.get("ContinuationToken"):
                raise SourceUnavailable("the bucket's listing broke off between two pages")
            more = {"ContinuationToken": token}

    def acl_files(self, folder: str) -> list[Stored]:
        """Only the two usual spellings: to look for all costs a listing of the folder."""
        found = self._of(self._page(f"{folder}acl.y", {"Delimiter": "/"}))
        return [stored for stored in found if speaks_of_rights(stored.path.rpartition("/")[2])]

    def read(self, address: str, max_bytes: int, is_wanted: Callable[[str], bool] | None = None) -> bytes:
        def call() -> bytes:
            answer = self._get(address)
            length = answer.get("ContentLength") or 0
            # The version and the bytes are of one answer.
            version = _version(length, answer.get("ETag"), answer.get("LastModified"))
            if is_wanted is not None and not is_wanted(version):
                answer["Body"].close()
                raise changed()
            return bytes(_wait_for(self._system, _up_to, answer["Body"], length, max_bytes))

        return self._ask(call)

    def open(self, address: str) -> IO[bytes]:
        answer = self._ask(lambda: self._get(address))
        return io.BufferedReader(_Body(self._system, answer["Body"]), buffer_size=1 << 20)

    def tags(self, stored: Stored) -> Mapping[str, str] | None:
        """An object's tags; none where it is gone."""
        bucket, _, key = stored.address.partition("/")
        try:
            found = self._ask(lambda: self._system.call_s3("get_object_tagging", Bucket=bucket, Key=key))
        except FileNotFoundError:
            return None
        return {tag["Key"]: tag["Value"] for tag in found.get("TagSet") or ()}

    def _get(self, address: str) -> dict[str, Any]:
        bucket, _, key = address.partition("/")
        answer: dict[str, Any] = self._system.call_s3("get_object", Bucket=bucket, Key=key)
        return answer

    def _head(self, key: str) -> Stored | None:
        try:
            head = self._ask(lambda: self._system.call_s3("head_object", Bucket=self._bucket, Key=key))
        except FileNotFoundError:
            return None
        return self._stored(key, head["ContentLength"], head.get("ETag"), head.get("LastModified"))

    def _page(self, prefix: str, more: dict[str, Any]) -> dict[str, Any]:
        where = {"Bucket": self._bucket, "Prefix": self._start(prefix), "MaxKeys": PAGE}
        try:
            page: dict[str, Any] = self._ask(lambda: self._system.call_s3("list_objects_v2", **where, **more))
        except FileNotFoundError as error:
            raise SourceUnavailable(f"{self._bucket}: no such bucket") from error
        return page

    def _may_be(self, path: str) -> bool:
        """Whether an object may begin so: S3 calls a request for any other wrong, not unanswerable."""
        return len(self._start(path).encode()) <= MAX_KEY_BYTES

    def _start(self, path: str) -> str:
        return f"{self._root}/{path}" if self._root else path

    def _of(self, page: dict[str, Any]) -> Iterator[Stored]:
        for item in page.get("Contents") or ():
            yield self._stored(item["Key"], item["Size"], item.get("ETag"), item.get("LastModified"))

    def _stored(self, key: str, size: int, etag: str | None, changed: Any) -> Stored:
        path = key.removeprefix(self._start(""))
        return Stored(path, f"{self._bucket}/{key}", size, _version(size, etag, changed), _unix_s(changed))


class _Body(io.RawIOBase):
    """An answer's body as a stream; one answer is one version of the object."""

    def __init__(self, system: Any, body: Any) -> None:
        self._system = system
        self._body = body
        self._left_s = WHOLE_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        began = time.monotonic()
        data = _wait_for(self._system, _within, self._left_s, self._body, len(buffer))
        self._left_s += len(data) / BYTES_PER_S - (time.monotonic() - began)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


def _wait_for(system: Any, call: Any, *args: Any) -> Any:
    from fsspec.asyn import sync

    return sync(system.loop, call, *args)


async def _within(seconds: float, body: Any, size: int) -> bytes:
    """Read a piece of a body. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        return bytes(await body.read(size))


async def _up_to(body: Any, length: int, max_bytes: int) -> bytes:
    """Read a body, but not one that is too large, or without an end in sight: its connection is closed."""
    try:
        data = bytearray()
        async with asyncio.timeout(WHOLE_S):
            while length <= max_bytes and (piece := await body.read(min(1 << 20, max_bytes + 1 - len(data)))):
                data += piece
                if len(data) > max_bytes:
                    break
        if max(length, len(data)) > max_bytes:
            raise too_large(max_bytes)
        return bytes(data)
    finally:
        body.close()


class AnyTree:
    """A store that fsspec reads: folder by folder, but for object stores, which list a whole prefix at once."""

    def __init__(self, system: Any, path: str, ask: Asking) -> None:
        self._system = system
        self._root = path.rstrip("/")
        self._ask = ask
        protocols = system.protocol if isinstance(system.protocol, (tuple, list)) else (system.protocol,)
        self._is_flat = not _FLAT.isdisjoint(protocols)
        system.invalidate_cache()

    def root(self) -> Stored | None:
        try:
            info = self._ask(lambda: self._system.info(self._root))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceUnavailable("no such file or folder") from error
        return None if info["type"] == "directory" else self._stored("", info)

    def at(self, path: str) -> Stored | None:
        address = f"{self._root}/{path}"
        try:
            info = self._ask(lambda: self._system.info(address))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if info["type"] == "directory" and not is_link(info) else self._stored(path, info)

    def under(self, prefix: str) -> Iterator[Stored]:
        folder, _, begin = prefix.rpartition("/")
        for name, info in self._in(folder):
            if not name.startswith(begin) or (is_left_out(name) and not speaks_of_rights(name)):
                continue
            path = f"{folder}/{name}" if folder else name
            if info["type"] != "directory" or is_link(info) or speaks_of_rights(name):
                yield self._stored(path, info)
            elif self._is_flat:
                found = self._find(info["name"])
                start = len(info["name"].rstrip("/"))
                yield from (self._stored(path + each["name"][start:], each) for each in found)
            elif path.count("/") >= MAX_DEPTH:
                yield replace(self._stored(path, info), problem=f"more than {MAX_DEPTH} folders deep")
            else:
                yield from self.under(path + "/")

    def acl_files(self, folder: str) -> list[Stored]:
        found = self._in(folder.rstrip("/"))
        return [self._stored(folder + name, info) for name, info in found if speaks_of_rights(name)]

    def read(self, address: str, max_bytes: int, is_wanted: Callable[[str], bool] | None = None) -> bytes:
        def call() -> bytes:
            before = self._info(address)
            data = self._read(address, before, max_bytes)
            if is_wanted is not None:
                version = _version_in(self._info(address))
                # Some file systems (HTTP) say less in a listing than of one file.
                if version != _version_in(before) or not (is_wanted(version) or is_wanted(self._listed(address))):
                    raise changed()
            return data

        return self._ask(call)

    def open(self, address: str) -> IO[bytes]:
        stream: IO[bytes] = self._ask(lambda: self._system.open(address, "rb"))
        return stream

    def _info(self, address: str) -> dict[str, Any]:
        """What the file system says of a file now, not what it said when its folder was listed."""
        self._system.invalidate_cache()
        info: dict[str, Any] = self._system.info(address)
        return info

    def _listed(self, address: str) -> str:
        """A file's version as the listing of its folder has it."""
        self._system.invalidate_cache()
        found = self._system.ls(address.rstrip("/").rpartition("/")[0], detail=True)
        return next((_version_in(info) for info in found if info["name"] == address), "")

    def _read(self, address: str, info: dict[str, Any], max_bytes: int) -> bytes:
        size = info.get("size")
        if size is not None and size > max_bytes:
            raise too_large(max_bytes)
        with self._system.open(address, "rb") as stream:
            data = bytes(stream.read(max_bytes + 1))
        if len(data) > max_bytes:
            raise too_large(max_bytes)
        return data

    def _find(self, address: str) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self._ask(lambda: self._system.find(address, detail=True))
        return list(found.values())

    def _in(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        """What lies in a folder, by name; nothing where it is gone."""
        address = f"{self._root}/{folder}" if folder else self._root
        try:
            found = self._ask(lambda: self._system.ls(address, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        root = address.rstrip("/")
        return [(PurePosixPath(info["name"]).name, info) for info in found if info["name"].rstrip("/") != root]

    def _stored(self, path: str, info: dict[str, Any]) -> Stored:
        size = int(info.get("size") or 0)
        changed_at = _unix_s(_changed_in(info))
        problem = None if info["type"] == "file" else "no regular file"
        problem = "a link; its target is listed where it is" if is_link(info) else problem
        return Stored(path, info["name"], size, _version_in(info), changed_at, problem)


def too_large(max_bytes: int) -> TooLarge:
    """The error for an object over its limit."""
    return TooLarge(f"the file is larger than {max_bytes / 1_000_000:g} MB")


def is_link(info: dict[str, Any]) -> bool:
    """Say whether a file system calls this a link."""
    return bool(info.get("islink")) or info["type"] == "link"  # SFTP and the like; object stores have none


def _version_in(info: dict[str, Any]) -> str:
    etag = next((str(info[key]) for key in _VERSION if info.get(key)), None)
    return _version(int(info.get("size") or 0), etag, _changed_in(info))


def _changed_in(info: dict[str, Any]) -> Any:
    return next((info[key] for key in _CHANGED if key in info), None)


def _version(size: int, etag: str | None, changed: Any) -> str:
    # A time comes in more than one form from one and the same file system.
    seconds = _unix_s(changed)
    return f"{size}-{etag.strip(chr(34)) if etag else changed or '' if seconds is None else seconds}"


def _unix_s(changed: Any) -> float | None:
    if isinstance(changed, datetime):
        return changed.timestamp()
    return float(changed) if isinstance(changed, (int, float)) else None
