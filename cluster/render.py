"""KubeRay manifests from a Serve configuration and a specification. The same input gives the same bytes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.manifest_rules import faults, warnings
from cluster.processes import is_loopback
from cluster.serve_file import SERVE_ENVIRONMENT, ServeFile, read_serve_file
from cluster.spec import Group, Peer, Spec, WorkerGroup, read_spec
from index.settings import application_args
from policies.errors import ConfigurationError
from policies.secret_files import MODE_VARIABLE

Manifest = dict[str, Any]

DATA_DIR = "/var/lib/rayrag"
CONFIG_PATH = "/etc/rayrag/serve_config.yaml"
GCS, DASHBOARD, CLIENT, METRICS, AGENT = 6379, 8265, 10001, 8080, 52365
PART = "app.kubernetes.io/part-of"
SHUTDOWN_S = 120


def write_manifests(config: Path, spec_file: Path, out: Path) -> tuple[list[Path], list[str]]:
    """Render all manifests into a directory. Gives their paths, and warnings for the operator's eyes.

    Raises `ConfigurationError` for wrong input.
    """
    rendered = render(config, spec_file)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in rendered.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out}: {error.strerror or error}: give another directory with --out.") from error
    documents = [document for text in rendered.values() for document in yaml.safe_load_all(text)]
    return [out / name for name in rendered], list(warnings(documents))


def render(config: Path, spec_file: Path) -> dict[str, str]:
    """Give the text of each manifest by file name. Raises `ConfigurationError` for what would be open."""
    spec = read_spec(spec_file)
    # Neither this machine's directories nor its environment belong in the manifests.
    file = read_serve_file(config, str(application_args(config).get("data_dir") or DATA_DIR))
    if is_loopback(file.host):
        raise ConfigurationError(f"{config}: http_options.host: nobody reaches {file.host} in a pod; give 0.0.0.0")
    own = list(_keys_of_each_pod(spec, file))
    if own:
        raise ConfigurationError("\n".join(f"{config}: {fault}" for fault in own))
    documents = {
        "rayservice.yaml": [ray_service(spec, file)],
        "rayjob.yaml": [config_map(spec, file), ray_job(spec, file)],
        "raycluster.yaml": [config_map(spec, file), ray_cluster(spec, file)],
        "networkpolicy.yaml": [network_policy(spec, file)],
    }
    # The same rules hold for what a specification brings: an environment, an image, who may come in.
    found = list(dict.fromkeys(faults([part for parts in documents.values() for part in parts])))
    if found:
        raise ConfigurationError("\n".join(f"{spec_file}: {fault}" for fault in found))
    return {name: _text(parts) for name, parts in documents.items()}


def _keys_of_each_pod(spec: Spec, file: ServeFile) -> Iterator[str]:
    """Say which keys each pod would make for itself: what one seals, signs or hashes, no other could open or find."""
    if spec.data.claim is not None:
        return
    args = file.args
    keys = {"store.audit_key_file": args.store.audit_key_file, "compliance.key_file": args.compliance.key_file}
    if args.identity.sign_in.any:
        keys["identity.sessions.key_file"] = args.identity.sessions.key_file
    for name, path in keys.items():
        if Path(path).is_relative_to(args.data_dir):
            yield f"{name}: {path} would be another key in each pod: name a file of a mounted Secret (secret_files)"


def ray_service(spec: Spec, file: ServeFile) -> Manifest:
    """The application on a cluster of its own; a new version starts beside the old one and takes over when ready."""
    cluster = _cluster_spec(spec, file, [group.name for group in spec.workers], serves=True)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": _metadata(spec, spec.name),
        "spec": {
            "upgradeStrategy": {"type": "NewCluster"},
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": _Literal(_yaml(file.document)),
            "rayClusterConfig": cluster,
        },
    }


def ray_job(spec: Spec, file: ServeFile) -> Manifest:
    """The bulk ingestion, on a cluster that ends with it."""
    words = ["python", "-m", "ingest", "bulk", "--config", CONFIG_PATH, "--source", spec.bulk.source]
    words += ["--tenant", spec.bulk.tenant, *(["--acl", spec.bulk.acl] if spec.bulk.acl else [])]
    cluster = _cluster_spec(spec, file, spec.bulk.workers, serves=False)
    # What the bulk cluster knows is in the ledger; a second head has nothing to come back to.
    cluster.pop("gcsFaultToleranceOptions", None)
    submitter = {
        "containers": [
            {
                "name": "ray-job-submitter",
                "image": spec.image,
                "imagePullPolicy": spec.image_pull_policy,
                "securityContext": {**_container_security(), "readOnlyRootFilesystem": True},
                "resources": _resources("500m", "1Gi", 0),
                "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a volume of the pod's own
                "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108
            }
        ],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": _pod_security(spec),
        **_pull_secrets(spec),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(spec, f"{spec.name}-bulk"),
        "spec": {
            "entrypoint": shlex.join(words),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": spec.bulk.keep_s,
            "activeDeadlineSeconds": spec.bulk.deadline_s,
            "backoffLimit": 0,
            "submitterPodTemplate": {"metadata": {"labels": _labels(spec)}, "spec": submitter},
            "rayClusterSpec": cluster,
        },
    }


def ray_cluster(spec: Spec, file: ServeFile) -> Manifest:
    """A standing cluster without the application, for `serve deploy` and `ray job submit`."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(spec, f"{spec.name}-cluster"),
        "spec": _cluster_spec(spec, file, [group.name for group in spec.workers], serves=False),
    }


