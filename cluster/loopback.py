"""Keeps Serve's replicas off the network on a machine that is a whole cluster by itself."""

from __future__ import annotations

from typing import Any

HOOK = "cluster.loopback.bind_replicas"
HOOK_VARIABLE = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""What Ray's `worker_process_setup_hook` sets for a job; set for the node, it holds for every worker of it."""


def bind_replicas() -> None:
    """Make this worker's replica listen on 127.0.0.1.

    Every Serve replica opens a gRPC port on `[::]` (ray/serve/_private/replica.py), without authentication even
    where Ray asks for tokens, and unpickles what it receives there: whoever reaches it runs code. Ray has no
    switch for the address. `rayrag up` looks at the sockets afterwards, so a Ray where this has no effect shows.
    """
    from ray._common import tls_utils

    bind: Any = tls_utils.add_port_to_grpc_server

    def on_loopback(server: Any, address: str) -> Any:
        return bind(server, address.replace("[::]:", "127.0.0.1:").replace("0.0.0.0:", "127.0.0.1:"))

    tls_utils.add_port_to_grpc_server = on_loopback
