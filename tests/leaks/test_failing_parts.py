"""Where rights cannot be known, nobody is told anything: 503, and no search without a filter was sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from index.document import DocumentRef
from policies.access import AccessRule
from policies.errors import Unavailable
from tests.leaks.service import Service

TENANT = "closed"
ASKED = (
    ("POST", "/v1/query", {"json": {"question": "what is the password?"}}),
    ("POST", "/v1/query", {"json": {"question": "what is the password?", "stream": True}}),
    ("POST", "/v1/retrieve", {"json": {"question": "what is the password?", "mode": "keyword"}}),
    ("POST", "/v1/chat/completions", {"json": {"model": "rayrag", "messages": [{"role": "user", "content": "code?"}]}}),
    ("GET", "/v1/documents", {}),
)  # fmt: skip
TABLES = ("tenants", "access_rules", "access_members", "documents", "group_versions")


@pytest.fixture(scope="module")
def token(service: Service) -> str:
    refs = [
        DocumentRef(TENANT, "leaks", f"d{n}", f"mem:{n}", None, "1", AccessRule.of([name]))
        for n, name in enumerate(("everyone", "group:inner", "user:nobody"))
    ]
    service.write(refs, [f"The password is cnryt{n:012x}." for n in range(len(refs))])
    service.flush()
    return service.token("ann", TENANT, ["power_user", "cleared-internal"], ["outer"])


@pytest.fixture
def sent(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The filter of every search that reaches the store."""
    filters: list[Any] = []
    client = service.stores()[0]._client
    search = client.search

    def recorded(*arguments: Any, **options: Any) -> Any:
        filters.append(options.get("filter"))
        return search(*arguments, **options)

    monkeypatch.setattr(client, "search", recorded)
    return filters


@contextmanager
def without(service: Service, table: str) -> Iterator[None]:
    """A ledger in which a table cannot be read."""
    path = service.args.store.ledger.removeprefix("sqlite:///")

    def rename(old: str, new: str) -> None:
        with sqlite3.connect(path, timeout=30) as connection:
            connection.execute("PRAGMA legacy_alter_table = ON")  # leaves the others' references alone
            connection.execute(f'ALTER TABLE "{old}" RENAME TO "{new}"')

    rename(table, f"{table}_lost")
    try:
        yield
    finally:
        rename(f"{table}_lost", table)


@pytest.mark.parametrize("table", TABLES)
def test_a_ledger_that_cannot_say_stops_every_answer(
    service: Service, token: str, sent: list[Any], table: str, count: Callable[[str, int, int], None]
) -> None:
    wrong = []
    with without(service, table):
        for method, path, options in ASKED:
            service.restart()
            answer = service.call(method, path, token, **options)
            if answer.status_code != 503 or "cnryt" in answer.text:
                wrong.append(f"{path} without {table}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert all(given and "tenant_id ==" in given for given in sent)
    count("failing parts: refused", len(ASKED), 0)
    service.restart()
    assert service.call("POST", "/v1/query", token, json={"question": "password?"}).status_code == 200


@pytest.mark.parametrize("part", ["_directory", "_revocations", "_clearances", "_tokens"])
def test_a_part_of_the_identity_check_that_fails_lets_nobody_in(
    service: Service, token: str, sent: list[Any], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            def fail(*_: Any) -> Any:
                raise Unavailable("it does not answer") if part == "_tokens" else TimeoutError("it does not answer")

            return fail

    monkeypatch.setattr(service.ingress._guard._verifier, part, Failing())
    for method, path, options in ASKED:
        answer = service.call(method, path, token, **options)
        assert (answer.status_code, "cnryt" in answer.text) == (503, False), answer.text
    assert sent == []


def test_a_directory_that_forgets_groups_lets_nobody_in(
    service: Service, token: str, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful:
        def expand(self, *_: Any) -> frozenset[str]:
            return frozenset()

    monkeypatch.setattr(service.ingress._guard._verifier, "_directory", Forgetful())
    assert service.call("POST", "/v1/query", token, json={"question": "password?"}).status_code == 503
    assert sent == []


def test_every_search_is_sent_with_rights(service: Service, token: str, sent: list[Any]) -> None:
    for method, path, options in ASKED:
        assert service.call(method, path, token, **options).status_code == 200
    assert len(sent) >= 6
    assert all(given and "tenant_id ==" in given and "access_id" in given for given in sent)


def test_a_store_that_is_down_stops_the_answer(service: Service, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pymilvus.exceptions import MilvusException

    def fail(*_: Any, **__: Any) -> Any:
        raise MilvusException(1, "cnryt000000000000 at 10.0.0.1")

    monkeypatch.setattr(service.stores()[0]._client, "search", fail)
    answer = service.call("POST", "/v1/query", token, json={"question": "password?"})
    assert (answer.status_code, "cnryt" in answer.text, "10.0.0.1" in answer.text) == (503, False, False)


def test_an_audit_record_that_cannot_be_written_stops_the_answer(
    service: Service, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise Unavailable("the disk is full")

    for step in ("intent", "outcome"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(service.ingress._guard._audit, step, fail)
            answer = service.call("POST", "/v1/query", token, json={"question": "password?"})
        assert (answer.status_code, "cnryt" in answer.text) == (503, False)


def test_somebody_without_groups_sees_what_is_for_everyone(service: Service, token: str) -> None:
    plain = service.token("ann", TENANT, ["user", "cleared-internal"])
    found = service.call("POST", "/v1/retrieve", plain, json={"question": "password?"}).json()["hits"]
    assert [hit["external_id"] for hit in found] == ["d0"]


def test_another_tenants_person_is_told_nothing(service: Service, token: str) -> None:
    stranger = service.token("ann", "another", ["user", "cleared-internal"], ["outer"])
    assert service.call("POST", "/v1/retrieve", stranger, json={"question": "password?"}).json()["hits"] == []
