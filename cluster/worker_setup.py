"""What every Ray worker of a one-machine cluster does before its work: stay off the network, and stay small."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HOOK = "cluster.worker_setup.prepare"
HOOK_VARIABLE = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""What Ray's `worker_process_setup_hook` sets for a job; set for the node, it holds for every worker of it."""


def prepare() -> None:
    """Run in each worker, before any of its code is loaded."""
    bind_replicas_to_loopback()
    spare_serve_pandas()


def bind_replicas_to_loopback() -> None:
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


def spare_serve_pandas() -> None:
    """Let Serve's encoder of data frames, which nothing here uses, do without pandas: 30-70 MB a process."""
    sys.meta_path.insert(0, _NoPandasForServe())


class _NoPandasForServe(importlib.abc.MetaPathFinder):
    """Answers Serve's optional `import pandas` as where it is not installed; everyone else's finds it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas" and _importer() == "ray.serve._private.utils":
            raise ModuleNotFoundError(f"{fullname} is not for Serve here", name=fullname)
        return None


def _importer() -> str | None:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    name: str | None = frame.f_globals.get("__name__")
    return name
