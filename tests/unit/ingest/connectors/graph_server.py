"""A small Microsoft Graph on loopback, over TLS: tokens, drives with delta and pages, permissions, people, contents.

It behaves as the real one was seen to: a delta names the folders above each change and nothing below a folder whose
rights or name changed; links and cursors are opaque; contents come from another address that wants no token.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

TENANT = "contoso.example"
CLIENT = "11111111-2222-3333-4444-555555555555"
SECRET = "s3cret~value"
DRIVE = "b!drive-1"
SITE = "contoso.sharepoint.example,aaaa,bbbb"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1: (certificate, certificate and key)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(pem + private)
    (folder / "both.pem").chmod(0o600)
    return folder / "ca.pem", folder / "both.pem"


@dataclass
class Node:
    """A file or folder. `permissions`: none where it inherits. `changed`: the moment of its last change."""

    id: str
    name: str
    parent: str | None
    content: bytes | None = None
    permissions: list[dict[str, Any]] | None = None
    version: int = 1
    changed: int = 0
    created: int = 0
    deleted: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Failure:
    """Answers in place of the real one, as often as `times` says, where `match` is in the request's address."""

    match: str
    status: int = 500
    body: bytes = b'{"error": {"code": "generalException", "message": "internal host db7.corp"}}'
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    delay_s: float = 0.0


def user(user_id: str) -> dict[str, Any]:
    return {"roles": ["read"], "grantedToV2": {"user": {"id": user_id, "displayName": "Somebody"}}}


def group(group_id: str, role: str = "write") -> dict[str, Any]:
    return {"roles": [role], "grantedToV2": {"group": {"id": group_id, "displayName": "Some group"}}}


def site_group(name: str) -> dict[str, Any]:
    return {"roles": ["read"], "grantedToV2": {"siteGroup": {"id": "6", "displayName": name, "loginName": name}}}


def link(scope: str | None, *identities: dict[str, Any], **more: Any) -> dict[str, Any]:
    facet = {"type": "view", "webUrl": "https://contoso.example/x"} | ({"scope": scope} if scope else {})
    return {"roles": ["read"], "link": facet, "grantedToIdentitiesV2": list(identities)} | more


