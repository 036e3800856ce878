"""The proof that the audit record still stands as it was written: one walk over it, naming the first bad record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.audit_chain import GENESIS, record_hash
from policies.audit_checkpoints import Checkpoint, signatures_of

SEGMENT = "audit.segment"
"""The action of the record that says: the records up to `last` are in a file, and may be gone from the database."""

_NO_HASH = ""
_NOTHING: Any = object()


class Link(NamedTuple):
    """A record, as the walk sees it. `computed`: the hash that it should have; `says`: its fields."""

    sequence: int
    previous_hash: str
    hash: str
    computed: str
    says: Mapping[str, Any]

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Link:
        """Make one of a row, as it is stored."""
        return cls(columns["sequence"], columns["previous_hash"], columns["hash"], record_hash(columns), columns)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the chain: record `sequence` has this hash; 0: before the first."""

    sequence: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the chain holds; else the sequence number of the first record that is wrong or missing, and why.

    `count`: the last record that holds. `begins`: the first that was looked at; those before it are in files
    (`policies.audit_segments`). `signed`: the last record that a signature covers which was checked, 0 for none.
    """

    ok: bool
    count: int
    first_bad: int | None = None
    reason: str | None = None
    begins: int = 1
    signed: int = 0


def verdict_of(
    found: Iterable[Link | None],
    checkpoints: Sequence[Checkpoint],
    key: Ed25519PublicKey | None,
    after: Place | None = None,
) -> Verdict:
    """Walk the chain. `found`: its records, None for what is no record at all. No record at all holds.

    `after`: the place that is known to hold, from which the walk goes on. Without it the walk begins with record 1, or
    where older ones were taken out: behind a checkpoint, if a record of the chain says that they are in a file, and
    a signature covers that.
    """
    rows = iter(found)
    start = after
    if start is None:
        first = next(rows, _NOTHING)
        start = _start(first, checkpoints)
        rows = rows if first is _NOTHING else chain((first,), rows)
    walk = _Walk(start, checkpoints)
    fault = walk.over(rows)
    begins, count = start.sequence + 1, walk.count
    if after is None and start.sequence not in walk.moved:
        for link in rows:  # what stands behind a fault may say so, too
            walk.look_at(link)
    if after is None and start.sequence not in walk.moved:
        return Verdict(False, 0, 1, "missing, and no record says that it was moved to a file")
    if fault is not None:
        return Verdict(False, count, *fault, begins=begins)
    if key is None:
        return Verdict(True, count, begins=begins)
    signatures = signatures_of(checkpoints, key)
    if signatures.first_bad is not None:
        return Verdict(False, count, signatures.first_bad, "a checkpoint's signature does not hold", begins)
    if after is None and signatures.covered < start.sequence:
        return Verdict(False, 0, 1, "missing, and no signature covers where the rest begins")
    return Verdict(True, count, begins=begins, signed=signatures.covered)


def _start(first: Any, checkpoints: Sequence[Checkpoint]) -> Place:
    if not isinstance(first, Link) or not isinstance(first.sequence, int) or first.sequence <= 1:
        return Place()
    place = Place(first.sequence - 1, first.previous_hash)
    known = any((each.sequence, each.hash) == (place.sequence, place.hash) for each in checkpoints)
    return place if known else Place()


class _Walk:
    """Goes over records, one after the other, and stops at the first that is wrong."""

    def __init__(self, start: Place, checkpoints: Sequence[Checkpoint]) -> None:
        self.count = start.sequence
        self.moved = {0}
        """Up to which records the chain says that they are in files."""
        self._start = start
        self._signed: dict[int, str] = {}
        for each in checkpoints:
            if each.sequence >= start.sequence:  # what two checkpoints say of one record can only hold for one hash
                same = self._signed.setdefault(each.sequence, each.hash) == each.hash
                self._signed[each.sequence] = each.hash if same else _NO_HASH

    def over(self, found: Iterable[Link | None]) -> tuple[int, str] | None:
        """Give the first bad record and what is wrong with it; None where all hold."""
        signed, previous, agreed = self._signed, self._start.hash, self._start.sequence
        if signed.get(agreed, previous) != previous:
            return max(1, agreed), "the signed checkpoint has another hash"
        for link in found:
            expected = self.count + 1
            reason = "not as it was written" if link is None else _fault(link, expected, previous)
            if link is None or reason is not None:
                return expected, str(reason)
            self.count, previous = expected, link.hash
            if expected in signed:
                if signed[expected] != previous:
                    made_anew = f"of the records from {agreed + 1} on, one was made anew"
                    return expected, f"the signed checkpoint has another hash: {made_anew}"
                agreed = expected
            if link.says.get("action") == SEGMENT:
                self.look_at(link)
        last = max(signed, default=0)
        return (self.count + 1, f"the record ends before the checkpoint at {last}") if last > self.count else None

    def look_at(self, link: Link | None) -> None:
        """Note whether a record says that older ones are in a file."""
        if link is None or link.says.get("action") != SEGMENT:
            return
        detail = link.says.get("detail")
        try:
            detail = json.loads(detail) if isinstance(detail, str) else detail
        except (ValueError, RecursionError):
            return  # it says nothing
        last = detail.get("last") if isinstance(detail, dict) else None
        if (link.says.get("kind"), link.says.get("outcome")) == ("outcome", "ok") and isinstance(last, int):
            self.moved.add(last)


def _fault(link: Link, expected: int, previous: str) -> str | None:
    if link.sequence != expected:
        return "missing or out of order"
    if link.previous_hash != previous:
        return "does not follow from the record before"
    return None if link.computed == link.hash else "its hash does not match"
