"""How Confluence is asked: paced, with few retries, by one account, and never anywhere else with its token.

Paths are joined to the configured address; of what Confluence answers with, only the query of a `next` link and the
path of a download are ever used. A redirection is followed for downloads only (Cloud hands out files from its media
service), over https, and without the token once it leads to another host.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from ingest.connectors.confluence_answers import Broken, Row, capped, decoded, next_query, origin, retry_after, rows_of
from ingest.connectors.confluence_settings import ConfluenceSettings, is_loopback
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable

if TYPE_CHECKING:
    from requests import Response

ATTEMPTS = 4
FIRST_WAIT_S = 0.25
MAX_WAIT_S = 30.0
"""A call waits this long in all before it says "later" to whoever called."""
MAX_WALKS = 4
MAX_REDIRECTS = 5
DOWNLOAD_S = 900.0
_LATER = frozenset({429, 500, 502, 503, 504})
HIDDEN = frozenset({403, 404})
"""Not there, or not for this account: Confluence does not always tell the two apart."""

T = TypeVar("T")
Params = Mapping[str, Any]


class Faulty(SourceUnavailable):
    """Confluence fails over this one question, again and again: 500, or an answer that is no JSON."""


class Hidden(Exception):
    """A listing that is not there, or not for the account."""


class ConfluenceHttp:
    """One account's way to one Confluence. Connects with its first request."""

    def __init__(self, settings: ConfluenceSettings) -> None:
        self._settings = settings
        self._opened: Any = None
        self._free_at = 0.0
        self.requests = 0
        self.web_base: Any = None
        """The address that Confluence last gave itself."""

    def json(self, path: str, params: Params | None = None, absent: frozenset[int] = frozenset()) -> Any:
        """Get a JSON answer; none where its status is one of `absent`."""
        answer = self._retried(lambda: self._request("GET", path, params, None), decoded, absent)
        links = answer.get("_links") if isinstance(answer, dict) else None
        if isinstance(links, dict) and "base" in links:
            self.web_base = links["base"]
        return answer

    def post(self, path: str, body: Any, absent: frozenset[int] = frozenset()) -> Any:
        """Ask a question that is put as JSON."""
        return self._retried(lambda: self._request("POST", path, None, body), decoded, absent)

    def is_public(self, path: str) -> bool:
        """Say whether a request without any account is answered there."""
        import requests

        def send() -> Response:
            with requests.Session() as session:
                session.auth = _unsigned
                session.verify = self._verify
                return session.get(self._url(path), timeout=self._settings.timeout_s, allow_redirects=False)

        return self._retried(send, lambda _: True, frozenset(range(300, 429)) | frozenset(range(430, 500))) is True

    def cursor_rows(self, path: str, params: Params, absent: frozenset[int] = frozenset()) -> Iterator[Row]:
        """Go through a listing page by page, by cursor: what comes and goes meanwhile shifts nothing.

        Raises `Hidden` where its status is one of `absent`.
        """
        asked, cursors = dict(params), set()
        while True:
            answer = self.json(path, asked, absent)
            if answer is None:
                raise Hidden
            yield from rows_of(answer)
            following = next_query(answer)
            if following is None:
                return
            cursor = following.get("cursor")
            if not cursor or cursor in cursors:
                raise SourceUnavailable("Confluence goes round in circles in a listing")
            cursors.add(cursor)
            asked["cursor"] = cursor

    def offset_rows(
        self,
        path: str,
        params: Params,
        absent: frozenset[int] = frozenset(),
        key: Callable[[Row], Any] = lambda row: row.get("id"),
    ) -> list[Row] | None:
        """Read a whole listing that is paged by `start`; none where its status is one of `absent`.

        What goes from an earlier page moves everything after it up by one, and a row would be missed. So each page
        begins with the last row of the one before; where it does not, the listing has moved and is read again. It
        holds when nothing moved, or when two readings were alike (Confluence leaves out what the account may not see).
        """
        before: list[Any] | None = None
        for _ in range(MAX_WALKS):
            walked = self._walk(path, params, absent, key)
            if walked is None:
                return None
            rows, smooth = walked
            ids = [key(row) for row in rows]
            if smooth or ids == before:
                return rows
            before = ids
        raise SourceUnavailable("what Confluence lists moved again and again while it was read", 60.0)

    def _walk(
        self, path: str, params: Params, absent: frozenset[int], key: Callable[[Row], Any]
    ) -> tuple[list[Row], bool] | None:
        rows: list[Row] = []
        smooth, start = True, 0
        while True:
            answer = self.json(path, {**params, "start": start}, absent)
            if answer is None:
                return None
            found = rows_of(answer)
            if rows:
                met = bool(found) and key(found[0]) == key(rows[-1])
                smooth &= met
                found = found[1:] if met else found
            rows += found
            following = next_query(answer)
            if following is None:
                return rows, smooth
            onward = int(following["start"]) if str(following.get("start", "")).isdecimal() else 0
            if onward - 1 <= start:
                raise SourceUnavailable("Confluence goes round in circles in a listing")
            start = onward - 1

    def read(self, path: str, max_bytes: int, params: Params | None = None) -> bytes:
        """Give the bytes that lie at a path. Raises `TooLarge`, and `DocumentRejected` where they are gone."""
        data = self._retried(
            lambda: self._request("GET", path, params, None, stream=True),
            lambda response: self._body(response, max_bytes),
            HIDDEN,
        )
        if data is None:
            raise DocumentRejected("deleted while reading, or not for this account")
        return bytes(data)

    # ---- one request

    def _request(self, method: str, path: str, params: Params | None, body: Any, stream: bool = False) -> Response:
        client = self._client
        if stream:
            response: Response = client.session.get(
                self._url(path),
                params=params,
                stream=True,
                timeout=self._settings.timeout_s,
                allow_redirects=False,
                headers={"Accept": "*/*"},
            )
            return response
        answer: Response = client.request(
            method, path, params=params, data=body, advanced_mode=True, allow_redirects=False
        )
        return answer

    def _retried(self, send: Callable[[], Response], take: Callable[[Response], T], absent: frozenset[int]) -> T | None:
        from requests import exceptions

        waited, wanted, detail = 0.0, None, ""
        kind: type[SourceUnavailable] = SourceUnavailable
        for attempt in range(ATTEMPTS):
            self._pace()
            try:
                response = send()
                with closing(response):
                    if response.status_code in absent:
                        return None
                    if response.status_code not in _LATER:
                        self._refuse(response.status_code)
                        return take(response)
                    wanted, detail = retry_after(response), f"answered {response.status_code}"
                    kind = Faulty if response.status_code == 500 else SourceUnavailable
            except exceptions.SSLError as error:
                raise ConfigurationError("Confluence's certificate does not hold: see ca_file") from error
            except exceptions.Timeout:
                wanted, detail, kind = None, "did not answer in time", SourceUnavailable
            except Broken as error:
                wanted, detail, kind = None, str(error), Faulty
            except ValueError as error:  # a URL or a header that cannot be sent
                raise ConfigurationError("an address or a token of Confluence cannot be used as it is") from error
            except exceptions.RequestException:
                wanted, detail, kind = None, "does not answer", SourceUnavailable
            pause = max(wanted or 0.0, FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            waited += pause
            if attempt + 1 == ATTEMPTS or waited > MAX_WAIT_S:
                break
            time.sleep(pause)
        raise kind(f"Confluence {detail}", wanted)

    def _refuse(self, status: int) -> None:
        if status < 300:
            return
        if status in (301, 302, 303, 307, 308):
            return  # looked at by whoever reads the answer
        if status == 401:
            raise ConfigurationError(f"Confluence does not take the credentials (see {self._settings.token_env})")
        if status in HIDDEN:
            raise ConfigurationError("the account has no permission there, or url and flavour do not fit")
        raise ConfigurationError(f"Confluence refuses a request ({status}): url and flavour may not fit")

    def _body(self, response: Response, max_bytes: int) -> bytes:
        """Read a body as it comes, following redirections, for no longer and no further than it may be."""
        own = self._settings.base_url
        url, hops = response.url, 0
        ends_at = time.monotonic() + DOWNLOAD_S
        while response.is_redirect:
            hops += 1
            url = urljoin(url, response.headers["location"])
            if hops > MAX_REDIRECTS or "/login" in urlsplit(url).path.lower():
                raise ConfigurationError("Confluence leads to a sign-in page instead of a file")
            if urlsplit(url).scheme != "https" and not (is_loopback(own) and is_loopback(url)):
                raise ConfigurationError("Confluence leads to an address that is not https")
            response.close()
            response = self._followed(url)
        with closing(response):
            if response.status_code in _LATER:
                raise Broken(f"answered {response.status_code}")
            if response.status_code >= 300:
                raise DocumentRejected("deleted while reading, or not for this account")
            return capped(response, max_bytes, ends_at)

    def _followed(self, url: str) -> Response:
        """Ask for where a redirection leads: with the account at home, without it anywhere else."""
        import requests

        if origin(url) == origin(self._settings.base_url):
            session, kept = self._client.session, True
        else:
            session, kept = requests.Session(), False
            session.auth, session.verify = _unsigned, self._verify
        response: Response = session.get(
            url, stream=True, timeout=self._settings.timeout_s, allow_redirects=False, headers={"Accept": "*/*"}
        )
        if not kept:
            session.cookies.clear()
        return response

    def _pace(self) -> None:
        now = time.monotonic()
        if now < self._free_at:
            time.sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + 1.0 / self._settings.requests_per_s
        self.requests += 1

    def _url(self, path: str) -> str:
        return f"{self._settings.base_url}/{path.lstrip('/')}"

    @property
    def _verify(self) -> bool | str:
        return self._settings.ca_file or True

    @property
    def _client(self) -> Any:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Any:
        try:
            from atlassian import ConfluenceCloud, ConfluenceServer
        except ImportError as error:
            raise ConfigurationError("Confluence needs a library: pip install 'rayrag[confluence]'") from error
        settings = self._settings
        token = os.environ.get(settings.token_env, "").strip()
        if not token:
            raise ConfigurationError(f"the environment variable {settings.token_env} must hold Confluence's token")
        if not token.isprintable() or not token.isascii():
            raise ConfigurationError(f"what {settings.token_env} holds is no token")
        if settings.ca_file is not None and not os.path.isfile(settings.ca_file):
            raise ConfigurationError(f"ca_file: {settings.ca_file} is no file")
        signed = {"username": settings.username, "password": token} if settings.username else {"token": token}
        client = (ConfluenceCloud if settings.flavour == "cloud" else ConfluenceServer)(
            settings.base_url,
            timeout=settings.timeout_s,
            verify_ssl=self._verify,
            backoff_and_retry=False,
            retry_with_header=False,  # it would sleep for as long as it is told to
            **signed,
        )
        client.session.verify = self._verify
        return client


def _unsigned(request: Any) -> Any:
    """Sign nothing, not even from `.netrc`."""
    return request
