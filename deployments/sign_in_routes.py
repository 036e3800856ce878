"""The routes below /v1/auth: signing in, refreshing, signing out, revoking. The work is in `deployments.signing_in`.

What leads to a token needs none: the list of ways, each way's routes, and refreshing, where the refresh token is the
proof. What is about a token needs it: `me`, `logout` and `revoke`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, RedirectResponse

from deployments.callers import BearerToken, Caller, RequestId
from deployments.contract import Problem
from deployments.session_desk import OpenedSession, RevocationOrder, SessionDesk
from deployments.sign_in_ways import PATH
from deployments.signing_in import BegunSignIn, FinishedSignIn, SigningIn
from policies.errors import InvalidRequest, NotFound, UnsupportedType
from policies.guard import KNOWN, Guard
from policies.signing_in.sealing import LIFETIME_S

FORM = "application/x-www-form-urlencoded"
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "content": {"application/problem+json": {}}} for code in (401, 404, 413, 422, 429, 503)
}
_GUARDED = {**_PROBLEMS, 403: _PROBLEMS[401]}


@dataclass(frozen=True, slots=True)
class SignInDesk:
    """What the routes work with. Without a `signing_in` there is no way to sign in here; tokens are revoked still."""

    desk: SessionDesk
    guard: Guard
    signing_in: SigningIn | None


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Way(_Body):
    """A way to sign in."""

    kind: Literal["oidc", "saml", "ldap"]
    name: str
    address: str


class WaysResponse(_Body):
    """All ways to sign in."""

    ways: list[Way]


class PasswordRequest(_Body):
    """A user name and a password, for a directory."""

    username: str = Field(max_length=1_024)
    password: str = Field(max_length=4_096, repr=False)


class RefreshRequest(_Body):
    """A refresh token; it is good for one use."""

    refresh_token: str = Field(max_length=1_024, repr=False)


class SessionResponse(_Body):
    """A session, in the words of OAuth 2.0 (RFC 6749, 5.1). Seconds from now on."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a kind
    expires_in: int
    refresh_token: str
    refresh_expires_in: int


class MeResponse(_Body):
    """Who calls, as questions are answered for them. `groups`: nested ones, too."""

    subject: str
    tenant: str
    roles: list[str]
    groups: list[str]
    clearance: str
    issuer: str
    expires_at: AwareDatetime


class RevokeRequest(_Body):
    """One of `subject`, `token_id` and `everyone`, of the caller's tenant. `before`: default now."""

    action: Literal["revoke", "disable", "enable"] = "revoke"
    subject: str | None = Field(default=None, max_length=256)
    token_id: str | None = Field(default=None, max_length=256)
    everyone: bool = False
    before: AwareDatetime | None = None


class DoneResponse(_Body):
    """It is done."""

    request_id: str
    status: Literal["done"] = "done"


def _desk(request: Request) -> SignInDesk:
    desk: SignInDesk = request.app.state.sign_in
    return desk


def _signing_in(request: Request) -> SigningIn:
    signing_in = _desk(request).signing_in
    if signing_in is None:
        raise NotFound("nobody signs in here")
    return signing_in


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


Desk = Annotated[SignInDesk, Depends(_desk)]
SignIn = Annotated[SigningIn, Depends(_signing_in)]
Address = Annotated[str, Depends(_address)]
ReturnTo = Annotated[str | None, Query(max_length=1_024, description="a path on this host, for a page of ours")]

router = APIRouter(prefix=PATH, tags=["signing in"])


@router.get("", response_model=WaysResponse, responses=_PROBLEMS)
async def ways(desk: Desk) -> WaysResponse:
    """Name the ways to sign in here."""
    named = desk.signing_in.ways() if desk.signing_in else []
    suffix = {"oidc": "/login", "saml": "/login", "ldap": ""}
    return WaysResponse(
        ways=[Way(kind=kind, name=name, address=f"{PATH}/{kind}/{name}{suffix[kind]}") for kind, name in named]
    )


@router.post("/ldap/{name}", response_model=SessionResponse, responses=_PROBLEMS)
async def sign_in_with_password(
    name: str, body: PasswordRequest, signing_in: SignIn, address: Address, request_id: RequestId
) -> SessionResponse:
    """Sign in with a directory's password."""
    return _session(await signing_in.with_password(name, body.username, body.password, address, request_id))


@router.get("/oidc/{name}/login", status_code=303, response_class=RedirectResponse, responses=_PROBLEMS)
async def begin_oidc(name: str, signing_in: SignIn, address: Address, return_to: ReturnTo = None) -> Response:
    """Send the browser to an OpenID provider."""
    return _away(await signing_in.begin_oidc(name, return_to, address), signing_in.secure, "lax")


@router.get("/oidc/{name}/callback", response_model=SessionResponse, responses=_PROBLEMS)
async def finish_oidc(
    name: str, request: Request, signing_in: SignIn, address: Address, request_id: RequestId
) -> Response:
    """Take the browser back from an OpenID provider: a session, or a redirect to the page that waits."""
    answer = _single(request.query_params.multi_items())
    return _back(
        await signing_in.finish_oidc(name, answer, request.cookies, address, request_id), signing_in.secure, "lax"
    )


