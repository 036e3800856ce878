"""How the processes of a bulk job step aside for those that answer questions."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")
log = logging.getLogger(__name__)


def step_aside(niceness: int) -> None:
    """Lower the priority of this process, and of what it starts from here on; 0 leaves it as it is.

    Where Linux schedules by session (sched(7), "The autogroup feature"), each session has the same share and niceness
    counts only among the processes of one: a bulk job in Ray's session would take turns with the store, which has a
    session of its own, whatever its niceness. So the process takes a session of its own, which is nice as a whole.
    """
    if niceness == 0:
        return
    os.nice(niceness)
    if not _AUTOGROUP.exists():
        return
    try:
        if os.getpgrp() == os.getpid():
            os.setpgid(0, os.getpgid(os.getppid()))  # who leads a group cannot begin a session
        os.setsid()  # its group has the process's number again: who ends the group by that number still does
        _set_niceness_of_session(niceness)
    except OSError as error:
        log.warning("the priority of process %d holds within its session only: %s", os.getpid(), error)


def _set_niceness_of_session(niceness: int, tries: int = 50) -> None:
    for attempt in range(tries):
        try:
            _AUTOGROUP.write_text(str(niceness))
        except BlockingIOError:  # unless one is root, the kernel takes ten of these a second, of all processes
            if attempt == tries - 1:
                raise
            time.sleep(0.1)
        else:
            return
