"""Reads untrusted files in a child process with limits, so that a poison document hurts only itself.

The child gets bytes and a name, and answers JSON of plain fields: no pickle, no path, no environment, no network
(where the kernel lets us take it away). It serves many files; whatever ends it costs the current file only.

Files: by Landlock it reads Python, its libraries and this program's own code, and writes, moves and removes nothing.
Where the kernel has no Landlock (before Linux 5.13, or switched off) the log says so once, and code that takes over
the child can read and remove what the service's user can; the limits below hold all the same. Landlock knows nothing
of modes and owners of files, nor of sockets in the file system; of `truncate` only from Linux 6.2 on. Those, sockets
of any kind and the start of processes are refused by seccomp (`ingest.seccomp`), on x86-64 and ARM.

Limits: address space (baseline after warm-up + `memory_mb`), CPU time, no file writes, few open files, no core dumps,
and a wall clock in the parent. The number of processes is not limited by `RLIMIT_NPROC`: that counts a user's threads
everywhere and would hit the parent too. Where seccomp is missing, what the child starts dies with its process group.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import secrets
import select
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from index.document import Extracted, Page
from ingest import landlock, seccomp
from ingest.cleaning import clean, usable_title
from policies.errors import DocumentRejected, TooLarge, Unavailable, UnsupportedType

if TYPE_CHECKING:
    from types import TracebackType

    from index.settings import ParsingSettings

MAX_ANSWER_BYTES = 64_000_000
START_TIMEOUT_S = 120.0
FILES_PER_CHILD = 500
MAX_PAGE_NUMBER = 2**31
ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("index", "ingest", "policies")
"""What the parser imports of this program: beside them lie the ledger and keys of a local installation."""
SYSTEM_FILES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/fonts", "/usr/share/zoneinfo"),
    *("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom"),
)
_STDERR_BYTES = 8192
_HEADER = struct.Struct(">IQ")
"""Before each request: bytes of its JSON head, bytes of the file."""
_LENGTH = struct.Struct(">Q")
"""Before each answer: bytes of its JSON."""
_TARGETS = {"leave_out": "ingest.parsing:parse", "keep": "ingest.parsing:parse_keeping"}
MAX_REASONS = 50
_OUT_OF_MEMORY = ("memory allocation of", "out of memory", "bad_alloc", "cannot allocate memory", "memoryerror")
_BOOTSTRAP = (
    "import json, sys; paths = json.loads(sys.argv[1]); sys.path[:0] = paths[:1]; "
    "sys.path += [path for path in paths[1:] if path not in sys.path]; "
    "from ingest.sandbox import serve; serve(sys.argv[2], int(sys.argv[3]))"
)


class Parser:
    """A child process that parses files, started on first use and again whenever a file ended it.

    `target` is `module:function` of type `(bytes, str) -> Extracted`; none: as `hidden_text` says. Calls from several
    threads take turns.
    """

    def __init__(self, settings: ParsingSettings, target: str | None = None) -> None:
        self._settings = settings
        self._target = target or _TARGETS[settings.hidden_text]
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._told = False

    def parse(self, data: bytes, name: str) -> Extracted:
        """Extract the text of one file.

        Raises `TooLarge` over `max_file_mb`; `UnsupportedType`; `DocumentRejected` with the reason where the file is
        unreadable or the parser crashed, hung or outgrew its memory; `Unavailable` where no child process starts.
        """
        if len(data) > self._settings.max_file_mb * 1_000_000:
            raise TooLarge(f"the file is larger than {self._settings.max_file_mb:g} MB")
        with self._lock:
            answer = self._ask(data, name)
        return _checked(answer)

    def close(self) -> None:
        """End the child. A later `parse` starts a new one."""
        with self._lock:
            self._end()

    def __enter__(self) -> Parser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, data: bytes, name: str) -> Any:
        if self._child is not None and self._child.served >= FILES_PER_CHILD:
            self._end()
        used = self._child is not None and self._child.served > 0
        try:
            return self._ask_once(data, name)
        except _Spoilt as spoilt:
            if not used:
                raise DocumentRejected(spoilt.reason) from None
        try:
            return self._ask_once(data, name)
        except _Spoilt as spoilt:
            raise DocumentRejected(spoilt.reason) from None

    def _ask_once(self, data: bytes, name: str) -> Any:
        if self._child is None:
            self._child = _Child(self._target, self._settings.memory_mb)
            if not self._child.confined and not self._told:
                logging.getLogger(__name__).warning(
                    "no Landlock in this kernel: the parser's child is not kept from files"
                )
                self._told = True
        try:
            answer = self._child.ask(data, name, self._settings.timeout_s)
        except BaseException:
            self._end()
            raise
        if isinstance(answer, dict) and answer.get("error") == "memory":
            self._end()
            raise _Spoilt(_out_of_memory(self._settings.memory_mb))
        if isinstance(answer, dict) and answer.get("error") == "failed":
            self._end()  # nobody knows what an unforeseen failure left behind (open files, locks)
        return answer

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Spoilt(Exception):
    """Earlier files may have caused this, by memory left in pieces or answers left behind: a fresh child decides."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _out_of_memory(memory_mb: int) -> str:
    return f"the parser ran out of memory ({memory_mb} MB)"


