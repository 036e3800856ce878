"""A worker of a one-machine cluster listens on loopback only, and Serve does not make it load pandas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

BIND = """
from cluster.worker_setup import bind_replicas_to_loopback
bind_replicas_to_loopback()
import grpc
from concurrent.futures import ThreadPoolExecutor
from ray.serve._private.replica import add_port_to_grpc_server
import psutil
server = grpc.server(ThreadPoolExecutor(1))
add_port_to_grpc_server(server, "[::]:0")
server.start()
print({c.laddr.ip.removeprefix("::ffff:") for c in psutil.Process().net_connections() if c.status == "LISTEN"})
"""
SPARE = """
import sys
from cluster.worker_setup import spare_serve_pandas
spare_serve_pandas()
import ray.serve._private.utils as utils
before = "pandas" in sys.modules
import pandas
print(before, utils.pd, pandas.DataFrame({"a": [1]}).shape)
"""


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_a_replicas_own_port_is_on_loopback() -> None:
    assert run(BIND) == "{'127.0.0.1'}"


def test_serve_goes_without_pandas_and_everyone_else_has_it() -> None:
    assert run(SPARE) == "False None (1, 1)"
