"""The store's connector: S3 as moto's server speaks it over HTTP, and other file systems through fsspec."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import botocore.session
import fsspec
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from ingest.connector import Entry, Gone, Mark, Unreadable
from ingest.connectors import store_tree
from ingest.connectors.store import StoreConnector, StoreSettings
from ingest.connectors.store_asking import Asking
from ingest.connectors.store_rights import tagged_rule, with_tags
from policies.access import NOBODY, AccessRule
from policies.errors import (
    ConfigurationError,
    DocumentRejected,
    RayragError,
    RightsUnreadable,
    SourceUnavailable,
    TooLarge,
)

ALL, HR = AccessRule.of(["group:all"]), AccessRule.of(["group:hr"])
HANGS, SHORT = -1, -2
HR_RULES = "- {path: 'hr/**', allow: ['group:hr']}"


class S3:
    """A bucket behind a real socket."""

    def __init__(self, client: Any, endpoint: str, bucket: str) -> None:
        self.client, self.endpoint, self.bucket = client, endpoint, bucket

    def put(self, key: str, body: bytes | str = b"hello", tags: str = "") -> None:
        body = body.encode() if isinstance(body, str) else body
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body, Tagging=tags)

    def put_odd(self, key: str) -> None:
        """Put a key that a client would tidy up on its way."""
        s3_backends["123456789012"]["aws"].put_object(self.bucket, key, b"odd")

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def tag(self, key: str, **tags: str) -> None:
        tag_set = [{"Key": name, "Value": value} for name, value in tags.items()]
        self.client.put_object_tagging(Bucket=self.bucket, Key=key, Tagging={"TagSet": tag_set})

    def connector(self, folder: str = "docs", **more: Any) -> StoreConnector:
        return store(f"s3://{self.bucket}/{folder}", self.endpoint, **more)


def store(uri: str, endpoint: str | None = None, **more: Any) -> StoreConnector:
    options = {"endpoint_url": endpoint, "key_env": "STORE_KEY", "secret_env": "STORE_SECRET"} if endpoint else {}
    values = {"kind": "store", "name": "docs", "tenant": "acme", "acl": ["group:all"], "uri": uri, "options": options}
    return StoreConnector(StoreSettings.model_validate(values | {"requests_per_s": 100_000} | more))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE_KEY", "STORE_SECRET"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def client(endpoint: str) -> Iterator[Any]:
    client = botocore.session.get_session().create_client(
        "s3", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="testing", aws_secret_access_key="x"
    )
    yield client
    client.close()


@pytest.fixture
def s3(client: Any, endpoint: str) -> S3:
    bucket = f"b{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    return S3(client, endpoint, bucket)


def listed(source: StoreConnector) -> dict[str, Entry]:
    *items, mark = source.list(None)
    assert mark == Mark(None, complete=True)
    found = [item for item in items if isinstance(item, Entry)]
    assert len({entry.ref.external_id for entry in found}) == len(items)
    return {entry.ref.external_id: entry for entry in found}


def rules(source: StoreConnector) -> dict[str, AccessRule]:
    return {name: entry.ref.rule for name, entry in listed(source).items()}


def row(external_id: str) -> str:
    return json.dumps({"id": external_id, "text": f"text of {external_id}"}) + "\n"


def entries(items: Sequence[Entry | Gone]) -> dict[str, Entry]:
    return {item.ref.external_id: item for item in items if isinstance(item, Entry)}


# ---- listing


def test_bucket_is_listed_in_order_with_its_rules(s3: S3) -> None:
    for key in ("docs/z.md", "docs/hr/pay.md", "docs/a b/ä.md", "other/no.md", "docs/.hidden/x.md"):
        s3.put(key)
    s3.put("docs/", "")
    s3.put("docs/hr/", "")
    s3.put("docs/acl.yaml", HR_RULES)
    s3.put("docs/rows.jsonl", row("1") + row("2"))
    found = listed(s3.connector())
    assert list(found) == ["a b/ä.md", "hr/pay.md", "rows.jsonl#1", "rows.jsonl#2", "z.md"]
    assert found["hr/pay.md"].ref.rule == HR
    assert found["z.md"].ref.rule == found["rows.jsonl#1"].ref.rule == ALL
    assert found["a b/ä.md"].ref.uri == f"s3://{s3.bucket}/docs/a b/ä.md"
    assert found["z.md"].ref.size_bytes == 5
    assert abs((found["z.md"].changed_at or 0) - time.time()) < 3600
    assert s3.connector().fetch(found["a b/ä.md"], 100) == b"hello"


def test_bucket_is_listed_by_pages_and_not_by_folders(s3: S3, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.connectors.store_tree.PAGE", 5)
    for number in range(12):
        s3.put(f"docs/{number}/a.md")
    assert len(listed(behind(s3, faults))) == 12
    assert len(faults.asked) == 3


def test_edit_is_a_new_version_and_the_same_bytes_are_not(s3: S3) -> None:
    s3.put("docs/a.md", "one")
    first = listed(s3.connector())["a.md"].ref.fingerprint
    s3.put("docs/a.md", "one")
    assert listed(s3.connector())["a.md"].ref.fingerprint == first
    s3.put("docs/a.md", "two")
    assert listed(s3.connector())["a.md"].ref.fingerprint != first


def test_last_object_deleted_leaves_an_empty_folder_and_a_missing_bucket_does_not(s3: S3) -> None:
    s3.put("docs/a.md")
    assert list(listed(s3.connector())) == ["a.md"]
    s3.delete("docs/a.md")
    assert listed(s3.connector()) == {}
    with pytest.raises(SourceUnavailable, match="no such bucket"):
        listed(store("s3://nowhere/docs", s3.endpoint))


def test_one_object_is_a_source_and_so_is_one_file_of_rows(s3: S3) -> None:
    s3.put("docs/a.md")
    s3.put("docs/rows.jsonl", row("1") + row("2"))
    one = listed(s3.connector("docs/a.md"))
    assert one["a.md"].ref.uri == f"s3://{s3.bucket}/docs/a.md"
    assert s3.connector("docs/a.md").fetch(one["a.md"], 10) == b"hello"
    assert list(listed(s3.connector("docs/rows.jsonl"))) == ["1", "2"]
    assert list(entries(list(s3.connector("docs/rows.jsonl").look(["rows.jsonl"])))) == ["1", "2"]
    assert list(s3.connector("docs/rows.jsonl").look(["3"])) == [Gone("3")]


@pytest.mark.parametrize("key", ["public/../secret/pay.md", "public//pay.md", "/pay.md", "./pay.md", "public/.."])
def test_key_that_is_no_path_is_an_error_and_nobodys(s3: S3, key: str) -> None:
    """A client may tidy such a key on its way, and read another object than the one that was listed."""
    s3.put("docs/secret/pay.md", "secret")
    s3.put("docs/acl.yaml", "- {path: '**', allow: [everyone]}\n- {path: 'secret/**', allow: ['group:hr']}")
    s3.put_odd(f"docs/{key}")
    found = listed(s3.connector())
    entry = found.pop(key, None)
    assert list(found) == ["secret/pay.md"]
    assert (entry is None) == ("." in key.removesuffix(".md"))  # left out as hidden
    if entry is not None:
        assert entry.error == "its key is no path of names between slashes"
        assert (entry.location, entry.ref.rule) == (None, NOBODY)
    assert list(s3.connector().look([key])) == [Gone(key)]


def test_key_that_looks_like_a_version_of_another_is_read_itself(s3: S3) -> None:
    s3.put("docs/a", "secret")
    s3.put("docs/a?versionId=1.md", "mine")
    s3.put("docs/a?versionId=1.jsonl", row("mine"))
    source = s3.connector()
    found = listed(source)
    assert source.fetch(found["a?versionId=1.md"], 100) == b"mine"
    assert found["a?versionId=1.jsonl#mine"].error is None


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        ("docs/hr/acl.yaml", "- {path: a, alow: []}", r"^hr/acl\.yaml: entry 1"),
        ("docs/hr/acl.yml", "[]", r"^hr/acl\.yml: access rules must be"),
        ("docs/ACL.yaml", "[]", r"^ACL\.yaml: access rules must be"),
        ("docs/acl.yaml", "#" * 1_000_001, r"^acl\.yaml: larger than 1000000 bytes"),
        ("docs/acl.yaml/x.md", "x", r"^acl\.yaml: no regular file"),
    ],
)
def test_what_lies_under_rules_that_cannot_be_read_is_not_named(s3: S3, key: str, body: str, reason: str) -> None:
    s3.put("docs/hr/a.md")
    s3.put(key, body)
    if key.startswith("docs/hr/"):
        [unreadable, _] = s3.connector().list(None)
        assert isinstance(unreadable, Unreadable) and re.match(reason, unreadable.reason)
        return
    with pytest.raises(ConfigurationError, match=reason):
        listed(s3.connector())


# ---- looking


def test_look_names_what_a_listing_names(s3: S3) -> None:
    for key in ("docs/hr/deep/pay.md", "docs/z.md", "docs/C/a.md", "docs/C#.md", "docs/C#/b.md"):
        s3.put(key)
    s3.put("docs/acl.yaml", HR_RULES)
    s3.put("docs/hr/deep/acl.yaml", "- {path: 'pay.md', allow: ['user:ada']}")
    s3.put("docs/rows.jsonl", row("1") + row("2"))
    source = s3.connector()
    known = listed(source)
    for external_id, entry in known.items():
        assert list(source.look([external_id])) == [entry]
    folder = list(source.look(["hr"]))
    assert folder == [Gone("hr", below=True), known["hr/deep/pay.md"]]
    assert list(source.look(["rows.jsonl"])) == [
        Gone("rows.jsonl", below=True),
        known["rows.jsonl#1"],
        known["rows.jsonl#2"],
    ]
    assert set(entries(list(source.look(["C"])))) == {"C/a.md", "C#.md", "C#/b.md"}
    assert list(source.look(["rows.jsonl#9"])) == [Gone("rows.jsonl#9")]
    assert list(source.look(["none.md"])) == [Gone("none.md", below=True)]


@pytest.mark.parametrize(
    "hostile",
    ["../x.md", "/x.md", "a\x00", "", ".hidden/x.md", "acl.yaml", "x" * 1100, "\u202ex", "a/" * 600, "\ud800"],
)
def test_id_that_no_listing_names_is_gone(s3: S3, hostile: str) -> None:
    for key in ("docs/.hidden/x.md", "x.md", "docs/acl.yaml"):
        s3.put(key, "[]")
    items = list(s3.connector().look([hostile]))
    assert [item.external_id for item in items if isinstance(item, Gone)] == [hostile]
    assert not entries(items)


# ---- fetching


def test_fetch_reads_no_more_than_its_limit(s3: S3) -> None:
    s3.put("docs/a.md", "12345")
    s3.put("docs/empty.md", "")
    source = s3.connector()
    found = listed(source)
    assert source.fetch(found["a.md"], 5) == b"12345"
    assert source.fetch(found["empty.md"], 5) == b""
    with pytest.raises(TooLarge, match="larger than"):
        source.fetch(found["a.md"], 4)
    s3.delete("docs/a.md")
    with pytest.raises(DocumentRejected, match="deleted"):
        source.fetch(found["a.md"], 5)


def test_an_object_that_changed_since_it_was_listed_is_not_read_under_its_old_rule(s3: S3, tmp_path: Path) -> None:
    s3.put("docs/a.md", "12345")
    memory = fsspec.filesystem("memory")
    memory.pipe("/changing/a.md", b"12345")
    for source in (s3.connector(), store("memory://changing")):
        entry = listed(source)["a.md"]
        stamped = replace(entry, ref=replace(entry.ref, fingerprint=f"{entry.ref.fingerprint}|1.1"))
        assert source.fetch(entry, 5) == source.fetch(stamped, 5) == b"12345"
        s3.put("docs/a.md", "54321")
        memory.pipe("/changing/a.md", b"54321")
        for each in (entry, stamped):
            with pytest.raises(SourceUnavailable, match="changed while it was read"):
                source.fetch(each, 5)
        s3.put("docs/a.md", "12345")
        memory.pipe("/changing/a.md", b"12345")
    memory.rm("/changing", recursive=True)


def test_a_store_that_says_less_in_a_listing_than_of_a_file_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/vague/a.md", b"12345")
    told = type(memory).info
    tags = iter("11")
    monkeypatch.setattr(type(memory), "info", lambda self, path, **more: told(self, path) | {"etag": next(tags, "")})
    tree = store_tree.AnyTree(memory, "/vague", Asking("docs", 1_000))
    [stored] = tree.under("")
    assert tree.read("/vague/a.md", 5, stored.version.__eq__) == b"12345"
    tags = iter("34")
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        tree.read("/vague/a.md", 5, stored.version.__eq__)
    memory.rm("/vague", recursive=True)


def test_a_body_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dripping:
        async def read(self, size: int) -> bytes:
            await asyncio.sleep(0.05)
            return b"x"

        def close(self) -> None: ...

    monkeypatch.setattr(store_tree, "WHOLE_S", 0.3)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(store_tree._up_to(Dripping(), 0, 1_000), 5))
    system = fsspec.filesystem("s3", anon=True, asynchronous=False)
    with io.BufferedReader(store_tree._Body(system, Dripping()), 64) as stream, pytest.raises(TimeoutError):
        stream.read(1_000)


# ---- tags


def test_tag_names_the_readers_and_a_change_of_it_is_no_change_of_content(s3: S3) -> None:
    s3.put("docs/a.md", tags="readers=group:hr user:ada@acme.com")
    s3.put("docs/b.md", tags="readers=everyone hr")
    s3.put("docs/c.md", tags="other=everyone")
    s3.put("docs/ruled/d.md", tags="readers=everyone")
    s3.put("docs/rows.jsonl", row("1"), tags="readers=group:hr")
    s3.put("docs/acl.yaml", "- {path: 'ruled/**', allow: ['group:hr']}")
    source = s3.connector(acl_tag="readers", concurrency=3)
    assert rules(source) == {
        "a.md": AccessRule.of(["group:hr", "user:ada@acme.com"]),
        "b.md": NOBODY,
        "c.md": ALL,
        "rows.jsonl#1": HR,
        "ruled/d.md": HR,
    }
    before = listed(source)["c.md"]
    s3.tag("docs/c.md", readers="group:hr")
    after = listed(source)["c.md"]
    assert (after.ref.fingerprint, after.ref.rule) == (before.ref.fingerprint, HR)
    assert list(source.look(["c.md"])) == [after]
    assert rules(s3.connector()) == dict.fromkeys(["a.md", "b.md", "c.md", "rows.jsonl#1"], ALL) | {"ruled/d.md": HR}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("group:a user:b", AccessRule.of(["group:a", "user:b"])),
        ("  everyone ", AccessRule.of(["everyone"])),
        ("", NOBODY),
        ("finance", NOBODY),
        ("everyone finance", NOBODY),
        ("group:", NOBODY),
        ("group:a,group:b", AccessRule.of(["group:a,group:b"])),
        ("user:\u202eada", NOBODY),
        (None, None),
    ],
)
def test_malformed_tag_permits_nobody(value: str | None, rule: AccessRule | None) -> None:
    assert tagged_rule({} if value is None else {"readers": value}, "readers") == rule


def test_tags_are_asked_for_several_at_a_time_and_given_in_order() -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def fetch(number: int) -> dict[str, str]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.005)
        with lock:
            at_once -= 1
        return {"n": str(number)}

    found = list(with_tags(iter(range(100)), fetch, 4))
    assert found == [(number, {"n": str(number)}) for number in range(100)]
    assert 2 <= most <= 4


def test_calls_keep_to_their_pace() -> None:
    ask = Asking("docs", 50)
    began = time.monotonic()
    for _ in range(60):
        ask(lambda: None)
    assert 0.15 < time.monotonic() - began < 2


# ---- a store that errs


@dataclass
class Faults:
    """What a small server in front of moto answers instead, by method and path; each once."""

    endpoint: str = ""
    answers: list[tuple[str, int, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def add(self, part: str, status: int, code: str = "", times: int = 1, **headers: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>secret-host</Message></Error>".encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers += [(part, status, sent, body)] * times


@pytest.fixture
def faults(proxy: Faults) -> Faults:
    proxy.answers.clear()
    proxy.asked.clear()
    return proxy


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to `endpoint`, but for those that `state` has an answer for."""

    protocol_version = "HTTP/1.1"
    state: Faults
    endpoint: str

    def do_GET(self) -> None:
        target = unquote(self.path)
        self.state.asked.append(f"{self.command} {target}")
        fault = next((fault for fault in self.state.answers if fault[0] in target), None)
        if fault is not None:
            self.state.answers.remove(fault)
            self.fail(*fault[1:])
            return
        request = Request(self.endpoint + self.path, method=self.command, headers=dict(self.headers.items()))
        with urlopen(request) as response:
            self.send(response.status, dict(response.headers.items()), response.read())

    do_HEAD = do_GET

    def fail(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if status > 0:
            self.send(status, headers, body)
            return
        if status == HANGS:
            time.sleep(0.6)
        if status == SHORT:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + 6))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = True

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def proxy(endpoint: str) -> Iterator[Faults]:
    state = Faults()
    handler = type("Handler", (Proxy,), {"state": state, "endpoint": endpoint})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def behind(s3: S3, faults: Faults, **more: Any) -> StoreConnector:
    return store(f"s3://{s3.bucket}/docs/", faults.endpoint, **more)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooMany"), (0, "")])
