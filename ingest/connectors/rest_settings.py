"""What an operator says of a REST API: its address, how it pages, and where in its answers what stands."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from index.settings import Section
from ingest.connectors.address_guard import SECRET_PARAMETER, Address, AddressRefused, opened_networks, parse_address
from ingest.connectors.http_client import check_headers
from ingest.source_settings import SourceSettings
from policies.errors import ConfigurationError

_NOT_FOR_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "host", "content-length", "transfer-encoding", "connection"}
    | {"accept-encoding", "x-api-key", "api-key", "x-auth-token", "private-token"}
)


def compiled(path: str) -> Any:
    """Compile a JSONPath as RFC 9535 defines it. Raises `ValueError`."""
    from jsonpath import JSONPathEnvironment, JSONPathError

    try:
        return JSONPathEnvironment(strict=True).compile(path)
    except (JSONPathError, ValueError, RecursionError) as error:
        raise ValueError(f"{path!r} is no JSONPath such as $.data.items (RFC 9535)") from error


def _a_path(path: str) -> str:
    compiled(path)
    return path


JsonPath = Annotated[str, AfterValidator(_a_path)]


_Auth = TypeVar("_Auth", bound=Section)


class BearerAuth(Section):
    """`Authorization: Bearer …`."""

    kind: Literal["bearer"]
    token_env: str | None = None
    token_file: str | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> BearerAuth:
        return _with_one_secret(self, "token")


class HeaderAuth(Section):
    """A header of the API's own, such as `X-API-Key`."""

    kind: Literal["header"]
    name: str
    value_env: str | None = None
    value_file: str | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> HeaderAuth:
        _check_headers({self.name: "x"})
        return _with_one_secret(self, "value")


class BasicAuth(Section):
    """A user name and a password."""

    kind: Literal["basic"]
    user: str = Field(pattern=r"^[^:\x00-\x1f\x7f]+$")
    password_env: str | None = None
    password_file: str | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> BasicAuth:
        return _with_one_secret(self, "password")


class PageNumberPaging(Section):
    """`?page=1`, `?page=2`, … up to an empty page, or until `total` documents were named."""

    kind: Literal["page"]
    parameter: str = "page"
    first: int = Field(default=1, ge=0)
    size_parameter: str | None = None
    size: int = Field(default=100, ge=1, le=10_000)


class OffsetPaging(Section):
    """`?offset=0`, `?offset=100`, …: the offset goes on by as many documents as a page named."""

    kind: Literal["offset"]
    parameter: str = "offset"
    size_parameter: str | None = "limit"
    size: int = Field(default=100, ge=1, le=10_000)


class CursorPaging(Section):
    """The answer holds a token for the next page; the last one holds none, null or ''."""

    kind: Literal["cursor"]
    parameter: str = "cursor"
    next: JsonPath


class LinkPaging(Section):
    """The header `Link: <…>; rel="next"` (RFC 8288) names the next page."""

    kind: Literal["link"]


class NextUrlPaging(Section):
    """The answer holds the next page's URL; the last one holds none, null or ''."""

    kind: Literal["next_url"]
    next: JsonPath


class PrincipalPath(Section):
    """Where an item names readers, and what kind they are. Without a kind they say it themselves: `group:finance`."""

    path: JsonPath
    kind: Literal["user", "group", "role"] | None = None


Readers = JsonPath | PrincipalPath | list[JsonPath | PrincipalPath]


class FieldMap(Section):
    """Where in an item what stands, as JSONPaths from the item (`$`)."""

    id: JsonPath
    text: JsonPath | list[JsonPath] | None = None
    content_url: JsonPath | None = Field(default=None, description="the text is a file at this URL")
    name: JsonPath | None = Field(default=None, description="that file's name")
    title: JsonPath | None = None
    uri: JsonPath | None = Field(default=None, description="the link that a reader can click")
    updated: JsonPath | None = None
    version: JsonPath | None = None
    allow: Readers | None = None
    deny: Readers | None = None
    deleted: JsonPath | None = None

    @model_validator(mode="after")
    def _one_content(self) -> FieldMap:
        if (self.text is None) == (self.content_url is None):
            raise ValueError("give exactly one of text and content_url")
        return self

    @property
    def texts(self) -> list[str]:
        """The paths whose texts make the document, in this order."""
        return [self.text] if isinstance(self.text, str) else list(self.text or [])


class SinceSettings(Section):
    """The query parameter by which the API lists only what changed after a time."""

    parameter: str = Field(min_length=1)
    format: Literal["iso8601", "unix", "unix_ms"] = "iso8601"
    overlap_s: float = Field(default=300.0, ge=0, description="how far back to ask again, for late changes")


