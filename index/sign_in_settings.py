"""The settings of `identity.sessions` and `identity.sign_in`: how people sign in, and how long that holds."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from index.issuer_settings import Algorithm, NameMapSettings
from index.sections import Section
from policies.issuers import PREFIX, SERVICE
from policies.limits import Rate
from policies.signing_in.addresses import is_loopback, private_address

SESSION_KEY = "${data_dir}/secrets/sessions.pem"
WayName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
"""It is a part of addresses, and of what is on the record."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class SessionSettings(Section):
    """Our own tokens, for people who signed in here. Seconds throughout."""

    key_file: str = Field(
        default=SESSION_KEY,
        description="Ed25519 private key of session tokens, the same for all replicas; made where there is none",
    )
    issuer: Name = "rayrag-sessions"
    audience: Name = "rayrag-sessions"
    token_s: int = Field(default=600, ge=60, le=900, description="how long a session token holds")
    idle_s: int = Field(default=28_800, ge=60, le=2_592_000, description="how long an unused refresh token holds")
    longest_s: int = Field(default=43_200, ge=60, le=2_592_000, description="when to sign in again, whatever happens")


class PersonSettings(Section):
    """What becomes of the names that a directory gives."""

    tenant: Name | None = Field(default=None, description="the tenant of all who sign in this way")
    tenants: list[Name] | None = Field(default=None, description="the tenants that may be named; none given: any")
    roles: list[Name] = Field(default_factory=list, description="roles of all who sign in this way")
    group_roles: dict[Name, list[Name]] = Field(
        default_factory=dict, description="roles by group, as it is called here"
    )
    groups: NameMapSettings = NameMapSettings()
    subject_prefix: str = Field(default="", description="stands before each subject, such as corp:")
    subjects: Literal["own", "shared"] = Field(
        default="own", description="shared: the same person as the same subject of issuers and ways that say shared"
    )

    @field_validator("subject_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if value and (not PREFIX.fullmatch(value) or value == SERVICE):
            raise ValueError(f"letters, digits, dots and hyphens, then a colon; not {SERVICE}")
        return value


class AttributeNames(Section):
    """Which attribute, or claim, of a person says what; none: nothing does."""

    subject: Name
    tenant: Name | None = None
    roles: Name | None = None
    groups: Name | None = None


class OidcAttributes(AttributeNames):
    """Claims of the ID token; a name with dots also finds nested claims."""

    subject: Name = "sub"
    groups: Name | None = "groups"


class OidcSettings(PersonSettings):
    """OpenID Connect: authorization code with PKCE."""

    issuer: Name
    client_id: Name
    client_secret_file: str | None = None
    client_secret_env: str | None = None
    algorithms: list[Algorithm] = Field(default=["RS256"], min_length=1)
    scopes: list[Name] = Field(default=["openid"])
    claims: OidcAttributes = OidcAttributes()
    timeout_s: float = Field(default=5.0, gt=0, le=60)

    @field_validator("issuer")
    @classmethod
    def _private(cls, value: str) -> str:
        return private_address(value)

    @model_validator(mode="after")
    def _whole(self) -> OidcSettings:
        if self.client_secret_file and self.client_secret_env:
            raise ValueError("give one of client_secret_file and client_secret_env")
        if "openid" not in self.scopes:
            raise ValueError("scopes: openid must be among them")
        _require_tenant(self, self.claims.tenant, "claims.tenant")
        return self


class SamlAttributes(AttributeNames):
    """Attributes of the assertion, by `Name`; `NameID` is the subject's name identifier."""

    subject: Name = "NameID"


class SamlSettings(PersonSettings):
    """SAML 2.0, in a browser. `metadata_file` is the identity provider's: the keys in it are those we believe."""

    metadata_file: str
    identity_provider: Name | None = Field(default=None, description="its entityID, where the metadata name several")
    entity_id: Name | None = Field(default=None, description="ours; default: the address of our metadata")
    key_file: str | None = Field(default=None, description="RSA private key that signs our requests")
    cert_file: str | None = None
    attributes: SamlAttributes = SamlAttributes()

    @model_validator(mode="after")
    def _whole(self) -> SamlSettings:
        if (self.key_file is None) != (self.cert_file is None):
            raise ValueError("give both of key_file and cert_file, or none")
        _require_tenant(self, self.attributes.tenant, "attributes.tenant")
        return self


class LdapAttributes(AttributeNames):
    """Attributes of the person's entry. `groups`: the group's attribute that names it, unique among all groups."""

    subject: Name = "uid"
    groups: Name = "cn"


class LdapSettings(PersonSettings):
    """LDAP or Active Directory: a bind account finds the person, then the person's own password must bind."""

    url: Name = Field(description="ldaps://host, or ldap://host with start_tls; without either on this machine only")
    start_tls: bool = False
    ca_file: str | None = Field(default=None, description="the certificates that we believe; default: the system's")
    bind_dn: Name
    bind_password_file: str | None = None
    bind_password_env: str | None = None
    base: Name = Field(description="where people are")
    person_filter: str = "(&(objectClass=person)(uid={username}))"
    disabled_filter: str | None = Field(default=None, description="who matches it may not sign in")
    active_directory: bool = Field(default=False, description="heed userAccountControl and accountExpires")
    group_base: Name | None = Field(default=None, description="where groups are; none: nobody is in any group")
    group_filter: str = "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=group))"
    member_attribute: Name = "member"
    nesting: Literal["members", "member_of", "in_chain"] = Field(
        default="members",
        description="how groups within groups are found: by who names whom as a member, by memberOf, or by Active "
        "Directory's rule LDAP_MATCHING_RULE_IN_CHAIN",
    )
    attributes: LdapAttributes = LdapAttributes()
    timeout_s: float = Field(default=5.0, gt=0, le=60)

    @field_validator("person_filter")
    @classmethod
    def _asks_for_the_person(cls, value: str) -> str:
        if value.count("{username}") < 1:
            raise ValueError("it must hold {username}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> LdapSettings:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ldap", "ldaps") or not parts.hostname or parts.username or parts.path.strip("/"):
            raise ValueError("url: give ldaps://host[:port] or ldap://host[:port], without user name or path")
        if parts.scheme == "ldap" and not self.start_tls and not is_loopback(parts.hostname):
            raise ValueError("url: passwords cross no network in the open: use ldaps:// or start_tls: true")
        if parts.scheme == "ldaps" and self.start_tls:
            raise ValueError("start_tls: ldaps:// is encrypted already")
        if (self.bind_password_file is None) == (self.bind_password_env is None):
            raise ValueError("give one of bind_password_file and bind_password_env")
        _require_tenant(self, self.attributes.tenant, "attributes.tenant")
        return self


class SignInSettings(Section):
    """The ways to sign in, each by a name of its own."""

    public_url: str | None = Field(default=None, description="how browsers reach us, such as https://rag.example.com")
    oidc: dict[WayName, OidcSettings] = Field(default_factory=dict)
    saml: dict[WayName, SamlSettings] = Field(default_factory=dict)
    ldap: dict[WayName, LdapSettings] = Field(default_factory=dict)
    attempts_per_address: str | None = Field(
        default="100/minute",
        description="passwords tried from one address; null: no limit, behind a shared proxy",
    )

    @field_validator("attempts_per_address")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        if value is not None:
            Rate.of(value)
        return value

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(private_address(value))
        if parts.path.strip("/") or parts.query:
            raise ValueError("give scheme, host and port only")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _reachable(self) -> SignInSettings:
        if (self.oidc or self.saml) and self.public_url is None:
            raise ValueError("public_url: browsers are sent back to it, so oidc and saml need it")
        return self

    @property
    def any(self) -> bool:
        """Whether anybody can sign in here."""
        return bool(self.oidc or self.saml or self.ldap)


def _require_tenant(person: PersonSettings, named: str | None, key: str) -> None:
    if (person.tenant is None) == (named is None):
        raise ValueError(f"give exactly one of tenant and {key}")
    if person.tenant is not None and person.tenants is not None:
        raise ValueError("give tenant or tenants, not both")
