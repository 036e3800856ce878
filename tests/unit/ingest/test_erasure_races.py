"""An erasure that races a re-ingestion, and one that is killed: what was erased stays erased, and nothing else goes."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from index.document import Chunk, DocumentRef, Vectors, chunk_id
from index.embedding_cache import text_hash
from index.ledger import Ledger
from index.privacy_requests import PrivacyRequests
from index.settings import AppArgs, parse
from index.subject_rows import Sought
from index.suppressions import SuppressionList, suppressions_url
from index.vectors import ChunkRow
from ingest import erasure, reindex
from ingest.erasure import Erasure
from ingest.report import Outcome
from ingest.stages import Prepared, embed_and_write, held_against, sweep
from policies.access import AccessRule
from policies.keyed_hashes import KeyedHashes
from policies.privacy.subject import Subject
from policies.privacy.suppression import Matcher, Suppressions, entries_of

ISSUER = {"issuer": "i", "audience": "a", "algorithms": ["EdDSA"], "key_file": "k"}
EVERYONE = AccessRule.of(["everyone"])
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - mkdtemp makes it private
Pause = Callable[[], None]


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class Rows:
    """The vector store's stand-in: rows by key, and a point to pause at before each call."""

    def __init__(self) -> None:
        self.rows: dict[str, ChunkRow] = {}
        self.pause: Pause = lambda: None

    def open(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def ask(self) -> Any:
        return SimpleNamespace(store=self)

    def upsert(self, rows: Sequence[ChunkRow]) -> int:
        self.pause()
        self.rows |= {chunk_id(row.document_id, row.version, row.position): row for row in rows}
        self.pause()
        return len(rows)

    def delete(self, document_id: str, version: int, chunk_count: int) -> None:
        self.pause()
        for position in range(chunk_count):
            self.rows.pop(chunk_id(document_id, version, position), None)

    def set_access(self, document_id: str, version: int, chunk_count: int, access_id: int) -> None:
        raise AssertionError("nobody changes rights here")

    def stored(self, keys: Sequence[str]) -> dict[str, ChunkRow]:
        self.pause()
        return {key: self.rows[key] for key in keys if key in self.rows}

    def holding(self, hashes: Sequence[str]) -> set[str]:
        return {row.text_hash for row in list(self.rows.values())} & set(hashes)


class World:
    """A ledger, a list and a store that writers and an erasure share."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        given = {"data_dir": str(home / "data"), "identity": {"issuers": [ISSUER]}}
        self.args: AppArgs = parse(given)
        self.rows = Rows()
        patch.setattr(erasure, "Stores", lambda _: self.rows)
        patch.setattr(erasure, "Live", lambda _: self.rows)
        patch.setattr(reindex, "time", SimpleNamespace(monotonic=reindex.time.monotonic, sleep=lambda _: None))
        self.keyed = KeyedHashes(hashlib.sha256(b"k").digest())
        self.ledger = Ledger(self.args.store.ledger)
        self.list = SuppressionList(suppressions_url(self.args), self.keyed)
        self.suppressions = Suppressions(self.list, self.keyed)
        self.requests = PrivacyRequests(self.args.store.ledger)
        self.erasure = Erasure(self.args, self.embed, self.requests, patience_s=0.5)

    def embed(self, texts: Sequence[str]) -> tuple[list[Vectors], list[bool]]:
        self.rows.pause()
        return [{"m": np.ones(2, dtype=np.float32)} for _ in texts], [True] * len(texts)

    def prepared(self, tenant: str, name: str, *texts: str, title: str | None = None) -> list[Prepared]:
        ref = DocumentRef(tenant, "s", name, f"file:{name}", title, "".join(texts), EVERYONE)
        chunks, start = [], 0
        for position, text in enumerate(texts):
            chunks.append(Chunk(position, text, start, start + len(text)))
            start += len(text)
        held, _ = held_against(
            [Prepared(ref, title, text_hash("".join(texts)).hex(), tuple(chunks))], self.suppressions
        )
        return held

    def write(self, *documents: list[Prepared]) -> list[Outcome]:
        return embed_and_write(
            [each for few in documents for each in few], self.embed, self.ledger, self.rows, "run", self.suppressions
        )

    def who(self, tenant: str, person: str) -> Sought:
        entries = entries_of(
            Subject((f"{person}@example.org",), (f"Zelda {person}",)), tenant, self.keyed, "r" + tenant
        )
        return Sought(tenant, self.ledger.tenant_id(tenant), Matcher(tenant, self.keyed, entries))

    def erase(self, tenant: str, person: str) -> None:
        entries = entries_of(
            Subject((f"{person}@example.org",), (f"Zelda {person}",)), tenant, self.keyed, "r" + tenant
        )
        self.list.add(tenant, entries)
        self.rows.pause()
        self.erasure.erase(self.who(tenant, person), self.rows.pause)

    def texts(self, tenant: str) -> dict[str, str]:
        """What readers see: the live rows of each document."""
        found = {}
        for stored in self.ledger.find(self.ledger.tenant_id(tenant)):
            keys = [chunk_id(stored.document_id, stored.version or 0, n) for n in range(stored.chunk_count)]
            found[stored.external_id] = "|".join(row.text for row in self.rows.stored(keys).values())
        return found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="races-", dir=MEMORY) as home, pytest.MonkeyPatch.context() as patch:
        yield World(Path(home), patch)


class Turns:
    """Lets several threads take turns at their points, in an order that a seed decides."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        # How seldom the turn changes: often, or so that one runs far while another waits at one point.
        self._change = self._chance.choice((0.5, 0.15, 0.04))
        self._turn = threading.Condition()
        self._alive: list[int] = []
        self._now: int | None = None

    def run(self, *works: Callable[[], None]) -> None:
        failures: list[BaseException] = []
        self._alive = list(range(len(works)))
        self._now = self._chance.choice(self._alive)

        def guarded(number: int, work: Callable[[], None]) -> None:
            threading.current_thread().name = f"turns-{number}"
            try:
                self._await(number)
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's own thread
                failures.append(error)
            finally:
                with self._turn:
                    self._alive.remove(number)
                    self._now = self._chance.choice(self._alive) if self._alive else None
                    self._turn.notify_all()

        threads = [threading.Thread(target=guarded, args=each) for each in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "somebody waits for ever"
        if failures:
            raise failures[0]

    def pause(self) -> None:
        name = threading.current_thread().name
        if not name.startswith("turns-"):
            return
        with self._turn:
            if self._chance.random() < self._change:
                self._now = self._chance.choice(self._alive)
                self._turn.notify_all()
        self._await(int(name.removeprefix("turns-")))

    def _await(self, number: int) -> None:
        with self._turn:
            assert self._turn.wait_for(lambda: self._now == number, 60), "never its turn"


@pytest.mark.parametrize("seed", range(100))
def test_a_reingestion_that_races_an_erasure_brings_nothing_back(world: World, seed: int) -> None:
    tenant, person = f"t{seed}", f"Quillon{seed:03d}x"
    told = f"Zelda {person} was here. ", f"Write to {person.upper()}@Example.ORG about it."
    world.write(world.prepared(tenant, "a", *told), world.prepared(tenant, "other", "Nothing of hers."))
    turns = Turns(seed)
    world.rows.pause = turns.pause

    def again() -> None:
        # Held against the list now, written whenever its turn comes: an erasure may begin in between.
        one = world.prepared(tenant, "a", *told, "A new line.")
        two = world.prepared(tenant, "b", f"A copy: Zelda\n{person}.")
        turns.pause()
        world.write(one)
        turns.pause()
        world.write(two)
        world.write(world.prepared(tenant, f"cv of Zelda {person}", "She can swim."))

    try:
        turns.run(again, lambda: world.erase(tenant, person))
    finally:
        world.rows.pause = lambda: None
    sweep(world.ledger, world.rows)
    shown = world.texts(tenant)
    assert shown["other"] == "Nothing of hers."
    assert set(shown) <= {"a", "b", "other"}, "what is named after her stays away"
    assert person.lower() not in repr(shown).lower()
    mine = [row for row in world.rows.rows.values() if row.tenant_id == world.ledger.tenant_id(tenant)]
    assert person.lower() not in repr([(row.text, row.context, row.analysed) for row in mine]).lower()
    assert world.erasure.find(world.who(tenant, person)).left == 0


@pytest.mark.parametrize("point", range(1, 21))
def test_an_erasure_that_was_killed_goes_on_where_it_was(world: World, point: int) -> None:
    tenant, person = f"k{point}", f"Morvane{point:03d}z"
    texts = [f"Zelda {person} in document {number}." for number in range(3)]
    world.write(*(world.prepared(tenant, f"d{n}", text, "The rest stays.") for n, text in enumerate(texts)))
    world.write(world.prepared(tenant, f"{person}@example.org.txt", "named after her"))
    left = point

    def dying() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    world.rows.pause = dying
    try:
        world.erase(tenant, person)
    except Killed:
        pass
    finally:
        world.rows.pause = lambda: None
    world.erase(tenant, person)
    shown = world.texts(tenant)
    assert set(shown) == {"d0", "d1", "d2"}
    assert all(text.endswith("The rest stays.") and person not in text for text in shown.values()), shown
    assert person not in repr([row.text for row in world.rows.rows.values()])


def test_a_mention_that_goes_from_one_passage_into_the_next_is_found_and_offsets_follow(world: World) -> None:
    world.write(world.prepared("o", "d", "Before. Yesterday Zelda", "Brankowicz came. After her the rain."))
    world.erase("o", "Brankowicz")
    stored = next(iter(world.ledger.find(world.ledger.tenant_id("o"))))
    keys = [chunk_id(stored.document_id, stored.version or 0, n) for n in range(stored.chunk_count)]
    first, second = world.rows.stored(keys).values()
    assert first.text == "Before. Yesterday [erased]" and second.text == "[erased] came. After her the rain."
    assert (first.start, first.end) == (0, len(first.text)) and second.end - second.start == len(second.text)
    assert second.start == first.end
