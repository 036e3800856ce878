"""From an item of a REST API's answer to an entry: pure, strict about types, closed where readers are in doubt.

An item that is wrong becomes an entry with an error; one without a usable id cannot be named at all.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from ingest.acl_file import rule_of
from ingest.cleaning import clean, given_title
from ingest.connector import Entry, Gone, InlineDocument
from ingest.connectors.address_guard import AddressRefused, parse_address
from ingest.connectors.rest_settings import PrincipalPath, Readers, RestSettings, compiled
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError

MAX_ID_CHARS = 1024
WITHOUT_ID = "without-id:"
"""How entries of items are named that have no id; no real id may begin like this."""
ITEM, FILE = "item:", "file:"
"""What a location begins with: the id of an item whose text is to be read, or the URL of a file."""
_SUFFIXES = {"text": "txt", "markdown": "md", "html": "html"}
_KINDS = {list: "a list", dict: "an object", bool: "true or false", type(None): "null"}


class WrongField(ValueError):
    """A field that is not what it must be; the text says which and what it is."""


@dataclass(frozen=True, slots=True)
class Readable:
    """The compiled path of a principal field, and the kind that its names have."""

    path: Any
    kind: str | None


class ItemReader:
    """Reads items by one source's field map."""

    def __init__(self, settings: RestSettings) -> None:
        self._settings = settings
        self._base = settings.url.partition("?")[0]  # a query may hold a secret, and is no part of where a link leads
        fields = settings.fields
        names = ("id", "content_url", "name", "title", "uri", "updated", "version", "deleted")
        self._paths = {name: compiled(path) for name in names if (path := getattr(fields, name)) is not None}
        self._texts = [compiled(path) for path in fields.texts]
        self._allow, self._deny = _readables(fields.allow), _readables(fields.deny)

    def id_of(self, item: Any) -> str | None:
        """The item's id as text: a string or a whole number; none for anything else."""
        try:
            value = self._value(item, "id")
        except WrongField:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS:
            return None
        if "\x00" in value or value.startswith(WITHOUT_ID):
            return None
        return value.encode("utf-8", "replace").decode()

    def read(self, item: Any) -> Entry | Gone | None:
        """Give the entry of an item, `Gone` where it says that it was deleted, none where it has no usable id."""
        external_id = self.id_of(item)
        if external_id is None:
            return None
        rule, uri = NOBODY, self._fallback_uri(external_id)
        try:
            if self._is_deleted(item):
                return Gone(external_id)
            rule = rule_of_item(item, self._allow, self._deny, self._settings.rule)
            uri = self._uri(item) or uri
            return self._entry(item, external_id, rule, uri)
        except WrongField as error:
            return Entry(self._settings.ref(external_id, uri, rule), error=str(error))

    def nameless(self, number: int) -> Entry:
        """What stands for an item without an id."""
        ref = self._settings.ref(f"{WITHOUT_ID}{number}", self._settings.api.origin, NOBODY)
        return Entry(ref, error="the item has no id, or one that is no text or whole number")

    def text_of(self, item: Any) -> str:
        """The item's texts, one after the other. Raises `WrongField` where one is not text."""
        return "\n\n".join(self._strings(item))

    def _entry(self, item: Any, external_id: str, rule: AccessRule, uri: str) -> Entry:
        settings = self._settings
        title = given_title(self._text(item, "title"))
        said = [self._text(item, name) for name in ("version", "updated")]
        changed_at = unix_time(said[1])
        stamp = next((f"{name}:{value}" for name, value in zip("vu", said, strict=True) if value), None)
        ref = settings.ref(external_id, uri, rule, title=title)
        if settings.fields.content_url is not None:
            name, location = self._file(item)
            return self._elsewhere(Entry(ref, FILE + location, name=name, changed_at=changed_at), stamp)
        suffix = _SUFFIXES[settings.text_format]
        if settings.text_in == "item" or settings.text_format == "html":
            if settings.item_address(external_id) is None:
                raise WrongField("id: it cannot stand in the address of item_url")
            entry = Entry(ref, ITEM + external_id, name=f"item.{suffix}", changed_at=changed_at)
            if settings.text_in == "item":
                return self._elsewhere(entry, stamp)
            return replace(entry, ref=replace(ref, fingerprint=_hash(title, self._some_text(item))))
        text = self._some_text(item)
        ref = replace(ref, fingerprint=_hash(title, text), size_bytes=len(text.encode()))
        return Entry(ref, inline=InlineDocument(title, text), changed_at=changed_at)

    def _elsewhere(self, entry: Entry, stamp: str | None) -> Entry:
        """The entry of a text that is not here: what the item says of its version tells whether it changed."""
        if stamp is None:
            raise WrongField("version, updated: neither says which text this is")
        place = (entry.location or "").partition("?")[0]  # what follows may be a signature, new each time
        fingerprint = _hash(entry.ref.title, place, stamp)
        return replace(entry, ref=replace(entry.ref, fingerprint=fingerprint))

    def _some_text(self, item: Any) -> str:
        text = clean("\n\n".join(self._strings(item)))
        if not text.strip():
            raise WrongField("text is empty")
        return text

    def _strings(self, item: Any) -> list[str]:
        found = []
        for path in self._texts:
            for value in _found(path, item, "text"):
                if value is not None:
                    found.append(_as_text(value, "text"))
        return found

    def _file(self, item: Any) -> tuple[str, str]:
        value = self._text(item, "content_url")
        if not value:
            raise WrongField("content_url is missing")
        try:
            address = parse_address(value, base=self._base)
        except AddressRefused as error:
            raise WrongField(f"content_url: {error.detail}") from error
        if address.scheme != "https" and address.origin != self._settings.api.origin:
            raise WrongField("content_url: it must begin with https://")
        named = clean(self._text(item, "name") or "").replace("\\", "/").rsplit("/", 1)[-1].strip()
        return (named or address.path.rsplit("/", 1)[-1] or "file")[-200:], address.url

    def _uri(self, item: Any) -> str | None:
        """A link that a reader can click; none for `javascript:` and the like: the document has its other address."""
        value = self._text(item, "uri")
        try:
            return self._settings.shown(parse_address(value, base=self._base).url) if value else None
        except AddressRefused:
            return None

    def _fallback_uri(self, external_id: str) -> str:
        settings = self._settings
        if settings.link is not None:
            return settings.link.replace("{id}", quote(external_id, safe=""))
        return f"{settings.api.url.partition('?')[0]}#{quote(external_id, safe='')}"

    def _is_deleted(self, item: Any) -> bool:
        value = self._value(item, "deleted")
        if isinstance(value, list | dict):
            raise WrongField(f"deleted is {_KINDS[type(value)]}")
        return value not in (None, False, 0, "", "0", "false", "False", "no")

    def _text(self, item: Any, name: str) -> str | None:
        value = self._value(item, name)
        return None if value is None else _as_text(value, name)

    def _value(self, item: Any, name: str) -> Any:
        """The first value at a field's path; none where there is no path, or nothing at it."""
        path = self._paths.get(name)
        return None if path is None else next(iter(_found(path, item, name)), None)


