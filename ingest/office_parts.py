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

MAX_PART_BYTES = 100_000_000
"""Of a larger one the parser refuses the file, so nothing hidden in it is read."""
_RELATIONSHIP = re.compile(r"<(?:\w+:)?Relationship\b[^<>]*>")
_RELATED = re.compile(r'\b(Id|Type|Target)\s*=\s*"([^"]*)"')
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
        if part[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = part.decode("utf-16", "replace")
            return re.sub(r'(?<=encoding=)["\'][\w-]+["\']', '"UTF-8"', text, count=1).encode("utf-8", "replace")
        return part

    def related(self, name: str) -> list[tuple[str, str, str]]:
        """The parts that a part names: relation's id, kind (the last word of its type), part."""
        folder, base = posixpath.split(name)
        found = []
        for tag in _RELATIONSHIP.findall(self.read(f"{folder}/_rels/{base}.rels").decode("utf-8", "replace")):
            values = dict(_RELATED.findall(tag))
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
        """Give False where it is no well-formed XML, or declares a document type."""
        parser = self._parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._begin, self._finish
        parser.CharacterDataHandler = self.text
        parser.StartDoctypeDeclHandler = self._refuse
        self._part = part
        try:
            parser.Parse(part, True)
        except (expat.ExpatError, _TypeDeclared, ValueError):
            return False
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
        self._starts.append(self._parser.CurrentByteIndex)
        self.begin(local, {key.rpartition(" ")[2]: value for key, value in attributes.items()})

    def _finish(self, name: str) -> None:
        start = self._starts.pop()
        if self.finish(name.rpartition(" ")[2]):
            end = self._part.index(b">", self._parser.CurrentByteIndex) + 1
            while self.cuts and self.cuts[-1][0] >= start:
                self.cuts.pop()  # it stood inside
            self.cuts.append((start, end))
        self.path.pop()

    def _refuse(self, *_: object) -> None:
        raise _TypeDeclared


class _TypeDeclared(Exception):
    """Open XML forbids it, and with it entities."""


def is_on(attributes: Attributes, name: str = "val", default: bool = True) -> bool:
    """Read a truth value of Open XML."""
    value = attributes.get(name)
    return default if value is None else value.lower() not in ("0", "false", "off", "none")


def mentions(part: bytes, *patterns: bytes) -> bool:
    """Whether a part may hold what is looked for at all; most do not, and need no walk."""
    return any(re.search(pattern, part) is not None for pattern in patterns)


Strip = Callable[[OfficeParts, Taken], None]
"""Cuts what is not shown out of a file's parts."""
