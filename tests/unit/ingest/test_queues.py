"""Message queues against the real servers: nothing that was sent is lost, whatever dies, and nothing hurts."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats as nats_client
import pytest
import redis as redis_client
from confluent_kafka import Consumer, Producer, TopicPartition

from ingest import brokers, queues
from ingest.brokers import entry_body, kafka_address
from ingest.queues import FIRST_WAIT_S, LONGEST_WAIT_S, follow_queue, wait_s
from ingest.source_settings import QueueSettings
from policies.errors import ConfigurationError, Unavailable
from tests.servers import Server

LIST: tuple[str, ...] = ()
PROBE = b'{"id": "probe"}'
URL = "QUEUE_URL"
KAFKA = """
import sys
from confluent_kafka.admin import AdminClient
cluster = AdminClient({"bootstrap.servers": "replaced:1", "test.mock.num.brokers": 1})
(broker,) = cluster.list_topics(timeout=20).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


@dataclass
class Queue:
    """A queue of its own on a server, and how others write to it."""

    settings: QueueSettings
    url: str
    server: Server | None = None

    def send(self, *bodies: bytes) -> None:
        raise NotImplementedError

    def left(self) -> int:
        """So many messages were taken and not acknowledged."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what the operator makes beforehand."""


class Redis(Queue):
    def client(self) -> Any:
        return redis_client.Redis.from_url(self.url)

    def send(self, *bodies: bytes) -> None:
        with self.client() as client:
            for body in bodies:
                client.xadd(self.settings.subject, {"data": body})

    def left(self) -> int:
        with self.client() as client:
            return int(client.xpending(self.settings.subject, self.settings.group)["pending"])


class Nats(Queue):
    def run(self, work: Callable[[Any], Any]) -> Any:
        async def go() -> Any:
            client = await nats_client.connect(self.url)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(go())

    def send(self, *bodies: bytes) -> None:
        async def publish(client: Any) -> None:
            for body in bodies:
                await client.publish(self.settings.subject, body)
            await client.flush()

        self.run(publish)

    def left(self) -> int:
        return 0


class JetStream(Nats):
    @property
    def stream(self) -> str:
        return self.settings.subject.replace(".", "-")

    def prepare(self) -> None:
        self.run(lambda client: client.jetstream().add_stream(name=self.stream, subjects=[self.settings.subject]))

    def left(self) -> int:
        info = self.run(lambda client: client.jetstream().consumer_info(self.stream, self.settings.group))
        return int(info.num_ack_pending)


class Kafka(Queue):
    def send(self, *records: Any) -> None:
        """A record: a value, or a value and headers."""
        producer = Producer({"bootstrap.servers": self.url, "log_level": 2})
        for record in records:
            value, headers = record if isinstance(record, tuple) else (record, [])
            producer.produce(self.settings.subject, value, headers=headers)
        assert producer.flush(20) == 0

    def committed(self) -> int:
        """So many records the group will not see again."""
        asking = Consumer({"bootstrap.servers": self.url, "group.id": self.settings.group, "log_level": 2})
        try:
            topic = asking.list_topics(self.settings.subject, timeout=20).topics[self.settings.subject]
            partitions = [TopicPartition(topic.topic, number) for number in topic.partitions]
            return sum(max(0, each.offset) for each in asking.committed(partitions, timeout=20))
        finally:
            asking.close()


KINDS: dict[str, tuple[type[Queue], str]] = {
    "redis": (Redis, "redis"),
    "nats": (Nats, "nats"),
    "jetstream": (JetStream, "nats"),
}


@pytest.fixture
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Queue]:
    def make_queue(kind: str) -> Queue:
        made, server = KINDS[kind]
        url = request.getfixturevalue(f"{server}_url")
        monkeypatch.setenv(URL, url)
        subject = f"changes.{uuid.uuid4().hex[:8]}"
        settings = QueueSettings(kind=server, url_env=URL, subject=subject, group="rayrag")  # type: ignore[arg-type]
        queue = made(settings, url, request.getfixturevalue(server))
        queue.prepare()
        return queue

    return make_queue


@pytest.fixture(params=list(KINDS))
def queue(request: pytest.FixtureRequest, make: Callable[[str], Queue]) -> Queue:
    return make(request.param)


