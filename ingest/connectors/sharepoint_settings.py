"""What an operator says of a SharePoint library or a OneDrive: which one, who asks, and how its readers are named."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ingest.acl_file import rule_of
from ingest.source_settings import SourceSettings
from policies.errors import ConfigurationError
from policies.principals import has_unseen

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,253}")
_CLIENT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?(:/[^/?#%:\\][^?#%:\\]*)?")


class SharepointSettings(SourceSettings):
    """One document library or one OneDrive, or a folder of it. SharePoint says who reads; `acl` stays empty."""

    kind: Literal["sharepoint"]
    tenant_id: str = Field(description="the directory: its id or one of its domains")
    client_id: str = Field(description="the application's (client) id")
    client_secret_env: str | None = None
    certificate_file: str | None = Field(default=None, description="PEM or PKCS12 with the RSA private key")
    certificate_password_env: str | None = None
    site: str | None = Field(default=None, description="hostname:/sites/name, or a hostname for its root site")
    library: str | None = Field(default=None, min_length=1, description="a library of the site, unless its default one")
    drive_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9!_.-]{1,256}$")
    user: str | None = Field(
        default=None, pattern=r"^[^\s/?#\\]{1,256}$", description="whose OneDrive: id or sign-in name"
    )
    folder: str | None = Field(default=None, description="only what is below this folder, as Finance/Reports")
    base_url: str = Field(default="https://graph.microsoft.com/v1.0", description="another one for national clouds")
    authority: str = Field(default="https://login.microsoftonline.com", description="who gives the tokens")
    ca_file: str | None = Field(default=None, description="PEM of the authority whom both are certified by, if private")
    timeout_s: float = Field(default=30.0, gt=0, description="how long one step of a request may take")
    requests_per_s: float = Field(default=4.0, gt=0, description="SharePoint allows small tenants 240 rights a minute")
    user_claim: Literal["id", "userPrincipalName", "mail"] = Field(
        default="id", description="the property of a user that stands as the subject of their tokens"
    )
    group_claim: Literal["id", "displayName"] = Field(
        default="id", description="the property of a group that stands in the groups of tokens; only ids are unique"
    )
    expand_groups: bool = Field(default=False, description="name a group's members, where tokens carry no groups")
    everyone_for_organization_links: bool = Field(
        default=True, description="a link for the organisation, or a grant to all its users, lets everyone read"
    )
    everyone_for_anonymous_links: bool = Field(default=True, description="a link for anyone lets everyone read")
    site_groups: dict[str, list[str]] = Field(
        default_factory=dict, description="who stands behind a SharePoint group: Graph does not tell its members"
    )

    @field_validator("tenant_id")
    @classmethod
    def _a_directory(cls, value: str) -> str:
        if not _TENANT.fullmatch(value) or value.lower() in ("common", "organizations", "consumers"):
            raise ValueError("give the directory's id or domain")
        return value

    @field_validator("client_id")
    @classmethod
    def _an_application(cls, value: str) -> str:
        if not _CLIENT.fullmatch(value):
            raise ValueError("give the application (client) id, a GUID")
        return value.lower()

    @field_validator("site")
    @classmethod
    def _a_site(cls, value: str | None) -> str | None:
        if value is not None and (not _SITE.fullmatch(value) or has_unseen(value) or ".." in value.split("/")):
            raise ValueError("give hostname:/sites/name, as contoso.sharepoint.com:/sites/finance")
        return value

    @field_validator("folder")
    @classmethod
    def _a_folder(cls, value: str | None) -> str | None:
        if value is None:
            return None
        names = [name for name in value.split("/") if name]
        if not names or {".", ".."} & set(names) or has_unseen(value) or set('"*:<>?\\|') & set(value):
            raise ValueError("give the folder's path in the library, as Finance/Reports")
        return "/".join(names)

    @field_validator("base_url", "authority")
    @classmethod
    def _a_private_channel(cls, value: str) -> str:
        parts = urlsplit(value)
        plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if not parts.hostname or parts.username or parts.query or not (parts.scheme == "https" or plain):
            raise ValueError("give an https address without user name (http only for this machine)")
        return value.rstrip("/")

    @field_validator("site_groups")
    @classmethod
    def _principals(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for names in value.values():
            try:
                rule_of(names)
            except ConfigurationError as error:
                raise ValueError(error.detail) from error
        return value

    @model_validator(mode="after")
    def _one_of_each(self) -> SharepointSettings:
        if sum(place is not None for place in (self.site, self.drive_id, self.user)) != 1:
            raise ValueError("give exactly one of site, drive_id and user")
        if self.library is not None and self.site is None:
            raise ValueError("library goes with site")
        if (self.client_secret_env is None) == (self.certificate_file is None):
            raise ValueError("give exactly one of client_secret_env and certificate_file")
        if self.certificate_password_env is not None and self.certificate_file is None:
            raise ValueError("certificate_password_env goes with certificate_file")
        if not self.authority.startswith("https:"):
            raise ValueError("authority: tokens are given over https only")
        if self.acl:
            raise ValueError("acl: SharePoint says who reads; map its site groups with site_groups")
        return self

    def digest(self, *place: str) -> str:
        """Name everything that a listing's rights and extent follow from: another digest, and a cursor is void."""
        told = self.model_dump(
            mode="json",
            include={"user_claim", "group_claim", "expand_groups", "site_groups"}
            | {"everyone_for_organization_links", "everyone_for_anonymous_links"},
        )
        return hashlib.sha256(json.dumps([told, *place], sort_keys=True).encode()).hexdigest()[:16]


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