def test_what_passes_is_tried_again(s3: S3, faults: Faults, status: int, code: str) -> None:
    s3.put("docs/a.md")
    faults.add("list-type=2", status, code)
    source = behind(s3, faults)
    [entry] = listed(source).values()
    faults.add("a.md", status, code)
    assert source.fetch(entry, 10) == b"hello"
    assert not faults.answers


def test_retry_after_is_waited_for_or_passed_on(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md")
    faults.add("list-type=2", 503, "SlowDown", retry_after="1")
    began = time.monotonic()
    listed(behind(s3, faults))
    assert time.monotonic() - began >= 1
    faults.add("list-type=2", 503, "SlowDown", retry_after="120")
    began = time.monotonic()
    with pytest.raises(SourceUnavailable) as caught:
        listed(behind(s3, faults))
    assert caught.value.retry_after_s == 120
    assert time.monotonic() - began < 5


def test_store_that_keeps_failing_is_unavailable_after_a_few_tries(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md")
    faults.add("list-type=2", 500, "InternalError", times=50)
    with pytest.raises(SourceUnavailable, match=r"^docs: cannot be reached: InternalError$") as caught:
        listed(behind(s3, faults))
    assert len(faults.asked) == 3
    assert "secret-host" not in caught.value.detail


def test_second_page_that_fails_ends_the_listing_without_a_mark(
    s3: S3, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.connectors.store_tree.PAGE", 1)
    for name in ("a", "b"):
        s3.put(f"docs/{name}.md")
    faults.add("continuation-token", 500, "InternalError", times=50)
    with pytest.raises(SourceUnavailable):
        list(behind(s3, faults).list(None))


@pytest.mark.parametrize(
    ("part", "status", "code", "error"),
    [
        ("list-type=2", 403, "AccessDenied", ConfigurationError),
        ("list-type=2", 403, "InvalidAccessKeyId", ConfigurationError),
        ("list-type=2", 403, "SignatureDoesNotMatch", ConfigurationError),
        ("tagging", 403, "AccessDenied", RightsUnreadable),
        ("acl.yaml", 403, "AccessDenied", RightsUnreadable),
        ("rows.jsonl", 403, "AccessDenied", ConfigurationError),
    ],
)
def test_credentials_that_do_not_suffice_are_an_operators_matter(
    s3: S3, faults: Faults, part: str, status: int, code: str, error: type[RayragError]
) -> None:
    s3.put("docs/rows.jsonl", row("1"))
    s3.put("docs/acl.yaml", "[]")
    faults.add(part, status, code, times=9)
    with pytest.raises(error) as caught:
        listed(behind(s3, faults, acl_tag="readers"))
    assert "secret-host" not in caught.value.detail


def test_folder_whose_acl_file_is_wrong_is_named(s3: S3) -> None:
    s3.put("docs/hr/a.md")
    s3.put("docs/hr/acl.yaml", "- {path: a.md, alow: []}")
    with pytest.raises(RightsUnreadable, match="entry 1") as caught:
        list(s3.connector().look(["hr/a.md"]))
    assert caught.value.below == "hr/"
    [unreadable, mark] = s3.connector().list(None)
    assert isinstance(unreadable, Unreadable) and isinstance(mark, Mark)
    assert unreadable.below == "hr/" and "entry 1" in unreadable.reason


def test_folders_whose_acl_files_are_wrong_hold_up_no_others(s3: S3) -> None:
    for path in ("a/x.md", "b/x.md", "b/deep/x.md", "c/x.md", "d/e/A.md", "d/e/x.md", "f/x.md", "z.md"):
        s3.put(f"docs/{path}")
    s3.put("docs/b/acl.yaml", "oops")
    s3.put("docs/d/e/ACL.yaml", "[]")
    s3.put("docs/f/acl.yaml/x.md", "x")
    items = list(s3.connector().list(None))
    named = [item.ref.external_id for item in items if isinstance(item, Entry)]
    assert named == ["a/x.md", "c/x.md", "z.md"]
    assert sorted(item.below for item in items if isinstance(item, Unreadable)) == ["b/", "d/e/", "f/"]
    assert items[-1] == Mark(None, complete=True)
    s3.put("docs/acl.yaml", "oops")
    with pytest.raises(RightsUnreadable) as caught:
        list(s3.connector().list(None))
    assert caught.value.below == ""


def test_object_that_may_not_be_read_is_rejected(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md")
    source = behind(s3, faults)
    [entry] = listed(source).values()
    for code, reason in (("AccessDenied", "no permission"), ("InvalidObjectState", "archived")):
        faults.add("a.md", 403, code)
        with pytest.raises(DocumentRejected, match=reason):
            source.fetch(entry, 10)
    faults.add("a.md", 403, "ExpiredToken")
    with pytest.raises(ConfigurationError):
        source.fetch(entry, 10)


def test_answer_that_is_no_xml_is_no_empty_listing(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md")
    faults.answers += [("list-type=2", 200, {}, b"<html>log in")] * 9
    with pytest.raises(SourceUnavailable):
        listed(behind(s3, faults))


def test_object_that_goes_between_listing_and_tags_is_left_out(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md")
    s3.put("docs/b.md")
    faults.add("a.md?tagging", 404, "NoSuchKey")
    assert list(listed(behind(s3, faults, acl_tag="readers"))) == ["b.md"]


def test_store_that_hangs_is_unavailable(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md")
    faults.add("list-type=2", HANGS, times=3)
    options = {"endpoint_url": faults.endpoint, "key_env": "STORE_KEY", "secret_env": "STORE_SECRET"}
    with pytest.raises(SourceUnavailable, match="Timeout"):
        listed(behind(s3, faults, options=options | {"config_kwargs": {"read_timeout": 0.2}}))


def test_body_that_breaks_off_is_read_again_and_never_taken_for_the_whole(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md", "hello world")
    s3.put("docs/rows.jsonl", row("1") + row("2"))
    source = behind(s3, faults)
    entry = listed(source)["a.md"]
    etag = entry.ref.fingerprint.partition("-")[2]
    faults.answers.append(("a.md", SHORT, {"ETag": f'"{etag}"'}, b"hello"))
    assert source.fetch(entry, 100) == b"hello world"
    faults.answers.append(("rows.jsonl", SHORT, {}, row("1").encode()))
    with pytest.raises(SourceUnavailable):
        listed(source)


def test_nobody_listens(s3: S3) -> None:
    began = time.monotonic()
    with pytest.raises(SourceUnavailable):
        listed(store("s3://b/docs", "http://127.0.0.1:9"))
    assert time.monotonic() - began < 30


# ---- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"uri": "/srv/docs"},
        {"uri": "file:///srv/docs"},
        {"uri": "ftp://ada:hunter2@host/docs"},
        {"uri": "simplecache::ftp://ada:hunter2@host/docs"},
        {"uri": "sftp://hunter2@host/docs"},
        {"uri": "zip://x::https://hunter2@host/docs.zip"},
        {"uri": "https://host/docs?sig=hunter2"},
        {"options": {"client_kwargs": {"headers": {"Authorization": "hunter2"}}}},
        {"options": {"api_key": "hunter2"}},
        {"options": {"signature": "hunter2"}},
        {"options": {"secret": "hunter2"}},
        {"options": {"token": "hunter2"}},
        {"options": {"client_kwargs": {"aws_secret_access_key": "hunter2"}}},
        {"options": {"password": "hunter2"}},
        {"options": {"secret_env": 7}},
        {"uri": "gs://bucket", "acl_tag": "readers"},
        {"acl_tag": ""},
    ],
)
def test_settings_that_hold_secrets_or_name_no_store_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        store(**({"uri": "s3://bucket/docs"} | wrong))


def test_secrets_come_from_the_environment_or_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("AKIA\n")
    (tmp_path / "key").chmod(0o600)
    monkeypatch.setenv("STORE_SECRET", "hunter2")
    source = store("s3://bucket", options={"key_file": str(tmp_path / "key"), "secret_env": "STORE_SECRET"})
    system = source._tree()._system
    assert (system.key, system.secret) == ("AKIA", "hunter2")
    assert "hunter2" not in source._settings.model_dump_json()
    for options in ({"secret_env": "STORE_NONE"}, {"secret_file": str(tmp_path / "none")}):
        with pytest.raises(ConfigurationError, match="STORE_NONE|none"):
            list(store("s3://bucket", options=options).list(None))


@pytest.mark.parametrize("uri", ["nonsense://x/y", "s3://bucket/x"])
def test_url_or_option_that_nothing_takes_is_a_configuration_error(uri: str) -> None:
    options = {"config_kwargs": {"nonsense": 1}} if uri.startswith("s3") else {}
    with pytest.raises((ConfigurationError, SourceUnavailable)):
        list(store(uri, options=options).list(None))


def test_check_tells_what_is_missing(s3: S3, faults: Faults) -> None:
    s3.put("docs/a.md")
    s3.connector(acl_tag="readers").check()
    s3.connector("docs/a.md").check()
    faults.add("tagging", 403, "AccessDenied")
    with pytest.raises(ConfigurationError, match="tags"):
        behind(s3, faults, acl_tag="readers").check()
    with pytest.raises(SourceUnavailable):
        store("s3://nowhere/docs", s3.endpoint).check()


def test_store_tells_nothing_by_itself(s3: S3) -> None:
    assert s3.connector().watch() is None


# ---- other file systems


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    if files.exists("/tree"):
        files.rm("/tree", recursive=True)


def test_any_file_system_is_looked_into_as_it_is_listed(memory: Any) -> None:
    for name in ("hr/deep/pay.md", "z.md", "C/a.md", "C#.md", ".git/x"):
        memory.pipe(f"/tree/{name}", b"x")
    memory.pipe("/tree/acl.yaml", HR_RULES.encode())
    memory.pipe("/tree/rows.jsonl", row("1").encode())
    source = store("memory://tree")
    known = listed(source)
    assert list(known) == ["C/a.md", "C#.md", "hr/deep/pay.md", "rows.jsonl#1", "z.md"]
    for external_id, entry in known.items():
        assert list(source.look([external_id])) == [entry]
    assert list(source.look(["hr"])) == [Gone("hr", below=True), known["hr/deep/pay.md"]]
    assert set(entries(list(source.look(["C"])))) == {"C/a.md", "C#.md"}
    memory.rm("/tree", recursive=True)
    with pytest.raises(SourceUnavailable):
        list(source.look(["z.md"]))


def test_archive_behind_a_chain_of_urls_is_walked_and_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("docs/hr/pay.md", "docs/z.md", "docs/.x", "no.md"):
            archive.writestr(name, name)
        archive.writestr("docs/acl.yaml", HR_RULES)
    source = store(f"zip://docs::file://{tmp_path}/a.zip")
    found = listed(source)
    assert {name: entry.ref.rule for name, entry in found.items()} == {"hr/pay.md": HR, "z.md": ALL}
    assert source.fetch(found["hr/pay.md"], 100) == b"docs/hr/pay.md"
    with pytest.raises(TooLarge):
        source.fetch(found["hr/pay.md"], 3)
    assert list(source.look(["hr"])) == [Gone("hr", below=True), found["hr/pay.md"]]
    assert urlsplit(found["z.md"].ref.uri).scheme == "zip"
