"""Microsoft Graph as one application sees it: requests by address, page by page, and a file's bytes.

msgraph-sdk builds and sends the requests. Their answers are read as JSON here: the SDK's own models take 20 ms of CPU
for each item and each permission (msgraph-sdk 1.65: `Entity` looks 2,500 names up for every object), minutes where a
library has 10,000 files. This module loads the SDK; import it late.
"""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from azure.core.exceptions import AzureError, ClientAuthenticationError
from kiota_abstractions.api_error import APIError
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider

from ingest.connectors.sharepoint_settings import SharepointSettings
from ingest.connectors.sharepoint_transport import NotPermitted, NotThere, credential, http_client, no_token, refusal
from policies.errors import DocumentRejected, SourceUnavailable, TooLarge

T = TypeVar("T")
Json = dict[str, Any]

MAX_REDIRECTS = 3
WHOLE_S = 300.0
"""How long a file's bytes may take."""


class Graph:
    """One application's way to one Graph. It owns an event loop, which `run` turns: one thread at a time.

    Raises `ConfigurationError` for credentials that are not there or cannot be read.
    """

    def __init__(self, settings: SharepointSettings) -> None:
        self._settings = settings
        self._base = urlsplit(settings.base_url)
        self._tokens = AzureIdentityAuthenticationProvider(
            credential(settings), allowed_hosts=[self._base.hostname or ""]
        )
        self._http = http_client(settings)
        # By name, or the type checker would read the SDK's generated modules, of which there are tens of thousands.
        self._adapter = import_module("msgraph.graph_request_adapter").GraphRequestAdapter(self._tokens, self._http)
        self._adapter.base_url = settings.base_url
        self.api = import_module("msgraph.graph_service_client").GraphServiceClient(request_adapter=self._adapter)
        self._loop = asyncio.new_event_loop()
        weakref.finalize(self, _close, self._loop, self._http)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work to its end. Not to be called from a coroutine."""
        return self._loop.run_until_complete(work)

    async def get(self, builder: Any, prefer: str | None = None, **query: Any) -> Json:
        """Ask for what one of the SDK's builders addresses. `query`: `select`, `top`.

        Raises `NotPermitted`, `NotThere`, `Misunderstood`, `Stale`, `ConfigurationError`, `SourceUnavailable`.
        """
        configuration = None
        if query:
            kinds = (kind for name, kind in vars(type(builder)).items() if name.endswith("GetQueryParameters"))
            configuration = RequestConfiguration(query_parameters=next(kinds)(**query))
        request = builder.to_get_request_information(configuration)
        if prefer is not None:
            request.headers.try_add("Prefer", prefer)
        try:
            answer = await self._adapter.send_primitive_async(request, "bytes", {})
        except APIError as error:
            raise refusal(error.response_status_code or 0) from error
        except ClientAuthenticationError as error:
            raise no_token(error) from error
        except (httpx.HTTPError, AzureError) as error:
            raise SourceUnavailable(f"Microsoft Graph cannot be reached: {type(error).__name__}") from error
        return _object(answer)

    async def pages(self, builder: Any, prefer: str | None = None, **query: Any) -> AsyncGenerator[Json, None]:
        """Ask page after page. Raises as `get` does, and `SourceUnavailable` where the pages lead elsewhere."""
        page = await self.get(builder, prefer, **query)
        seen: set[str] = set()
        yield page
        while (link := page.get("@odata.nextLink")) is not None:
            if not self.is_own(link) or link in seen:
                raise SourceUnavailable("a page of Microsoft Graph's leads nowhere")
            seen.add(link)
            page = await self.get(builder.with_url(link), prefer)
            yield page

    async def collect(self, builder: Any, **query: Any) -> list[Any]:
        """Everything on all pages. Raises as `pages` does."""
        async with aclosing(self.pages(builder, **query)) as pages:
            return [value async for page in pages for value in values(page)]

    def is_own(self, link: Any) -> bool:
        """Say whether a link leads to this Graph: it will be followed with a token."""
        try:
            parts = urlsplit(link if isinstance(link, str) else "")
        except ValueError:
            return False
        return (parts.scheme, parts.netloc) == (self._base.scheme, self._base.netloc)

    async def content(self, drive_id: str, item_id: str, max_bytes: int) -> bytes:
        """Give a file's bytes. Graph sends us on to an address that needs no token, and gets none.

        Raises `TooLarge`, `DocumentRejected`, `ConfigurationError`, `SourceUnavailable`.
        """
        place = f"drives/{quote(drive_id, safe='')}/items/{quote(item_id, safe='')}/content"
        url = f"{self._settings.base_url}/{place}"
        try:
            token = await self._tokens.access_token_provider.get_authorization_token(url)
            headers = {"Authorization": f"Bearer {token}"}
            for _ in range(MAX_REDIRECTS + 1):
                request = self._http.build_request("GET", url, headers={"Accept-Encoding": "identity", **headers})
                answer = await self._http.send(request, stream=True)
                try:
                    if not answer.has_redirect_location:
                        async with asyncio.timeout(WHOLE_S):
                            return await _body(answer, max_bytes)
                    url, headers = self._elsewhere(answer), {}  # whose address it is, is whose right it is
                finally:
                    await answer.aclose()
        except NotThere as error:
            raise DocumentRejected("deleted while reading") from error
        except NotPermitted as error:
            if not headers:
                raise SourceUnavailable("the file's address is refused") from error  # it holds for minutes only
            raise DocumentRejected("no permission to read it") from error
        except ClientAuthenticationError as error:
            raise no_token(error) from error
        except TimeoutError as error:
            raise SourceUnavailable(f"the file takes longer than {WHOLE_S:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, AzureError) as error:
            raise SourceUnavailable(f"the file cannot be read: {type(error).__name__}") from error
        raise SourceUnavailable("the file's address leads nowhere")

    def _elsewhere(self, answer: httpx.Response) -> str:
        """Where a redirect leads: over https, but for a Graph on this machine."""
        url = answer.url.join(answer.headers["location"])
        if url.scheme != "https" and (self._base.scheme == "https" or url.scheme != "http"):
            raise SourceUnavailable("the file's address is not private")
        return str(url)


def _close(loop: asyncio.AbstractEventLoop, http: httpx.AsyncClient) -> None:
    """End the connections, and the loop that they live on, when nobody asks any more."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # no other loop runs in this thread
        loop.run_until_complete(http.aclose())
    loop.close()


