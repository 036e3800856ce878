"""The audit record in files: exports and segments, checked without any database.

A file holds records, one JSON object a line, and behind them the signed checkpoints. Older records may be in files of
their own, segments, each of which goes on where the one before it ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.audit_checkpoints import Checkpoint, read_checkpoint, signatures_of
from policies.audit_verdict import Link, Verdict, verdict_of
from policies.errors import ConfigurationError

_CHECKPOINT = b'{"checkpoint":'
_HASH = b'"hash":"'


def verify_export(
    path: Path,
    key: Ed25519PublicKey | None = None,
    since: Path | None = None,
    segments: Sequence[Path] = (),
    anchored: Sequence[Checkpoint] = (),
) -> Verdict:
    """Check an exported record without any database: each line byte by byte, the chain, and its end.

    With `key`, the export must end in a checkpoint which that key signed over its last record, so that an empty one
    does not pass; without, the signatures are not checked and an export whose end was cut off, checkpoints and all,
    passes. With `since`, an earlier export, it must hold all of that one's records: the export of a database that was
    emptied, taken back or made anew in between does not. `segments`: the files with the records before it, in their
    order. `anchored`: checkpoints that were kept elsewhere. Raises `ConfigurationError` for a file that cannot be
    read, and for an earlier export that does not hold itself.
    """
    verdict = _verified((*segments, path), key, anchored)
    if since is None or not verdict.ok:
        return verdict
    earlier = _verified((since,), key, ())
    if not earlier.ok:
        raise ConfigurationError(f"{since} does not hold itself: record {earlier.first_bad}: {earlier.reason}")
    differs = _first_difference(since, (*segments, path), verdict.begins)
    if differs is None:
        return verdict
    return Verdict(False, verdict.count, differs, "not as it is in the earlier export", verdict.begins)


def segment_files(directory: Path) -> list[Path]:
    """List the segments in a directory, in their order."""
    return sorted(directory.glob("audit-*.jsonl"))


def _verified(paths: Sequence[Path], key: Ed25519PublicKey | None, anchored: Sequence[Checkpoint]) -> Verdict:
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in paths]
            kept = [found for file in files for found in file_checkpoints(file)]
            *older, latest = files
            begins = next((link.sequence for link in file_rows(latest) if link is not None), 1)
            latest.seek(0)
            verdict = verdict_of(chain(rows_before(begins, older), file_rows(latest)), [*kept, *anchored], key)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror or error}") from error
    if not verdict.ok or key is None:
        return verdict
    covered = signatures_of(kept, key).covered
    if covered == 0 or covered != verdict.count:
        return Verdict(False, verdict.count, covered + 1, "no signed checkpoint covers it", verdict.begins)
    return verdict


def _first_difference(earlier: Path, later: Sequence[Path], begins: int) -> int | None:
    """Give the first record of an earlier export that the later files, which begin with `begins`, hold otherwise."""
    with ExitStack() as stack:
        old = _lines(stack.enter_context(earlier.open("rb")))
        *older, latest = [stack.enter_context(path.open("rb")) for path in later]
        behind = next((_sequence(line) for line in _lines(latest)), 1)
        latest.seek(0)
        before = (line for file in older for line in _lines(file) if _sequence(line) < behind)
        new = chain(before, _lines(latest))
        first = next(old, None)
        if first is None:
            return None
        number = _sequence(first)
        old = chain((first,), old)
        both = zip_longest(islice(old, max(0, begins - number), None), islice(new, max(0, number - begins), None))
        for place, (was, now) in enumerate(both, max(begins, number)):
            if was is None:
                return None
            if was != now:
                return place
    return None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return (line for line in file if not line.startswith(_CHECKPOINT))


def _sequence(line: bytes) -> int:
    return int(json.loads(line)["sequence"])


def rows_before(begins: int, files: Sequence[BinaryIO]) -> Iterator[Link | None]:
    """Give the records of segments that come before record `begins`; what is unreadable in them, too."""
    for link in chain.from_iterable(map(file_rows, files)):
        if link is None or not isinstance(link.sequence, int) or link.sequence < begins:
            yield link


def file_checkpoints(file: BinaryIO) -> list[Checkpoint]:
    """Read the checkpoints of an open file, and go back to its beginning."""
    found = [checkpoint for line in file if (checkpoint := _checkpoint_of(line)) is not None]
    file.seek(0)
    return found


def file_rows(file: Iterable[bytes]) -> Iterator[Link | None]:
    """Give the records as they were stored, and None for any line that is none; the checkpoints stand at the end."""
    ended = False
    for line in file:
        if _checkpoint_of(line) is not None:
            ended = True
        else:
            yield None if ended else _link_of(line)


def _link_of(line: bytes) -> Link | None:
    """Read a record. None for a line that is none.

    What its hash covers is the line itself without that hash: in no other spelling, then, and nothing added.
    """
    # No text can hold these bytes: its quotes are escaped. What comes behind the hash has names of its own.
    at = line.rfind(_HASH)
    end = at + len(_HASH) + 64
    if at < 0 or line[end : end + 2] != b'",' or not line.endswith(b"}\n"):
        return None
    try:
        values = json.loads(line)
        named = line[at + len(_HASH) : end].decode("ascii")
        computed = sha256(line[:at] + line[end + 2 : -1]).hexdigest()
        whole = line.isascii() and values["hash"] == named
        return Link(values["sequence"], values["previous_hash"], named, computed, values) if whole else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _checkpoint_of(line: bytes) -> Checkpoint | None:
    return read_checkpoint(line) if line.startswith(_CHECKPOINT) and line.endswith(b"\n") else None
