"""Hostile mail: nested without end, headers without end, attachments with names and encodings that mean harm."""

from __future__ import annotations

import base64

from .case import Poison, of, read, refused
from .office import filled

KEPT = "The heron stays."
HEAD = "From: ada@example.org\nTo: bob@example.org\nSubject: Herons\nMIME-Version: 1.0\n"


def mail(headers: str, body: str | bytes) -> bytes:
    return (HEAD + headers + "\n").encode() + (body if isinstance(body, bytes) else body.encode())


def text(body: str = KEPT) -> str:
    return f"Content-Type: text/plain; charset=utf-8\n\n{body}\n"


def mixed(*parts: str, boundary: str = "b") -> bytes:
    body = "".join(f"--{boundary}\n{part}\n" for part in parts) + f"--{boundary}--\n"
    return mail(f'Content-Type: multipart/mixed; boundary="{boundary}"\n', body)


def attachment(content: bytes, name: str) -> str:
    head = f'Content-Type: application/octet-stream\nContent-Disposition: attachment; filename="{name}"\n'
    return f"{head}Content-Transfer-Encoding: base64\n\n{base64.encodebytes(content).decode()}"


def deep(levels: int) -> bytes:
    opening = "".join(f'Content-Type: multipart/mixed; boundary="b{i}"\n\n--b{i}\n' for i in range(levels))
    closing = "".join(f"--b{i}--\n" for i in reversed(range(levels)))
    return (HEAD + opening + text() + closing).encode()


def in_mail(levels: int) -> bytes:
    opening = "".join(f"{HEAD}Content-Type: message/rfc822\n\n" for _ in range(levels))
    return (opening + HEAD + text()).encode()


def charset(name: str, body: bytes = KEPT.encode()) -> bytes:
    return mail(f'Content-Type: text/plain; charset="{name}"\n', body)


def bombs() -> bytes:
    """Attachments each of which unpacks to more than it may."""
    bomb = attachment(filled("docx", 101), "bomb.docx")
    return mixed(text(), *([bomb] * 3))


def in_attachments(levels: int) -> bytes:
    inner = mixed(text(), attachment(b"bottom", "bottom.txt"))
    for level in range(levels):
        inner = mixed(text(), attachment(inner, f"{level}.eml"))
    return inner


def packed(encoding: str, body: str) -> bytes:
    return mail(f"Content-Type: text/plain\nContent-Transfer-Encoding: {encoding}\n", body)


def continued(times: int) -> str:
    """A parameter in many pieces."""
    return "".join(f"name*{i}=x; " for i in range(times))


UNKNOWN = (
    *("none", "../../etc/passwd", "zlib_codec", "base64", "undefined", "unicode_escape", "a\x00b", "rot13", "mbcs"),
    *("utf-8\x00", "x" * 5_000, "idna"),
)
UUENCODED = f"begin 644 ../../slipped\n{'M' + '#' * 60}\n" * 300 + "`\nend\n"
NAMES = (
    "../../outside/slipped.txt",
    "/tmp/slipped.txt",
    "C:\\slipped.txt",
    "..\\..\\slipped.txt",
    "\u202etxt.exe",
    "a\x00b.txt",
    "n" * 5_000,
)

CHARSETS = {
    **{f"charset-{number}": (name, KEPT.encode()) for number, name in enumerate(UNKNOWN)},
    "idna": ("idna", KEPT.encode() + b" \xff" * 3),
    "idna-too-long": ("idna", ("x" * 100 + " " + KEPT).encode()),
    "punycode-damaged": ("punycode", KEPT.encode() + b"\xff"),
    "punycode": ("punycode", f"{KEPT} ".encode() + b"a" * 1_000 + b"-" + b"z9" * 100_000),
    "utf-7": ("utf-7", KEPT.encode() + b" +AGE- +2AA-"),
}
TOO_MANY = "the mail has more than 5000 parts"
TOO_DEEP = "the document is nested too deeply"

PACK: list[Poison] = [
    refused("parts-in-parts.eml", lambda _: deep(1_000), TOO_DEEP),
    refused("mails-in-mails.eml", lambda _: in_mail(1_000), TOO_DEEP),
    read("mails-in-some-mails.eml", lambda _: in_mail(50), "mails are nested more than 3 deep"),
    refused("parts.eml", lambda _: mixed(text(), *(["Content-Type: image/png; name=a.png\n\n"] * 100_000)), TOO_MANY),
    refused("boundary-lines.eml", lambda _: mixed(*(["\n"] * 100_000)), TOO_MANY),
    read("one-long-header.eml", lambda _: mail(f"X-Long: {'x' * 5_000_000}\n", KEPT), KEPT),
    read("many-headers.eml", lambda _: mail("X-A: b\n" * 50_000, KEPT), KEPT),
    read("folded.eml", lambda _: mail("X-Folded: x" + "\n x" * 200_000 + "\n", KEPT), KEPT),
    read("recipients.eml", lambda _: mail(f"Cc: {'a@example.org, ' * 100_000}b@example.org\n", KEPT), KEPT),
    read("comments-in-recipients.eml", of(mail(f"Cc: {'(' * 50_000}\n", KEPT)), KEPT),
    read("quotes-in-recipients.eml", of(mail("Cc: " + '"' * 50_001 + "\n", KEPT)), KEPT),
    read("groups-in-recipients.eml", of(mail(f"Cc: {'a:' * 20_000}\n", KEPT)), KEPT),
    read("encoded-words.eml", of(mail(f"Cc: {'=?utf-8?q?a?= ' * 20_000}\n", KEPT)), KEPT),
    read("long-type.eml", of(mail(f"Content-Type: text/plain; {'a=b; ' * 20_000}\n", KEPT)), KEPT),
    read("continued-type.eml", lambda _: mail(f"Content-Type: text/plain; {continued(20_000)}\n", KEPT), KEPT),
    read("names.eml", lambda _: mixed(text(), *(attachment(b"inside", name) for name in NAMES)), KEPT),
    *(read(f"{name}.eml", lambda _, it=it: charset(*it), KEPT) for name, it in CHARSETS.items()),
    read("no-boundary.eml", of(mail("Content-Type: multipart/mixed\n", KEPT)), KEPT),
    read("empty-boundary.eml", of(mixed(text(), boundary="")), KEPT),
    read("bombs-attached.eml", lambda _: bombs(), "was not read: refused for safety"),
    read("base64-junk.eml", lambda _: packed("base64", "A" * 2_000_000 + "=" * 2_000_001), "The body was not read"),
    read("quoted-junk.eml", lambda _: packed("quoted-printable", "=" * 200_000 + f"\n{KEPT}"), KEPT),
    read("uuencoded-junk.eml", lambda _: packed("x-uuencode", UUENCODED), "begin 644"),
    read("attachments-in-attachments.eml", lambda _: in_attachments(5), "mails are nested more than 3 deep"),
]
