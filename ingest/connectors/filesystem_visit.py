"""One listing of a folder, or of one file: what is there, and who may read it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from index.document import DocumentRef
from ingest.acl_file import ACL_FILE
from ingest.acl_file import MAX_BYTES as MAX_ACL_BYTES
from ingest.connector import Entry, Unreadable
from ingest.connectors.filesystem_opening import ITSELF, Contents, open_regular, read_folder
from ingest.connectors.filesystem_rights import Bits, SystemAccounts, readers
from ingest.folder_rules import FolderRules, is_left_out, is_utf8, refuse_misnamed_acl
from ingest.rows import RowFile, is_rows
from ingest.source_settings import SourceSettings
from policies.access import NOBODY, AccessRule
from policies.errors import DocumentRejected, RightsUnreadable, SourceUnavailable

MAX_DEPTH = 100
_LINK = "a link; its target is listed where it is"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source is: its resolved path, and how its uris begin (a file's whole uri) and what a file is called."""

    root: Path
    is_folder: bool
    uri: str
    name: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as it was read. `prefix` is its path in the source, ending in `/`; `bits` its own and those above."""

    path: Path
    prefix: str
    contents: Contents
    rules: FolderRules
    bits: tuple[Bits, ...]


class Visit:
    """Reads each folder's rights once, before it names what is in it.

    What it says, it says as of its beginning: a rule that changes meanwhile is told by a later visit.
    """

    def __init__(self, settings: SourceSettings, place: Place, owner_rights: bool) -> None:
        self._settings = settings
        self._place = place
        self._owner_rights = owner_rights
        # With the owners' rights, nobody reads what these say nothing about.
        self._default = settings.labelled(NOBODY) if owner_rights else settings.rule
        self._accounts = SystemAccounts()
        self._by_bits: dict[tuple[Bits, ...], AccessRule] = {}
        self._seen_at = time.time()

    def everything(self) -> Iterator[Entry | Unreadable]:
        """Name all documents in a fixed order, as they are found; no file but JSONL and `acl.yaml` is opened.

        Raises `RightsUnreadable` for the outermost folder alone.
        """
        yield from self._below(self.open_root())

    def open_root(self, wanted: frozenset[str] | None = None) -> Folder:
        """Read the outermost folder, as `open` does. Raises `SourceUnavailable` where it is gone."""
        folder = self.open("", wanted=wanted)
        if folder is None:
            raise SourceUnavailable(f"{self._place.uri}: the folder is gone")
        return folder

    def open(self, prefix: str, above: Folder | None = None, wanted: frozenset[str] | None = None) -> Folder | None:
        """Read a folder and its `acl.yaml`; none where it is gone.

        `wanted`: the names that will be asked for, and with them those that go on with `#`; none: all.
        Raises `SourceUnavailable` where the folder cannot be listed: what was not seen is not gone.
        """
        path = self._place.root / prefix
        try:
            contents = read_folder(path, None if wanted is None else _Wanted(wanted), self._owner_rights)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceUnavailable(f"{self._place.uri}/{prefix}: cannot be listed: {why(error)}") from error
        refuse_misnamed_acl(contents.names, prefix)
        rules = above.rules if above is not None else FolderRules(label=self._default.label)
        if ACL_FILE in contents.names:
            rules = rules.within(prefix, _read_acl(path / ACL_FILE, prefix))
        bits = above.bits if above is not None else ()
        if self._owner_rights:
            own = Bits.of_folder(contents.status, ITSELF in contents.extended)
            bits = bits if own in bits else (*bits, own)  # folders that say the same are one
        return Folder(path, prefix, contents, rules, bits)

    def named(self, folder: Folder, name: str) -> Iterator[Entry | Unreadable]:
        """Name what this stands for in a folder that was read: a document, its rows, or all that is under it.

        Of a folder whose rights cannot be read nothing is named, and the others go on.
        """
        if is_left_out(name):
            return
        item = folder.contents.items[name]
        if item is not None:
            yield from self._file(folder, name, item)
        elif folder.prefix.count("/") >= MAX_DEPTH:
            external_id = folder.prefix + name
            rule = folder.rules.rule_for(external_id) or self._default
            yield self._error(external_id, f"more than {MAX_DEPTH} folders deep", rule)
        else:
            try:
                deeper = self.open(f"{folder.prefix}{name}/", folder)
            except RightsUnreadable as error:
                yield Unreadable(error.below, error.detail)
                return
            if deeper is not None:
                yield from self._below(deeper)

    def alone(self) -> Iterator[Entry]:
        """Name the file that is the whole source, or its rows, by their bare ids."""
        place, name = self._place, self._place.name
        try:
            status = os.stat(place.root, follow_symlinks=False)
            rule = self._default
            if self._owner_rights:
                contents = read_folder(place.root.parent, frozenset({place.root.name}).__contains__, lists=True)
                bits = Bits.of_file(status, place.root.name in contents.extended)
                rule = self._settings.labelled(readers(bits, (), self._accounts))
        except OSError as error:
            raise SourceUnavailable(f"{place.uri}: cannot be read: {why(error)}") from error
        if not is_utf8(name):
            yield self._error(name, "the file's name is not UTF-8", rule)
        elif not stat.S_ISREG(status.st_mode):
            yield self._error(name, "no regular file", rule)
        else:
            yield from self._document(name, "", place.uri, str(place.root), status, rule)

    def _below(self, folder: Folder) -> Iterator[Entry | Unreadable]:
        """Name what is in a folder, and what lies deeper, by name."""
        for name in sorted(folder.contents.items):
            yield from self.named(folder, name)

    def _file(self, folder: Folder, name: str, item: os.stat_result | OSError) -> Iterator[Entry]:
        external_id = folder.prefix + name
        said = folder.rules.rule_for(external_id)
        if not is_utf8(external_id) or isinstance(item, OSError):
            reason = f"cannot be read: {item.strerror}" if isinstance(item, OSError) else "the file's name is not UTF-8"
            yield self._error(external_id, reason, self._default if said is None else said)
            return
        if said is None:
            said = self._owners(folder, name, item) if self._owner_rights else self._default
        if stat.S_ISREG(item.st_mode):
            path = os.path.join(folder.path, name)
            uri = f"{self._place.uri}/{external_id}"
            yield from self._document(external_id, f"{external_id}#", uri, path, item, said)
            return
        reason = "no regular file"
        if stat.S_ISLNK(item.st_mode):
            problem = _link_error(folder.path / name, self._place.root)
            if problem is None:
                return
            reason = problem
        yield self._error(external_id, reason, said)

    def _document(
        self, external_id: str, rows_begin: str, uri: str, path: str, status: os.stat_result, rule: AccessRule
    ) -> Iterator[Entry]:
        of, changed_at, size = self._settings, status.st_mtime, status.st_size
        if is_rows(external_id):
            file = RowFile(of, external_id, rows_begin, uri, rule, changed_at, self._seen_at)
            with _open_rows(path, external_id) as stream:
                yield from file.entries(stream)
            return
        fingerprint = version_of(status)
        ref = DocumentRef(of.tenant, of.name, external_id, uri, None, fingerprint, rule, size, self._seen_at)
        yield Entry(ref, location=path, changed_at=changed_at)

    def _error(self, external_id: str, reason: str, rule: AccessRule) -> Entry:
        of = self._settings
        uri = f"{self._place.uri}/{external_id}" if self._place.is_folder else self._place.uri
        shown, uri = (text.encode("utf-8", "replace").decode() for text in (external_id, uri))
        return Entry(DocumentRef(of.tenant, of.name, shown, uri, None, "", rule, 0, self._seen_at), error=reason)

    def _owners(self, folder: Folder, name: str, status: os.stat_result) -> AccessRule:
        bits = (Bits.of_file(status, name in folder.contents.extended), *folder.bits)
        rule = self._by_bits.get(bits)
        if rule is None:
            rule = self._by_bits[bits] = self._settings.labelled(readers(bits[0], bits[1:], self._accounts))
        return rule


class _Wanted:
    """Says of a name whether it is one of these, or begins with one and a `#`."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def __call__(self, name: str) -> bool:
        if name in self._names:
            return True
        return any(letter == "#" and name[:at] in self._names for at, letter in enumerate(name))


def version_of(status: os.stat_result) -> str:
    """What tells a file's content from an earlier one: its size and when it was last written."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def why(error: Exception) -> str:
    """What went wrong with a file, without its path."""
    if isinstance(error, DocumentRejected):
        return error.detail
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _link_error(link: Path, root: Path) -> str | None:
    """Why a link is no document; none for one to a folder of this source, whose files are listed where they are."""
    try:
        is_folder = stat.S_ISDIR(link.stat().st_mode)
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not Path(os.path.realpath(link)).is_relative_to(root):
        return "points outside the source"
    return None if is_folder else _LINK


def _open_rows(path: str, external_id: str) -> IO[bytes]:
    try:
        return open_regular(Path(path))
    except (OSError, DocumentRejected) as error:
        raise SourceUnavailable(f"{external_id}: cannot be read: {why(error)}") from error


def _read_acl(path: Path, prefix: str) -> bytes:
    try:
        with open_regular(path) as stream:
            return stream.read(MAX_ACL_BYTES + 1)
    except (OSError, DocumentRejected) as error:
        raise RightsUnreadable(f"{prefix}{ACL_FILE}: cannot be read: {why(error)}", prefix) from error
