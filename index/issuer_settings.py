"""Settings of the token issuers that are believed. `docs/identity.md` shows them for the usual ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from index.sections import Section
from policies.issuers import PREFIX, SERVICE
from policies.principals import bare_name

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]


class ClaimNames(Section):
    """Which claims of an issuer's tokens carry the person, the tenant, the roles and the groups."""

    tenant: str = "tenant"
    roles: str = "roles"
    groups: str = "groups"
    subject: str = Field(default="sub", description="which claim is the person; `sub` is required in any case")


class NameMapSettings(Section):
    """What names there are called here; `unmapped` ones are kept as they are, behind `prefix`, or dropped."""

    map: dict[str, str] = Field(default_factory=dict, description="the issuer's name, and the name here")
    unmapped: Literal["keep", "drop"] = "keep"
    prefix: str = Field(default="", max_length=64)

    @field_validator("map")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            bare_name(name)
        return value


class ServiceMarkSettings(Section):
    """What one claim of a service's token says: exactly one of `equals`, `starts_with`, `same_as` and `absent`."""

    claim: str = Field(min_length=1)
    equals: str | None = None
    starts_with: str | None = Field(default=None, min_length=1)
    same_as: str | None = Field(default=None, min_length=1, description="the name of another claim, equal to this one")
    absent: bool = False

    @model_validator(mode="after")
    def _one_test(self) -> ServiceMarkSettings:
        tests = (self.equals is not None, self.starts_with is not None, self.same_as is not None, self.absent)
        if sum(tests) != 1:
            raise ValueError("give exactly one of equals, starts_with, same_as and absent")
        return self


class ServiceSettings(Section):
    """Programs that ask with a token of their own (client credentials). Who is not in `clients` is refused."""

    known_by: list[ServiceMarkSettings] = Field(min_length=1, description="one of them is enough")
    client_id: str = Field(min_length=1, description="the claim with the client's id")
    clients: dict[str, list[str]] = Field(description="by client id: the roles it has here")


class OverageSettings(Section):
    """Where to ask for the groups of a person whose token has too many of them to list: Microsoft Graph."""

    directory: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$", description="Entra ID's Directory (tenant) ID")
    client_id: str = Field(min_length=1, description="an application that may read who is in which group")
    client_secret_file: str | None = None
    client_secret_env: str | None = None
    person: str = Field(default="oid", min_length=1, description="the claim with the person's object id")
    security_groups_only: bool = Field(default=False, description="as the app registration's groupMembershipClaims")
    authority: str = "https://login.microsoftonline.com"
    graph: str = "https://graph.microsoft.com"
    cache_s: float = Field(default=60.0, ge=0, le=3600)
    deadline_s: float = Field(default=10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _one_secret(self) -> OverageSettings:
        if (self.client_secret_file is None) == (self.client_secret_env is None):
            raise ValueError("give exactly one of client_secret_file and client_secret_env")
        return self


class IssuerSettings(Section):
    """One token issuer. Exactly one of `key_file` (a PEM file) and `jwks_uri` gives its keys."""

    issuer: str = Field(min_length=1)
    audience: str | list[str] = Field(min_length=1, description="one of them must be the token's")
    algorithms: list[Algorithm] = Field(min_length=1)
    key_file: str | None = None
    jwks_uri: str | None = None
    tenant: str | None = Field(default=None, description="fixed tenant for issuers that serve one tenant only")
    tenants: list[str] | None = Field(default=None, description="the tenants that tokens may claim; none given: any")
    claims: ClaimNames = ClaimNames()
    required: dict[str, str] = Field(default_factory=dict, description="what a claim of a person's token must say")
    types: list[Literal["JWT", "at+jwt"]] = Field(default=["JWT", "at+jwt"], min_length=1)
    groups: NameMapSettings = NameMapSettings()
    roles: NameMapSettings = NameMapSettings()
    services: ServiceSettings | None = None
    overage: OverageSettings | None = None
    subject_prefix: str = Field(default="", description="stands before each subject, such as okta:")
    subjects: Literal["own", "shared"] = Field(
        default="own", description="shared: the same person as the same subject of other issuers that say shared"
    )
    development: bool = Field(default=False, description="`rayrag token` signs for this issuer; key_file is generated")

    @property
    def audiences(self) -> tuple[str, ...]:
        """The audiences, one or more."""
        return (self.audience,) if isinstance(self.audience, str) else tuple(self.audience)

    @field_validator("subject_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if value and (not PREFIX.fullmatch(value) or value == SERVICE):
            raise ValueError(f"letters, digits, dots and hyphens, then a colon; not {SERVICE}")
        return value

    @model_validator(mode="after")
    def _one_key_source(self) -> IssuerSettings:
        if (self.key_file is None) == (self.jwks_uri is None):
            raise ValueError("give exactly one of key_file and jwks_uri")
        if self.development and self.key_file is None:
            raise ValueError("a development issuer needs key_file")
        if self.tenant is not None and self.tenants is not None:
            raise ValueError("give tenant or tenants, not both")
        return self
