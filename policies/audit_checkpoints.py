"""Signed statements that a record of the audit had a certain hash, and who may make them.

A chain of hashes that is cut at its end, emptied, or made anew as a whole, is still a chain. A signature over its head,
kept where the record's keeper cannot change it, uncovers all of these. The key that signs may be replaced: the former
one then signs a checkpoint that names the next, so that who trusts one of them can follow from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from policies.audit_chain import canonical
from policies.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement that record `sequence` had this hash. `signature`: Ed25519 over the other fields.

    `next_key`: the public key, 64 hex digits, that signs all that comes later, and `next_signature` its signature over
    the same; both empty where the key stays.
    """

    sequence: int
    time: int
    hash: str
    signature: str
    next_key: str = ""
    next_signature: str = ""

    @property
    def signed(self) -> bytes:
        """The bytes that the signature covers."""
        values: dict[str, Any] = {"checkpoint": self.sequence, "hash": self.hash, "time": self.time}
        return canonical(values | ({"next_key": self.next_key} if self.next_key else {})).encode()

    @property
    def order(self) -> tuple[int, bool]:
        """A change of key comes after what the former key signed over the same record."""
        return self.sequence, bool(self.next_key)

    def holds(self, key: Ed25519PublicKey) -> bool:
        """Say whether the signature is that of `key`."""
        return _holds(self.signature, self.signed, key)

    def taken_up(self, key: Ed25519PublicKey) -> bool:
        """Say whether `key` is the next one, and has signed that it is."""
        return self.next_key == key_hex(key) and _holds(self.next_signature, self.signed, key)

    @property
    def line(self) -> str:
        """The checkpoint as exports and anchors show it: one JSON object with sorted keys."""
        values: dict[str, Any] = {"checkpoint" if k == "sequence" else k: v for k, v in asdict(self).items() if v != ""}
        return canonical(values)


@dataclass(frozen=True, slots=True)
class Signatures:
    """What the signatures of some checkpoints show.

    `covered`: the last record that one of them is about whose signature holds, 0 for none; `first_bad`: the record of
    the first whose signature does not.
    """

    covered: int
    first_bad: int | None = None


def signatures_of(checkpoints: Iterable[Checkpoint], trusted: Ed25519PublicKey) -> Signatures:
    """Follow the signatures from the key that is trusted to the end, over each change of key.

    What comes before the change that made the trusted key the one that signs is not looked at: what it signed later
    covers all of that.
    """
    ordered = sorted(set(checkpoints), key=lambda checkpoint: checkpoint.order)
    begin = next((place for place, each in enumerate(ordered, 1) if each.taken_up(trusted)), 0)
    key, covered = trusted, ordered[begin - 1].sequence if begin else 0
    for checkpoint in ordered[begin:]:
        following = key if not checkpoint.next_key else _key_of(checkpoint.next_key)
        if following is None or not checkpoint.holds(key):
            return Signatures(covered, checkpoint.sequence)
        if checkpoint.next_key and not checkpoint.taken_up(following):
            return Signatures(covered, checkpoint.sequence)
        key, covered = following, checkpoint.sequence
    return Signatures(covered)


def key_hex(key: Ed25519PublicKey) -> str:
    """Spell a public key as a change of key names it."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def _holds(signature: str, signed: bytes, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(found := bytes.fromhex(signature), signed)
    except (InvalidSignature, ValueError):
        return False
    return signature == found.hex()  # in no other spelling


def _key_of(text: str) -> Ed25519PublicKey | None:
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        return None


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key that `rayrag audit key` printed. Raises `ConfigurationError`."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: no PEM public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path}: checkpoints are signed with Ed25519")
    return key


def read_checkpoint(line: bytes) -> Checkpoint | None:
    """Read a checkpoint's line. None for one that is not byte for byte as `Checkpoint.line` spells it."""
    try:
        values = json.loads(line.decode("ascii"))
        following = values.get("next_key", ""), values.get("next_signature", "")
        found = Checkpoint(values["checkpoint"], values["time"], values["hash"], values["signature"], *following)
        return found if _typed(found) and found.line.encode() == line.rstrip(b"\n") else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _typed(found: Checkpoint) -> bool:
    texts: Sequence[object] = (found.hash, found.signature, found.next_key, found.next_signature)
    return type(found.sequence) is int and type(found.time) is int and all(isinstance(text, str) for text in texts)
