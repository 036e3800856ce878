from __future__ import annotations

import gzip
import logging
import time
import traceback
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import BinaryIO

import pytest

from ingest.connectors.http_client import Credential, HttpClient, Patience, retry_after
from policies.errors import ConfigurationError, SourceUnavailable, TooLarge
from tests.unit.ingest.connectors.loopback_server import Answer, Asked, serving

QUICK = Patience(connect_s=2, read_s=0.4, whole_s=2, attempts=3, first_wait_s=0.01)
SECRET = "s3cret-value"


def client(patience: Patience = QUICK, requests_per_s: float = 1000, **options) -> HttpClient:
    return HttpClient(requests_per_s, patience, **options)


def failing(times: int, answer: Answer):
    left = [times]

    def route(_: Asked) -> Answer:
        left[0] -= 1
        return answer if left[0] >= 0 else Answer("at last")

    return route


# ---- retries


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_what_may_pass_is_asked_again(status: int) -> None:
    with serving() as server:
        server.routes["/"] = failing(2, Answer(status=status))
        assert client().get(server.url + "/", 100).body == b"at last"
        assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_what_will_not_pass_is_an_answer(status: int) -> None:
    with serving() as server:
        server.routes["/"] = Answer("page of an error", status=status)
        reply = client().get(server.url + "/", 100)
        assert (reply.status, reply.body, len(server.asked)) == (status, b"", 1)


def test_after_the_last_attempt_the_source_is_unavailable() -> None:
    with serving() as server:
        server.routes["/"] = Answer(status=503)
        with pytest.raises(SourceUnavailable, match="503") as caught:
            client().get(server.url + "/", 100)
        assert len(server.asked) == 3
        assert type(caught.value) is SourceUnavailable


def test_a_retry_after_in_seconds_is_waited_for() -> None:
    with serving() as server:
        server.routes["/"] = failing(1, Answer(status=429, headers={"retry-after": "1"}))
        began = time.monotonic()
        assert client().get(server.url + "/", 100).body == b"at last"
        assert 1.0 <= time.monotonic() - began < 2.0


def test_a_retry_after_that_is_a_date_is_waited_for() -> None:
    with serving() as server:
        when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        server.routes["/"] = failing(1, Answer(status=503, headers={"retry-after": when}))
        began = time.monotonic()
        assert client().get(server.url + "/", 100).body == b"at last"
        assert 0.8 <= time.monotonic() - began < 3.0


def test_a_retry_after_that_is_too_long_is_told_at_once() -> None:
    with serving() as server:
        server.routes["/"] = Answer(status=429, headers={"retry-after": "31"})
        began = time.monotonic()
        with pytest.raises(SourceUnavailable) as caught:
            client().get(server.url + "/", 100)
        assert caught.value.retry_after_s == 31
        assert (time.monotonic() - began < 0.5, len(server.asked)) == (True, 1)


