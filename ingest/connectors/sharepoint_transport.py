"""How requests to Microsoft Graph travel: the credentials, the pace, the tries, and refusals as exceptions.

This module loads azure-identity and the SDK's HTTP parts; import it late.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from azure.core.credentials import TokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CertificateCredential, ClientSecretCredential
from kiota_http.kiota_client_factory import KiotaClientFactory
from kiota_http.middleware import BaseMiddleware, ParametersNameDecodingHandler

from ingest.connectors.sharepoint_settings import SharepointSettings
from policies.errors import ConfigurationError, SourceUnavailable
from policies.secret_files import require_private

TRIES = 3
FIRST_DELAY_S = 0.2
MAX_WAIT_S = 30.0
MAX_DROPPED_BYTES = 65_536
_LATER = frozenset({429, 500, 502, 503, 504, 509})
_CODE = re.compile(r"[A-Za-z0-9_.]{1,64}")
_ENTRA = re.compile(r"AADSTS(\d{4,9})")
_ADVICE = {
    "7000215": "the client secret is wrong (give its value, not its id)",
    "7000222": "the client secret has expired: make a new one in the app registration",
    "700016": "no such application in this directory: see client_id and tenant_id",
    "90002": "no such directory: see tenant_id",
    "900023": "no such directory: see tenant_id",
    "700027": "the certificate is not one of the app registration's, or has expired",
}


class NotPermitted(ConfigurationError):
    """Graph refuses it to this application: 403."""


class NotThere(SourceUnavailable):
    """There is no such thing, or none that the application may see: 404."""


class Misunderstood(SourceUnavailable):
    """Graph takes the request for wrong: 400."""


class Broken(SourceUnavailable):
    """Graph fails over this one request, again and again: 500."""


class Stale(SourceUnavailable):
    """Graph does not know any more where an earlier listing ended: 410."""


def credential(settings: SharepointSettings) -> TokenCredential:
    """Read the secret or the certificate. Raises `ConfigurationError`; nothing of them is in its text."""
    common: dict[str, Any] = {
        "authority": settings.authority,
        # The authority is the operator's choice; asking a public list about it would leave a private cloud.
        "disable_instance_discovery": settings.authority != "https://login.microsoftonline.com",
        "retry_total": TRIES - 1,
        "retry_backoff_factor": FIRST_DELAY_S,
        "retry_backoff_max": MAX_WAIT_S / TRIES,
        "connection_timeout": settings.timeout_s,
        "read_timeout": settings.timeout_s,
    }
    if settings.ca_file is not None:
        common["connection_verify"] = settings.ca_file
    try:
        if settings.client_secret_env is not None:
            secret = _secret("client_secret_env", settings.client_secret_env)
            return ClientSecretCredential(settings.tenant_id, settings.client_id, secret, **common)
        password, certificate = settings.certificate_password_env, Path(settings.certificate_file or "")
        require_private(certificate, "certificate_file")
        return CertificateCredential(
            settings.tenant_id,
            settings.client_id,
            certificate_data=certificate.read_bytes(),
            password=None if password is None else _secret("certificate_password_env", password),
            **common,
        )
    except OSError as error:
        raise ConfigurationError(f"certificate_file: {error.strerror or 'cannot be read'}") from error
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "certificate_file: no PEM or PKCS12 with an RSA private key and this password"
        ) from error


def _secret(setting: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigurationError(f"{setting}: the environment variable {variable} is not set")
    return value


def http_client(settings: SharepointSettings) -> httpx.AsyncClient:
    """Make the client that every request goes through. It follows no redirect. Raises `ConfigurationError`."""
    try:
        tls = ssl.create_default_context(cafile=settings.ca_file)  # a private authority stands for itself alone
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"ca_file: no PEM certificates there: {type(error).__name__}") from error
    client = httpx.AsyncClient(verify=tls, timeout=settings.timeout_s, follow_redirects=False, http2=True)
    pace = _Pace(settings.requests_per_s, settings.concurrency)
    return KiotaClientFactory.create_with_custom_middleware([pace, ParametersNameDecodingHandler()], client=client)


class _Pace(BaseMiddleware):
    """Keeps requests apart and few at a time, tries again where that is worth it, and makes refusals exceptions.

    Where Graph says "later", everything waits, as Microsoft asks. A request waits 30 s in all.
    """

    def __init__(self, requests_per_s: float, concurrency: int) -> None:
        super().__init__()
        self._gap_s = 1 / requests_per_s
        self._places = asyncio.Semaphore(concurrency)
        self._next = self._paused_until = 0.0

    async def send(self, request: httpx.Request, transport: httpx.AsyncBaseTransport) -> httpx.Response:
        async with self._places:
            waited_s = 0.0
            for attempt in range(1, TRIES + 1):
                await self._turn()
                answer = await self._try(request, transport, last=attempt == TRIES)
                if answer is not None and answer.status_code not in _LATER:
                    return answer if answer.status_code < 400 or answer.status_code == 401 else await _refuse(answer)
                asked_s = None if answer is None else _retry_after(answer)
                delay_s = max(asked_s or 0.0, FIRST_DELAY_S * 2 ** (attempt - 1)) * random.uniform(1, 1.25)  # noqa: S311
                waited_s += delay_s
                if answer is not None:
                    if attempt == TRIES or waited_s > MAX_WAIT_S:
                        await _refuse(answer, asked_s)
                    await _drop(answer)
                self._paused_until = max(self._paused_until, time.monotonic() + delay_s)
        raise AssertionError("the last try returns or raises")

    async def _try(
        self, request: httpx.Request, transport: httpx.AsyncBaseTransport, last: bool
    ) -> httpx.Response | None:
        """Send it; none where no connection stood, and there is another try. A timeout is not tried again."""
        try:
            return await super().send(request, transport)
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            if last:
                raise
            return None

    async def _turn(self) -> None:
        """Wait for one's place in the row, and until a pause that was asked for is over."""
        at = self._next = max(time.monotonic(), self._next + self._gap_s)
        while (wait_s := max(at, self._paused_until) - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)


