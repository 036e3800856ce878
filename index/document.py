"""What travels between the stages: documents, chunks and hits, as frozen values."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies.access import AccessRule

Vector = NDArray[np.float32]
"""A dense embedding: float32[dim], unit length."""
Vectors = Mapping[str, Vector]
"""A text's dense embedding under each model that the index holds, by model id."""
TokenVectors = NDArray[np.int8]
"""A text's token vectors: int8[tokens, dim]; the float vector is about `row / 127`, unit length."""


@dataclass(frozen=True, slots=True)
class DocumentRef:
    """A document as its source knows it, before its content is read.

    `external_id` is unique in its source; `fingerprint` changes whenever content may have changed (a cheap
    value such as size and modification time, or a content hash); `rule` says who may read it; `seen_at` is when
    the source said all this, in Unix seconds. `name` is what its people call it, where `external_id` is no name.
    """

    tenant: str
    source: str
    external_id: str
    uri: str
    title: str | None
    fingerprint: str
    rule: AccessRule
    size_bytes: int = 0
    seen_at: float = field(default_factory=time.time, compare=False)
    name: str | None = None

    @property
    def document_id(self) -> str:
        """32 hex digits, the same in every run."""
        return document_id(self.tenant, self.source, self.external_id)


def document_id(tenant: str, source: str, external_id: str) -> str:
    """The public id of a place in a source: 32 hex digits of SHA-256."""
    return hashlib.sha256("\x1f".join((tenant, source, external_id)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the extracted text: characters `[start, end)`; `number` counts from 1."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """A document's text as the parser gave it. All offsets count characters of `text`.

    `title` comes from the content (metadata, first heading), never from the file's name. `markdown` says
    whether `text` carries Markdown structure. `hidden` counts the characters that were left out because nobody who
    opens the file sees them, by reason.
    """

    text: str
    title: str | None = None
    pages: tuple[Page, ...] = ()
    markdown: bool = False
    hidden: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage `text == extracted.text[start:end]`, with the headings above it, outermost first."""

    position: int
    text: str
    start: int
    end: int
    page: int | None = None
    headings: tuple[str, ...] = ()

    def context(self, title: str | None) -> str:
        """What stands before the passage in what is embedded: the title, then the headings."""
        return "\n".join(line for line in (title, " > ".join(self.headings)) if line)

    def embedded_text(self, title: str | None) -> str:
        """What the model and the keyword index read: the title, the headings, then the passage."""
        return embedded_text(self.context(title), self.text)


def embedded_text(context: str, text: str) -> str:
    """What the model and the keyword index read of a passage under its title and headings."""
    return f"{context}\n{text}" if context else text


def chunk_id(document: str, version: int, position: int) -> str:
    """The primary key of a chunk's row."""
    return f"{document}.{version}.{position}"


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that the caller may read, as ranked. Offsets count characters of the extracted text.

    `as_of`: the index holds what the document's source said then, in Unix seconds; none: it follows no source.
    `source_id`: the ledger's number of the source that the document is from.
    """

    chunk_id: str
    document_id: str
    version: int
    external_id: str
    title: str
    uri: str
    text: str
    score: float
    start: int
    end: int
    page: int | None
    as_of: float | None = None
    source_id: int = 0
