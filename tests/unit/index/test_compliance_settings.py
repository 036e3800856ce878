"""Settings of compliance: the path of what is wrong is named, and what is said is what applies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from index.regimes import policies_of
from index.settings import parse
from policies.errors import ConfigurationError
from policies.labels import Label

IDENTITY = {"issuers": [{"issuer": "x", "audience": "y", "algorithms": ["EdDSA"], "key_file": "k"}]}


def read(**compliance: Any) -> Any:
    return parse({"identity": IDENTITY, "compliance": compliance}, "serve_config.yaml").compliance


def test_by_default_nothing_applies_and_the_key_lies_with_the_secrets(tmp_path):
    settings = parse({"data_dir": str(tmp_path), "identity": IDENTITY}).compliance
    assert settings.key_file == f"{tmp_path}/secrets/compliance.key"
    assert policies_of(settings).of("acme", "s").rules == ()


def test_a_tenant_that_is_named_has_its_own_and_others_the_default():
    made = policies_of(
        read(
            default={"regimes": ["gdpr"]},
            tenants={
                "acme": {"regimes": ["sox"], "sources": {"clinic/*": {"regimes": ["hipaa"], "label": "restricted"}}}
            },
        )
    )
    assert made.of("other", "s").regimes == ("gdpr",)
    assert made.of("acme", "clinic/a").regimes == ("hipaa", "sox")
    assert made.of("acme", "clinic/a").minimum(set()).label is Label.RESTRICTED
    assert made.of("acme", "wiki").minimum(set()) is None


def test_a_regime_of_the_operators_is_read(tmp_path: Path):
    path = tmp_path / "house.yaml"
    path.write_text("regime: house\ntitle: House\n")
    assert policies_of(read(regime_files=[str(path)], default={"regimes": ["house"]})).of("a", "s").regimes == (
        "house",
    )


@pytest.mark.parametrize(
    ("compliance", "path"),
    [
        (
            {"default": {"regimes": ["gpdr"]}},
            "args.compliance.default.regimes.0: 'gpdr' is no regime; allowed: ccpa, gdpr",
        ),
        ({"tenants": {"a": {"regimes": ["x"]}}}, "args.compliance.tenants.a.regimes.0: 'x'"),
        (
            {"tenants": {"a": {"sources": {"s": {"regimes": ["x"]}}}}},
            "args.compliance.tenants.a.sources.s.regimes.0: 'x'",
        ),
        ({"tenants": {"a": {"regime": ["x"]}}}, "args.compliance.tenants.a.regime: "),
        ({"detection": {"entities": ["MAIL"]}}, "args.compliance.detection.entities: "),
        ({"default": {"retention_days": {"PHI": 0}}}, "args.compliance.default.retention_days: "),
        ({"default": {"purposes": {"p": {"basis": "whim"}}}}, "args.compliance.default.purposes.p.basis: "),
        ({"regime_files": ["/nowhere.yaml"]}, "args.compliance.regime_files: /nowhere.yaml: "),
    ],
)
def test_what_is_wrong_stops_the_start_with_its_path(compliance, path):
    with pytest.raises(ConfigurationError) as raised:
        read(**compliance)
    assert path in raised.value.detail
