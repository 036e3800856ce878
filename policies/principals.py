"""A caller, as their token describes them."""

from __future__ import annotations

from dataclasses import dataclass

EVERYONE = "everyone"


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or service of one tenant.

    `subject` is unique within the tenant; `roles` and `groups` are bare names without prefix.
    """

    subject: str
    tenant: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Every name under which an access rule can mean this caller: `user:`, `group:`, `role:` and `everyone`."""
        return frozenset(
            {EVERYONE, f"user:{self.subject}"}
            | {f"group:{group}" for group in self.groups}
            | {f"role:{role}" for role in self.roles}
        )
