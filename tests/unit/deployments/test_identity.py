"""The configuration's identity section, as the documentation shows it, becomes what says who calls."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.identity import verifier
from index.settings import parse
from policies.errors import ConfigurationError

PAGE = Path(__file__).parents[3] / "docs" / "identity.md"
BLOCKS = {
    block["identity"]["issuers"][0]["issuer"]: block
    for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if (block := yaml.safe_load(text))
}


def settled(block: dict[str, Any], tmp_path: Path) -> Any:
    block = copy.deepcopy(block)
    for issuer in block["identity"]["issuers"]:
        if "overage" in issuer:
            (tmp_path / "secret").write_text("not a secret")
            (tmp_path / "secret").chmod(0o600)
            issuer["overage"]["client_secret_file"] = str(tmp_path / "secret")
    return parse({"data_dir": str(tmp_path), **block})


def test_the_page_shows_four_issuers() -> None:
    assert [re.sub(r".*?(microsoft|sso|okta|auth0).*", r"\1", name) for name in BLOCKS] == [
        "microsoft",
        "sso",
        "okta",
        "auth0",
    ]


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_what_the_page_shows_is_a_whole_configuration(block: dict[str, Any], tmp_path: Path) -> None:
    assert verifier(settled(block, tmp_path).identity)


def test_all_of_them_stand_side_by_side_when_they_say_whose_tenant_they_serve(tmp_path: Path) -> None:
    together: dict[str, Any] = {"identity": {"issuers": []}}
    for place, block in enumerate(copy.deepcopy(list(BLOCKS.values()))):
        issuer = block["identity"]["issuers"][0]
        together["identity"]["issuers"].append({**issuer, "tenant": f"tenant-{place}"})
    assert verifier(settled(together, tmp_path).identity)

    for issuer in together["identity"]["issuers"]:
        issuer["tenant"] = "acme"
    with pytest.raises(ConfigurationError, match=r"identity\.issuers\.1\.subjects"):
        verifier(settled(together, tmp_path).identity)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"issuer": ""}, "issuer"),
        ({"audience": []}, "audience"),
        ({"tenants": ["a"]}, "tenant"),
        ({"subject_prefix": "okta"}, "subject_prefix"),
        ({"subject_prefix": "service:"}, "subject_prefix"),
        ({"groups": {"map": {"a": "b\nc"}}}, "groups.map"),
        ({"groups": {"unmapped": "guess"}}, "groups.unmapped"),
        ({"claims": {"person": "oid"}}, "claims.person"),
        ({"types": ["logout+jwt"]}, "types"),
        ({"services": {"known_by": [], "client_id": "azp", "clients": {}}}, "services.known_by"),
        (
            {
                "services": {
                    "known_by": [{"claim": "a", "equals": "b", "absent": True}],
                    "client_id": "c",
                    "clients": {},
                }
            },
            "known_by",
        ),
        ({"overage": {"directory": "d", "client_id": "c"}}, "overage"),
        ({"overage": {"directory": "../x", "client_id": "c", "client_secret_env": "S"}}, "overage.directory"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(tmp_path: Path, change: dict[str, Any], path: str) -> None:
    keycloak = copy.deepcopy(BLOCKS["https://sso.example.com/realms/acme"])
    keycloak["identity"]["issuers"][0] |= change
    with pytest.raises(ConfigurationError, match=re.escape(path)) as raised:
        parse({"data_dir": str(tmp_path), **keycloak})
    assert "args.identity.issuers.0" in str(raised.value)


def test_a_client_secret_that_is_absent_stops_the_start(tmp_path: Path) -> None:
    entra = next(iter(BLOCKS.values()))
    with pytest.raises(ConfigurationError, match="overage|/run/secrets/entra"):
        verifier(parse({"data_dir": str(tmp_path), **copy.deepcopy(entra)}).identity)


def test_an_http_address_of_keys_stops_the_start(tmp_path: Path) -> None:
    keycloak = copy.deepcopy(BLOCKS["https://sso.example.com/realms/acme"])
    keycloak["identity"]["issuers"][0]["jwks_uri"] = "http://sso.example.com/keys"
    with pytest.raises(ConfigurationError, match="jwks_uri"):
        verifier(settled(keycloak, tmp_path).identity)
