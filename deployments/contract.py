"""The shapes of HTTP bodies, as `/openapi.json` shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from index.labels import LabelWord, SaidLabel

DocumentId = str


class Body(BaseModel):
    """A request or response body: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class Filters(Body):
    """Narrow the search; rights always apply as well."""

    document_ids: list[str] | None = Field(default=None, min_length=1, max_length=200)


class QueryRequest(Body):
    """A question."""

    question: str = Field(min_length=1)
    top_k: int = Field(default=8, ge=1, le=50)
    filters: Filters | None = None
    mode: Literal["auto", "hybrid", "dense", "keyword"] = "auto"
    purpose: str | None = Field(default=None, max_length=128)
    stream: bool = False


class CitationBody(Body):
    """Verbatim evidence: `quote` stands at `[start, end)`, counted in characters of the document's text."""

    n: int
    document_id: str
    chunk_id: str
    external_id: str
    title: str
    uri: str
    page: int | None
    quote: str
    start: int
    end: int
    score: float


class QueryResponse(Body):
    """An answer; `degraded` names the stages that did less than configured, `generator` who spoke."""

    request_id: str
    answer: str
    abstained: bool
    citations: list[CitationBody]
    degraded: list[str]
    generator: str
    timings_ms: dict[str, float]
    as_of: str


class HitBody(Body):
    """A passage, as ranked."""

    document_id: str
    chunk_id: str
    external_id: str
    title: str
    uri: str
    text: str
    score: float
    start: int
    end: int
    page: int | None


class RetrieveResponse(Body):
    """Passages that the caller may read, best first."""

    request_id: str
    hits: list[HitBody]
    degraded: list[str] = []
    timings_ms: dict[str, float] = {}
    as_of: str = ""


class RuleBody(Body):
    """Who may read: principals `user:…`, `group:…`, `role:…`, `everyone`. Deny wins; an empty rule means nobody."""

    allow: list[str] = Field(default_factory=list, max_length=10_000)
    deny: list[str] = Field(default_factory=list, max_length=10_000)


class RuleChange(RuleBody):
    """Who may read from now on. `label`: the new one; the document keeps its own where it is left out."""

    label: SaidLabel = None


class DocumentUpload(Body):
    """A document as JSON, the same as a JSONL row of bulk ingestion."""

    id: str = Field(min_length=1, max_length=512)
    title: str | None = Field(default=None, max_length=1024)
    text: str = Field(min_length=1)
    uri: str | None = Field(default=None, max_length=2048)
    acl: list[str] | RuleBody | None = None
    label: SaidLabel = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class DocumentStatus(Body):
    """What became of an upload. `warning`: what its uploader should look at, such as text that nobody sees."""

    document_id: str
    version: int | None
    status: Literal["indexed", "unchanged", "quarantined", "deleted", "updated"]
    reason: str | None = None
    warning: str | None = None


class UploadResponse(Body):
    """The first document's status; `documents` has all of them when several files were sent."""

    document_id: str
    version: int | None
    status: str
    reason: str | None = None
    warning: str | None = None
    documents: list[DocumentStatus] = []


class DocumentBody(Body):
    """A document that the caller may see."""

    document_id: str
    external_id: str
    title: str
    uri: str
    version: int
    chunks: int
    updated_at: str
    source: str
    label: LabelWord


class DocumentPage(Body):
    """Documents in order of their id; `next` is the `after` of the following page."""

    documents: list[DocumentBody]
    next: str | None


class ChatMessage(BaseModel):
    """A message of OpenAI's chat format; other keys are ignored, as OpenAI's own servers do."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(BaseModel):
    """OpenAI's chat completion request: what does not apply here is accepted and has no effect."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: int | None = Field(default=None, ge=1, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    metadata: dict[str, str] | None = Field(
        default=None, max_length=16, description="`purpose`: why it is asked, as in /v1/query"
    )

    @field_validator("metadata")
    @classmethod
    def _is_short(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value and len(value.get("purpose", "")) > 128:
            raise ValueError("purpose: at most 128 characters")
        return value


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str


class WebhookResponse(Body):
    """`accepted`: so many documents will be looked at; 0: the source will be listed."""

    request_id: str
    accepted: int


class StatusWord(Body):
    """All that a probe is told."""

    status: Literal["ok", "starting", "unavailable"]


class SourceBody(Body):
    """A source that is kept fresh. Times are seconds or ISO 8601, UTC.

    `lag_s`: for so long the index may miss what changed; none before the first listing ended well. `behind`: over the
    source's objective and its pace of listing.
    """

    name: str
    kind: str
    uri: str
    state: Literal["waiting", "syncing", "current", "failing", "paused"]
    documents: int
    dead_letters: int
    as_of: str | None
    lag_s: float | None
    behind: bool
    failures: int
    last_error: str | None
    retry_in_s: float | None
    hints: int
    changes: dict[str, int]


class SourcesResponse(Body):
    """`kept_fresh`: whether the part that keeps sources fresh answers."""

    kept_fresh: bool
    sources: list[SourceBody]
