"""The command line: one sentence on stderr and exit code 1 for what is expected to go wrong, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli import main

ROOT = Path(__file__).resolve().parents[3]
CONFIG = str(ROOT / "serve_config.yaml")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rayrag", *words])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYRAG_DATA_DIR", raising=False)
    monkeypatch.delenv("RAYRAG_TOKEN", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["up", "--config", "absent.yaml"], "absent.yaml: No such file or directory"),
        (["token", "--sub", "a", "--tenant", "t", "--config", "absent.yaml"], "absent.yaml: No such file"),
        (["token", "--sub", "a", "--tenant", "t", "--ttl", "0", "--config", CONFIG], "between 1 and 86400 seconds"),
        (["ingest", "documents", "--tenant", "t"], "start it with rayrag up"),
        (["ingest", "documents", "--tenant", "t", "--no-wait", "--report", "r.json"], "leave out --no-wait"),
        (["ask", "why?"], "give --token, or RAYRAG_TOKEN="),
        (["ask", "why?", "--token", "x"], "start it with rayrag up"),
        (["ask", "why?", "--token", "x", "--url", "http://127.0.0.1:9"], "does not answer"),
        (["audit", "verify", "--export", "absent.jsonl"], "absent.jsonl: No such file or directory"),
        (["render", "kuberay", "--config", "absent.yaml"], "absent.yaml: No such file"),
        (["render", "kuberay", "--config", CONFIG], "give 0.0.0.0"),
    ],
)
def test_an_expected_error_is_one_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 1

    output = capsys.readouterr()
    assert sentence in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert output.out == ""


def test_a_token_speaks_for_whom_it_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    import jwt

    words = ["--sub", "ada", "--tenant", "acme", "--roles", "user, auditor", "--groups", "g", "--ttl", "60"]
    assert run(monkeypatch, "token", *words, "--config", CONFIG, "--data-dir", "data") == 0

    claims = jwt.decode(capsys.readouterr().out.strip(), options={"verify_signature": False})
    assert (claims["sub"], claims["tenant"], claims["roles"], claims["groups"]) == (
        "ada", "acme", ["auditor", "user"], ["g"],
    )  # fmt: skip
    assert (elsewhere / "data" / "secrets" / "issuer.pem").stat().st_mode & 0o777 == 0o600


def test_no_token_where_only_others_issue_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = str(ROOT / "serve_config.gpu.yaml")
    assert run(monkeypatch, "token", "--sub", "a", "--tenant", "t", "--config", gpu, "--data-dir", "d") == 1

    assert "trusts only external issuers" in capsys.readouterr().err


def test_the_data_directory_is_the_options_then_the_environments_then_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    def where(*words: str) -> str:
        assert run(monkeypatch, "status", "--json", *words) == 1
        return str(json.loads(capsys.readouterr().out)["data_dir"])

    assert where() == str(elsewhere / ".rayrag")
    document: dict[str, Any] = yaml.safe_load(Path(CONFIG).read_text(encoding="utf-8"))
    document["applications"][0]["args"]["data_dir"] = str(elsewhere / "file")
    (elsewhere / "serve_config.yaml").write_text(yaml.safe_dump(document))
    assert where() == str(elsewhere / "file")
    monkeypatch.setenv("RAYRAG_DATA_DIR", str(elsewhere / "environment"))
    assert where() == str(elsewhere / "environment")
    assert where("--data-dir", "option") == str(elsewhere / "option")


def test_down_where_nothing_runs_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "down") == 0
    assert "nothing runs" in capsys.readouterr().out


def three_records(elsewhere: Path) -> list[str]:
    """Write a record of three lines, and give the options that name its place."""
    from policies.audit import AuditLog
    from policies.audit_chain import AuditIntent

    log = AuditLog(f"sqlite:///{elsewhere}/data/audit.sqlite")
    for number in range(3):
        log.intent(AuditIntent(str(number), "ada", "acme", "query", "1"))
    log.close()
    return ["--config", CONFIG, "--data-dir", str(elsewhere / "data")]


def test_audit_verify_names_the_first_bad_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    where = three_records(elsewhere)

    assert run(monkeypatch, "audit", "verify", *where) == 0
    assert run(monkeypatch, "audit", "export", "record.jsonl", *where) == 0
    assert run(monkeypatch, "audit", "verify", "--export", "record.jsonl") == 0
    record = Path("record.jsonl")
    lines = record.read_text().splitlines(keepends=True)
    record.write_text(lines[0] + lines[1].replace("ada", "eve") + lines[2])
    capsys.readouterr()
    assert run(monkeypatch, "audit", "verify", "--export", "record.jsonl") == 1
    assert "Record 2 is the first bad one" in capsys.readouterr().err


def test_an_exported_record_is_signed_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    where = three_records(elsewhere)
    assert run(monkeypatch, "audit", "export", "record.jsonl", *where) == 0
    capsys.readouterr()
    assert run(monkeypatch, "audit", "key", *where) == 0
    Path("key.pem").write_text(capsys.readouterr().out)
    assert run(monkeypatch, "audit", "key", "--config", CONFIG, "--data-dir", str(elsewhere / "another")) == 0
    Path("other.pem").write_text(capsys.readouterr().out)

    signed = ("audit", "verify", "--export", "record.jsonl", "--key")
    assert run(monkeypatch, *signed, "key.pem") == 0
    assert "signed to the end" in capsys.readouterr().out
    assert run(monkeypatch, *signed, "other.pem") == 1
    record = Path("record.jsonl")
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:2]))  # the end is gone, signature and all
    assert run(monkeypatch, *signed, "key.pem") == 1
    assert "no signed checkpoint covers it" in capsys.readouterr().err


def test_an_export_is_compared_with_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    from policies.audit import AuditLog
    from policies.audit_chain import AuditIntent

    for name, count in (("first", 3), ("another", 5)):
        log = AuditLog(f"sqlite:///{elsewhere}/{name}/audit.sqlite")
        for number in range(count):
            log.intent(AuditIntent(str(number), "ada", "acme", "query", "1"))
        log.close()
        where = ["--config", CONFIG, "--data-dir", str(elsewhere / name)]
        assert run(monkeypatch, "audit", "export", f"{name}.jsonl", *where) == 0

    compare = ("audit", "verify", "--export", "another.jsonl", "--since")
    assert run(monkeypatch, *compare, "another.jsonl") == 0
    assert run(monkeypatch, *compare, "first.jsonl") == 1
    assert "Record 1 is the first bad one: not as it is in the earlier export" in capsys.readouterr().err
    assert run(monkeypatch, "audit", "verify", "--since", "first.jsonl") == 1
    assert "give the later one with --export" in capsys.readouterr().err


HOSTILE = "\x1b]0;owned\x07\x1b[2Jfine\r\x9b31m \u202etext\u2066\ud800"


@pytest.fixture
def hostile_service() -> Iterator[str]:
    """A service whose documents carry what a terminal would obey."""
    citation = {"n": 1, "title": f"{HOSTILE}\nline", "uri": HOSTILE, "page": None}
    answer = {"answer": f"{HOSTILE}\n\ttwo [1]", "citations": [citation], "degraded": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(422 if asked["question"] == "refuse" else 200)
            self.end_headers()
            if asked["question"] == "refuse":
                self.wfile.write(json.dumps({"detail": HOSTILE}).encode())
            elif asked.get("stream"):
                token = json.dumps({"text": answer["answer"]})
                done = json.dumps(answer)
                self.wfile.write(f"event: token\ndata: {token}\n\nevent: done\ndata: {done}\n\n".encode())
            else:
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("options", [[], ["--stream"], ["--json"]], ids=["whole", "streamed", "json"])
def test_what_documents_say_is_shown_and_not_obeyed(
    options: list[str], hostile_service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "ask", "why?", "--token", "x", "--url", hostile_service, *options) == 0

    out = capsys.readouterr().out
    assert not [letter for letter in out if letter not in "\n\t" and not letter.isprintable()], ascii(out)
    if options == ["--json"]:
        assert json.loads(out)["citations"][0]["uri"] == HOSTILE
    else:
        assert out == "]0;owned[2Jfine31m text\n\ttwo [1]\n" + "[1] ]0;owned[2Jfine 31m text line: " + (
            "]0;owned[2Jfine31m text\n"
        )


def test_a_services_refusal_is_shown_and_not_obeyed(
    hostile_service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "ask", "refuse", "--token", "x", "--url", hostile_service) == 1
    assert capsys.readouterr().err == "]0;owned[2Jfine31m text\n"


def test_no_dead_letters_is_an_empty_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    (elsewhere / "data").mkdir()
    where = ["--config", CONFIG, "--data-dir", str(elsewhere / "data")]

    assert run(monkeypatch, "dead-letters", "list", "--json", *where) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_command_line_starts_without_ray_and_without_models() -> None:
    code = "import sys, cluster.cli; print([m for m in ('ray', 'torch', 'pymilvus', 'pandas') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)

    assert done.stdout.strip() == "[]"
