"""The audit record as events in the shape of OCSF (https://schema.ocsf.io, 1.3), for a SIEM.

    auth.sign_in, auth.refresh, auth.logout    3002 Authentication
    auth.enable, auth.disable                  3001 Account Change
    all else                                   6003 API Activity

These are copies: the hash of each record goes along in `metadata.uid`, and what proves the record is its export. Fields
that OCSF has no place for are in `unmapped`, under the names of the record. Callers' addresses are not on the record,
so that `src_endpoint` names none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policies.audit import AuditLog
from policies.audit_chain import AuditRecord
from policies.errors import ConfigurationError

VERSION = "1.3.0"
AUTHENTICATION, ACCOUNT_CHANGE, API_ACTIVITY = 3002, 3001, 6003
OTHER = 99
_PAGE = 1_000
_CLASSES = {
    "auth.sign_in": (AUTHENTICATION, 1),  # Logon
    "auth.logout": (AUTHENTICATION, 2),  # Logoff
    "auth.refresh": (AUTHENTICATION, OTHER),
    "auth.enable": (ACCOUNT_CHANGE, 2),
    "auth.disable": (ACCOUNT_CHANGE, 5),
}
_CREATE, _READ, _UPDATE, _DELETE = 1, 2, 3, 4
_ACTIVITIES = {
    "query": _READ,
    "retrieve": _READ,
    "models": _READ,
    "upload": _CREATE,
    "documents.list": _READ,
    "documents.get": _READ,
    "documents.acl": _UPDATE,
    "documents.delete": _DELETE,
    "documents.change": _UPDATE,
    "document.indexed": _CREATE,
    "document.deleted": _DELETE,
    "document.rights": _UPDATE,
    "document.hidden": _UPDATE,
    "policy.change": _UPDATE,
    "audit.read": _READ,
    "audit.export": _READ,
}
_SUCCEEDED = frozenset({"ok", "abstained", "degraded"})


def write_ocsf(log: AuditLog, file: Path) -> int:
    """Write all records as OCSF events, one JSON object a line. Returns their number. Raises `Unavailable`."""
    count, since = 0, 0
    try:
        with file.open("w", encoding="ascii", newline="\n") as lines:
            file.chmod(0o600)
            while page := log.records(since, _PAGE):
                for record in page:
                    lines.write(json.dumps(ocsf(record), sort_keys=True, separators=(",", ":")) + "\n")
                count, since = count + len(page), page[-1].sequence
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or error}") from error
    return count


def ocsf(record: AuditRecord) -> dict[str, Any]:
    """Give a record in the shape of OCSF. `time`: milliseconds since 1970, as OCSF has it."""
    class_uid, activity = _CLASSES.get(record.action, (API_ACTIVITY, _ACTIVITIES.get(record.action, OTHER)))
    status, said = _status(record)
    event: dict[str, Any] = {
        "activity_id": activity,
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + activity,
        "time": record.time // 1000,
        "severity_id": 1 if status != 2 else 2,
        "status_id": status,
        "status_detail": said,
        "metadata": {
            "version": VERSION,
            "product": {"name": "rayrag", "vendor_name": "rayrag"},
            "uid": record.hash,
            "sequence": record.sequence,
            "correlation_uid": record.request_id,
            "event_code": record.action,
            "tenant_uid": record.tenant,
        },
        "unmapped": {
            "kind": record.kind,
            "policy_version": record.policy_version,
            "chunks_shown": record.chunks_shown,
            "chunks_withheld": record.chunks_withheld,
            "detail": record.detail,
            "previous_hash": record.previous_hash,
        },
    }
    actor = {"user": {"uid": record.actor}}
    if class_uid == API_ACTIVITY:
        event |= {
            "actor": actor,
            "api": {"operation": record.action, "request": {"uid": record.request_id}},
            "src_endpoint": {"name": "not recorded"},
            "resources": [{"type": "chunk", "uid": chunk_id} for chunk_id in record.chunks_shown],
        }
    elif class_uid == ACCOUNT_CHANGE:
        event |= {"actor": actor, "user": {"uid": str(record.detail.get("subject", ""))}}
    else:
        event |= {"user": actor["user"], "service": {"name": "rayrag"}}
    return event


def _status(record: AuditRecord) -> tuple[int, str]:
    if record.kind == "intent":
        return 0, "intent"  # Unknown: what came of it is an event of its own
    return (1 if record.outcome in _SUCCEEDED else 2), record.outcome
