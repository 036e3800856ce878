"""Tokens as issuers and forgers make them, for the tests of what believes them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUER = "https://id.example"
AUDIENCE = "rayrag"
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}
KEYS["PS256"] = KEYS["RS256"]
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def private_pem(key: Any) -> bytes:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


def jwk(key: Any, kid: str | None, algorithm: str, **more: Any) -> dict[str, Any]:
    kinds: dict[str, Any] = jwt.algorithms.get_default_algorithms()
    named = {} if kid is None else {"kid": kid}
    return {**kinds[algorithm].to_jwk(key.public_key(), as_dict=True), **named, **more}


def encoded(data: bytes | str | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data)
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    valid = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, "tenant": "acme"}
    valid |= {"roles": ["user"], "groups": ["finance", "leads"]}
    return {name: value for name, value in {**valid, **changes}.items() if value is not ...}


def signed(header: str | dict[str, Any], payload: Any, algorithm: str = "RS256", key: Any = None) -> str:
    message = f"{encoded(header)}.{encoded(payload)}"
    method: Any = jwt.algorithms.get_default_algorithms()[algorithm]
    return f"{message}.{encoded(method.sign(message.encode(), key or KEYS[algorithm]))}"
