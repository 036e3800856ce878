"""The headers that every answer has, and those for web pages of other origins."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from index.limit_settings import HttpSettings

Headers = list[tuple[bytes, bytes]]

SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
"""Nothing that we send is a page: whatever takes it for one may load, run and frame nothing."""
_METHODS = ("GET", "POST", "PUT", "DELETE")
_ASKED = ("authorization", "content-type", "x-request-id")
_SHOWN = ("x-request-id", "retry-after")
_PREFLIGHT_S = 600


def security(settings: HttpSettings) -> Headers:
    """Give the headers of every answer."""
    if not settings.hsts_s:
        return SECURITY
    return [*SECURITY, (b"strict-transport-security", f"max-age={settings.hsts_s}; includeSubDomains".encode())]


def with_header(headers: Headers, own: Headers) -> Headers:
    """Put `own` headers in the place of those of the same names."""
    names = {name for name, _ in own}
    return [(name, value) for name, value in headers if name.lower() not in names] + own


def cross_origin(app: ASGIApp, settings: HttpSettings) -> CORSMiddleware:
    """Let pages of the configured origins read what `app` answers, by a token, never by a cookie."""
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=_METHODS,
        allow_headers=_ASKED,
        expose_headers=_SHOWN,
        allow_credentials=False,
        max_age=_PREFLIGHT_S,
    )
