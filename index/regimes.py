"""From the settings of compliance to policies, and to what looks for personal data."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from threading import Lock

from cachetools import LRUCache

from index.compliance_settings import ApplyingSettings, ComplianceSettings, DetectionSettings
from policies.compliance.combining import Applied, Policies
from policies.compliance.policy import READ
from policies.errors import ConfigurationError
from policies.pii.detector import Detector
from policies.pii.findings import Finding, expand

MAX_SEEN = 20_000
SEEN_CHARS = 8_000
"""What is remembered: passages and titles, not whole documents."""


class LazyFinder:
    """The detector that the settings ask for, made when a text is there to look at: most questions ask for none."""

    def __init__(self, settings: DetectionSettings, names: bool = True) -> None:
        """Without `names`: all but names, places, ages and dates, which takes a fraction of the time."""
        self._settings = settings
        self._entities = expand(settings.entities) - (frozenset() if names else READ)
        self._lock = Lock()
        self._detector: Detector | None = None
        self._seen: LRUCache[bytes, tuple[Finding, ...]] = LRUCache(MAX_SEEN)

    def find(self, text: str) -> list[Finding]:
        """Give what is found with a score of at least `min_score`. Of passages it is remembered: places, no text."""
        if len(text) > SEEN_CHARS:
            return self._found(text)
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            known = self._seen.get(key)
        if known is None:
            known = tuple(self._found(text))
            with self._lock:
                self._seen[key] = known
        return list(known)

    def _found(self, text: str) -> list[Finding]:
        found = (self._detector or self._made()).find(text)
        return [each for each in found if each.score >= self._settings.min_score]

    def _made(self) -> Detector:
        with self._lock:
            if self._detector is None:
                self._detector = Detector(self._entities)
            return self._detector


def policies_of(settings: ComplianceSettings) -> Policies:
    """Build the policies of all tenants. Raises `ConfigurationError` with the path of what is wrong."""
    sources: dict[str | None, dict[str, Applied]] = {None: _sources(settings.default.sources)}
    sources |= {name: _sources(tenant.sources) for name, tenant in settings.tenants.items()}
    detection = settings.detection.model_dump_json()
    tenants = {name: _applied(tenant) for name, tenant in settings.tenants.items()}
    files = [Path(file) for file in settings.regime_files]
    try:
        return Policies(_applied(settings.default), tenants, sources, files, detection)
    except ConfigurationError as error:
        detail = error.detail if error.detail.startswith("args.") else f"args.compliance.regime_files: {error.detail}"
        raise ConfigurationError(detail) from error


def _sources(settings: Mapping[str, ApplyingSettings]) -> dict[str, Applied]:
    return {name: _applied(each) for name, each in settings.items()}


def _applied(settings: ApplyingSettings) -> Applied:
    said = settings.model_dump(exclude={"sources"})
    label = getattr(settings, "label", None)
    return Applied(**{name: tuple(v) if isinstance(v, list) else v for name, v in said.items()} | {"label": label})