def values(page: Json) -> list[Any]:
    """The objects of a page. Raises `SourceUnavailable` where there is no list of them."""
    found = page.get("value")
    if not isinstance(found, list):
        raise SourceUnavailable("Microsoft Graph's answer cannot be read")
    return found


def _object(answer: bytes | None) -> Json:
    try:
        found = json.loads(answer or b"")
    except (ValueError, RecursionError) as error:
        raise SourceUnavailable("Microsoft Graph's answer cannot be read") from error
    if not isinstance(found, dict):
        raise SourceUnavailable("Microsoft Graph's answer cannot be read")
    return found


async def _body(answer: httpx.Response, max_bytes: int) -> bytes:
    """Read a body as it comes, so that a large one is refused before it is here."""
    if answer.status_code == 401 and "authorization" in answer.request.headers:
        raise refusal(401)
    if answer.status_code != 200:
        raise SourceUnavailable(f"the file cannot be read: {answer.status_code}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise SourceUnavailable("the file comes packed, which was not asked for")
    body = bytearray()
    size = answer.headers.get("content-length", "")
    if not (size.isdigit() and int(size) > max_bytes):
        async for piece in answer.aiter_raw():
            body += piece
            if len(body) > max_bytes:
                break
        else:
            return bytes(body)
    raise TooLarge(f"the file is larger than {max_bytes / 1_000_000:g} MB")
