"""What was tried, what failed, and what that says about the rate behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Count:
    """`failures` of `cases` of one kind."""

    what: str
    cases: int
    failures: int


def upper_bound(failures: int, cases: int, confidence: float = CONFIDENCE) -> float:
    """Give the rate that so few failures would exceed with at most `1 - confidence` chance: Clopper and Pearson's.

    One-sided and exact: the largest p with P(X <= failures | cases, p) >= 1 - confidence (Clopper and Pearson, "The
    Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial", Biometrika 26, 1934). Without a
    failure it is 1 - 0.05^(1/n), about 3/n, the rule of three (Hanley and Lippman-Hand, "If Nothing Goes Wrong, Is
    Everything All Right?", JAMA 249, 1983). It holds for cases drawn independently from one distribution: the suite's.
    """
    if cases == 0 or failures >= cases:
        return 1.0
    low, high = failures / cases, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _at_most(failures, cases, middle) >= 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(failures: int, cases: int, rate: float) -> float:
    if rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    logs = (
        math.lgamma(cases + 1) - math.lgamma(k + 1) - math.lgamma(cases - k + 1)
        + k * math.log(rate) + (cases - k) * math.log1p(-rate)
        for k in range(failures + 1)
    )  # fmt: skip
    return math.fsum(math.exp(log) for log in logs)


def table(counts: Iterable[Count], seed: int) -> list[str]:
    """Write the counts, one line each, with the bound on the failure rate."""
    lines = [f"{'cases':>9}  {'failures':>8}  {'95 % bound':>10}  what"]
    for count in counts:
        bound = upper_bound(count.failures, count.cases)
        lines.append(f"{count.cases:>9,}  {count.failures:>8,}  {bound:>10.2e}  {count.what}")
    lines.append(f"seed {seed}; the bound: with so few failures in so many cases the true rate is below it, 95 % sure")
    return lines
