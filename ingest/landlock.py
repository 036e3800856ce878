"""Takes the file system away from this process, by the Linux kernel's Landlock: reads below given folders only.

Needs no privilege, holds for all that the process starts, and cannot be undone. It binds the calling thread and its
later ones, so it is called before a library starts threads of its own. What the kernel's version knows beyond files is
refused with it: TCP (from Linux 6.7), signals and abstract sockets to processes outside (from 6.12). See landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVILEGES = 38
_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
# All of a file system's rights, by the version that brought them: 1, 2 (move), 3 (truncate), 5 (device commands).
_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_TCP, _OUTSIDE = 0b11, 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def version() -> int:
    """The version of Landlock that the kernel offers; 0 where it has none, or it is switched off."""
    return max(0, _call(_CREATE_RULESET, None, 0, _ASK_VERSION))


def confine(readable: Iterable[Path], listable: Iterable[Path] = ()) -> bool:
    """Refuse from now on all files but those below `readable`, and to list folders but below these and `listable`.

    Nothing can be written but `/dev/null`, nothing executed. False where the kernel does not do it; nothing is
    refused then.
    """
    offered = version()
    if offered == 0:
        return False
    handled = sum(rights for since, rights in _RIGHTS.items() if since <= offered)
    wanted = _Ruleset(handled, _TCP if offered >= 4 else 0, _OUTSIDE if offered >= 6 else 0)
    size = 24 if offered >= 6 else 16 if offered >= 4 else 8  # an older kernel refuses fields that it does not know
    ruleset = _call(_CREATE_RULESET, ctypes.byref(wanted), size, 0)
    if ruleset < 0:
        return False
    try:
        for path in listable:
            _allow(ruleset, path, _READ_FOLDER)
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_FOLDER)
        _allow(ruleset, Path(os.devnull), _READ_FILE | _WRITE_FILE)
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return _call(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no right
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= ~_READ_FOLDER
        if rights:
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_Beneath(rights, descriptor)), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syscall"):
        return -1
    library.syscall.restype = ctypes.c_long
    words = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    return int(library.syscall(ctypes.c_long(number), *words))
