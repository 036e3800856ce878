"""The proof of an erasure: what was done when, in how many places, signed. It holds no personal data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policies.audit_chain import canonical

FORM = "rayrag erasure receipt 1"


def signed_receipt(facts: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign what was done (JSON without fractions): Ed25519 over the canonical form of all but the signature."""
    body = {"form": FORM, **facts, "key": key_name(key.public_key())}
    return {**body, "signature": key.sign(canonical(body).encode()).hex()}


def why_not(receipt: Any, key: Ed25519PublicKey) -> str | None:
    """Say why a receipt does not hold; None: it is as it was signed, by this key."""
    if not isinstance(receipt, dict) or receipt.get("form") != FORM:
        return "this is no receipt of an erasure"
    if receipt.get("key") != key_name(key):
        return "another key signed it"
    body = {name: value for name, value in receipt.items() if name != "signature"}
    try:
        key.verify(bytes.fromhex(str(receipt.get("signature"))), canonical(body).encode())
    except (InvalidSignature, ValueError):
        return "it is not as it was signed"
    return None


def key_name(key: Ed25519PublicKey) -> str:
    """Name a public key: the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()
