"""From a selected row to its entry."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from ingest.cleaning import given_title
from ingest.connector import Entry, Gone, InlineDocument
from ingest.connectors import database_rows as rows
from ingest.connectors.database_settings import DatabaseSettings
from ingest.connectors.database_table import MAX_TEXT_CHARS
from ingest.connectors.database_watermark import Watermark
from policies.access import NOBODY, AccessRule
from policies.errors import DocumentRejected, InvalidRequest

TWICE = "the same id twice in this source"
NO_ID = "(rows without an id)"


@dataclass(frozen=True, slots=True)
class Found:
    """A row: its id as the database has it, what it is, and what its `updated_column` says."""

    key: Any
    item: Entry | Gone
    updated: Watermark | None


def each_once(page: Sequence[Found]) -> Sequence[Found]:
    """One of each id, of those that come together on one page.

    Rows that are deleted stand back for one that is not. Several that are not are one document that nobody reads: to
    choose one of them would let whoever adds another change its readers.
    """
    groups: dict[Any, list[Found]] = {}
    for found in page:
        groups.setdefault(found.key, []).append(found)
    return [_one_of(group) for group in groups.values()]


def _one_of(group: Sequence[Found]) -> Found:
    there = [(found, found.item) for found in group if isinstance(found.item, Entry)]
    if len(there) < 2:
        return there[0][0] if there else group[0]
    found, entry = there[0]
    return replace(found, item=Entry(replace(entry.ref, rule=NOBODY, fingerprint=""), error=TWICE))


@dataclass(frozen=True, slots=True)
class _Content:
    title: str | None = None
    text: str = ""
    error: str | None = None


class RowReader:
    """Reads the rows that `SourceTable.rows` selects."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._watermark = settings.watermark
        self._default = settings.rule
        self._texts = list(settings.texts)
        self._headings = list(settings.texts.values())
        self._allow = list(settings.allow.values())
        self._deny = list(settings.deny.values())
        self._uri_columns = settings.uri_columns
        after_texts = 4 + len(self._texts)
        after_allow = after_texts + len(self._allow)
        after_deny = after_allow + len(self._deny)
        self._spans = slice(3, after_texts), slice(after_texts, after_allow), slice(after_allow, after_deny)
        self._of_uri = slice(after_deny, None)

    def found(self, row: Sequence[Any], seen_at: float) -> Found:
        """What a row is. What is wrong with it becomes its entry's error; wrong rights permit nobody."""
        key, updated, deleted = row[:3]
        reading = self._watermark.read(updated)
        text = rows.id_text(key)
        external_id = rows.external_id(repr(key) if text is None else text)
        if rows.is_deleted(deleted):
            return Found(key, Gone(external_id), reading)
        changed_at = None if reading is None else reading.unix_s
        usable = text is not None and external_id == text
        return Found(key, self._entry(row, external_id, usable, changed_at, seen_at), reading)

    def content(self, same_id: Sequence[Sequence[Any]]) -> str:
        """The whole text of the one row among these that is not deleted. Raises `DocumentRejected` where none is."""
        there = [row for row in same_id if not rows.is_deleted(row[2])]
        if len(there) != 1:
            raise DocumentRejected(TWICE if there else "deleted while reading")
        content = self._content(there[0])
        if content.error is not None:
            raise DocumentRejected(content.error)
        return content.text

    def without_id(self) -> Entry:
        """What stands for rows that have no id."""
        uri = f"database://{quote(self._settings.name, safe='')}/"
        reason = f"{self._settings.id_column!r} is NULL in at least one row"
        return Entry(self._settings.ref(NO_ID, uri, NOBODY), error=reason)

    def _uri(self, external_id: str, values: Sequence[Any]) -> str:
        """What a reader opens: the configured address, or the row's name in this source."""
        template = self._settings.uri
        if template is None:
            return f"database://{quote(self._settings.name, safe='')}/{quote(external_id, safe='')}"
        named = {name: _text_or_nothing(value) for name, value in zip(self._uri_columns, values, strict=True)}
        return rows.address(template, {**named, "id": external_id})

    def _entry(
        self, row: Sequence[Any], external_id: str, usable: bool, changed_at: float | None, seen_at: float
    ) -> Entry:
        settings, content = self._settings, self._content(row)
        rule, wrong = self._rule(row)
        error = content.error if wrong is None else wrong
        if not usable:
            error = f"its {settings.id_column!r} is empty, too long or cannot be stored"
        size = len(content.text.encode("utf-8", "replace"))
        uri = self._uri(external_id, row[self._of_uri])
        digest = "" if error is not None else rows.fingerprint(content.title, content.text)
        title = content.title
        ref = replace(settings.ref(external_id, uri, rule, digest, size, title), seen_at=seen_at)
        if error is not None:
            return Entry(ref, error=error, changed_at=changed_at)
        if settings.html or size > settings.inline_bytes:
            name = "row.html" if settings.html else "row.txt"
            return Entry(ref, location=external_id, name=name, changed_at=changed_at)
        return Entry(ref, inline=InlineDocument(title, content.text), changed_at=changed_at)

    def _content(self, row: Sequence[Any]) -> _Content:
        try:
            given, *values = [rows.plain(value) for value in row[self._spans[0]]]
        except ValueError:
            return _Content(error="the text or title holds bytes, and no text")
        for name, value in zip(("the title", *self._texts), (given, *values), strict=True):
            if len(value) > MAX_TEXT_CHARS:
                return _Content(error=f"{name} is longer than {MAX_TEXT_CHARS} characters")
        title = given_title(given)
        if not any(value.strip() for value in values):  # a subject without a body says something, too
            values[0] = html.escape(given) if self._settings.html else given
        text = rows.page(title, self._headings, values) if self._settings.html else rows.joined(self._headings, values)
        if not any(value.strip() for value in values) or not text.strip():
            return _Content(title, error="text is empty")
        return _Content(title, text)

    def _rule(self, row: Sequence[Any]) -> tuple[AccessRule, str | None]:
        """Who may read the row, and what is wrong with its rights: nobody reads it then."""
        _, allow, deny = self._spans
        allowing = list(zip(self._allow, row[allow], strict=True))
        denying = list(zip(self._deny, row[deny], strict=True))
        try:
            return rows.rule_of_row(allowing, denying, self._default), None
        except InvalidRequest as error:
            return NOBODY, f"access: {error.detail}"


def _text_or_nothing(value: Any) -> str:
    try:
        return rows.plain(value)
    except ValueError:
        return ""
