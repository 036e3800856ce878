"""What every manifest must hold, whatever the specification says: rights of pods, who reaches them, where secrets are.

faults      stop the rendering
warnings    are said: a choice that is fine for a trial
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

Manifest = dict[str, Any]

_SECRET_NAME = re.compile(r"(PASSW|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)", re.IGNORECASE)
_ONLY_A_PLACE = re.compile(r"(_FILE|_PATH|_DIR|_MODE|_ENV)$", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@]+@", re.IGNORECASE)
_HOST = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")
_MAY_ASK_KUBERNETES = "ray-head"
"""The container beside which the autoscaler runs: the only one whose pod needs Kubernetes' own API."""


def faults(documents: Sequence[Manifest]) -> Iterator[str]:
    """Say what is wrong with a set of manifests, each with the document it is in."""
    for document in documents:
        where = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "Secret":
            yield f"{where}: a secret stands in a manifest"
        for text in _texts(document):
            if _PASSWORD_IN_URL.search(text):
                yield f"{where}: an address holds a password"
        for fault in _cluster_faults(document):
            yield f"{where}: {fault}"
        for labels, pod in _pods(document):
            for fault in (*_pod_faults(pod), *_policy_faults(labels, documents)):
                yield f"{where}: {fault}"


def warnings(documents: Sequence[Manifest]) -> Iterator[str]:
    """Say what is fine for a trial, and should be put right before production."""
    images = {c["image"] for document in documents for _, pod in _pods(document) for c in pod["containers"]}
    for image in sorted(images):
        if "@sha256:" not in image:
            yield f"image {image}: name it by its digest (name@sha256:…), which nobody can move"
    if not any("Egress" in policy["spec"]["policyTypes"] for policy in _of_kind(documents, "NetworkPolicy")):
        yield "network.egress: the pods may reach everything; list what they need"


def _cluster_faults(value: Any) -> Iterator[str]:
    """Every Ray cluster asks for its token."""
    for part in _mappings(value):
        if "headGroupSpec" in part and (part.get("authOptions") or {}).get("mode") != "token":
            yield "Ray asks nobody for a token (authOptions.mode)"


def _pod_faults(pod: Manifest) -> Iterator[str]:
    yield from (f"{key}: the pod shares the node's" for key in _HOST if pod.get(key))
    yield from ("a volume is the node's own (hostPath)" for volume in pod.get("volumes", []) if "hostPath" in volume)
    security = pod.get("securityContext") or {}
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "securityContext: the pod may run as root"
    if (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "securityContext: no seccompProfile RuntimeDefault"
    names = {container["name"] for container in pod["containers"]}
    if pod.get("automountServiceAccountToken") is not False and _MAY_ASK_KUBERNETES not in names:
        yield "automountServiceAccountToken: the pod holds a token of Kubernetes that it does not need"
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        yield from (f"{container['name']}: {fault}" for fault in _container_faults(container))


def _container_faults(container: Manifest) -> Iterator[str]:
    security = container.get("securityContext") or {}
    if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
        yield "securityContext: it may gain rights"
    if "ALL" not in (security.get("capabilities") or {}).get("drop", []) or security["capabilities"].get("add"):
        yield "securityContext: it keeps capabilities"
    if container["name"].startswith("ray-") and security.get("readOnlyRootFilesystem") is not True:
        yield "securityContext: it may change its own program (readOnlyRootFilesystem)"
    if not (container.get("resources") or {}).get("limits"):
        yield "resources: no limits"
    name, _, tag = container["image"].partition("@")[0].rpartition("/")[2].partition(":")
    if "@sha256:" not in container["image"] and tag in ("", "latest"):
        yield f"image {name}: name a version"
    for variable in container.get("env", []):
        secret = _SECRET_NAME.search(variable["name"]) and not _ONLY_A_PLACE.search(variable["name"])
        if secret and "secretKeyRef" not in variable.get("valueFrom", {}):
            yield f"{variable['name']}: a secret stands in the environment"
    for word in (*container.get("command", []), *container.get("args", [])):
        if _SECRET_NAME.search(word):
            yield "a secret stands in the command line"


def _policy_faults(labels: dict[str, str], documents: Sequence[Manifest]) -> Iterator[str]:
    """A policy chooses the pod, so that all is refused which none of its rules allows, and no rule allows all."""
    chosen = [
        policy["spec"]
        for policy in _of_kind(documents, "NetworkPolicy")
        if policy["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items()
    ]
    if not any("Ingress" in spec["policyTypes"] for spec in chosen):
        yield "no NetworkPolicy chooses the pod: everybody reaches it"
    for spec in chosen:
        if not all(rule.get("from") for rule in spec.get("ingress", [])):
            yield "NetworkPolicy: a rule lets everybody in"
        if not all(rule.get("to") for rule in spec.get("egress", [])):
            yield "NetworkPolicy: a rule lets everything out"


def _pods(value: Any) -> Iterator[tuple[dict[str, str], Manifest]]:
    """Give the labels and the specification of every pod template in a document."""
    for part in _mappings(value):
        inner = part.get("spec")
        if isinstance(inner, dict) and "containers" in inner:
            yield (part.get("metadata") or {}).get("labels") or {}, inner


def _mappings(value: Any) -> Iterator[Manifest]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _mappings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _mappings(item)


def _texts(value: Any) -> Iterator[str]:
    for part in _mappings(value):
        for item in part.values():
            yield from (text for text in (item if isinstance(item, list) else [item]) if isinstance(text, str))


def _of_kind(documents: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [document for document in documents if document["kind"] == kind]
