"""A sync dies before or after any of its steps; run again, the index is the calm run's, and no reader saw a mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from policies.access import AccessRule
from policies.principals import Principal

HR, PUBLIC = AccessRule.of(["group:hr"]), AccessRule.of(["everyone"])
BOB, HAL = Principal("bob", "acme"), Principal("hal", "acme", groups=frozenset({"hr"}))
NAMES = ("kept", "edited", "shrunk", "closed", "opened", "moved", "edited and closed", "gone", "new", "new and closed")
# Every step of a sync that leaves a trace: what the ledger commits, and what the store takes.
STEPS = {
    "ledger": (
        "run_begins",
        "set_rules",
        "delete",
        "forget_versions",
        "rows_carry",
        "touch",
        "begin_attempt",
        "give_back_attempt",
        "begin_versions",
        "flip_versions",
        "set_cursor",
        "run_succeeds",
    ),
    "rows": ("upsert", "delete", "set_access", "flush"),
}


class Killed(BaseException):
    """SIGKILL, as far as one process can play it: nothing of ours catches it."""


def before(desk) -> None:
    for name in NAMES[:8]:
        desk.put(name, f"{name}: the first text, of some length", HR if name == "opened" else PUBLIC)


def after(desk) -> None:
    desk.put("edited", "edited: the second text, which is longer than the first was")
    desk.put("shrunk", "short")
    desk.put("closed", desk.documents["closed"][0], HR)
    desk.put("opened", desk.documents["opened"][0], PUBLIC)
    desk.put("edited and closed", "edited and closed: the second text", HR)
    desk.take("gone")
    desk.put("new", "new: a text")
    desk.put("new and closed", "new and closed: a text", HR)


def seen(world) -> dict[tuple[str, str], str | None]:
    shown = {who.subject: world.reading(who) for who in (BOB, HAL)}
    return {(who, name): shown[who].get(name) for who in shown for name in NAMES}


@contextmanager
def watched(world, call: Callable[[str], None]) -> Iterator[None]:
    """Tell `call` the name of each step, before and after it."""
    with pytest.MonkeyPatch.context() as patch:
        for part, names in STEPS.items():
            owner = getattr(world, part)
            for name in names:
                original = getattr(owner, name)

                def step(*args: Any, _original=original, _name=f"{part}.{name}", **kwargs: Any) -> Any:
                    call(f"before {_name}")
                    result = _original(*args, **kwargs)
                    call(f"after {_name}")
                    return result

                patch.setattr(owner, name, step)
        yield


def points(world) -> list[str]:
    """Name every point that a calm run passes, in order; one that is passed again has a number."""
    passed: list[str] = []
    with watched(world, lambda name: passed.append(f"{name} {sum(p.rpartition(' ')[0] == name for p in passed)}")):
        world.sync.list()
    return passed


def test_a_death_at_every_point_is_mended_by_the_next_run_and_shows_nobody_a_mix(make_world):
    calm = make_world()
    before(calm.desk)
    calm.sync.list()
    first = seen(calm)
    after(calm.desk)
    every = points(calm)
    last = seen(calm)
    assert len(every) >= 50, every
    deaths = 0
    for point in every:
        world = make_world()
        before(world.desk)
        world.sync.list()
        after(world.desk)
        assert _dies(world, point), (point, "was not reached")
        deaths += 1
        for key, text in seen(world).items():
            assert text in {first[key], last[key], None}, (point, key)
            assert text is not None or None in (first[key], last[key]) or key[1] in _NARROWED, (point, key)
        world.sync.list()
        assert seen(world) == last, point
        assert _rows(world) == _rows(calm), point
        assert world.sync.list(full=True).embedded == 0, point
    assert deaths == len(every)


_NARROWED = {"edited and closed"}
"""While its new text is on its way, such a document is nobody's who may not read both."""


def _dies(world, point: str) -> bool:
    count: dict[str, int] = {}

    def call(name: str) -> None:
        number = count[name] = count.get(name, -1) + 1
        if f"{name} {number}" == point:
            raise Killed(point)

    try:
        with watched(world, call):
            world.sync.list()
    except Killed:
        return True
    return False


def _rows(world) -> dict[str, Any]:
    """The rows of each document, which are those of one version."""
    found: dict[str, Any] = {}
    for (document, version), texts in world.rows.texts.items():
        name = world.ledger.document(document).external_id
        assert name not in found, "two versions"
        found[name] = (texts, world.rows.carried[document, version])
    return {key: (texts, world.ledger.rule(access_id)) for key, (texts, access_id) in found.items()}
