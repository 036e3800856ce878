"""Mail: its headers, its body and its attachments as one text. Runs inside the sandbox, as `ingest.parsing` does."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage, Message, MIMEPart
from email.policy import EmailPolicy
from itertools import islice
from pathlib import PurePosixPath
from typing import cast

from index.document import Extracted
from ingest.cleaning import clean, usable_title
from ingest.detection import decode
from policies.errors import DocumentRejected, UnsupportedType

MAX_ATTACHMENT_DEPTH = 3
MAX_PARTS = 5_000
MAX_ATTACHMENTS = 200
MAX_HEADER_CHARS = 4_000
"""The library reads addresses and parameters in quadratic time: 100 KB of them would take minutes."""
_NO_CHARSETS = frozenset({"idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
"""Encodings of Python's that no mail is written in; some take quadratic time."""
_BOUNDARY = re.compile(rb"\bboundary\s*=\s*\"?([^\"\s;]{1,70})", re.IGNORECASE)
_DASHED = re.compile(rb"^--([^\r\n]{1,80})", re.MULTILINE)
ReadAttachment = Callable[[bytes, str], Extracted]
"""Reads an attachment's bytes by its name; raises as `ingest.parsing.parse`."""


class _Policy(EmailPolicy):
    """Headers as they are sent, cut where they are longer than anybody writes them."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:MAX_HEADER_CHARS]


def parse_mail(data: bytes, read_page: Callable[[str], str], read_attachment: ReadAttachment | None) -> Extracted:
    """Headers, body and attachments; one that cannot be read is named with the reason.

    `read_page` gives the text of an HTML body. `read_attachment` is none where mails are nested
    `MAX_ATTACHMENT_DEPTH` deep. Raises `DocumentRejected` for more than `MAX_PARTS` parts.
    """
    if _boundary_lines(data) > 2 * MAX_PARTS:  # before the library reads them, some thousand a second
        raise DocumentRejected(f"the mail has more than {MAX_PARTS} parts")
    message = cast(EmailMessage, message_from_bytes(data.lstrip(), policy=_Policy(refold_source="none")))
    parts: list[EmailMessage] = list(islice(message.walk(), MAX_PARTS + 1))
    if len(parts) > MAX_PARTS:
        raise DocumentRejected(f"the mail has more than {MAX_PARTS} parts")
    subject = _header(message, "Subject")
    head = [f"{name}: {value}" for name in ("From", "To", "Cc", "Date", "Subject") if (value := _header(message, name))]
    body = _body(message)
    attachments = [part for part in parts if part is not message and _is_attachment(part, body)]
    blocks = ["\n".join(head), _body_text(body, read_page), *_attached(attachments, read_attachment)]
    text = "\n\n".join(block for block in blocks if block)
    return Extracted(text=text, title=usable_title(subject), markdown=True)  # whoever calls cleans it


def _boundary_lines(data: bytes) -> int:
    """How many lines are one of the boundaries that the mail names (a part has one, and a list of parts its end)."""
    named = set(_BOUNDARY.findall(data))
    return sum(line.group(1).rstrip().removesuffix(b"--") in named for line in _DASHED.finditer(data)) if named else 0


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message[name] or "").split())
    except (ValueError, IndexError, AttributeError, TypeError, KeyError, RecursionError):
        # The library's header parser fails on some malformed headers: the raw text serves then.
        raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return " ".join(str(raw).split())


def _body(message: EmailMessage) -> MIMEPart | None:
    if message.get_content_maintype() == "multipart" and not message.is_multipart():
        return message  # its boundary is missing: what there is, is the body
    return message.get_body(preferencelist=("plain", "html"))


def _is_attachment(part: EmailMessage, body: object) -> bool:
    if part.get_content_type() == "message/rfc822":
        return True
    if part.is_multipart() or part is body:
        return False
    return part.get_content_disposition() == "attachment" or part.get_filename() is not None


def _body_text(part: MIMEPart | None, read_page: Callable[[str], str]) -> str:
    if part is None:
        return ""
    try:
        text = _decoded(_payload(part), part.get_content_charset())
    except UnsupportedType as error:
        return f"The body was not read: {error.detail}."
    if part.get_content_type() == "text/html" and text.strip():
        return read_page(text)
    return text.strip()


def _payload(part: MIMEPart) -> bytes:
    raw = part.get_payload(decode=True)
    return raw if isinstance(raw, bytes) else b""


def _decoded(data: bytes, charset: str | None) -> str:
    try:
        if charset and codecs.lookup(charset).name not in _NO_CHARSETS:
            return data.decode(charset)
    except (LookupError, ValueError):
        pass  # no such encoding, or not this one: the content decides
    return decode(data)


def _attached(attachments: list[EmailMessage], read: ReadAttachment | None) -> list[str]:
    blocks = []
    inside: set[int] = set()
    for part in attachments[:MAX_ATTACHMENTS]:
        if id(part) in inside:
            continue
        inside.update(id(child) for child in part.walk())
        blocks.append(_attachment_text(part, read))
    return blocks


def _attachment_text(part: EmailMessage, read: ReadAttachment | None) -> str:
    name = PurePosixPath(" ".join((part.get_filename() or "").split()).replace("\\", "/")).name
    if read is None:
        return f"Attachment {name or 'message'} was not read: mails are nested more than {MAX_ATTACHMENT_DEPTH} deep."
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload()
        data = inner[0].as_bytes() if isinstance(inner, list) and isinstance(inner[0], Message) else b""
        name = name or "message.eml"
    else:
        data = _payload(part)
    try:
        extracted = read(data, name or "attachment")
    except (DocumentRejected, UnsupportedType) as error:
        return f"Attachment {name or 'without name'} was not read: {error.detail}."
    return f"## Attachment: {clean(name or extracted.title or 'without name')}\n\n{extracted.text.strip()}"
