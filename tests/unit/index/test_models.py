"""Which models the index holds: one answers, a change is one step, and no configuration can empty the index."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.embedders import Embedders
from index.models import DROPPING, FILLING, LIVE, PREVIOUS, Models, is_behind
from index.settings import EmbeddingSettings
from policies.errors import ConfigurationError, Conflict
from tests.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("models")
    sizes = {"old": 16, "new": 24, "other": 16}
    return {name: str(write_tiny_model(home / name, dim, dim + len(name))) for name, dim in sizes.items()}


@pytest.fixture
def old(directories: dict[str, str]) -> EmbeddingSettings:
    return EmbeddingSettings(model=directories["old"])


@pytest.fixture
def new(directories: dict[str, str]) -> EmbeddingSettings:
    return EmbeddingSettings(model=directories["new"], query_prefix="query: ", passage_prefix="passage: ")


@pytest.fixture
def other(directories: dict[str, str]) -> EmbeddingSettings:
    return EmbeddingSettings(model=directories["other"])


@pytest.fixture
def models(database_url: str) -> Iterator[Models]:
    models = Models(database_url)
    yield models
    models.close()


def states(models: Models) -> dict[str, str]:
    return {model.name.rsplit("/", 1)[-1]: model.state for model in models.all()}


def promoted(models: Models, old: EmbeddingSettings, new: EmbeddingSettings) -> None:
    models.settle(old)
    models.filled(models.begin(old, new).model_id)
    models.promote(old)


def test_the_first_start_makes_the_configurations_model_the_live_one(models, old):
    live = models.settle(old)
    assert (live.state, live.dim, live.filled_at is not None) == (LIVE, 16, True)
    assert models.settle(old) == live == models.live()
    assert models.held() == (live,)


def test_processes_that_start_at_once_agree_on_one_model(models, old, other):
    settled: list[str] = []

    def start(settings: EmbeddingSettings) -> None:
        try:
            settled.append(models.settle(settings).name)
        except ConfigurationError:
            settled.append("refused")

    threads = [threading.Thread(target=start, args=[each]) for each in (old, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert settled.count("refused") == 4
    assert len(set(settled)) == 2
    assert list(states(models).values()) == [LIVE]


def test_a_configuration_that_names_another_model_is_refused_with_the_way_out(models, old, new):
    models.settle(old)
    with pytest.raises(
        ConfigurationError, match=r"holds the embedding model .*old.*put the old one back.*rayrag reindex --model"
    ):
        models.settle(new)
    assert list(states(models)) == ["old"]


def test_weights_that_were_exchanged_in_place_are_not_loaded(models, tmp_path):
    here = EmbeddingSettings(model=str(write_tiny_model(tmp_path / "m", seed=1)))
    live = models.settle(here)
    assert Embedders(here).get(live).model_id == live.model_id
    write_tiny_model(tmp_path / "m", seed=2)
    with pytest.raises(ConfigurationError, match="put the former files back"):
        Embedders(here).get(live)


def test_a_model_that_moved_or_asks_otherwise_is_the_same_one(models, tmp_path):
    one = EmbeddingSettings(model=str(write_tiny_model(tmp_path / "a" / "m", seed=1)))
    same = EmbeddingSettings(model=str(write_tiny_model(tmp_path / "b" / "m", seed=1)), query_prefix="query: ")
    assert models.settle(one).model_id == models.settle(same).model_id
    assert models.live().settings["query_prefix"] == "query: "
    assert models.live().applied_to(one).model == same.model


def test_what_is_not_the_models_own_stays_the_configurations(models, old):
    live = models.settle(old.model_copy(update={"threads": 1}))
    assert live.applied_to(old.model_copy(update={"threads": 7})).threads == 7


# ---- a change


def test_a_model_that_is_being_filled_is_held_and_does_not_answer(models, old, new):
    models.settle(old)
    begun = models.begin(old, new)
    assert begun.state == FILLING
    assert models.begin(old, new) == begun, "a run that was killed goes on"
    assert [model.state for model in models.held()] == [LIVE, FILLING]
    with pytest.raises(Conflict, match="does not hold all documents yet"):
        models.promote(old)
    assert models.live().name.endswith("old")


def test_a_promotion_and_a_rollback_exchange_the_two(models, old, new):
    promoted(models, old, new)
    assert states(models) == {"old": PREVIOUS, "new": LIVE}
    assert [model.name.rsplit("/", 1)[-1] for model in models.held()] == ["new", "old"], "the live one first"
    models.rollback(old)
    assert states(models) == {"old": LIVE, "new": PREVIOUS}
    models.rollback(old)
    assert states(models) == {"old": PREVIOUS, "new": LIVE}
    assert models.live().applied_to(old).passage_prefix == "passage: "


def test_the_index_holds_at_most_two_models(models, old, new, other):
    models.settle(old)
    models.filled(models.begin(old, new).model_id)
    with pytest.raises(Conflict, match="is being filled"):
        models.begin(old, other)
    models.promote(old)
    with pytest.raises(Conflict, match="kept for a rollback"):
        models.begin(old, other)
    with pytest.raises(Conflict, match="live model already"):
        models.begin(old, new)
    models.begin_drop(PREVIOUS)
    with pytest.raises(Conflict, match="being dropped"):
        models.begin(old, other)
    assert [model.name.rsplit("/", 1)[-1] for model in models.held()] == ["new"]
    assert models.begin_drop(PREVIOUS).state == DROPPING, "a drop that was killed goes on"
    models.forget(models.begin_drop(PREVIOUS).model_id)
    assert models.begin(old, other).state == FILLING


def test_the_live_model_is_never_dropped(models, old):
    live = models.settle(old)
    for state in (PREVIOUS, FILLING):
        with pytest.raises(Conflict):
            models.begin_drop(state)
    with pytest.raises(Conflict, match="not dropped"):
        models.begin_drop(LIVE)
    models.forget(live.model_id)
    assert models.live() == live


def test_nothing_goes_back_where_nothing_was_kept(models, old, new):
    models.settle(old)
    models.begin(old, new)
    with pytest.raises(Conflict, match="no previous model"):
        models.rollback(old)


# ---- what the configuration says afterwards


def test_the_configuration_may_still_name_the_model_of_before_a_promotion(models, old, new, other):
    promoted(models, old, new)
    live = models.settle(old)
    assert live.name.endswith("new")
    told = is_behind(live, old)
    assert told is not None and f"model: {new.model}" in told and "query_prefix: query: " in told
    with pytest.raises(ConfigurationError, match="put the old one back"):
        models.settle(other)


def test_a_configuration_that_followed_is_bound_to_the_new_model(models, old, new):
    promoted(models, old, new)
    assert is_behind(models.settle(new), new) is None
    with pytest.raises(ConfigurationError, match="the configuration names"):
        models.settle(old)


def test_after_a_rollback_the_configuration_that_had_followed_still_starts(models, old, new):
    promoted(models, old, new)
    models.settle(new)
    models.rollback(new)
    assert models.settle(new).name.endswith("old")
    assert is_behind(models.settle(new), new) is not None
    assert is_behind(models.settle(old), old) is None


def test_rows_of_another_schema_are_not_taken_for_ours(models, old, monkeypatch):
    models.settle(old)
    monkeypatch.setattr("index.models.SCHEMA_VERSION", 99)
    with pytest.raises(ConfigurationError, match="this program writes 99"):
        models.settle(old)


def test_a_start_reads_no_weights_once_the_model_is_known(models, old, monkeypatch, tmp_path: Path):
    models.settle(old)
    monkeypatch.setattr("index.models.identify", lambda _: pytest.fail("0.1 s for each process that starts"))
    models.settle(old)
