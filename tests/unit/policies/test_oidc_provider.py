"""A real OpenID provider on loopback: discovery, keys, and what its tokens are good for here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import flask
import httpx2
import jwt
import oidc_provider_mock
import pytest
from werkzeug.serving import make_server

from policies.errors import TokenRejected
from policies.identity import Identity
from policies.issuers import Issuer
from policies.keys import JwksEndpoint
from policies.tokens import TokenVerifier

CLIENT, SECRET, BACK = "rayrag", "a secret", "http://127.0.0.1/callback"


@dataclass
class Provider:
    """The running provider: its discovery document, and the tokens of a person who signed in."""

    discovery: dict[str, Any]
    access_token: str
    id_token: str
    refresh_token: str
    signing_key: Any


@contextmanager
def serving(application: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    application = oidc_provider_mock.app()
    with application.test_request_context("/"):
        application.preprocess_request()
        signing_key = jwt.PyJWK.from_dict(flask.g.oidc_provider_mock_storage.jwk.as_dict(is_private=True), "RS256").key
    with serving(application) as address:
        with httpx2.Client(base_url=address, trust_env=False) as client:
            discovery = client.get("/.well-known/openid-configuration").json()
            asked = {
                "client_id": CLIENT,
                "redirect_uri": BACK,
                "response_type": "code",
                "scope": "openid",
                "nonce": "n",
            }
            sent_back = client.post("/oauth2/authorize", params=asked, data={"sub": "ada"})
            code = parse_qs(urlsplit(sent_back.headers["location"]).query)["code"][0]
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK}
            answer = client.post("/oauth2/token", data=form, auth=(CLIENT, SECRET)).json()
        tokens = (answer[kind] for kind in ("access_token", "id_token", "refresh_token"))
        yield Provider(discovery, *tokens, signing_key)


def identity(provider: Provider, audience: str = CLIENT) -> Identity:
    endpoint = JwksEndpoint(provider.discovery["jwks_uri"])
    return Identity(
        TokenVerifier([Issuer(provider.discovery["issuer"], audience, ("RS256",), endpoint, tenant="acme")])
    )


def test_its_published_key_verifies_what_it_signed(provider: Provider) -> None:
    head = jwt.get_unverified_header(provider.id_token)
    key = JwksEndpoint(provider.discovery["jwks_uri"]).key(head.get("kid"), head["alg"])

    said = jwt.decode(provider.id_token, key, ["RS256"], audience=CLIENT)

    assert (said["sub"], said["iss"]) == ("ada", provider.discovery["issuer"])


@pytest.mark.parametrize("kind", ["id_token", "access_token", "refresh_token"])
def test_no_token_of_a_sign_in_is_a_bearer_token_here(provider: Provider, kind: str) -> None:
    """Its access tokens are opaque, and an ID token tells a web page who signed in: neither opens anything."""
    with pytest.raises(TokenRejected) as raised:
        identity(provider).verify(getattr(provider, kind))
    assert raised.value.reason == ("kind" if kind == "id_token" else "shape")


def test_an_access_token_that_it_signs_is_accepted_and_one_for_another_application_is_not(provider: Provider) -> None:
    now = int(time.time())
    said = {"iss": provider.discovery["issuer"], "aud": CLIENT, "sub": "ada", "iat": now, "exp": now + 60}
    signed = jwt.encode(said, provider.signing_key, "RS256", headers={"typ": "at+jwt"})

    assert identity(provider).verify(signed).subject == "ada"
    with pytest.raises(TokenRejected):
        identity(provider, "payroll").verify(signed)
