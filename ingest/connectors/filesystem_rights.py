"""Who reads a file by its owner, its group and its mode bits, and those of every folder above it. Pure.

A class of readers (owner, group, others) gets a file whose read bit it has, in folders whose search bit it has. As the
kernel decides (path_resolution(7)): the owner by the owner's bits alone, a member of the group by the group's alone,
and anybody else by the others'. So who owns `rw----r--`, or is in its group, is denied where everyone else is allowed.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policies.access import NOBODY, AccessRule
from policies.principals import EVERYONE, bare_name


@dataclass(frozen=True, slots=True)
class Bits:
    """What a file's mode says of reading it, or a folder's of passing it. `extended`: a list says more than the mode.

    With a list only the owner's bit means what it says; the other two are taken for absent.
    """

    uid: int
    gid: int
    owner: bool
    group: bool
    others: bool
    extended: bool = False

    @classmethod
    def of_file(cls, status: os.stat_result, extended: bool) -> Bits:
        """Take the bits that let read."""
        return cls._of(status, stat.S_IRUSR, stat.S_IRGRP, stat.S_IROTH, extended)

    @classmethod
    def of_folder(cls, status: os.stat_result, extended: bool) -> Bits:
        """Take the bits that let pass."""
        return cls._of(status, stat.S_IXUSR, stat.S_IXGRP, stat.S_IXOTH, extended)

    @classmethod
    def _of(cls, status: os.stat_result, owner: int, group: int, others: int, extended: bool) -> Bits:
        mode = status.st_mode
        plain = not extended
        return cls(
            status.st_uid,
            status.st_gid,
            bool(mode & owner),
            plain and bool(mode & group),
            plain and bool(mode & others),
            extended,
        )


class Accounts(Protocol):
    """The names behind numbers."""

    def user(self, uid: int) -> str | None:
        """A person's name; none where there is none that an access rule can hold."""
        ...

    def group(self, gid: int) -> str | None:
        """A group's name, likewise."""
        ...

    def is_member(self, uid: int, gid: int) -> bool:
        """Whether this person is in this group."""
        ...


@dataclass(slots=True)
class SystemAccounts:
    """The accounts of this machine, and of the directory that it is joined to; each is asked for once."""

    _users: dict[int, str | None] = field(default_factory=dict)
    _groups: dict[int, str | None] = field(default_factory=dict)
    _members: dict[int, frozenset[int]] = field(default_factory=dict)

    def user(self, uid: int) -> str | None:
        if uid not in self._users:
            try:
                self._users[uid] = bare_name(pwd.getpwuid(uid).pw_name)
            except (KeyError, ValueError):
                self._users[uid] = None
        return self._users[uid]

    def group(self, gid: int) -> str | None:
        if gid not in self._groups:
            try:
                self._groups[gid] = bare_name(grp.getgrgid(gid).gr_name)
            except (KeyError, ValueError):
                self._groups[gid] = None
        return self._groups[gid]

    def is_member(self, uid: int, gid: int) -> bool:
        if uid not in self._members:
            try:
                person = pwd.getpwuid(uid)
                self._members[uid] = frozenset(os.getgrouplist(person.pw_name, person.pw_gid))
            except KeyError:
                self._members[uid] = frozenset()
        return gid in self._members[uid]


def readers(file: Bits, folders: Sequence[Bits], accounts: Accounts) -> AccessRule:
    """Map a file's bits, and those of the folders above it, to a rule; nobody where no name stands for a number."""
    path = (file, *folders)
    allow: set[str] = set()
    owner, group = accounts.user(file.uid), accounts.group(file.gid)
    if owner is not None and all(_lets_user(bits, file.uid, accounts) for bits in path):
        allow.add(f"user:{owner}")
    shared: set[str] = set()
    if group is not None and all(bits.group if bits.gid == file.gid else bits.others for bits in path):
        shared.add(f"group:{group}")
    if all(bits.others for bits in path):
        shared.add(EVERYONE)
    deny = _shut_out(path, accounts) if shared else frozenset()
    if deny is None:
        return AccessRule.of(allow) if allow else NOBODY
    return AccessRule.of(allow | shared, deny)


def _lets_user(bits: Bits, uid: int, accounts: Accounts) -> bool:
    if bits.uid == uid:
        return bits.owner
    return bits.group if accounts.is_member(uid, bits.gid) else bits.others


def _shut_out(path: Sequence[Bits], accounts: Accounts) -> frozenset[str] | None:
    """Whom a wider class must not let in; none where they have no name by which to deny them."""
    deny: set[str | None] = set()
    for bits in path:
        if not bits.owner:
            user = accounts.user(bits.uid)
            deny.add(user and f"user:{user}")
        if not bits.group:
            group = accounts.group(bits.gid)
            deny.add(group and f"group:{group}")
    return None if None in deny else frozenset(name for name in deny if name is not None)
