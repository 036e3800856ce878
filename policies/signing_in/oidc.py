"""Signing in at an OpenID provider: authorization code with PKCE (RFC 7636), and an ID token that is checked here.

    login: state, nonce, challenge -> the provider -> callback: code + verifier -> ID token -> who that is

The provider is found by its discovery document, whose issuer must be the one that is configured. Nothing that the
browser brings back is believed but the code, which only we can redeem.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt

from policies.claims import read_claims
from policies.errors import SignInRefused, TokenRejected, Unavailable
from policies.issuers import Issuer
from policies.keys import JwksEndpoint
from policies.signing_in.addresses import private_address
from policies.signing_in.people import Entry, Names, Person
from policies.signing_in.sealing import Pending

DISCOVERY_S = 3_600.0
RETRY_S = 5.0
MAX_DOCUMENT_BYTES = 1_000_000
_ID_TOKEN_ONLY = frozenset({"at_hash", "c_hash", "s_hash", "typ", "token_use", "nonce"})
_PROVIDER_FAULTS = frozenset({"server_error", "temporarily_unavailable"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OidcClient:
    """What we are to the provider. Without a secret we are a public client, and PKCE alone protects the code."""

    client_id: str
    secret: str | None
    redirect_uri: str
    scopes: tuple[str, ...] = ("openid",)
    timeout_s: float = 5.0
    leeway_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Provider:
    authorization_endpoint: str
    token_endpoint: str
    basic: bool
    keys_uri: str
    keys: JwksEndpoint


IssuerOf = Callable[[JwksEndpoint], Issuer]
"""How to read the provider's tokens, once it is known where its keys are."""


