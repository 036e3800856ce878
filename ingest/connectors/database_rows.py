"""A row as a document: its text, its fingerprint, its readers. Pure."""

from __future__ import annotations

import hashlib
import html
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import quote

from ingest.cleaning import clean
from policies.access import AccessRule
from policies.errors import InvalidRequest

PrincipalKind = Literal["user", "group", "role", "principal"]
MAX_ID_CHARS = 1_024
_SEPARATORS = re.compile(r"[,;|\n]")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?", re.ASCII)
_NOT_DELETED = frozenset({"", "0", "f", "false", "n", "no"})


# ---- ids ----


def id_text(value: Any) -> str | None:
    """The id by which a row is known outside of the database; none for a type that is no id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | uuid.UUID):
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else None
    return bytes(value).hex() if isinstance(value, bytes | bytearray | memoryview) else None


def id_value(text: str, kind: type) -> Any:
    r"""The value of a column of ids, of Python type `kind`, that `id_text` gives this text for; none where none can be.

    Forms in which a database writes the same id (a UUID in capitals, bytes as `\x…`) are understood, too.
    """
    if kind is int:
        return _whole(text)
    if kind is uuid.UUID:
        return _or_none(uuid.UUID, text)
    if kind is Decimal:
        return Decimal(text) if _DECIMAL.fullmatch(text) else None
    if kind is bytes:
        return _or_none(bytes.fromhex, text.removeprefix("\\x"))
    return text if is_storable(text) else None


def is_storable(text: str) -> bool:
    """Whether a database can hold this text: no NUL, no lone surrogates."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def external_id(text: str) -> str:
    """The id as it goes on: one that is empty, endless or cannot be stored is replaced by its hash."""
    if 0 < len(text) <= MAX_ID_CHARS and is_storable(text):
        return text
    return "unusable-id-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _whole(text: str) -> int | None:
    number = int(text) if _INTEGER.fullmatch(text) else None
    return number if number is not None and -(2**63) <= number < 2**63 else None


def _or_none(read: Any, text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        return None


# ---- content ----


def plain(value: Any) -> str:
    """A column's value as text. Raises `ValueError` for bytes that are no UTF-8."""
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8")
    return str(value)


def joined(headings: Sequence[str], values: Sequence[str]) -> str:
    """The texts of several columns as one, each under its heading; a single column stands for itself.

    `Status: open` where the value is one line, else the value below its heading; empty ones are left out.
    """
    texts = [clean(value).strip("\n") for value in values]
    if len(headings) == 1:
        return texts[0]
    parts = [
        f"{heading}:\n{text}" if "\n" in text else f"{heading}: {text.strip()}"
        for heading, text in zip(headings, texts, strict=True)
        if text.strip()
    ]
    return "\n\n".join(parts)


def page(title: str | None, headings: Sequence[str], values: Sequence[str]) -> str:
    """The HTML of several columns as one page, for the parser: each below its heading; empty ones are left out."""
    shown = [(heading, value) for heading, value in zip(headings, values, strict=True) if value.strip()]
    body = "\n".join(
        value if len(headings) == 1 else f"<h2>{html.escape(heading)}</h2>\n<div>{value}</div>"
        for heading, value in shown
    )
    name = f"<title>{html.escape(title)}</title>" if title else ""
    return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8">{name}</head><body>\n{body}\n</body></html>\n'


def fingerprint(title: str | None, text: str) -> str:
    """What changes with the content, and with nothing else."""
    content = json.dumps([title, text], ensure_ascii=False).encode("utf-8", "replace")
    return hashlib.sha256(content).hexdigest()


def is_deleted(value: Any) -> bool:
    """Whether a `deleted_column` says that the row is deleted: a time, true, not zero, a text that is no "no"."""
    if value is None:
        return False
    if isinstance(value, str):
        return value.strip().lower() not in _NOT_DELETED
    return bool(value)


def uri_columns(template: str) -> list[str]:
    """The names in `{…}` of an address's template, without `id`."""
    return [name for name in dict.fromkeys(_PLACEHOLDER.findall(template)) if name != "id"]


def address(template: str, values: Mapping[str, str]) -> str:
    """Fill a template in; no value can leave its place in the address."""
    return _PLACEHOLDER.sub(lambda match: quote(values[match.group(1)], safe="", errors="replace"), template)


# ---- rights ----


def rule_of_row(
    allow: Sequence[tuple[PrincipalKind, Any]], deny: Sequence[tuple[PrincipalKind, Any]], default: AccessRule
) -> AccessRule:
    """Who may read a row, from the values of its columns of rights, each with the kind of names it holds.

    NULL says nothing, and `default` holds where no column allows or denies anything; an empty value says "nobody". What
    `default` denies stays denied. Raises `InvalidRequest` for a value that is wrong: nobody may read then.
    """
    allowed, denied = _names(allow), _names(deny)
    of_row = AccessRule.of(allowed or (), denied or ())
    return AccessRule(of_row.allow if allowed is not None else default.allow, of_row.deny | default.deny)


def _names(columns: Sequence[tuple[PrincipalKind, Any]]) -> list[str] | None:
    said = [(kind, value) for kind, value in columns if value is not None]
    if not said:
        return None
    return [name if kind == "principal" else f"{kind}:{name}" for kind, value in said for name in _listed(value, kind)]


def _listed(value: Any, kind: PrincipalKind) -> list[str]:
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith(("[", "{")) else _split(value)
    elif isinstance(value, int | uuid.UUID):
        value = [value]
    if not isinstance(value, list | tuple):
        raise InvalidRequest("neither text nor a list of principals")
    numbers = int | uuid.UUID if kind != "principal" else ()  # the number of a user or group
    for name in value:
        if not isinstance(name, str) and (isinstance(name, bool) or not isinstance(name, numbers)):
            raise InvalidRequest("a list of principals holds something else than names")
    return [str(name) for name in value]


def _split(text: str) -> list[str]:
    return [name.strip() for name in _SEPARATORS.split(text) if name.strip()]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("no valid JSON list of principals") from error
