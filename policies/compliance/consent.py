"""Whether data may be used for a purpose: consent that was given, and objections and opt-outs that were made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from policies.compliance.policy import Purpose

EVERYTHING = "*"
SOURCE = "source:"
SUBJECT = "subject:"


@dataclass(frozen=True, slots=True)
class Consents:
    """What is on record for one purpose of one tenant now: scopes that consent was given for, and withdrawn for."""

    granted: frozenset[str] = frozenset()
    withdrawn: frozenset[str] = frozenset()

    @property
    def asks_who(self) -> bool:
        """Whether it depends on who is named."""
        return any(scope.startswith(SUBJECT) for scope in self.granted | self.withdrawn)

    def permits(self, purpose: Purpose, source: str, subjects: Collection[str]) -> bool:
        """Say whether a passage of this source that names these people may be used.

        `subjects`: keyed hashes of what names somebody. A withdrawal always holds where the purpose knows consent or
        an opt-out, and wins over what was granted. Where consent is asked for and not given for all of the source,
        everybody who is named must have given it, and a passage that names nobody is not used.
        """
        consents = purpose.basis == "consent"
        named = {SUBJECT + subject for subject in subjects}
        if (consents or purpose.opt_out) and self.withdrawn & {EVERYTHING, SOURCE + source, *named}:
            return False
        if not consents:
            return True
        if self.granted & {EVERYTHING, SOURCE + source}:
            return True
        return bool(named) and named <= self.granted


class ConsentRegistry(Protocol):
    """Where consents are kept."""

    def consents(self, tenant: str, purpose: str) -> Consents:
        """Give what holds now. Raises `Unavailable`."""
        ...