class OidcProvider:
    """One provider. Its methods raise `SignInRefused`, or `Unavailable` where the provider is."""

    def __init__(
        self,
        issuer: str,
        client: OidcClient,
        issuer_of: IssuerOf,
        names: Names,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._issuer_of = issuer_of
        self._names = names
        self._clock = clock
        self._lock = asyncio.Lock()
        self._provider: _Provider | None = None
        self._known_at = self._tried_at = float("-inf")

    async def begin(self, pending: Pending) -> str:
        """Give the address to send the browser to."""
        from authlib.common.urls import add_params_to_uri  # type: ignore[import-untyped]
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

        provider = await self._discovered()
        parameters = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self._client.redirect_uri,
            "scope": " ".join(self._client.scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": create_s256_code_challenge(pending.secret),
            "code_challenge_method": "S256",
        }
        return str(add_params_to_uri(provider.authorization_endpoint, list(parameters.items())))

    async def finish(self, pending: Pending, answer: Mapping[str, str]) -> Person:
        """Say who came back. `answer`: the parameters of the callback."""
        if "error" in answer:
            if answer["error"] in _PROVIDER_FAULTS:
                raise Unavailable("The identity provider could not sign this person in.")
            raise SignInRefused("provider_refused")
        # RFC 9207: where the provider says who it is, an answer of another one is refused.
        if answer.get("iss", self._issuer) != self._issuer or not answer.get("code"):
            raise SignInRefused("answer")
        provider = await self._discovered()
        tokens = await self._redeem(provider, answer["code"], pending.secret)
        return await asyncio.to_thread(self._read, provider, tokens, pending.nonce)

    async def _redeem(self, provider: _Provider, code: str, verifier: str) -> Mapping[str, Any]:
        from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
        from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]

        method = "client_secret_basic" if provider.basic else "client_secret_post"
        try:
            async with (
                asyncio.timeout(2 * self._client.timeout_s),
                AsyncOAuth2Client(
                    self._client.client_id,
                    self._client.secret,
                    token_endpoint_auth_method="none" if self._client.secret is None else method,
                    redirect_uri=self._client.redirect_uri,
                    timeout=self._client.timeout_s,
                    follow_redirects=False,
                    trust_env=False,
                ) as client,
            ):
                tokens = await client.fetch_token(provider.token_endpoint, code=code, code_verifier=verifier)
        except OAuthError as error:
            if error.error == "invalid_grant":
                raise SignInRefused("code") from error
            raise Unavailable(f"The identity provider does not serve us ({str(error.error)[:64]!a}).") from error
        except TimeoutError as error:
            raise Unavailable("The identity provider does not answer.") from error
        except Exception as error:
            # The transport's and the parser's errors share no base.
            raise Unavailable(f"The identity provider cannot be asked ({type(error).__name__}).") from error
        return dict(tokens)

    def _read(self, provider: _Provider, tokens: Mapping[str, Any], nonce: str) -> Person:
        text = tokens.get("id_token")
        if not isinstance(text, str):
            raise SignInRefused("no_id_token")
        issuer = self._issuer_of(provider.keys)
        try:
            claims = self._verified(text, issuer, nonce, tokens.get("access_token"))
            # What makes an ID token one is checked; from here on it is read as any token of this issuer.
            named = read_claims({key: value for key, value in claims.items() if key not in _ID_TOKEN_ONLY}, issuer)
        except TokenRejected as error:
            raise SignInRefused(f"id_token_{error.reason}") from error
        if named.directory_id is not None:
            raise SignInRefused("groups_elsewhere")
        who = named.principal
        entry = Entry(subject=who.subject, tenant=who.tenant)
        return self._names.named(entry, who.groups, who.roles)

    def _verified(self, text: str, issuer: Issuer, nonce: str, access_token: object) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
        from joserfc.errors import JoseError

        try:
            header = jwt.get_unverified_header(text)
        except jwt.PyJWTError:
            raise TokenRejected("shape") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.algorithms or not (kid is None or isinstance(kid, str)):
            raise TokenRejected("algorithm")
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                issuer.keys.key(kid, algorithm),
                algorithms=[algorithm],
                audience=self._client.client_id,
                issuer=self._issuer,
                leeway=self._client.leeway_s,
                options={"require": ["exp", "iat", "iss", "aud", "sub", "nonce"]},
            )
            wanted = {"nonce": nonce, "client_id": self._client.client_id, "access_token": access_token}
            CodeIDToken(claims, header, {}, wanted).validate(leeway=int(self._client.leeway_s))
        except jwt.PyJWTError as error:
            raise TokenRejected(f"library_{type(error).__name__}") from None
        except JoseError as error:
            raise TokenRejected(f"library_{type(error).__name__}") from None
        return claims

    async def _discovered(self) -> _Provider:
        async with self._lock:
            now = self._clock()
            if now - self._known_at > DISCOVERY_S and now - self._tried_at > RETRY_S:
                self._tried_at = now
                await self._discover()
            if self._provider is None:
                raise Unavailable("The identity provider's discovery document cannot be had.")
            return self._provider

    async def _discover(self) -> None:
        """Read the document. One that was read before serves on where this one is of no use."""
        try:
            self._provider = self._read_document(await self._document())
            self._known_at = self._clock()
        except (OSError, ValueError) as error:
            host = urlsplit(self._issuer).hostname
            log.warning("the discovery document of %s is of no use: %s", host, str(error) or type(error).__name__)

    def _read_document(self, document: Mapping[str, Any]) -> _Provider:
        if document.get("issuer") != self._issuer:
            raise ValueError("it names another issuer")
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        authorization, token, keys = (private_address(str(document.get(name))) for name in names)
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = isinstance(methods, list) and "client_secret_basic" in methods
        known = self._provider
        endpoint = known.keys if known is not None and known.keys_uri == keys else JwksEndpoint(keys)
        return _Provider(authorization, token, basic, keys, endpoint)

    async def _document(self) -> dict[str, Any]:
        import httpx2

        address = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        body = bytearray()
        try:
            async with (
                asyncio.timeout(2 * self._client.timeout_s),
                httpx2.AsyncClient(timeout=self._client.timeout_s, trust_env=False) as client,
                client.stream("GET", address) as answer,
            ):
                if answer.status_code != 200:
                    raise ValueError(f"status {answer.status_code}")
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > MAX_DOCUMENT_BYTES:
                        raise ValueError("too long")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ConnectionError(type(error).__name__) from error
        document = json.loads(bytes(body))
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
        return document
