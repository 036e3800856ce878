"""Bulk work steps aside: niceness has to hold beside the store, too, which has a session of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEP_ASIDE = """
import os
from pathlib import Path
from ingest.priority import step_aside
step_aside({niceness})
group = Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid())
of_the_session = group.read_text().split() if group.exists() else []  # empty in the root group, which has no session
print(of_the_session[-1] if of_the_session else {niceness})
"""


def after(niceness: int, *, leads_its_group: bool) -> list[str]:
    program = [sys.executable, "-c", STEP_ASIDE.format(niceness=niceness)]
    root = Path(__file__).parents[3]
    run = subprocess.run(
        program, cwd=root, capture_output=True, text=True, check=True, process_group=0 if leads_its_group else None
    )
    return run.stdout.split()


@pytest.mark.parametrize("leads_its_group", [True, False])  # Ray's workers lead theirs
def test_a_process_steps_aside_as_a_session_of_its_own(leads_its_group):
    niceness, own_session, own_group, of_the_session = after(19, leads_its_group=leads_its_group)
    assert niceness == "19"
    assert of_the_session == "19"
    if Path("/proc/self/autogroup").exists():
        assert (own_session, own_group) == ("True", "True")


def test_who_is_not_to_step_aside_stays_where_it_is():
    niceness, own_session, *_ = after(0, leads_its_group=True)
    assert (int(niceness), own_session) == (os.getpriority(os.PRIO_PROCESS, 0), "False")
