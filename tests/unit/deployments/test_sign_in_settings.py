"""Wrong settings stop the start, and the message names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.sign_in_ways import session_tokens, ways
from policies.errors import ConfigurationError
from tests.unit.deployments.sign_in_service import settings

LDAP = {"url": "ldaps://dir.example", "bind_dn": "cn=x", "bind_password_env": "BIND", "base": "dc=x", "tenant": "acme"}
OIDC = {"issuer": "https://idp.example", "client_id": "c", "tenant": "acme"}
SAML = {"metadata_file": "idp.xml", "tenant": "acme"}
PUBLIC = {"public_url": "https://rag.example"}


def fails(home: Path, sign_in: dict[str, Any], **sessions: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        ways(settings(home, sign_in, **sessions).identity)
    return error.value.detail


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIND", "password")


@pytest.mark.parametrize(
    ("kind", "way", "named"),
    [
        ("ldap", LDAP | {"url": "ldap://dir.example"}, "sign_in.ldap.corp"),
        ("ldap", LDAP | {"url": "http://dir.example"}, "url"),
        ("ldap", LDAP | {"start_tls": True}, "start_tls"),
        ("ldap", LDAP | {"person_filter": "(uid=ada)"}, "person_filter"),
        ("ldap", LDAP | {"person_filter": "(uid={username}"}, "person_filter"),
        ("ldap", LDAP | {"group_filter": "group"}, "group_filter"),
        ("ldap", LDAP | {"disabled_filter": "(("}, "disabled_filter"),
        ("ldap", LDAP | {"bind_password_env": "UNSET"}, "UNSET"),
        ("ldap", LDAP | {"bind_password": "secret"}, "allowed here"),
        ("ldap", LDAP | {"tenant": None}, "tenant"),
        ("ldap", LDAP | {"attributes": {"tenant": "o"}}, "tenant"),
        ("ldap", LDAP | {"ca_file": "/nowhere.pem"}, "ca_file"),
        ("ldap", LDAP | {"nesting": "some"}, "nesting"),
        ("ldap", LDAP | {"subject_prefix": "service:"}, "subject_prefix"),
        ("oidc", OIDC | {"issuer": "http://idp.example"}, "sign_in.oidc.corp.issuer"),
        ("oidc", OIDC | {"scopes": ["profile"]}, "openid"),
        ("oidc", OIDC | {"algorithms": ["HS256"]}, "algorithms"),
        ("oidc", OIDC | {"client_secret_env": "UNSET"}, "UNSET"),
        ("saml", SAML, "metadata_file"),
        ("saml", SAML | {"key_file": "k"}, "cert_file"),
    ],
)
def test_a_wrong_way_stops_the_start(tmp_path: Path, kind: str, way: dict[str, Any], named: str) -> None:
    assert named in fails(tmp_path, {**PUBLIC, kind: {"corp": way}})


def test_browsers_must_find_the_way_back(tmp_path: Path) -> None:
    assert "public_url" in fails(tmp_path, {"oidc": {"corp": OIDC}})
    assert "public_url" in fails(tmp_path, {"public_url": "http://rag.example", "oidc": {"corp": OIDC}})
    assert "public_url" in fails(tmp_path, {"public_url": "https://rag.example/app", "oidc": {"corp": OIDC}})


def test_two_ways_do_not_name_the_same_people_by_accident(tmp_path: Path) -> None:
    both = {**PUBLIC, "ldap": {"corp": LDAP}, "oidc": {"entra": OIDC}}
    assert "subjects" in fails(tmp_path, both)

    for change in ({"subject_prefix": "corp:"}, {"tenant": "globex"}):
        assert ways(settings(tmp_path, {**both, "ldap": {"corp": LDAP | change}}).identity).ldap
    shared = {"subjects": "shared"}
    apart = {**PUBLIC, "ldap": {"corp": LDAP | shared}, "oidc": {"entra": OIDC | shared}}
    assert ways(settings(tmp_path, apart).identity).oidc
    assert "subjects" in fails(tmp_path, {"ldap": {"corp": LDAP | {"subject_prefix": "dev:"}}})  # the issuer's


def test_a_way_and_an_issuer_of_one_tenant_in_two_spellings_are_of_one_tenant(tmp_path: Path) -> None:
    identity = settings(tmp_path, {"ldap": {"corp": LDAP | {"tenant": "caf\u00e9"}}}).identity
    written = identity.issuers[0].model_copy(update={"tenant": "cafe\u0301", "subject_prefix": ""})

    with pytest.raises(ConfigurationError, match="subjects"):
        ways(identity.model_copy(update={"issuers": [written]}))


def test_where_nobody_signs_in_there_is_no_key(tmp_path: Path) -> None:
    assert session_tokens(settings(tmp_path, {}).identity) is None
    assert not (tmp_path / "secrets" / "sessions.pem").exists()
    assert session_tokens(settings(tmp_path, {"ldap": {"corp": LDAP}}).identity) is not None
    assert (tmp_path / "secrets" / "sessions.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("token_s", [59, 901])
def test_session_tokens_are_short_lived(tmp_path: Path, token_s: int) -> None:
    assert "identity.sessions.token_s" in fails(tmp_path, {}, token_s=token_s)
