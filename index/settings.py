"""The whole configuration: the `args` of `serve_config.yaml`, read alike by questions, ingestion and operations.

Paths may hold `${data_dir}`, which `load` replaces. Secrets are never values here: a setting that ends in
`_file` names a mounted file, one that ends in `_env` an environment variable.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from index.compliance_settings import COMPLIANCE_KEY
from index.compliance_settings import ComplianceSettings as ComplianceSettings
from index.issuer_settings import IssuerSettings as IssuerSettings
from index.labels import LabelWord
from index.limit_settings import HttpSettings as HttpSettings
from index.limit_settings import LimitSettings as LimitSettings
from index.regimes import policies_of
from index.sections import Section as Section
from index.sign_in_settings import SESSION_KEY, SessionSettings, SignInSettings
from policies.errors import ConfigurationError
from policies.labels import DEFAULT_LABEL
from policies.links import Links
from policies.roles import Roles
from policies.secret_files import read_secret_file

DATA_DIR_VARIABLE = "RAYRAG_DATA_DIR"


class IdentitySettings(Section):
    """Whom to believe."""

    issuers: list[IssuerSettings] = Field(min_length=1)
    leeway_s: int = Field(default=30, ge=0, le=300)
    max_token_bytes: int = Field(default=16_384, ge=512, le=65_536)
    max_lifetime_s: int = Field(default=86_400, ge=60, le=86_400, description="no token may be valid for longer")
    roles: dict[str, Any] = Field(
        default_factory=dict,
        description="added to, or in place of, the default roles (policies/roles.yaml): a list of permissions, or "
        "{permissions, clearance, tenants}",
    )
    default_label: LabelWord = Field(
        default=DEFAULT_LABEL, description="of a document that neither says its label nor has one from its source"
    )
    scrape_token_file: str | None = Field(default=None, description="a file with the token that may read /metrics")
    sign_in: SignInSettings = SignInSettings()
    sessions: SessionSettings = SessionSettings()

    @field_validator("roles")
    @classmethod
    def _roles_hold(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            Roles.load(value)
        except ConfigurationError as error:
            raise ValueError(error.detail) from error
        return value


class StoreSettings(Section):
    """Where rows live. `uri`: any Milvus; `ledger`: an SQLAlchemy URL."""

    uri: str = "http://127.0.0.1:19530"
    token_env: str | None = None
    database: str = "default"
    ledger: str = "sqlite:///${data_dir}/ledger.sqlite"
    embeddings: str = Field(
        default="sqlite:///${data_dir}/embeddings.sqlite", description="cache of dense and token vectors"
    )
    audit: str = "sqlite:///${data_dir}/audit.sqlite"
    suppressions: str | None = Field(
        default=None,
        description="where the list of what was erased is kept, apart from what a backup of the rest puts back; "
        "none: a file beside the data directory, and with PostgreSQL the ledger's database",
    )
    audit_key_file: str = Field(
        default="${data_dir}/secrets/audit.pem",
        description="Ed25519 private key that signs the audit record's checkpoints; made where there is none",
    )
    audit_checkpoint_s: float = Field(
        default=60.0, ge=1, le=86_400, description="how often the audit record's newest line is signed"
    )
    audit_anchor: str | None = Field(
        default=None,
        description="where signed checkpoints are copied to, out of the reach of who keeps the record: a file that "
        "ends in .jsonl, a directory, or any address that fsspec knows",
    )
    audit_segments: str | None = Field(
        default=None, description="a directory for the record's older part; none: all of it stays in the database"
    )
    audit_segment_records: int = Field(default=1_000_000, ge=2, description="so many records make a segment")
    audit_keep_days: int | None = Field(
        default=None, ge=1, description="records that are in segments leave the database after so long; none: never"
    )
    dense_index: Literal["FLAT", "HNSW", "AUTOINDEX"] = "FLAT"
    consistency: Literal["Strong", "Bounded", "Session", "Eventually"] = "Strong"
    timeout_s: float = Field(default=10.0, gt=0)


class EmbeddingSettings(Section):
    """The model that turns text into vectors. `model` is a directory; none means the packaged all-MiniLM-L6-v2."""

    model: str | None = None
    sha256: str | None = Field(default=None, description="expected hash of model.safetensors")
    backend: Literal["auto", "openvino", "torch"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int = Field(default=256, ge=16, le=32_768)
    batch_size: int = Field(default=32, ge=1, le=4096)
    batch_wait_s: float = Field(default=0.002, ge=0, le=1)
    threads: int = Field(default=0, ge=0, description="0: as many as the machine has")
    query_prefix: str = ""
    passage_prefix: str = ""
    token_vectors: bool = Field(default=True, description="keep int8 token vectors for late-interaction reranking")
    query_cache: int = Field(default=4096, ge=0)


class ChunkingSettings(Section):
    """Sizes in tokens of the embedding model."""

    max_tokens: int = Field(default=200, ge=32, le=8192)
    overlap_tokens: int = Field(default=0, ge=0, le=512)


class ParsingSettings(Section):
    """Limits of the child process that reads files."""

    memory_mb: int = Field(default=512, ge=128)
    timeout_s: float = Field(default=60.0, gt=0)
    max_file_mb: float = Field(default=100.0, gt=0)
    max_attempts: int = Field(default=3, ge=1)
    hidden_text: Literal["leave_out", "keep"] = Field(
        default="leave_out", description="what the readers of a file do not see; reported either way"
    )


class IngestSettings(Section):
    """The bulk pipeline."""

    parse_cpus: float = Field(default=0.25, gt=0)
    parse_concurrency: int = Field(default=2, ge=1)
    embed_actors: int = Field(default=1, ge=1)
    embed_cpus: float = Field(default=0.5, gt=0)
    embed_gpus: float = Field(default=0.0, ge=0, description="GPU fraction of an embedding actor; 0: use the CPU")
    batch_documents: int = Field(default=16, ge=1)
    niceness: int = Field(default=19, ge=0, le=19, description="how far the stages step aside for questions")
    write_cpus: float = Field(default=0.25, gt=0)
    write_concurrency: int = Field(default=1, ge=1)
    parsing: ParsingSettings = ParsingSettings()
    chunking: ChunkingSettings = ChunkingSettings()


class SyncSettings(Section):
    """How sources are kept fresh, beside bulk jobs."""

    sources_file: str | None = Field(default=None, description="a sources.yaml; what it names is kept fresh from start")
    workers: int = Field(default=1, ge=1, le=64, description="processes that read documents, shared by all sources")
    slice_documents: int = Field(default=16, ge=1, description="documents of one source between two turns")
    bulk_over: int = Field(default=500, ge=1, description="more changed documents than this go through Ray Data")


class RetrievalSettings(Section):
    """How passages are found."""

    depth: int = Field(default=60, ge=1, le=1000, description="candidates taken from each of dense and keyword search")
    dense_weight: float = Field(default=0.5, ge=0, le=1)


class RerankingSettings(Section):
    """How candidates are ordered. `cross_encoder` needs `model`, a directory with a sequence-classification model."""

    kind: Literal["late_interaction", "cross_encoder", "none"] = "late_interaction"
    model: str | None = None
    depth: int = Field(default=30, ge=1, le=1000)
    weight: float = Field(default=0.4, ge=0, le=1, description="share of the reranker's score in the final score")
    batch_size: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _model_for_cross_encoder(self) -> RerankingSettings:
        if self.kind == "cross_encoder" and not self.model:
            raise ValueError("kind cross_encoder needs model, a directory")
        return self


class GenerationSettings(Section):
    """Who writes the answer: `extractive` quotes, `vllm` and `openai` write."""

    kind: Literal["extractive", "vllm", "openai"] = "extractive"
    fallback: Literal["extractive", "none"] = "extractive"
    model: str | None = Field(default=None, description="vllm: a directory or model id; openai: the model's name there")
    served_name: str = "rayrag"
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    max_tokens: int = Field(default=512, ge=1, le=32_768)
    temperature: float = Field(default=0.0, ge=0, le=2)
    context_chunks: int = Field(default=8, ge=1, le=50)
    link_hosts: list[str] = Field(
        default_factory=list, description="hosts that links of an answer may lead to, beside its sources' own addresses"
    )
    timeout_s: float = Field(default=120.0, gt=0)
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM engine arguments, as vLLM names them")
    accelerator: str | None = None
    placement: list[dict[str, float]] | None = Field(default=None, description="placement group bundles for vLLM")
    environment: dict[str, str] = Field(default_factory=dict, description="environment of the vLLM replicas")
    min_support: float = Field(default=0.5, ge=0, le=1, description="extractive: below this, abstain")

    @field_validator("link_hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        Links.to(value)
        return value

    @model_validator(mode="after")
    def _model_where_needed(self) -> GenerationSettings:
        if self.kind != "extractive" and not self.model:
            raise ValueError(f"kind {self.kind} needs model")
        if self.kind == "openai" and not self.base_url:
            raise ValueError("kind openai needs base_url")
        return self


class AppArgs(Section):
    """Everything `deployments.app:build` needs."""

    data_dir: str = ".rayrag"
    identity: IdentitySettings
    store: StoreSettings = StoreSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    ingest: IngestSettings = IngestSettings()
    sync: SyncSettings = SyncSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    reranking: RerankingSettings = RerankingSettings()
    generation: GenerationSettings = GenerationSettings()
    limits: LimitSettings = LimitSettings()
    http: HttpSettings = HttpSettings()
    compliance: ComplianceSettings = ComplianceSettings()

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return str(Path(value).expanduser().absolute())

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, values: Any) -> Any:
        if isinstance(values, dict):
            data_dir = str(Path(values.get("data_dir") or ".rayrag").expanduser().absolute())
            store = values.get("store") or {}
            if isinstance(store, dict):
                values = {**values, "store": {**StoreSettings().model_dump(), **store}}
            identity = values.get("identity")
            if isinstance(identity, dict) and isinstance(identity.get("sessions", {}), dict):
                sessions = {"key_file": SESSION_KEY, **identity.get("sessions", {})}
                values = {**values, "identity": {**identity, "sessions": sessions}}
            compliance = values.get("compliance") or {}
            if isinstance(compliance, dict):
                values = {**values, "compliance": {"key_file": COMPLIANCE_KEY, **compliance}}
            return _replace(values, data_dir)
        return values


def _replace(value: Any, data_dir: str) -> Any:
    if isinstance(value, str):
        return value.replace("${data_dir}", data_dir)
    if isinstance(value, dict):
        return {key: _replace(item, data_dir) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, data_dir) for item in value]
    return value


def application_args(serve_config: Path) -> dict[str, Any]:
    """Read the `args` of the one application in a Serve configuration file.

    Raises `ConfigurationError` for a file that is missing, is no YAML or names no application of ours.
    """
    try:
        document = yaml.safe_load(serve_config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{serve_config}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{serve_config}: no valid YAML: {' '.join(str(error).split())}") from error
    applications = document.get("applications") if isinstance(document, dict) else None
    for application in applications or []:
        if isinstance(application, dict) and application.get("import_path") == "deployments.app:build":
            args = application.get("args")
            return dict(args) if isinstance(args, dict) else {}
    raise ConfigurationError(f"{serve_config}: applications[] has none with import_path deployments.app:build")


def load(serve_config: Path, data_dir: str | None = None) -> AppArgs:
    """Read and check the configuration.

    The data directory is `data_dir`, else the environment's `RAYRAG_DATA_DIR` (which `rayrag up` sets for the whole
    cluster, so that jobs agree with the deployments whatever their working directory), else the file's. Raises
    `ConfigurationError` naming each wrong key's path and what is allowed there.
    """
    args = application_args(serve_config)
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if data_dir:
        args["data_dir"] = data_dir
    return parse(args, str(serve_config))


def parse(args: dict[str, Any], where: str = "args") -> AppArgs:
    """Check the configuration's values. Raises `ConfigurationError` as `load` does."""
    try:
        found = AppArgs.model_validate(args)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            path = ".".join(str(part) for part in problem["loc"])
            lines.append(f"{where}: args.{path}: {problem['msg']}{_allowed(problem)}")
        raise ConfigurationError("\n".join(lines)) from error
    try:
        policies_of(found.compliance)  # what the regimes' files say is known only when they are read
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.detail}") from error
    return found


