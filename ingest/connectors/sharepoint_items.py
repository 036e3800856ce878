"""What Microsoft Graph says of files and folders, checked, and what a listing remembers for the next one. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from policies.access import AccessRule
from policies.errors import SourceUnavailable
from policies.principals import has_unseen

SELECT = [
    *("id", "name", "size", "file", "folder", "package", "remoteItem", "deleted", "malware"),
    *("parentReference", "webUrl", "lastModifiedDateTime", "cTag"),
]
MAX_URI_CHARS = 4_096
MAX_NAME_CHARS = 255
_ID = re.compile(r"(?!\.+$)[^\x00-\x20\x7f/\\?#%]{1,512}")


@dataclass(frozen=True, slots=True)
class Item:
    """A file, a folder, or what is neither (a notebook, a shortcut to another drive), as Graph tells of it.

    `tag` changes with the content; none where Graph left it out, as the delta of some drives does.
    """

    id: str
    kind: Literal["file", "folder", "other"]
    parent: str | None = None
    name: str = ""
    deleted: bool = False
    empty: bool = False
    infected: bool = False
    size_bytes: int = 0
    uri: str = ""
    tag: str | None = None
    spare_tag: str = ""
    changed_at: float | None = None


def is_item_id(text: str) -> bool:
    """Say whether Graph could have given this id."""
    return _ID.fullmatch(text) is not None


def read_item(value: Any, drive_id: str) -> Item:
    """Read a driveItem. Raises `SourceUnavailable` where it is none; what is wrong beside its id is left out."""
    item_id = value.get("id") if isinstance(value, dict) else None
    if not isinstance(item_id, str) or not is_item_id(item_id):
        raise SourceUnavailable("Microsoft Graph names an item without an id")
    folder = _inner(value, "folder")
    size = value.get("size")
    size_bytes = size if isinstance(size, int) and size > 0 else 0
    modified = _text(value, "lastModifiedDateTime")
    return Item(
        item_id,
        _kind(value),
        _text(_inner(value, "parentReference"), "id") or None,
        _text(value, "name"),
        value.get("deleted") is not None or "@removed" in value,
        folder.get("childCount") == 0,
        value.get("malware") is not None,
        size_bytes,
        shown_uri(_text(value, "webUrl"), drive_id, item_id),
        _text(value, "cTag") or None,
        f"{modified}/{size_bytes}/{_text(_inner(_inner(value, 'file'), 'hashes'), 'quickXorHash')}",
        _seconds(modified),
    )


def shown_uri(web_url: str, drive_id: str, item_id: str) -> str:
    """The address that a reader may follow; where Graph gives none that is safe to show, the item's own name."""
    try:
        parts = urlsplit(web_url)
        safe = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    except ValueError:
        safe = False
    if safe and len(web_url) <= MAX_URI_CHARS and not has_unseen(web_url) and not set(web_url) & set(' <>"\\'):
        return web_url
    return f"sharepoint:{quote(drive_id, safe='!')}/{quote(item_id, safe='!')}"


def file_name(name: str) -> str | None:
    """The name that a parser may go by: without folders and what nobody sees, and not endless."""
    plain = "".join(character for character in re.split(r"[/\\]", name)[-1] if not has_unseen(character))
    return plain[-MAX_NAME_CHARS:] or None


def _kind(value: Mapping[str, Any]) -> Literal["file", "folder", "other"]:
    if value.get("remoteItem") is not None or value.get("package") is not None:
        return "other"
    if value.get("folder") is not None:
        return "folder"
    return "file" if value.get("file") is not None else "other"


def _inner(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _seconds(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass(slots=True)
class Cursor:
    """Where a listing ended, and what the next one must compare.

    `scope` names the settings and the place that it holds for. `link` is Graph's own cursor. `folders`: what stood of
    each folder that changes things below it (see `folder_mark`), by id. `groups`: the members of each expanded group,
    as a digest. `due`: ids of files to look at again, and from when (Unix seconds): where a right ends, or could not
    be read.
    """

    scope: str
    link: str = ""
    folders: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)

    def encode(self) -> str:
        """Give it as text: about 40 characters for each folder."""
        told = json.dumps([self.scope, self.link, self.folders, self.groups, self.due])
        return "1:" + base64.urlsafe_b64encode(zlib.compress(told.encode())).decode()

    @classmethod
    def decode(cls, text: str | None, scope: str) -> Cursor | None:
        """Read it; none where it is of another kind or for another place or other settings."""
        if text is None or not text.startswith("1:"):
            return None
        try:
            told, link, folders, groups, due = json.loads(zlib.decompress(base64.urlsafe_b64decode(text[2:])))
        except (ValueError, TypeError, zlib.error):
            return None
        kinds = (isinstance(link, str), *(isinstance(part, dict) for part in (folders, groups, due)))
        return cls(scope, link, folders, groups, due) if told == scope and all(kinds) else None


def folder_mark(folder: Item, rule: AccessRule) -> str:
    """Stand for what of a folder changes the address or the readers of what is below it; `-` first if it is empty."""
    return ("-" if folder.empty else "") + digest(folder.parent or "", folder.name, rule.key)


def digest(*parts: str) -> str:
    """48 bits of SHA-256 over some texts: enough to tell two states of one thing apart."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
