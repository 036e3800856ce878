"""How much is tried, and from which seed: by environment, so that a failing run can be had again."""

from __future__ import annotations

import os
from dataclasses import dataclass

DEFAULT_SEED = 20_261_122


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of cases. `questions`: (person, question) pairs; `runs` of `steps` steps of the stateful machine."""

    questions: int
    runs: int
    steps: int
    injections_per_field: int
    cache_pairs: int
    metamorphic: int


SMALL = Sizes(questions=5_000, runs=6, steps=30, injections_per_field=40, cache_pairs=1_000, metamorphic=40)
FULL = Sizes(questions=100_000, runs=500, steps=50, injections_per_field=2_000, cache_pairs=10_000, metamorphic=1_000)


def sizes() -> Sizes:
    """`RAYRAG_LEAKS=full` for the nightly run; anything else is the size of `make test`."""
    return FULL if os.environ.get("RAYRAG_LEAKS") == "full" else SMALL


def seed() -> int:
    """`RAYRAG_LEAK_SEED`, else one that never changes."""
    return int(os.environ.get("RAYRAG_LEAK_SEED", DEFAULT_SEED))
