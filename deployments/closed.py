"""What the Ray below must be like before anything of ours runs on it: whoever reaches an open one runs code there.

`rayrag up` asks before it starts one, and the application where it is built, on whichever cluster that is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping

from policies.errors import ConfigurationError

INSECURE_VARIABLE = "RAYRAG_INSECURE_DEV"
"""Set to 1 by `rayrag up --insecure-dev` for all that it starts: what would be refused is said loudly instead."""
RAY_FLOOR = (2, 56)
"""CVE-2026-57516 (pickle in read_webdataset) and all before it are put right from here on."""
_REMEDY = "for development alone, on a machine of your own, there is --insecure-dev"

log = logging.getLogger("ray.serve")


def faults(ray_version: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Say what is wrong with a Ray of this version that starts in this environment."""
    found = tuple(int(part) for part in ray_version.split(".")[:2])
    if found < RAY_FLOOR:
        yield f"Ray {ray_version} has known holes: install {'.'.join(map(str, RAY_FLOOR))} or later"
    mode = environment.get("RAY_AUTH_MODE")
    if mode != "token":
        yield f"Ray asks nobody for a token (RAY_AUTH_MODE is {mode or 'not set'}): set RAY_AUTH_MODE=token"


def require_closed_cluster(environment: Mapping[str, str] = os.environ) -> None:
    """Raise `ConfigurationError` where this process belongs to a cluster that is open, or has known holes.

    A process that belongs to none, such as a test or `serve build`, has nothing to close. Where
    `RAYRAG_INSECURE_DEV=1`, it is said in the log instead.
    """
    import ray

    if not ray.is_initialized():
        return
    for fault in faults(ray.__version__, environment):
        if environment.get(INSECURE_VARIABLE) != "1":
            raise ConfigurationError(f"{fault}; {_REMEDY}")
        log.warning("INSECURE: %s", fault)
