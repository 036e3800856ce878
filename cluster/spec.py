"""What the Kubernetes manifests need to know beyond the Serve configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from policies.errors import ConfigurationError

DEFAULT_SPEC = Path(__file__).parent / "spec.yaml"

NAME = r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"


class Part(BaseModel):
    """A part of the specification: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(Part):
    """A taint that a group's pods bear."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Group(Part):
    """Pods of one kind: `memory` as Kubernetes writes it. Requests equal limits: Ray plans with what it is told."""

    cpu: str = Field(pattern=QUANTITY)
    memory: str = Field(pattern=QUANTITY)
    gpu: int = Field(default=0, ge=0)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)


class WorkerGroup(Group):
    """Worker pods, between `min_replicas` and `max_replicas` of them as the autoscaler sees fit."""

    name: str = Field(pattern=NAME)
    min_replicas: int = Field(default=0, ge=0)
    max_replicas: int = Field(ge=1)

    @model_validator(mode="after")
    def _bounds(self) -> WorkerGroup:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) is above max_replicas ({self.max_replicas})")
        return self


class SecretVariable(Part):
    """An environment variable from a Secret's key."""

    variable: str = Field(pattern=r"^[A-Z_][A-Z0-9_]*$")
    secret: str = Field(pattern=NAME)
    key: str


class SecretFiles(Part):
    """A Secret mounted as files."""

    name: str = Field(pattern=NAME)
    secret: str = Field(pattern=NAME)
    path: str = Field(pattern=r"^/")


class Claim(Part):
    """A PersistentVolumeClaim that exists already, such as the one with the models."""

    name: str = Field(pattern=NAME)
    claim: str = Field(pattern=NAME)
    path: str = Field(pattern=r"^/")
    read_only: bool = True


class Data(Part):
    """What stands at the configuration's `data_dir`: a claim that several pods may write, else scratch space."""

    claim: str | None = None
    scratch: str = Field(default="20Gi", pattern=QUANTITY)


class FaultTolerance(Part):
    """Where Ray keeps what must survive its head: `rocksdb` on a volume of its own, or a Redis."""

    backend: Literal["none", "rocksdb", "redis"] = "rocksdb"
    storage: str = Field(default="5Gi", pattern=QUANTITY)
    redis_address: str | None = None
    redis_password: SecretKey | None = None

    @model_validator(mode="after")
    def _redis(self) -> FaultTolerance:
        if self.backend == "redis" and not self.redis_address:
            raise ValueError("backend redis needs redis_address")
        return self


class SecretKey(Part):
    """A key of a Secret."""

    secret: str = Field(pattern=NAME)
    key: str


class Peer(Part):
    """Who may talk: a namespace by name, narrowed by pod labels, or a range of addresses. No ports: all of them."""

    namespace: str | None = None
    pods: dict[str, str] = Field(default_factory=dict)
    cidr: str | None = None
    ports: list[int] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one(self) -> Peer:
        if (self.cidr is None) == (self.namespace is None and not self.pods):
            raise ValueError("give either cidr, or namespace and/or pods")
        return self


class Network(Part):
    """What may reach the pods, and what they may reach. DNS and the pods' own traffic are always allowed."""

    operator_namespace: str = "kuberay-operator"
    clients: list[Peer] = Field(description="who may ask questions")
    monitoring: list[Peer] = Field(default_factory=list, description="who may read Ray's metrics")
    egress: list[Peer] | None = Field(default=None, description="none: everything")


class Bulk(Part):
    """The bulk job: one source into one tenant, on a cluster that ends with it."""

    source: str
    tenant: str
    acl: str = ""
    workers: list[str] = Field(description="names of the worker groups that it uses", min_length=1)
    deadline_s: int = Field(default=86_400, ge=60)
    keep_s: int = Field(default=3600, ge=0)


class Spec(Part):
    """Everything about the cluster that is not about the application."""

    name: str = Field(pattern=NAME)
    namespace: str = Field(pattern=NAME)
    image: str
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    ray_version: str
    service_account: str = Field(pattern=NAME)
    auth_secret: str = Field(pattern=NAME, description="Secret whose key auth_token is Ray's token")
    user_id: int = Field(default=10001, ge=1)
    head: Group
    workers: list[WorkerGroup] = Field(min_length=1)
    idle_timeout_s: int = Field(default=300, ge=1)
    environment: dict[str, str] = Field(default_factory=dict)
    secret_variables: list[SecretVariable] = Field(default_factory=list)
    secret_files: list[SecretFiles] = Field(default_factory=list)
    claims: list[Claim] = Field(default_factory=list)
    data: Data = Data()
    fault_tolerance: FaultTolerance = FaultTolerance()
    network: Network
    bulk: Bulk

    @model_validator(mode="after")
    def _names(self) -> Spec:
        names = [group.name for group in self.workers]
        if len(set(names)) != len(names):
            raise ValueError("workers: two groups have the same name")
        unknown = sorted(set(self.bulk.workers) - set(names))
        if unknown:
            raise ValueError(f"bulk.workers: no such group: {', '.join(unknown)}; there are: {', '.join(names)}")
        own = [each.name for each in self.secret_files] + [each.name for each in self.claims]
        volumes = ["config", "data", "scratch", *own]
        if len(set(volumes)) != len(volumes):
            raise ValueError("secret_files and claims: names must differ, and not be config, data or scratch")
        return self


def read_spec(path: Path) -> Spec:
    """Read a specification. Raises `ConfigurationError` with the path of each wrong key."""
    try:
        return Spec.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(str(part) for part in problem['loc']) or 'the file'}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise ConfigurationError("\n".join(lines)) from error
