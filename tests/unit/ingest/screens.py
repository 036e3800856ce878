"""A screen for tests: the real one, under the regimes that a test names."""

from __future__ import annotations

from index.ledger import Ledger
from ingest.screening import Screening
from policies.compliance.combining import Applied, Policies
from policies.keyed_hashes import KeyedHashes
from policies.pii.detector import Detector

KEY = b"k" * 32


def screening(ledger: Ledger, *regimes: str, **said: object) -> Screening:
    """Screen every tenant's documents; without regimes they are classified, and nothing else."""
    policies = Policies(Applied(regimes=regimes, **said))  # type: ignore[arg-type]
    return Screening(ledger, policies, Detector(), KeyedHashes(KEY))
