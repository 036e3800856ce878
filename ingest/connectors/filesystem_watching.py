"""Changes of a folder as the kernel tells them, or as looking again and again finds them."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingest.folder_rules import is_left_out, speaks_of_rights
from policies.errors import SourceUnavailable

DEBOUNCE_MS = 100
STEP_MS = 50
TICK_MS = 500
POLL_S = 0.5


async def changed_paths(folder: Path, recursive: bool, polling: bool) -> AsyncGenerator[set[str], None]:
    """Yield the paths that changed, as they come, and every now and then an empty set where nothing did.

    The first set says that the watch stands: what changes from now on is seen. Raises `SourceUnavailable`.
    All is done in a thread: `watchfiles.awatch` sets its watches in the event loop, which a large tree would stop.
    """
    stop = threading.Event()
    changes = (_polled if polling else _told)(folder, recursive, stop)
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(1, thread_name_prefix="watch")
    try:
        while (paths := await loop.run_in_executor(pool, next, changes, None)) is not None:
            yield paths
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the limit of watches of this system may be reached"
        raise SourceUnavailable(f"cannot be watched: {reason}") from error
    finally:
        stop.set()
        pool.submit(changes.close)  # behind what is still running, which the event ends within a step
        pool.shutdown(wait=False)


def _told(folder: Path, recursive: bool, stop: threading.Event) -> Generator[set[str], None, None]:
    import watchfiles

    found = watchfiles.watch(
        folder,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        force_polling=False,
        recursive=recursive,
        ignore_permission_denied=True,
    )
    for changes in found:
        yield {path for _, path in changes}


def _polled(folder: Path, recursive: bool, stop: threading.Event) -> Generator[set[str], None, None]:
    """Compare what is there with what was there a moment ago, for a tenth of the time at most.

    watchfiles polls, too, but takes a file for changed only where its time is a later whole second.
    """
    before = _snapshot(folder, recursive)
    yield set()
    pause = POLL_S
    while not stop.wait(pause):
        began = time.monotonic()
        now = _snapshot(folder, recursive)
        pause = max(POLL_S, 9 * (time.monotonic() - began))
        yield {path for path, _ in before.items() ^ now.items()}
        before = now


def _snapshot(folder: Path, recursive: bool) -> dict[str, tuple[int, ...]]:
    """What would change with a file's content or rights, by path; of a folder only its rights. Follows no link."""
    found: dict[str, tuple[int, ...]] = {}
    rest = [str(folder)]
    while rest:
        path = rest.pop()
        try:
            with os.scandir(path) as scan:
                items = list(scan)
        except OSError:
            if path == str(folder):
                raise
            continue  # looked at as gone, which it may be
        for item in items:
            try:
                status = item.stat(follow_symlinks=False)
            except OSError:
                continue
            rights = (status.st_mode, status.st_uid, status.st_gid)
            if not stat.S_ISDIR(status.st_mode):
                content = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                found[item.path] = (*rights, *content)
            elif not is_left_out(item.name):
                found[item.path] = rights
                if recursive:
                    rest.append(item.path)
    return found


def ids_to_look_at(paths: Iterable[str], root: str) -> tuple[str, ...] | None:
    """Turn changed paths into ids. An empty tuple means "list": access rules changed, or the root itself; none nothing.

    `root`: the absolute path that was watched.
    """
    ids: set[str] = set()
    for path in paths:
        below = path.removeprefix(root.rstrip("/") + "/")
        if below == path:
            return ()
        *folders, name = below.split("/")
        if any(map(is_left_out, folders)):
            continue
        if speaks_of_rights(name):
            return ()
        if not is_left_out(name):
            ids.add(below)
    return tuple(sorted(ids)) or None
