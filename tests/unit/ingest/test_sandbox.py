from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.document import Page
from index.settings import ParsingSettings
from ingest import landlock, sandbox
from ingest.sandbox import Parser
from policies.errors import DocumentRejected, TooLarge, Unavailable, UnsupportedType

ROOT = Path(__file__).resolve().parents[3]

HOSTILE = """
import os, socket, sys, time
from index.document import Extracted, Page
from policies.errors import DocumentRejected, UnsupportedType

kept = []

def parse(data, name):
    if name == "hang":
        time.sleep(600)
    if name == "spin":
        while True:
            pass
    if name == "segfault":
        os.kill(os.getpid(), 11)
    if name == "exit":
        os._exit(3)
    if name == "memory":
        return Extracted(str(len(bytearray(3_000_000_000))))
    if name == "abort":
        os.write(2, b"memory allocation of 123 bytes failed")
        os.abort()
    if name == "leak":
        kept.append(bytearray(100_000_000))
    if name == "raise":
        raise ValueError("odd")
    if name == "recurse":
        return parse(data, name)
    if name == "unsupported":
        raise UnsupportedType("no")
    if name == "huge":
        return Extracted("x" * 70_000_000)
    if name == "pages":
        return Extracted("abc", pages=(Page(1, 0, 99),))
    if name == "page number":
        return Extracted("abc", pages=(Page(float("inf"), 0, 3),))
    if name.startswith("forge "):
        message = b'{"text": "forged", "title": null, "pages": []}'
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, (len(message).to_bytes(8, "big") + message) * int(name[6:]))
            except OSError:
                continue
    if name == "killed by itself":
        os.abort()
    if name == "surrogate":
        return Extracted("a\\ud800b")
    if name == "print":
        print("to stdout"); sys.stdout.flush(); os.write(1, b"raw")
    if name == "environment":
        return Extracted(repr(sorted(os.environ)))
    if name == "write":
        with open("/tmp/rayrag-sandbox-test", "w") as file:
            file.write("x")
    if name == "files":
        kept.extend(open("/dev/null") for _ in range(200))
    if name == "child":
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(600)
    if name == "network":
        return Extracted(repr(socket.if_nameindex()))
    if name == "pid":
        return Extracted(str(os.getpid()))
    if name.startswith("outside "):
        _, act, path = name.split(" ", 2)
        beside = path + ".new"
        acts = {
            "read": lambda: open(path).read(),
            "write": lambda: open(path, "w"),
            "create": lambda: open(beside, "x"),
            "unlink": lambda: os.unlink(path),
            "rename": lambda: os.rename(path, beside),
            "link": lambda: os.link(path, beside),
            "symlink": lambda: os.symlink(path, beside),
            "mkdir": lambda: os.mkdir(beside),
            "list": lambda: os.listdir(os.path.dirname(path)),
            "truncate": lambda: os.truncate(path, 0),
            "execute": lambda: os.execv("/bin/true", ["true"]),
            "parent_environment": lambda: open(f"/proc/{os.getppid()}/environ").read(),
            "signal": lambda: os.kill(os.getppid(), 0),
        }
        return Extracted(repr(acts[act]()))
    return Extracted(f"{len(data)} bytes of {name}", title="T", pages=(Page(1, 0, 3),), markdown=True)
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hostile parsers")
    (folder / "hostile_parser.py").write_text(HOSTILE)
    sys.path.append(str(folder))
    yield "hostile_parser:parse"
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def parser(target: str) -> Iterator[Parser]:
    with Parser(ParsingSettings(memory_mb=256, timeout_s=2), target) as parser:
        yield parser


def test_answer_carries_every_field(parser: Parser) -> None:
    extracted = parser.parse(b"12345", "ä b.txt")
    assert extracted.text == "5 bytes of ä b.txt"
    assert (extracted.title, extracted.pages, extracted.markdown) == ("T", (Page(1, 0, 3),), True)


def test_child_is_reused(parser: Parser) -> None:
    assert parser.parse(b"", "pid") == parser.parse(b"", "pid")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hang", "parsing took longer than 2 s"),
        ("spin", "parsing took longer than 2 s"),
        ("segfault", r"the parser crashed \(signal 11\)"),
        ("exit", r"exit code 3"),
        ("memory", r"the parser ran out of memory \(256 MB\)"),
        ("abort", r"the parser ran out of memory \(256 MB\)"),
        ("raise", "the parser failed: ValueError: odd"),
        ("recurse", "nested too deeply"),
        ("huge", "the text is larger than 64 MB"),
        ("pages", "malformed"),
        ("page number", "malformed"),
        ("killed by itself", r"the parser gave up \(signal 6\), most likely for want of memory \(256 MB\)"),
        ("write", "the parser failed: (OSError|PermissionError)"),
        ("files", "the parser failed: OSError"),
    ],
)
def test_poison_document_is_rejected_with_a_reason_and_the_next_one_is_read(
    parser: Parser, name: str, reason: str
) -> None:
    with pytest.raises(DocumentRejected, match=reason):
        parser.parse(b"x", name)
    assert parser.parse(b"abc", "good").text == "3 bytes of good"


@pytest.mark.parametrize("answers", [1, 2, 3])
def test_answer_that_was_left_behind_is_nobody_elses(parser: Parser, answers: int) -> None:
    with pytest.raises(DocumentRejected, match="malformed"):
        parser.parse(b"x", f"forge {answers}")
    for _ in range(3):
        assert parser.parse(b"abc", "good").text == "3 bytes of good"


def test_unsupported_type_keeps_its_class(parser: Parser) -> None:
    with pytest.raises(UnsupportedType, match="no"):
        parser.parse(b"x", "unsupported")


def test_lone_surrogates_never_reach_the_parent(parser: Parser) -> None:
    parser.parse(b"x", "surrogate").text.encode()


def test_what_a_library_prints_does_not_reach_the_answer(parser: Parser) -> None:
    assert parser.parse(b"x", "print").text == "1 bytes of print"


def test_child_sees_no_secrets(parser: Parser, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_SECRET", "x")
    with Parser(ParsingSettings(), target) as fresh:
        assert "SECRET" not in fresh.parse(b"", "environment").text


def test_child_has_no_network_where_the_kernel_allows_that(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
    if not allowed:
        pytest.skip("this machine forbids network namespaces")
    without = "import ingest.seccomp; ingest.seccomp.confine = lambda: False; from ingest.sandbox"
    monkeypatch.setattr(sandbox, "_BOOTSTRAP", sandbox._BOOTSTRAP.replace("from ingest.sandbox", without))
    with Parser(ParsingSettings(memory_mb=256), target) as parser:
        assert parser.parse(b"", "network").text in ("[]", "[(1, 'lo')]")


def test_child_opens_no_socket_where_the_kernel_has_seccomp(parser: Parser) -> None:
    with pytest.raises(DocumentRejected, match="the parser failed: PermissionError"):
        parser.parse(b"", "network")


needs_landlock = pytest.mark.skipif(landlock.version() == 0, reason="this machine's kernel has no Landlock")
NEWER = {"truncate": 3, "signal": 6}
"""What Landlock refuses from a later version on only."""


@needs_landlock
@pytest.mark.parametrize(
    "act",
    [
        *("read", "write", "create", "unlink", "rename", "link", "symlink", "mkdir", "list", "truncate", "execute"),
        *("parent_environment", "signal"),
    ],
)
def test_child_touches_no_file_outside(parser: Parser, tmp_path: Path, act: str) -> None:
    if landlock.version() < NEWER.get(act, 1):
        pytest.skip(f"this machine's Landlock is too old for {act}")
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret")
    with pytest.raises(DocumentRejected, match="the parser failed: PermissionError"):
        parser.parse(b"", f"outside {act} {secret}")
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]
    assert secret.read_text() == "s3cret"


@needs_landlock
def test_child_reads_nothing_that_lies_beside_the_program(parser: Parser) -> None:
    with pytest.raises(DocumentRejected, match="PermissionError"):
        parser.parse(b"", f"outside read {ROOT / 'pyproject.toml'}")


def test_kernel_without_landlock_is_told_of_once_and_files_are_read_all_the_same(
    target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without = "import ingest.landlock; ingest.landlock.version = lambda: 0; from ingest.sandbox"
    monkeypatch.setattr(sandbox, "_BOOTSTRAP", sandbox._BOOTSTRAP.replace("from ingest.sandbox", without))
    with Parser(ParsingSettings(memory_mb=256), target) as parser:
        for _ in range(2):
            assert parser.parse(b"abc", "good").text == "3 bytes of good"
            parser.close()
    assert [record.levelname for record in caplog.records if "no Landlock" in record.message] == ["WARNING"]


def test_memory_that_earlier_files_left_behind_is_not_held_against_a_document(target: str) -> None:
    with Parser(ParsingSettings(memory_mb=256), target) as parser:
        for _ in range(6):
            assert parser.parse(b"", "leak").text == "0 bytes of leak"


def test_grandchildren_die_with_the_file(target: str) -> None:
    with Parser(ParsingSettings(timeout_s=1), target) as parser:
        session = int(parser.parse(b"", "pid").text)
        with pytest.raises(DocumentRejected):
            parser.parse(b"", "child")
        assert _alive_in(session) == []


def _alive_in(session: int) -> list[int]:
    alive = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                alive.append(int(folder.name))
    return alive


def test_file_over_the_limit_is_refused_before_a_child_starts(target: str) -> None:
    with (
        Parser(ParsingSettings(max_file_mb=0.001), target) as parser,
        pytest.raises(TooLarge, match="larger than 0.001"),
    ):
        parser.parse(b"x" * 2000, "big")


def test_large_file_passes_through_the_pipe(parser: Parser) -> None:
    assert parser.parse(b"x" * 30_000_000, "big").text == "30000000 bytes of big"


def test_parser_that_does_not_exist_is_an_operators_problem_and_no_documents() -> None:
    with Parser(ParsingSettings(), "no.such_module:parse") as parser, pytest.raises(Unavailable, match="no"):
        parser.parse(b"x", "a.txt")


def test_closed_parser_starts_again(target: str) -> None:
    parser = Parser(ParsingSettings(), target)
    first = parser.parse(b"", "pid").text
    parser.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)
    assert parser.parse(b"", "pid").text != first
    parser.close()
    parser.close()


def test_threads_take_turns(parser: Parser) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda n=n: found.append(parser.parse(b"x" * n, "t").text)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"{n} bytes of t" for n in range(1, 9))


def test_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import os; from index.settings import ParsingSettings; from ingest.sandbox import Parser; "
        "p = Parser(ParsingSettings()); p.parse(b'hello', 'a.txt'); "
        "print(p._child._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    child = int(done.stdout)
    for _ in range(100):
        status = Path(f"/proc/{child}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


def test_child_ends_in_the_middle_of_a_file_when_its_parent_is_killed(target: str) -> None:
    code = (
        "import os, sys, threading, time; sys.path.append(sys.argv[1])\n"
        "from index.settings import ParsingSettings; from ingest.sandbox import Parser\n"
        "p = Parser(ParsingSettings(timeout_s=60), 'hostile_parser:parse'); pid = p.parse(b'', 'pid').text\n"
        "threading.Thread(target=p.parse, args=(b'', 'spin'), daemon=True).start(); time.sleep(0.5)\n"
        "print(pid, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, sys.path[-1]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for _ in range(400):
        if not _alive_in(int(done.stdout)):
            return
        time.sleep(0.05)
    pytest.fail("the child went on parsing for nobody")


def test_real_parser_works_from_a_copy_in_a_path_with_a_space(tmp_path: Path) -> None:
    copy = tmp_path / "working dir"
    for room in ("index", "ingest", "policies"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from index.settings import ParsingSettings; from ingest.sandbox import Parser; import ingest.sandbox\n"
        "with Parser(ParsingSettings()) as parser:\n"
        "    print(parser.parse(b'# Hi', 'a.md').title, 'working dir' in ingest.sandbox.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Hi True", done.stderr


def test_real_parser_rejects_what_it_cannot_read_and_goes_on() -> None:
    with Parser(ParsingSettings()) as parser:
        with pytest.raises(DocumentRejected, match="damaged"):
            parser.parse(b"%PDF-1.4 broken", "x.pdf")
        with pytest.raises(DocumentRejected, match="empty"):
            parser.parse(b"", "x.txt")
        assert parser.parse(b"<html><h1>Hi</h1></html>", "x.html").text == "# Hi"