@pytest.fixture(params=["redis", "jetstream"])
def lasting(request: pytest.FixtureRequest, make: Callable[[str], Queue]) -> Queue:
    """A queue that keeps what nobody has taken yet."""
    return make(request.param)


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[str]:
    """Yield the address of librdkafka's own cluster, which lives in the memory of a process."""
    command = [sys.executable, "-c", KAFKA]
    cluster = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert cluster.stdout is not None
    yield cluster.stdout.readline().decode().strip()
    cluster.communicate()


@dataclass
class Heard:
    """What was hinted, in order."""

    hints: list[tuple[str, ...]] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    stop: Callable[[], None] = lambda: None

    def until(self, true: Callable[[list[tuple[str, ...]]], bool], within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while not true(self.hints):
            assert time.monotonic() < deadline, f"only {self.hints} was heard"
            time.sleep(0.01)

    def until_names(self, *ids: str, within_s: float = 20.0) -> None:
        self.until(lambda hints: set(ids) <= {each for hint in hints for each in hint}, within_s)

    def is_quiet(self, for_s: float = 0.4) -> bool:
        known = len(self.hints)
        time.sleep(for_s)
        return len(self.hints) == known


@contextmanager
def following(
    queue: Queue, keep: Callable[[Sequence[str]], None] = lambda ids: None, ready: bool = True
) -> Iterator[Heard]:
    """Follow a queue on another thread. `keep` stands for the ledger; `ready`: wait until it is followed."""
    heard, loop = Heard(), asyncio.new_event_loop()

    async def hint(ids: Sequence[str]) -> None:
        heard.hints.append(tuple(ids))
        await asyncio.to_thread(keep, ids)
        heard.kept.update(ids)

    task = loop.create_task(follow_queue(queue.settings, hint))
    left_over: list[Any] = []

    def run() -> None:
        with loop_closed(loop):
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            left_over.extend(asyncio.all_tasks(loop))

    thread = threading.Thread(target=run)
    thread.start()

    def stop() -> None:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(timeout=15)
        assert not thread.is_alive(), "it does not end"

    heard.stop = stop
    try:
        if ready:
            wait_until_followed(queue, heard)
        yield heard
    finally:
        if thread.is_alive():
            stop()
    assert task.cancelled(), task.exception()
    assert left_over == []


@contextmanager
def loop_closed(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    try:
        yield
    finally:
        loop.close()


def wait_until_followed(queue: Queue, heard: Heard) -> None:
    """Send until something arrives: what was sent before the group was there does not."""
    while not heard.hints:
        queue.send(PROBE)
        time.sleep(0.1)
    queue.send(b'{"id": "ready"}')
    heard.until(lambda _: "ready" in heard.kept)
    heard.hints.clear()


def retrying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "FIRST_WAIT_S", 0.05)


# ---- what is heard


def test_messages_that_come_together_are_one_hint(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"specversion": "1.0", "id": "1", "type": "changed", "source": "/s", "subject": "c"}
    with following(queue) as heard:
        monkeypatch.setattr(queues, "BATCH_S", 0.5)  # so that what a slow machine sends is "together", too
        queue.send(b'{"id": "a"}', b'{"ids": ["b", "a"]}', json.dumps(event).encode())
        heard.until_names("a", "b", "c")

        assert heard.is_quiet(for_s=0.8)
        assert heard.hints == [("a", "b", "c")]
        assert queue.left() == 0


def test_a_message_that_is_not_understood_asks_for_a_listing_and_does_not_come_again(queue: Queue) -> None:
    with following(queue) as heard:
        queue.send(b"\xff\xfe\x00", b"", b"[" * 50_000, b'{"id": "a"}')
        heard.until(lambda hints: LIST in hints)
        queue.send(b'{"id": "b"}')
        heard.until_names("b")

        assert heard.is_quiet()
        assert set(heard.hints) <= {LIST, ("a",), ("b",)}
        assert queue.left() == 0


def test_many_messages_are_few_hints(queue: Queue) -> None:
    with following(queue) as heard:
        queue.send(*(json.dumps({"id": f"{n}"}).encode() for n in range(200)))
        heard.until_names(*(f"{n}" for n in range(200)))

        assert len(heard.hints) < 100


def test_two_followers_of_a_group_share_its_messages(queue: Queue) -> None:
    with following(queue) as one, following(queue, ready=False) as other:
        while not other.hints:
            queue.send(PROBE)
            time.sleep(0.05)
        one.is_quiet()
        one.hints.clear(), other.hints.clear()
        for n in range(40):
            queue.send(json.dumps({"id": f"{n}"}).encode())
        named = {f"{n}" for n in range(40)}
        one.until(lambda _: named <= {each for hint in (*one.hints, *other.hints) for each in hint})

        assert sum(len(hint) for hint in (*one.hints, *other.hints)) == 40


# ---- nothing is lost


def test_a_message_is_acknowledged_only_when_its_hint_is_kept(lasting: Queue) -> None:
    kept, may_go_on = threading.Event(), threading.Event()

    def keep(ids: Sequence[str]) -> None:
        if "slow" in ids:
            kept.set()
            may_go_on.wait(10)

    with following(lasting, keep) as heard:
        lasting.send(b'{"id": "slow"}')
        kept.wait(10)
        assert lasting.left() == 1
        may_go_on.set()
        heard.until(lambda _: lasting.left() == 0)


def test_what_was_sent_while_nobody_followed_is_heard(lasting: Queue) -> None:
    with following(lasting):
        pass
    lasting.send(b'{"id": "a"}')

    with following(lasting, ready=False) as heard:
        heard.until_names("a")
        assert heard.hints == [("a",)]


def test_a_hint_that_is_not_kept_is_given_again_as_a_listing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    retrying(monkeypatch)
    caplog.set_level(logging.INFO)
    down = threading.Event()

    def keep(ids: Sequence[str]) -> None:
        if down.is_set():
            raise Unavailable("the ledger database is locked")

    with following(queue, keep) as heard:
        down.set()
        queue.send(b'{"id": "a"}')
        heard.until(lambda hints: hints.count(LIST) >= 2)
        down.clear()
        heard.until(lambda _: "is followed again" in caplog.text)
        queue.send(b'{"id": "b"}')
        heard.until_names("b")
        assert heard.hints[0] == ("a",)
    assert "the ledger database is locked" in caplog.text


@pytest.mark.parametrize("kind", ["redis"])
def test_what_a_dead_process_took_is_taken_over(
    kind: str, make: Callable[[str], Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "CLAIM_AFTER_S", 0.3)
    monkeypatch.setattr(brokers, "CLAIM_EVERY_S", 0.2)
    queue = make(kind)
    assert isinstance(queue, Redis)
    with following(queue):
        pass
    queue.send(b'{"id": "a"}', b'{"id": "b"}')
    with queue.client() as dying:
        dying.xreadgroup(queue.settings.group, "dead", {queue.settings.subject: ">"})
    assert queue.left() == 2

    with following(queue, ready=False) as heard:
        heard.until_names("a", "b")
        heard.until(lambda _: queue.left() == 0)


@pytest.mark.parametrize("kind", ["jetstream"])
def test_what_a_stream_delivered_to_a_dead_process_comes_again(
    kind: str, make: Callable[[str], Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make(kind)
    with following(queue):
        pass
    queue.send(b'{"id": "a"}')

    async def take_and_die(client: Any) -> None:
        (message,) = await (await client.jetstream().pull_subscribe_bind("rayrag", queue.stream)).fetch(1)  # type: ignore[attr-defined]
        await message.nak()  # what the server does after `ack_wait`, at once

    assert isinstance(queue, Nats)
    queue.run(take_and_die)
    with following(queue, ready=False) as heard:
        heard.until_names("a")


# ---- the broker goes and comes


def test_a_broker_that_was_away_is_followed_again_after_a_listing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrying(monkeypatch)
    assert queue.server is not None
    with following(queue) as heard:
        queue.server.stop()
        time.sleep(0.5)
        assert heard.hints == []
        queue.server.start()
        heard.until(lambda hints: LIST in hints)
        queue.send(b'{"id": "after"}')
        heard.until_names("after")

        assert heard.hints == [LIST, ("after",)]


def test_a_broker_that_is_not_there_at_first_is_waited_for(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    retrying(monkeypatch)
    assert queue.server is not None
    queue.server.stop()
    with following(queue, ready=False) as heard:
        heard.until(lambda _: "is not followed: the broker is away" in caplog.text)
        queue.server.start()
        heard.until(lambda hints: hints == [LIST])
        queue.send(b'{"id": "a"}')
        heard.until_names("a")


def test_a_broker_that_says_nothing_is_given_up(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    retrying(monkeypatch)
    for name in ("SLACK_S", "ANSWER_S", "SILENCE_S"):
        monkeypatch.setattr(queues if name == "SILENCE_S" else brokers, name, 0.3)
    assert queue.server is not None
    with following(queue) as heard:
        queue.server.freeze()
        heard.until(lambda _: "is not followed" in caplog.text)
        queue.server.thaw()
        heard.until(lambda hints: LIST in hints)
        queue.send(b'{"id": "after"}')
        heard.until_names("after")


def test_a_group_that_was_deleted_is_made_again_after_a_listing(
    lasting: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrying(monkeypatch)
    monkeypatch.setattr(queues, "SILENCE_S", 0.5)
    with following(lasting) as heard:
        if isinstance(lasting, Redis):
            with lasting.client() as client:
                client.delete(lasting.settings.subject)
        elif isinstance(lasting, JetStream):
            lasting.run(lambda client: client.jetstream().delete_consumer(lasting.stream, "rayrag"))
        heard.until(lambda hints: LIST in hints)
        lasting.send(b'{"id": "after"}')
        heard.until_names("after")


def test_waits_grow_and_are_spread_and_bounded() -> None:
    for failures in range(1, 60):
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1))
        waits = {wait_s(failures) for _ in range(20)}

        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(waits) > 10


# ---- its end


def test_it_ends_at_once_and_leaves_nothing_open(make: Callable[[str], Queue]) -> None:
    queue = make("redis")
    assert isinstance(queue, Redis)
    with queue.client() as client:
        before = len(client.client_list())
        with following(queue) as heard:
            assert len(client.client_list()) > before
            started = time.monotonic()
            heard.stop()
            assert time.monotonic() - started < 5.0
        heard.until(lambda _: len(client.client_list()) <= before)


# ---- each server's own


def test_an_entry_of_faststreams_own_is_understood(make: Callable[[str], Queue]) -> None:
    from faststream.redis import RedisBroker

    queue = make("redis")

    async def publish() -> None:
        async with RedisBroker(queue.url) as broker:
            await broker.publish({"id": "framed"}, stream=queue.settings.subject)

    with following(queue) as heard:
        asyncio.run(publish())
        heard.until_names("framed")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({b"data": b'{"id": "a"}'}, b'{"id": "a"}'),
        ({b"event": b"\xff"}, b"\xff"),
        ({b"id": b"a"}, b'{"id": "a"}'),
        ({b"id": b"a", b"op": b"\xff"}, b'{"id": "a", "op": "\\ufffd"}'),
        ({}, b"{}"),
    ],
)
def test_an_entry_says_what_its_one_field_says_or_what_all_say(fields: dict[bytes, bytes], body: bytes) -> None:
    assert entry_body(fields) == body


def test_an_entry_with_bytes_that_are_no_text_is_a_listing(make: Callable[[str], Queue]) -> None:
    queue = make("redis")
    assert isinstance(queue, Redis)
    with following(queue) as heard, queue.client() as client:
        client.xadd(queue.settings.subject, {b"\xff": b"\xfe", b"more": b"\x00"})
        heard.until(lambda hints: hints == [LIST])
        heard.until(lambda _: queue.left() == 0)


def test_a_cloud_event_may_stand_in_the_headers_of_a_nats_message(make: Callable[[str], Queue]) -> None:
    queue = make("jetstream")
    assert isinstance(queue, Nats)
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s", "ce-subject": "a"}
    with following(queue) as heard:
        queue.run(lambda client: client.jetstream().publish(queue.settings.subject, b"", headers=headers))
        heard.until_names("a")


def test_kafka_is_read_from_the_beginning_and_commits_only_what_is_kept(
    kafka_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, kafka_cluster)
    subject = f"changes-{uuid.uuid4().hex[:8]}"
    queue = Kafka(QueueSettings(kind="kafka", url_env=URL, subject=subject, group="rayrag"), kafka_cluster)
    may_go_on = threading.Event()
    event = {"ce_specversion": "1.0", "ce_id": "1", "ce_type": "t", "ce_source": "/s", "ce_subject": "b"}
    odd = [("trace", b"\xff")]

    def keep(ids: Sequence[str]) -> None:
        assert may_go_on.wait(20)

    queue.send(b'{"id": "before"}')
    with following(queue, keep, ready=False) as heard:
        heard.until_names("before")
        assert queue.committed() == 0
        may_go_on.set()
        heard.until(lambda _: queue.committed() == 1)
        heard.hints.clear()
        queue.send(b'{"id": "a"}', (None, event), (b'{"id": "c"}', odd))
        heard.until_names("a", "b", "c")
        queue.send(b"\xff")
        heard.until(lambda hints: LIST in hints)
        heard.until(lambda _: queue.committed() == 5)


# ---- what an operator gets wrong


@pytest.mark.parametrize(
    ("address", "servers", "config"),
    [
        ("a:9092", "a:9092", {"security.protocol": "plaintext"}),
        ("a:9092,b:9092", "a:9092,b:9092", {"security.protocol": "plaintext"}),
        ("kafkas://a:9093", "a:9093", {"security.protocol": "ssl"}),
        (
            "kafkas://me:p%40ss:word@a:9093,b:9093?mechanism=SCRAM-SHA-512",
            "a:9093,b:9093",
            {
                "security.protocol": "sasl_ssl",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "me",
                "sasl.password": "p@ss:word",
            },
        ),
    ],
)
def test_kafkas_address_says_how_to_log_in(address: str, servers: str, config: dict[str, str]) -> None:
    from faststream.confluent.security import parse_security

    found, security = kafka_address(address)

    assert (found, parse_security(security)) == (servers, config)


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("redis", "http://me:hunter2@127.0.0.1"),
        ("nats", "redis://me:hunter2@127.0.0.1"),
        ("nats", "nats://me:hunter2#@127.0.0.1"),
        ("nats", "nats://a:4222,nats://"),
        ("kafka", "kafka://me:hunter2@"),
        ("kafka", "kafka://me:hunter2@h:1?mechanism=NONE"),
        ("kafka", "amqp://me:hunter2@h:1"),
    ],
)
def test_an_address_of_another_kind_is_refused_without_its_password(
    kind: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, address)

    with pytest.raises(ConfigurationError, match=f"{URL}: no address of a {kind} server") as refused:
        asyncio.run(follow_queue(QueueSettings(kind=kind, url_env=URL, subject="s", group="g"), never))

    assert "hunter2" not in "".join(str(error) for error in chain(refused.value))


def test_an_address_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)

    with pytest.raises(ConfigurationError, match=URL):
        asyncio.run(follow_queue(QueueSettings(kind="redis", url_env=URL, subject="s"), never))


