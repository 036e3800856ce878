"""What Confluence says of a page, a blog post or a file, as values. Pure; nothing in an answer is taken on trust."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from ingest.cleaning import clean
from ingest.connectors.confluence_rights import Readers
from policies.principals import has_unseen

Kind = Literal["page", "blogpost", "attachment"]
ID = re.compile(r"(?:att)?[0-9]{1,20}")
MAX_NAME_CHARS = 200
MAX_LINK_CHARS = 2_000
_MEDIA = ("image/", "video/", "audio/", "font/")


@dataclass(frozen=True, slots=True)
class Above:
    """What stands above a page: another page, or (Cloud) a folder, a whiteboard, a database, an embed."""

    id: str
    kind: str


@dataclass(frozen=True, slots=True)
class Item:
    """A page, a blog post or an attachment that is there now.

    `own` is its own read restriction, none where that must be asked for; `above` what it inherits from, outermost
    first, none where only its `parent` is known. Of an attachment `page` is what it hangs on, `download` its path.
    """

    id: str
    kind: Kind
    title: str
    space: str
    version: int | None
    changed_at: float | None
    link: str
    own: Readers | None = None
    above: tuple[Above, ...] | None = ()
    parent: Above | None = None
    page: str | None = None
    download: str = ""
    size_bytes: int = 0

    @property
    def external_id(self) -> str:
        """Stays when it is renamed or moves with its page. A file lies below its page."""
        return self.id if self.page is None else f"{self.page}/{self.id}"

    @property
    def file_name(self) -> str:
        """What the parser goes by."""
        if self.kind != "attachment":
            return f"{self.id}.html"
        name = PurePosixPath(" ".join(clean(self.title).split()).replace("\\", "/")).name
        stem, dot, suffix = name.rpartition(".")
        return f"{stem[:MAX_NAME_CHARS]}{dot}{suffix[:20]}" if dot else name[:MAX_NAME_CHARS]


def identity(value: Any) -> str | None:
    """Give an id (of a content or a space) as text; none for what is none."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if ID.fullmatch(text) else None


def subject_key(value: Any, *fields: str) -> str | None:
    """Give the first of these fields of a user or group that holds a key."""
    for field in fields if isinstance(value, dict) else ():
        found = value.get(field)
        if isinstance(found, str) and 0 < len(found) <= 255 and found.strip() == found and not has_unseen(found):
            return found
    return None


def version_of(row: dict[str, Any], when: str) -> tuple[int | None, float | None]:
    """Give a version's number and when it was made, Unix seconds; none for what is not told."""
    version = row.get("version")
    if not isinstance(version, dict):
        return None, None
    number, at = version.get("number"), version.get(when)
    is_number = isinstance(number, int) and not isinstance(number, bool) and number > 0
    return number if is_number else None, _seconds(at)


def _seconds(text: Any) -> float | None:
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
        seconds = None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None


def size_of(value: Any) -> int:
    """Bytes of a file as told; 0 where it is not."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def is_media(media_type: Any) -> bool:
    """Say whether a file is an image, a recording or a font: nothing that text is read from."""
    return isinstance(media_type, str) and media_type.lower().startswith(_MEDIA)


def path_within(link: Any) -> str | None:
    """Give a path as it stands in an answer; none unless it stays where it is joined to."""
    is_path = isinstance(link, str) and link.startswith("/") and not link.startswith("//") and len(link) <= 8_000
    return None if not is_path or "\\" in link or has_unseen(link) or ".." in re.split(r"[/?#]", link) else link


def web_link(base: Any, path: Any, own_base: str, fallback: str) -> str:
    """Give what a reader can click: `path` below the address that Confluence gives itself, if it is one of the web."""
    try:
        parts = urlsplit(base if isinstance(base, str) else "")
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        is_web = False
    root = base.rstrip("/") if is_web and not has_unseen(base) and len(base) < 500 and '"' not in base else own_base
    within = path_within(path)
    if within is not None:
        link = root + quote(within, safe="/?&=#%+:;,@!$'()*~")
        if len(link) <= MAX_LINK_CHARS:
            return link
    return root + fallback
