"""From the configuration to what signs the audit record while the service runs, cuts segments, and lets old ones go."""

from __future__ import annotations

import logging
from pathlib import Path

from deployments.identity import policy_version, signing_audit_log
from deployments.metrics import Metrics
from index.settings import AppArgs
from policies.audit import AuditLog
from policies.audit_anchor import open_anchor
from policies.audit_checkpoints import Checkpoint
from policies.audit_segments import DAY_S, Segments
from policies.audit_signing import Signer, SigningThread, signing_key

ACTOR = "service"
log = logging.getLogger("ray.serve")


def audit_signing(args: AppArgs, metrics: Metrics) -> SigningThread:
    """Start it. Raises `ConfigurationError` for a key that is none, and `Unavailable` without the record."""
    return SigningThread(signer(args, signing_audit_log(args.store)), args.store.audit_checkpoint_s, metrics.unsigned)


def signer(args: AppArgs, audit: AuditLog) -> Signer:
    """Build what signs, with the anchor and the segments that are configured."""
    store = args.store
    anchor = open_anchor(store.audit_anchor) if store.audit_anchor else None
    rotation = Rotation(args, audit) if store.audit_segments else None
    return Signer(audit, lambda: signing_key(Path(store.audit_key_file)), anchor, rotation or _nothing)


class Rotation:
    """Cuts a segment whenever there are records enough, and removes those that are old enough."""

    def __init__(self, args: AppArgs, audit: AuditLog) -> None:
        assert args.store.audit_segments is not None
        self._segments = Segments(audit, Path(args.store.audit_segments), policy_version(args))
        self._records = args.store.audit_segment_records
        self._keep_days = args.store.audit_keep_days

    def __call__(self, signed: Checkpoint) -> None:
        """Look at what a new checkpoint covers. Raises `ConfigurationError` and `Unavailable`."""
        cut = self._segments.all()
        if signed.sequence - (cut[-1].last if cut else 0) >= self._records:
            segment = self._segments.cut(signed, ACTOR)
            log.info("the audit record's lines up to %d are in a file now", segment.last if segment else 0)
        if self._keep_days is not None:
            self._segments.remove(self._keep_days * DAY_S)


def _nothing(_: Checkpoint) -> None:
    """Keep all of the record where it is."""
