"""A small Confluence on loopback: Data Center's API at /, Cloud's below /wiki, over one state that tests change.

It keeps what makes the real one hard: paging by `start` that shifts, a search index that lags and counts in minutes
of the account's time zone, restrictions that are not told where they are inherited, cut lists, trash, folders whose
restrictions no API tells, downloads from another host, an account that sees only what it may.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "s3cret-token"
ACCOUNT = "bot"


@dataclass
class Content:
    id: str
    type: str
    title: str
    space: str
    parent: str | None = None
    version: int = 1
    when: float = field(default_factory=time.time)
    body: str = "<p>text</p>"
    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    status: str = "current"
    container: str | None = None
    data: bytes = b""
    media: str = "application/pdf"
    hidden: bool = False  # the account may not see it
    history: dict[int, str] = field(default_factory=dict)


@dataclass
class Space:
    key: str
    id: str
    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    anonymous: bool = False
    status: str = "current"
    permissions_hidden: bool = False
    raw: list[Any] = field(default_factory=list)  # more permissions, as they stand


@dataclass
class Fault:
    path: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1
    delay: float = 0.0


class Refused(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class FakeConfluence:
    """The state, and the server over it. `port` is where it listens."""

    def __init__(self) -> None:
        self.spaces: dict[str, Space] = {}
        self.content: dict[str, Content] = {}
        self.groups: dict[str, list[str]] = {}
        self.hidden_groups: set[str] = set()
        self.hidden_emails: set[str] = set()
        self.site_anonymous = True
        self.knows_account = True
        self.is_confluence_administrator = True
        self.restrictions_readable = True
        self.max_limit = 500
        self.restriction_limit = 200
        self.nested_limit = 25
        self.bulk_search_misses: set[str] = set()
        self.index: dict[str, tuple[str, str, float, float]] = {}
        self.index_frozen = False
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str, dict[str, list[str]], str | None]] = []
        self.before: Callable[[str, dict[str, list[str]]], None] = lambda path, query: None
        self.media_port: int | None = None
        self._ids = itertools.count(1001)
        self.lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": self}))
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    # ---- what people do

    def space(self, key: str, **more: Any) -> Space:
        made = Space(key, str(next(self._ids)), **({"groups": ["staff"]} | more))
        self.spaces[key] = made
        return made

    def page(self, title: str, space: str = "ENG", **more: Any) -> Content:
        made = Content(str(next(self._ids)), more.pop("type", "page"), title, space, **more)
        self.content[made.id] = made
        self._indexed(made)
        return made

    def attach(self, page: Content, name: str, data: bytes = b"%PDF-1.4", **more: Any) -> Content:
        made = Content(f"att{next(self._ids)}", "attachment", name, page.space, container=page.id, data=data, **more)
        self.content[made.id] = made
        self._indexed(made)
        return made

    def edit(self, content: Content, body: str | None = None, title: str | None = None) -> None:
        content.history[content.version] = content.body
        content.version += 1
        content.when = time.time()
        content.body = content.body if body is None else body
        content.title = content.title if title is None else title
        self._indexed(content)

    def trash(self, content: Content) -> None:
        for each in self.content.values():
            if each is content or each.container == content.id:
                each.status = "trashed"
                self.index.pop(each.id, None)

    def purge(self, content: Content) -> None:
        for each in [each for each in self.content.values() if each is content or each.container == content.id]:
            del self.content[each.id]
            self.index.pop(each.id, None)

    def move(self, content: Content, space: str, parent: str | None = None) -> None:
        """Neither its version nor its date changes, nor those of its files and of the pages below it."""
        content.space, content.parent = space, parent
        for each in self.content.values():
            if each.container == content.id:
                each.space = space

    def _indexed(self, content: Content) -> None:
        if not self.index_frozen:
            created = self.index.get(content.id, (0, 0, 0, content.when))[3]
            self.index[content.id] = (content.type, content.space, content.when, created)

    def reindex(self) -> None:
        self.index_frozen = False
        for content in self.content.values():
            if content.status == "current":
                self._indexed(content)

    def fail(self, path: str, status: int = 500, times: int = 1, **more: Any) -> None:
        self.faults.append(Fault(path, status, times=times, **more))

    def asked(self, path: str) -> int:
        return sum(path in line[1] for line in self.log)

    # ---- what the account sees

    def sees(self, content: Content) -> bool:
        return content.status == "current" and not any(each.hidden for each in [content, *self.above(content)])

    def above(self, content: Content) -> list[Content]:
        """Outermost first; of a file, its page and what is above that."""
        found: list[Content] = []
        parent = content.container or content.parent
        while parent is not None and parent in self.content:
            found.insert(0, self.content[parent])
            parent = self.content[parent].parent
        return found

    def readers(self, content: Content) -> set[str]:
        """The oracle: who may read, of all people there are."""
        people = {person for members in self.groups.values() for person in members}
        people |= {user for space in self.spaces.values() for user in space.users}
        people |= {user for each in self.content.values() for user in each.users}
        space = self.spaces[content.space]
        if not (space.anonymous and self.site_anonymous):
            people &= self._people(space.users, space.groups)
        for each in [*self.above(content), content]:
            if each.users or each.groups:
                people &= self._people(each.users, each.groups)
        return people

    def _people(self, users: list[str], groups: list[str]) -> set[str]:
        return {*users, *(person for group in groups for person in self.groups.get(group, []))}

    # ---- JSON

    def user_json(self, user: str, cloud: bool) -> dict[str, Any]:
        if cloud:
            email = "" if user in self.hidden_emails else f"{user}@example.com"
            return {"type": "known", "accountId": f"acc-{user}", "accountType": "atlassian", "email": email}
        return {"type": "known", "username": user, "userKey": f"key-{user}", "displayName": user.title()}

    def group_json(self, group: str, cloud: bool) -> dict[str, Any]:
        return {"type": "group", "name": group} | ({"id": f"gid-{group}"} if cloud else {})

    def restriction_json(self, content: Content, cloud: bool, start: int = 0, limit: int | None = None) -> Any:
        limit = self.restriction_limit if limit is None else min(limit, self.restriction_limit)
        # A folder's restrictions come back empty: CONFCLOUD-82920.
        users, groups = ([], []) if content.type == "folder" else (content.users, content.groups)
        cut = slice(start, start + limit)
        parts = {
            "user": [self.user_json(user, cloud) for user in users[cut]],
            "group": [self.group_json(group, cloud) for group in groups[cut]],
        }
        shown = {
            kind: {"results": rows, "start": start, "limit": limit, "size": len(rows)} for kind, rows in parts.items()
        }
        return {
            "operation": "read",
            "restrictions": shown,
            "_expandable": {"content": f"/rest/api/content/{content.id}"},
        }

    def v1(self, content: Content, expand: str, cloud: bool) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": content.id,
            "type": content.type,
            "status": content.status,
            "title": content.title,
            "_links": {"webui": f"/spaces/{content.space}/pages/{content.id}"},
        }
        fields = expand.split(",")
        if "version" in fields:
            when = datetime.fromtimestamp(content.when, UTC).isoformat(timespec="milliseconds")
            row["version"] = {"number": content.version, "when": when}
        if "space" in fields:
            row["space"] = {"key": content.space}
        if "ancestors" in fields:
            row["ancestors"] = [{"id": each.id, "type": each.type} for each in self.above(content)]
        if "container" in fields and content.container:
            row["container"] = {"id": content.container, "type": "page"}
        if "restrictions.read.restrictions.user" in fields and content.type != "attachment":
            row["restrictions"] = {"read": self.restriction_json(content, cloud)}
        if content.type == "attachment":
            row["extensions"] = {"mediaType": content.media, "fileSize": len(content.data)}
            name = content.title.encode("utf-8", "surrogatepass").hex()[:100]
            row["_links"]["download"] = f"/download/attachments/{content.container}/{name}?id={content.id}"
        if "children.attachment.version" in fields:
            files = [each for each in self.content.values() if each.container == content.id and self.sees(each)]
            shown = [self.v1(each, "version", cloud) for each in files[: self.nested_limit]]
            part: dict[str, Any] = {"results": shown, "start": 0, "limit": self.nested_limit, "size": len(shown)}
            row["children"] = {"attachment": part}
        if "body.storage" in fields:
            row["body"] = {"storage": {"value": content.body, "representation": "storage"}}
        return row

    def v2(self, content: Content, body: bool = False) -> dict[str, Any]:
        when = datetime.fromtimestamp(content.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row: dict[str, Any] = {
            "id": content.id,
            "status": content.status,
            "title": content.title,
            "version": {"number": content.version, "createdAt": when},
            "_links": {"webui": f"/spaces/{content.space}/pages/{content.id}"},
        }
        if content.type == "attachment":
            page = self.content.get(content.container or "")
            key = "blogPostId" if page is not None and page.type == "blogpost" else "pageId"
            row |= {key: content.container, "mediaType": content.media, "fileSize": len(content.data)}
        else:
            parent = self.content.get(content.parent or "")
            row["spaceId"] = self.spaces[content.space].id
            row |= {"parentId": content.parent, "parentType": parent.type if parent else None}
        if body:
            row["body"] = {"storage": {"value": content.body, "representation": "storage"}}
        return row

    # ---- the API

    def answer(self, method: str, path: str, query: dict[str, list[str]], posted: Any) -> Any:
        cloud = path.startswith("/wiki/")
        path = path.removeprefix("/wiki")
        routes = _CLOUD_ROUTES if cloud else _SERVER_ROUTES
        for pattern, handle in routes:
            match = re.fullmatch(pattern, path)
            if match:
                parts = [unquote(part) for part in match.groups()]
                return getattr(self, handle)(*parts, query=_Query(query, cloud, path, posted))
        raise Refused(404)

    def current_user(self, query: _Query) -> Any:
        return self.user_json(ACCOUNT, query.cloud) | ({} if self.knows_account else {"type": "anonymous"})

    def user(self, query: _Query) -> Any:
        key = query.text("accountId") or query.text("key")
        return self.user_json(key.removeprefix("acc-").removeprefix("key-"), query.cloud)

    def members(self, group: str, query: _Query) -> Any:
        group = group.removeprefix("gid-") if query.cloud else group
        if group in self.hidden_groups or group not in self.groups:
            raise Refused(403)
        return self.by_offset([self.user_json(user, query.cloud) for user in self.groups[group]], query)

    def group_by_id(self, query: _Query) -> Any:
        return self.group_json(query.text("id").removeprefix("gid-"), query.cloud)

    def list_spaces(self, query: _Query) -> Any:
        found = list(self.spaces.values())
        if query.text("status"):
            found = [space for space in found if space.status == query.text("status")]
        rows = [{"id": space.id, "key": space.key, "type": "global"} for space in found]
        return self.by_cursor(rows, query) if query.cloud else self.by_offset(rows, query)

    def one_space(self, key: str, query: _Query) -> Any:
        space = next((each for each in self.spaces.values() if key in (each.key, each.id)), None)
        if space is None:
            raise Refused(404)
        return {"id": space.id, "key": space.key}

    def server_permissions(self, key: str, query: _Query) -> Any:
        space = self.spaces[key]
        if space.permissions_hidden:
            raise Refused(403)
        subjects = [{"type": "user", "userKey": f"key-{user}"} for user in space.users]
        subjects += [{"type": "group", "name": group} for group in space.groups]
        subjects += [{"type": "anonymous"}] if space.anonymous else []
        read = {"targetType": "space", "operationKey": "read"}
        other = {"targetType": "page", "operationKey": "create"}
        rows = [{"operation": read, "subject": subject, "spaceKey": key} for subject in subjects]
        return [*rows, {"operation": other, "subject": {"type": "group", "name": "writers"}}, *space.raw]

    def cloud_permissions(self, number: str, query: _Query) -> Any:
        space = next(each for each in self.spaces.values() if each.id == number)
        if space.permissions_hidden:
            raise Refused(403)
        principals = [{"type": "user", "id": f"acc-{user}"} for user in space.users]
        principals += [{"type": "group", "id": f"gid-{group}"} for group in space.groups]
        read = {"key": "read", "targetType": "space"}
        rows = [{"id": str(n), "principal": each, "operation": read} for n, each in enumerate(principals)]
        rows.append({"id": "x", "principal": {"type": "group", "id": "gid-w"}, "operation": {"key": "create"}})
        return self.by_cursor([*rows, *space.raw], query)

    def list_content(self, query: _Query) -> Any:
        key, kind = query.text("spaceKey"), query.text("type")
        if key not in self.spaces:
            raise Refused(404)
        found = [each for each in self.content.values() if (each.space, each.type) == (key, kind) and self.sees(each)]
        return self.by_offset([self.v1(each, query.text("expand"), query.cloud) for each in found], query)

    def one_content(self, content: str, query: _Query) -> Any:
        found = self.content.get(content)
        if found is None or any(each.hidden for each in [found, *self.above(found)]):
            raise Refused(404)
        if found.status != "current" and query.text("status") != "any":
            raise Refused(404)
        row = self.v1(found, query.text("expand"), query.cloud)
        if query.text("version"):
            assert query.text("status") == "historical"
            row = self._historical(row, found, int(query.text("version")))
        return row

    def _historical(self, row: dict[str, Any], content: Content, version: int) -> dict[str, Any]:
        if version != content.version:
            row["version"] = {"number": version}
            row["body"] = {"storage": {"value": content.history[version]}}
        return row

    def restriction(self, content: str, query: _Query) -> Any:
        found = self.content.get(content)
        if found is None or not self.sees(found) or not self.restrictions_readable:
            raise Refused(404)
        return self.restriction_json(found, query.cloud, query.number("start"), query.number("limit", 100))

    def children(self, content: str, query: _Query) -> Any:
        files = [each for each in self.content.values() if each.container == content and self.sees(each)]
        return self.by_offset([self.v1(each, query.text("expand"), query.cloud) for each in files], query)

    def search(self, query: _Query) -> Any:
        cql = query.text("cql")
        known = re.fullmatch(
            r"(?:space in \((?P<in>[^)]*)\) and )?"
            r"type (?:in \((?P<types>[a-z,]+)\)|= (?P<type>[a-z]+))"
            r'(?: and ancestor = (?P<above>\w+))?(?: and lastmodified >= now\("-(?P<minutes>\d+)m"\))?'
            r" order by created",
            cql,
        )
        if known is None:
            raise Refused(400)  # a date would mean another moment in the account's time zone
        spaces = [key.strip('"') for key in known["in"].split(",")] if known["in"] else []
        if any(key not in self.spaces for key in spaces):
            raise Refused(400)
        types = (known["types"] or known["type"]).split(",")
        # Whole minutes, to the less favourable side.
        since = math.ceil((time.time() - int(known["minutes"]) * 60) / 60) * 60 if known["minutes"] else 0.0
        hits = [
            (created, key)
            for key, (kind, space, when, created) in self.index.items()
            if kind in types and (not spaces or space in spaces) and when >= since and key in self.content
        ]
        found = [self.content[key] for _, key in sorted(hits)]
        found = [each for each in found if self.sees(each) and each.id not in self.bulk_search_misses]
        if known["above"]:
            found = [each for each in found if known["above"] in {above.id for above in self.above(each)}]
        rows = [self.v1(each, query.text("expand"), query.cloud) for each in found]
        return self.by_cursor(rows, query) if query.cloud else self.by_offset(rows, query)

    def v2_pages(self, kinds: str, query: _Query) -> Any:
        found = [each for each in self.content.values() if f"{each.type}s" == kinds and self.sees(each)]
        return self.by_cursor([self.v2(each) for each in found], query)

    def space_pages(self, number: str, kinds: str, query: _Query) -> Any:
        space = next((each for each in self.spaces.values() if each.id == number), None)
        if space is None:
            raise Refused(404)
        found = [each for each in self.content.values() if (each.space, f"{each.type}s") == (space.key, kinds)]
        return self.by_cursor([self.v2(each) for each in found if self.sees(each)], query)

    def v2_one(self, kinds: str, content: str, query: _Query) -> Any:
        found = self.content.get(content)
        if found is None or f"{found.type}s" != kinds or any(each.hidden for each in [found, *self.above(found)]):
            raise Refused(404)
        row = self.v2(found, body=query.text("body-format") == "storage")
        return self._historical(row, found, int(query.text("version"))) if query.text("version") else row

    def v2_files(self, query: _Query, page: str | None = None) -> Any:
        files = [each for each in self.content.values() if each.type == "attachment" and self.sees(each)]
        found = [each for each in files if page is None or each.container == page]
        return self.by_cursor([self.v2(each) for each in found], query)

    def v2_page_files(self, kinds: str, page: str, query: _Query) -> Any:
        return self.v2_files(query, page)

    def v2_ancestors(self, kinds: str, content: str, query: _Query) -> Any:
        found = self.content.get(content)
        if found is None or f"{found.type}s" != kinds:
            raise Refused(404)
        return {"results": [{"id": each.id, "type": each.type} for each in self.above(found)]}

    def permission_check(self, content: str, query: _Query) -> Any:
        if not self.is_confluence_administrator:
            raise Refused(403)
        assert query.posted["operation"] == "read"
        kind, key = query.posted["subject"]["type"], query.posted["subject"]["identifier"]
        readers = self.readers(self.content[content])
        if kind == "user":
            return {"hasPermission": key.removeprefix("acc-") in readers}
        levels = [*self.above(self.content[content]), self.content[content]]
        group = key.removeprefix("gid-")
        passes = all(group in each.groups or not (each.users or each.groups) for each in levels)
        return {"hasPermission": passes and group in self.spaces[self.content[content].space].groups}

    def download(self, page: str, name: str, query: _Query) -> Any:
        return self.content[query.text("id")].data

    def cloud_download(self, page: str, content: str, query: _Query) -> Any:
        if self.media_port is not None:
            raise Moved(f"http://127.0.0.1:{self.media_port}/file/{content}?sig=1")
        return self.content[content].data

    # ---- paging

    def by_offset(self, rows: list[dict[str, Any]], query: _Query) -> Any:
        start, limit = query.number("start"), min(query.number("limit", 25), self.max_limit)
        links = {"base": f"http://127.0.0.1:{self.port}", "context": ""}
        if start + limit < len(rows):
            links["next"] = f"{query.path}?limit={limit}&start={start + limit}"
        page = rows[start : start + limit]
        return {"results": page, "start": start, "limit": limit, "size": len(page), "_links": links}

    def by_cursor(self, rows: list[dict[str, Any]], query: _Query) -> Any:
        """A cursor is the last id that was given: what goes before it moves nothing."""
        ids = [row.get("id") for row in rows]
        last = query.text("cursor")
        start = ids.index(last) + 1 if last in ids else 0
        limit = min(query.number("limit", 25), self.max_limit)
        links = {"base": f"http://127.0.0.1:{self.port}/wiki"}
        if start + limit < len(rows):
            links["next"] = f"/wiki{query.path}?limit={limit}&cursor={ids[start + limit - 1]}"
        return {"results": rows[start : start + limit], "_links": links}


class Moved(Exception):
    def __init__(self, to: str) -> None:
        self.to = to


@dataclass
class _Query:
    values_by_name: dict[str, list[str]]
    cloud: bool
    path: str
    posted: Any

    def text(self, name: str) -> str:
        return self.values_by_name.get(name, [""])[0]

    def number(self, name: str, default: int = 0) -> int:
        return int(self.text(name) or default)


_BOTH_ROUTES = [
    (r"/rest/api/user/current", "current_user"),
    (r"/rest/api/user", "user"),
    (r"/rest/api/content/search", "search"),
    (r"/rest/api/content/([^/]+)/restriction/byOperation/read", "restriction"),
]
_SERVER_ROUTES = [
    *_BOTH_ROUTES,
    (r"/rest/api/space", "list_spaces"),
    (r"/rest/api/space/([^/]+)", "one_space"),
    (r"/rest/api/space/([^/]+)/permissions", "server_permissions"),
    (r"/rest/api/group/([^/]+)/member", "members"),
    (r"/rest/api/content", "list_content"),
    (r"/rest/api/content/([^/]+)", "one_content"),
    (r"/rest/api/content/([^/]+)/child/attachment", "children"),
    (r"/download/attachments/([^/]+)/([^/]+)", "download"),
]
_CLOUD_ROUTES = [
    *_BOTH_ROUTES,
    (r"/api/v2/spaces", "list_spaces"),
    (r"/api/v2/spaces/([^/]+)", "one_space"),
    (r"/api/v2/spaces/([^/]+)/permissions", "cloud_permissions"),
    (r"/api/v2/(pages|blogposts)", "v2_pages"),
    (r"/api/v2/spaces/([^/]+)/(pages|blogposts)", "space_pages"),
    (r"/api/v2/attachments", "v2_files"),
    (r"/api/v2/(pages|blogposts|attachments)/([^/]+)", "v2_one"),
    (r"/api/v2/(pages|blogposts)/([^/]+)/attachments", "v2_page_files"),
    (r"/api/v2/(pages|folders|whiteboards|databases|embeds)/([^/]+)/ancestors", "v2_ancestors"),
    (r"/rest/api/group/by-id", "group_by_id"),
    (r"/rest/api/group/([^/]+)/membersByGroupId", "members"),
    (r"/rest/api/content/([^/]+)/permission/check", "permission_check"),
    (r"/rest/api/content/([^/]+)/child/attachment/([^/]+)/download", "cloud_download"),
]


class _Handler(BaseHTTPRequestHandler):
    site: FakeConfluence

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers.get("content-length", 0)))))

    def _handle(self, posted: Any) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        signed = self.headers.get("authorization")
        with self.site.lock:
            self.site.log.append((self.command, parts.path, query, signed))
            fault = next((fault for fault in self.site.faults if fault.path in parts.path and fault.times > 0), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None:
            time.sleep(fault.delay)
            self._send(fault.status, fault.body, fault.headers)
            return
        with self.site.lock:
            self.site.before(parts.path, query)
            status, body, headers = self._answer(parts.path, query, signed, posted)
        self._send(status, body, headers)

    def _answer(
        self, path: str, query: dict[str, list[str]], signed: str | None, posted: Any
    ) -> tuple[int, bytes, dict[str, str]]:
        if signed is None and not site_is_open(self.site, path):
            return 401, b"", {}
        if signed is not None and TOKEN not in _decoded(signed):
            return 401, b"", {}
        try:
            answer = self.site.answer(self.command, path, query, posted)
        except Refused as error:
            return error.status, b'{"message": "no"}', {}
        except Moved as error:
            return 302, b"", {"location": error.to}
        if isinstance(answer, bytes):
            return 200, answer, {"content-type": "application/octet-stream"}
        return 200, json.dumps(answer).encode(), {"content-type": "application/json"}

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked did not wait

    def log_message(self, format: str, *args: Any) -> None:
        pass


def site_is_open(site: FakeConfluence, path: str) -> bool:
    """Whether a path answers without an account: of spaces that are open to all, on a site that is."""
    if not site.site_anonymous:
        return False
    key = re.fullmatch(r"(?:/wiki)?/(?:rest/api/space|api/v2/spaces)/([^/]+)", path)
    spaces = site.spaces.values()
    if path.endswith("/api/v2/spaces"):
        return True
    return key is not None and any(space.anonymous for space in spaces if key[1] in (space.key, space.id))


def _decoded(authorization: str) -> str:
    import base64

    scheme, _, value = authorization.partition(" ")
    return base64.b64decode(value).decode() if scheme == "Basic" else value


class MediaHost:
    """Another host, to which Cloud sends whoever wants a file. It writes down how it was asked."""

    def __init__(self, data: bytes) -> None:
        self.asked: list[dict[str, str]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
