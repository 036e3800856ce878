"""The parts of an Office file (Open XML): how they belong together, and what of them is cut out, byte by byte.

What stays is the file's own bytes: nothing is written anew but the parts that lost something.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any
from xml.parsers import expat

from ingest.archives import NO_ARCHIVE
from ingest.hidden import Taken
from policies.errors import DocumentRejected

MAX_PART_BYTES = 100_000_000
"""Of a larger one the parser refuses the file, so nothing hidden in it is read."""
MAX_DEPTH = 400
"""Elements within elements; what an office program writes has about forty."""
_ENCODING = re.compile(r"encoding\s*=\s*[\"'][\w.-]+[\"']")
Attributes = Mapping[str, str]
"""An element's attributes by their names without prefix."""


class OfficeParts:
    """A file's parts, read on demand, and those that were changed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._archive = zipfile.ZipFile(io.BytesIO(data))
        self.names = [entry.filename for entry in self._archive.infolist()]
        self._changed: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """Give a part as UTF-8, or nothing where it is missing, damaged or larger than `MAX_PART_BYTES`."""
        try:
            if self._archive.getinfo(name).file_size > MAX_PART_BYTES:
                return b""
            part = self._archive.read(name)
        except (KeyError, *NO_ARCHIVE):
            return b""
        wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(part[:2])
        if wide is None:
            return part
        text = part.decode(wide, "replace")
        return (_ENCODING.sub('encoding="UTF-8"', text[:200]) + text[200:]).encode("utf-8", "replace")

    def related(self, name: str) -> list[tuple[str, str, str]]:
        """The parts that a part names: relation's id, kind (the last word of its type), part."""
        folder, base = posixpath.split(name)
        found = []
        walk = _Relationships()
        walk.run(self.read(f"{folder}/_rels/{base}.rels"))
        for values in walk.found:
            target = values.get("Target", "")
            target = (
                target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
            )
            found.append((values.get("Id", ""), values.get("Type", "").rpartition("/")[2], target))
        return found

    def cut(self, name: str, part: bytes, cuts: list[tuple[int, int]]) -> None:
        """Take bytes `[start, end)` out of a part; they come in order and do not overlap."""
        pieces, position = [], 0
        for start, end in cuts:
            pieces.append(part[position:start])
            position = end
        self._changed[name] = b"".join([*pieces, part[position:]])

    def data(self) -> bytes:
        """The file as it is now."""
        if not self._changed:
            return self._data
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in dict.fromkeys(self.names):
                changed = self._changed.get(name)
                archive.writestr(name, self._archive.read(name) if changed is None else changed)
        return stream.getvalue()


class Walk:
    """Goes through a part once. Subclasses look at elements by their names without prefix, and cut some of them.

    `path` holds the open elements, the innermost last.
    """

    def __init__(self) -> None:
        self.path: list[str] = []
        self.cuts: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._part = b""
        self._parser: Any = None

    def run(self, part: bytes) -> bool:
        """Give False where there is no such part. Raises `DocumentRejected` where it is no well-formed XML.

        A more lenient reader would find in it what is not found here: what nobody sees would be indexed.
        """
        if not part:
            return False
        parser = self._parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._begin, self._finish
        parser.CharacterDataHandler = self.text
        parser.StartDoctypeDeclHandler = self._refuse
        self._part = part
        try:
            parser.Parse(part, True)
        except _Refused as error:
            raise DocumentRejected(f"refused for safety: {error}") from error
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise DocumentRejected("damaged: a part of it is no well-formed XML") from error
        return True

    def begin(self, name: str, attributes: Attributes) -> None:
        """An element begins; it is the last of `path`."""

    def finish(self, name: str) -> bool:
        """An element ends; it is still the last of `path`. True: cut it."""
        return False

    def text(self, text: str) -> None:
        """Characters of the last element of `path`."""

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        self.path.append(local)
        if len(self.path) > MAX_DEPTH:
            raise _Refused(f"a part of it is nested deeper than {MAX_DEPTH} elements")
        self._starts.append(self._parser.CurrentByteIndex)
        own = {"", name.rpartition(" ")[0]}  # another vocabulary's attribute of the same name must not stand for it
        keys = sorted(attributes, key=lambda key: key.rpartition(" ")[0] in own) if len(attributes) > 1 else attributes
        self.begin(local, {key.rpartition(" ")[2]: attributes[key] for key in keys})

    def _finish(self, name: str) -> None:
        start = self._starts.pop()
        if self.finish(name.rpartition(" ")[2]):
            end = self._part.index(b">", self._parser.CurrentByteIndex) + 1
            while self.cuts and self.cuts[-1][0] >= start:
                self.cuts.pop()  # it stood inside
            self.cuts.append((start, end))
        self.path.pop()

    def _refuse(self, *_: object) -> None:
        raise _Refused("a part of it declares a document type")


class _Refused(Exception):
    """A document type, which Open XML forbids and with it entities; or more depth than any program writes."""


class _Relationships(Walk):
    """The attributes of each relationship."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Attributes] = []

    def begin(self, name: str, attributes: Attributes) -> None:
        if name == "Relationship":
            self.found.append(attributes)


def whole(text: str) -> int | None:
    """Read a number of at most nine digits, leading zeros aside."""
    text = text.strip()
    digits = text.lstrip("0")
    return int(digits or "0") if text.isdecimal() and len(digits) <= 9 else None


def is_on(attributes: Attributes, name: str = "val", default: bool = True) -> bool:
    """Read a truth value of Open XML."""
    value = attributes.get(name)
    return default if value is None else value.lower() not in ("0", "false", "off", "none")


def mentions(part: bytes, *patterns: bytes) -> bool:
    """Whether a part may hold what is looked for at all; most do not, and need no walk. In a rare encoding any may."""
    declared = re.match(rb"<\?xml[^<>]{0,200}?encoding\s*=\s*[\"']([\w.-]+)", part)
    if declared and declared[1].lower() not in (b"utf-8", b"utf8", b"utf-16", b"us-ascii", b"ascii"):
        return True
    return any(re.search(pattern, part) is not None for pattern in patterns)


Strip = Callable[[OfficeParts, Taken], None]
"""Cuts what is not shown out of a file's parts."""
