"""Redis streams, NATS and Kafka behind one face: the next message, acknowledge, are you there.

FastStream does the talking; nothing runs in the background but what its clients do. A group goes on where it stopped:

    redis   a consumer group, new ones from now on; what was taken and never finished is claimed after a minute
    nats    a durable consumer, new ones from now on, if a stream has the subject; else core NATS, which keeps nothing
    kafka   a consumer group, new ones from the topic's beginning; only what was acknowledged is committed
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ingest.source_settings import QueueSettings
from policies.errors import ConfigurationError, Unavailable

CLAIM_AFTER_S, CLAIM_EVERY_S = 60.0, 30.0
OPEN_S = 30.0
ANSWER_S = 5.0
SLACK_S = 10.0
"""How much longer than it was asked to wait a broker may take to say that there is nothing."""
FRAMED = b"\x89BIN\r\n"
"""How an entry begins that FastStream wrote to a Redis stream."""
DATA = b"__data__"
NO_LOGGER: Any = None
"""The clients say nothing: their words may hold addresses and passwords. What matters, `ingest.queues` logs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """What came. `received` is the library's own, which acknowledges."""

    body: bytes
    headers: Mapping[str, str]
    received: Any


class Broker:
    """A connection that follows one queue. Every method raises `Unavailable` when the broker is away."""

    def __init__(self, broker: Any, failures: tuple[type[Exception], ...]) -> None:
        """`broker`: FastStream's; `failures`: what its client raises when it is away."""
        self._broker = broker
        self._failures: tuple[type[Exception], ...] = (*failures, OSError)  # a TimeoutError is one
        self._client: Any = None
        self._reader: Any = None
        self._early: list[Any] = []

    async def open(self) -> None:
        """Connect, and take part: what comes from now on is heard."""
        async with self._bounded(OPEN_S):
            await self._start()
            if not await self._answers():
                raise ConnectionError

    async def next(self, timeout_s: float) -> Message | None:
        """Wait so long for a message."""
        async with self._bounded(timeout_s + SLACK_S):
            received = self._early.pop(0) if self._early else await self._take(timeout_s)
        return None if received is None else self._read(received)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Say that these, and for Kafka all before them, need not come again."""
        async with self._bounded(SLACK_S):
            for message in messages:
                await message.received.ack()

    async def answers(self) -> bool:
        """Say whether the broker is there."""
        async with self._bounded(ANSWER_S + SLACK_S):
            return await self._answers()

    async def close(self) -> None:
        """Leave. What fails then is of no concern: the connection is given up."""
        try:
            async with asyncio.timeout(SLACK_S):
                await self._stop()
        except* self._failures as errors:
            log.debug("a queue's connection did not close in order: %s", errors.exceptions[0])

    async def _start(self) -> None:
        self._client = await self._broker.connect()
        await self._broker.start()

    async def _stop(self) -> None:
        await self._broker.stop()

    async def _take(self, timeout_s: float) -> Any:
        return await self._reader.get_one(timeout=timeout_s)

    async def _answers(self) -> bool:
        return bool(await self._broker.ping(timeout=ANSWER_S))

    def _read(self, received: Any) -> Message:
        return Message(received.body, received.headers, received)

    @asynccontextmanager
    async def _bounded(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except self._failures as error:
            # Only the class: the client's words may hold the address with its password.
            raise Unavailable(f"the broker is away ({type(error).__name__})") from error


class _Redis(Broker):
    def __init__(self, settings: QueueSettings, url: str) -> None:
        from faststream.redis import RedisBroker, StreamSub
        from redis.exceptions import RedisError

        super().__init__(RedisBroker(url, logger=NO_LOGGER, parser=_entry), (RedisError,))
        self._settings = settings
        name, group, idle_ms = settings.subject, settings.group, int(CLAIM_AFTER_S * 1_000)
        # One consumer for all processes: Redis gives each entry to one of them anyhow, and none stays behind as litter.
        reader = StreamSub(name, group=group, consumer=group)
        claimer = StreamSub(name, group=group, consumer=group, min_idle_time=idle_ms)
        self._reader = self._broker.subscriber(stream=reader)
        self._claimer = self._broker.subscriber(stream=claimer)
        self._claim_at = 0.0

    async def _take(self, timeout_s: float) -> Any:
        if time.monotonic() >= self._claim_at:
            abandoned = await self._claimer.get_one()
            if abandoned is not None:
                return abandoned
            self._claim_at = time.monotonic() + CLAIM_EVERY_S
        return await super()._take(timeout_s)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        ids = [each for message in messages for each in message.received.raw_message["message_ids"]]
        async with self._bounded(SLACK_S):
            await self._client.xack(self._settings.subject, self._settings.group, *ids)

    def _read(self, received: Any) -> Message:
        entry = received.raw_message["data"][DATA]
        return Message(received.body if entry.startswith(FRAMED) else entry, received.headers, received)


async def _entry(message: dict[str, Any], parse: Callable[[Any], Awaitable[Any]]) -> Any:
    """Have FastStream parse an entry that others wrote, too: it would stumble over bytes that are no UTF-8."""
    fields: dict[bytes, bytes] = message["data"]
    if not fields.get(DATA, b"").startswith(FRAMED):
        message = {**message, "data": {DATA: entry_body(fields) or b"null"}}
    return await parse(message)


def entry_body(fields: Mapping[bytes, bytes]) -> bytes:
    """Give what an entry of a Redis stream says: the value of its one field, else all fields as a JSON object."""
    if len(fields) == 1 and b"id" not in fields:
        return next(iter(fields.values()))
    text = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in fields.items()}
    return json.dumps(text).encode()


class _Nats(Broker):
    def __init__(self, settings: QueueSettings, url: str) -> None:
        import nats.errors
        from faststream.nats import NatsBroker

        servers = url.split(",")
        for parts in map(urlsplit, servers):
            if parts.scheme not in ("nats", "tls", "ws", "wss") or not parts.hostname or parts.port == 0:
                raise ValueError("no NATS address")
        broker = NatsBroker(
            servers,
            logger=NO_LOGGER,
            name="rayrag",
            # `ingest.queues` tries again, and knows then that there was a gap.
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=5,
            ping_interval=10,
        )
        super().__init__(broker, (nats.errors.Error,))
        self._settings = settings
        self._stream: str | None = None

    async def _start(self) -> None:
        from faststream.nats import JStream, PullSub
        from nats.js.api import DeliverPolicy

        subject, group = self._settings.subject, self._settings.group
        self._client = await self._broker.connect()
        self._stream = await self._find_stream()
        if self._stream is None:
            self._reader = self._broker.subscriber(subject, queue=group)
        else:
            self._reader = self._broker.subscriber(
                subject,
                stream=JStream(self._stream, declare=False),
                pull_sub=PullSub(),
                durable=group,
                deliver_policy=DeliverPolicy.NEW,
            )
        await self._broker.start()
        # The first call subscribes: without it, what comes before the second would be missed.
        first = await self._reader.get_one(timeout=0.05)
        self._early += [] if first is None else [first]

    async def _take(self, timeout_s: float) -> Any:
        received = await super()._take(timeout_s)
        if received is None and not self._client.is_connected:  # a stream's reader takes that for silence
            raise ConnectionError
        return received

    async def _answers(self) -> bool:
        if self._stream is not None:  # raises where it was deleted, which reading would take for silence
            await self._client.jetstream().consumer_info(self._stream, self._settings.group)
        await self._client.flush(ANSWER_S)  # there and back; the client alone would notice after half a minute
        return True

    async def _find_stream(self) -> str | None:
        """Name the stream that keeps the subject's messages; none where JetStream is off, too."""
        from nats.errors import NoRespondersError
        from nats.js.errors import NotFoundError, ServiceUnavailableError

        try:
            return str(await self._client.jetstream().find_stream_name_by_subject(self._settings.subject))
        except (NotFoundError, ServiceUnavailableError, NoRespondersError):
            return None

    async def _stop(self) -> None:
        if self._client is not None:
            # Sends what waits, acknowledgements among it. FastStream would drain, which here waits for messages that
            # the client forgets to count as done.
            await self._client.close()
        await super()._stop()


