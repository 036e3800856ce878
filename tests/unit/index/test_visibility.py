"""The filter of a search: what it lets through, and that a search finds the same rows whichever is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster import milvus
from cluster.preflight import free_ports
from index import vectors
from index.access_rules import Visible
from index.settings import StoreSettings
from index.vectors import MOST_RANGES, ChunkRow, VectorStore, visibility_filter
from policies.errors import InvalidRequest

DIM, ROWS, RULES = 8, 240, 60
TENANT, OTHER = 7, 8
ids = st.sets(st.integers(1, RULES), min_size=1, max_size=RULES).map(lambda found: tuple(sorted(found)))


def rule_of(number: int) -> int:
    return number % RULES + 1


def tenant_of(number: int) -> int:
    return OTHER if number % 10 == 3 else TENANT


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    home = tmp_path_factory.mktemp("milvus")
    (home / "logs").mkdir()
    port = free_ports(1)[0]
    server = milvus.start(home, port)
    try:
        milvus.wait_until_up(server, port, home / "logs" / "milvus.log")
        opened = VectorStore(StoreSettings(uri=f"http://127.0.0.1:{port}"), "m", DIM)
        opened.open()
        opened.upsert([row(number) for number in range(ROWS - 20)])
        opened.flush()
        opened.upsert([row(number) for number in range(ROWS - 20, ROWS)])  # rows that no segment has yet
        yield opened
    finally:
        server.terminate()
        server.wait(30)


def row(number: int) -> ChunkRow:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[0], vector[1] = np.cos(number / ROWS), np.sin(number / ROWS)  # the lower the number, the nearer to `QUERY`
    place = f"{number:032x}", 1, tenant_of(number), rule_of(number), 0, 0, 4, None, ""
    return ChunkRow(*place, "text", "text", "0" * 64, {"m": vector})


QUERY = np.eye(DIM, dtype=np.float32)[0]


def wanted(visible: Visible, limit: int) -> list[int]:
    seen = [n for n in range(ROWS) if tenant_of(n) == visible.tenant_id and rule_of(n) in visible.access_ids]
    return seen[:limit]


def numbers(found: list[Any]) -> list[int]:
    return [int(candidate.document_id, 16) for candidate in found]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(access_ids=ids, limit=st.sampled_from([1, 5, 60, 300]), id_us=st.sampled_from([0, 10**9]))
@example(access_ids=tuple(range(1, RULES + 1, 2)), limit=5, id_us=10**9)
@example(access_ids=tuple(range(31, RULES + 1)), limit=300, id_us=10**9)
@example(access_ids=(1, 3, *range(5, RULES + 1, 2)), limit=60, id_us=0)
def test_every_filter_finds_the_rows_that_may_be_seen_and_no_others(
    store: VectorStore, access_ids: tuple[int, ...], limit: int, id_us: int
) -> None:
    visible = Visible(TENANT, access_ids, RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "ID_US", id_us)  # a list that costs nothing, and one that is never worth it
        assert numbers(store.search_dense(QUERY, visible, limit)) == wanted(visible, limit)
        assert sorted(numbers(store.search_keyword("text", visible, ROWS))) == wanted(visible, ROWS)


@given(access_ids=ids)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_exact_filter_means_its_set_to_the_store(store: VectorStore, access_ids: tuple[int, ...]) -> None:
    visible = Visible(TENANT, access_ids)
    rights = visibility_filter(visible)
    assert rights.is_exact
    found = store._client.query(store.collection, filter=rights.text, output_fields=["document_id"], limit=1000)
    assert sorted(int(each["document_id"], 16) for each in found) == wanted(visible, ROWS)


def test_hidden_rows_that_take_all_places_starve_nobody(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ID_US", 10**9)
    # The nearest rows are those of the rules that are hidden.
    visible = Visible(TENANT, tuple(range(31, RULES + 1, 2)), RULES)
    assert not visibility_filter(visible, None, 5).is_exact
    store._starved.clear()
    filters = []
    search = store._search

    def noting(field: Any, data: Any, metric: str, rights: Any, limit: int) -> Any:
        filters.append(rights)
        return search(field, data, metric, rights, limit)

    monkeypatch.setattr(store, "_search", noting)
    monkeypatch.setattr(vectors, "cover", lambda _ids, _most: [(1, RULES)])
    assert numbers(store.search_dense(QUERY, visible, 5)) == wanted(visible, 5)
    assert [each.is_exact for each in filters] == [False, True]
    # The second search tells that hidden rows are near: from now on no time depends on what is asked.
    assert numbers(store.search_dense(QUERY, visible, 5)) == wanted(visible, 5)
    assert numbers(store.search_dense(-QUERY, visible, 5)) and store.search_keyword("text", visible, 5)
    assert [each.is_exact for each in filters] == [False, True, True, True, True]


@given(access_ids=st.sets(st.integers(1, 3000), min_size=1, max_size=400).map(lambda f: tuple(sorted(f))), limit=ids)
def test_no_filter_is_ever_without_tenant_and_rules(access_ids: tuple[int, ...], limit: tuple[int, ...]) -> None:
    for rights in (
        visibility_filter(Visible(7, access_ids)),
        visibility_filter(Visible(7, access_ids), None, limit[0]),
    ):
        assert rights.text.startswith("tenant_id == 7 and ") and "access_id" in rights.text
        assert "[]" not in rights.text and "()" not in rights.text and rights.spread >= 1.0


def test_neighbouring_ids_are_a_range_and_few_others_a_list() -> None:
    text = visibility_filter(Visible(7, (3, *range(100, 200), 900))).text
    assert text == "tenant_id == 7 and ((access_id >= 100 and access_id <= 199) or access_id in [3, 900])"
    assert visibility_filter(Visible(7, tuple(range(1, 100_001)))).text == (
        "tenant_id == 7 and (access_id >= 1 and access_id <= 100000)"
    )
    assert visibility_filter(Visible(7, (9,))).text == "tenant_id == 7 and access_id in [9]"


def test_who_sees_all_rules_of_a_tenant_among_others_has_a_short_and_exact_filter() -> None:
    mine = tuple(range(1, 20_000, 2))  # every other id is another tenant's
    rights = visibility_filter(Visible(7, mine, rules_of_tenant=len(mine)), None, 60)
    assert rights.is_exact and rights.text.count(">=") <= MOST_RANGES


def test_a_wide_filter_is_never_written_where_documents_are_named() -> None:
    half = Visible(7, tuple(range(1, 50_000, 2)), 50_000)
    assert not visibility_filter(half, None, 60).is_exact
    named = visibility_filter(half, ["0" * 32], 60)
    assert named.is_exact and named.text.endswith(f'document_id in ["{"0" * 32}"]')
    with pytest.raises(InvalidRequest):
        visibility_filter(half, ['" or 1 == 1'], 60)


def test_a_collection_from_before_gets_indexes_of_its_rights(store: VectorStore, tmp_path: Path) -> None:
    client = store._client
    for field in ("tenant_id", "access_id"):
        client.release_collection(store.collection)
        client.drop_index(store.collection, f"{field}_idx")  # as Milvus Lite names it; by another name it drops all
    assert not {"tenant_id", "access_id"} & set(client.list_indexes(store.collection))
    store.open()
    assert {"tenant_id", "access_id"} <= set(client.list_indexes(store.collection))
    assert numbers(store.search_dense(QUERY, Visible(TENANT, (1,)), 5)) == wanted(Visible(TENANT, (1,)), 5)


@pytest.mark.parametrize("ids", [(), (3, 1), (1, 1)])
def test_rules_that_no_filter_can_be_written_from_are_refused(ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="see nothing|ascend"):
        Visible(TENANT, ids)
