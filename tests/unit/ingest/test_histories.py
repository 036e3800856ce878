"""Whatever happens to a source, and to the syncs of it: when both are quiet, the index is what the source is.

A history is a list of acts: people edit, move, delete and share; listings break, stop halfway, come late, overlap or
are killed; documents cannot be read; somebody says "look". Hypothesis makes histories and shrinks what fails.
`RAYRAG_HISTORIES` says how many; `make bench` runs 2,000.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.connector import Gone, Mark
from policies.access import NOBODY, AccessRule
from policies.errors import SourceUnavailable
from policies.principals import Principal

HISTORIES = int(os.environ.get("RAYRAG_HISTORIES", "100"))
RULES = {
    "all": AccessRule.of(["everyone"]),
    "hr": AccessRule.of(["group:hr"]),
    "not bob": AccessRule.of(["everyone"], ["user:bob"]),
    "nobody": NOBODY,
}
BOB, HAL = Principal("bob", "acme"), Principal("hal", "acme", groups=frozenset({"hr"}))
NAMES = ["a", "b", "f/a", "f/b", "f#row", "line-3"]
TEXTS = ["one", "two", "three words here", "one"]

names, texts, rules = st.sampled_from(NAMES), st.sampled_from(TEXTS), st.sampled_from(sorted(RULES))
acts = st.one_of(
    st.tuples(st.just("put"), names, texts, rules),
    st.tuples(st.just("share"), names, rules),
    st.tuples(st.just("move"), names, names),
    st.tuples(st.just("take"), names),
    st.tuples(st.just("lock"), names),
    st.tuples(st.just("unlock"), names),
    st.tuples(st.just("list"), st.booleans()),
    st.tuples(st.just("list, broken"), st.integers(0, 4)),
    st.tuples(st.just("list, killed"), st.integers(0, 25)),
    st.tuples(st.just("list, with a change meanwhile"), names, texts, rules),
    st.tuples(st.just("forget the cursor")),
    st.tuples(st.just("look"), st.lists(names, min_size=1, max_size=3)),
    st.tuples(st.just("begin a slow listing"), st.booleans()),
    st.tuples(st.just("end the slow listing")),
)


class Killed(BaseException):
    """SIGKILL, as far as one process can play it."""


class History:
    """One source, its index, and what the syncs heard of each document last: who may read it, or that it is gone."""

    def __init__(self, world) -> None:
        self.world, self.desk = world, world.desk
        self.slow: list | None = None
        self.heard: dict[str, tuple[int, AccessRule]] = {}
        self._now, self._notes, self._is_whole = 0, [], True
        self._listen()

    def act(self, act: tuple) -> None:
        self._now += 1
        self._notes, self._is_whole = [], True
        getattr(self, act[0].replace(", ", "_").replace(" ", "_"))(*act[1:])
        for moment, name, rule in self._notes:
            if not self._is_whole:
                self.heard.pop(name, None)  # heard, and then perhaps not acted on: it may stand until it is heard again
            elif moment >= self.heard.get(name, (0, NOBODY))[0]:
                self.heard[name] = (moment, rule)
        self.nobody_reads_what_was_heard_to_be_closed()

    def _listen(self) -> None:
        original = self.desk.now, self.desk.entry

        def now(name, below=False):
            found = original[0](name, below)
            if isinstance(found, Gone):
                self._notes.append((self._now, name, NOBODY))
            return found

        def entry(name):
            found = original[1](name)
            self._notes.append((self._now, name, found.ref.rule))
            return found

        self.desk.now, self.desk.entry = now, entry

    # ---- people

    def put(self, name: str, text: str, rule: str) -> None:
        self.desk.put(name, text, RULES[rule])

    def share(self, name: str, rule: str) -> None:
        if name in self.desk.documents:
            self.desk.put(name, self.desk.documents[name][0], RULES[rule])

    def move(self, name: str, to: str) -> None:
        if name in self.desk.documents and name != to:
            content = self.desk.documents[name]
            self.desk.take(name)
            self.desk.put(to, *content)

    def take(self, name: str) -> None:
        if name in self.desk.documents:
            self.desk.take(name)

    def lock(self, name: str) -> None:
        self.desk.unreadable.add(name)

    def unlock(self, name: str) -> None:
        self.desk.unreadable.discard(name)

    # ---- syncs

    def list(self, full: bool) -> None:
        self.world.sync.list(full)

    def list_broken(self, after: int) -> None:
        original = self.desk.list

        def broken(cursor):
            for number, item in enumerate(original(cursor)):
                if number == after or isinstance(item, Mark):
                    raise SourceUnavailable("500")
                yield item

        self._with_list(broken, SourceUnavailable)
        self._is_whole = False

    def list_killed(self, at: int) -> None:
        steps = 0
        originals = {}
        for owner, name in [
            (self.world.ledger, "set_rules"),
            (self.world.ledger, "delete"),
            (self.world.ledger, "begin_versions"),
            (self.world.ledger, "flip_versions"),
            (self.world.ledger, "set_cursor"),
            (self.world.rows, "upsert"),
            (self.world.rows, "set_access"),
        ]:
            originals[owner, name] = original = getattr(owner, name)

            def step(*args, _original=original, **kwargs):
                nonlocal steps
                steps += 1
                if steps > at:
                    raise Killed
                return _original(*args, **kwargs)

            setattr(owner, name, step)
        try:
            self.world.sync.list()
        except Killed:
            self._is_whole = False
        finally:
            for (owner, name), original in originals.items():
                setattr(owner, name, original)

    def list_with_a_change_meanwhile(self, name: str, text: str, rule: str) -> None:
        def change() -> None:
            self.world.before_write = lambda: None
            self.desk.put(name, text, RULES[rule])
            self.world.sync.look([name])

        self.world.before_write = change
        try:
            self.world.sync.list()
        finally:
            self.world.before_write = lambda: None

    def forget_the_cursor(self) -> None:
        self.world.ledger.forget_cursor(self.world.sync.source_id)

    def look(self, some: list[str]) -> None:
        self.world.sync.look(some)

    def begin_a_slow_listing(self, full: bool) -> None:
        cursor = None if full else self.world.sync._cursor()
        self.slow = [list(self.desk.list(cursor)), self._notes]
        self._notes = []

    def end_the_slow_listing(self) -> None:
        """What was heard long ago arrives now; others have been faster."""
        if self.slow is None:
            return
        (*heard, mark), notes = self.slow
        self.slow = None
        # What came after it, a listing of everything cannot have named: that is not gone.
        self._with_list(lambda cursor: iter([*heard, Mark(mark.cursor, complete=False)]), ())
        self._notes += notes

    def _with_list(self, instead, expected) -> None:
        self.desk.list = instead
        try:
            self.world.sync.list()
        except expected:
            pass
        finally:
            del self.desk.list

    # ---- what must hold

    def nobody_reads_what_was_heard_to_be_closed(self) -> None:
        for who in (BOB, HAL):
            for name in self.world.reading(who):
                assert name not in self.heard or self.heard[name][1].permits(who), (who.subject, name)

    def quiet(self) -> None:
        self.desk.unreadable.clear()
        self.world.sync.list()
        assert self.world.sync.list(full=True).unread == 0
        for who in (BOB, HAL):
            expected = {name: text for name, (text, rule) in self.desk.documents.items() if rule.permits(who)}
            assert self.world.reading(who) == expected
        again = self.world.sync.list(full=True)
        assert (again.embedded, again.created, again.updated, again.deleted, again.access_changed) == (0, 0, 0, 0, 0)
        live = {
            document.document_id: document.version for document in self.world.ledger.known(self.world.sync.source_id)
        }
        assert {key for key in self.world.rows.carried} == set(live.items()), "rows that nobody can reach"


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(history=st.lists(acts, max_size=14))
def test_the_index_is_the_source_when_both_are_quiet(make_world, history):
    told = History(make_world())
    for act in history:
        told.act(act)
    told.quiet()


@settings(max_examples=max(20, HISTORIES // 5), deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(history=st.lists(acts, max_size=10))
def test_the_last_listing_of_changes_alone_is_enough_where_nothing_was_killed_or_late(make_world, history):
    """Without the safety net: no listing of everything at the end."""
    told = History(make_world())
    for act in history:
        if act[0] not in ("begin a slow listing", "end the slow listing"):
            told.act(act)
    told.desk.unreadable.clear()
    told.world.sync.list()
    for who in (BOB, HAL):
        expected = {name: text for name, (text, rule) in told.desk.documents.items() if rule.permits(who)}
        assert told.world.reading(who) == expected
