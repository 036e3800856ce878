"""What was signed and does not hold any more: by token, by person, by tenant and time.

Each process keeps the list as it read it last. It asks again every few seconds, and waits for the answer once the list
is older than that; where there has been none for too long, nobody passes.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from policies.errors import RayragError, TokenRejected, Unavailable

if TYPE_CHECKING:
    from policies.tokens import VerifiedToken

FRESH_S = 2.0
"""A list that was read less long ago is taken as it is."""
WAIT_S = 2.0
"""How long a request waits for a list that is not fresh; then the older one serves, up to `STALE_S`."""
STALE_S = 30.0
"""Nobody passes on a list that is older. What is revoked is therefore refused everywhere after at most this time."""
KEEP_S = 2_678_400.0
"""How long an entry for a person or a tenant is kept, 31 days: no token and no session lives longer."""

Kind = Literal["token", "person", "tenant"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Revocation:
    """What was issued by `before` (Unix seconds; None: whenever) does not hold. Spellings as in `Principal`.

    `kind` says what `name` is: a token's id (`tenant` may then be empty: any), a person's subject, or nothing.
    """

    kind: Kind
    tenant: str
    name: str = ""
    before: float | None = None


class Revoked:
    """A list of revocations that is quick to ask. `skew_s`: how far the clocks of issuers but `ours` may be ahead."""

    def __init__(self, entries: Iterable[Revocation] = (), skew_s: float = 0.0, ours: Collection[str] = ()) -> None:
        self._skew_s = skew_s
        self._ours = frozenset(ours)
        self._tokens: set[tuple[str, str]] = set()
        self._before: dict[tuple[str, str, str], float] = {}
        for entry in entries:
            if entry.kind == "token":
                self._tokens.add((entry.tenant, entry.name))
                continue
            key = entry.kind, entry.tenant, entry.name
            before = math.inf if entry.before is None else entry.before
            self._before[key] = max(before, self._before.get(key, -math.inf))

    def why(self, token: VerifiedToken) -> Kind | None:
        """Say by what a token is revoked; None where it is not."""
        tenant, subject = token.principal.tenant, token.principal.subject
        if token.token_id is not None and not self._tokens.isdisjoint({("", token.token_id), (tenant, token.token_id)}):
            return "token"
        # A token that says it was issued a moment after may come from a clock that is ahead.
        issued_at = token.issued_at - (0.0 if token.issuer in self._ours else self._skew_s)
        if issued_at <= self._before.get(("person", tenant, subject), -math.inf):
            return "person"
        if issued_at <= self._before.get(("tenant", tenant, ""), -math.inf):
            return "tenant"
        return None


class RevocationSource(Protocol):
    """Where the list is kept."""

    def version(self) -> int:
        """Give a number that every change raises. Raises `Unavailable`."""
        ...

    def entries(self) -> Sequence[Revocation]:
        """Give all that matter still. Raises `Unavailable`."""
        ...


class Revocations:
    """The list as this process knows it. Safe to share between threads."""

    def __init__(
        self,
        source: RevocationSource,
        skew_s: float = 0.0,
        ours: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        wait_s: float = WAIT_S,
    ) -> None:
        self._source = source
        self._skew_s, self._ours = skew_s, frozenset(ours)
        self._clock = clock
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._revoked = Revoked()
        self._version: int | None = None
        self._as_of = -math.inf
        self._changes = 0
        self._reading: threading.Event | None = None

    def require_valid(self, token: VerifiedToken) -> None:
        """Raise `TokenRejected` for a token that was revoked, `Unavailable` where that cannot be known."""
        for _ in range(2):  # the first may have begun before the last change
            if self._age() > FRESH_S:
                self._read_again().wait(self._wait_s)
        if self._age() > STALE_S:
            raise Unavailable("The list of revocations cannot be read.")
        why = self._revoked.why(token)
        if why is not None:
            raise TokenRejected(f"revoked_{why}")

    def forget(self) -> None:
        """Have the next request read the list: something was just revoked here."""
        with self._lock:
            self._changes += 1
            self._as_of = min(self._as_of, self._clock() - 2 * FRESH_S)

    def _age(self) -> float:
        return self._clock() - self._as_of

    def _read_again(self) -> threading.Event:
        """Start to read, or join who does."""
        with self._lock:
            if self._reading is None:
                self._reading = threading.Event()
                threading.Thread(target=self._read, args=(self._reading,), name="revocations", daemon=True).start()
            return self._reading

    def _read(self, done: threading.Event) -> None:
        with self._lock:
            as_of, changes = self._clock(), self._changes
        try:
            # Before the entries: a change between the two is read again.
            version = self._source.version()
            if version != self._version:
                self._revoked = Revoked(self._source.entries(), self._skew_s, self._ours)
                self._version = version
            with self._lock:
                if changes == self._changes:
                    self._as_of = as_of
        except RayragError as error:
            _log.warning("the list of revocations could not be read: %s", error.detail)
        except Exception:  # noqa: BLE001 - whatever it was, the list grows old, and nobody passes then
            _log.exception("the list of revocations could not be read")
        finally:
            with self._lock:
                self._reading = None
            done.set()
