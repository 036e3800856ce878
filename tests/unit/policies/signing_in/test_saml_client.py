"""What the SAML library is given, and what it must not do beside its work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from policies.errors import ConfigurationError, SignInRefused
from policies.signing_in.people import Names
from policies.signing_in.saml import SamlAttributeNames, SamlProvider, SamlService
from tests.certificates import self_signed
from tests.saml_provider import SamlIdentityProvider

CONSUMER = "https://rag.example.org/acs"


@pytest.fixture(scope="module")
def idp(tmp_path_factory: pytest.TempPathFactory) -> SamlIdentityProvider:
    return SamlIdentityProvider(tmp_path_factory.mktemp("saml"))


def provider(service: SamlService) -> SamlProvider:
    return SamlProvider(service, SamlAttributeNames(), Names(tenant="acme"))


@pytest.fixture
def service(idp: SamlIdentityProvider, tmp_path: Path) -> SamlService:
    key, cert = self_signed(tmp_path, "ours")
    key.chmod(0o600)
    metadata = tmp_path / "idp.xml"
    metadata.write_text(idp.metadata_file.read_text())
    return SamlService(
        "https://rag.example.org/metadata", CONSUMER, str(metadata), key_file=str(key), cert_file=str(cert)
    )


def signed_in(made: SamlProvider, idp: SamlIdentityProvider) -> str:
    idp.trust(made.metadata())
    request_id, location = made.begin("state")
    assert parse_qs(urlsplit(location).query)["RelayState"] == ["state"]
    return made.finish(idp.answer(location)["SAMLResponse"], request_id).person.principal.subject


def test_no_assertion_is_logged_and_nobody_is_kept(
    idp: SamlIdentityProvider, service: SamlService, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("saml2")
    logger.setLevel(logging.DEBUG)
    logger.propagate = True
    made = provider(service)
    with caplog.at_level(logging.DEBUG):
        assert signed_in(made, idp) == "ada"
        with pytest.raises(SignInRefused):
            made.finish("PGEvPg==", "id-x")

    assert [record.name for record in caplog.records if record.name.startswith("saml2")] == []
    assert made._client.users.subjects() == []


FILES: dict[str, tuple[Callable[[SamlService], str | None], int]] = {
    "a key that others may read": (lambda service: service.key_file, 0o644),
    "a key of a group": (lambda service: service.key_file, 0o640),
    "metadata that others may change": (lambda service: service.metadata_file, 0o666),
    "metadata that a group may change": (lambda service: service.metadata_file, 0o664),
    "a certificate that others may change": (lambda service: service.cert_file, 0o666),
}


@pytest.mark.parametrize(("file", "mode"), FILES.values(), ids=FILES)
def test_files_that_others_could_use_or_change_are_refused(
    service: SamlService, file: Callable[[SamlService], str | None], mode: int
) -> None:
    path = Path(str(file(service)))
    path.chmod(mode)

    with pytest.raises(ConfigurationError, match=f"has mode {mode:04o}"):
        provider(service)
