"""Folders and files, opened by their resolved paths and through no link that stands in the place of one by now."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from policies.errors import DocumentRejected

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ACL = "system.posix_acl_access"
_NO_ACL = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
ITSELF = "."


@dataclass(frozen=True, slots=True)
class Contents:
    """What lay in a folder: all `names`, and of those asked for a status, the error of asking, or none for a folder.

    `extended` names what carries an access control list beside its mode bits, or may carry one; `ITSELF` the folder.
    """

    status: os.stat_result
    names: frozenset[str]
    items: dict[str, os.stat_result | OSError | None]
    extended: frozenset[str] = frozenset()


def read_folder(folder: Path, wanted: Callable[[str], bool] | None = None, lists: bool = False) -> Contents:
    """List a folder. `wanted` says whose status is needed, none: all; `lists`: look for access control lists, too.

    What is gone again has no place in it. Raises `OSError`.
    """
    with _opened(folder) as above:
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
        try:
            names: set[str] = set()
            items: dict[str, os.stat_result | OSError | None] = {}
            with os.scandir(descriptor) as scan:
                for item in scan:
                    names.add(item.name)
                    if wanted is not None and not wanted(item.name):
                        continue
                    try:
                        is_folder = item.is_dir(follow_symlinks=False)
                        items[item.name] = None if is_folder else item.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        names.discard(item.name)
                    except OSError as error:
                        items[item.name] = error
            status = os.fstat(descriptor)
            extended = _with_lists(descriptor, status, items) if lists else frozenset()
            return Contents(status, frozenset(names), items, extended)
        finally:
            os.close(descriptor)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file that was listed. Raises `OSError`, also for a link, and `DocumentRejected` for a pipe or device."""
    with _opened(path.parent) as folder:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # before it is made a stream: of a folder none can be made
        os.close(descriptor)
        raise DocumentRejected("no regular file")
    return os.fdopen(descriptor, "rb")


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Hold a folder open that is reached through no link: its path was resolved when it was listed."""
    descriptor = os.open(folder.anchor, _FOLDER)
    try:
        for name in folder.parts[1:]:
            deeper = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def _with_lists(
    descriptor: int, status: os.stat_result, items: dict[str, os.stat_result | OSError | None]
) -> frozenset[str]:
    """Where there is a list, the group's bits are its mask, and do not say what the group may do (acl(5)).

    Only mode bits that let in more than the owner are worth the question. A folder's own are asked for when it is read.
    """
    found = {
        name
        for name, item in items.items()
        if isinstance(item, os.stat_result)
        and item.st_mode & (stat.S_IRGRP | stat.S_IROTH)
        and not stat.S_ISLNK(item.st_mode)
        and _has_list(f"/proc/self/fd/{descriptor}/{name}")
    }
    if status.st_mode & (stat.S_IXGRP | stat.S_IXOTH) and _has_list(f"/proc/self/fd/{descriptor}/{ITSELF}"):
        found.add(ITSELF)
    return frozenset(found)


def _has_list(path: str) -> bool:
    try:
        os.getxattr(path, _ACL, follow_symlinks=False)
    except OSError as error:
        return error.errno not in _NO_ACL  # where that cannot be told, there may be one
    return True