@pytest.mark.parametrize("kind", ["redis", "nats", "kafka"])
def test_a_missing_library_is_named_with_how_to_install_it(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "redis://127.0.0.1:1" if kind == "redis" else "nats://127.0.0.1:1")
    for module in ("redis", "nats", "confluent"):
        monkeypatch.setitem(sys.modules, f"faststream.{module}", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'rayrag\[queues\]'"):
        asyncio.run(follow_queue(QueueSettings(kind=kind, url_env=URL, subject="s"), never))


def test_no_queues_library_is_loaded_before_a_queue_is_followed() -> None:
    code = "import ingest.queues, sys; print([m for m in ('faststream', 'redis', 'nats') if m in sys.modules])"
    root = Path(__file__).parents[3]
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)

    assert shown.stdout.strip() == "[]"


def test_a_refused_password_is_tried_again_and_stands_in_no_log(
    redis: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    retrying(monkeypatch)
    caplog.set_level(logging.DEBUG)
    url = f"redis://me:hunter2@127.0.0.1:{redis.port}"
    monkeypatch.setenv(URL, url)
    refused = Redis(QueueSettings(kind="redis", url_env=URL, subject="s", group="g"), url)

    with following(refused, ready=False):
        deadline = time.monotonic() + 10
        while caplog.text.count("is not followed: the broker is away (AuthenticationError)") < 2:
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.05)

    assert "hunter2" not in caplog.text


async def never(ids: Sequence[str]) -> None:
    raise AssertionError(f"nothing can be heard here: {ids}")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
