"""`make check` fails on a known hole, and says loudly where it could not look: the real pip-audit and a local OSV."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deployments.closed import RAY_FLOOR
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
HOLE = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-0001"],
    "summary": "it runs code",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def home(audit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of locks with one package that has a hole, and nothing to hold them to."""
    for name, text in {
        "cpu.txt": "leaky==1.0\nfine==1.0\n",
        "gpu.txt": "leaky==1.0\n",
        "test.txt": "fine==1.0\n",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "floors.txt").write_text("fine>=1.0  # CVE-1\n")
    (tmp_path / "accepted.txt").write_text("")
    monkeypatch.setattr(audit, "HERE", tmp_path)
    return tmp_path


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An advisory service that knows one hole; gives the names that it was asked about."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(query["package"]["name"])
            body = json.dumps({"vulns": [HOLE]} if asked[-1] == "leaky" else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(monkeypatch, server.server_port)
    yield asked
    server.shutdown()
    server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{port}/v1/query")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_our_locks_hold_every_floor(audit: ModuleType) -> None:
    assert audit.main(["--offline"]) == 0


def test_the_floor_of_ray_is_the_one_that_is_checked_at_start(audit: ModuleType) -> None:
    text = (ROOT / "requirements" / "floors.txt").read_text()

    assert f"\nray>={'.'.join(map(str, RAY_FLOOR))}.0 " in text


@pytest.mark.parametrize(
    ("lock", "floors", "said"),
    [
        ("ray==2.55.1", "ray>=2.56  # CVE-1: code", "cpu.txt: ray 2.55.1 is below >=2.56: CVE-1: code"),
        ("Ray[serve]==2.55.1", "ray>=2.56  # CVE-1", "cpu.txt: ray 2.55.1 is below"),
        ("py_jwt==2.13.0rc1", "py-jwt>=2.13  # CVE-1", "cpu.txt: py-jwt 2.13.0rc1 is below"),
        ("ray==2.60", "rya>=2.56  # CVE-1", "floors.txt: rya is in no lock"),
        ("ray==2.60", "ray  # CVE-1", "floors.txt: ray: give a version"),
        ("ray==2.60", "ray>=2.56", "floors.txt: ray>=2.56: give a version, and the advisory"),
    ],
)
def test_a_package_below_its_floor_is_named(
    audit: ModuleType, home: Path, capsys: pytest.CaptureFixture[str], lock: str, floors: str, said: str
) -> None:
    (home / "cpu.txt").write_text(lock + "\n")
    (home / "floors.txt").write_text(floors + "\n")

    assert audit.main(["--offline"]) == 1
    assert f"vulnerable: {said}" in capsys.readouterr().err


def test_a_known_hole_fails_the_check_and_is_asked_about_once(
    audit: ModuleType, home: Path, osv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main([]) == 1
    said = capsys.readouterr()
    assert "vulnerable: leaky 1.0: PYSEC-2026-1, CVE-2026-0001; put right in 2.0" in said.err
    assert "NOT AUDITED" not in said.err and sorted(osv) == ["fine", "leaky"]


@pytest.mark.parametrize("advisory", ["CVE-2026-0001", "pysec-2026-1"])
@pytest.mark.usefixtures("osv")
def test_a_hole_that_does_not_apply_may_be_excused_for_its_package(
    audit: ModuleType, home: Path, advisory: str
) -> None:
    (home / "accepted.txt").write_text(f"{advisory} leaky  # not called here\n")
    assert audit.main([]) == 0
    (home / "accepted.txt").write_text(f"{advisory} fine  # not called here\n")
    assert audit.main([]) == 1


def test_an_excuse_needs_its_reason(audit: ModuleType, home: Path) -> None:
    (home / "accepted.txt").write_text("CVE-2026-0001 leaky\n")

    with pytest.raises(ValueError, match="the reason behind a #"):
        audit.main([])


def test_where_no_service_answers_it_is_said_loudly_and_the_floors_still_hold(
    audit: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, free_port())

    assert audit.main([]) == 0
    assert "NOT AUDITED: no advisory service was reached" in capsys.readouterr().err
    (home / "floors.txt").write_text("fine>=2.0  # CVE-1\n")
    assert audit.main([]) == 1


def test_a_pip_audit_that_cannot_start_is_a_failure(
    audit: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "nonsense")

    assert audit.main([]) == 1
    assert "pip-audit failed" in capsys.readouterr().err