def test_waiting_is_counted_over_all_attempts() -> None:
    with serving() as server:
        server.routes["/"] = Answer(status=429, headers={"retry-after": "1"})
        patience = Patience(attempts=10, first_wait_s=0.01, waiting_s=1.5)
        with pytest.raises(SourceUnavailable) as caught:
            client(patience).get(server.url + "/", 100)
        assert (len(server.asked), caught.value.retry_after_s) == (2, 1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0", 0), ("-5", 0), ("1e12", 86_400), ("nan", None), ("inf", None), ("soon", None), (None, None)]
    + [("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400), ("", None)],
)
def test_retry_after_values(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with serving() as server:
        server.routes["/"] = Answer(lambda _: time.sleep(1.0))
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="in time"):
            client(Patience(read_s=0.2, attempts=2, first_wait_s=0.01)).get(server.url + "/", 100)
        assert (time.monotonic() - began < 1.5, len(server.asked)) == (True, 2)


def test_nothing_that_listens_is_no_answer() -> None:
    with serving() as server:
        port = server.port
    with pytest.raises(SourceUnavailable, match="cannot be connected"):
        client().get(f"http://127.0.0.1:{port}/", 100)


@pytest.mark.parametrize(
    "said",
    [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort"]
    + [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n"],
)
def test_an_answer_that_breaks_off_is_none(said: bytes) -> None:
    def speak(stream: BinaryIO) -> None:
        stream.write(said)

    with serving() as server:
        server.routes["/"] = Answer(speak)
        with pytest.raises(SourceUnavailable):
            client().get(server.url + "/", 1000)
        assert len(server.asked) == 3


def test_a_server_that_drips_is_cut_at_the_deadline() -> None:
    """Each byte comes well within the read timeout: only the whole answer's deadline ends this."""

    def drip(stream: BinaryIO) -> None:
        stream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        for _ in range(200):
            stream.write(b"x")
            time.sleep(0.05)

    def drip_headers(stream: BinaryIO) -> None:
        stream.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(200):
            stream.write(b"x-%d: y\r\n" % number)
            time.sleep(0.05)

    with serving() as server:
        server.routes["/body"], server.routes["/headers"] = Answer(drip), Answer(drip_headers)
        for path in ("/body", "/headers"):
            began = time.monotonic()
            with pytest.raises(SourceUnavailable, match="in time"):
                client(Patience(read_s=5, whole_s=0.4, attempts=1)).get(server.url + path, 2_000_000)
            assert time.monotonic() - began < 1.5


# ---- bodies


def test_a_body_over_the_cap_is_refused_by_its_length_without_reading() -> None:
    with serving() as server:
        server.routes["/"] = Answer(b"x" * 101)
        with pytest.raises(TooLarge):
            client().get(server.url + "/", 100)
        assert client().get(server.url + "/", 101).body == b"x" * 101


def test_a_body_without_length_is_read_to_the_cap_and_no_further() -> None:
    sent = [0]

    def pour(stream: BinaryIO) -> None:
        stream.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        for _ in range(2_000):
            stream.write(b"x" * 65_536)
            sent[0] += 65_536

    with serving() as server:
        server.routes["/"] = Answer(pour)
        with pytest.raises(TooLarge):
            client().get(server.url + "/", 1_000_000)
        time.sleep(0.1)
        assert sent[0] < 20_000_000  # of 131 MB: the rest never left the sockets' buffers


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip"])
def test_a_bomb_is_cut(coding: str) -> None:
    import tracemalloc

    packed = bytes(20_000_000)
    packed = zlib.compress(packed) if coding == "deflate" else gzip.compress(packed, 6)
    if coding == "gzip, gzip":
        packed = gzip.compress(packed)
    with serving() as server:
        server.routes["/"] = Answer(packed, headers={"content-encoding": coding})
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge):
                client().get(server.url + "/", 1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 12_000_000
        finally:
            tracemalloc.stop()


def test_packed_text_is_unpacked() -> None:
    with serving() as server:
        server.routes["/"] = Answer(gzip.compress(b"text"), headers={"content-encoding": "gzip"})
        assert client().get(server.url + "/", 100).body == b"text"


@pytest.mark.parametrize(("coding", "body"), [("br", b"x"), ("zstd", b"x"), ("gzip", b"no gzip"), ("x", b"x")])
def test_what_cannot_be_unpacked_is_no_body(coding: str, body: bytes) -> None:
    with serving() as server:
        server.routes["/"] = Answer(body, headers={"content-encoding": coding})
        with pytest.raises(SourceUnavailable, match="packed"):
            client().get(server.url + "/", 100)


def test_a_body_that_is_not_wanted_is_not_read() -> None:
    with serving() as server:
        server.routes["/"] = Answer(b"x" * 1000, headers={"etag": '"1"'})
        reply = client().get(server.url + "/", 10, wanted=lambda status, headers: "etag" not in headers)
        assert (reply.body, reply.headers["etag"]) == (b"", '"1"')


# ---- redirects, credentials, secrets


def test_no_redirect_is_followed() -> None:
    with serving() as server:
        server.routes["/"] = Answer(status=302, headers={"location": "/elsewhere"})
        reply = client().get(server.url + "/", 100)
        assert (reply.location, server.paths()) == ("/elsewhere", ["/"])


def test_a_credential_goes_to_its_own_origin_only() -> None:
    with serving() as own, serving() as other:
        own.routes["*"] = other.routes["*"] = Answer("x")
        sender = client(credential=Credential(own.url, "authorization", f"Bearer {SECRET}"))
        sender.get(own.url + "/a", 100)
        sender.get(other.url + "/a", 100)  # same host, another port
        assert own.asked[0].headers["authorization"] == f"Bearer {SECRET}"
        assert "authorization" not in other.asked[0].headers


def test_cookies_are_not_kept() -> None:
    with serving() as server:
        server.routes["/"] = Answer("x", headers={"set-cookie": "session=1"})
        sender = client()
        sender.get(server.url + "/", 100)
        sender.get(server.url + "/", 100)
        assert "cookie" not in server.asked[1].headers


@pytest.mark.parametrize("value", [f"{SECRET}\r\nx-evil: 1", f"{SECRET}\n", "", f"{SECRET}\u20ac", f" {SECRET}"])
def test_a_secret_that_would_break_the_request_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(credential=Credential("https://a.example", "x-key", value))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_secret_is_in_errors_or_logs(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with serving() as server:
        server.routes["/"] = Answer(status=500)
        credential = Credential(server.url, "authorization", f"Bearer {SECRET}")
        assert SECRET not in repr(credential)
        with pytest.raises(SourceUnavailable) as caught:
            client(credential=credential).get(f"{server.url}/?key={SECRET}", 100)
        assert SECRET in server.asked[0].headers["authorization"]
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert str(server.port) not in caught.value.detail
        assert SECRET not in caplog.text


# ---- pace and connections


def test_requests_keep_their_pace() -> None:
    with serving() as server:
        server.routes["/"] = Answer("x")
        sender = client(requests_per_s=20)
        began = time.monotonic()
        for _ in range(5):
            sender.get(server.url + "/", 100)
        assert 0.2 <= time.monotonic() - began < 1.0


def test_a_connection_is_used_again_also_after_small_errors() -> None:
    with serving() as server:
        server.routes["/"] = Answer("x")
        server.routes["/same"] = Answer(status=304)
        sender = client()
        for path in ("/", "/missing", "/same", "/"):
            sender.get(server.url + path, 100)
        assert server.connections == 1
        sender.close()
        assert sender.get(server.url + "/", 100).body == b"x"
        assert server.connections == 2
