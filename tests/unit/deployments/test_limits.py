"""Who asks for too much is told when to come back, and the record says that they were limited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray import serve

from deployments import limits as building
from deployments.ingress import Ingress, api
from deployments.limits import limits
from index.limit_settings import LimitSettings, RateSettings
from policies.audit import AuditLog
from policies.errors import Overloaded
from policies.guard import Guard
from policies.principals import Principal
from policies.roles import Roles
from tests.servers import free_port

ADA = Principal("ada", "acme", frozenset({"user"}))


class Metrics:
    """Counts the stages that did less than configured."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def degraded(self, stage: str) -> None:
        self.stages.append(stage)


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite")
    yield log
    log.close()


@pytest.fixture
def client(audit: AuditLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The ingress in this process, where everybody may ask for the models twice an hour."""

    async def authenticate(_: str) -> Principal:
        return ADA

    metrics: Any = Metrics()
    counted = limits(LimitSettings(other=RateSettings(person=["2/hour"])), metrics)
    plain: Any = Ingress.func_or_class.__mro__[1]
    ingress: Any = plain.__new__(plain)
    ingress._args = SimpleNamespace(generation=SimpleNamespace(served_name="m"))
    ingress._guard = Guard(SimpleNamespace(verify=lambda _: ADA), Roles.load({}), audit, "1", limits=[counted])
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(servable_object=ingress))
    before: dict[str, Any] = dict(api.state._state)
    api.state.limits, api.state.authenticate = LimitSettings(), authenticate
    yield TestClient(api, raise_server_exceptions=False)
    api.state._state.clear()
    api.state._state.update(before)


def many(work: Callable[[], None], times: int) -> None:
    for _ in range(times):
        work()


def test_one_too_many_is_told_when_to_come_back_and_is_on_the_record(client: TestClient, audit: AuditLog) -> None:
    answers = [client.get("/v1/models", headers={"authorization": "Bearer x"}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["content-type"] == "application/problem+json"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 3601
    assert "ada" not in answers[2].text and "hour" not in answers[2].text
    assert [record.outcome for record in audit.records() if record.outcome][-1] == "limited"


def test_the_defaults_let_a_person_and_a_load_test_work() -> None:
    metrics: Any = Metrics()
    counted = limits(LimitSettings(), metrics)
    for _ in range(2_900):
        counted(ADA, "query")
    for _ in range(500):
        counted(ADA, "upload")

    with pytest.raises(Overloaded):
        many(lambda: counted(ADA, "query"), 6_000)  # twice a minute's worth: the window may move on meanwhile


def test_an_account_cannot_be_guessed_at() -> None:
    metrics: Any = Metrics()
    counted = limits(LimitSettings(), metrics)

    with pytest.raises(Overloaded):
        many(lambda: counted.sign_in("ldap", "ada"), 41)


def test_a_redis_that_is_not_there_shows_in_the_metrics() -> None:
    metrics: Any = Metrics()
    counted = limits(LimitSettings(redis_url=f"redis://127.0.0.1:{free_port()}"), metrics)
    counted(ADA, "query")

    assert set(metrics.stages) == {"limits"}


def test_the_address_of_redis_may_be_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str | None] = []
    monkeypatch.setattr(building, "Limits", lambda _, url, **__: taken.append(url))
    secret = tmp_path / "redis"
    secret.write_text("redis://:hunter2@redis:6379/0\n")
    secret.chmod(0o600)
    monkeypatch.setenv("REDIS", "redis://:hunter3@redis:6379/0")
    metrics: Any = Metrics()
    for settings in (LimitSettings(redis_url_file=str(secret)), LimitSettings(redis_url_env="REDIS"), LimitSettings()):
        limits(settings, metrics)

    assert taken == ["redis://:hunter2@redis:6379/0", "redis://:hunter3@redis:6379/0", None]
