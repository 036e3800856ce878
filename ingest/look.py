"""What is at some paths of a tree now: the documents there, and what is gone with all that was below it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ingest.connector import Entry, Gone
from ingest.folder_rules import path_parts
from ingest.rows import is_rows, row_files


@dataclass(frozen=True, slots=True)
class Found:
    """What a path names: its documents, whether they may be many (a folder, a file of rows), whether they are rows."""

    entries: Iterable[Entry]
    is_many: bool = False
    has_rows: bool = False


class Shelf(Protocol):
    """A tree in which a path is looked up by the rules that a listing of it goes by."""

    def find(self, path: str) -> Found | None:
        """What is at a path; none where a listing would name nothing there. Any text may be asked for."""
        ...

    def beside(self, path: str) -> Iterable[Entry]:
        """All documents whose path goes on with `#` in the path's last name (and is no row of a file there)."""
        ...


def look_at(shelf: Shelf, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
    """Name what these ids stand for, and what of it is gone; a document twice only where the tree holds it twice.

    A folder, and a file of rows, is told as gone with all below it before it is named: so what is no longer in it goes.
    Nothing at a path may mean that one of these was there. But `C#.md` is not below `C`, which only the tree can tell:
    what lies beside such a path is named with it.
    """
    yield from _Look(shelf, external_ids).results()


def look_at_rows(name: str, entries: Iterable[Entry], external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
    """The same where one file is the whole source and `entries` its documents: its name stands for them all."""
    wanted = set(external_ids)
    missing = set(external_ids)
    for entry in entries:
        if name in wanted or entry.ref.external_id in wanted:
            missing.discard(entry.ref.external_id)
            yield entry
    if is_rows(name):
        missing.discard(name)
    yield from (Gone(external_id) for external_id in sorted(missing))


class _Look:
    def __init__(self, shelf: Shelf, external_ids: Sequence[str]) -> None:
        self._shelf = shelf
        self._ids = sorted(set(external_ids))  # what lies below another comes behind it
        self._named: set[str] = set()
        self._covered: set[str] = set()
        self._rows: defaultdict[str, set[str]] = defaultdict(set)

    def results(self) -> Iterator[Entry | Gone]:
        for external_id in self._ids:
            if external_id not in self._named:
                yield from self._at(external_id)
        for path, wanted in self._rows.items():
            found = self._shelf.find(path)
            rows = (entry for entry in found.entries if entry.ref.external_id in wanted) if found else ()
            yield from self._note(rows)
        missing = set().union(*self._rows.values()) - self._named
        yield from (Gone(external_id) for external_id in sorted(missing))

    def _at(self, external_id: str) -> Iterator[Entry | Gone]:
        is_row = False
        for path in row_files(external_id):
            holder = self._shelf.find(path)
            if holder is not None and holder.has_rows:
                self._rows[path].add(external_id)
                is_row = True
        found = self._shelf.find(external_id)
        if found is None:
            if not is_row:
                yield from self._gone(external_id)
        elif not found.is_many:
            entries = list(self._note(found.entries))
            yield from entries
            if not entries:
                yield Gone(external_id)
        elif not self._is_covered(external_id):
            yield from self._gone(external_id)
            yield from self._note(found.entries)

    def _gone(self, external_id: str) -> Iterator[Entry | Gone]:
        below = path_parts(external_id) is not None and not self._is_covered(external_id)
        yield Gone(external_id, below)
        if below:
            self._covered.add(external_id)
            yield from self._note(self._shelf.beside(external_id))

    def _is_covered(self, external_id: str) -> bool:
        """Whether something above this was named with all that is below it."""
        return any(mark in "/#" and external_id[:at] in self._covered for at, mark in enumerate(external_id))

    def _note(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self._named.add(entry.ref.external_id)
            yield entry
