"""Settings of what is done with personal data: which regimes apply to whom, for what purposes, how long, and where."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from index.labels import LabelWord
from index.sections import Section
from policies.pii.findings import expand

COMPLIANCE_KEY = "${data_dir}/secrets/compliance.key"
Basis = Literal[
    "consent",
    "contract",
    "legal_obligation",
    "vital_interests",
    "public_task",
    "legitimate_interests",
    "notice",
    "forbidden",
]
DAY_S = 86_400.0


class DetectionSettings(Section):
    """What is looked for."""

    entities: list[str] = Field(
        default_factory=lambda: ["ALL"], description="entities, or groups of them, that are looked for"
    )
    min_score: float = Field(default=0.4, ge=0, le=1, description="what is found with less is let be")

    @field_validator("entities")
    @classmethod
    def _are_known(cls, value: list[str]) -> list[str]:
        expand(value)
        return value


class PurposeSettings(Section):
    """Why somebody may ask. `basis: consent` needs consent on record; `forbidden` is refused."""

    basis: Basis
    roles: list[str] = Field(default_factory=list, description="who may state it; none: everybody")
    reveals: bool = Field(default=False, description="whether personal data may be shown for it, with pii:reveal")


class ApplyingSettings(Section):
    """What applies to a tenant, or to one of its sources, on top of the tenant's."""

    regimes: list[str] = Field(default_factory=list)
    purposes: dict[str, PurposeSettings] = Field(
        default_factory=dict, description="added to, or in place of, those of the regimes"
    )
    require_purpose: bool = Field(default=False, description="refuse a question that states no purpose")
    default_purpose: str | None = Field(default=None, description="of a question that states none")
    retention_days: dict[str, float] = Field(
        default_factory=dict,
        description="by category, or `*`: documents expire so long after they were indexed first",
    )
    residency: list[str] = Field(
        default_factory=list, description="regions of which compliance.region must be one; none: anywhere"
    )
    passages: int | None = Field(default=None, ge=1, le=50, description="at most so many for an answer")

    @field_validator("retention_days")
    @classmethod
    def _are_long(cls, value: dict[str, float]) -> dict[str, float]:
        if any(days <= 0 for days in value.values()):
            raise ValueError("a number of days above 0")
        return value


class SourceCompliance(ApplyingSettings):
    """What applies to one source, on top of its tenant's."""

    categories: list[str] = Field(default_factory=list, description="of each of its documents, whatever is found")
    label: LabelWord | None = Field(default=None, description="the lowest label of its documents")


class TenantCompliance(ApplyingSettings):
    """What applies to a tenant in place of `default`."""

    sources: dict[str, SourceCompliance] = Field(default_factory=dict)


class ComplianceSettings(Section):
    """What is done with personal data. Without a regime documents are only classified."""

    detection: DetectionSettings = DetectionSettings()
    regime_files: list[str] = Field(default_factory=list, description="YAML files with regimes of your own")
    default: TenantCompliance = TenantCompliance()
    tenants: dict[str, TenantCompliance] = Field(default_factory=dict)
    region: str | None = Field(default=None, description="where this deployment runs, for residency")
    key_file: str = Field(
        default=COMPLIANCE_KEY, description="the secret of pseudonyms and keyed hashes; made where there is none"
    )
    physical_erasure_days: float = Field(
        default=30.0, ge=0, le=90, description="by then what was erased is gone from the disk as well"
    )
    export_days: float = Field(default=7.0, gt=0, le=30, description="for so long the answer to a person is kept")
    expire_every_s: float = Field(default=3600.0, gt=0, description="how often what has expired is removed")

    def applying(self, tenant: str) -> TenantCompliance:
        """Give what applies to this tenant."""
        return self.tenants.get(tenant, self.default)