class _Child:
    """One process: a pipe in, a pipe out, a pipe for its last words."""

    def __init__(self, target: str, memory_mb: int) -> None:
        paths = [str(ROOT), *(path for path in sys.path if path and Path(path).is_absolute())]
        self.served = 0
        self._memory_mb = memory_mb
        self._stderr = b""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-I", "-c", _BOOTSTRAP, json.dumps(paths), target, str(memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
        try:
            ready = self._exchange(b"", time.monotonic() + START_TIMEOUT_S)
        except (DocumentRejected, _Spoilt, TimeoutError) as error:
            words = self._stderr.decode("utf-8", "replace").strip().split("\n")[-1][:300]
            self.kill()
            raise Unavailable(f"the parser process did not start: {words or error}") from error
        if not isinstance(ready, dict) or ready.get("ready") is not True:
            self.kill()
            raise Unavailable(f"the parser process did not start: {str(ready)[:300]}")
        self.confined = ready.get("confined") is True

    @property
    def _pipes(self) -> tuple[BinaryIO, BinaryIO, BinaryIO]:
        process = self._process
        return process.stdin, process.stdout, process.stderr  # type: ignore[return-value]

    def ask(self, data: bytes, name: str, timeout_s: float) -> Any:
        """Send one file and wait for the answer. Raises `DocumentRejected`, and `_Spoilt` as its name says.

        The answer must repeat a number that nobody can know before: an earlier file may have left answers behind.
        """
        self.served += 1
        self._stderr = b""
        ticket = secrets.token_hex(16)
        head = json.dumps({"name": name, "timeout_s": timeout_s, "ticket": ticket}).encode()
        try:
            answer = self._exchange(_HEADER.pack(len(head), len(data)) + head + data, time.monotonic() + timeout_s)
        except TimeoutError as error:
            raise DocumentRejected(f"parsing took longer than {timeout_s:g} s") from error
        if not isinstance(answer, dict) or answer.get("ticket") != ticket:
            raise _Spoilt("the parser's answer is malformed")
        return answer

    def kill(self) -> None:
        """End the process with all it started, and collect it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _exchange(self, request: bytes, deadline: float) -> Any:
        stdin, stdout, stderr = self._pipes
        pending, answer = memoryview(request), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            selector.register(stderr, selectors.EVENT_READ)
            if pending:
                selector.register(stdin, selectors.EVENT_WRITE)
            while True:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError
                for key, _ in selector.select(remaining):
                    if key.fileobj is stdin:
                        pending = self._write(pending)
                        if not pending:
                            selector.unregister(stdin)
                    elif key.fileobj is stderr:
                        self._listen(selector)
                    else:
                        block = os.read(stdout.fileno(), 1_048_576)
                        if not block:
                            raise self._verdict()
                        answer += block
                message = _complete(answer)
                if message is not None:
                    return message

    def _write(self, pending: memoryview) -> memoryview:
        try:
            return pending[os.write(self._pipes[0].fileno(), pending[:1_048_576]) :]
        except BrokenPipeError:
            return memoryview(b"")  # it died: the end of its answers tells how

    def _listen(self, selector: selectors.BaseSelector) -> None:
        block = os.read(self._pipes[2].fileno(), 65_536)
        self._stderr = (self._stderr + block)[-_STDERR_BYTES:]
        if not block:
            selector.unregister(self._pipes[2])

    def _verdict(self) -> Exception:
        """Say why the child ended."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return DocumentRejected("the parser stopped answering")
        os.set_blocking(self._pipes[2].fileno(), True)
        words = (self._stderr + self._pipes[2].read(65_536)).decode("utf-8", "replace").lower()
        if any(phrase in words for phrase in _OUT_OF_MEMORY):
            return _Spoilt(_out_of_memory(self._memory_mb))
        if code == -signal.SIGABRT:  # pdfium ends so, and says nothing, when it gets no more memory
            return _Spoilt(f"the parser gave up (signal 6), most likely for want of memory ({self._memory_mb} MB)")
        if code == -signal.SIGXCPU:
            return DocumentRejected("the parser used more CPU time than it may")
        if code < 0:
            return DocumentRejected(f"the parser crashed (signal {-code})")
        return DocumentRejected(f"the parser ended unexpectedly (exit code {code})")


