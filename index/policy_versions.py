"""Which policies are in force: a short name for all that decides who may do and see what, and a digest of each part."""

from __future__ import annotations

import hashlib
from pathlib import Path

import policies
from index.settings import AppArgs


def policy_parts(args: AppArgs) -> dict[str, str]:
    """Give a digest, 16 hex digits, of each part: equal for equal settings, roles and regimes."""
    home = Path(policies.__file__).parent
    regimes = [*sorted((home / "regimes").glob("*.yaml")), *map(Path, args.compliance.regime_files)]
    texts = {
        "identity": args.identity.model_dump_json(),
        "roles": (home / "roles.yaml").read_text(encoding="utf-8"),
        "compliance": args.compliance.model_dump_json(),
        "regimes": "\0".join(path.read_text(encoding="utf-8") for path in regimes if path.exists()),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}


def policy_version(args: AppArgs) -> str:
    """Name the policies in force, 16 hex digits, as each line of the audit record does."""
    return hashlib.sha256(repr(sorted(policy_parts(args).items())).encode()).hexdigest()[:16]
