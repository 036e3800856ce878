#!/bin/sh
# Resolves the locks anew. uv finds a CPU build of torch through UV_FIND_LINKS where there is one; the files hold
# versions only, so that the same lock installs the CPU or the CUDA build, whichever the registry offers.
set -eu
compile() {
    uv pip compile pyproject.toml --override requirements/excluded.txt --no-header --no-annotate --no-emit-index-url \
        --python-version 3.11 --quiet "$@"
}
compile --extra postgres --extra s3 --group test --group lint --group documents -o requirements/test.txt
sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements/test.txt
compile --extra postgres --extra s3 -c requirements/test.txt -o requirements/cpu.txt
sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements/cpu.txt
compile --extra postgres --extra s3 --extra gpu -o requirements/gpu.txt
sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements/gpu.txt
