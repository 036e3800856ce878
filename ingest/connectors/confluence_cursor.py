"""Where a listing of Confluence may go on: when it looked last, and what it knows to be there.

The ids are kept (about 5 bytes each) because a page that is deleted, or restricted so that the account loses sight of
it, is in no list of changes: it is only missing.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass

MAX_KNOWN_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """`since`: when the last listing began; `swept`: when the last one that went over all pages did; Unix seconds."""

    since: float
    swept: float
    known: frozenset[str]

    def text(self) -> str:
        """Write it down."""
        packed = zlib.compress("\n".join(sorted(self.known)).encode(), 6)
        return json.dumps(
            {"v": 1, "since": self.since, "swept": self.swept, "known": base64.b64encode(packed).decode()}
        )

    @classmethod
    def of(cls, text: str | None) -> Cursor | None:
        """Read it; none where it is of another kind: all is listed then."""
        try:
            value = json.loads(text or "null")
            if not isinstance(value, dict) or value.get("v") != 1:
                return None
            unpacking = zlib.decompressobj()
            known = unpacking.decompress(base64.b64decode(value["known"], validate=True), MAX_KNOWN_BYTES)
            ids = known.decode().split("\n") if known else []
            return cls(float(value["since"]), float(value["swept"]), frozenset(ids))
        except (ValueError, KeyError, TypeError, RecursionError, zlib.error):
            return None
