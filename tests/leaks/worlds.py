"""Made-up companies: tenants, people, groups, documents and rules, all from one seed; and who may read what in them.

The answer to that, `may_read`, is written here a second time, from the documentation and from nothing of the product:
it is what the product is held against.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

LABELS = ("public", "internal", "confidential", "restricted")
SUBJECTS = ("ann", "Ann", "bob", "zo\u00eb", "\u0430nn", "g1", "everyone", "user", "dee.fox@example.com", "o'hara")
GROUPS = tuple(f"g{n}" for n in range(8)) + ("ann", "finance & legal", "caf\u00e9", "everyone")
ROLES = ("user", "power_user", "admin", "readonly", "auditor")
TOPICS = ("harbour", "orchard", "reactor", "library", "ferry", "bridge", "quarry", "mill", "vineyard", "observatory")
WORD = re.compile(r"cnry[a-z][0-9a-f]{12}|\b[0-9a-f]{32}\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Person:
    """As their token says. `clearance`: the place of their label in `LABELS`."""

    subject: str
    tenant: str
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    clearance: int = 1


@dataclass(frozen=True, slots=True)
class Document:
    """`words`: what is found in it and nowhere else: in its text, its title, its address and its id."""

    tenant: str
    name: str
    allow: frozenset[str]
    deny: frozenset[str]
    label: int
    topic: str
    key: str

    @property
    def text(self) -> str:
        return f"The password of the {self.topic} vault is cnryt{self.key}."

    @property
    def title(self) -> str:
        return f"Vault cnryn{self.key}"

    @property
    def uri(self) -> str:
        return f"mem:cnryu{self.key}"

    @property
    def external_id(self) -> str:
        return f"{self.name}-cnrye{self.key}"

    @property
    def words(self) -> frozenset[str]:
        return frozenset(f"cnry{kind}{self.key}" for kind in "tnue")


@dataclass(frozen=True, slots=True)
class World:
    """`parents`: of a tenant's group, the groups whose member it is."""

    people: tuple[Person, ...]
    documents: tuple[Document, ...]
    parents: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)


def may_read(person: Person, document: Document, parents: Mapping[str, frozenset[str]]) -> bool:
    """The definition, in ten lines of its own."""
    if person.tenant != document.tenant or person.clearance < document.label:
        return False
    held: set[str] = set()
    waiting = list(person.groups)
    while waiting:
        group = waiting.pop()
        if group not in held:
            held.add(group)
            waiting += parents.get(group, ())
    names = {"everyone", f"user:{person.subject}"} | {f"group:{g}" for g in held} | {f"role:{r}" for r in person.roles}
    return bool(names & document.allow) and not names & document.deny


def world(source: random.Random, number: int, *, people: int, documents: int, nested: bool, labelled: bool) -> World:
    """Make a world of two tenants that use the same names for different people, groups and rules."""
    tenants = [f"t{number}", f"t{number}x"]
    everybody = tuple(_person(source, tenants[n % 2], labelled) for n in range(people))
    written = tuple(_document(source, tenants[n % 2], n, labelled) for n in range(documents))
    parents = {tenant: _parents(source) if nested else {} for tenant in tenants}
    return World(everybody, written, parents)


def renamed(source: random.Random, person: Person) -> Person:
    """The same person under another name, or with fewer groups: what the old name opened is closed."""
    if source.random() < 0.5:
        return replace(person, subject=source.choice(SUBJECTS))
    return replace(person, groups=person.groups[1:])


def decomposed(text: str) -> str:
    """Another spelling of the same name: some directories write letters and their marks apart."""
    return unicodedata.normalize("NFD", text)


def _person(source: random.Random, tenant: str, labelled: bool) -> Person:
    groups = source.sample(GROUPS, source.choice((0, 0, 1, 1, 2, 3, 5)))
    if source.random() < 0.15:
        groups += [f"other{n}" for n in range(source.randint(65, 200))]  # more than fit beside each other in one filter
        source.shuffle(groups)
    clearance = source.choice((0, 1, 1, 2, 3)) if labelled else 1
    return Person(source.choice(SUBJECTS), tenant, (source.choice(ROLES),), tuple(groups), clearance)


def _document(source: random.Random, tenant: str, number: int, labelled: bool) -> Document:
    allow = frozenset(_name(source) for _ in range(source.choice((0, 1, 1, 2, 2, 4))))
    deny = frozenset(_name(source) for _ in range(source.choice((0, 0, 0, 1, 2))))
    label = source.choice((0, 1, 1, 1, 2, 3)) if labelled else 1
    key = f"{source.getrandbits(48):012x}"
    return Document(tenant, f"d{number}", allow, deny, label, source.choice(TOPICS), key)


def _name(source: random.Random) -> str:
    kind = source.choice(("everyone", "user", "group", "group", "group", "role"))
    if kind == "everyone":
        return kind
    return f"{kind}:{source.choice({'user': SUBJECTS, 'group': GROUPS, 'role': ROLES}[kind])}"


def _parents(source: random.Random) -> dict[str, frozenset[str]]:
    """Any graph, also with circles."""
    return {group: frozenset(source.sample(GROUPS, source.choice((0, 0, 1, 2)))) for group in GROUPS}
