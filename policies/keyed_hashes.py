"""Hashes that only who holds the key can make: of names and numbers that must be told apart, and never read back.

An identity number has few digits, and a common question few words: without a key, whoever holds a hash of one finds it
by trying all. The key stands in one file; a key of its own is derived of it for each tenant and each use (HKDF, RFC
5869), so that what is kept for one use says nothing to another, and nothing of one tenant to the next.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import unicodedata
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from policies.errors import ConfigurationError
from policies.secret_files import read_secret_file

Use = Literal["pseudonym", "suppression", "question", "subject"]
KEY_BYTES = 32
MAX_KEPT_KEYS = 1_024

_log = logging.getLogger(__name__)


class KeyedHashes:
    """HMAC-SHA-256 under a key for each tenant and use. Equal for equal texts, in every process with this secret.

    Raises `ConfigurationError` for a secret of fewer than 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < KEY_BYTES:
            raise ConfigurationError(f"a key for hashes has at least {KEY_BYTES} bytes")
        self._secret = secret
        self._keys: dict[tuple[str, str], bytes] = {}
        self._lock = Lock()

    @classmethod
    def load(cls, path: Path, key: str = "compliance.key_file") -> KeyedHashes:
        """Read the secret at `path`, or make one there: file 0600, directory 0700. `key`: the setting's path.

        Of many processes that start at once, one writes its secret whole and the others read that. Raises
        `ConfigurationError` for a file which others may read, and one that holds no such secret.
        """
        if not path.exists():
            _write_new(path)
        text = read_secret_file(path, key)
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise ConfigurationError(f"{key}: {path} holds no hexadecimal digits") from error

    def of(self, tenant: str, use: Use | str, text: str) -> str:
        """Give the hash of `text`: 64 hex digits."""
        return hmac.digest(self._key(tenant, use), text.encode("utf-8", "surrogatepass"), "sha256").hex()

    def subject(self, tenant: str, identifier: str) -> str:
        """Give the hash by which a person's identifier or name is known, however it is spaced and punctuated."""
        return self.of(tenant, "subject", normalised(identifier))

    def subjects(self, tenant: str, identifiers: Iterable[str]) -> frozenset[str]:
        """`subject` of each that says anything."""
        return frozenset(self.subject(tenant, each) for each in identifiers if normalised(each))

    def _key(self, tenant: str, use: str) -> bytes:
        with self._lock:
            known = self._keys.get((tenant, use))
        if known is not None:
            return known
        info = b"".join(len(part).to_bytes(4, "big") + part for part in (tenant.encode(), use.encode()))
        made = HKDF(SHA256(), KEY_BYTES, sha256(b"rayrag keyed hashes").digest(), info).derive(self._secret)
        with self._lock:
            if len(self._keys) >= MAX_KEPT_KEYS:
                self._keys.clear()
            self._keys[tenant, use] = made
        return made


def normalised(identifier: str) -> str:
    """Fold case and width; take out all but letters and digits, but for an e-mail address, which keeps its marks."""
    folded = unicodedata.normalize("NFKC", identifier).casefold()
    if "@" in folded:
        return "".join(folded.split())
    return "".join(character for character in folded if character.isalnum())


def _write_new(path: Path) -> None:
    directory = path.parent
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    if directory.stat().st_mode & 0o022:
        raise ConfigurationError(f"{directory}: others may write here; run chmod 700 on it")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and never over another's secret.
        os.link(draft, path)
    except FileExistsError:
        _log.info("%s: another process was first", path)
    finally:
        draft.unlink()
