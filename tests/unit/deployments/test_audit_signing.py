"""The record is signed while the service runs: from the configuration to the anchor."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from deployments.audit_signing import audit_signing
from deployments.identity import audit_log
from index.settings import AppArgs, parse
from policies.audit_anchor import open_anchor
from policies.audit_chain import AuditIntent
from policies.errors import ConfigurationError

ISSUER = {"issuer": "dev", "audience": "rayrag", "algorithms": ["EdDSA"], "key_file": "/dev/null", "development": True}


class Metrics:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def unsigned(self, seconds: float) -> None:
        self.seconds.append(seconds)


def settings(home: Path, **store: Any) -> AppArgs:
    return parse({"data_dir": str(home), "identity": {"issuers": [ISSUER]}, "store": store})


def test_what_is_written_stands_at_the_anchor_within_an_interval(tmp_path: Path) -> None:
    anchor = str(tmp_path / "elsewhere.jsonl")
    args = settings(tmp_path / "data", audit_anchor=anchor, audit_checkpoint_s=1)
    log, metrics = audit_log(args), Metrics()
    log.append([AuditIntent("r1", "ada", "acme", "query", "v1")])
    began = time.monotonic()
    thread = audit_signing(args, metrics)  # type: ignore[arg-type]
    try:
        while not open_anchor(anchor).all() and time.monotonic() - began < 30:
            time.sleep(0.05)
    finally:
        thread.stop()

    (kept,) = open_anchor(anchor).all()
    assert kept.sequence == 1 and log.verify([kept]).ok
    assert time.monotonic() - began >= 1 and metrics.seconds
    log.close()


@pytest.mark.parametrize("seconds", [0, 0.5, 100_000])
def test_an_interval_that_makes_no_sense_stops_the_start(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=r"args\.store\.audit_checkpoint_s"):
        settings(tmp_path, audit_checkpoint_s=seconds)
