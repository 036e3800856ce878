#!/bin/sh
# Resolves the locks anew. uv finds a CPU build of torch through UV_FIND_LINKS where there is one; the files hold
# versions only, so that the same lock installs the CPU or the CUDA build, whichever the registry offers.
set -eu
resolve() {
    uv pip compile pyproject.toml --no-header --no-annotate --no-emit-index-url --python-version 3.11 --quiet "$@"
}
compile() {
    resolve --override requirements/excluded.txt "$@"
}
every="--extra postgres --extra s3 --extra confluence --extra queues --extra saml --extra ldap --extra redis --extra sharepoint --extra presidio"
small="${every% --extra sharepoint*}" # the Graph SDK is 200 MB on disk, Presidio with spaCy 160 MB
# shellcheck disable=SC2086
compile $every --group test --group lint --group documents -o requirements/test.txt
sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements/test.txt
# shellcheck disable=SC2086
compile $small -c requirements/test.txt -o requirements/cpu.txt
sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements/cpu.txt
# shellcheck disable=SC2086
resolve $every --extra gpu -o requirements/gpu.txt
sed -i 's/^\(torch[a-z]*==[0-9.]*\)+.*/\1/' requirements/gpu.txt
