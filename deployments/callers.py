"""What routes ask of a request: who calls, and which request it is.

A route without `Caller` is open to strangers. These are: `/healthz` and `/readyz`, which say one word; `/metrics` and
the webhooks, which have secrets of their own; and of `/v1/auth` all that leads to a token (`deployments.sign_in_routes`
says which).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from policies.errors import Unauthenticated
from policies.principals import Principal

_bearer = HTTPBearer(auto_error=False)


async def _bearer_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    if credentials is None:
        raise Unauthenticated("no bearer token")
    return credentials.credentials


BearerToken = Annotated[str, Depends(_bearer_token)]


async def _caller(request: Request, token: BearerToken) -> Principal:
    # Before the parameters and the body are looked at: what is wrong with them is not for strangers.
    caller: Principal = await request.app.state.authenticate(token)
    request.state.caller = caller  # for what refuses them before a route is reached
    return caller


def _request_id(request: Request) -> str:
    return str(request.state.request_id)


Caller = Annotated[Principal, Depends(_caller)]
RequestId = Annotated[str, Depends(_request_id)]
