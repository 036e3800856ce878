"""A folder of files, or one file, on a disk or a mounted share.

Files are known by their path relative to the source, the rows of a `*.jsonl` by `<path>#<id>` (by their bare id where
the file is the whole source). A file system gives no ids that outlive a rename, so a renamed file is another document.

No link is followed, or whoever may write to one folder could publish another's files under the rule of their own: a
link is an error, but for one to a folder of the same source, which is left out. Only the source itself may be given
by a link. What stands in the place of a listed file or folder later on is not followed either.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from ingest.connector import Entry, Gone, Mark, Unreadable
from ingest.connectors.filesystem_look import FolderShelf
from ingest.connectors.filesystem_opening import open_regular
from ingest.connectors.filesystem_visit import Place, Visit, version_of, why
from ingest.connectors.filesystem_watching import changed_paths, ids_to_look_at
from ingest.connectors.listed_version import changed, is_listed
from ingest.look import look_at, look_at_rows
from ingest.source_settings import SourceSettings
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge


class FilesystemSettings(SourceSettings):
    """A folder, or one file.

    `owner_rights`: what no line of an `acl.yaml` speaks of is read by those whom the file system lets read it, and
    `acl` says nothing. `force_polling`: for network file systems, whose other writers the kernel knows nothing of.
    """

    kind: Literal["filesystem"]
    path: str = Field(min_length=1, description="a path, or a file:// URL of one")
    owner_rights: bool = False
    force_polling: bool = False

    @field_validator("path")
    @classmethod
    def _a_path(cls, value: str) -> str:
        if "\x00" in value or local_path(value) is None:
            raise ValueError("give the path of a folder or a file; an object store is a source of kind store")
        return value


class FilesystemConnector:
    """Lists, looks, reads and watches local files."""

    def __init__(self, settings: FilesystemSettings) -> None:
        self._settings = settings

    def check(self) -> None:
        if self._settings.owner_rights and not (hasattr(os, "getxattr") and os.path.isdir("/proc/self/fd")):
            raise ConfigurationError("owner_rights: only Linux says all that rights depend on")
        place = self._place()
        try:
            if place.is_folder:
                self._visit(place).open_root()
            else:
                open_regular(place.root).close()
        except (OSError, DocumentRejected) as error:
            raise ConfigurationError(f"{self._settings.path}: cannot be read: {why(error)}") from error
        except SourceUnavailable as error:
            raise ConfigurationError(error.detail) from error

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Unreadable | Mark]:
        """Name everything: there is no cursor, for a file system does not say what changed since."""
        place = self._place()
        visit = self._visit(place)
        yield from visit.everything() if place.is_folder else visit.alone()
        yield Mark(cursor=None, complete=True)

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        """Name what is at these paths, by the rules that a listing goes by.

        A folder and a JSONL are told as gone with all that was below them, then what is there now is named. So is a
        path where nothing is, for it may have been either; and what no listing names (hidden, `..`) is gone. Where a
        JSONL is the whole source, nothing is said of rows that went: a listing finds them.
        """
        place = self._place()
        visit = self._visit(place)
        if place.is_folder:
            yield from look_at(FolderShelf(visit, external_ids), external_ids)
        else:
            yield from look_at_rows(place.name, visit.alone(), external_ids)

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        if entry.location is None:
            raise DocumentRejected("nothing to read")
        try:
            with open_regular(Path(entry.location)) as stream:
                before = os.fstat(stream.fileno())
                size = before.st_size
                data = stream.read(max_bytes + 1) if size <= max_bytes else b""
                after = os.fstat(stream.fileno())
        except FileNotFoundError as error:
            raise DocumentRejected("deleted while reading") from error
        except PermissionError as error:
            raise DocumentRejected("no permission to read it") from error
        except OSError as error:
            raise SourceUnavailable(f"cannot be read: {why(error)}") from error
        if max(size, len(data)) > max_bytes:
            raise TooLarge(f"the file is larger than {max_bytes / 1_000_000:g} MB")
        if not all(is_listed(entry, version_of(status)) for status in (before, after)):
            raise changed()
        return data

    async def watch(self) -> AsyncIterator[Sequence[str]]:
        """Yield paths as they change; an empty sequence as soon as the watch stands, for what came before it.

        Raises `SourceUnavailable` where the source is gone or cannot be watched.
        """
        while True:
            place = await asyncio.to_thread(self._place)
            # A file that is replaced is another one to the kernel: its folder is watched.
            watched = place.root if place.is_folder else place.root.parent
            stands = False
            async with aclosing(changed_paths(watched, place.is_folder, self._settings.force_polling)) as changes:
                async for paths in changes:
                    if not stands:
                        stands = True
                        yield ()
                    elif place.is_folder:
                        ids = ids_to_look_at(paths, str(watched))
                        if ids is not None:
                            yield ids
                    elif str(place.root) in paths:
                        yield ()
                    # A folder that was replaced, or a link that leads elsewhere now, is no longer watched.
                    is_replaced = str(watched) in paths
                    if is_replaced or (not paths and await asyncio.to_thread(self._place) != place):
                        break

    def _visit(self, place: Place) -> Visit:
        return Visit(self._settings, place, self._settings.owner_rights)

    def _place(self) -> Place:
        given = self._settings.path
        local = local_path(given)
        try:
            if local is None or not local.exists():
                raise SourceUnavailable(f"{given}: no such file or folder")
            is_folder = local.is_dir()
            return Place(local.resolve(), is_folder, given.rstrip("/") if is_folder else given, local.name)
        except (OSError, RuntimeError) as error:
            raise SourceUnavailable(f"{given}: cannot be reached: {why(error)}") from error


def local_path(uri: str) -> Path | None:
    """The path that a URI names; none for what fsspec reads."""
    for scheme in ("file://", "local://"):
        if uri.startswith(scheme):
            return Path(uri.removeprefix(scheme).removeprefix("localhost"))
    if uri.startswith("/"):
        return Path(uri)  # also where a name in it looks like a URL
    if "://" in uri or "::" in uri:
        return None
    try:
        return Path(uri).expanduser()
    except RuntimeError:  # nobody here has that name
        return Path(uri)
