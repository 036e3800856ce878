"""A JSONL with one document a line: `{"id", "text", "title"?, "uri"?, "acl"?, "label"?, "metadata"?}`.

A line that is wrong is an error of its own and leaves its neighbours alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from index.document import DocumentRef
from index.labels import SaidLabel
from ingest.acl_file import rule_of
from ingest.cleaning import cleaned, given_title, shown_uri
from ingest.connector import Entry, InlineDocument
from ingest.source_settings import SourceSettings
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, InvalidRequest, SourceUnavailable
from policies.labels import Label

MAX_ROW_BYTES = 64_000_000


class _Row(BaseModel):
    """A line of a JSONL. Unknown keys are errors: a misspelt `acl` must not fall back to a wider rule."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(min_length=1, max_length=1024)
    text: str = Field(min_length=1)
    title: str | None = None
    uri: str | None = None
    acl: list[str] | dict[str, list[str]] = Field(default_factory=list)
    label: SaidLabel = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RowFile:
    """A JSONL as its source knows it: `path` is its own id, `prefix` what the ids of its rows begin with.

    `rule`: who reads a row that says nothing, and the label of one that has none; `changed_at` and `seen_at` are the
    file's, in Unix seconds.
    """

    settings: SourceSettings
    path: str
    prefix: str
    uri: str
    rule: AccessRule
    changed_at: float | None
    seen_at: float

    def entries(self, stream: IO[bytes]) -> Iterator[Entry]:
        """Read the file's rows. Raises `SourceUnavailable` where reading breaks off."""
        seen: set[bytes] = set()

        def claim(external_id: str | None) -> bool:
            """Whether this is the first line with that id."""
            digest = hashlib.blake2b((external_id or "").encode(), digest_size=16).digest()
            first = external_id is not None and digest not in seen
            seen.add(digest)
            return first

        for number, line in self._numbered_lines(stream):
            if line is not None and not line.strip():
                continue
            external_id, reason, readers = f"line-{number}", f"longer than {MAX_ROW_BYTES} bytes", NOBODY
            if line is not None:
                row, reason = _parse_row(line)
                said = _json(line)
                named, readers = row.id if row else _id_of(said), _readers(said, self.rule)
                if claim(named):
                    external_id = named or external_id
                elif row:
                    reason = f"id {row.id[:100]!r} is taken by a line above"
                    row = None
                if row:
                    yield self._entry(row, external_id, number)
                    continue
            yield self._bad(external_id, number, reason, readers)

    def _entry(self, row: _Row, external_id: str, number: int) -> Entry:
        try:
            said = rule_of(row.acl) if "acl" in row.model_fields_set else self.rule
        except ConfigurationError as error:
            return self._bad(external_id, number, error.detail, NOBODY)
        rule = replace(said, label=self.rule.label if row.label is None else row.label)
        try:
            uri = shown_uri(row.uri) if row.uri else self.uri
        except InvalidRequest as error:
            return self._bad(external_id, number, error.detail, rule)
        text, unseen = cleaned(row.text)
        if not text.strip():
            return self._bad(external_id, number, "text is empty", rule)
        content = json.dumps([row.title, row.text, row.uri, row.metadata], sort_keys=True, ensure_ascii=False)
        fingerprint = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
        title = given_title(row.title)
        size = len(row.text.encode("utf-8", "replace"))
        ref = self._ref(external_id, uri, rule, title, fingerprint, size)
        inline = InlineDocument(title, text, row.metadata or {}, unseen)
        return Entry(ref, inline=inline, changed_at=self.changed_at)

    def _bad(self, external_id: str, number: int, reason: str, rule: AccessRule) -> Entry:
        error = f"line {number}: {reason}"
        return Entry(self._ref(external_id, self.uri, rule), error=error, changed_at=self.changed_at)

    def _ref(
        self,
        external_id: str,
        uri: str,
        rule: AccessRule,
        title: str | None = None,
        fingerprint: str = "",
        size_bytes: int = 0,
    ) -> DocumentRef:
        of = self.settings
        whole = self.prefix + external_id
        return DocumentRef(of.tenant, of.name, whole, uri, title, fingerprint, rule, size_bytes, self.seen_at)

    def _numbered_lines(self, stream: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
        """Lines from 1 on; none for one that is too long."""
        number = 0
        while line := self._line(stream, MAX_ROW_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) <= MAX_ROW_BYTES:
                yield number, line
                continue
            while line and not line.endswith(b"\n"):
                line = self._line(stream, MAX_ROW_BYTES)
            yield number, None

    def _line(self, stream: IO[bytes], limit: int) -> bytes:
        try:
            return stream.readline(limit)
        except Exception as error:
            raise SourceUnavailable(f"{self.path}: cannot be read on: {type(error).__name__}") from error


def is_rows(name: str) -> bool:
    """Say whether a file of this name holds a document a line."""
    return name.lower().endswith(".jsonl")


def row_files(external_id: str) -> list[str]:
    """The paths of the files whose row `external_id` may be (`<path>#<id>`), shortest first."""
    ends = [
        at for at in range(len(external_id)) if external_id[at] == "#" and is_rows(external_id[max(0, at - 6) : at])
    ]
    return [external_id[:at] for at in ends]


def _parse_row(line: bytes) -> tuple[_Row | None, str]:
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        return None, _reason(error)
    return (None, "id: holds a NUL character") if "\x00" in row.id else (row, "")


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _id_of(said: Any) -> str | None:
    external_id = said.get("id") if isinstance(said, dict) else None
    if not isinstance(external_id, str) or not 0 < len(external_id) <= 1024 or "\x00" in external_id:
        return None
    return external_id.encode("utf-8", "replace").decode()


def _readers(said: Any, rule: AccessRule) -> AccessRule:
    """Who may still read the document of a row that is wrong: the row's rule, or the file's; nobody where in doubt."""
    if not isinstance(said, dict) or not said.keys() <= _Row.model_fields.keys():
        return NOBODY  # a misspelt `acl` may be among them
    try:
        label = Label.of(said["label"]) if "label" in said else rule.label
        return replace(rule_of(said["acl"]) if "acl" in said else rule, label=label)
    except (ConfigurationError, InvalidRequest):
        return NOBODY


def _reason(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return f"no valid JSON: {problem['msg'].removeprefix('Invalid JSON: ')[:200]}"
    path = ".".join(str(part) for part in problem["loc"][:1]) or "row"
    if path == "acl":
        return "acl must be a list of principals or {allow: [...], deny: [...]}"
    allowed = f"; allowed here: {', '.join(_Row.model_fields)}" if problem["type"] == "extra_forbidden" else ""
    return f"{path}: {problem['msg'].removeprefix('Value error, ')}{allowed}"
