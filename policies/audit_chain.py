"""What stands on the audit record, and its one spelling.

Each record's hash covers all its fields and the hash before it, so that a record which is changed, moved, removed or
slipped in breaks the chain at its place (`policies.audit_verdict`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from json.encoder import encode_basestring_ascii
from typing import Any, Literal

GENESIS = "0" * 64
"""The `previous_hash` of record 1."""

Detail = Mapping[str, "str | int | bool | Sequence[str] | Mapping[str, int] | None"]
"""What else is known of a step: words, numbers, ids, and counts by name. No text of people, and no fractions."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict).encode


@dataclass(frozen=True, slots=True)
class AuditIntent:
    """What a caller is about to do. `detail` holds no fractions: they have no one spelling in JSON."""

    request_id: str
    actor: str
    tenant: str
    action: str
    policy_version: str
    detail: Detail = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditOutcome:
    """What came of it: which chunks were shown, how many withheld."""

    request_id: str
    actor: str
    tenant: str
    action: str
    policy_version: str
    outcome: str
    chunks_shown: tuple[str, ...] = ()
    chunks_withheld: int = 0
    detail: Detail = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A line of the record. `sequence` counts from 1 without gaps; `time` is in microseconds since 1970, UTC."""

    sequence: int
    time: int
    kind: Literal["intent", "outcome"]
    request_id: str
    actor: str
    tenant: str
    action: str
    outcome: str
    policy_version: str
    chunks_shown: list[str]
    chunks_withheld: int
    detail: dict[str, Any]
    previous_hash: str
    hash: str

    def values(self) -> dict[str, Any]:
        """All fields, as the HTTP response and the export show them."""
        return {name: getattr(self, name) for name in _FIELDS}


_FIELDS = tuple(item.name for item in fields(AuditRecord))
JSON_COLUMNS = frozenset({"chunks_shown", "detail"})
"""Columns that hold canonical JSON text."""


def canonical(value: Any) -> str:
    """Spell a value in the one way: sorted keys, no spaces, ASCII. Raises `TypeError` for fractions."""
    _refuse_fractions(value)
    return _encode(value)


def _refuse_fractions(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("keys of an audit record's detail are text")
            _refuse_fractions(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_fractions(item)
    elif not (value is None or isinstance(value, str | int)):
        raise TypeError(f"an audit record holds no {type(value).__name__}")


def record_hash(columns: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the canonical JSON of all fields but `hash`, `previous_hash` among them.

    `columns` is a row as it is stored: `chunks_shown` and `detail` are canonical JSON text already.
    """
    return hashlib.sha256(_line(columns, "").encode("utf-8", "surrogatepass")).hexdigest()


def export_line(columns: Mapping[str, Any]) -> str:
    """Spell a row, as it is stored, as the export does: one JSON object with sorted keys."""
    return _line(columns, f'"hash":{encode_basestring_ascii(str(columns["hash"]))},')


def _line(of: Mapping[str, Any], with_hash: str) -> str:
    # The same text as `canonical` of the parsed record, without parsing it, key by key: that is 30 times faster.
    text = encode_basestring_ascii
    try:
        return (
            f'{{"action":{text(of["action"])},"actor":{text(of["actor"])},"chunks_shown":{of["chunks_shown"]},'
            f'"chunks_withheld":{of["chunks_withheld"]:d},"detail":{of["detail"]},{with_hash}'
            f'"kind":{text(of["kind"])},"outcome":{text(of["outcome"])},"policy_version":{text(of["policy_version"])},'
            f'"previous_hash":{text(of["previous_hash"])},"request_id":{text(of["request_id"])},'
            f'"sequence":{of["sequence"]:d},"tenant":{text(of["tenant"])},"time":{of["time"]:d}}}'
        )
    except (TypeError, ValueError):  # SQLite lets anything be in a column: no record has this text, and this hash
        return repr(sorted(of.items()))
