"""Outside test vectors for signatures (C2SP/Wycheproof's JOSE files): accepted and refused, against the file's verdict.

What is measured is everything in front of the claims: shape, header, key set, choice of key, signature. A vector that
is valid and of an algorithm that is never accepted here (HMAC, encryption, P-521) must be refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from bench.context import Figure
from policies.errors import TokenRejected
from policies.keys import KeySet
from policies.tokens import read_head


@dataclass(frozen=True, slots=True)
class Vector:
    """One test of a file. `valid`: the file's verdict; None where it leaves that open."""

    name: str
    jws: str
    keys: dict[str, Any]
    valid: bool | None
    flags: frozenset[str] = frozenset()


def run(directory: Path | None) -> list[Figure]:
    """Read every `json_web_*_test.json` in a directory; none given: nothing is measured."""
    if directory is None:
        print("tokens: name a directory of vectors: --vectors DIR")
        return []
    found = [vector for path in sorted(directory.rglob("*.json")) for vector in read_vectors(path)]
    outcomes = [(vector, holds(vector.jws, vector.keys)) for vector in found]
    wrongly_accepted = [vector for vector, accepted in outcomes if accepted and vector.valid is False]
    of_ours = [(vector, accepted) for vector, accepted in outcomes if vector.valid and is_of_ours(vector)]
    wrongly_refused = [vector for vector, accepted in of_ours if not accepted]
    for kind, vectors in (("accepted, and invalid", wrongly_accepted), ("refused, and valid", wrongly_refused)):
        for vector in vectors:
            print(f"{kind}: {vector.name} {' '.join(sorted(vector.flags))}")
    invalid = sum(vector.valid is False for vector in found)
    strange = sum(bool(vector.valid) for vector in found) - len(of_ours)
    return [
        Figure(
            "tokens", "invalid, accepted", str(len(wrongly_accepted)), invalid, "0", not wrongly_accepted, must=True
        ),
        Figure(
            "tokens", "valid and of ours, refused", str(len(wrongly_refused)), len(of_ours), "0", not wrongly_refused
        ),
        Figure("tokens", "valid, of an algorithm never accepted here", str(strange), len(found)),
    ]


def read_vectors(path: Path) -> Iterator[Vector]:
    """Give the signed ones of a Wycheproof file; other files have none."""
    document = json.loads(path.read_text(encoding="utf-8"))
    for group in document.get("testGroups", []) if isinstance(document, dict) else []:
        keys = group.get("public") or group.get("private")
        for test in group.get("tests", []):
            if isinstance(keys, dict) and isinstance(test.get("jws"), str):
                valid = {"valid": True, "invalid": False}.get(test["result"])
                name = f"{path.name} {test['tcId']} {group.get('comment', '')}: {test['comment']}"
                whole = keys if "keys" in keys else {"keys": [keys]}
                yield Vector(name, test["jws"], whole, valid, frozenset(test.get("flags", ())))


def holds(jws: str, keys: dict[str, Any]) -> bool:
    """Say whether a signature holds as a token's would, whatever it signs."""
    try:
        head = read_head(jws)
        key = KeySet.of(keys).find(head.kid, head.algorithm)
        if key is None:
            return False
        jwt.PyJWS().decode(jws, key, algorithms=[head.algorithm])
    except (TokenRejected, ValueError, jwt.PyJWTError):
        return False
    return True


def is_of_ours(vector: Vector) -> bool:
    """Say whether a vector's header names an algorithm that an issuer here may have."""
    try:
        read_head(vector.jws)
    except TokenRejected:
        return False
    return True
