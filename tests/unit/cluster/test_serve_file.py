"""A wrong key or value in the Serve file is refused with its path and what is allowed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.serve_file import check, read_serve_file, write_effective
from policies.errors import ConfigurationError

DOCUMENT: dict[str, Any] = {
    "http_options": {"host": "127.0.0.1", "port": 8000},
    "applications": [
        {
            "name": "rayrag",
            "route_prefix": "/",
            "import_path": "deployments.app:build",
            "args": {
                "identity": {"issuers": [{"issuer": "i", "audience": "a", "algorithms": ["EdDSA"], "key_file": "k"}]}
            },
            "deployments": [{"name": "Ingress", "autoscaling_config": {"min_replicas": 1, "max_replicas": 2}}],
        }
    ],
}


def changed(*path: Any, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    place: Any = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return document


DEPLOYMENT = ("applications", 0, "deployments", 0)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (changed("http_option", value={}), ("http_option: no such key", "http_options")),
        (changed("http_options", "prot", value=1), ("http_options.prot: no such key", "port")),
        (changed("applications", 0, "arguments", value={}), ("applications.0.arguments: no such key", "args")),
        (changed(*DEPLOYMENT, "replicas", value=2), ("applications.0.deployments.0.replicas: no such", "num_replicas")),
        (changed(*DEPLOYMENT, "ray_actor_options", value={"cpus": 1}), ("ray_actor_options.cpus: no such", "num_cpus")),
        (
            changed(*DEPLOYMENT, "autoscaling_config", "max_replica", value=2),
            ("deployments.0.autoscaling_config.max_replica: no such key", "max_replicas"),
        ),
        (
            changed(*DEPLOYMENT, "autoscaling_config", value={"min_replicas": 3, "max_replicas": 1}),
            ("applications.0.deployments.0.autoscaling_config: max_replicas (1) must be", ""),
        ),
        (
            changed(*DEPLOYMENT, "max_ongoing_requests", value=-1),
            ("applications.0.deployments.0.max_ongoing", "greater"),
        ),
        (changed("applications", 0, "import_path", value="x"), ("applications.0.import_path: ", "")),
        (changed("logging_config", value={"encodings": "JSON"}), ("logging_config.encodings: no such", "encoding")),
        (changed("http_options", "port", value="many"), ("http_options.port: ", "integer")),
    ],
)
def test_a_fault_is_named_with_its_path_and_what_is_allowed(
    document: dict[str, Any], expected: tuple[str, str]
) -> None:
    problems = "\n".join(check(document))

    assert all(part in problems for part in expected), problems


@pytest.mark.parametrize("name", ["serve_config.yaml", "serve_config.gpu.yaml"])
def test_the_configurations_in_the_tree_hold(name: str) -> None:
    assert list(check(yaml.safe_load(Path(name).read_text(encoding="utf-8")))) == []


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    document = changed("http_option", value={})
    document["applications"][0]["arguments"] = {}

    with pytest.raises(ConfigurationError) as caught:
        read_serve_file(written(tmp_path, document))

    assert caught.value.detail.count("no such key") == 2
    assert str(tmp_path) in caught.value.detail


def test_http_listens_on_loopback_where_the_file_names_no_host(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    del document["http_options"]

    file = read_serve_file(written(tmp_path, document))

    assert (file.host, file.port) == ("127.0.0.1", 8000)


def test_the_effective_file_has_the_port_and_the_data_directory_of_the_command_line(tmp_path: Path) -> None:
    file = read_serve_file(written(tmp_path, DOCUMENT), str(tmp_path / "data"), port=8123)
    (tmp_path / "data").mkdir()

    path = write_effective(file)
    again = read_serve_file(path)

    assert path == tmp_path / "data" / "serve_config.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (again.port, again.args.data_dir) == (8123, str(tmp_path / "data"))


def written(directory: Path, document: dict[str, Any]) -> Path:
    path = directory / "serve.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
