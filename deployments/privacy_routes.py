"""The routes below /v1/privacy: an officer files what a person asks for, sees how far it is, and fetches the answer.

All of it is of the caller's tenant, and on the record; what names the person is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from ray.serve.handle import DeploymentHandle

from deployments.callers import Caller, RequestId
from deployments.contract import Problem
from index.privacy_requests import PrivacyRequest
from ingest.privacy_work import Asked
from policies.errors import Conflict, NotFound
from policies.guard import Guard
from policies.privacy.subject import MAX_CHARS, MOST, Subject

MANAGE = "privacy:manage"
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "content": {"application/problem+json": {}}}
    for code in (401, 403, 404, 409, 413, 422, 429, 503)
}
Text = Annotated[str, Field(max_length=2 * MAX_CHARS)]


@dataclass(frozen=True, slots=True)
class PrivacyRoutes:
    """What the routes work with. `sync` is where the index is written."""

    guard: Guard
    sync: DeploymentHandle[Any]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubjectBody(_Body):
    """Whom it is about: what is theirs alone (addresses, numbers, accounts), and their names in all spellings."""

    identifiers: list[Text] = Field(default_factory=list, max_length=2 * MOST, repr=False)
    names: list[Text] = Field(default_factory=list, max_length=2 * MOST, repr=False)


class Correction(_Body):
    """What is wrong, and what is right."""

    old: Text = Field(repr=False)
    new: Text = Field(repr=False)


class PrivacyBody(_Body):
    """What a person asks for. `owned`: an erasure takes what they uploaded as well."""

    type: Literal["access", "rectification", "erasure", "portability", "restriction", "objection"]
    subject: SubjectBody
    owned: bool = False
    corrections: list[Correction] = Field(default_factory=list, max_length=MOST, repr=False)

    def asked(self) -> Asked:
        """Give it as it is worked on."""
        subject = Subject(tuple(self.subject.identifiers), tuple(self.subject.names))
        return Asked(self.type, subject, self.owned, {each.old: each.new for each in self.corrections})


class PrivacyAccepted(_Body):
    """It is taken; the rest is told by `GET`."""

    privacy_request_id: str
    status: Literal["queued", "running", "done", "refused"]


class PrivacyStatus(_Body):
    """How far it is. `found`: counts by place. `physical`: whether it is gone from the disk as well."""

    privacy_request_id: str
    type: str
    status: Literal["queued", "running", "done", "refused"]
    reason: str | None = None
    requested_at: str
    done_at: str | None = None
    found: dict[str, Any]
    physical: Literal["pending", "done"] | None = None
    receipt: dict[str, Any] | None = None

    @classmethod
    def of(cls, request: PrivacyRequest) -> PrivacyStatus:
        """Show a request."""
        return cls(
            privacy_request_id=request.privacy_request_id,
            type=request.type,
            status=request.state,
            reason=request.reason,
            requested_at=_iso(request.requested_at),
            done_at=None if request.done_at is None else _iso(request.done_at),
            found=dict(request.found),
            physical=None if request.physical == "none" else request.physical,
            receipt=None if request.receipt is None else dict(request.receipt),
        )


def _routes(request: Request) -> PrivacyRoutes:
    routes: PrivacyRoutes = request.app.state.privacy
    return routes


Routes = Annotated[PrivacyRoutes, Depends(_routes)]
PrivacyRequestId = Annotated[str, Path(max_length=64)]
router = APIRouter(prefix="/v1/privacy", tags=["privacy"])


@router.post("/requests", status_code=202, response_model=PrivacyAccepted, responses=_PROBLEMS)
async def request_privacy(body: PrivacyBody, routes: Routes, caller: Caller, request_id: RequestId) -> PrivacyAccepted:
    """File what a person asks for."""
    async with routes.guard.request(caller, MANAGE, "privacy.request", request_id, {"type": body.type}) as guarded:
        who = guarded.principal
        opened: PrivacyRequest = await routes.sync.open_privacy.remote(who.tenant, who.subject, body.asked())
        guarded.note({"privacy_request": opened.privacy_request_id})
    return PrivacyAccepted(privacy_request_id=opened.privacy_request_id, status=opened.state)


@router.get("/requests/{privacy_request_id}", response_model=PrivacyStatus, responses=_PROBLEMS)
async def privacy_request(
    privacy_request_id: PrivacyRequestId, routes: Routes, caller: Caller, request_id: RequestId
) -> PrivacyStatus:
    """Say how far a request is, and what came of it."""
    detail = {"privacy_request": privacy_request_id}
    async with routes.guard.request(caller, MANAGE, "privacy.get", request_id, detail) as guarded:
        found: PrivacyRequest = await routes.sync.privacy.remote(guarded.principal.tenant, privacy_request_id)
        return PrivacyStatus.of(found)


@router.get("/requests/{privacy_request_id}/export", response_class=Response, responses=_PROBLEMS)
async def privacy_export(
    privacy_request_id: PrivacyRequestId, routes: Routes, caller: Caller, request_id: RequestId
) -> Response:
    """Give the answer to an access or a portability request, as a zip."""
    detail = {"privacy_request": privacy_request_id}
    async with routes.guard.request(caller, MANAGE, "privacy.export", request_id, detail) as guarded:
        tenant = guarded.principal.tenant
        found: PrivacyRequest = await routes.sync.privacy.remote(tenant, privacy_request_id)
        if found.type not in ("access", "portability"):
            raise NotFound("this request has no export")
        if found.state != "done":
            raise Conflict("the export is not made yet; ask for it when the request is done")
        export: bytes | None = await routes.sync.privacy_export.remote(tenant, privacy_request_id)
        if export is None:
            raise NotFound("the export's time is over")
    name = f"attachment; filename={found.type}-{found.privacy_request_id}.zip"
    headers = {"content-disposition": name, "cache-control": "no-store"}
    return Response(export, media_type="application/zip", headers=headers)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
