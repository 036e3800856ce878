"""The application's metrics. Ray's exporter puts `ray_` before each name and `_total` behind a counter's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.util.metrics import Counter, Gauge, Histogram

_AGES = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0]
_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0]


class Metrics:
    """One replica's instruments. `service` is the deployment's name in lower case."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._requests = Counter("rag_requests", "HTTP requests", ("method", "endpoint", "status"))
        self._duration = Histogram("rag_request_duration_seconds", "HTTP request time", _SECONDS, ("endpoint",))
        self._stages = Histogram("rag_stage_duration_seconds", "Time in each stage", _SECONDS, ("stage",))
        self._first_token = Histogram("rag_time_to_first_token_seconds", "Until the first streamed text", _SECONDS)
        self._active = Gauge("rag_active_connections", "Requests in work", ("service",))
        self._errors = Counter("rag_errors", "Errors told to callers", ("error_type", "service"))
        self._refused = Counter("rag_tokens_refused", "Requests without a token that holds", ("reason",))
        self._degraded = Counter("rag_degraded", "Stages that did less than configured", ("stage",))
        self._withheld = Counter("rag_withheld", "Passages held back by the second gate", ("reason",))
        self._hits = Counter("rag_cache_hits", "Cache hits", ("cache",))
        self._misses = Counter("rag_cache_misses", "Cache misses", ("cache",))
        self._freshness = Histogram(
            "rag_freshness_seconds", "From a change to its being searchable", _AGES, ("source",)
        )
        self._late = Counter("rag_freshness_missed", "Changes searchable later than the objective", ("source",))
        self._lag = Gauge("rag_source_lag_seconds", "Since when the index may miss changes", ("source",))
        self._dead_letters = Gauge("rag_dead_letters", "Documents given up", ("source",))
        self._unsigned = Gauge("rag_audit_unsigned_seconds", "Since the audit record was last signed to its end")
        self._in_work = 0

    def request(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count a finished HTTP request. `endpoint` is the route's pattern, never a path with ids."""
        self._requests.inc(1, {"method": method, "endpoint": endpoint, "status": str(status)})
        self._duration.observe(seconds, {"endpoint": endpoint})

    @contextmanager
    def active(self) -> Iterator[None]:
        """Count a request as in work for as long as it is."""
        self._in_work += 1
        self._active.set(self._in_work, {"service": self._service})
        try:
            yield
        finally:
            self._in_work -= 1
            self._active.set(self._in_work, {"service": self._service})

    @contextmanager
    def stage(self, name: str, timings_ms: dict[str, float]) -> Iterator[None]:
        """Time a stage into the histogram and into a request's `timings_ms`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            timings_ms[name] = round(timings_ms.get(name, 0.0) + seconds * 1e3, 2)
            self._stages.observe(seconds, {"stage": name})

    def first_token(self, seconds: float) -> None:
        """Record the time to the first streamed text."""
        self._first_token.observe(seconds)

    def error(self, kind: str) -> None:
        """Count an error by its class."""
        self._errors.inc(1, {"error_type": kind, "service": self._service})

    def refused(self, reason: str) -> None:
        """Count a token that was refused. `reason` is a word of ours, never of the token."""
        self._refused.inc(1, {"reason": reason})

    def degraded(self, stage: str) -> None:
        """Count a stage that did less than configured."""
        self._degraded.inc(1, {"stage": stage})

    def withheld(self, count: int, reason: str) -> None:
        """Count passages that were found and not shown."""
        if count:
            self._withheld.inc(count, {"reason": reason})

    def cache(self, name: str, hit: bool) -> None:
        """Count a look-up."""
        (self._hits if hit else self._misses).inc(1, {"cache": name})

    def fresh(self, source: str, seconds: float, objective_s: float) -> None:
        """Record how long a change took until it was searchable."""
        self._freshness.observe(seconds, {"source": source})
        if seconds > objective_s:
            self._late.inc(1, {"source": source})

    def unsigned(self, seconds: float) -> None:
        """Record for how long the audit record has not been signed to its end."""
        self._unsigned.set(seconds)

    def lag(self, source: str, seconds: float) -> None:
        """Record for how long a source has not been listed well."""
        self._lag.set(seconds, {"source": source})

    def dead_letters(self, source: str, count: int) -> None:
        """Record how many documents of a source are given up."""
        self._dead_letters.set(count, {"source": source})
