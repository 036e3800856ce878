"""One exception class per decision that a caller makes.

Every constructor argument reaches `super().__init__`: an exception crosses Ray processes by pickling its
`args`, and loses its type otherwise. `deployments/problems.py` is the only table from these to HTTP.
"""

from __future__ import annotations


class RayragError(Exception):
    """Base of all errors that rayrag raises on purpose. `detail` is safe to show to the caller."""

    recorded = False
    """Whether the audit record has a line of its own for this one."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class Unauthenticated(RayragError):
    """No token, or one that does not hold."""


class TokenRejected(Unauthenticated):
    """A token that does not hold. `detail` is always the same; `reason`, one word, is for the operator alone."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, reason)
        self.detail = "A valid bearer token is required."
        self.reason = reason


class SignInRefused(Unauthenticated):
    """A sign-in, or a refresh, that does not hold. `reason`, one word, is for the record alone."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, reason)
        self.detail = "This sign-in does not hold."
        self.reason = reason


class BadSignature(RayragError):
    """An event whose signature does not hold, or that nobody takes: the two are never told apart."""


class Forbidden(RayragError):
    """The caller is known and lacks the permission."""


class NotFound(RayragError):
    """Unknown, or not visible to this caller: the two are never told apart."""


class Conflict(RayragError):
    """The state changed under the request."""


class Held(Conflict):
    """A legal hold, or a rule that keeps a record unchanged, stands against it."""


class TooLarge(RayragError):
    """The request or the document is over its limit."""


class HeadersTooLarge(TooLarge):
    """The path, the query and the headers together are over their limit."""


class UnsupportedType(RayragError):
    """No parser takes this kind of document."""


class ContentBlocked(RayragError):
    """Refused by policy."""


class InvalidRequest(RayragError):
    """The request is well-formed JSON but asks for something that does not exist."""


class Overloaded(RayragError):
    """Try again after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        Exception.__init__(self, detail, retry_after_s)
        self.detail = detail
        self.retry_after_s = retry_after_s


class Unavailable(RayragError):
    """A part that the request cannot do without is down (store, ledger, audit, identity provider)."""


class DocumentRejected(RayragError):
    """A document cannot be indexed; the reason goes to the report and the dead letters."""


class SourceUnavailable(RayragError):
    """A source cannot be listed or read; nothing of it is deleted. It may have said when to come again."""

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        Exception.__init__(self, detail, retry_after_s)
        self.detail = detail
        self.retry_after_s = retry_after_s


class ConfigurationError(RayragError):
    """A start-up error: names the key's path and what is allowed."""


class RightsUnreadable(ConfigurationError):
    """Who may read a source, or what lies below one of its ids, cannot be told: nobody may, until it can be told again.

    `below` is how the ids begin; empty: the whole source.
    """

    def __init__(self, detail: str, below: str = "") -> None:
        Exception.__init__(self, detail, below)
        self.detail = detail
        self.below = below
