"""The rendered manifests keep every rule; each rule, broken, is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.manifest_rules import faults, warnings
from cluster.render import render, write_manifests
from cluster.spec import DEFAULT_SPEC
from policies.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "serve_config.gpu.yaml"


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    texts = render(CONFIG, DEFAULT_SPEC).values()
    return [document for text in texts for document in yaml.safe_load_all(text)]


def test_what_is_rendered_keeps_every_rule(rendered: list[dict[str, Any]]) -> None:
    assert list(faults(rendered)) == []


def head(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (service,) = [document for document in documents if document["kind"] == "RayService"]
    return service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]


def container(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return head(documents)["spec"]["containers"][0]


def policy(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == "NetworkPolicy"]
    return found["spec"]


def worker(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (service,) = [document for document in documents if document["kind"] == "RayService"]
    return service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]


def cluster(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == "RayCluster"]
    return found["spec"]


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}}
BROKEN: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], str]] = {
    "host network": (lambda d: head(d)["spec"].update(hostNetwork=True), "hostNetwork"),
    "host processes": (lambda d: head(d)["spec"].update(hostPID=True), "hostPID"),
    "host volume": (lambda d: head(d)["spec"]["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
    "root": (lambda d: head(d)["spec"]["securityContext"].update(runAsUser=0), "run as root"),
    "may be root": (lambda d: head(d)["spec"]["securityContext"].pop("runAsNonRoot"), "run as root"),
    "seccomp": (lambda d: head(d)["spec"]["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "privileged": (lambda d: container(d)["securityContext"].update(privileged=True), "gain rights"),
    "escalation": (lambda d: container(d)["securityContext"].pop("allowPrivilegeEscalation"), "gain rights"),
    "capabilities": (lambda d: container(d)["securityContext"].update(capabilities={}), "keeps capabilities"),
    "added": (
        lambda d: container(d)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        "keeps capabilities",
    ),
    "writable": (lambda d: container(d)["securityContext"].pop("readOnlyRootFilesystem"), "change its own program"),
    "limits": (lambda d: container(d)["resources"].pop("limits"), "no limits"),
    "latest": (lambda d: container(d).update(image="registry:5000/rayrag:latest"), "name a version"),
    "no version": (lambda d: container(d).update(image="registry:5000/rayrag"), "name a version"),
    "kubernetes token": (lambda d: worker(d).update(automountServiceAccountToken=True), "token of Kubernetes"),
    "plain secret": (lambda d: container(d)["env"].append({"name": "PGPASSWORD", "value": "x"}), "PGPASSWORD"),
    "api key": (lambda d: container(d)["env"].append({"name": "OPENAI_API_KEY", "value": "x"}), "OPENAI_API_KEY"),
    "from a map": (
        lambda d: container(d)["env"].append({"name": "HF_TOKEN", "valueFrom": {"configMapKeyRef": {}}}),
        "HF_TOKEN",
    ),
    "argument": (lambda d: container(d).update(args=["--token=x"]), "command line"),
    "password in an address": (
        lambda d: container(d)["env"].append({"name": "LEDGER", "value": "postgresql://rag:hunter2@db/rag"}),
        "holds a password",
    ),
    "a secret": (lambda d: d.append(SECRET), "a secret stands in a manifest"),
    "no policy": (lambda d: d.remove(next(p for p in d if p["kind"] == "NetworkPolicy")), "everybody reaches it"),
    "not chosen": (lambda d: head(d)["metadata"]["labels"].clear(), "everybody reaches it"),
    "egress only": (lambda d: policy(d).update(policyTypes=["Egress"]), "everybody reaches it"),
    "everybody": (lambda d: policy(d)["ingress"].append({"ports": [{"port": 8000}]}), "lets everybody in"),
    "everything": (lambda d: policy(d)["egress"].append({}), "lets everything out"),
    "open ray": (lambda d: cluster(d).pop("authOptions"), "Ray asks nobody for a token"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_named(rendered: list[dict[str, Any]], case: str) -> None:
    documents = copy.deepcopy(rendered)
    change, said = BROKEN[case]
    change(documents)

    assert any(said in fault for fault in faults(documents)), list(faults(documents))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("environment", "HF_TOKEN"), "hf_x", "HF_TOKEN: a secret stands in the environment"),
        (("environment", "LEDGER"), "postgresql://rag:hunter2@db/rag", "an address holds a password"),
        (("image",), "rayrag:latest", "name a version"),
    ],
)
def test_a_specification_that_breaks_a_rule_is_not_rendered(
    tmp_path: Path, path: tuple[str, ...], value: str, said: str
) -> None:
    document = yaml.safe_load(DEFAULT_SPEC.read_text(encoding="utf-8"))
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))

    with pytest.raises(ConfigurationError) as refused:
        render(CONFIG, tmp_path / "spec.yaml")
    assert said in refused.value.detail and "hunter2" not in refused.value.detail


def test_what_is_fine_for_a_trial_is_said(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    assert ["rayrag:0.1.0" in warning for warning in warnings(rendered)] == [True]
    pinned = copy.deepcopy(rendered)
    for document in pinned:
        document.update(yaml.safe_load(yaml.safe_dump(document).replace("rayrag:0.1.0", f"rayrag@sha256:{'a' * 64}")))
    assert list(warnings(pinned)) == [] and list(faults(pinned)) == []
    policy(pinned).update(policyTypes=["Ingress"])
    assert ["network.egress" in warning for warning in warnings(pinned)] == [True]
    assert len(write_manifests(CONFIG, DEFAULT_SPEC, tmp_path)[1]) == 1