def _environment() -> dict[str, str]:
    """Nothing of the parent's but what the dynamic loader may need; few threads and arenas, to keep memory small."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return {
        **kept,
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKIO_WORKER_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _complete(answer: bytearray) -> Any:
    """Decode a whole answer; None while bytes are missing. Raises `DocumentRejected` for one too long or wrong."""
    if len(answer) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(answer)
    if length > MAX_ANSWER_BYTES:
        raise DocumentRejected(f"the text is larger than {MAX_ANSWER_BYTES // 1_000_000} MB")
    if len(answer) < _LENGTH.size + length:
        return None
    if len(answer) > _LENGTH.size + length:
        raise DocumentRejected("the parser's answer is malformed")  # or its rest would answer for the next file
    try:
        return json.loads(bytes(answer[_LENGTH.size : _LENGTH.size + length]))
    except (ValueError, RecursionError) as error:
        raise DocumentRejected("the parser's answer is malformed") from error


def _checked(answer: Any) -> Extracted:
    """Turn the child's answer into a value, believing nothing of it."""
    if not isinstance(answer, dict):
        raise DocumentRejected("the parser's answer is malformed")
    if "error" in answer:
        detail = clean(" ".join(str(answer.get("detail"))[:500].split()))
        raise UnsupportedType(detail) if answer["error"] == "unsupported" else DocumentRejected(detail)
    text, title, pages = answer.get("text"), answer.get("title"), answer.get("pages")
    try:
        if not isinstance(text, str) or not isinstance(title, str | None) or not isinstance(pages, list):
            raise ValueError("wrong type of a field")
        text.encode()
        ranges = tuple(Page(*map(_whole, page)) for page in pages)
        last = 0
        for page in ranges:
            if not (0 < page.number < MAX_PAGE_NUMBER and last <= page.start <= page.end <= len(text)):
                raise ValueError("pages out of order")
            last = page.start
        hidden = tuple(_counted(pair) for pair in answer.get("hidden", [])[:MAX_REASONS])
    except (ValueError, TypeError) as error:
        raise DocumentRejected("the parser's answer is malformed") from error
    return Extracted(text, usable_title(title), ranges, answer.get("markdown") is True, hidden)


def _counted(pair: Any) -> tuple[str, int]:
    why, count = pair
    return clean(str(why))[:100], _whole(count)


def _whole(value: Any) -> int:
    if type(value) is not int:  # neither a truth value, nor a float that is no number
        raise ValueError("no whole number")
    return value


# ---- in the child ----


