#!/bin/sh
# Usage: install.sh PYTHON LOCK. Creates .venv and installs a lock file's exact versions, without resolving anything.
set -eu
python=$1
lock=$2
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
    echo "rayrag needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 install" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "installing $(grep -c '==' "$lock") packages from $lock (a few minutes the first time)"
.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --requirement "$lock"
# The registry's default build of torch is for CUDA and needs libraries that a CPU lock leaves out.
.venv/bin/python -c 'import torch' 2>/dev/null || .venv/bin/python -m pip --disable-pip-version-check install --quiet \
    --force-reinstall "torch==$(sed -n 's/^torch==//p' "$lock")"
.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
