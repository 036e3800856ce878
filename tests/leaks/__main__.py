"""`python -m tests.leaks`: run the leak suite; it prints what was tried, what failed, and what that says."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.leaks.sizes import DEFAULT_SEED

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run pytest over this folder; exit code 0 where nothing leaked and nothing was wrongly hidden."""
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--full", action="store_true", help="the nightly size: 100,000 questions, hours on two cores")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help=f"default {DEFAULT_SEED}; 0: another each time")
    parser.add_argument("names", nargs="*", help="only these modules, such as property or routes")
    options = parser.parse_args()
    chosen = options.seed or random.SystemRandom().randrange(1, 2**31)
    environment = {**os.environ, "RAYRAG_LEAK_SEED": str(chosen), "RAYRAG_LEAKS": "full" if options.full else "small"}
    files = [str(HERE / f"test_{name}.py") for name in options.names] or [str(HERE)]
    limit = ["--timeout=36000"] if options.full else []
    # A service, with a store of its own, for each process.
    shared = ["-n", "2", "--dist", "loadfile"] if len(options.names) != 1 else []
    command = [sys.executable, "-m", "pytest", "-q", *shared, *limit, *files]
    return subprocess.run(command, cwd=HERE.parents[1], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