def config_map(spec: Spec, file: ServeFile) -> Manifest:
    """The Serve configuration as a file, from which a job reads the same settings as the service."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(spec, f"{spec.name}-config"),
        "data": {"serve_config.yaml": _Literal(_yaml(file.document))},
    }


def network_policy(spec: Spec, file: ServeFile) -> Manifest:
    """Who may reach the pods.

    It is not optional: Ray's own ports between pods take pickled objects, and Serve's replicas do so without
    asking for a token. Only the cluster's pods may reach those.
    """
    own = {"podSelector": {"matchLabels": {PART: spec.name}}}
    operator = {"namespaceSelector": _namespace(spec.network.operator_namespace)}
    ingress: list[Manifest] = [
        {"from": [own]},
        {"from": [operator], "ports": _ports([DASHBOARD, AGENT, file.port])},
        *({"from": [_peer(peer)], "ports": _ports(peer.ports or [file.port])} for peer in spec.network.clients),
        *({"from": [_peer(peer)], "ports": _ports(peer.ports or [METRICS])} for peer in spec.network.monitoring),
    ]
    policy: Manifest = {
        "podSelector": {"matchLabels": {PART: spec.name}},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }
    if spec.network.egress is not None:
        dns = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
        policy["policyTypes"].append("Egress")
        policy["egress"] = [
            {"to": [own]},
            {"to": [{"namespaceSelector": _namespace("kube-system")}], "ports": dns},
            *(_egress(peer) for peer in spec.network.egress),
        ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(spec, spec.name),
        "spec": policy,
    }


def _cluster_spec(spec: Spec, file: ServeFile, workers: list[str], *, serves: bool) -> Manifest:
    groups = [group for group in spec.workers if group.name in workers]
    return {
        "rayVersion": spec.ray_version,
        "authOptions": {"mode": "token", "secretName": spec.auth_secret},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": spec.idle_timeout_s,
            "securityContext": _container_security(),
            "resources": _resources("500m", "1Gi", 0),
        },
        **_fault_tolerance(spec),
        "headGroupSpec": _head(spec, file, serves=serves),
        "workerGroupSpecs": [_worker_group(spec, file, group, serves=serves) for group in groups],
    }


def _head(spec: Spec, file: ServeFile, *, serves: bool) -> Manifest:
    ports = {"gcs-server": GCS, "dashboard": DASHBOARD, "client": CLIENT, "metrics": METRICS, "serve": file.port}
    probes = _probes("/api/gcs_healthz", DASHBOARD, None)
    pod = _pod(spec, file, spec.head, "ray-head", ports, probes, serves=serves)
    # Work on the head would die with it: it only directs.
    return {"rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"}, "template": pod}  # noqa: S104


def _worker_group(spec: Spec, file: ServeFile, group: WorkerGroup, *, serves: bool) -> Manifest:
    # A worker takes requests once its Serve proxy answers; one that only computes is ready with its raylet.
    probes = _probes("/api/local_raylet_healthz", AGENT, ("/-/healthz", file.port) if serves else None)
    ports = {"metrics": METRICS, "serve": file.port}
    return {
        "groupName": group.name,
        "replicas": group.min_replicas,
        "minReplicas": group.min_replicas,
        "maxReplicas": group.max_replicas,
        "rayStartParams": {},
        "template": _pod(spec, file, group, "ray-worker", ports, probes, serves=serves),
    }


def _pod(
    spec: Spec, file: ServeFile, group: Group, container: str, ports: dict[str, int], probes: Manifest, *, serves: bool
) -> Manifest:
    head = container == "ray-head"
    body = {
        "containers": [
            {
                "name": container,
                "image": spec.image,
                "imagePullPolicy": spec.image_pull_policy,
                "env": _environment(spec, file),
                "ports": [{"containerPort": port, "name": name} for name, port in ports.items()],
                "resources": _resources(group.cpu, group.memory, group.gpu),
                "securityContext": {**_container_security(), "readOnlyRootFilesystem": True},
                "volumeMounts": _mounts(spec, file, config=not serves),
                **probes,
            }
        ],
        "serviceAccountName": spec.service_account,
        # Only the head's autoscaler speaks to the Kubernetes API.
        "automountServiceAccountToken": head,
        "securityContext": _pod_security(spec),
        "terminationGracePeriodSeconds": SHUTDOWN_S,
        "volumes": _volumes(spec, config=not serves),
        **_pull_secrets(spec),
        **({"nodeSelector": group.node_selector} if group.node_selector else {}),
    }
    if group.tolerations:
        body["tolerations"] = [each.model_dump(exclude_none=True) for each in group.tolerations]
    return {"metadata": {"labels": _labels(spec)}, "spec": body}


def _environment(spec: Spec, file: ServeFile) -> list[Manifest]:
    plain = {
        "HOME": "/tmp",  # noqa: S108 - a volume of the pod's own
        "RAYRAG_DATA_DIR": file.args.data_dir,
        "RAY_USAGE_STATS_ENABLED": "0",
        MODE_VARIABLE: "mounted",
        **SERVE_ENVIRONMENT,
        **spec.environment,
    }
    secret = [
        {"name": each.variable, "valueFrom": {"secretKeyRef": {"name": each.secret, "key": each.key}}}
        for each in spec.secret_variables
    ]
    return [*({"name": name, "value": value} for name, value in sorted(plain.items())), *secret]


def _mounts(spec: Spec, file: ServeFile, *, config: bool) -> list[Manifest]:
    return [
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108
        {"name": "data", "mountPath": file.args.data_dir},
        *([{"name": "config", "mountPath": str(Path(CONFIG_PATH).parent), "readOnly": True}] if config else []),
        *({"name": each.name, "mountPath": each.path, "readOnly": True} for each in spec.secret_files),
        *({"name": each.name, "mountPath": each.path, "readOnly": each.read_only} for each in spec.claims),
    ]


def _volumes(spec: Spec, *, config: bool) -> list[Manifest]:
    scratch: Manifest = {"emptyDir": {"sizeLimit": spec.data.scratch}}
    claim: Manifest = {"persistentVolumeClaim": {"claimName": spec.data.claim}}
    return [
        {"name": "scratch", **scratch},
        {"name": "data", **(claim if spec.data.claim else scratch)},
        *([{"name": "config", "configMap": {"name": f"{spec.name}-config"}}] if config else []),
        *(
            {"name": each.name, "secret": {"secretName": each.secret, "defaultMode": 0o440}}
            for each in spec.secret_files
        ),
        *({"name": each.name, "persistentVolumeClaim": {"claimName": each.claim}} for each in spec.claims),
    ]


def _fault_tolerance(spec: Spec) -> Manifest:
    chosen = spec.fault_tolerance
    if chosen.backend == "none":
        return {}
    if chosen.backend == "rocksdb":
        return {"gcsFaultToleranceOptions": {"backend": "rocksdb", "storage": {"size": chosen.storage}}}
    options: Manifest = {"backend": "redis", "redisAddress": chosen.redis_address}
    if chosen.redis_password is not None:
        key = {"name": chosen.redis_password.secret, "key": chosen.redis_password.key}
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": key}}
    return {"gcsFaultToleranceOptions": options}


def _probes(live: str, live_port: int, ready: tuple[str, int] | None) -> Manifest:
    path, port = ready or (live, live_port)
    return {
        "startupProbe": _probe(live, live_port, period_s=5, failures=60),
        "livenessProbe": _probe(live, live_port, period_s=5, failures=24),
        "readinessProbe": _probe(path, port, period_s=5, failures=3),
    }


def _probe(path: str, port: int, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _resources(cpu: str, memory: str, gpu: int) -> Manifest:
    amounts: Manifest = {"cpu": cpu, "memory": memory, **({"nvidia.com/gpu": str(gpu)} if gpu else {})}
    return {"limits": amounts, "requests": dict(amounts)}


def _pod_security(spec: Spec) -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": spec.user_id,
        "runAsGroup": spec.user_id,
        "fsGroup": spec.user_id,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Manifest:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _pull_secrets(spec: Spec) -> Manifest:
    return {"imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets]} if spec.image_pull_secrets else {}


def _metadata(spec: Spec, name: str) -> Manifest:
    return {"name": name, "namespace": spec.namespace, "labels": _labels(spec)}


def _labels(spec: Spec) -> dict[str, str]:
    return {"app.kubernetes.io/name": "rayrag", PART: spec.name}


def _peer(peer: Peer) -> Manifest:
    if peer.cidr is not None:
        return {"ipBlock": {"cidr": peer.cidr}}
    return {
        **({"namespaceSelector": _namespace(peer.namespace)} if peer.namespace else {}),
        **({"podSelector": {"matchLabels": peer.pods}} if peer.pods else {}),
    }


def _egress(peer: Peer) -> Manifest:
    return {"to": [_peer(peer)], **({"ports": _ports(peer.ports)} if peer.ports else {})}


def _namespace(name: str) -> Manifest:
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}


def _ports(numbers: list[int]) -> list[Manifest]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]


class _Literal(str):
    """Text that stays readable: written as a block."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, with blocks for texts of many lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    _Literal, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _text(documents: list[Manifest]) -> str:
    return "---\n".join(_yaml(document) for document in documents)
