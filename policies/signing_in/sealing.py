"""What a browser keeps for us while it is at an identity provider: sealed, so that it can neither be read nor made.

It binds the answer to the browser that asked: what comes back must name the state that is in this browser's cookie.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policies.errors import InvalidRequest, SignInRefused
from policies.principals import has_unseen

LIFETIME_S = 600
"""How long a person may take at the identity provider."""
MAX_RETURN_CHARS = 1_024


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in that has begun. `state` names it; `secret` is PKCE's verifier, `request_id` SAML's request."""

    way: str
    state: str
    return_to: str | None = None
    nonce: str = ""
    secret: str = ""
    request_id: str = ""


class Sealer:
    """Seals with a key derived from the one that signs session tokens: all replicas have it already."""

    def __init__(self, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        derived = HKDF(SHA256(), 32, salt=None, info=b"rayrag pending sign-ins").derive(private)
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def seal(self, pending: Pending) -> str:
        """Give the text for the cookie."""
        return self._fernet.encrypt(json.dumps(asdict(pending)).encode()).decode()

    def open(self, sealed: str | None, way: str, state: str) -> Pending:
        """Read it back. Raises `SignInRefused` where it is absent, old, another's, or for another way or state."""
        try:
            fields: Any = json.loads(self._fernet.decrypt((sealed or "").encode(), ttl=LIFETIME_S))
        except (InvalidToken, UnicodeEncodeError):
            raise SignInRefused("state") from None
        pending = Pending(**fields)
        if pending.way != way or pending.state != state:
            raise SignInRefused("state")
        return pending


def own_path(return_to: str | None) -> str | None:
    """Give back a path on this host, to return to. Raises `InvalidRequest` for what leads anywhere else.

    Browsers read as another host what begins with two slashes, of either kind, and drop tabs between them.
    """
    if return_to is None:
        return None
    if (
        not return_to.startswith("/")
        or return_to.startswith("//")
        or len(return_to) > MAX_RETURN_CHARS
        or any(character in return_to for character in "\\#")
        or any(character.isspace() for character in return_to)
        or has_unseen(return_to)
        or not return_to.isascii()
    ):
        raise InvalidRequest("return_to: a path on this host, without #")
    return return_to