async def _drop(answer: httpx.Response) -> None:
    """Read a short answer that nobody wants, so that its connection serves again; hang up on a long one."""
    size = answer.headers.get("content-length", "")
    with suppress(httpx.HTTPError):
        if size.isdecimal() and int(size) <= MAX_DROPPED_BYTES:
            await answer.aread()
    await answer.aclose()


async def _refuse(answer: httpx.Response, retry_after_s: float | None = None) -> httpx.Response:
    try:
        told = json.loads(await answer.aread())["error"]["code"]
    except (ValueError, KeyError, TypeError, RecursionError, httpx.HTTPError):
        told = ""
    finally:
        await answer.aclose()
    code = told if isinstance(told, str) and _CODE.fullmatch(told) else ""
    raise refusal(answer.status_code, answer.request.url.path, code, retry_after_s)


def refusal(status: int, path: str = "", code: str = "", retry_after_s: float | None = None) -> Exception:
    """What a status means for whoever asked. The text holds no address, id or token."""
    said = f"Microsoft Graph answers {status}{f' ({code})' if code else ''}"
    if status == 401:
        return ConfigurationError(f"{said}: it does not take our token; see tenant_id, client_id and base_url")
    if status == 403:
        return NotPermitted(f"{said}: grant the application {_permission(path)}, with an administrator's consent")
    kind = {400: Misunderstood, 404: NotThere, 410: Stale, 500: Broken}.get(status, SourceUnavailable)
    return kind(said, retry_after_s)


def no_token(error: ClientAuthenticationError) -> Exception:
    """What a refused token means. Entra ID's own text names addresses and ids; only its number is passed on."""
    code = _ENTRA.search(error.message or "")
    if code is None:
        return SourceUnavailable("Microsoft Entra ID gives no token and says no reason")
    advice = _ADVICE.get(code[1], "see tenant_id, client_id and the secret or certificate")
    return ConfigurationError(f"Microsoft Entra ID gives no token (AADSTS{code[1]}): {advice}")


def _permission(path: str) -> str:
    if "/groups/" in path:
        return "GroupMember.Read.All (for expand_groups or group_claim)"
    if "/items/" not in path and "/drives/" not in path and "/users/" in path and not path.endswith("/drive"):
        return "User.ReadBasic.All (for user_claim)"
    if path.endswith("/permissions"):
        return "Sites.FullControl.All, or Sites.Selected with the role fullcontrol on this site, to read who may read"
    return "Sites.Read.All and Files.Read.All, or Sites.Selected with a role on this site"


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds until the request may come again (RFC 9110, 10.2.3): a number, or a date."""
    value = answer.headers.get("retry-after", "")
    try:
        return max(0.0, float(value)) if value.strip()[:1].isdigit() else _seconds_until(parsedate_to_datetime(value))
    except (ValueError, OverflowError):
        return None


def _seconds_until(moment: datetime) -> float:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
