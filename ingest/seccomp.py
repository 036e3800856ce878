"""Takes system calls away from this process, by the Linux kernel's seccomp: no processes, sockets or others' things.

What Landlock knows nothing of: another process started (and left behind in a session of its own), a socket of any
kind, modes, owners and times of files, signals to others, shared memory. Needs no privilege, holds for all threads
that the calling one starts later, and cannot be undone. The numbers are those of the kernel's tables
(arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h). See seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from dataclasses import dataclass

_SET_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38
_LOAD, _JUMP_EQUAL, _JUMP_BITS, _JUMP_ABOVE, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # of classic BPF
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in `struct seccomp_data`, lower half of the argument
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_THREAD = 0x00010000  # CLONE_THREAD
_OTHER_TABLE = 0x40000000  # the numbers of x32 begin here


@dataclass(frozen=True, slots=True)
class _Table:
    """One architecture's numbers. `signals` take a process as their first argument."""

    architecture: int
    clone: int
    signals: tuple[int, ...]
    refused: tuple[int, ...]


_CLONE3, _PIDFD_SIGNAL, _IO_URING, _CHMOD2 = 435, 424, 425, 452  # the same everywhere
_TABLES = {
    "x86_64": _Table(
        0xC000003E,
        clone=56,
        signals=(62, 200, 234, 129, 297),
        refused=(
            *(57, 58, 59, 322, 101, 310, 311),  # fork, vfork, execve(at), ptrace, process_vm_readv, …_writev
            41,  # socket; pairs of connected ones stay, event loops wake themselves by them
            *(90, 91, 268, 92, 93, 94, 260),  # chmod, fchmod(at), chown, fchown, lchown, fchownat
            *(132, 235, 261, 280),  # utime, utimes, futimesat, utimensat
            *(188, 189, 190, 197, 198, 199),  # setxattr and removexattr, each with l… and f…
            *(29, 64, 68, 240),  # shmget, semget, msgget, mq_open
            *(76, 304, 165, 166, 272, 308),  # truncate, open_by_handle_at, mount, umount2, unshare, setns
            *(248, 249, 250, 298, 321, 323),  # add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd
        ),
    ),
    "aarch64": _Table(
        0xC00000B7,
        clone=220,
        signals=(129, 130, 131, 138, 240),
        refused=(
            *(221, 281, 117, 270, 271),
            198,
            *(52, 53, 54, 55),
            88,
            *(5, 6, 7, 14, 15, 16),
            *(194, 190, 186, 180),
            *(45, 265, 40, 39, 97, 268),
            *(217, 218, 219, 241, 280, 282),
        ),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine() -> bool:
    """Refuse from now on what a parser has no use for. False where the kernel does not do it; nothing is refused then.

    Threads stay allowed, and signals to this very process.
    """
    table = _TABLES.get(platform.machine()) if sys.platform == "linux" else None
    if table is None:
        return False
    code = _compile(table, os.getpid())
    program = _Program(len(code) // 8, code)
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return int(library.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)) == 0


def _compile(table: _Table, pid: int) -> bytes:
    """The filter. A jump counts the instructions that it leaves out: if equal, if not."""
    refuse = _step(_RETURN, _ERROR | errno.EPERM)
    allow = _step(_RETURN, _ALLOW)
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, table.architecture, 1, 0),
        refuse,
        _step(_LOAD, _NUMBER),
        _step(_JUMP_ABOVE, _OTHER_TABLE, 0, 1),
        refuse,
        # The C library falls back to `clone`, whose flags stand in a register and not behind a pointer.
        _step(_JUMP_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _ERROR | errno.ENOSYS),
        _step(_JUMP_EQUAL, table.clone, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_JUMP_BITS, _THREAD, 0, 1),
        allow,
        refuse,
    ]
    for number in table.signals:
        steps += [_step(_JUMP_EQUAL, number, 0, 4), _step(_LOAD, _FIRST_ARGUMENT), _step(_JUMP_EQUAL, pid, 0, 1)]
        steps += [allow, refuse]
    for number in (*table.refused, _PIDFD_SIGNAL, _IO_URING, _CHMOD2):
        steps += [_step(_JUMP_EQUAL, number, 0, 1), refuse]
    return b"".join([*steps, allow])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