def _allowed(problem: Any) -> str:
    if problem["type"] != "extra_forbidden":
        return ""
    model: Any = AppArgs
    for part in problem["loc"][:-1]:
        model = _inside(model, part)
    fields = getattr(model, "model_fields", None)
    return f"; allowed here: {', '.join(sorted(fields))}" if fields else ""


def _inside(kind: Any, part: str | int) -> Any:
    """Give the type of what is at `part` of a section, a list, a mapping or a choice of them; None: not known."""
    if hasattr(kind, "model_fields"):
        return kind.model_fields[part].annotation if part in kind.model_fields else None
    choices = get_args(kind)
    if get_origin(kind) in (list, dict):
        return choices[-1]
    return next((found for choice in choices if (found := _inside(choice, part)) is not None), None)


def read_secret(name_file: str | None, name_env: str | None, key: str = "a secret's file") -> str | None:
    """Fetch a secret from a file that nobody else may read, else from the environment.

    `key`: the path of the setting that names the file. Raises `ConfigurationError` when the secret is absent, or not
    kept as one (see `policies.secret_files`).
    """
    if name_file:
        return read_secret_file(Path(name_file), key)
    if name_env:
        value = os.environ.get(name_env)
        if not value:
            raise ConfigurationError(f"environment variable {name_env} is not set")
        return value
    return None
