"""The signer: at an interval it verifies what is new on the record, signs its head, and copies that to the anchor.

It runs where no request is served, and nothing that serves requests holds its key. What the record's keeper cuts off,
or makes anew, is uncovered by the anchor, but for what came after the last checkpoint.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.audit import AuditLog
from policies.audit_anchor import Anchor
from policies.audit_checkpoints import Checkpoint
from policies.errors import ConfigurationError, RayragError
from policies.issuing import ensure_private_key
from policies.keys import load_private_key

log = logging.getLogger(__name__)


def signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs, or make one where there is none. Raises `ConfigurationError`."""
    # One that is mounted as a secret lies in a directory that is not ours to judge.
    key = load_private_key(path) if path.exists() else ensure_private_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"store.audit_key_file: {path} is no Ed25519 key")
    return key


class Signer:
    """Signs the head of one record. One for each record: two would do the same work twice, and no harm."""

    def __init__(
        self,
        audit: AuditLog,
        key: Callable[[], Ed25519PrivateKey],
        anchor: Anchor | None,
        after: Callable[[Checkpoint], None] = lambda _: None,
    ) -> None:
        """`key` is asked for each time, so that it may be replaced. `after` is called with each new checkpoint."""
        self._audit = audit
        self._key = key
        self._anchor = anchor
        self._after = after
        self._last: Checkpoint | None = None
        self._anchored: Checkpoint | None = None

    def sign(self) -> Checkpoint | None:
        """Verify what is new since the last time, all of it the first time, sign, and copy. None: nothing to sign.

        Raises `ConfigurationError` where the record, or the anchor, is not as it was; then nothing is signed. Raises
        `Unavailable` where one does not answer; then the next call makes up for it.
        """
        self._audit.use_key(self._key())
        if self._anchored is None:
            self._agree()
        last, self._last = self._last, None  # whatever goes wrong, the next time all of it is looked at
        signed = self._audit.checkpoint(last)
        if signed is not None and self._anchor is not None:
            since = self._anchored.order if self._anchored is not None else (0, False)
            for checkpoint in self._audit.signed_checkpoints(since[0]):
                if checkpoint.order > since:
                    self._anchor.add(checkpoint)
                    self._anchored = checkpoint
        new = signed is not None and (last is None or signed.sequence > last.sequence)
        self._last = signed
        if signed is not None and new:
            self._after(signed)
        return signed

    def _agree(self) -> None:
        """Hold the record against what the anchor keeps: what was taken back, or made anew, is found here."""
        if self._anchor is None:
            return
        kept = self._anchor.all()
        if not kept:
            return
        verdict = self._audit.verify(kept)
        if not verdict.ok:
            raise ConfigurationError(
                f"The audit record is not what the anchor has signed: record {verdict.first_bad}: {verdict.reason}. "
                "Keep both as they are. After a restored backup: keep this anchor, and name a new one."
            )
        self._anchored = kept[-1]


class SigningThread:
    """Signs at an interval until it is stopped. What fails is logged each time, and tried again."""

    def __init__(self, signer: Signer, every_s: float, observe: Callable[[float], None] = lambda _: None) -> None:
        """`observe` gets the seconds since the record was last signed to its end."""
        self._signer = signer
        self._every_s = every_s
        self._observe = observe
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-signer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; what is in work is finished."""
        self._stopped.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Say whether it still signs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        held = time.monotonic()
        while not self._stopped.wait(self._every_s):
            try:
                self._signer.sign()
                held = time.monotonic()
            except RayragError as error:
                log.error("the audit record is not signed: %s", error.detail)
            except Exception:
                log.exception("the audit record is not signed")
            self._observe(time.monotonic() - held)
