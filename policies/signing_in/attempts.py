"""How many passwords may be tried from one network address; `policies.limits` counts by user name and by directory.

Each replica counts for itself, in memory. What counts is the attempt, before anybody is asked whether it holds, so that
many at once are bounded too.
"""

from __future__ import annotations

import math
import time
import unicodedata
from typing import Any

from policies.errors import Overloaded
from policies.limits import Rate


class AddressAttempts:
    """Counts over a moving window. Without a `rate`, nothing is counted."""

    def __init__(self, rate: Rate | None) -> None:
        from limits import RateLimitItemPerSecond
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._counts: Any = MovingWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerSecond(rate.amount, rate.seconds) if rate else None

    def take(self, address: str) -> None:
        """Count an attempt. Raises `Overloaded`, with the seconds to wait, for one too many."""
        if self._item is not None and not self._counts.hit(self._item, address):
            reset = self._counts.get_window_stats(self._item, address).reset_time
            raise Overloaded("too many attempts to sign in", max(1, math.ceil(reset - time.time())))


def counted_name(username: str) -> str:
    """Give the one spelling under which attempts are counted: directories ignore case, width and white space."""
    return "".join(unicodedata.normalize("NFKC", username).casefold().split())