@router.get("/saml/{name}/metadata", response_class=Response, responses=_PROBLEMS)
async def saml_metadata(name: str, signing_in: SignIn) -> Response:
    """Describe us to a SAML provider, as XML."""
    return Response(await signing_in.saml_metadata(name), media_type="application/samlmetadata+xml")


@router.get("/saml/{name}/login", status_code=303, response_class=RedirectResponse, responses=_PROBLEMS)
async def begin_saml(name: str, signing_in: SignIn, address: Address, return_to: ReturnTo = None) -> Response:
    """Send the browser to a SAML provider."""
    return _away(await signing_in.begin_saml(name, return_to, address), signing_in.secure, _of_saml(signing_in))


@router.post("/saml/{name}/acs", response_model=SessionResponse, responses=_PROBLEMS)
async def finish_saml(
    name: str, request: Request, signing_in: SignIn, address: Address, request_id: RequestId
) -> Response:
    """Take the browser back from a SAML provider: a session, or a redirect to the page that waits."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise UnsupportedType(f"send {FORM}")
    form = await request.form(max_files=0, max_fields=8)
    answer = _single([(name, value) for name, value in form.multi_items() if isinstance(value, str)])
    finished = await signing_in.finish_saml(name, answer, request.cookies, address, request_id)
    return _back(finished, signing_in.secure, _of_saml(signing_in))


@router.post("/refresh", response_model=SessionResponse, responses=_PROBLEMS)
async def refresh(body: RefreshRequest, desk: Desk, address: Address, request_id: RequestId) -> SessionResponse:
    """Use a refresh token: a session token of who the person is now, and the next refresh token."""
    return _session(await desk.desk.refresh(body.refresh_token, address, request_id))


@router.post("/logout", response_model=DoneResponse, responses=_GUARDED)
async def log_out(desk: Desk, caller: Caller, token: BearerToken, request_id: RequestId) -> DoneResponse:
    """End the session that this token belongs to, with all its tokens."""
    await desk.desk.log_out(token, request_id)
    return DoneResponse(request_id=request_id)


@router.get("/me", response_model=MeResponse, responses=_GUARDED)
async def me(desk: Desk, caller: Caller, token: BearerToken, request_id: RequestId) -> MeResponse:
    """Say who calls, and until when the token holds."""
    async with desk.guard.request(caller, KNOWN, "auth.me", request_id):
        verified = await desk.desk.verified(token)
    return MeResponse(
        subject=caller.subject,
        tenant=caller.tenant,
        roles=sorted(caller.roles),
        groups=sorted(caller.groups),
        clearance=caller.clearance.word,
        issuer=verified.issuer,
        expires_at=datetime.fromtimestamp(verified.expires_at, UTC),
    )


@router.post("/revoke", response_model=DoneResponse, responses=_GUARDED)
async def revoke(desk: Desk, caller: Caller, body: RevokeRequest, request_id: RequestId) -> DoneResponse:
    """Revoke what a person, or everyone of the tenant, was given, or one token; disable a person, or enable them."""
    noted = {key: value for key, value in body.model_dump(mode="json").items() if value not in (None, False)}
    async with desk.guard.request(caller, "identity:revoke", "auth.revoke", request_id, noted):
        before = body.before.timestamp() if body.before else None
        order = RevocationOrder(body.action, body.subject, body.token_id, body.everyone, before)
        await desk.desk.revoke(caller, order)
    return DoneResponse(request_id=request_id)


def _session(opened: OpenedSession) -> SessionResponse:
    return SessionResponse(
        access_token=opened.session_token,
        expires_in=opened.session_token_s,
        refresh_token=opened.refresh_token,
        refresh_expires_in=opened.refresh_s,
    )


def _of_saml(signing_in: SigningIn) -> Literal["lax", "none"]:
    # The provider's page posts the form here, and with such a post browsers send only cookies that allow it.
    return "none" if signing_in.secure else "lax"


def _away(begun: BegunSignIn, secure: bool, same_site: Literal["lax", "none"]) -> Response:
    answer = RedirectResponse(begun.location, status_code=303)
    answer.set_cookie(
        begun.cookie, begun.sealed, LIFETIME_S, path=begun.path, secure=secure, httponly=True, samesite=same_site
    )
    return answer


def _back(finished: FinishedSignIn, secure: bool, same_site: Literal["lax", "none"]) -> Response:
    answer: Response
    if finished.return_to is None:
        answer = JSONResponse(_session(finished.session).model_dump())
    else:
        # Behind the #, which browsers keep to themselves; it is good for one use, soon, by the page that waits.
        location = f"{finished.return_to}#refresh_token={finished.session.refresh_token}"
        answer = RedirectResponse(location, status_code=303)
    answer.delete_cookie(finished.cookie, path=finished.path, secure=secure, httponly=True, samesite=same_site)
    return answer


def _single(items: list[tuple[str, str]]) -> dict[str, str]:
    """Read parameters of which each comes once. Raises `InvalidRequest` for one that comes twice."""
    found = dict(items)
    if len(found) != len(items):
        raise InvalidRequest("a parameter came twice")
    return found
