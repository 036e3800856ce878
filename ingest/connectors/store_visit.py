"""One listing of a store, or one look into it: which objects are documents, and who may read them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from index.document import DocumentRef
from ingest.acl_file import ACL_FILE
from ingest.acl_file import MAX_BYTES as MAX_ACL_BYTES
from ingest.connector import Entry, Unreadable
from ingest.connectors.store_rights import tagged_rule, with_tags
from ingest.connectors.store_tree import Bucket, Stored, Tree
from ingest.folder_rules import FolderRules, is_left_out, path_parts, refuse_misnamed_acl
from ingest.look import Found
from ingest.rows import RowFile, is_rows
from ingest.source_settings import SourceSettings
from policies.access import NOBODY, AccessRule
from policies.errors import RightsUnreadable, TooLarge


class StoreVisit:
    """What it says, it says as of its beginning: a rule that changes meanwhile is told by a later visit."""

    def __init__(self, settings: SourceSettings, tree: Tree, uri: str, acl_tag: str | None) -> None:
        self._settings = settings
        self._tree = tree
        self._uri = uri
        self._tag = acl_tag
        self._default = settings.rule
        self._seen_at = time.time()
        self._listed: list[str] = []
        """Prefixes of which all objects were listed: their folders' `acl.yaml` are known."""
        self._acl: dict[str, Stored] = {}
        self._rules: dict[str, FolderRules] = {}
        self._kept: dict[str, bool] = {"": True}
        self._goes_on = False
        self._unreadable: dict[str, str] = {}
        self._hidden: tuple[str, ...] = ()
        """The keys of `_unreadable`."""

    def everything(self) -> Iterator[Entry | Unreadable]:
        """Name all documents in a fixed order. All objects are listed first: rights may stand in any of them.

        Of a folder whose rights cannot be read nothing is named, and the others go on. Raises `RightsUnreadable` for
        the whole source alone.
        """
        self._goes_on = True
        yield from self._entries(self._under(""))
        yield from (Unreadable(below, reason) for below, reason in self._unreadable.items())

    def alone(self, stored: Stored) -> Iterator[Entry]:
        """Name the object that is the whole source, or its rows by their bare ids."""
        name = PurePosixPath(stored.address).name
        for rule in self._with_rules([(stored, None)]):
            yield from self._documents(stored, name, "", self._uri, rule[1])

    def find(self, path: str) -> Found | None:
        parts = path_parts(path)
        if parts is None or not self._is_kept(parts[:-1]) or is_left_out(parts[-1]):
            return None
        self._refuse_misnamed(parts)
        stored = self._tree.at(path)
        if stored is not None:
            has_rows = is_rows(path) and stored.problem is None
            return Found(self._entries([stored]), is_many=is_rows(path), has_rows=has_rows)
        objects = list(self._tree.under(f"{path}/"))
        if not objects:
            return None
        return Found(self._entries(self._documents_of(f"{path}/", objects)), is_many=True)

    def beside(self, path: str) -> Iterator[Entry]:
        parts = path_parts(path)
        if parts is not None and self._is_kept(parts[:-1]):
            yield from self._entries(self._under(f"{path}#"))

    # ---- which objects are documents

    def _under(self, prefix: str) -> list[Stored]:
        return self._documents_of(prefix, self._tree.under(prefix))

    def _documents_of(self, prefix: str, objects: Iterable[Stored]) -> list[Stored]:
        """Sort the documents out of all objects under a prefix; each `acl.yaml` is taken down."""
        found: list[Stored] = []
        for stored in objects:
            *folders, name = stored.path.split("/")
            try:
                if not self._is_kept(folders):
                    continue
                if not name and not (folders and stored.size):
                    continue  # what some programs leave to stand for a folder
                self._refuse_misnamed([*folders, name])
            except RightsUnreadable as error:
                self._cannot_tell(error)
                continue
            if name == ACL_FILE:
                self._acl["".join(f"{folder}/" for folder in folders)] = stored
            elif not is_left_out(name):
                found.append(stored)
        self._listed.append(prefix)
        return sorted(found, key=lambda stored: stored.path.split("/"))

    def _is_kept(self, folders: list[str]) -> bool:
        prefix = "/".join(folders)
        kept = self._kept.get(prefix)
        if kept is None:
            for at, name in enumerate(folders):
                if name == ACL_FILE:
                    folder = "".join(f"{each}/" for each in folders[:at])
                    raise RightsUnreadable(f"{folder}{ACL_FILE}: no regular file", folder)
            kept = self._kept[prefix] = not any(map(is_left_out, folders))
        return kept

    def _cannot_tell(self, error: RightsUnreadable) -> None:
        """Note a folder whose rights cannot be read. Raises the error where that is no reason to go on."""
        if not self._goes_on or not error.below:
            raise error
        self._unreadable.setdefault(error.below, error.detail)
        self._hidden = tuple(self._unreadable)

    def _refuse_misnamed(self, parts: list[str]) -> None:
        for at, name in enumerate(parts):
            refuse_misnamed_acl((name,), "".join(f"{folder}/" for folder in parts[:at]))

    # ---- who reads them

    def _entries(self, objects: Iterable[Stored]) -> Iterator[Entry]:
        for stored, rule in self._with_rules(self._with_folder_rules(objects)):
            path = stored.path
            yield from self._documents(stored, path, f"{path}#", f"{self._uri}/{path}", rule)

    def _with_folder_rules(self, objects: Iterable[Stored]) -> Iterator[tuple[Stored, AccessRule | None]]:
        for stored in objects:
            if stored.path.startswith(self._hidden):
                continue
            try:
                rule = self._rule_of_folders(stored.path)
            except RightsUnreadable as error:
                self._cannot_tell(error)
                continue
            yield stored, rule

    def _with_rules(self, objects: Iterable[tuple[Stored, AccessRule | None]]) -> Iterator[tuple[Stored, AccessRule]]:
        """Complete what no `acl.yaml` says by the objects' tags; what is gone meanwhile is left out."""
        tree, tag = self._tree, self._tag
        if tag is None or not isinstance(tree, Bucket):
            yield from ((stored, self._default if rule is None else rule) for stored, rule in objects)
            return
        tagged = with_tags(
            objects, lambda each: _tags(tree, each[0]) if each[1] is None else {}, self._settings.concurrency
        )
        for (stored, rule), tags in tagged:
            if tags is not None:
                if rule is None and (named := tagged_rule(tags, tag)) is not None:
                    rule = self._settings.labelled(named)
                yield stored, self._default if rule is None else rule

    def _rule_of_folders(self, path: str) -> AccessRule | None:
        if path_parts(path) is None:
            return NOBODY
        prefix, rules = "", self._folder_rules("", FolderRules(label=self._default.label))
        for name in path.split("/")[:-1]:
            prefix += f"{name}/"
            rules = self._folder_rules(prefix, rules)
        return rules.rule_for(path)

    def _folder_rules(self, prefix: str, above: FolderRules) -> FolderRules:
        rules = self._rules.get(prefix)
        if rules is None:
            if not any(prefix.startswith(listed) for listed in self._listed):
                self._ask_for_acl(prefix)
            acl = self._acl.get(prefix)
            rules = self._rules[prefix] = above if acl is None else above.within(prefix, self._read_acl(acl, prefix))
        return rules

    def _ask_for_acl(self, prefix: str) -> None:
        for stored in self._tree.acl_files(prefix):
            name = stored.path.rpartition("/")[2]
            refuse_misnamed_acl((name,), prefix)
            self._acl[prefix] = stored

    def _read_acl(self, stored: Stored, prefix: str) -> bytes:
        where = f"{prefix}{ACL_FILE}"
        if stored.problem is not None:
            raise RightsUnreadable(f"{where}: no regular file", prefix)
        try:
            return self._tree.read(stored.address, MAX_ACL_BYTES)
        except TooLarge as error:
            raise RightsUnreadable(f"{where}: larger than {MAX_ACL_BYTES} bytes", prefix) from error
        except FileNotFoundError as error:
            raise RightsUnreadable(f"{where}: gone while it was read", prefix) from error
        except PermissionError as error:
            raise RightsUnreadable(f"{where}: the credentials must be allowed to list and read it", prefix) from error

    # ---- what they are

    def _documents(
        self, stored: Stored, external_id: str, rows_begin: str, uri: str, rule: AccessRule
    ) -> Iterator[Entry]:
        of, changed_at = self._settings, stored.changed_at
        problem = stored.problem
        if problem is None and path_parts(external_id) is None:
            problem = "its key is no path of names between slashes"
        if problem is not None:
            ref = DocumentRef(of.tenant, of.name, external_id, uri, None, "", rule, 0, self._seen_at)
            yield Entry(ref, error=problem, changed_at=changed_at)
        elif is_rows(external_id):
            file = RowFile(of, external_id, rows_begin, uri, rule, changed_at, self._seen_at)
            try:
                stream = self._tree.open(stored.address)
            except FileNotFoundError:
                return  # gone since it was listed
            with stream:
                yield from file.entries(stream)
        else:
            ref = DocumentRef(
                of.tenant, of.name, external_id, uri, None, stored.version, rule, stored.size, self._seen_at
            )
            yield Entry(ref, location=stored.address, changed_at=changed_at)


def _tags(tree: Bucket, stored: Stored) -> Mapping[str, str] | None:
    try:
        return tree.tags(stored)
    except PermissionError as error:
        raise RightsUnreadable(f"{stored.path}: the credentials must be allowed to read its tags") from error
