"""Signing in with a directory's password (LDAP, Active Directory).

    the bind account finds the person -> not disabled -> their own password binds -> their groups, nested ones too

The person is found by a filter in which the user name is only a text. Nobody, somebody disabled, two at once and a
wrong password look alike to the caller, in words and in what the directory is asked.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from policies.errors import Overloaded, SignInRefused, Unavailable
from policies.principals import has_unseen
from policies.signing_in.ldap_server import IN_CHAIN, LdapEntry, LdapSearch, TooManyEntries, escaped
from policies.signing_in.people import MAX_GROUPS, Entry, Names, Person

MAX_USERNAME_CHARS = 256
MAX_PASSWORD_CHARS = 1_024
_AT_ONCE = 50  # members that one filter names
_DISABLED = 0x2  # ACCOUNTDISABLE, [MS-ADTS] 2.2.16
_NEVER = frozenset({0, 2**63 - 1})  # accountExpires, [MS-ADTS] 2.2.18
_FILETIME_EPOCH_S = 11_644_473_600  # from 1601 to 1970

TOO_MANY = "too_many_attempts"
"""Why somebody is refused whose password was tried too often, under whatever names."""
CountEntry = Callable[[str], None]
"""Takes the one name of who is about to be tried; raises `Overloaded` for one attempt too many."""
Nesting = Literal["members", "member_of", "in_chain"]


@dataclass(frozen=True, slots=True)
class LdapTree:
    """Where people and groups are in a directory, and which of their attributes say what.

    `person_filter` holds `{username}`. Who matches `disabled_filter` is disabled; `active_directory` also heeds
    userAccountControl and accountExpires. Without `group_base` nobody is in any group.
    """

    base: str
    person_filter: str
    subject: str
    disabled_filter: str | None = None
    active_directory: bool = False
    tenant: str | None = None
    roles: str | None = None
    group_base: str | None = None
    group_filter: str = "(objectClass=groupOfNames)"
    group_name: str = "cn"
    member: str = "member"
    nesting: Nesting = "members"


class LdapServerLike(Protocol):
    """What a server must do."""

    def search(self) -> AbstractContextManager[LdapSearch]:
        """Connect as the bind account. Raises `Unavailable`."""
        ...

    def password_holds(self, dn: str, password: str) -> bool:
        """Say whether this password binds this person. Raises `Unavailable`."""
        ...


class LdapDirectory:
    """A directory. Its methods wait for the server: call them in a thread."""

    def __init__(
        self, server: LdapServerLike, tree: LdapTree, names: Names, clock: Callable[[], float] = time.time
    ) -> None:
        self._server = server
        self._tree = tree
        self._names = names
        self._clock = clock

    def sign_in(self, username: str, password: str, count: CountEntry = lambda _: None) -> Person:
        """Say who has this name and this password. Raises `SignInRefused`, or `Unavailable` for a server that is.

        `count` is asked before the password is: a directory finds one person by many spellings of a name. Who was tried
        too often is refused like somebody with a wrong password: else the answer would say that there is somebody.
        """
        _check_typed(username, password)
        with self._server.search() as search:
            try:
                found = self._counted(search, username, count)
            except SignInRefused:
                # As much is asked of the directory as for a person whom it knows.
                self._server.password_holds(f"cn={secrets.token_hex(8)},{self._tree.base}", password)
                raise
            if not self._server.password_holds(found.dn, password):
                raise SignInRefused("password")
            return self._person(search, found, username)

    def _counted(self, search: LdapSearch, username: str, count: CountEntry) -> LdapEntry:
        """Find who is to be tried, and count it; for nobody as well, which takes as long."""
        try:
            found = self._find(search, username)
        except SignInRefused:
            with suppress(Overloaded):
                count(f"nobody {username.casefold()}")
            raise
        try:
            count(found.dn.casefold())
        except Overloaded:
            raise SignInRefused(TOO_MANY) from None
        return found

    def again(self, handle: str) -> Person:
        """Say who that person is now. Raises as `sign_in` does, for who is gone or disabled."""
        with self._server.search() as search:
            return self._person(search, self._find(search, handle), handle)

    def _find(self, search: LdapSearch, username: str) -> LdapEntry:
        tree = self._tree
        query = tree.person_filter.replace("{username}", escaped(username))
        if tree.disabled_filter:
            query = f"(&{query}(!{tree.disabled_filter}))"
        wanted = [name for name in (tree.subject, tree.tenant, tree.roles) if name]
        if tree.active_directory:
            wanted += ["userAccountControl", "accountExpires"]
        if tree.nesting == "member_of":
            wanted.append("memberOf")
        try:
            found = search.entries(tree.base, query, wanted, limit=1)
        except TooManyEntries:
            raise SignInRefused("several_people") from None
        if not found:
            raise SignInRefused("nobody")
        if tree.active_directory:
            self._require_active(found[0])
        return found[0]

    def _require_active(self, entry: LdapEntry) -> None:
        control, expires = _number(entry, "userAccountControl"), _number(entry, "accountExpires", 0)
        if control & _DISABLED:
            raise SignInRefused("disabled")
        if expires not in _NEVER and expires / 10_000_000 - _FILETIME_EPOCH_S <= self._clock():
            raise SignInRefused("disabled")

    def _person(self, search: LdapSearch, found: LdapEntry, handle: str) -> Person:
        tree = self._tree
        return self._names.person(
            Entry(
                subject=_one(found, tree.subject),
                tenant=_one(found, tree.tenant) if tree.tenant else None,
                roles=_texts(found, tree.roles) if tree.roles else (),
                groups=[name for group in self._groups(search, found) for name in _some(group, tree.group_name)],
                handle=handle,
            )
        )

    def _groups(self, search: LdapSearch, person: LdapEntry) -> Sequence[LdapEntry]:
        if self._tree.group_base is None:
            return ()
        if self._tree.nesting == "member_of":
            return self._upwards(search, person)
        if self._tree.nesting == "in_chain":
            if not search.is_active_directory():
                # Another server would take the rule for one that nobody matches.
                raise Unavailable("nesting: in_chain needs Active Directory, and this server is none")
            return self._with_members(search, [person.dn], f"{self._tree.member}:{IN_CHAIN}:")
        found: dict[str, LdapEntry] = {}
        frontier = [person.dn]
        while frontier:
            above = self._with_members(search, frontier, self._tree.member)
            new = {group.dn.casefold(): group for group in above if group.dn.casefold() not in found}
            found |= new  # and so a circle ends
            _require_few(len(found))
            frontier = [group.dn for group in new.values()]
        return list(found.values())

    def _with_members(self, search: LdapSearch, members: Sequence[str], attribute: str) -> list[LdapEntry]:
        """Find the groups that name one of these as a member."""
        tree, groups = self._tree, []
        for start in range(0, len(members), _AT_ONCE):
            some = "".join(f"({attribute}={escaped(dn)})" for dn in members[start : start + _AT_ONCE])
            query = f"(&{tree.group_filter}(|{some}))"
            groups += search.entries(str(tree.group_base), query, [tree.group_name], limit=MAX_GROUPS)
        return groups

    def _upwards(self, search: LdapSearch, person: LdapEntry) -> list[LdapEntry]:
        """Follow memberOf from the person on. What it names and is gone, or is no group of ours, gives nothing."""
        seen: set[str] = set()
        groups: list[LdapEntry] = []
        waiting = _texts(person, "memberOf")
        while waiting:
            dn = waiting.pop()
            if dn.casefold() in seen:
                continue
            seen.add(dn.casefold())
            _require_few(len(seen))
            group = search.entry(dn, self._tree.group_filter, [self._tree.group_name, "memberOf"])
            if group is not None:
                groups.append(group)
                waiting += _texts(group, "memberOf")
        return groups


def _check_typed(username: str, password: str) -> None:
    if not 0 < len(username) <= MAX_USERNAME_CHARS or has_unseen(username) or username != username.strip():
        raise SignInRefused("username")
    if not 0 < len(password) <= MAX_PASSWORD_CHARS or "\x00" in password:
        raise SignInRefused("empty")


def _require_few(groups: int) -> None:
    if groups > MAX_GROUPS:
        raise SignInRefused("too_many_groups")


def _texts(entry: LdapEntry, attribute: str) -> list[str]:
    if attribute.lower() == "objectguid":
        return [str(uuid.UUID(bytes_le=value)) for value in entry.values.get("objectguid", ()) if len(value) == 16]
    try:
        return entry.texts(attribute)
    except UnicodeDecodeError:
        raise SignInRefused(f"attribute_{attribute}") from None


def _some(entry: LdapEntry, attribute: str) -> list[str]:
    values = _texts(entry, attribute)
    if not values:
        raise SignInRefused(f"attribute_{attribute}")
    return values


def _one(entry: LdapEntry, attribute: str) -> str:
    values = _texts(entry, attribute)
    if len(values) != 1:
        raise SignInRefused(f"attribute_{attribute}")
    return values[0]


def _number(entry: LdapEntry, attribute: str, absent: int | None = None) -> int:
    values = _texts(entry, attribute)
    if not values and absent is not None:
        return absent
    try:
        return int(values[0])
    except (IndexError, ValueError):
        # Without it nobody can tell whether the account is disabled.
        raise SignInRefused(f"attribute_{attribute}") from None
