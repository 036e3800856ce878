"""What an operator says of a Confluence: where it is, who asks, which spaces, and how its readers are named."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ingest.source_settings import SourceSettings
from policies.principals import has_unseen

SPACE_KEY = re.compile(r"~?[A-Za-z0-9][A-Za-z0-9_.:@-]{0,254}")


class ConfluenceSettings(SourceSettings):
    """The spaces of one Confluence, Cloud or Data Center ("server").

    Confluence says who reads. `acl` is used for a space whose permissions it does not tell (Data Center before 9.1, or
    an account that may not see them), and there only for pages that no restriction covers.
    """

    kind: Literal["confluence"]
    url: str = Field(description="https://NAME.atlassian.net/wiki, or the base URL of a Data Center")
    flavour: Literal["cloud", "server"]
    username: str | None = Field(default=None, min_length=1, description="the account's e-mail (Cloud) or name")
    token_env: str = Field(min_length=1, description="environment variable with the API token, or the personal one")
    ca_file: str | None = Field(default=None, description="PEM of the authority that certifies the server, if private")
    timeout_s: int = Field(default=30, ge=1, le=600, description="how long one step of a request may take")
    spaces: list[str] | None = Field(default=None, min_length=1, description="keys of spaces; all that it sees if none")
    attachments: bool = Field(default=True, description="index files that are attached to pages, but for media")
    user_claim: Literal["accountId", "email", "username", "userKey"] = Field(
        description="what of a user is the subject of their tokens: Cloud has the first two, Data Center the others"
    )
    group_claim: Literal["id", "name"] = Field(
        default="name", description="what of a group stands in the groups of tokens; Data Center knows names only"
    )
    anonymous: bool = Field(default=True, description="a space that is read without signing in lets everyone read")
    poll_s: float = Field(default=60.0, gt=0, description="seconds between two searches for changes")
    rights_s: float = Field(
        default=300.0, gt=0, description="seconds between two sweeps over all pages, for rights, moves and deletions"
    )
    overlap_s: float = Field(
        default=900.0, ge=60, le=86_400, description="how far a search looks back: the search index may lag so much"
    )

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if has_unseen(value) or "\\" in value or parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("give an address without a name, a password, a query or a fragment")
        if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(value))):
            raise ValueError("must be an https address (http is for loopback only)")
        return value.rstrip("/")

    @field_validator("spaces")
    @classmethod
    def _keys(cls, value: list[str] | None) -> list[str] | None:
        wrong = next((key for key in value or () if not SPACE_KEY.fullmatch(key)), None)
        if wrong is not None:
            raise ValueError(f"{wrong[:64]!a} is no space key")
        return value

    @model_validator(mode="after")
    def _one_flavour(self) -> ConfluenceSettings:
        if self.flavour == "server":
            if self.user_claim in ("accountId", "email"):
                raise ValueError("user_claim: Data Center tells username and userKey of its users")
            if self.group_claim == "id":
                raise ValueError("group_claim: Data Center knows its groups by name")
        elif self.user_claim in ("username", "userKey"):
            raise ValueError("user_claim: Confluence Cloud tells accountId and email of its users")
        return self

    @property
    def base_url(self) -> str:
        """What the paths of the API stand below, without a slash at its end."""
        is_bare = self.flavour == "cloud" and not urlsplit(self.url).path.endswith("/wiki")
        return f"{self.url}/wiki" if is_bare else self.url


def is_loopback(url: str) -> bool:
    """Say whether a URL names this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