class GraphServer:
    """One tenant with one site, one drive, users and groups. Change `nodes` through its methods only."""

    def __init__(self) -> None:
        self.page_size = 50
        self.tags_in_delta = True
        self.names_below_deleted = True
        self.expired_before = -1  # delta tokens of this moment and earlier are not known any more
        self.secret_error: str | None = None
        self.drive_names = {"Documents": DRIVE}
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.failures: list[Failure] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.downloads: list[dict[str, str]] = []
        self.assertions: list[dict[str, str]] = []
        self.moment = 0
        self.nodes: dict[str, Node] = {}
        self.add("root", None, item_id="01ROOT", permissions=[group("00000000-0000-0000-0000-0000000000aa", "owner")])
        self.tokens = {"token-1"}
        self.base = self.download_base = ""
        self._lock = threading.Lock()

    # ---- what people do in SharePoint ----

    def add(
        self, name: str, parent: str | None, content: bytes | None = None, *, item_id: str = "", **more: Any
    ) -> str:
        self.moment += 1
        key = item_id or f"01ITEM{self.moment:04d}"
        permissions, told = more.pop("permissions", None), more.pop("told", more)
        self.nodes[key] = Node(key, name, parent, content, permissions, 1, self.moment, self.moment, extra=told)
        return key

    def edit(self, key: str, content: bytes) -> None:
        self.nodes[key].content = content
        self.nodes[key].version += 1
        self.touch(key)

    def rename(self, key: str, name: str) -> None:
        self.nodes[key].name = name
        self.touch(key)

    def move(self, key: str, parent: str) -> None:
        self.nodes[key].parent = parent
        self.touch(key)

    def share(self, key: str, *permissions: dict[str, Any]) -> None:
        self.nodes[key].permissions = list(permissions)
        self.touch(key)

    def delete(self, key: str) -> None:
        for child in [node.id for node in self.nodes.values() if node.parent == key and not node.deleted]:
            self.delete(child)
            if not self.names_below_deleted:
                self.nodes[child].changed = -1  # it is gone, and no delta says so
        self.nodes[key].deleted = True
        self.touch(key)

    def touch(self, key: str) -> None:
        self.moment += 1
        self.nodes[key].changed = self.moment

    # ---- what Graph says of it ----

    def fail(self, match: str, status: int = 500, **more: Any) -> None:
        self.failures.append(Failure(match, status, **more))

    def asked(self, part: str) -> int:
        return sum(part in path for _, path, _ in self.requests)

    def effective(self, node: Node) -> list[dict[str, Any]]:
        while node.permissions is None and node.parent is not None:
            node = self.nodes[node.parent]
        return node.permissions or []

    def path(self, node: Node) -> str:
        return "" if node.parent is None else f"{self.path(self.nodes[node.parent])}/{node.name}"

    def shown(self, node: Node, *, delta: bool = False) -> dict[str, Any]:
        told: dict[str, Any] = {"id": node.id, "parentReference": {"driveId": DRIVE, "id": node.parent}}
        children = sum(each.parent == node.id and not each.deleted for each in self.nodes.values())
        told |= {"folder": {"childCount": children}} if node.content is None else {"file": {"mimeType": "text/plain"}}
        if node.deleted:
            return told | {"deleted": {"state": "deleted"}}
        told |= {
            "name": node.name,
            "webUrl": f"https://contoso.sharepoint.example/Docs{self.path(node)}".replace(" ", "%20"),
        }
        told |= {
            "lastModifiedDateTime": f"2026-11-01T00:{node.version % 60:02d}:00Z",
            "eTag": f'"{node.id},{node.changed}"',
        }
        if node.content is not None:
            told["size"] = len(node.content)
            told["file"]["hashes"] = {"quickXorHash": hashlib.sha256(node.content).hexdigest()[:8]}
            if self.tags_in_delta or not delta:
                told["cTag"] = f'"c:{{{node.id}}},{node.version}"'
        if node.parent is None:
            told["root"] = {}
        return told | node.extra

    def delta(self, since: int, offset: int, until: int) -> tuple[list[dict[str, Any]], int | None]:
        fresh = since < 0
        changed = sorted((n for n in self.nodes.values() if since < n.changed <= until), key=lambda node: node.changed)
        changed = [n for n in changed if not (n.deleted and (fresh or n.created > since))]
        page, told = changed[offset : offset + self.page_size], {}
        for node in page:
            told[node.id] = node
            above = node.parent
            while above is not None:  # as the real one does, on each page
                if not self.nodes[above].deleted:
                    told[above] = self.nodes[above]
                above = self.nodes[above].parent
        more = offset + self.page_size if offset + self.page_size < len(changed) else None
        return [self.shown(node, delta=True) for node in sorted(told.values(), key=lambda n: len(self.path(n)))], more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    graph: GraphServer

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        graph, body = self.graph, self.rfile.read(int(self.headers.get("content-length") or 0))
        with graph._lock:
            graph.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            failure = next(
                (each for each in graph.failures if each.match in unquote(self.path) and each.times > 0), None
            )
            if failure is not None:
                failure.times -= 1
        if failure is not None:
            time.sleep(failure.delay_s)
            return self._send(failure.status, failure.body, failure.headers)
        parts = urlsplit(self.path)
        if parts.path.startswith(f"/{TENANT}/"):
            return self._entra(parts.path, parse_qs(body.decode()))
        if self.headers.get("authorization", "").removeprefix("Bearer ") not in graph.tokens:
            return self._error(401, "InvalidAuthenticationToken")
        with graph._lock:
            return self._graph(unquote(parts.path).removeprefix("/v1.0/"), parse_qs(parts.query))

    def _entra(self, path: str, form: dict[str, list[str]]) -> None:
        base = f"{self.graph.base}/{TENANT}"
        if path.endswith("/openid-configuration"):
            endpoints = {"token_endpoint": f"{base}/oauth2/v2.0/token", "authorization_endpoint": f"{base}/authorize"}
            return self._json(endpoints | {"issuer": f"{base}/v2.0"})
        flat = {key: values[0] for key, values in form.items()}
        self.graph.assertions.append(flat)
        known = flat.get("client_id") == CLIENT and flat.get("grant_type") == "client_credentials"
        if (
            self.graph.secret_error
            or not known
            or ("client_assertion" not in flat and flat.get("client_secret") != SECRET)
        ):
            told = self.graph.secret_error or "AADSTS7000215: Invalid client secret provided. Trace ID: 1-2-3"
            return self._json({"error": "invalid_client", "error_description": told}, 401)
        return self._json({"token_type": "Bearer", "expires_in": 3599, "access_token": "token-1"})

    def _graph(self, path: str, query: dict[str, list[str]]) -> None:
        graph = self.graph
        head, _, rest = path.partition("/")
        if head == "sites":
            return self._site(rest)
        if head == "users":
            key, _, what = rest.partition("/")
            if what == "drive":
                return self._json({"id": DRIVE}) if key in graph.users else self._error(404, "itemNotFound")
            found = next((u for u in graph.users.values() if key in (u["id"], u.get("userPrincipalName"))), None)
            return self._json(found) if found else self._error(404, "Request_ResourceNotFound")
        if head == "groups":
            return self._group(rest, query)
        drive, _, rest = rest.partition("/")
        if drive not in graph.drive_names.values():
            return self._error(404, "itemNotFound")
        return self._drive(rest, query)

    def _site(self, rest: str) -> None:
        if rest.rstrip(":") in ("contoso.sharepoint.example:/sites/finance", "contoso.sharepoint.example"):
            return self._json({"id": SITE})
        if rest == f"{SITE}/drive":
            return self._json({"id": DRIVE})
        if rest == f"{SITE}/drives":
            return self._json({"value": [{"id": key, "name": name} for name, key in self.graph.drive_names.items()]})
        return self._error(404, "itemNotFound")

    def _group(self, rest: str, query: dict[str, list[str]]) -> None:
        key, _, what = rest.partition("/")
        found = self.graph.groups.get(key)
        if found is None:
            return self._error(404, "Request_ResourceNotFound")
        if what != "transitiveMembers/graph.user":
            return self._json({"id": key, "displayName": found["displayName"]})
        start = int(query.get("$skiptoken", ["0"])[0])
        members = self._members(key)
        page = {"value": [self.graph.users[each] for each in members[start : start + 2]]}
        if start + 2 < len(members):
            page["@odata.nextLink"] = f"{self.graph.base}/v1.0/groups/{rest}?$skiptoken={start + 2}"
        return self._json(page)

    def _members(self, key: str) -> list[str]:
        told = self.graph.groups[key]
        nested = [name for inner in told.get("groups", []) for name in self._members(inner)]
        return sorted({*told.get("members", []), *nested})

    def _drive(self, rest: str, query: dict[str, list[str]]) -> None:
        graph = self.graph
        if rest == "root" or rest.startswith("root:/"):
            wanted = rest.removeprefix("root").removeprefix(":").rstrip(":")
            node = next((n for n in graph.nodes.values() if not n.deleted and graph.path(n) == wanted), None)
            return self._json(graph.shown(node)) if node else self._error(404, "itemNotFound")
        if rest.startswith("items/root/delta()"):
            return self._delta(query.get("token", query.get("$skiptoken", ["-1"]))[0])
        key, _, what = rest.removeprefix("items/").partition("/")
        node = graph.nodes.get(key)
        if node is None or node.deleted:
            return self._error(404, "itemNotFound")
        if what == "permissions":
            return self._json({"value": graph.effective(node)})
        if what == "children":
            return self._json(
                {"value": [graph.shown(n) for n in graph.nodes.values() if n.parent == key and not n.deleted]}
            )
        if what == "content":
            return self._send(302, b"", {"Location": f"{graph.download_base}/download/{key}?tempauth=1"})
        return self._json(graph.shown(node))

    def _delta(self, token: str) -> None:
        """A token is `since[.until.offset]`, moments and an offset."""
        graph = self.graph
        numbers = [int(part) for part in token.split(".")]
        since, until, offset = numbers if len(numbers) == 3 else (numbers[0], graph.moment, 0)
        if -1 < since <= graph.expired_before:
            return self._error(410, "resyncChangesApplyDifferences", {"Location": f"{graph.base}/elsewhere"})
        items, more = graph.delta(since, offset, until)
        where = f"{graph.base}/v1.0/drives/{DRIVE}/items/root/delta()?"
        after = {"@odata.deltaLink": f"{where}token={until}"}
        return self._json(
            {"value": items} | ({"@odata.nextLink": f"{where}token={since}.{until}.{more}"} if more else after)
        )

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        told = {"error": {"code": code, "message": "internal host db7.corp"}}
        self._send(status, json.dumps(told).encode(), headers or {})

    def _json(self, told: dict[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(told).encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for key, value in (
                {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
            ).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client has hung up


class _Downloads(_Handler):
    """Where contents lie: another origin, that wants no token."""

    def _answer(self) -> None:
        graph = self.graph
        graph.downloads.append({k.lower(): v for k, v in self.headers.items()})
        failure = next((each for each in graph.failures if each.match in self.path and each.times > 0), None)
        if failure is not None:
            failure.times -= 1
            return self._send(failure.status, failure.body, failure.headers)
        node = graph.nodes[urlsplit(self.path).path.rpartition("/")[2]]
        return self._send(200, node.content or b"", {"Content-Type": "application/octet-stream"})


@contextmanager
def running(graph: GraphServer, certificate: Path) -> Iterator[GraphServer]:
    """Serve a graph on two free ports of 127.0.0.1."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    servers = []
    for kind in (_Handler, _Downloads):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (kind,), {"graph": graph}))
        server.daemon_threads = True
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
    graph.base, graph.download_base = (f"https://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield graph
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
