"""What an event means: which documents to look at, or that anything may have changed.

Webhooks and message queues say "look", and no more: content and rights are read from the source. So an event that is
not understood is no failure. It asks for a listing, as one does that names too much.

    CloudEvents 1.0 and 0.3   `subject` is the document's id: binary (`ce-` headers), structured, a batch
    plain JSON                {"id": "…"} or {"ids": ["…", …]}
    anything else             list
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloudevents.core.bindings.http import HTTPMessage, from_binary_event
from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.formats.json import JSONFormat

MAX_BYTES = 1_000_000
MAX_IDS = 1_000
"""In one event; more are quicker listed."""
MAX_ID_CHARS = 1_024
LIST: tuple[str, ...] = ()
"""The meaning "anything may have changed"."""
_CE_PREFIX = re.compile("^ce_")
_NOT_UNDERSTOOD = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, BaseCloudEventException)


def ids_of(body: bytes, headers: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Give the ids of the documents to look at, each once; none of them: list. Never raises.

    `headers` matter for binary mode only; Kafka's `ce_` counts as `ce-`.
    """
    if len(body) > MAX_BYTES:
        return LIST
    named = {_CE_PREFIX.sub("ce-", name.lower()): value for name, value in (headers or {}).items()}
    try:
        found = _subject_in(named) if "ce-specversion" in named else _named_by(json.loads(body))
    except _NOT_UNDERSTOOD:
        return LIST
    return _sound(found)


def together(events: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Give what several events ask for at once: a listing where one of them does."""
    all_ids: list[str] = []
    for ids in events:
        if not ids:
            return LIST
        all_ids += ids
    return _sound(all_ids)


def _sound(found: Sequence[Any]) -> tuple[str, ...]:
    ids = [str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in found]
    if not all(isinstance(each, str) and 0 < len(each) <= MAX_ID_CHARS for each in ids):
        return LIST
    once = tuple(dict.fromkeys(ids))
    return once if len(once) <= MAX_IDS else LIST


def _named_by(event: Any) -> Sequence[Any]:
    if isinstance(event, list):
        return [_subject(each) for each in event]
    if not isinstance(event, dict):
        return LIST
    if "specversion" in event:  # an event's own `id` is no document's
        return [_subject(event)]
    if "ids" in event:
        return event["ids"] if isinstance(event["ids"], list) else LIST
    return [event["id"]]


def _subject(event: Any) -> str | None:
    if not isinstance(event, dict) or "specversion" not in event:
        raise ValueError("no CloudEvent")
    return JSONFormat().read(None, json.dumps(event)).get_subject()


def _subject_in(headers: dict[str, str]) -> Sequence[str | None]:
    return [from_binary_event(HTTPMessage(headers, b"")).get_subject()]
