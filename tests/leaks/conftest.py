"""One service for all modules of a process, and the table at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.leaks.service import Service, serving
from tests.leaks.sizes import seed
from tests.leaks.tally import Count, table

COUNTED = "leaks"


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="leaks-", dir=memory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def running(home: Path, milvus_uri: str) -> Iterator[Service]:
    with serving(home, milvus_uri) as service:
        yield service


@pytest.fixture(scope="module")
def service(running: Service) -> Service:
    """The process's one service (Serve's batches hold on to their loop), its rows gone and nothing remembered.

    Each module has tenants of its own.
    """
    running.empty()
    running.restart()
    running.wide = None
    running.writes(obedient=False)
    return running


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str, int, int], None]:
    """Note so many cases of a kind with so many failures; they stand in the table at the end."""

    def note(what: str, cases: int, failures: int) -> None:
        request.node.user_properties.append((COUNTED, (what, cases, failures)))

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was tried. Properties travel with the reports, so processes may share the work."""
    totals: dict[str, Count] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            for name, value in report.user_properties:
                if name == COUNTED:
                    what, cases, failures = value
                    before = totals.get(what, Count(what, 0, 0))
                    totals[what] = Count(what, before.cases + cases, before.failures + failures)
    if totals:
        terminalreporter.section("leak suite")
        for line in table(totals.values(), seed()):
            terminalreporter.write_line(line)