def rule_of_item(item: Any, allow: Sequence[Readable], deny: Sequence[Readable], default: AccessRule) -> AccessRule:
    """Who may read an item. Each half that no field speaks for is the source's own.

    Nobody where a field is missing or `allow` is null: what the API does not say is not known. Raises `WrongField`
    where what it says is malformed.
    """
    said: dict[str, list[str]] = {}
    for key, readables in (("allow", allow), ("deny", deny)):
        names = _names(item, readables, key)
        if names is None:
            return NOBODY
        said[key] = names if readables else sorted(getattr(default, key))
    try:
        return rule_of(said)
    except ConfigurationError as error:
        raise WrongField(error.detail) from error


def _names(item: Any, readables: Sequence[Readable], key: str) -> list[str] | None:
    """The principals at these paths; none where a path leads nowhere, or to null where that may mean anybody."""
    names: list[str] = []
    for readable in readables:
        found = _found(readable.path, item, key)
        if not found or (key == "allow" and any(value is None for value in found)):
            return None
        for value in found:
            for name in value if isinstance(value, list) else [value]:
                if name is not None:
                    names.append(_principal(name, readable.kind, key))
    return names


def _principal(value: Any, kind: str | None, key: str) -> str:
    if kind is not None and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise WrongField(f"{key} holds {_kind_of(value)} in place of a name")
    return value if kind is None else f"{kind}:{value}"


def unix_time(value: str | None) -> float | None:
    """Read a time: ISO 8601 (UTC without a zone), an HTTP date, Unix seconds or milliseconds; none otherwise."""
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        return _calendar_time(value)
    if not math.isfinite(number) or number <= 0:
        return None
    return number / 1000 if number > 1e11 else number


def _calendar_time(value: str) -> float | None:
    for read in (datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            moment = read(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def _readables(readers: Readers | None) -> list[Readable]:
    listed = readers if isinstance(readers, list) else [] if readers is None else [readers]
    return [
        Readable(compiled(each.path), each.kind) if isinstance(each, PrincipalPath) else Readable(compiled(each), None)
        for each in listed
    ]


def _found(path: Any, item: Any, name: str) -> list[Any]:
    from jsonpath import JSONPathError

    try:
        return list(path.findall(item))
    except (JSONPathError, RecursionError, TypeError) as error:
        raise WrongField(f"{name}: its path cannot be followed in this item") from error


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise WrongField(f"{name} is {_kind_of(value)} in place of text")
    return value if isinstance(value, str) else json.dumps(value)


def _kind_of(value: Any) -> str:
    return _KINDS.get(type(value), "a number")


def _hash(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
