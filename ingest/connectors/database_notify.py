"""PostgreSQL's LISTEN/NOTIFY: which rows changed, as their table's trigger says it.

A notification carries an id, a JSON object with an `id`, or nothing ("something changed"). It is lost for whoever is
not connected, so each connection begins with "list".
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from sqlalchemy.engine import URL

from ingest.connectors.database_engine import NO_DRIVER, connection_failure
from policies.errors import ConfigurationError, SourceUnavailable

ATTEMPTS = 6
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
PING_S = 30.0
"""How long a connection may be silent: then it is asked whether it is still there."""
GATHER_S = 0.05
MAX_GATHERED = 500


async def notified(url: URL, channel: str) -> AsyncIterator[Sequence[str]]:
    """Yield ids as a channel names them, nothing ("list") after each connection is made.

    Raises `ConfigurationError` where the driver is missing or the server refuses the user, `SourceUnavailable` where it
    cannot be reached again for about half a minute.
    """
    try:
        from psycopg import Error
    except ImportError as error:
        raise ConfigurationError(NO_DRIVER) from error
    failures = 0
    while True:
        began = time.monotonic()
        try:
            async with aclosing(_listen(url, channel)) as heard:
                async for ids in heard:
                    yield ids
        except Error as error:
            # One that is cut again at once counts on: each time it is made, somebody lists the source.
            failures = 1 if time.monotonic() - began > LONGEST_WAIT_S else failures + 1
            known = connection_failure(error)
            if known is not None:
                raise known from error
            if failures > ATTEMPTS:
                raise SourceUnavailable("the database does not answer: its notifications are not heard") from error
        longest = min(FIRST_WAIT_S * 2**failures, LONGEST_WAIT_S)
        await asyncio.sleep(longest * random.uniform(0.2, 0.5))  # noqa: S311 - jitter, not a secret


async def _listen(url: URL, channel: str) -> AsyncGenerator[Sequence[str]]:
    from psycopg import AsyncConnection
    from psycopg.sql import SQL, Identifier

    address = url.set(drivername="postgresql+psycopg")
    arguments, options = address.get_dialect()().create_connect_args(address)
    async with await AsyncConnection.connect(*arguments, **options, autocommit=True) as connection:
        await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
        yield ()
        while True:
            payloads = [notify.payload async for notify in connection.notifies(timeout=PING_S, stop_after=1)]
            if not payloads:
                await connection.execute("SELECT 1")
                continue
            # A transaction over many rows tells of each: they become one look.
            more = connection.notifies(timeout=GATHER_S, stop_after=MAX_GATHERED)
            payloads += [notify.payload async for notify in more]
            for batch in looks(payloads):
                yield batch


def looks(payloads: Sequence[str]) -> list[Sequence[str]]:
    """What to look at: the ids that payloads name, each once, and an empty sequence where one names none."""
    said = [_id_of(payload) for payload in payloads]
    ids = list(dict.fromkeys(text for text in said if text is not None))
    return [*([ids] if ids else []), *([()] if None in said else [])]


def _id_of(payload: str) -> str | None:
    if not payload.lstrip().startswith("{"):
        return payload or None
    try:
        said: Any = json.loads(payload)
    except (ValueError, RecursionError):
        return payload  # an id that begins with a brace
    found = said.get("id")
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else None


def trigger_sql(table: str, schema: str | None, id_column: str, channel: str) -> str:
    """The SQL that makes a PostgreSQL table tell its channel of each row that is added, changed or removed.

    A change of the id tells of both. An id that is too long for a notification (8,000 bytes) is told of as "something
    changed": a trigger must not make the writer's transaction fail.
    """

    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    name, column = quoted(f"{channel}_tell"), quoted(id_column)
    place = ".".join(quoted(part) for part in (schema, table) if part is not None)
    return f"""\
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $rayrag$
DECLARE
  ids text[] := '{{}}';
  id text;
BEGIN
  IF TG_OP <> 'INSERT' THEN ids := ids || OLD.{column}::text; END IF;
  IF TG_OP <> 'DELETE' THEN ids := ids || NEW.{column}::text; END IF;
  FOREACH id IN ARRAY ids LOOP
    PERFORM pg_notify('{channel}', CASE WHEN octet_length(id) < 7000 THEN id ELSE '' END);
  END LOOP;
  RETURN NULL;
END $rayrag$;

CREATE TRIGGER {name} AFTER INSERT OR UPDATE OR DELETE ON {place}
  FOR EACH ROW EXECUTE FUNCTION {name}();
"""
