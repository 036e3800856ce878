"""Whether what `rayrag up` starts is closed: asked before it starts, and of what runs then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import httpx2

from cluster.processes import exposed, is_loopback, table
from cluster.serve_file import ServeFile
from cluster.state import State
from deployments.closed import faults
from policies.errors import ConfigurationError, Unavailable

NODES = "/nodes?view=summary"
"""What Ray's dashboard tells nobody without a token."""
ANSWER_S = 30.0


def faults_before(file: ServeFile, ray_version: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Say what must not start: a Ray that is open or old, HTTP on the network that nobody asked for."""
    # Where nobody chose, `cluster.ray_head` does.
    yield from faults(ray_version, {"RAY_AUTH_MODE": "token", **environment})
    if not is_loopback(file.host) and not file.args.http.beyond_loopback:
        yield (
            f"{file.path}: http_options.host: other machines reach {file.host}, and HTTP here has no TLS: give "
            "127.0.0.1 and put a proxy in front of it, or say args.http.beyond_loopback: true"
        )


def faults_of(state: State, wait_s: float = ANSWER_S) -> Iterator[str]:
    """Say what of a running service is open. Raises `Unavailable` where Ray's dashboard does not answer in time."""
    if _answers_without_token(state, wait_s):
        yield f"The Ray in {state.data_dir} answers without its token: run rayrag down, then rayrag up"
    allowed = () if is_loopback(state.http_host) else (state.ports.http,)
    for row, address in exposed(table(state), allowed):
        yield f"{row.name} (process {row.pid}) listens on {address}, which other machines may reach"


def refuse(found: Iterator[str], tolerated: bool) -> tuple[str, ...]:
    """Raise `ConfigurationError` for the first fault; where they are `tolerated`, give them as warnings."""
    said = tuple(found)
    if said and not tolerated:
        raise ConfigurationError(f"{said[0]}; for development alone, on a machine of your own: --insecure-dev.")
    return tuple(f"INSECURE: {fault}." for fault in said)


def _answers_without_token(state: State, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            answer = httpx2.get(state.dashboard + NODES, timeout=wait_s, trust_env=False)
        except httpx2.TransportError as error:
            if time.monotonic() >= deadline:
                raise Unavailable(f"Ray's dashboard at {state.dashboard} does not answer: {error}.") from error
            time.sleep(0.2)
        else:
            return answer.status_code not in (401, 403)
