"""Webhooks: somebody says that documents of a source changed, and signs it (Standard Webhooks).

    signed for this source? -> JSON? -> not too many? -> not heard already? -> on the record -> what it names is in the
    ledger, to be looked at -> that is on the record -> 202

The caller has no token, so nothing is said before the signature holds: which names there are, which of them rest and
which take no webhooks is one answer, after the same work. See https://www.standardwebhooks.com for the signature: HMAC
SHA-256 of `id.timestamp.body`, at most 5 minutes old; there may be several, so that senders can change their key.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from index.ledger import Ledger
from index.ledger_records import StoredSource
from index.settings import read_secret
from ingest.events import ids_of
from ingest.source_settings import WebhookSettings
from policies.audit_chain import AuditIntent, AuditOutcome, Detail
from policies.errors import BadSignature, ConfigurationError, Overloaded, RayragError, UnsupportedType
from policies.guard import Recorder, outcome_of

PATH = "/v1/webhooks/"
MAX_BODY_BYTES = 64_000
SOURCES_S = 1.0
"""How long the list of sources is taken as it was: strangers cost the ledger one read in that time."""
SECRET_S = 30.0
"""How long a secret is taken as it was read."""
PER_SECOND = 50
"""Events of one source, for each replica; so many may also come at once."""
HEARD_S = 660.0
"""Longer than a signature holds: 5 minutes before and after its time."""
MAX_HEARD = 50_000
KEY_BYTES = range(24, 65)

log = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class _Target:
    source_id: int
    tenant: str
    webhook: Webhook


class Webhooks:
    """Takes signed events. One for each replica of the ingress."""

    def __init__(
        self, ledger: Ledger, audit: Recorder, policy_version: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._audit = audit
        self._policy_version = policy_version
        self._clock = clock
        self._nobody = _Target(0, "", Webhook(secrets.token_bytes(32)))
        self._reading = asyncio.Lock()
        self._targets: Mapping[str, _Target] = {}
        self._targets_at = float("-inf")
        self._keys: dict[WebhookSettings, tuple[float, Webhook | None]] = {}
        self._left: dict[int, tuple[float, float]] = {}
        # Of this replica only: an event says no more than "look", so that one which is sent again elsewhere does no
        # harm, and the ledger need not be asked. By hash, as a sender chooses how long an id is.
        self._heard: TTLCache[bytes, int] = TTLCache(MAX_HEARD, HEARD_S, timer=clock)

    async def accept(self, source: str, headers: Mapping[str, str], body: bytes, request_id: str) -> int:
        """Take an event; when this returns, what it names will be looked at, whatever dies.

        Gives the number of documents, 0 for "list the source". Raises `BadSignature`, `UnsupportedType`, `Overloaded`,
        and `Unavailable` where the ledger or the record cannot be written: the sender tries again then.
        """
        target = await self._signed(source, headers, body)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise UnsupportedType("send JSON")
        self._take_turn(target.source_id)
        # In binary mode the subject is in a header, which no signature covers: who catches an event may have another
        # document looked at, once. That shows and changes nothing.
        event = hashlib.sha256(f"{target.source_id} {headers['webhook-id']}".encode()).digest()
        if (known := self._heard.get(event)) is not None:
            return int(known)
        ids = ids_of(body, headers)
        said = self._said(source, target, request_id)
        detail: Detail = {"source": source, "documents": len(ids)}
        await asyncio.to_thread(self._audit.intent, AuditIntent(**said, detail=detail))
        try:
            await asyncio.to_thread(self._ledger.hint, target.source_id, ids)
        except RayragError as error:
            outcome = outcome_of(error)
            await asyncio.to_thread(self._audit.outcome, AuditOutcome(**said, outcome=outcome, detail=detail))
            raise
        await asyncio.to_thread(self._audit.outcome, AuditOutcome(**said, outcome="ok", detail=detail))
        self._heard[event] = len(ids)  # not before: what was answered with 503 comes again under the same id
        return len(ids)

    async def _signed(self, source: str, headers: Mapping[str, str], body: bytes) -> _Target:
        target = (await self._known()).get(source, self._nobody)
        try:
            target.webhook.verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:  # ValueError: what is no base64, or no UTF-8
            raise BadSignature("the signature does not hold") from error
        if target is self._nobody:
            raise BadSignature("no such source takes webhooks")
        return target

    def _take_turn(self, source_id: int) -> None:
        """Let `PER_SECOND` events of a source through (a token bucket): a stolen secret must not flood the ledger."""
        now = self._clock()
        left, at = self._left.get(source_id, (float(PER_SECOND), now))
        left = min(float(PER_SECOND), left + (now - at) * PER_SECOND)
        if left < 1.0:
            raise Overloaded("too many events of this source", retry_after_s=1)
        self._left[source_id] = left - 1.0, now

    def _said(self, source: str, target: _Target, request_id: str) -> dict[str, Any]:
        return {
            "request_id": request_id,
            "actor": f"webhook:{source}",
            "tenant": target.tenant,
            "action": "webhook",
            "policy_version": self._policy_version,
        }

    # ---- which sources take webhooks, and their secrets

    async def _known(self) -> Mapping[str, _Target]:
        async with self._reading:
            if self._clock() - self._targets_at >= SOURCES_S:
                self._targets = await asyncio.to_thread(self._read)
                self._targets_at = self._clock()
            return self._targets

    def _read(self) -> dict[str, _Target]:
        """Read all of them, not the one that was asked for: how long that takes tells nothing of a name."""
        found = {}
        for stored in self._ledger.kept_sources():
            settings = None if stored.paused else _webhook_settings(stored)
            webhook = self._webhook(settings, stored.name) if settings else None
            if webhook is not None:
                found[stored.name] = _Target(stored.source_id, stored.tenant, webhook)
        return found

    def _webhook(self, settings: WebhookSettings, name: str) -> Webhook | None:
        now = self._clock()
        read_at, webhook = self._keys.get(settings, (float("-inf"), None))
        if now - read_at >= SECRET_S:
            try:
                secret = read_secret(settings.secret_file, settings.secret_env, "webhook.secret_file")
                webhook = Webhook(signing_key(secret or ""))
            except ConfigurationError as error:
                log.error("source %s takes no webhooks: %s", name, error.detail)
                webhook = None
            self._keys[settings] = now, webhook
        return webhook


def signing_key(secret: str) -> bytes:
    """Read a Standard Webhooks secret: base64 of 24 to 64 bytes, after `whsec_`. Raises `ConfigurationError`."""
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ConfigurationError("its secret is not whsec_ and base64") from error
    if len(key) not in KEY_BYTES:
        raise ConfigurationError("its secret must be 24 to 64 random bytes in base64")
    return key


def _webhook_settings(stored: StoredSource) -> WebhookSettings | None:
    try:
        settings: Any = json.loads(stored.config).get("webhook")
        return WebhookSettings.model_validate(settings) if settings else None
    except (ValueError, ValidationError) as error:
        log.error("source %s takes no webhooks: its settings cannot be read (%s)", stored.name, type(error).__name__)
        return None
