"""Signing in at a SAML 2.0 identity provider, in a browser: our request goes by redirect, its response comes by POST.

`saml_shape` says which responses are looked at at all; `pysaml2` then checks signature, times, audience and recipient,
with the keys of the provider's metadata. An assertion is good for one sign-in.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.errors import ConfigurationError, SignInRefused
from policies.secret_files import require_private, require_unchanged
from policies.signing_in.people import Entry, Names, Person
from policies.signing_in.saml_shape import MAX_BYTES, Asserted, Expected, read_response

CLOCK_SKEW_S = 60
NAME_ID = "NameID"


@dataclass(frozen=True, slots=True)
class SamlService:
    """Who we are to the provider. `key_file` and `cert_file`, where given, sign our requests."""

    entity_id: str
    consumer: str
    metadata_file: str
    identity_provider: str | None = None
    key_file: str | None = None
    cert_file: str | None = None


@dataclass(frozen=True, slots=True)
class SamlAttributeNames:
    """Which attributes say what; the subject may be `NameID`."""

    subject: str = NAME_ID
    tenant: str | None = None
    roles: str | None = None
    groups: str | None = None


@dataclass(frozen=True, slots=True)
class SamlSignIn:
    """Who signed in, and what must not do so again before `until` (Unix seconds)."""

    person: Person
    assertion_id: str
    until: float


class SamlProvider:
    """One identity provider. Its methods start a program (xmlsec1): call them in a thread."""

    def __init__(self, service: SamlService, attributes: SamlAttributeNames, names: Names) -> None:
        self._service = service
        self._attributes = attributes
        self._names = names
        self._client = _client(service)
        self._provider = _identity_provider(self._client, service)

    def metadata(self) -> str:
        """Describe us to the provider, as XML."""
        from saml2.metadata import entity_descriptor  # type: ignore[import-untyped]

        return str(entity_descriptor(self._client.config))

    def begin(self, relay_state: str) -> tuple[str, str]:
        """Give the id of a new request, and the address to send the browser to."""
        from saml2 import BINDING_HTTP_REDIRECT  # type: ignore[import-untyped]

        request_id, sent = self._client.prepare_for_authenticate(
            entityid=self._provider, relay_state=relay_state, binding=BINDING_HTTP_REDIRECT
        )
        return str(request_id), str(dict(sent["headers"])["Location"])

    def finish(self, encoded: str, request_id: str) -> SamlSignIn:
        """Say who came back. `encoded`: the form's SAMLResponse. Raises `SignInRefused`."""
        xml = _decoded(encoded)
        service = self._service
        said = read_response(xml, Expected(self._provider, service.entity_id, service.consumer, request_id))
        self._check(encoded, request_id, said)
        return SamlSignIn(self._names.person(self._entry(said)), said.assertion_id, _seconds(said.not_on_or_after))

    def _check(self, encoded: str, request_id: str, said: Asserted) -> None:
        from saml2 import BINDING_HTTP_POST
        from saml2.population import Population  # type: ignore[import-untyped]

        try:
            checked = self._client.parse_authn_request_response(
                encoded, BINDING_HTTP_POST, outstanding={request_id: "begun"}
            )
        except Exception as error:
            # The library raises many kinds, bare `Exception` among them: none of them lets anybody in.
            raise SignInRefused(f"saml_{type(error).__name__}") from error
        finally:
            self._client.users = Population()  # the library keeps everybody who ever came, with what was said of them
        if checked is None or checked.assertion is None or checked.assertion.id != said.assertion_id:
            raise SignInRefused("saml_response")

    def _entry(self, said: Asserted) -> Entry:
        wanted = self._attributes
        subject = said.name_id if wanted.subject == NAME_ID else _one(said.attributes, wanted.subject)
        return Entry(
            subject=subject,
            tenant=_one(said.attributes, wanted.tenant) if wanted.tenant else None,
            roles=said.attributes.get(wanted.roles, ()) if wanted.roles else (),
            groups=said.attributes.get(wanted.groups, ()) if wanted.groups else (),
        )


def _client(service: SamlService) -> Any:
    _require_files(service)
    try:
        from saml2 import BINDING_HTTP_POST
        from saml2.client import Saml2Client  # type: ignore[import-untyped]
        from saml2.config import SPConfig  # type: ignore[import-untyped]
        from saml2.sigver import SigverError, get_xmlsec_binary  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigurationError("identity.sign_in.saml: install rayrag[saml]") from error
    try:
        program = get_xmlsec_binary()
    except SigverError as error:
        raise ConfigurationError("identity.sign_in.saml: install the program xmlsec1") from error
    _silence()
    endpoints = {"assertion_consumer_service": [(service.consumer, BINDING_HTTP_POST)]}
    settings: dict[str, Any] = {
        "entityid": service.entity_id,
        "service": {
            "sp": {
                "endpoints": endpoints,
                "allow_unsolicited": False,
                "authn_requests_signed": service.key_file is not None,
                "want_assertions_signed": True,
                "want_response_signed": False,
            }
        },
        "metadata": {"local": [service.metadata_file]},
        "xmlsec_binary": program,
        "accepted_time_diff": CLOCK_SKEW_S,
        "allow_unknown_attributes": True,
    }
    if service.key_file is not None:
        settings |= {"key_file": service.key_file, "cert_file": service.cert_file}
    try:
        return Saml2Client(config=SPConfig().load(settings))
    except Exception as error:
        # The library raises what its parsers raise.
        reason = f"{service.metadata_file} or the keys cannot be used ({type(error).__name__})"
        raise ConfigurationError(f"identity.sign_in.saml: {reason}") from error


def _require_files(service: SamlService) -> None:
    require_unchanged(Path(service.metadata_file), "identity.sign_in.saml: metadata_file")
    if service.key_file is not None:
        require_private(Path(service.key_file), "identity.sign_in.saml: key_file")
    if service.cert_file is not None:
        require_unchanged(Path(service.cert_file), "identity.sign_in.saml: cert_file")


def _silence() -> None:
    """Keep the library's words out of every log: at each level it writes whole assertions, with who signs in."""
    logger = logging.getLogger("saml2")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False


def _identity_provider(client: Any, service: SamlService) -> str:
    known = sorted(client.metadata.with_descriptor("idpsso"))
    if service.identity_provider is not None and service.identity_provider in known:
        return service.identity_provider
    if service.identity_provider is not None or len(known) != 1:
        raise ConfigurationError(
            f"identity.sign_in.saml: identity_provider: {service.metadata_file} names {known}; give one of them"
        )
    return str(known[0])


def _decoded(encoded: str) -> bytes:
    if len(encoded) > 2 * MAX_BYTES:
        raise SignInRefused("saml_xml")
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SignInRefused("saml_xml") from None


def _seconds(written: str) -> float:
    from saml2.time_util import str_to_time  # type: ignore[import-untyped]

    return calendar.timegm(str_to_time(written)) + CLOCK_SKEW_S


def _one(attributes: Mapping[str, list[str]], name: str) -> str:
    values = attributes.get(name, [])
    if len(values) != 1:
        raise SignInRefused(f"attribute_{name[:64]}")
    return values[0]
