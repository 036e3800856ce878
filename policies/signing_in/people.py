"""From what a directory says of a person to a caller, as they are called here. Nothing is cut, dropped or guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from policies.errors import SignInRefused
from policies.issuers import SERVICE, NameMap
from policies.principals import Principal, bare_name

MAX_GROUPS = 20_000
"""Of one person; whoever is in more is refused and not cut short."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A person in a directory's own words. `handle`: what the directory finds them by again."""

    subject: str
    groups: Collection[str] = ()
    roles: Collection[str] = ()
    tenant: str | None = None
    handle: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in, and what their directory finds them by again; empty where it cannot be asked."""

    principal: Principal
    handle: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """How one directory's people are called here.

    `tenant`: of all of them, else the entry says it, and it must be one of `tenants` where those are given. `roles` has
    everyone, `group_roles` whoever is in a group, by its name here. `reserved`: what no subject may begin with, because
    another directory's or issuer's subjects do.
    """

    tenant: str | None = None
    tenants: frozenset[str] | None = None
    roles: frozenset[str] = frozenset()
    group_roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    groups: NameMap = field(default_factory=NameMap)
    subject_prefix: str = ""
    reserved: frozenset[str] = frozenset()

    def person(self, entry: Entry) -> Person:
        """Name a person. Raises `SignInRefused` for names that cannot be, or that are not this directory's to give."""
        if len(entry.groups) > MAX_GROUPS:
            raise SignInRefused("too_many_groups")
        groups = frozenset(_name(group, "group") for group in entry.groups)
        try:
            groups = self.groups.named_here(groups)
        except ValueError:
            raise SignInRefused("name_of_group") from None
        return self.named(entry, groups, frozenset(_name(role, "role") for role in entry.roles))

    def named(self, entry: Entry, groups: frozenset[str], roles: frozenset[str]) -> Person:
        """Name a person whose groups and own roles are spelt as here already. Raises as `person` does."""
        given = _name(entry.subject, "subject")
        if not self.subject_prefix and given.startswith((SERVICE, *self.reserved)):
            raise SignInRefused("reserved_subject")
        by_group = (self.group_roles.get(group, frozenset()) for group in groups)
        principal = Principal(
            subject=_name(self.subject_prefix + given, "subject"),
            tenant=self._tenant(entry),
            roles=self.roles.union(roles, *by_group),
            groups=groups,
        )
        return Person(principal, entry.handle)

    def _tenant(self, entry: Entry) -> str:
        if self.tenant is not None:
            return self.tenant
        tenant = _name(entry.tenant or "", "tenant")
        if self.tenants is not None and tenant not in self.tenants:
            raise SignInRefused("tenant")
        return tenant


def _name(text: str, kind: str) -> str:
    try:
        return bare_name(text)
    except ValueError:
        raise SignInRefused(f"name_of_{kind}") from None
