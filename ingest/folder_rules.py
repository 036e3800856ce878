"""What a tree of folders says of its files: who reads them, by the `acl.yaml` above, and which are no documents.

Left out are hidden files and folders, `acl.yaml` itself, and what office programs and desktops leave behind. `acl.yaml`
may lie in any folder and speaks for what is under it; a deeper one wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ingest.acl_file import ACL_FILE, AclFile
from policies.access import AccessRule
from policies.errors import ConfigurationError, RightsUnreadable
from policies.labels import DEFAULT_LABEL, Label

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_ACL_NAMES = frozenset({"acl.yaml", "acl.yml"})


@dataclass(frozen=True, slots=True)
class FolderRules:
    """The `acl.yaml` of a folder and of those above it, outermost first, each with its folder ("" or ending in `/`).

    `label` is the source's: of what none of them gives one.
    """

    files: tuple[tuple[str, AclFile], ...] = ()
    label: Label = DEFAULT_LABEL

    def within(self, folder: str, data: bytes) -> FolderRules:
        """Add the bytes of a deeper folder's `acl.yaml`. Raises `RightsUnreadable`, naming the folder."""
        try:
            return replace(self, files=(*self.files, (folder, AclFile.parse(data))))
        except ConfigurationError as error:
            raise RightsUnreadable(folder + error.detail, folder) from error

    def rule_for(self, path: str) -> AccessRule | None:
        """Who reads `path` (relative to the source), and its label; none where no entry matches.

        A deeper file that says nothing of a label leaves it as the files above say.
        """
        below = [(acl, path[len(folder) :]) for folder, acl in reversed(self.files)]
        rule = next((rule for acl, rest in below if (rule := acl.rule_for(rest)) is not None), None)
        label = next((label for acl, rest in below if (label := acl.label_for(rest)) is not None), self.label)
        return None if rule is None else replace(rule, label=label)


def is_left_out(name: str) -> bool:
    """Say whether what has this name is no document, and nothing under it."""
    return name.startswith((".", "~$")) or name == ACL_FILE or name.lower() in _LITTER


def speaks_of_rights(name: str) -> bool:
    """Say whether a file of this name is, or was meant to be, an `acl.yaml`."""
    return name.lower() in _ACL_NAMES


def refuse_misnamed_acl(names: Iterable[str], folder: str) -> None:
    """Raise `RightsUnreadable` where access rules lie in a folder under a name that would not be heeded."""
    for name in names:
        if name != ACL_FILE and len(name) <= len(ACL_FILE) and speaks_of_rights(name):
            raise RightsUnreadable(f"{folder}{name}: access rules must be in a file named {ACL_FILE}", folder)


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
