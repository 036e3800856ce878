"""From a bearer token to a caller, in one order: token, revocations, groups kept elsewhere, nested groups, clearance.

Each step adds or refuses. None passes on less than it was given, and none is done without: where a step cannot be
taken now, nobody is let in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from policies.errors import RayragError, TokenRejected, Unauthenticated, Unavailable
from policies.labels import Label
from policies.principals import Principal
from policies.tokens import TokenVerifier, VerifiedToken

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Revocations(Protocol):
    """Knows which tokens hold no longer."""

    def require_valid(self, token: VerifiedToken) -> None:
        """Raise `Unauthenticated` for a token that was revoked, `Unavailable` where that cannot be known."""
        ...


class KeptGroups(Protocol):
    """Knows the groups that a token keeps elsewhere."""

    def complete(self, token: VerifiedToken) -> frozenset[str]:
        """Give all of them, as they are called here. Raise `Unauthenticated`, or `Unavailable`."""
        ...


class GroupDirectory(Protocol):
    """Knows which groups are in which."""

    def expand(self, tenant: str, groups: frozenset[str], subject: str) -> frozenset[str]:
        """Give these groups, those of the person, and all that any of them is in. Raise `Unavailable`."""
        ...


class Clearances(Protocol):
    """Knows how sensitive a document a caller may see."""

    def clearance(self, principal: Principal) -> Label:
        """Give the highest label."""
        ...


class Identity:
    """Says who calls: the guard's verifier. `verify` may wait for other services: call it in a thread.

    A step without its part is one that is not configured: without `revocations` nothing is ever revoked, without
    `kept_groups` a token that keeps groups elsewhere is refused, without `directory` groups are those of the token, and
    without `clearances` everybody has the default one.
    """

    def __init__(
        self,
        tokens: TokenVerifier,
        revocations: Revocations | None = None,
        kept_groups: KeptGroups | None = None,
        directory: GroupDirectory | None = None,
        clearances: Clearances | None = None,
    ) -> None:
        self._tokens = tokens
        self._revocations = revocations
        self._kept_groups = kept_groups
        self._directory = directory
        self._clearances = clearances

    def verify(self, token: str) -> Principal:
        """Check everything and say who calls. Raises `Unauthenticated` or `Unavailable`, and nothing else."""
        verified = self._tokens.verify(token)
        if self._revocations is not None:
            _asked("revocations", self._revocations.require_valid, verified)
        who = replace(verified.principal, groups=self._groups(verified))
        if self._clearances is not None:
            clearance = _asked("clearance", self._clearances.clearance, who)
            who = replace(who, clearance=clearance)
        return who

    def _groups(self, verified: VerifiedToken) -> frozenset[str]:
        who = verified.principal
        groups = who.groups
        if verified.directory_id is not None:
            if self._kept_groups is None:
                raise TokenRejected("distributed_claims")
            groups |= _asked("groups kept elsewhere", self._kept_groups.complete, verified)
        if self._directory is None:
            return groups
        expanded = _asked("group directory", self._directory.expand, who.tenant, groups, who.subject)
        if not groups <= expanded:
            _log.error("the group directory gave back fewer groups than it was given")
            raise Unavailable("The group directory is unavailable.")
        return expanded


def _asked(step: str, question: Callable[..., _T], *about: object) -> _T:
    try:
        return question(*about)
    except (Unauthenticated, Unavailable):
        raise
    except Exception as error:
        _log.error("%s: %s", step, error.detail if isinstance(error, RayragError) else type(error).__name__)
        raise Unavailable("A part of the identity check is unavailable.") from error
