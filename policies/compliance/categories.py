"""The kinds of documents that rules are about."""

from __future__ import annotations

PHI = "PHI"
PCI = "PCI"
FINANCIAL_RECORD = "financial_record"
PERSONAL_DATA = "personal_data"
SECRETS = "secrets"
CATEGORIES = frozenset({PHI, PCI, FINANCIAL_RECORD, PERSONAL_DATA, SECRETS})
