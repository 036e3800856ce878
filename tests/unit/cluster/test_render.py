"""The manifests: as committed, within KubeRay's own schemas, and not open to the network."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.render import render
from cluster.serve_file import check
from cluster.spec import DEFAULT_SPEC, read_spec
from policies.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "serve_config.gpu.yaml"
COMMITTED = ROOT / "cluster" / "manifests"
CRDS = Path(os.environ.get("RAYRAG_KUBERAY_CRDS") or ROOT.parent / "shared" / "data" / "kuberay")
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}

needs_crds = pytest.mark.skipif(
    not CRDS.is_dir() and os.environ.get("CI") != "true", reason="KubeRay's CRDs are not here (RAYRAG_KUBERAY_CRDS)"
)


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return render(CONFIG, DEFAULT_SPEC)


def documents(rendered: dict[str, str]) -> list[dict[str, Any]]:
    return [document for text in rendered.values() for document in yaml.safe_load_all(text)]


def of_kind(rendered: dict[str, str], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents(rendered) if document["kind"] == kind]
    return found


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for item in value.values():
            yield from pod_specs(item)
    elif isinstance(value, list):
        for item in value:
            yield from pod_specs(item)


def test_the_committed_manifests_are_what_is_rendered(rendered: dict[str, str]) -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in COMMITTED.iterdir()}

    assert committed == rendered


def test_the_environment_and_the_working_directory_change_nothing(
    rendered: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYRAG_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert render(CONFIG, DEFAULT_SPEC) == rendered


def test_the_application_travels_inside_the_service(rendered: dict[str, str]) -> None:
    inside = yaml.safe_load(of_kind(rendered, "RayService")["spec"]["serveConfigV2"])

    assert inside == yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert list(check(inside)) == []


def test_service_and_job_read_the_same_settings(rendered: dict[str, str]) -> None:
    job = yaml.safe_load_all(rendered["rayjob.yaml"])
    config = next(document for document in job if document["kind"] == "ConfigMap")

    assert config["data"]["serve_config.yaml"] == of_kind(rendered, "RayService")["spec"]["serveConfigV2"]


def test_ray_asks_for_its_token_everywhere(rendered: dict[str, str]) -> None:
    clusters = [
        of_kind(rendered, "RayService")["spec"]["rayClusterConfig"],
        of_kind(rendered, "RayJob")["spec"]["rayClusterSpec"],
        of_kind(rendered, "RayCluster")["spec"],
    ]

    assert [each["authOptions"] for each in clusters] == [{"mode": "token", "secretName": "rayrag-ray-token"}] * 3


def test_no_pod_runs_as_root_or_gains_rights(rendered: dict[str, str]) -> None:
    pods = [spec for document in documents(rendered) for spec in pod_specs(document)]

    assert len(pods) == 3 * 3 + 1
    assert all(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0 for pod in pods)
    contexts = [container["securityContext"] for pod in pods for container in pod["containers"]]
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    assert all(each == closed for each in contexts)


def test_only_the_named_may_reach_the_pods_and_nobody_rays_own_ports(rendered: dict[str, str]) -> None:
    policy = of_kind(rendered, "NetworkPolicy")["spec"]
    others = [rule for rule in policy["ingress"] if "podSelector" not in rule["from"][0]]
    own = policy["podSelector"]["matchLabels"]

    assert all(rule.get("ports") for rule in others)
    assert {port["port"] for rule in others for port in rule["ports"]} == {8000, 8080, 8265, 52365}
    for document in documents(rendered):
        for template in templates(document):
            assert own.items() <= template["metadata"]["labels"].items()


def templates(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("template", "submitterPodTemplate"):
                yield item
            yield from templates(item)
    elif isinstance(value, list):
        for item in value:
            yield from templates(item)


def test_no_secret_stands_in_a_manifest(rendered: dict[str, str]) -> None:
    assert not [document for document in documents(rendered) if document["kind"] == "Secret"]
    variables = [
        each
        for document in documents(rendered)
        for pod in pod_specs(document)
        for container in pod["containers"]
        for each in container.get("env", [])
    ]
    assert all("valueFrom" in each for each in variables if "PASSWORD" in each["name"] or "TOKEN" in each["name"])


def test_a_configuration_for_one_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"http_options\.host: nobody reaches 127\.0\.0\.1 in a pod"):
        render(ROOT / "serve_config.yaml", DEFAULT_SPEC)


def test_a_key_that_each_pod_would_make_for_itself_is_refused(tmp_path: Path) -> None:
    document = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    del document["applications"][0]["args"]["compliance"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))

    with pytest.raises(ConfigurationError, match=r"compliance\.key_file: .* would be another key in each pod"):
        render(tmp_path / "config.yaml", DEFAULT_SPEC)


def test_pods_that_share_their_data_share_its_keys(tmp_path: Path) -> None:
    document = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    del document["applications"][0]["args"]["compliance"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    spec = yaml.safe_load(DEFAULT_SPEC.read_text(encoding="utf-8"))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec | {"data": {"claim": "rayrag-data"}}))

    assert render(tmp_path / "config.yaml", tmp_path / "spec.yaml")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("imgae",), "x", "imgae: Extra inputs"),
        (("workers", 0, "gpus"), 1, "workers.0.gpus: Extra inputs"),
        (("workers", 0, "min_replicas"), 99, "workers.0: min_replicas (99) is above max_replicas (8)"),
        (("workers", 1, "name"), "cpu", "workers: two groups have the same name"),
        (("head", "memory"), "lots", "head.memory: String should match pattern"),
        (("bulk", "workers"), ["tpu"], "bulk.workers: no such group: tpu; there are: cpu, gpu"),
        (("fault_tolerance",), {"backend": "redis"}, "fault_tolerance: backend redis needs redis_address"),
        (("claims", 0, "name"), "data", "names must differ"),
        (("network", "clients", 0), {}, "give either cidr, or namespace"),
    ],
)
def test_a_wrong_specification_names_the_key(path: tuple[Any, ...], value: Any, expected: str, tmp_path: Path) -> None:
    document = yaml.safe_load(DEFAULT_SPEC.read_text(encoding="utf-8"))
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))

    with pytest.raises(ConfigurationError) as caught:
        read_spec(tmp_path / "spec.yaml")

    assert expected in caught.value.detail


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    (file,) = sorted(CRDS.rglob(f"ray.io_{KINDS[kind]}.yaml"))[-1:]
    # Half a megabyte each: seconds with the loader in C, a minute without.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    versions = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)["spec"]["versions"]
    (found,) = [version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"]
    found["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
    return jsonschema.Draft202012Validator(closed(found))


def closed(part: Any) -> Any:
    """Refuse unknown keys, where Kubernetes would drop them without a word."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    result = {key: closed(item) for key, item in part.items()}
    if result.get("format") in ("int32", "int64"):
        result.pop("format")
    if result.get("x-kubernetes-int-or-string"):
        result.pop("pattern", None)
    open_ended = result.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in result
    if isinstance(result.get("properties"), dict) and result.get("type") == "object" and not open_ended:
        result["additionalProperties"] = False
    return result


