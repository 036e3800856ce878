"""An OpenID provider (oidc-provider-mock) on loopback which, unlike that one alone, insists on PKCE (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import werkzeug.serving
from oidc_provider_mock import User, app
from oidc_provider_mock._app import AuthorizationCodeGrant

USERS = [
    User(sub="ada", claims={"groups": ["engineers", "all"], "org": "acme"}),
    User(sub="mallory", claims={"groups": "engineers"}),
    User(sub="crowded", claims={"_claim_names": {"groups": "src1"}}),
]


class OpenIdProvider:
    """`redeemed` holds the forms that came to the token endpoint; `down` makes every answer a 503."""

    def __init__(self) -> None:
        self._app = app(require_nonce=True, user_claims=USERS)
        self._challenges: list[str] = []
        self.redeemed: list[dict[str, str]] = []
        self.down = False
        self.url = ""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI, in front of the provider."""
        query = {key: values[0] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        if self.down:
            start("503 Service Unavailable", [])
            return []
        if environ["PATH_INFO"] == "/oauth2/authorize":
            assert query["code_challenge_method"] == "S256"
            self._challenges.append(query["code_challenge"])
        if environ["PATH_INFO"] == "/oauth2/token":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            self.redeemed.append(form)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") not in self._challenges:
                start("400 Bad Request", [("content-type", "application/json")])
                return [b'{"error": "invalid_grant"}']
        answer: Iterable[bytes] = self._app(environ, start)
        return answer

    def public_client(self, redirect_uri: str) -> str:
        """Register a client without a secret; gives its id."""
        asked = {"redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"}
        return str(httpx2.post(f"{self.url}/oauth2/clients", json=asked).json()["client_id"])

    def consent(self, location: str, subject: str = "ada", *, deny: bool = False) -> str:
        """Do what the person does in the browser: say who they are. Gives where the browser is sent to."""
        form = {"action": "deny"} if deny else {"sub": subject}
        answer = httpx2.post(location, data=form, follow_redirects=False)
        assert answer.status_code in (302, 303), answer.text
        return str(answer.headers["location"])


@contextmanager
def running_provider() -> Iterator[OpenIdProvider]:
    provider = OpenIdProvider()
    server = werkzeug.serving.make_server("localhost", 0, provider, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    provider.url = f"http://localhost:{server.server_port}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            # It registers public clients, and redeems no code of theirs (RFC 7636 is about them).
            methods = ["none", "client_secret_basic", "client_secret_post"]
            patch.setattr(AuthorizationCodeGrant, "TOKEN_ENDPOINT_AUTH_METHODS", methods)
            yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def parameters(location: str) -> dict[str, str]:
    """Read the parameters of an address."""
    return {key: values[0] for key, values in parse_qs(urlsplit(location).query).items()}
