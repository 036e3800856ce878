"""What an operator says of pages of the web: where they begin, how far they go, and what may be asked."""

from __future__ import annotations

from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from ingest.connectors.address_guard import (
    SECRET_PARAMETER,
    AddressGuard,
    AddressRefused,
    Resolve,
    opened_networks,
    parse_address,
    system_addresses,
)
from ingest.connectors.http_client import check_headers
from ingest.source_settings import SourceSettings
from policies.errors import ConfigurationError


class WebSettings(SourceSettings):
    """Pages of the web."""

    kind: Literal["web"]
    urls: list[str] = Field(default_factory=list)
    sitemap: str | None = None
    follow_links: bool = Field(default=False, description="also the pages of the same site that these link to")
    max_depth: int = Field(default=3, ge=1, le=50, description="how many links away")
    max_pages: int = Field(default=1_000, ge=1, le=100_000)
    allow_paths: list[str] = Field(
        default_factory=list, description="patterns such as /docs/* that found pages must match; * is any characters"
    )
    hosts: list[str] = Field(default_factory=list, description="further hosts that belong to the site")
    robots: bool = Field(default=True, description="respect robots.txt")
    user_agent: str = "rayrag"
    allow_private: list[str] = Field(
        default_factory=list, description="private networks in which hosts of urls, sitemap and hosts may lie"
    )
    ports: list[int] = Field(default=[80, 443], min_length=1)
    ca_file: str | None = Field(default=None, description="PEM file of who vouches for an intranet's certificates")
    requests_per_s: float = Field(default=2.0, gt=0, description="how often the source may be asked")

    @field_validator("urls")
    @classmethod
    def _spelt(cls, value: list[str]) -> list[str]:
        return list(dict.fromkeys(_spelling(url) for url in value))

    @field_validator("sitemap")
    @classmethod
    def _spelt_sitemap(cls, value: str | None) -> str | None:
        return None if value is None else _spelling(value)

    @field_validator("hosts")
    @classmethod
    def _host_names(cls, value: list[str]) -> list[str]:
        addresses = [parse_address(_spelling(f"https://{host}/")) for host in value]
        if any(address.url != f"https://{address.host}/" and ":" not in address.host for address in addresses):
            raise ValueError("hosts: give names only, without scheme, port or path")
        return [address.host for address in addresses]

    @field_validator("allow_private")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        opened_networks(value)
        return value

    @field_validator("user_agent")
    @classmethod
    def _sendable(cls, value: str) -> str:
        try:
            check_headers({"user-agent": value})
        except ConfigurationError as error:
            raise ValueError(error.detail) from error
        return value

    @model_validator(mode="after")
    def _reachable(self) -> WebSettings:
        starts = [*self.urls, *([self.sitemap] if self.sitemap else [])]
        if not starts:
            raise ValueError("give urls, a sitemap or both")
        if len(self.urls) > self.max_pages:
            raise ValueError("urls: more than max_pages")
        for url in starts:
            if any(SECRET_PARAMETER.search(name) for name, _ in parse_qsl(urlsplit(url).query)):
                raise ValueError("a URL holds no secret in its query: readers are shown the addresses of pages")
            try:
                self.guard().check(parse_address(url))
            except AddressRefused as error:
                raise ValueError(f"{url}: {error.detail}") from error
        return self

    @property
    def site_hosts(self) -> frozenset[str]:
        """The hosts that the operator named."""
        starts = [*self.urls, *([self.sitemap] if self.sitemap else [])]
        return frozenset({parse_address(url).host for url in starts} | set(self.hosts))

    def guard(self, resolve: Resolve = system_addresses) -> AddressGuard:
        """What may be connected to."""
        return AddressGuard(opened_networks(self.allow_private), frozenset(self.ports), self.site_hosts, resolve)


def _spelling(url: str) -> str:
    try:
        return parse_address(url).url
    except AddressRefused as error:
        raise ValueError(error.detail) from error
