"""What a tree of folders says of its files: who reads them, by the `acl.yaml` above, and which are no documents.

Left out are hidden files and folders, `acl.yaml` itself, and what office programs and desktops leave behind. `acl.yaml`
may lie in any folder and speaks for what is under it; a deeper one wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.acl_file import ACL_FILE, AclFile
from policies.access import AccessRule
from policies.errors import ConfigurationError

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_ACL_NAMES = frozenset({"acl.yaml", "acl.yml"})


@dataclass(frozen=True, slots=True)
class FolderRules:
    """The `acl.yaml` of a folder and of those above it, outermost first, each with its folder ("" or ending in `/`)."""

    files: tuple[tuple[str, AclFile], ...] = ()

    def within(self, folder: str, data: bytes) -> FolderRules:
        """Add the bytes of a deeper folder's `acl.yaml`. Raises `ConfigurationError`, naming the folder."""
        try:
            return FolderRules((*self.files, (folder, AclFile.parse(data))))
        except ConfigurationError as error:
            raise ConfigurationError(folder + error.detail) from error

    def rule_for(self, path: str) -> AccessRule | None:
        """Who reads `path` (relative to the source); none where no line matches."""
        for folder, acl in reversed(self.files):
            rule = acl.rule_for(path[len(folder) :])
            if rule is not None:
                return rule
        return None


def is_left_out(name: str) -> bool:
    """Say whether what has this name is no document, and nothing under it."""
    return name.startswith((".", "~$")) or name == ACL_FILE or name.lower() in _LITTER


def speaks_of_rights(name: str) -> bool:
    """Say whether a file of this name is, or was meant to be, an `acl.yaml`."""
    return name.lower() in _ACL_NAMES


def refuse_misnamed_acl(names: Iterable[str], folder: str) -> None:
    """Raise `ConfigurationError` where access rules lie in a folder under a name that would not be heeded."""
    for name in names:
        if name != ACL_FILE and len(name) <= len(ACL_FILE) and speaks_of_rights(name):
            raise ConfigurationError(f"{folder}{name}: access rules must be in a file named {ACL_FILE}")


def path_parts(external_id: str) -> list[str] | None:
    """The names of a path as a listing gives it; none for what no listing names (`..`, absolute, NUL, empty).

    Nor does it name what is no UTF-8, but as an error.
    """
    parts = external_id.split("/")
    if "\x00" in external_id or not is_utf8(external_id) or any(part in ("", ".", "..") for part in parts):
        return None
    return parts


def is_utf8(name: str) -> bool:
    """Say whether a name that a file system gave holds no bytes that are none."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
