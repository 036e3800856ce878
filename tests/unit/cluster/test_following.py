"""What the terminal shows of a job, of an answer and of a deployment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.dashboard import ApplicationStatus, DeploymentStatus, failure, last_line
from cluster.jobs import Progress, entrypoint, read_progress, source_uri
from cluster.milvus import local_port, remove_indexes
from cluster.questions import Event, ask, ask_streaming, events
from cluster.ray_head import MAX_TEMP_CHARS, temp_directory
from index.settings import StoreSettings
from policies.errors import Forbidden, InvalidRequest, RayragError, Unauthenticated, Unavailable

TRACEBACK = """ray::Embedding.__init__() (pid=1)
  File "embedding.py", line 3, in load
policies.errors.ConfigurationError: embedding.model: no such directory
"""


def test_progress_is_what_the_ingestion_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from ingest.__main__ import ProgressLines
    from ingest.report import Report

    ProgressLines()(Report(discovered=9, indexed=4, unchanged=2, quarantined=1, chunks=20, seconds=1.25))

    assert read_progress(capsys.readouterr().out) == Progress(7, 9, 20, 1.2)
    assert read_progress("something else") is None


def test_words_of_a_job_stay_words() -> None:
    line = entrypoint(Path("/data dir/serve_config.yaml"), "/my documents; rm -rf x", "t", '{"allow": ["everyone"]}')

    assert "'/my documents; rm -rf x'" in line
    assert "'/data dir/serve_config.yaml'" in line


def test_a_relative_source_becomes_absolute_and_an_address_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "documents").mkdir()
    monkeypatch.chdir(tmp_path)

    assert source_uri("documents") == str(tmp_path / "documents")
    assert source_uri("s3://bucket/a") == "s3://bucket/a"
    with pytest.raises(InvalidRequest, match="does not exist"):
        source_uri("absent")


def test_events_are_read_as_the_standard_says() -> None:
    lines = ["event: token", 'data: {"text": "a"}', "", ": comment", "data: one", "data: two", "", "event: done", ""]

    assert list(events(lines)) == [Event("token", {"text": "a"}), Event("message", "one\ntwo")]


@pytest.fixture
def service() -> Iterator[tuple[str, dict[str, tuple[int, str]]]]:
    replies: dict[str, tuple[int, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, body = replies["next"]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", replies
    server.shutdown()
    server.server_close()
    thread.join()


STREAM = (
    'event: token\ndata: {"text": "Forty"}\n\nevent: token\ndata: {"text": "-two"}\n\n'
    'event: citations\ndata: {"citations": [{"n": 1}]}\n\n'
)


def test_a_stream_gives_text_as_it_comes_and_the_whole_at_the_end(
    service: tuple[str, dict[str, tuple[int, str]]],
) -> None:
    url, replies = service
    replies["next"] = (200, STREAM + 'event: done\ndata: {"answer": "Forty-two", "citations": [{"n": 1}]}\n\n')
    heard: list[str] = []

    answer = ask_streaming(url, "t", "q", 8, heard.append)

    assert heard == ["Forty", "-two"]
    assert answer == {"answer": "Forty-two", "citations": [{"n": 1}]}


@pytest.mark.parametrize(
    ("end", "sentence"),
    [("", "cut off"), ('event: error\ndata: {"detail": "The model is down."}\n\n', "The model is down.")],
)
def test_a_stream_without_a_good_end_is_an_error(
    end: str, sentence: str, service: tuple[str, dict[str, tuple[int, str]]]
) -> None:
    url, replies = service
    replies["next"] = (200, STREAM + end)

    with pytest.raises(Unavailable, match=sentence):
        ask_streaming(url, "t", "q", 8, lambda _: None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, Unauthenticated), (403, Forbidden), (422, InvalidRequest), (503, Unavailable)],
)
def test_a_refusal_keeps_its_meaning_and_its_words(
    status: int, expected: type[RayragError], service: tuple[str, dict[str, tuple[int, str]]]
) -> None:
    url, replies = service
    replies["next"] = (status, '{"detail": "Not today."}')

    with pytest.raises(expected, match=r"Not today\."):
        ask(url, "t", "q", 8)


def test_a_failed_deployment_speaks_for_itself() -> None:
    deployments = (
        DeploymentStatus("Ingress", "HEALTHY", 1, 1, ""),
        DeploymentStatus("Embedding", "DEPLOY_FAILED", 0, 1, TRACEBACK),
    )
    status = ApplicationStatus("rayrag", "DEPLOY_FAILED", "Failed to update the deployments.", deployments)

    sentence = "policies.errors.ConfigurationError: embedding.model: no such directory"
    assert status.failed
    assert failure(status) == f"Embedding did not start: {sentence}"
    assert last_line("") == "no reason was given"


@pytest.mark.parametrize(
    ("uri", "port"),
    [
        ("http://127.0.0.1:19999", 19999),
        ("http://localhost", 19530),
        ("http://milvus:19530", None),
        ("https://127.0.0.1:1", None),
    ],
)
def test_only_a_store_on_loopback_is_started(uri: str, port: int | None) -> None:
    assert local_port(StoreSettings(uri=uri)) == port


def test_only_index_files_are_removed(tmp_path: Path) -> None:
    for name in ("a/indexes/1.idx", "a/data/1.idx", "a/indexes/1.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert remove_indexes(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["1.idx", "1.parquet"]


@pytest.mark.parametrize("name", ["with space", "l" * 60])
def test_rays_directory_is_short_and_has_no_space_whatever_the_data_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    found = temp_directory(tmp_path / name)

    assert len(str(found)) <= MAX_TEMP_CHARS
    assert " " not in str(found)
    assert found.parent.stat().st_mode & 0o777 == 0o700
    found.rmdir()
    found.parent.rmdir()
