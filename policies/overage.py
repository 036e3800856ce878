"""Groups that a token keeps back: Entra ID lists 200 at most in a token, then none at all (groups overage).

They are asked for at Microsoft Graph, by the person's id, page by page to the last one: a list that was cut would
forget the groups by which somebody is denied. The address in the token is never followed; whom to ask stands in the
configuration. Where the answer cannot be had, nobody is let in.
https://learn.microsoft.com/graph/api/user-list-transitivememberof
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

from cachetools import TTLCache

from policies.claims import MAX_NAMES
from policies.errors import RayragError, TokenRejected, Unavailable
from policies.issuers import SERVICE, NameMap
from policies.keys import require_private_channel
from policies.tokens import VerifiedToken

MAX_BODY_BYTES = 4_000_000
MAX_CACHED = 1_000
AT_ONCE = 4
"""Questions to one directory that run side by side, for each replica; more wait, and then are refused."""
WAITING = 4
"""Requests that wait for one of them, or for its answer; more are refused at once: other issuers' tokens have no part
in it, and must find a free thread."""
TRIES = 3
PAUSE_S = 1.0
"""Nobody asks again for so long after a question that failed."""
_STEP_S = 5.0
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_GROUP = "#microsoft.graph.group"
_UNAVAILABLE = "The directory of groups is unavailable."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Directory:
    """An Entra ID tenant and the application that may read it. `secret` gives the application's, whenever asked."""

    tenant: str
    client_id: str
    secret: Callable[[], str]
    authority: str = "https://login.microsoftonline.com"
    graph: str = "https://graph.microsoft.com"


class _Crowded(Unavailable):
    """Enough requests wait for the directory: it is no fault of the directory's."""


class KeptGroups:
    """For each issuer whose tokens may keep groups back, who knows them, and how they are called here."""

    def __init__(self, by_issuer: Mapping[str, tuple[EntraGroups, NameMap]]) -> None:
        self._by_issuer = dict(by_issuer)

    def complete(self, token: VerifiedToken) -> frozenset[str]:
        """Give all groups. Raises `TokenRejected` for a person whom the directory does not know, or `Unavailable`."""
        known = self._by_issuer.get(token.issuer)
        if known is None or token.directory_id is None:
            raise TokenRejected("distributed_claims")
        groups, names = known
        kind = "servicePrincipals" if token.principal.subject.startswith(SERVICE) else "users"
        try:
            return names.named_here(groups.of(token.directory_id, kind))
        except ValueError as error:
            raise TokenRejected("claim_groups") from error


