"""How much one person and one tenant may ask for: requests in a time by kind of work, and a model's tokens in a day.

These are no rights: who is refused may come again, and nothing is hidden by them. So where the shared counts (a Redis)
cannot be had, each process counts for itself, says so, and goes on; a check of rights would refuse.

Requests are counted in a sliding window, which forgets little by little, tokens in a fixed one, which starts with the
first token spent: an answer's price is known after it, so that the last one may go over the budget.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Concatenate, ParamSpec, TypeVar

from policies.errors import ConfigurationError, Overloaded
from policies.principals import Principal

RETRY_SHARED_S = 5.0
"""How long the shared counts are left alone after they failed: a request must not wait for them again and again."""
SHARED_TIMEOUT_S = 0.25
CHARACTERS_PER_TOKEN = 4
"""For models that do not say what they used: https://help.openai.com/en/articles/4936856, for English text."""
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(rf"([1-9][0-9]{{0,11}})/(?:([1-9][0-9]{{0,4}}) )?({'|'.join(_SECONDS)})s?")

_T = TypeVar("_T")
_P = ParamSpec("_P")
log = logging.getLogger(__name__)


class Work(StrEnum):
    """Kinds of work that are counted apart."""

    ASK = "ask"
    UPLOAD = "upload"
    SIGN_IN = "sign_in"
    OTHER = "other"


_WORK = {"query": Work.ASK, "retrieve": Work.ASK, "upload": Work.UPLOAD}
_SPENDS = frozenset({"query"})
"""The actions that may spend a model's tokens: refused where the budget is used up."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds."""

    amount: int
    seconds: int

    @classmethod
    def of(cls, text: str) -> Rate:
        """Read `60/minute` or `500/2 hours`. Raises `ValueError`."""
        found = _RATE.fullmatch(text)
        if found is None:
            raise ValueError(f"'{text[:40]}' is no rate: write 60/minute or 500/2 hours (second, minute, hour, day)")
        return cls(int(found[1]), int(found[2] or 1) * _SECONDS[found[3]])


@dataclass(frozen=True, slots=True)
class Rates:
    """What holds for one person and for all of a tenant together; several hold at once, none: no limit."""

    person: tuple[Rate, ...] = ()
    tenant: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True)
class Allowance:
    """All limits: requests by kind of work, and tokens."""

    requests: Mapping[Work, Rates] = field(default_factory=dict)
    tokens: Rates = Rates()


