"""What a request needs while it runs, kept so that only this installation can read it: the subject, an export."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from policies.errors import Unavailable
from policies.keyed_hashes import KeyedHashes

USE = "subject"


class Sealing:
    """Encrypts with keys that are derived from the compliance key, one for each tenant (AES-128-CBC, HMAC-SHA-256)."""

    def __init__(self, keyed: KeyedHashes) -> None:
        self._keyed = keyed

    def seal(self, tenant: str, value: Any) -> str:
        """Give the text that stands for a value of JSON."""
        return self.seal_bytes(tenant, json.dumps(value, ensure_ascii=False).encode()).decode("ascii")

    def open(self, tenant: str, sealed: str) -> Any:
        """Read it back. Raises `Unavailable` where another key sealed it."""
        return json.loads(self.open_bytes(tenant, sealed.encode()))

    def seal_bytes(self, tenant: str, value: bytes) -> bytes:
        """Give the bytes that stand for `value`."""
        return self._fernet(tenant).encrypt(value)

    def open_bytes(self, tenant: str, sealed: bytes) -> bytes:
        """Read them back. Raises `Unavailable` where another key sealed them."""
        try:
            return self._fernet(tenant).decrypt(sealed)
        except InvalidToken as error:
            raise Unavailable("what this request keeps was sealed with another key: put compliance.key back") from error

    def _fernet(self, tenant: str) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(bytes.fromhex(self._keyed.of(tenant, USE, "sealing"))))
