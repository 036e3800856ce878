"""What kind of document this is, and how sensitive: from what was found, where it lies and what it is called.

The reasons are kept, and hold no value: how many of which entity, and which of our own words stood in its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from policies.compliance.categories import FINANCIAL_RECORD, PCI, PERSONAL_DATA, PHI, SECRETS
from policies.labels import Label
from policies.pii.findings import BANKING, GROUPS, HEALTH, PAYMENT, Finding
from policies.pii.findings import SECRETS as SECRET_ENTITIES

_NOT_PERSONAL = frozenset({"URL", "DOMAIN_NAME", "ORGANIZATION", "VAT_NUMBER", "SWIFT_CODE", "US_ROUTING_NUMBER"})
_PERSONAL = GROUPS["DIRECT_IDENTIFIERS"] - _NOT_PERSONAL
_HEALTH_WORDS = frozenset(
    "patient diagnosis diagnosed prescribed prescription dosage symptoms treatment surgery clinical medication "  # noqa: SIM905
    "allergies physician oncology radiology discharge anamnesis admitted inpatient outpatient icd-10 prognosis "
    "patientin diagnose befund patienten ordonnance paciente diagnóstico".split()
)
_MIN_HEALTH_WORDS = 3
_FINANCIAL_NAMES = (
    "invoice",
    "ledger",
    "balance sheet",
    "journal entr",
    "workpaper",
    "working paper",
    "audit report",
    "annual report",
    "10-k",
    "10-q",
    "income statement",
    "accounts payable",
    "accounts receivable",
    "month-end",
    "budget",
    "payroll",
    "tax return",
    "trial balance",
    "rechnung",
    "bilanz",
    "facture",
    "factura",
)
_HEALTH_NAMES = ("patient", "medical record", "clinical", "hospital", "health plan", "diagnos")
_MIN_BANKING = 2
_WORDS = re.compile(r"[^\W_]+(?:-\d+)?")
_LABELS: Mapping[str, Label] = {
    PERSONAL_DATA: Label.CONFIDENTIAL,
    FINANCIAL_RECORD: Label.CONFIDENTIAL,
    PHI: Label.RESTRICTED,
    PCI: Label.RESTRICTED,
    SECRETS: Label.RESTRICTED,
}


@dataclass(frozen=True, slots=True)
class Classification:
    """A document's label, as it would be by its content alone, and its categories with the reasons for each."""

    label: Label
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def classify(
    findings: Iterable[Finding],
    text: str,
    names: Iterable[str],
    held: Label,
    said: Collection[str] = (),
) -> Classification:
    """Classify a document. `names`: its title, path and source; `held`: its rule's label; `said`: by the operator."""
    found = Counter(finding.entity for finding in findings)
    name = " ".join(" ".join(_WORDS.findall(each.casefold())) for each in names)
    reasons: dict[str, list[str]] = {category: ["its source is configured so"] for category in said}
    for category, entities in ((SECRETS, SECRET_ENTITIES), (PCI, PAYMENT), (PHI, HEALTH), (PERSONAL_DATA, _PERSONAL)):
        counted = [f"{found[entity]} {entity}" for entity in sorted(entities) if found[entity]]
        reasons.setdefault(category, []).extend(counted)
    _by_words(reasons, found, text, name)
    kept = {category: tuple(why) for category, why in sorted(reasons.items()) if why}
    return Classification(max([held, *(_LABELS[category] for category in kept)]), kept)


def _by_words(reasons: dict[str, list[str]], found: Mapping[str, int], text: str, name: str) -> None:
    financial = reasons.setdefault(FINANCIAL_RECORD, [])
    financial += [
        f"its name says {word}" for word in _FINANCIAL_NAMES if word.replace("-", " ") in name or word in name
    ]
    banking = sum(found.get(entity, 0) for entity in BANKING)
    if banking >= _MIN_BANKING:
        financial.append(f"{banking} numbers of accounts")
    personal = any(found.get(entity, 0) for entity in _PERSONAL)
    if personal:
        health = reasons.setdefault(PHI, [])
        health += [f"its name says {word}" for word in _HEALTH_NAMES if word in name]
        said = _HEALTH_WORDS & {word.casefold() for word in _WORDS.findall(text)}
        if len(said) >= _MIN_HEALTH_WORDS:
            health.append(f"{len(said)} words of medicine beside personal data")
