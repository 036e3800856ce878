"""A small HTTP server on loopback whose answers a test writes: one function for each path, and a record of requests."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Asked:
    """One request as it came. `headers` by lower-case name."""

    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass
class Answer:
    """`body`: bytes, or a function that writes what it likes, headers included, to the connection."""

    body: bytes | str | Callable[[BinaryIO], None] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps(value), status, sent)


def page(body: str, status: int = 200, **headers: str) -> Answer:
    sent = {"content-type": "text/html; charset=utf-8"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return Answer(f"<!doctype html><html><body>{body}</body></html>", status, sent)


Route = Callable[[Asked], Answer] | Answer


class Loopback:
    """`routes`: by path; `*` for all others. What no route answers is a 404."""

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.scheme = scheme
        self.routes: dict[str, Route] = {}
        self.asked: list[Asked] = []
        self.names: list[str | None] = []
        self.connections = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def answer(self, asked: Asked) -> Answer:
        with self.lock:
            self.asked.append(asked)
        route = self.routes.get(asked.path, self.routes.get("*", Answer(status=404)))
        return route if isinstance(route, Answer) else route(asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 20
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.loopback.connections += 1

    def do_GET(self) -> None:
        answer = self.server.loopback.answer(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}))
        if callable(answer.body):
            self.close_connection = True
            answer.body(self.wfile)
            return
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        sent = {"date": formatdate(usegmt=True)} | {k.lower(): v for k, v in answer.headers.items()}
        if answer.status == 304:
            body = b""
        else:
            sent.setdefault("content-length", str(len(body)))
        self.send_response_only(answer.status)
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError, TimeoutError):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    loopback: Loopback

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Loopback]:
    """Start a server on a free port of 127.0.0.1, over TLS where there is a certificate (with its key)."""
    http = _Server(("127.0.0.1", 0), _Handler)
    server = http.loopback = Loopback(http.server_address[1], "https" if certificate else "http")
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _, name, __: server.names.append(name)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(timeout=5)


def certificate_for(name: str, folder: Path) -> Path:
    """A self-signed certificate for a host name, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path
