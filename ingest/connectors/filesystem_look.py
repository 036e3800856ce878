"""Paths of a folder, looked up through the folders above them."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ingest.connector import Entry, Unreadable
from ingest.connectors.filesystem_visit import MAX_DEPTH, Folder, Visit
from ingest.folder_rules import is_left_out, path_parts
from ingest.look import Found
from ingest.rows import is_rows, row_files
from policies.errors import RightsUnreadable


class FolderShelf:
    """Goes down to each path, of which all are known beforehand, and reads each folder once.

    A hostile id touches nothing: names are only ever compared with those that a folder holds.
    """

    def __init__(self, visit: Visit, external_ids: Iterable[str]) -> None:
        self._visit = visit
        self._wanted: defaultdict[str, set[str]] = defaultdict(set)
        for external_id in external_ids:
            for path in (external_id, *row_files(external_id)):
                folder = ""
                for name in _parts(path) or ():
                    self._wanted[folder].add(name)
                    folder += f"{name}/"
        self._folders: dict[str, Folder | None] = {"": visit.open_root(frozenset(self._wanted[""]))}

    def find(self, path: str) -> Found | None:
        parts = _parts(path)
        folder = self._folder(parts[:-1]) if parts else None
        if parts is None or folder is None or is_left_out(parts[-1]) or parts[-1] not in folder.contents.items:
            return None
        name = parts[-1]
        item = folder.contents.items[name]
        is_regular = item is not None and not isinstance(item, OSError) and stat.S_ISREG(item.st_mode)
        entries = self._named(folder, name)
        return Found(entries, is_many=item is None or is_rows(name), has_rows=is_regular and is_rows(name))

    def beside(self, path: str) -> Iterator[Entry]:
        parts = _parts(path)
        folder = self._folder(parts[:-1]) if parts else None
        if parts is not None and folder is not None:
            for name in sorted(folder.contents.items):
                if name.startswith(f"{parts[-1]}#"):
                    yield from self._named(folder, name)

    def _named(self, folder: Folder, name: str) -> Iterator[Entry]:
        for item in self._visit.named(folder, name):
            if isinstance(item, Unreadable):  # whoever asked for a few paths asks again; a listing goes on without it
                raise RightsUnreadable(item.reason, item.below)
            yield item

    def _folder(self, parts: Sequence[str]) -> Folder | None:
        prefix, folder = "", self._folders[""]
        for name in parts:
            above, prefix = folder, f"{prefix}{name}/"
            if above is None or is_left_out(name) or above.contents.items.get(name, above) is not None:
                return None  # not there, or no folder
            if prefix not in self._folders:
                self._folders[prefix] = self._visit.open(prefix, above, frozenset(self._wanted[prefix]))
            folder = self._folders[prefix]
        return folder


def _parts(path: str) -> list[str] | None:
    parts = path_parts(path)
    return parts if parts is not None and len(parts) <= MAX_DEPTH + 1 else None
