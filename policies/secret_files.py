"""Files that hold secrets: read only where nobody else may read them, or change them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from policies.errors import ConfigurationError

MODE_VARIABLE = "RAYRAG_SECRETS_MODE"
"""`owner` (where it is not set) or `mounted`. Kubernetes mounts secrets as root's, readable by a group or by all of the
pod: who else runs in the pod is the pod's affair, so that there other readers are accepted, other writers never."""
_FORBIDDEN = {"owner": 0o077, "mounted": 0o022}


def read_secret_file(path: Path, key: str) -> str:
    """Read a secret, without white space around it. `key`: the path of the setting that names the file.

    Raises `ConfigurationError` for a file that is absent or empty, that others may read (see `MODE_VARIABLE`) or
    write, or that belongs to somebody else than this process's user or root.
    """
    try:
        with path.open("rb") as file:
            _require_private(os.fstat(file.fileno()), path, key)
            text = file.read().decode("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{key}: {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{key}: {path}: no UTF-8 text") from error
    if not text:
        raise ConfigurationError(f"{key}: {path} is empty")
    return text


def require_private(path: Path, key: str) -> None:
    """Raise `ConfigurationError` as `read_secret_file` does, for a file that something else reads."""
    _require_private(_stat(path, key), path, key)


def require_unchanged(path: Path, key: str) -> None:
    """Raise `ConfigurationError` for a file, secret or not, that others could change: whom we believe stands in it."""
    found = _stat(path, key)
    mode = stat.S_IMODE(found.st_mode)
    if mode & _FORBIDDEN["mounted"]:
        raise ConfigurationError(
            f"{key}: {path} has mode {mode:04o}, so that others may change it: run chmod go-w on it"
        )
    _require_ours(found, path, key)


def _stat(path: Path, key: str) -> os.stat_result:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{key}: {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{key}: {path} is no file")
    return found


def _require_private(found: os.stat_result, path: Path, key: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{key}: {path} is no file")
    chosen = os.environ.get(MODE_VARIABLE) or "owner"
    if chosen not in _FORBIDDEN:
        raise ConfigurationError(f"{MODE_VARIABLE}: give one of {', '.join(_FORBIDDEN)}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & _FORBIDDEN[chosen]:
        remedy = "" if chosen == "mounted" else f"; a secret that Kubernetes mounts needs {MODE_VARIABLE}=mounted"
        raise ConfigurationError(
            f"{key}: {path} has mode {mode:04o}, so that others may read or change it: run chmod 600 on it{remedy}"
        )
    _require_ours(found, path, key)


def _require_ours(found: os.stat_result, path: Path, key: str) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(f"{key}: {path} belongs to user {found.st_uid}: make it this user's, or root's")
