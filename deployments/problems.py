"""The one table from errors to HTTP answers, as problem documents (RFC 9457) that say nothing they should not."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from policies.errors import (
    BadSignature,
    ConfigurationError,
    Conflict,
    ContentBlocked,
    DocumentRejected,
    Forbidden,
    HeadersTooLarge,
    Held,
    InvalidRequest,
    NotFound,
    Overloaded,
    RayragError,
    RightsUnreadable,
    SignInRefused,
    SourceUnavailable,
    TokenRejected,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedType,
)

log = logging.getLogger("ray.serve")

STATUS: dict[type[RayragError], HTTPStatus] = {
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    TokenRejected: HTTPStatus.UNAUTHORIZED,
    SignInRefused: HTTPStatus.UNAUTHORIZED,
    BadSignature: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Held: HTTPStatus.CONFLICT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HeadersTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    UnsupportedType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    DocumentRejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    ContentBlocked: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    SourceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    ConfigurationError: HTTPStatus.INTERNAL_SERVER_ERROR,
    RightsUnreadable: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_NOT_FOUND = "unknown, or not yours"
_UNAVAILABLE = "a part of the service is not available; try again"


@dataclass(frozen=True, slots=True)
class ProblemAnswer:
    """What leaves: a status, one sentence, and headers."""

    status: HTTPStatus
    detail: str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> JSONResponse:
        """Render as `application/problem+json`."""
        return JSONResponse(
            self.body(request_id),
            self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )

    def body(self, request_id: str) -> dict[str, str | int]:
        """The problem document."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "request_id": request_id,
        }


def answer_for(error: BaseException, request_id: str) -> ProblemAnswer:
    """Map any error to what the caller is told. What is not on purpose is logged and told as a plain 500."""
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error
    if isinstance(cause, RayragError):
        return _on_purpose(cause, request_id)
    if isinstance(cause, RequestValidationError):
        return ProblemAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, _validation(cause))
    if isinstance(cause, HTTPException):
        status = HTTPStatus(cause.status_code)
        return ProblemAnswer(status, "no such route" if status == HTTPStatus.NOT_FOUND else status.phrase.lower())
    if isinstance(cause, BackPressureError):
        return ProblemAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once", {"Retry-After": "1"})
    if isinstance(cause, (RayActorError, DeploymentUnavailableError, TimeoutError)):
        log.error("request %s lost a replica: %s", request_id, type(cause).__name__)
        return ProblemAnswer(HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, {"Retry-After": "2"})
    if isinstance(cause, ClientDisconnect):
        return ProblemAnswer(HTTPStatus.BAD_REQUEST, "the request ended early")
    log.error("request %s failed", request_id, exc_info=error)
    kind = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(cause, RayError) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = {"Retry-After": "2"} if kind == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return ProblemAnswer(kind, "something went wrong on our side", headers)


def _on_purpose(error: RayragError, request_id: str) -> ProblemAnswer:
    status = next(code for kind in type(error).__mro__ if (code := STATUS.get(kind)))
    if isinstance(error, NotFound):
        return ProblemAnswer(status, _NOT_FOUND)
    if isinstance(error, SignInRefused):
        return ProblemAnswer(status, "this sign-in does not hold", {"WWW-Authenticate": "Bearer"})
    if isinstance(error, Unauthenticated):
        if isinstance(error, TokenRejected):
            log.info("request %s: the token was refused: %s", request_id, error.reason)
        return ProblemAnswer(status, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
    if isinstance(error, BadSignature):
        return ProblemAnswer(status, "a valid signature is needed", {"WWW-Authenticate": "Webhook-Signature"})
    if isinstance(error, Overloaded):
        return ProblemAnswer(status, error.detail, {"Retry-After": str(error.retry_after_s)})
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # The detail may name an address or a driver's message: it is for the log, not for the caller.
        log.error("request %s: %s: %s", request_id, type(error).__name__, error.detail)
        return ProblemAnswer(status, _UNAVAILABLE, {"Retry-After": "2"})
    return ProblemAnswer(status, error.detail)


def _validation(error: RequestValidationError) -> str:
    problems = []
    for problem in error.errors()[:5]:
        path = ".".join(str(part) for part in problem["loc"] if part != "body")
        problems.append(f"{path}: {problem['msg']}" if path else str(problem["msg"]))
    return "; ".join(problems)
