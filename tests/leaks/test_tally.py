"""The bound that is printed is the one that its sources give."""

from __future__ import annotations

import pytest

from tests.leaks.payloads import NUMBER, payloads
from tests.leaks.tally import Count, table, upper_bound
from tests.leaks.worlds import Document, Person, may_read


@pytest.mark.parametrize("cases", [1, 59, 5_000, 100_000])
def test_without_a_failure_it_is_the_rule_of_three(cases: int) -> None:
    assert upper_bound(0, cases) == pytest.approx(1 - 0.05 ** (1 / cases), rel=1e-9)
    assert cases < 50 or upper_bound(0, cases) == pytest.approx(3 / cases, rel=0.03)


@pytest.mark.parametrize(
    ("failures", "cases", "bound"), [(1, 100, 0.04656), (5, 100, 0.10225), (10, 10, 1.0), (0, 0, 1.0)]
)
def test_with_failures_it_is_clopper_and_pearsons(failures: int, cases: int, bound: float) -> None:
    assert upper_bound(failures, cases) == pytest.approx(bound, abs=5e-5)


def test_the_table_names_the_seed_and_every_kind() -> None:
    lines = table([Count("questions", 5_000, 0), Count("answers", 10, 1)], 7)
    assert "seed 7" in lines[-1]
    assert lines[1].split() == ["5,000", "0", "5.99e-04", "questions"]


def test_there_are_two_thousand_different_texts_and_a_seed_gives_the_same_again() -> None:
    assert len(set(payloads(1))) == NUMBER == 2_000
    assert payloads(1) == payloads(1) != payloads(2)


def test_the_definition_is_as_the_documentation_says() -> None:
    def reads(person: Person, allow: set[str], deny: set[str] = frozenset(), label: int = 1) -> bool:  # type: ignore[assignment]
        document = Document("t", "d", frozenset(allow), frozenset(deny), label, "mill", "0")
        return may_read(person, document, {"inner": frozenset({"outer"}), "outer": frozenset({"inner"})})

    ann = Person("ann", "t", ("user",), ("inner",))
    assert reads(ann, {"everyone"}) and reads(ann, {"user:ann"}) and reads(ann, {"role:user"})
    assert reads(ann, {"group:inner"}) and reads(ann, {"group:outer"})
    assert not reads(ann, set()) and not reads(ann, {"user:inner"}) and not reads(ann, {"group:ann"})
    assert not reads(ann, {"everyone"}, {"group:outer"}) and not reads(ann, {"everyone"}, label=2)
    assert not reads(Person("ann", "u", ("user",), ("inner",)), {"everyone"})
