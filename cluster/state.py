"""What `rayrag up` started, as `<data_dir>/state.json` remembers it for `down` and `status`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from policies.errors import ConfigurationError

STATE_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where things listen, on 127.0.0.1. `milvus` is None where the store is not ours to start."""

    http: int
    gcs: int
    dashboard: int
    metrics: int
    milvus: int | None


@dataclass(frozen=True, slots=True)
class StartedProcess:
    """A process that we started. `created` (Unix seconds) tells it from a later one with the same id."""

    name: str
    pid: int
    created: float


@dataclass(frozen=True, slots=True)
class State:
    """A running, half started or half stopped service.

    `ray_temp` is Ray's directory; it also marks the processes of this Ray (see `cluster.processes`).
    """

    data_dir: str
    config: str
    http_host: str
    ports: Ports
    ray_temp: str
    started_at: float
    processes: tuple[StartedProcess, ...] = field(default=())
    insecure_dev: bool = False
    """Started with `--insecure-dev`: what would be refused is only said."""

    @property
    def api(self) -> str:
        """The ingress, as seen from this machine."""
        host = "127.0.0.1" if self.http_host in ("0.0.0.0", "::", "") else self.http_host  # noqa: S104 - compared only
        return f"http://{host}:{self.ports.http}"

    @property
    def dashboard(self) -> str:
        """Ray's dashboard, with its REST API."""
        return f"http://127.0.0.1:{self.ports.dashboard}"

    @property
    def ray_token_file(self) -> Path:
        """The file with the token of this Ray."""
        return ray_token_file(Path(self.data_dir))

    def having(self, *processes: StartedProcess) -> State:
        """Add processes."""
        return replace(self, processes=(*self.processes, *processes))

    def save(self) -> None:
        """Write the file, whole or not at all, for this user only."""
        path = Path(self.data_dir) / STATE_FILE
        draft = path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
        draft.replace(path)

    def forget(self) -> None:
        """Remove the file: nothing of ours runs any more."""
        (Path(self.data_dir) / STATE_FILE).unlink(missing_ok=True)


def read_state(data_dir: Path) -> State | None:
    """Read the file; None where nothing was started. Raises `ConfigurationError` for one that is not ours."""
    path = data_dir / STATE_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        processes = tuple(StartedProcess(**process) for process in content.pop("processes"))
        return State(ports=Ports(**content.pop("ports")), processes=processes, **content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): end what still runs and remove it.") from error


def ray_token_file(data_dir: Path) -> Path:
    """Say where the token of the Ray below `data_dir` is."""
    return data_dir / "secrets" / "ray_token"
