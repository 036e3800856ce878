"""Somebody who owns the database, or a file, changes the record in any way: it is found, and the place is named.

`RAYRAG_AUDIT_MUTATIONS=10000` changes it so many times; the default is what fits beside the other tests.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.audit import AuditLog
from policies.audit_anchor import AnchorFile
from policies.audit_chain import GENESIS, AuditIntent, AuditOutcome, record_hash
from policies.audit_checkpoints import Checkpoint
from policies.audit_files import verify_export
from policies.audit_signing import Signer
from policies.audit_verdict import Verdict

MUTATIONS = int(os.environ.get("RAYRAG_AUDIT_MUTATIONS", "600"))
KEY, THIEF = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
COLUMNS = (
    "sequence", "time", "kind", "request_id", "actor", "tenant", "action", "outcome", "policy_version", "chunks_shown",
    "chunks_withheld", "detail", "previous_hash", "hash",
)  # fmt: skip
SIGNED_AT = (6, 14, 22, 30)
Row = dict[str, Any]
State = tuple[list[Row], list[Row]]
"""Records and checkpoints as they are stored."""
Found = tuple[int, int]
"""The first bad record is one of these, the first and the last of them included."""


def pair(number: int) -> list[AuditIntent | AuditOutcome]:
    said = (f"r{number}", f"person{number % 3}", "acme", "query", "v1")
    return [
        AuditIntent(*said, {"question_hash": f"{number:064x}"}),
        AuditOutcome(*said, "ok", (f"c{number}", "c"), number % 4, {"generator": "extractive"}),
    ]


@dataclass
class Kept:
    """A record with what is kept of it elsewhere: the anchor, and an earlier export."""

    log: AuditLog
    path: Path
    state: State
    states: list[State]
    anchored: list[Checkpoint]
    earlier: Path
    export: bytes
    home: Path

    def put(self, state: State) -> None:
        """Write the tables anew, as somebody could who owns the file."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        with connection:
            connection.execute("PRAGMA synchronous=OFF")
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            connection.execute("BEGIN IMMEDIATE")
            for table, rows in zip(("audit_records", "audit_checkpoints"), state, strict=True):
                connection.execute(f"DELETE FROM {table}")
                for row in rows:
                    names, marks = ",".join(row), ",".join("?" * len(row))
                    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
            connection.execute("COMMIT")
        connection.close()

    def verdict(self, anchored: bool = True) -> Verdict:
        return self.log.verify(self.anchored if anchored else (), KEY.public_key())