class _Kafka(Broker):
    def __init__(self, settings: QueueSettings, url: str) -> None:
        from confluent_kafka import KafkaException
        from faststream import AckPolicy
        from faststream.confluent import KafkaBroker, Topic

        servers, security = kafka_address(url)
        broker = KafkaBroker(servers, security=security, logger=NO_LOGGER, client_id="rayrag", parser=_record)
        super().__init__(broker, (KafkaException,))
        self._reader = self._broker.subscriber(
            Topic(settings.subject, declare=False),
            group_id=settings.group,
            ack_policy=AckPolicy.MANUAL,
            # A partition without an offset of the group's is one of which nothing was read: "latest" would skip what
            # came since, and whatever comes while the group is still forming.
            auto_offset_reset="earliest",
        )

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        await super().acknowledge(messages[-1:])  # commits all that was taken


async def _record(message: Any, parse: Callable[[Any], Awaitable[Any]]) -> Any:
    """Have FastStream parse a record whose headers are no text, too."""
    try:
        return await parse(message)
    except UnicodeDecodeError:
        message.set_headers([])
        return await parse(message)


def kafka_address(url: str) -> tuple[str, Any]:
    """Read `host:port,…` or `kafka[s]://[user:password@]host:port,…[?mechanism=SCRAM-SHA-512]`; `kafkas` is TLS.

    Gives the servers, and FastStream's way to log in. Raises `ValueError`.
    """
    from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

    mechanisms = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    parts = urlsplit(url if "://" in url else f"kafka://{url}")
    login, _, servers = parts.netloc.rpartition("@")
    mechanism = parse_qs(parts.query).get("mechanism", ["PLAIN"])[0]
    if parts.scheme not in ("kafka", "kafkas") or not servers or mechanism not in mechanisms:
        raise ValueError("no Kafka address")
    encrypted = parts.scheme == "kafkas"
    if not login:
        return servers, BaseSecurity(use_ssl=encrypted)
    user, _, password = login.partition(":")
    return servers, mechanisms[mechanism](unquote(user), unquote(password), use_ssl=encrypted)


_KINDS: dict[str, Callable[[QueueSettings, str], Broker]] = {"redis": _Redis, "nats": _Nats, "kafka": _Kafka}


@asynccontextmanager
async def open_broker(settings: QueueSettings, url: str) -> AsyncIterator[Broker]:
    """Follow a queue for as long as the block runs. Raises `Unavailable`, or `ConfigurationError` for its address."""
    with _named(settings):
        broker = _KINDS[settings.kind](settings, url)
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()


@contextmanager
def _named(settings: QueueSettings) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(f"a {settings.kind} queue needs a library: pip install 'rayrag[queues]'") from error
    except ValueError:
        # Without its cause, which may show the address and its password.
        raise ConfigurationError(f"{settings.url_env}: no address of a {settings.kind} server") from None