def serve(target: str, memory_mb: int) -> None:
    """Answer requests on standard input until it closes. The child's whole life."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A library that prints must not write into the answers, nor one that reads wait for a file.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _leave_network()
    module, _, function = target.partition(":")
    size = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else None  # it is out of reach soon
    confined = _leave_files(module)
    seccomp.confine()
    parse: Callable[[bytes, str], Extracted] = getattr(importlib.import_module(module), function)
    if target in _TARGETS.values():
        _warm_up(parse)
    threading.Thread(target=_end_with_parent, args=(requests.fileno(),), daemon=True).start()
    _limit(memory_mb, size)
    _send(answers, {"ready": True, "confined": confined})
    while header := requests.read(_HEADER.size):
        head_size, size = _HEADER.unpack(header)
        head = json.loads(requests.read(head_size))
        data = requests.read(size)
        _start_clocks(head["timeout_s"])
        answer = _answer(parse, data, head["name"])
        del data
        signal.alarm(0)
        _send(answers, answer | {"ticket": head["ticket"]})


def _end_with_parent(requests: int) -> None:
    """Wait until nobody can send requests any more: whatever is being parsed then, nobody waits for its text."""
    watch = select.poll()
    watch.register(requests, 0)  # that the other end was closed is told without being asked for
    watch.poll()
    os._exit(0)


def _warm_up(parse: Callable[[bytes, str], Extracted]) -> None:
    """Load the libraries and their threads, so that the memory limit counts documents only."""
    import email.policy  # noqa: F401
    import encodings.idna  # noqa: F401

    import charset_normalizer  # noqa: F401
    import pypdfium2  # noqa: F401

    parse(b"<html><body><h1>Ready</h1><p>Ready.</p></body></html>", "ready.html")


def _answer(parse: Callable[[bytes, str], Extracted], data: bytes, name: str) -> dict[str, Any]:
    try:
        extracted = parse(data, name)
        if len(extracted.text) > MAX_ANSWER_BYTES:
            raise DocumentRejected(f"the text is larger than {MAX_ANSWER_BYTES // 1_000_000} MB")
        return {
            "text": extracted.text,
            "title": extracted.title,
            "pages": [(page.number, page.start, page.end) for page in extracted.pages],
            "markdown": extracted.markdown,
            "hidden": extracted.hidden,
        }
    except UnsupportedType as error:
        return {"error": "unsupported", "detail": error.detail}
    except DocumentRejected as error:
        if any(phrase in error.detail.lower() for phrase in _OUT_OF_MEMORY):
            return {"error": "memory"}
        return {"error": "rejected", "detail": error.detail}
    except MemoryError:
        return {"error": "memory"}
    except RecursionError:
        return {"error": "rejected", "detail": "the document is nested too deeply"}
    except Exception as error:  # noqa: BLE001 - the process boundary: every failure becomes the document's reason
        if any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY):
            return {"error": "memory"}
        return {"error": "failed", "detail": f"the parser failed: {type(error).__name__}: {str(error)[:200]}"}


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    message = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    answers.write(_LENGTH.pack(len(message)))
    if len(message) <= MAX_ANSWER_BYTES:
        answers.write(message)
    answers.flush()


def _leave_network() -> None:
    """Move into a network namespace without interfaces. Best effort: containers often forbid it."""
    import ctypes

    new_user, new_network, no_new_privileges = 0x10000000, 0x40000000, 38
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "unshare"):
        return
    if library.unshare(new_network) != 0:
        library.unshare(new_user | new_network)
    library.prctl(no_new_privileges, 1, 0, 0, 0)


def _leave_files(module: str) -> bool:
    """Keep nothing but code and libraries. Before they are loaded: their threads would go on as they are."""
    found = importlib.util.find_spec(module)
    own = [Path(found.origin).parent] if found and found.origin else []
    libraries = [Path(path) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix)]
    libraries += [Path(path) for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    libraries += [Path(path) for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    readable = [*own, *(ROOT / room for room in ROOMS), *libraries, *map(Path, SYSTEM_FILES)]
    return landlock.confine(readable, listable=[ROOT])


def _limit(memory_mb: int, size: int | None) -> None:
    import resource

    pages = 0 if size is None else int(os.read(size, 200).split()[0])
    baseline = pages * resource.getpagesize()
    if baseline:
        limit = baseline + memory_mb * 1_048_576
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _start_clocks(timeout_s: float) -> None:
    """Limits that hold even where the parent is gone: twice the wall clock of CPU time, and an alarm that ends us."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime + 2 * timeout_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.alarm(int(timeout_s) + 5)
