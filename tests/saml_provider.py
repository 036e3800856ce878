"""A SAML identity provider (pysaml2's own) that answers requests with really signed responses."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.certificates import self_signed
from tests.servers import program

ENTITY = "https://idp.example.org/metadata"
SSO = "https://idp.example.org/sso"


class SamlIdentityProvider:
    """`metadata_file` is for the service; `trust` must be told the service's metadata."""

    def __init__(self, home: Path, name: str = "idp") -> None:
        program("xmlsec1")
        self._home = home
        self._key, self._cert = self_signed(home, name)
        self.metadata_file = home / f"{name}.xml"
        self._server: Any = None
        from saml2.config import IdPConfig
        from saml2.metadata import entity_descriptor

        self.metadata_file.write_text(str(entity_descriptor(IdPConfig().load(self._settings([])))))

    def _settings(self, metadata: list[str]) -> dict[str, Any]:
        from saml2 import BINDING_HTTP_REDIRECT
        from saml2.saml import NAME_FORMAT_URI, NAMEID_FORMAT_PERSISTENT

        return {
            "entityid": ENTITY,
            "service": {
                "idp": {
                    "endpoints": {"single_sign_on_service": [(SSO, BINDING_HTTP_REDIRECT)]},
                    "name_id_format": [NAMEID_FORMAT_PERSISTENT],
                    "policy": {"default": {"lifetime": {"minutes": 5}, "name_form": NAME_FORMAT_URI}},
                }
            },
            "key_file": str(self._key),
            "cert_file": str(self._cert),
            "metadata": {"local": metadata},
            "xmlsec_binary": program("xmlsec1"),
        }

    def trust(self, metadata: str) -> None:
        from saml2.config import IdPConfig
        from saml2.server import Server

        file = self._home / "service.xml"
        file.write_text(metadata)
        self._server = Server(config=IdPConfig().load(self._settings([str(file)])))

    def answer(
        self,
        location: str,
        attributes: dict[str, list[str]] | None = None,
        subject: str = "ada",
        *,
        sign_assertion: bool = True,
        sign_response: bool = False,
        **changes: Any,
    ) -> dict[str, str]:
        """Answer the request to which a browser was sent; gives the form that it brings back."""
        from saml2 import BINDING_HTTP_REDIRECT
        from saml2.saml import NAMEID_FORMAT_PERSISTENT, NameID
        from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256

        query = {key: values[0] for key, values in parse_qs(urlsplit(location).query).items()}
        request = self._server.parse_authn_request(query["SAMLRequest"], BINDING_HTTP_REDIRECT).message
        told = {
            "in_response_to": request.id,
            "sp_entity_id": request.issuer.text,
            "destination": request.assertion_consumer_service_url,
        }
        response = self._server.create_authn_response(
            attributes or {},
            name_id=NameID(format=NAMEID_FORMAT_PERSISTENT, text=subject),
            authn={"class_ref": "urn:oasis:names:tc:SAML:2.0:ac:classes:Password"},
            sign_assertion=sign_assertion,
            sign_response=sign_response,
            sign_alg=SIG_RSA_SHA256,
            digest_alg=DIGEST_SHA256,
            **{**told, **changes},
        )
        return {"SAMLResponse": base64.b64encode(str(response).encode()).decode(), "RelayState": query["RelayState"]}
