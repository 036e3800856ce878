"""What every source's settings have in common: its name, whose it is, who reads, and how it is kept fresh.

Secrets are never values here: a setting that ends in `_env` names an environment variable, one in `_file` a file.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from index.document import DocumentRef
from index.settings import Section
from ingest.acl_file import rule_of
from policies.access import AccessRule
from policies.errors import ConfigurationError

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


class SourceSettings(Section):
    """One source. Each kind of connector adds its own settings to these."""

    name: str = Field(min_length=1)
    tenant: str = Field(min_length=1)
    acl: list[str] | dict[str, list[str]] = Field(
        default_factory=list, description="who reads what the source says nothing about; nobody unless given"
    )
    watch: bool = Field(default=True, description="let the source say when something changes, where it can")
    poll_s: float = Field(default=300.0, gt=0, description="seconds between two listings of changes")
    full_s: float = Field(default=86_400.0, gt=0, description="seconds between two listings of everything")
    objective_s: float = Field(default=60.0, gt=0, description="how soon a change should be searchable")
    concurrency: int = Field(default=4, ge=1, le=64, description="documents fetched at once")
    requests_per_s: float = Field(default=10.0, gt=0, description="how often the source may be asked")
    webhook: WebhookSettings | None = None
    queue: QueueSettings | None = None

    @field_validator("acl")
    @classmethod
    def _a_rule(cls, value: Any) -> Any:
        try:
            rule_of(value)
        except ConfigurationError as error:
            raise ValueError(error.detail) from error
        return value

    @property
    def rule(self) -> AccessRule:
        """Who reads what the source says nothing about."""
        return rule_of(self.acl)

    def ref(
        self,
        external_id: str,
        uri: str,
        rule: AccessRule,
        fingerprint: str = "",
        size_bytes: int = 0,
        title: str | None = None,
    ) -> DocumentRef:
        """Name one of this source's documents."""
        return DocumentRef(self.tenant, self.name, external_id, uri, title, fingerprint, rule, size_bytes)
