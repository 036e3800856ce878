"""The cluster's metrics as one Prometheus text: every node's exporter, our own and Serve's families only."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.error import URLError
from urllib.request import urlopen

import ray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from policies.errors import Unavailable

PREFIXES = ("ray_rag_", "ray_serve_")
TIMEOUT_S = 2.0


class _Families(Collector):
    def __init__(self, families: dict[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Give the merged families."""
        yield from self._families.values()


def exposition() -> bytes:
    """Fetch and merge. Raises `Unavailable` when no node's exporter answers."""
    families: dict[str, Metric] = {}
    answered = 0
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if not node["Alive"]:
            continue
        try:
            text = _fetch(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
        except (URLError, OSError):
            continue  # a node that is going away; the others still tell
        answered += 1
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(PREFIXES):
                continue
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples.extend(family.samples)
    if not answered:
        raise Unavailable("no node's metrics exporter answers")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


def _fetch(url: str) -> str:
    with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - an address that Ray itself gave
        return str(answer.read().decode())