class EntraGroups:
    """Asks Graph for a person's groups, nested ones too, and keeps the answer for `cache_s`. For many threads.

    A question takes `deadline_s` at most, with its retries; several for one person are one. After a failure, or for as
    long as Graph says, there is no next one.
    """

    def __init__(
        self, directory: Directory, *, security_groups_only: bool = False, cache_s: float = 60, deadline_s: float = 10
    ) -> None:
        require_private_channel(directory.authority, "overage.authority")
        require_private_channel(directory.graph, "overage.graph")
        self._directory = directory
        self._security_only = security_groups_only
        self._deadline_s = deadline_s
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._known: TTLCache[str, frozenset[str]] = TTLCache(MAX_CACHED, cache_s, timer=time.monotonic)
        self._asking: dict[str, Future[frozenset[str]]] = {}
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._pause_until = 0.0
        self._token: tuple[str, float] = ("", 0.0)

    def of(self, person: str, kind: str = "users") -> frozenset[str]:
        """Give the ids of all groups of a person. Raises `TokenRejected` or `Unavailable`."""
        if not _ID.fullmatch(person):
            raise TokenRejected("claim_directory_id")
        key = f"{kind}/{person}"
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                return known
            asked = self._asking.get(key)
            if asked is None:
                if time.monotonic() < self._pause_until:
                    raise Unavailable(_UNAVAILABLE)
                mine: Future[frozenset[str]] = Future()
                self._asking[key] = mine
        if asked is not None:
            return self._joined(asked)
        return self._asked(key, mine)

    def _joined(self, asked: Future[frozenset[str]]) -> frozenset[str]:
        with self._among_few():
            try:
                return asked.result(self._deadline_s + _STEP_S)
            except TimeoutError:
                raise Unavailable(_UNAVAILABLE) from None

    @contextmanager
    def _among_few(self) -> Iterator[None]:
        """Wait within. Raises `Unavailable` where enough do."""
        if not self._waiting.acquire(blocking=False):
            raise _Crowded(_UNAVAILABLE)
        try:
            yield
        finally:
            self._waiting.release()

    def _asked(self, key: str, mine: Future[frozenset[str]]) -> frozenset[str]:
        try:
            found = self._ask_in_turn(key)
        except Exception as error:
            with self._lock:
                self._asking.pop(key)
                if not isinstance(error, TokenRejected | _Crowded):
                    self._pause_until = max(self._pause_until, time.monotonic() + PAUSE_S)
            failure = error if isinstance(error, RayragError) else Unavailable(_UNAVAILABLE)
            mine.set_exception(failure)
            if failure is error:
                raise
            _log.error("groups could not be asked for: %s", type(error).__name__)
            raise failure from error
        with self._lock:
            self._known[key] = found
            self._asking.pop(key)
        mine.set_result(found)
        return found

    def _ask_in_turn(self, key: str) -> frozenset[str]:
        until = time.monotonic() + self._deadline_s
        if not self._free.acquire(blocking=False):
            with self._among_few():
                if not self._free.acquire(timeout=self._deadline_s / 2):
                    raise Unavailable(_UNAVAILABLE)
        try:
            return self._ask(key, until)
        finally:
            self._free.release()

    def _ask(self, key: str, until: float) -> frozenset[str]:
        found: set[str] = set()
        address: str | None = (
            f"{self._directory.graph}/v1.0/{quote(key)}/transitiveMemberOf?$select=id,securityEnabled&$top=999"
        )
        while address is not None:
            page = self._read(address, until)
            found |= self._groups(page)
            if len(found) > MAX_NAMES:
                _log.error("a person is in more than %d groups", MAX_NAMES)
                raise Unavailable(_UNAVAILABLE)
            address = self._next(page)
        return frozenset(found)

    def _groups(self, page: Mapping[str, Any]) -> set[str]:
        """Take the groups' ids: directory roles and administrative units are listed beside them."""
        entries = page.get("value")
        if not isinstance(entries, list):
            raise self._unreadable("no list")
        found = set()
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or "@odata.type" not in entry:
                raise self._unreadable("an entry without id or type")
            # Of a group that the application may not read, Graph gives the id alone: it is one all the same.
            mail_only = self._security_only and entry.get("securityEnabled") is False
            if entry["@odata.type"] == _GROUP and not mail_only:
                found.add(entry["id"])
        return found

    def _next(self, page: Mapping[str, Any]) -> str | None:
        address = page.get("@odata.nextLink")
        if address is None:
            return None
        if not isinstance(address, str) or urlsplit(address)[:2] != urlsplit(self._directory.graph)[:2]:
            raise self._unreadable("its next page is elsewhere")
        return address

    def _unreadable(self, why: str) -> Unavailable:
        _log.error("%s gave an answer that cannot be read: %s", urlsplit(self._directory.graph).hostname, why)
        return Unavailable(_UNAVAILABLE)

    # ---- HTTP

    def _read(self, address: str, until: float) -> dict[str, Any]:
        """Get one page. Raises `TokenRejected` where Graph does not know the person, `Unavailable` for all else."""
        renewed = False
        tries = 0
        while True:
            token = self._app_token(until)
            status, wait_s, body = self._send("GET", address, until, {"authorization": f"Bearer {token}"})
            if status == 200:
                return body
            if status == 404:
                raise TokenRejected("unknown_person")
            if status == 401 and not renewed:
                renewed, self._token = True, ("", 0.0)
                continue
            tries += 1
            if status in (400, 401, 403) or tries == TRIES:
                self._give_up(address, status, wait_s)
            self._wait(wait_s if wait_s is not None else 0.2 * 2**tries, until)

    def _app_token(self, until: float) -> str:
        token, expires_at = self._token
        if time.monotonic() < expires_at:
            return token
        directory = self._directory
        address = f"{directory.authority}/{quote(directory.tenant)}/oauth2/v2.0/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": directory.client_id,
            "client_secret": directory.secret(),
            "scope": f"{directory.graph}/.default",
        }
        for tries in range(1, TRIES + 1):
            status, wait_s, body = self._send("POST", address, until, {}, form)
            given, lives_s = body.get("access_token"), body.get("expires_in")
            if status == 200 and isinstance(given, str) and isinstance(lives_s, int) and lives_s > 0:
                self._token = given, time.monotonic() + max(lives_s - 60, lives_s / 2)
                return given
            if 400 <= status < 429 or tries == TRIES:
                self._give_up(address, status, wait_s)
            self._wait(wait_s if wait_s is not None else 0.2 * 2**tries, until)
        raise AssertionError("the last try gives up")

    def _give_up(self, address: str, status: int, wait_s: float | None) -> NoReturn:
        hint = {403: "; the application needs User.Read.All, consented", 401: "; check the application's secret"}
        _log.error("%s answered %d%s", urlsplit(address).hostname, status, hint.get(status, ""))
        if wait_s is not None:
            with self._lock:
                self._pause_until = max(self._pause_until, time.monotonic() + min(wait_s, 60.0))
        raise Unavailable(_UNAVAILABLE)

    def _wait(self, seconds: float, until: float) -> None:
        if time.monotonic() + seconds >= until:
            self._give_up(self._directory.graph, 504, seconds)
        time.sleep(seconds)

    def _send(
        self, method: str, address: str, until: float, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> tuple[int, float | None, dict[str, Any]]:
        """Give the status (599 where there was no answer), how long to wait before the next try, and the JSON."""
        import httpx2

        body = bytearray()
        plain = {"accept-encoding": "identity", "accept": "application/json", **headers}
        timeout_s = max(0.05, min(_STEP_S, until - time.monotonic()))
        try:
            with (
                httpx2.Client(verify=self._tls, timeout=timeout_s) as client,
                client.stream(method, address, headers=plain, data=form) as answer,
            ):
                for piece in answer.iter_raw():
                    body += piece
                    if len(body) > MAX_BODY_BYTES or time.monotonic() > until:
                        return 599, None, {}
                wait_s = _seconds(answer.headers.get("retry-after"))
                if answer.status_code != 200:
                    return answer.status_code, wait_s, {}
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            _log.warning("%s: %s", urlsplit(address).hostname, type(error).__name__)
            return 599, None, {}
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return 599, None, {}
        return (200, None, content) if isinstance(content, dict) else (599, None, {})


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None