class RestSettings(SourceSettings):
    """A REST API that answers in JSON."""

    kind: Literal["rest"]
    url: str = Field(description="the listing; https, or http on this machine")
    method: Literal["GET"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict, description="further headers, none of them secret")
    auth: Annotated[BearerAuth | HeaderAuth | BasicAuth, Field(discriminator="kind")] | None = None
    paging: (
        Annotated[
            PageNumberPaging | OffsetPaging | CursorPaging | LinkPaging | NextUrlPaging, Field(discriminator="kind")
        ]
        | None
    ) = None
    items: JsonPath = Field(default="$", description="the list in a page")
    total: JsonPath | None = Field(default=None, description="how many documents the API has, in a page")
    fields: FieldMap
    since: SinceSettings | None = None
    content_prefix: str | None = Field(
        default=None, description="files of content_url below this address get the credentials of auth; else none does"
    )
    item_url: str | None = Field(default=None, description="the address of one item, with {id}")
    item: JsonPath = Field(default="$", description="the item in the answer of item_url")
    text_in: Literal["listing", "item"] = Field(default="listing", description="which answer holds the text")
    text_format: Literal["text", "markdown", "html"] = "text"
    link: str | None = Field(default=None, description="the link that a reader can click, with {id}")
    allow_private: list[str] = Field(
        default_factory=list, description="private networks in which a content_url of another origin may lie"
    )
    ca_file: str | None = Field(default=None, description="PEM file of who vouches for the API's certificate")
    max_page_mb: float = Field(default=50.0, gt=0)

    @field_validator("url", "item_url", "link", "content_prefix")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is not None:
            _parse(value.replace("{id}", "1"))
        return value

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name.lower() in _NOT_FOR_HEADERS:
                raise ValueError(f"{name} cannot stand here; credentials belong in auth")
        _check_headers(value)
        return value

    @field_validator("allow_private")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        opened_networks(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> RestSettings:
        api = self.api
        if api.scheme != "https" and not api.is_loopback:
            raise ValueError("url must begin with https://")
        for key, value in (("item_url", self.item_url), ("link", self.link)):
            if value is not None and "{id}" not in value:
                raise ValueError(f"{key} must hold {{id}}")
        if self.item_url is not None and _parse(self.item_url.replace("{id}", "1")).origin != api.origin:
            raise ValueError("item_url must have the scheme, host and port of url")
        prefix = self.content_prefix
        if prefix is not None and (_parse(prefix).origin != api.origin or not prefix.endswith("/") or "?" in prefix):
            raise ValueError("content_prefix must have the scheme, host and port of url, and end in /")
        fields = self.fields
        if self.item_url is None and fields.text is not None and (self.text_in == "item" or self.text_format == "html"):
            raise ValueError("text_in: item and text_format: html need item_url")
        if (self.text_in == "item" or fields.content_url) and not (fields.version or fields.updated):
            raise ValueError("fields: version or updated must say when a text changed that the listing does not hold")
        return self

    @property
    def api(self) -> Address:
        """The listing's address."""
        return parse_address(self.url)

    def shown(self, uri: str) -> str | None:
        """Give an item's link; none where it repeats a secret of these settings' addresses."""
        own = {pair for url in (self.url, self.item_url or "") for pair in parse_qsl(urlsplit(url).query)}
        secret = {value for name, value in own if SECRET_PARAMETER.search(name)}
        return None if any(value in secret for _, value in parse_qsl(urlsplit(uri).query)) else uri

    def is_own_file(self, url: str) -> bool:
        """Say whether a file lies below `content_prefix`, also for a server that takes an escaped slash for one."""
        if self.content_prefix is None:
            return False
        address = parse_address(url).url
        path = address.partition("?")[0].lower()
        return address.startswith(_parse(self.content_prefix).url) and "%2f" not in path and "%5c" not in path

    def item_address(self, external_id: str) -> str | None:
        """The address of one item; none where its id cannot stand in one."""
        if self.item_url is None or external_id in (".", ".."):
            return None
        address = self.item_url.replace("{id}", quote(external_id, safe=""))
        try:
            return parse_address(address).url
        except AddressRefused:
            return None


def _parse(url: str) -> Address:
    try:
        return parse_address(url)
    except AddressRefused as error:
        raise ValueError(error.detail) from error


def _check_headers(headers: dict[str, str]) -> None:
    try:
        check_headers(headers)
    except ConfigurationError as error:
        raise ValueError(error.detail) from error


def _with_one_secret(auth: _Auth, key: str) -> _Auth:
    if (getattr(auth, f"{key}_env") is None) == (getattr(auth, f"{key}_file") is None):
        raise ValueError(f"give exactly one of {key}_env and {key}_file")
    return auth