class Limits:
    """Counts and refuses. One for each process; several share their counts where there is a Redis.

    `alone()` is called whenever this process counts for itself although it has a Redis.
    """

    def __init__(
        self,
        allowance: Allowance,
        redis_url: str | None = None,
        alone: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowance = allowance
        self._own = _Counts("memory://")
        self._shared = _shared_counts(redis_url) if redis_url else None
        self._alone = alone
        self._clock = clock
        self._retry_at = -math.inf
        self._lost = False
        self._lock = threading.Lock()

    def __call__(self, caller: Principal, action: str) -> None:
        """Count a request. Raises `Overloaded` where it is one too many, or the budget of tokens is used up."""
        work = _WORK.get(action, Work.OTHER)
        person, tenant = _key("person", caller.tenant, caller.subject), _key("tenant", caller.tenant)
        if action in _SPENDS:
            self._require_budget(person, tenant)
        self._count(work, person, tenant)

    def sign_in(self, place: str, name: str | None) -> None:
        """Count an attempt to sign in as `name` at `place`, such as a directory. Raises `Overloaded`.

        To be called before the password is looked at, and for names that nobody has, too. `name`: None where no name
        is known yet, as at an identity provider; then the place alone counts.
        """
        self._count(Work.SIGN_IN, None if name is None else _key("person", place, name), _key("tenant", place))

    def charge(self, caller: Principal, tokens: int) -> None:
        """Take an answer's tokens from the budgets, over their end where it cost more than was left."""
        if tokens <= 0:
            return
        for rate in self._allowance.tokens.person:
            self._with_counts(_Counts.spend, rate, _key("person", caller.tenant, caller.subject), tokens)
        for rate in self._allowance.tokens.tenant:
            self._with_counts(_Counts.spend, rate, _key("tenant", caller.tenant), tokens)

    def _require_budget(self, person: str, tenant: str) -> None:
        for key, rates in ((person, self._allowance.tokens.person), (tenant, self._allowance.tokens.tenant)):
            for rate in rates:
                wait_s = self._with_counts(_Counts.budget_wait_s, rate, key)
                if wait_s is not None:
                    raise Overloaded("the budget of model tokens is used up", _whole(wait_s))

    def _count(self, work: Work, person: str | None, tenant: str) -> None:
        rates = self._allowance.requests.get(work, Rates())
        # The person first: who is over their own limit takes nothing from their colleagues.
        for key, each in ((person, rates.person), (tenant, rates.tenant)):
            for rate in each if key is not None else ():
                wait_s = self._with_counts(_Counts.take, rate, f"{work}:{key}")
                if wait_s is not None:
                    raise Overloaded("too many requests", _whole(wait_s))

    def _with_counts(self, use: Callable[Concatenate[_Counts, _P], _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        from limits.errors import StorageError

        if self._shared is None:
            return use(self._own, *args, **kwargs)
        if self._clock() >= self._retry_at:
            try:
                found = use(self._shared, *args, **kwargs)
            except StorageError as error:
                self._lose(error)
            else:
                self._find()
                return found
        self._alone()
        return use(self._own, *args, **kwargs)

    def _lose(self, error: Exception) -> None:
        with self._lock:
            self._retry_at = self._clock() + RETRY_SHARED_S
            first, self._lost = not self._lost, True
        if first:
            reason = type(error.__cause__ or error).__name__
            log.error("limits are counted by each process for itself: their Redis does not answer (%s)", reason)

    def _find(self) -> None:
        if self._lost:
            with self._lock:
                self._lost = False
            log.warning("limits are counted for all processes together again")


class _Counts:
    """Counts in one place. `uri` as the library `limits` spells it."""

    def __init__(self, uri: str, **options: Any) -> None:
        from limits.storage import storage_from_string
        from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

        self._storage: Any = storage_from_string(uri, wrap_exceptions=True, **options)
        self._windows = SlidingWindowCounterRateLimiter(self._storage)
        self._budgets = FixedWindowRateLimiter(self._storage)

    def take(self, rate: Rate, key: str) -> float | None:
        """Count one more; gives the seconds to wait where there is no room."""
        item = _item(rate)
        if self._windows.hit(item, key):
            return None
        before, before_s, now, now_s = self._storage.get_sliding_window(item.key_for(key), rate.seconds)
        if now < rate.amount and before:  # what the window before still weighs must shrink to make room for one
            return float(before_s - (rate.amount - now) * rate.seconds / before)
        return float(now_s % rate.seconds)

    def spend(self, rate: Rate, key: str, amount: int) -> None:
        """Count `amount` more, room or not."""
        self._budgets.hit(_item(rate), "tokens", key, cost=amount)

    def budget_wait_s(self, rate: Rate, key: str) -> float | None:
        """Give the seconds to wait where everything is spent, else None."""
        item = _item(rate)
        if self._budgets.test(item, "tokens", key):
            return None
        return self._budgets.get_window_stats(item, "tokens", key).reset_time - time.time()


def _shared_counts(url: str) -> _Counts:
    try:
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigurationError("limits.redis_url: install rayrag[redis]") from error
    options: dict[str, Any] = {"socket_timeout": SHARED_TIMEOUT_S, "socket_connect_timeout": SHARED_TIMEOUT_S}
    try:
        return _Counts(url, key_prefix="rayrag", retry=Retry(NoBackoff(), 0), **options)
    except (ValueError, TypeError, AttributeError) as error:  # its text may hold the password
        raise ConfigurationError(f"limits.redis_url: no Redis address ({type(error).__name__})") from None


def _item(rate: Rate) -> Any:
    from limits import RateLimitItemPerSecond

    return RateLimitItemPerSecond(rate.amount, rate.seconds)


def _key(kind: str, *names: str) -> str:
    """Name a counter: no two people share one, and no name of a person stands in a Redis."""
    return f"{kind}:{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]}"


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds + 1e-3))
