"""What Serve's HTTP proxy is told before it serves anybody."""

from __future__ import annotations

from typing import Any

import pytest
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from deployments.front_door import middlewares


async def _app(scope: Any, receive: Any, send: Any) -> None: ...


def test_nobody_is_believed_about_whose_address_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "Config", uvicorn.Config)  # put back afterwards
    middlewares()

    config = uvicorn.Config(lambda: _app, factory=True, lifespan="off", log_config=None)
    config.load()

    assert not isinstance(config.loaded_app, ProxyHeadersMiddleware)
    assert (config.proxy_headers, config.server_header) == (False, False)
