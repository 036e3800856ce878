"""What every source's settings have in common: its name, whose it is, who reads, and how it is kept fresh.

Secrets are never values here: a setting that ends in `_env` names an environment variable, one in `_file` a file.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from index.document import DocumentRef
from index.labels import SaidLabel
from index.settings import Section
from ingest.acl_file import rule_of
from policies.access import AccessRule
from policies.aliases import Aliases, Unmapped
from policies.errors import ConfigurationError, InvalidRequest
from policies.labels import DEFAULT_LABEL, Label

SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class WebhookSettings(Section):
    """The secret that `POST /v1/webhooks/{source}` is signed with (Standard Webhooks: `whsec_` and base64)."""

    secret_env: str | None = None
    secret_file: str | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> WebhookSettings:
        if (self.secret_env is None) == (self.secret_file is None):
            raise ValueError("give exactly one of secret_env and secret_file")
        return self


class QueueSettings(Section):
    """A message queue that says where to look. `subject`: the stream (Redis), subject (NATS) or topic (Kafka)."""

    kind: Literal["redis", "nats", "kafka"]
    url_env: str = Field(description="environment variable with the address, which may hold a password")
    subject: str = Field(min_length=1)
    group: str = Field(default="", description="who shares the messages; `rayrag-<source>` unless given")


class UnmappedSettings(Section):
    """What becomes of names that no map holds, each kind for itself."""

    groups: Unmapped = "keep"
    users: Unmapped = "keep"


class SourceSettings(Section):
    """One source. Each kind of connector adds its own settings to these."""

    name: str = Field(min_length=1)
    tenant: str = Field(min_length=1)
    acl: list[str] | dict[str, list[str]] = Field(
        default_factory=list, description="who reads what the source says nothing about; nobody unless given"
    )
    label: SaidLabel = Field(
        default=None,
        validate_default=False,
        description="of what says none itself; identity.default_label unless given",
    )
    watch: bool = Field(default=True, description="let the source say when something changes, where it can")
    poll_s: float = Field(default=300.0, gt=0, description="seconds between two listings of changes")
    full_s: float = Field(default=86_400.0, gt=0, description="seconds between two listings of everything")
    objective_s: float = Field(default=60.0, gt=0, description="how soon a change should be searchable")
    concurrency: int = Field(default=4, ge=1, le=64, description="documents fetched at once")
    requests_per_s: float = Field(default=10.0, gt=0, description="how often the source may be asked")
    webhook: WebhookSettings | None = None
    queue: QueueSettings | None = None
    groups: dict[str, str] = Field(default_factory=dict, description="what tokens call the source's groups")
    users: dict[str, str] = Field(default_factory=dict, description="what tokens call the source's people")
    unmapped: Unmapped | UnmappedSettings = Field(
        default="keep", description="names that no map holds: keep, drop, or prefix them with the source's name"
    )
    rights_s: float | None = Field(
        default=None, gt=0, description="seconds without a listing that ended well after which nobody reads the source"
    )

    @field_validator("acl")
    @classmethod
    def _a_rule(cls, value: Any) -> Any:
        try:
            rule_of(value)
        except ConfigurationError as error:
            raise ValueError(error.detail) from error
        return value

    @model_validator(mode="after")
    def _aliases_hold(self) -> SourceSettings:
        try:
            self.aliases  # noqa: B018 - to see that they can be made
        except InvalidRequest as error:
            raise ValueError(f"groups, users: {error.detail}") from error
        return self

    @cached_property
    def aliases(self) -> Aliases:
        """What tokens call whom this source calls otherwise. What is handed to `fetch` has a rule in these names."""
        one = self.unmapped
        unmapped = one if isinstance(one, UnmappedSettings) else UnmappedSettings(groups=one, users=one)
        return Aliases.of(self.name, self.groups, self.users, unmapped.groups, unmapped.users)

    @property
    def rule(self) -> AccessRule:
        """Who reads what the source says nothing about, and its label."""
        return self.labelled(rule_of(self.acl))

    def labelled(self, rule: AccessRule) -> AccessRule:
        """Give a rule that the source told without a label this source's."""
        return replace(rule, label=DEFAULT_LABEL if self.label is None else self.label)

    def with_label(self, default: Label) -> Self:
        """Give these settings a label where they have none."""
        return self if self.label is not None else self.model_copy(update={"label": default})

    def ref(
        self,
        external_id: str,
        uri: str,
        rule: AccessRule,
        fingerprint: str = "",
        size_bytes: int = 0,
        title: str | None = None,
        label: Label | None = None,
    ) -> DocumentRef:
        """Name one of this source's documents. `label`: what the source says of this one; none: the source's own."""
        labelled = self.labelled(rule) if label is None else replace(rule, label=label)
        return DocumentRef(self.tenant, self.name, external_id, uri, title, fingerprint, labelled, size_bytes)