def stored(path: Path) -> State:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = tuple(
        [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY sequence")]
        for table in ("audit_records", "audit_checkpoints")
    )
    connection.close()
    return found[0], found[1]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    home = tmp_path_factory.mktemp("audit")
    path = home / "audit.sqlite"
    log, anchor = AuditLog(f"sqlite:///{path}", KEY), AnchorFile(home / "elsewhere.jsonl")
    signer, states = Signer(log, lambda: KEY, anchor), []
    for number in range(SIGNED_AT[-1] // 2):
        last = log.append(pair(number))
        if last in SIGNED_AT:
            signer.sign()
            states.append(stored(path))
        if last == SIGNED_AT[1]:
            log.export(home / "earlier.jsonl")
    log.export(home / "export.jsonl")
    yield Kept(
        log,
        path,
        stored(path),
        states,
        anchor.all(),
        home / "earlier.jsonl",
        (home / "export.jsonl").read_bytes(),
        home,
    )
    log.close()


# ---- what somebody could do to a database; each says between which records it must be found


def copied(state: State) -> State:
    return [dict(row) for row in state[0]], [dict(row) for row in state[1]]


def chained(rows: Sequence[Row], first: int = 0) -> None:
    """Compute the chain anew from a place on, as somebody could who has time."""
    previous = rows[first - 1]["hash"] if first else GENESIS
    for sequence, row in enumerate(rows[first:], first + 1):
        row["sequence"], row["previous_hash"] = sequence, previous
        row["hash"] = previous = record_hash(row)


def signed_anew(checkpoints: list[Row], rows: Sequence[Row], first: int) -> None:
    for each in checkpoints:
        if first < each["sequence"] <= len(rows):
            each["hash"] = rows[each["sequence"] - 1]["hash"]
            made = Checkpoint(each["sequence"], each["time"], each["hash"], "")
            each["signature"] = THIEF.sign(made.signed).hex()


def next_signed(record: int) -> int:
    return next(sequence for sequence in SIGNED_AT if sequence >= record)


def changed(chance: random.Random, row: Row) -> str:
    """Change a row's field; gives its name."""
    name = chance.choice([name for name in COLUMNS if name != "sequence"])
    value = row[name]
    if isinstance(value, int):
        row[name] = value + chance.choice((-1, 1, 1 << chance.randrange(30)))
    elif not value:
        row[name] = "x"
    else:
        place = chance.randrange(len(value))
        other = chance.choice([char for char in 'abcdef0123456789 "\\[]{}é' if char != value[place]])
        row[name] = value[:place] + other + value[place + 1 :]
    return name


def flipped(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    place = chance.randrange(len(rows))
    name = changed(chance, rows[place])
    # Of a hash the next record says what it was; of the last one, a checkpoint.
    return (rows, checkpoints), (place + 1, place + 1) if name != "hash" else (place + 1, place + 2)


def removed(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    place = chance.randrange(len(rows))
    del rows[place]
    return (rows, checkpoints), (place + 1, place + 1)


def closed_up(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    place = chance.randrange(len(rows) - 1)
    del rows[place]
    chained(rows, place)
    return (rows, checkpoints), (place + 1, next_signed(place + 1))


def slipped_in(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    place = chance.randrange(len(rows))
    rows.insert(place, dict(chance.choice(rows)))
    for sequence, row in enumerate(rows, 1):
        row["sequence"] = sequence
    return (rows, checkpoints), (place + 1, place + 2)


def slipped_in_and_chained(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    place = chance.randrange(len(rows))
    rows.insert(place, {**chance.choice(rows), "actor": "somebody"})
    chained(rows, place)
    return (rows, checkpoints), (place + 1, next_signed(place + 1))


def turned_around(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    one, other = sorted(chance.sample(range(len(rows)), 2))
    rows[one], rows[other] = {**rows[other], "sequence": one + 1}, {**rows[one], "sequence": other + 1}
    return (rows, checkpoints), (one + 1, one + 1)


def cut(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    left = chance.randrange(len(rows))
    checkpoints = [each for each in checkpoints if chance.random() < 0.5 or each["sequence"] <= left]
    return (rows[:left], checkpoints), (left + 1, left + 1)


def beheaded(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    gone = chance.choice((*SIGNED_AT[:-1], chance.randrange(1, len(rows))))
    return (rows[gone:], checkpoints), (1, 1)


def replayed(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    """An old file in place of the new one; maybe with new lines behind it."""
    rows, checkpoints = copied(chance.choice(kept.states[:-1]))
    count = len(rows)
    if chance.random() < 0.5:
        return (rows, checkpoints), (count + 1, count + 1)
    rows += [dict(chance.choice(rows)) for _ in range(SIGNED_AT[-1])]
    chained(rows, count)
    return (rows, checkpoints), (count + 1, next_signed(count + 1))


def forked(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    """The same beginning, and another history from a place on, signed by a thief's key or not at all."""
    rows, checkpoints = copied(kept.state)
    place = chance.randrange(len(rows))
    for row in rows[place:]:
        row["actor"], row["request_id"] = "somebody", f"f{chance.random()}"
    chained(rows, place)
    if chance.random() < 0.5:
        signed_anew(checkpoints, rows, place)
    else:
        checkpoints = [each for each in checkpoints if each["sequence"] <= place]
    return (rows, checkpoints), (place + 1, next_signed(place + 1))


def edited_and_recomputed(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    rows, checkpoints = copied(kept.state)
    place = chance.randrange(len(rows))
    rows[place]["actor"] = "somebody"
    chained(rows, chance.choice((0, place)))
    return (rows, checkpoints), (place + 1, next_signed(place + 1))


def made_anew(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    """Another record as a whole, of any length, with checkpoints of its own."""
    rows, checkpoints = copied(kept.state)
    rows = [{**row, "actor": f"a{chance.random()}"} for row in rows[: chance.randrange(1, len(rows) + 1)]]
    chained(rows)
    signed_anew(checkpoints, rows, 0)
    end = min(next_signed(1), len(rows) + 1)
    return (rows, [each for each in checkpoints if each["sequence"] <= len(rows)]), (1, end)


def said_to_be_in_a_file(chance: random.Random, kept: Kept) -> tuple[State, Found]:
    """The beginning is gone, and a record says that it was moved: but before a place that was never signed."""
    rows, checkpoints = copied(kept.state)
    gone = chance.choice([n for n in range(1, len(rows) - 1) if n not in SIGNED_AT])
    line = AuditOutcome("s", "service", "", "audit.segment", "v1", "ok", detail={"last": gone})
    rows.append({**rows[-1], "action": line.action, "kind": "outcome", "detail": f'{{"last":{gone}}}'})
    chained(rows, len(rows) - 1)
    return (rows[gone:], checkpoints), (1, 1)


DATABASE: tuple[Callable[[random.Random, Kept], tuple[State, Found]], ...] = (
    flipped, removed, closed_up, slipped_in, slipped_in_and_chained, turned_around, cut, beheaded, replayed, forked,
    edited_and_recomputed, made_anew, said_to_be_in_a_file,
)  # fmt: skip


def test_whatever_is_done_to_the_database_is_found_at_its_place(kept: Kept) -> None:
    chance, missed, tried = random.Random(5), [], Counter[str]()
    assert kept.verdict().ok
    for number in range(MUTATIONS // 2):
        mutation = DATABASE[number % len(DATABASE)]
        state, (first, last) = mutation(chance, kept)
        if state == kept.state:
            continue
        kept.put(state)
        verdict = kept.verdict()
        tried[mutation.__name__] += 1
        if verdict.ok or verdict.first_bad is None or not first <= verdict.first_bad <= last:
            missed.append(f"{number} {mutation.__name__}: {verdict}, not in {first}..{last}")
    kept.put(kept.state)
    assert kept.verdict().ok
    assert missed == []
    assert len(tried) == len(DATABASE) and sum(tried.values()) >= MUTATIONS // 2 - MUTATIONS // 20


# ---- and to an exported file


def test_whatever_is_done_to_an_export_is_found_at_its_place(kept: Kept) -> None:
    chance, missed = random.Random(6), []
    lines = kept.export.splitlines(keepends=True)
    count = SIGNED_AT[-1]
    old = kept.earlier.read_bytes().splitlines(keepends=True)
    file = kept.home / "changed.jsonl"
    file.write_bytes(kept.export)
    assert verify_export(file, KEY.public_key(), kept.earlier, (), kept.anchored).ok
    for number in range(MUTATIONS // 2):
        content, first, last = _file_mutation(chance, number, lines, old, count)
        file.write_bytes(content)
        verdict = verify_export(file, KEY.public_key(), None, (), kept.anchored if number % 2 else ())
        if verdict.ok or verdict.first_bad is None or not first <= verdict.first_bad <= last:
            missed.append(f"{number}: {verdict}, not in {first}..{last}")
    assert missed == []


def _file_mutation(
    chance: random.Random, number: int, lines: list[bytes], old: list[bytes], count: int
) -> tuple[bytes, int, int]:
    kind, place = number % 7, chance.randrange(count)
    if kind == 0:  # any bit, of any record
        line = bytearray(lines[place])
        line[chance.randrange(len(line) - 1)] ^= 1 << chance.randrange(8)
        return b"".join([*lines[:place], bytes(line), *lines[place + 1 :]]), place + 1, place + 1
    if kind == 1:  # any bit of a checkpoint; the record that it is about, or the line in its place, is named
        at = chance.randrange(count, len(lines))
        line = bytearray(lines[at])
        line[chance.randrange(len(line) - 1)] ^= 1 << chance.randrange(8)
        return b"".join([*lines[:at], bytes(line), *lines[at + 1 :]]), 1, count + 1
    if kind == 2:  # a line is gone
        return b"".join(lines[:place] + lines[place + 1 :]), place + 1, place + 1
    if kind == 3:  # a line more
        return b"".join([*lines[: place + 1], chance.choice(lines[:count]), *lines[place + 1 :]]), place + 2, place + 3
    if kind == 4:  # the end is cut off, anywhere in the file
        size = chance.randrange(len(b"".join(lines)))
        whole = b"".join(lines)[:size]
        return whole, 1, count + 1
    if kind == 5:  # two lines change places
        one, other = sorted(chance.sample(range(count), 2))
        moved = list(lines)
        moved[one], moved[other] = moved[other], moved[one]
        return b"".join(moved), one + 1, one + 1
    # the records of an earlier file, with the checkpoints of this one
    kept = [line for line in old if not line.startswith(b'{"checkpoint"')]
    return b"".join([*kept, *lines[count:]]), len(kept) + 1, len(kept) + 1


def test_an_export_made_anew_is_told_from_the_earlier_one_at_its_first_record(kept: Kept) -> None:
    rows, checkpoints = copied(kept.state)
    rows[4]["actor"] = "somebody"
    chained(rows, 4)
    signed_anew(checkpoints, rows, 4)
    kept.put((rows, checkpoints))
    thief = AuditLog(f"sqlite:///{kept.path}", THIEF)
    # The thief's own record, with the thief's key, holds; what was kept elsewhere says where it begins to differ.
    kept.put((rows, []))
    thief.export(kept.home / "thief.jsonl")
    thief.close()
    kept.put(kept.state)

    assert verify_export(kept.home / "thief.jsonl", THIEF.public_key()).ok
    assert not verify_export(kept.home / "thief.jsonl", KEY.public_key()).ok
    assert verify_export(kept.home / "thief.jsonl", None, kept.earlier).first_bad == 5
    assert verify_export(kept.home / "thief.jsonl", None, None, (), kept.anchored).first_bad == 6
