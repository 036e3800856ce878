"""The routes of /v1/auth in this process, with a real ledger, a real audit record and a clock that waits for nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from deployments.identity import Credentials, credentials
from deployments.ingress import api
from deployments.sign_in_desk import sign_in_desk
from index.ledger import Ledger
from index.settings import AppArgs, parse
from policies.audit import AuditLog
from policies.audit_chain import AuditRecord
from policies.guard import Guard
from policies.issuing import DevelopmentIssuer
from policies.keyed_hashes import KeyedHashes
from policies.limits import Allowance, Limits, Rate, Rates, Work
from policies.roles import Roles

PUBLIC = "http://127.0.0.1:8000"
ISSUER, AUDIENCE = "https://dev.example", "rayrag"


class Service:
    """One replica; `client` is one browser."""

    def __init__(self, home: Path, sign_in: dict[str, Any], **sessions: Any) -> None:
        self.home = home
        self.args = settings(home, sign_in, **sessions)
        self.ledger = Ledger(self.args.store.ledger)
        self.audit = AuditLog(self.args.store.audit)
        roles = Roles.load({})
        self.known: Credentials = credentials(self.args.identity, self.ledger, roles)
        self.guard = Guard(self.known.identity, roles, self.audit, "0123")
        limits = Limits(Allowance({Work.SIGN_IN: Rates((Rate(5, 60),))}))
        self.desk = sign_in_desk(
            self.args.identity,
            self.known,
            self.ledger,
            self.guard,
            self.audit,
            "0123",
            limits.sign_in,
            KeyedHashes(bytes(32)),
        )
        if self.desk.signing_in is not None:
            self.desk.signing_in._refused_after_s = 0.1
        self.fresh()

    def fresh(self) -> None:
        """Begin anew: another browser, and no records of before."""
        self.client = self.browser()
        self._since = max((record.sequence for record in self.audit.records(limit=10_000)), default=0)

    def browser(self) -> TestClient:
        return TestClient(api, raise_server_exceptions=False, follow_redirects=False, base_url=PUBLIC)

    def token(self, subject: str = "root", roles: tuple[str, ...] = ("admin",), tenant: str = "acme") -> dict[str, str]:
        """Sign a token of the development issuer, as a header."""
        issuer = DevelopmentIssuer(self.home / "dev.pem", ISSUER, AUDIENCE)
        return bearer(issuer.sign(subject, tenant, roles))

    def records(self, action: str | None = None) -> list[AuditRecord]:
        found = [record for record in self.audit.records(self._since) if record.kind == "outcome"]
        return [record for record in found if action in (None, record.action)]

    def me(self, session: dict[str, Any]) -> Response:
        return self.client.get("/v1/auth/me", headers=bearer(session["access_token"]))

    def refresh(self, session: dict[str, Any]) -> Response:
        return self.client.post("/v1/auth/refresh", json={"refresh_token": session["refresh_token"]})


def settings(home: Path, sign_in: dict[str, Any], **sessions: Any) -> AppArgs:
    DevelopmentIssuer.create(home / "dev.pem", ISSUER, AUDIENCE)
    trusted = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["EdDSA"], "key_file": str(home / "dev.pem")}
    identity = {"issuers": [{**trusted, "subject_prefix": "dev:"}], "sign_in": sign_in, "sessions": sessions}
    return parse({"data_dir": str(home), "identity": identity})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@contextmanager
def running(home: Path, sign_in: dict[str, Any], **sessions: Any) -> Iterator[Service]:
    before: dict[str, Any] = dict(api.state._state)
    made = Service(home, sign_in, **sessions)
    api.state.limits, api.state.http = made.args.limits, made.args.http
    api.state.authenticate, api.state.sign_in = made.guard.authenticate, made.desk
    try:
        yield made
    finally:
        api.state._state.clear()
        api.state._state.update(before)
        made.audit.close()
        made.ledger.close()
