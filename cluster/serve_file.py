"""The Serve configuration file, checked more strictly than Serve does: it drops unknown keys without a word."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from index.settings import AppArgs, load
from policies.errors import ConfigurationError

DEFAULT_HTTP_PORT = 8000
SERVE_ENVIRONMENT = {
    # Calls between replicas by gRPC, and access logs in batches: what is neither search nor model fell from 44-52 to
    # 30-36 ms a question at the median (python -m bench retrieve, 2 cores, n=150 to 200).
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    # Uploads travel by value then: more than `limits.max_upload_mb`, with room for their envelope.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "256000000",
    # Serve's own answers say as little as the application's.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.front_door:middlewares",
    # Ray would give every worker the same low priority; so the stages of a bulk job lower theirs (ingest.niceness), and
    # questions come first.
    "RAY_worker_niceness": "0",
}
"""What every Ray process is started with, on one machine and on Kubernetes: Serve reads it nowhere else."""


@dataclass(frozen=True, slots=True)
class ServeFile:
    """A checked file: `document` as it will be deployed, `args` as the application will see it."""

    path: Path
    document: dict[str, Any]
    args: AppArgs

    @property
    def host(self) -> str:
        """The address that HTTP listens on."""
        return str(self.document["http_options"]["host"])

    @property
    def port(self) -> int:
        """The port that HTTP listens on."""
        return int(self.document["http_options"]["port"])


def read_serve_file(path: Path, data_dir: str | None = None, port: int | None = None) -> ServeFile:
    """Read and check a Serve file; `data_dir` and `port` replace what it says.

    Where the file names no host, HTTP listens on 127.0.0.1, where Serve's own default is every interface.
    Raises `ConfigurationError` with the path of each wrong key and what is allowed there.
    """
    args = load(path, data_dir)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    problems = list(check(document))
    if problems:
        raise ConfigurationError("\n".join(f"{path}: {problem}" for problem in problems))
    http = {"host": "127.0.0.1", "port": DEFAULT_HTTP_PORT, **(document.get("http_options") or {})}
    document["http_options"] = http if port is None else {**http, "port": port}
    for application in document["applications"]:
        if application["import_path"] == "deployments.app:build":
            application["args"] = {**(application.get("args") or {}), "data_dir": args.data_dir}
    return ServeFile(path, document, args)


def write_effective(file: ServeFile) -> Path:
    """Write what is deployed to `<data_dir>/serve_config.yaml`, for this user only, and say where."""
    path = Path(file.args.data_dir) / "serve_config.yaml"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as text:
        yaml.safe_dump(file.document, text, sort_keys=False, allow_unicode=True)
    return path


def check(document: Any) -> Iterator[str]:
    """Yield each fault of a Serve document as `key.path: what is wrong; what is allowed`."""
    from ray.serve.schema import ServeDeploySchema

    if not isinstance(document, dict):
        yield "the file holds no mapping"
        return
    yield from _unknown(document, ServeDeploySchema, "")
    for path, deployment in _deployments(document):
        yield from _check_autoscaling(deployment.get("autoscaling_config"), f"{path}.autoscaling_config")
    try:
        ServeDeploySchema.model_validate(document)
    except ValidationError as error:
        for problem in error.errors():
            yield f"{_spell(problem['loc'])}: {_plain(problem['msg'])}"


def _deployments(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, application in enumerate(document.get("applications") or []):
        deployments = application.get("deployments") if isinstance(application, dict) else None
        for number, deployment in enumerate(deployments or []):
            if isinstance(deployment, dict):
                yield f"applications.{place}.deployments.{number}", deployment


def _check_autoscaling(values: Any, path: str) -> Iterator[str]:
    from ray.serve.config import AutoscalingConfig

    if not isinstance(values, dict):
        return
    yield from _unknown(values, AutoscalingConfig, path)
    try:
        AutoscalingConfig(**{key: value for key, value in values.items() if key in AutoscalingConfig.model_fields})
    except ValidationError as error:
        for problem in error.errors():
            yield f"{_spell((*path.split('.'), *problem['loc']))}: {_plain(problem['msg'])}"


def _unknown(values: Any, model: type[BaseModel], path: str) -> Iterator[str]:
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        known = model.model_fields.get(key)
        if known is None:
            yield f"{where}: no such key; allowed here: {', '.join(sorted(model.model_fields))}"
            continue
        inner = _model_in(known.annotation)
        # A policy's and a router's own arguments are open, and AutoscalingConfig has its own check above.
        if inner is None or key == "autoscaling_config":
            continue
        for place, item in enumerate(value if isinstance(value, list) else [value]):
            yield from _unknown(item, inner, f"{where}.{place}" if isinstance(value, list) else where)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and typing.get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def _spell(place: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in place) or "the file"


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").strip()
