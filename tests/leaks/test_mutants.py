"""The suite can fail: `dense_world.examine` notices every mistake of `mutants`, and finds nothing without one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.leaks.dense_world import Leak, examine
from tests.leaks.mutants import ALL, Mutant
from tests.leaks.service import Service

LEAST = 12


def test_the_product_as_it_is_passes(service: Service) -> None:
    examine(service)


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.what.replace(" ", "-"))
def test_a_mistake_is_noticed(
    service: Service, mutant: Mutant, monkeypatch: pytest.MonkeyPatch, count: Callable[[str, int, int], None]
) -> None:
    mutant.apply(monkeypatch)
    service.embedding._questions.clear()
    try:
        examine(service)
        noticed = False
    except Leak:
        noticed = True
    count("mutants", 1, int(not noticed))
    assert noticed, f"survived: {mutant.what}: {mutant.name}: {mutant.old!r} -> {mutant.new!r}"


def test_there_are_enough_of_them() -> None:
    assert len(ALL) >= LEAST
    assert len({mutant.what for mutant in ALL}) == len(ALL)