def faults(document: dict[str, Any]) -> list[str]:
    found = validator(document["kind"]).iter_errors(document)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]


@needs_crds
def test_the_manifests_hold_against_kuberays_schemas(rendered: dict[str, str]) -> None:
    ours = [document for document in documents(rendered) if document["kind"] in KINDS]

    assert len(ours) == 3
    assert {document["kind"]: faults(document) for document in ours} == {kind: [] for kind in KINDS}


@needs_crds
def test_kuberays_own_samples_hold() -> None:
    names = ("ray-cluster.auth.secret-ref.yaml", "ray-service.high-availability.yaml", "ray-job.sample.yaml")
    found = [next(CRDS.rglob(name)) for name in names]
    samples = [
        document
        for path in found
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if document and document["kind"] in KINDS
    ]

    assert len(samples) == 3
    assert [faults(sample) for sample in samples] == [[], [], []]


@needs_crds
@pytest.mark.parametrize(
    "path",
    [
        ("spec", "rayClusterConfig", "workerGroupSpec"),
        ("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "nodeSelectors"),
        ("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "containers", 0, "enviroment"),
        ("spec", "rayClusterConfig", "authOptions", "secret"),
    ],
)
def test_a_typing_error_does_not_pass(rendered: dict[str, str], path: tuple[Any, ...]) -> None:
    service = copy.deepcopy(of_kind(rendered, "RayService"))
    place: Any = service
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = {}

    assert any(str(path[-1]) in fault for fault in faults(service))


def test_the_image_runs_as_nobody_in_particular_and_names_no_registry() -> None:
    lines = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]

    assert [line[1] for line in words if line[0] == "FROM"] == ["python:3.11-slim"]
    assert [line[1] for line in words if line[0] == "USER"] == [f"{read_spec(DEFAULT_SPEC).user_id}:10001"]
    assert any("--no-deps" in line for line in words)
    assert not any("://" in word for line in words for word in line)
