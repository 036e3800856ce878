"""A Confluence Cloud: v2 lists pages and files by cursor; v1 knows restrictions, the search, groups and permissions.

A page may lie in a folder, a whiteboard or a database, which can be restricted too, and no API tells how
(CONFCLOUD-82920: a folder's restrictions come back empty). There Confluence itself is asked, for each name that would
be permitted, whether it may read the page (`permission/check`); who does not pass is left out. That takes an account
with the "Confluence administrator" permission; without it nobody reads what lies in folders.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ingest.connectors.confluence_answers import Row, segment
from ingest.connectors.confluence_http import HIDDEN, ConfluenceHttp, Hidden
from ingest.connectors.confluence_items import Above, Item, Kind, identity, is_media, size_of, version_of, web_link
from ingest.connectors.confluence_rights import ANYONE, NO_READERS, Readers, cloud_space_readers, read_restriction
from ingest.connectors.confluence_settings import SPACE_KEY, ConfluenceSettings
from ingest.connectors.confluence_site import (
    READ_RESTRICTIONS,
    Site,
    Space,
    ancestors_of,
)

V2_PAGE = 250
MAX_DEPTH = 250
MAX_CHECKED = 200
"""So many names are checked for one folder; where there are more, nobody reads what lies in it."""
_LISTS = {
    "page": "pages",
    "blogpost": "blogposts",
    "folder": "folders",
    "whiteboard": "whiteboards",
    "database": "databases",
    "embed": "embeds",
}


class CloudSite(Site):
    """See `Site`."""

    def __init__(self, http: ConfluenceHttp, settings: ConfluenceSettings) -> None:
        super().__init__(http, settings)
        self._chains: dict[Above, tuple[Above, ...] | None] = {}
        self._checked: dict[tuple[tuple[Above, ...], str, str], bool] = {}
        self._is_open: bool | None = None

    def _list_spaces(self) -> Iterator[Space]:
        asked: dict[str, Any] = {"limit": V2_PAGE}
        if self.settings.spaces is None:
            asked["status"] = "current"
        for row in self.http.cursor_rows("api/v2/spaces", asked):
            key, number = row.get("key"), identity(row.get("id"))
            if isinstance(key, str) and SPACE_KEY.fullmatch(key) and number is not None:
                yield Space(key, number)

    def _space_path(self, space: Space) -> str:
        return f"api/v2/spaces/{segment(space.id)}"

    def is_anonymous(self, space: Space) -> bool:
        if self._is_open is None:  # where the site is closed, one question is enough
            self._is_open = self.settings.anonymous and self.http.is_public("api/v2/spaces?limit=1")
        return self._is_open and super().is_anonymous(space)

    def _search(self, path: str, params: dict[str, Any], absent: frozenset[int]) -> Iterator[Row]:
        try:
            yield from self.http.cursor_rows(path, params, absent)
        except Hidden:
            return

    def space_readers(self, space: Space) -> Readers | None:
        try:
            rows = list(self.http.cursor_rows(f"{self._space_path(space)}/permissions", {"limit": V2_PAGE}, HIDDEN))
        except Hidden:
            return None
        readers = cloud_space_readers(rows, self.directory.user, self.directory.group)
        return replace(readers, everyone=self.is_anonymous(space))

    def pages(self) -> Iterator[Item]:
        keys = {space.id: space.key for space in self.spaces.values()}
        kinds: tuple[Kind, Kind] = ("page", "blogpost")
        for kind in kinds:
            if self.settings.spaces is None:
                paths = [f"api/v2/{kind}s"]
            else:
                paths = [f"{self._space_path(space)}/{kind}s" for space in self.spaces.values()]
            for row in itertools.chain.from_iterable(map(self._listed, paths)):
                key = keys.get(identity(row.get("spaceId")) or "")
                item = None if key is None else self._item(row, kind, key)
                if item is not None:
                    yield item

    def _listed(self, path: str) -> Iterator[Row]:
        try:
            yield from self.http.cursor_rows(path, {"status": "current", "limit": V2_PAGE}, frozenset({404}))
        except Hidden:
            return  # the space went meanwhile

    def restrictions(self) -> dict[str, Readers]:
        rows = self._search_rows("type in (page,blogpost)", list(self.spaces), {"expand": READ_RESTRICTIONS})
        found: dict[str, Readers] = {}
        for row in rows:
            key, restrictions = identity(row.get("id")), row.get("restrictions")
            read = restrictions.get("read") if isinstance(restrictions, dict) else None
            own = read_restriction(read, self.directory.user, self.directory.group)
            if key is not None and own is not None:
                found[key] = own
        return found

    def attachments(self, pages: Mapping[str, Item]) -> Iterator[Item]:
        for row in self.http.cursor_rows("api/v2/attachments", {"status": "current", "limit": V2_PAGE}):
            item = self._file(row)
            if item is not None and item.page in pages:
                yield item

    def item(self, content: str) -> Item | None:
        if content.startswith("att"):
            row = self.http.json(f"api/v2/attachments/{segment(content)}", absent=HIDDEN)
            return self._file(row) if isinstance(row, dict) and row.get("id") == content else None
        kinds: tuple[Kind, Kind] = ("page", "blogpost")
        for kind in kinds:
            row = self.http.json(f"api/v2/{kind}s/{segment(content)}", absent=HIDDEN)
            if isinstance(row, dict) and identity(row.get("id")) == content:
                number = identity(row.get("spaceId"))
                key = next((space.key for space in self.spaces.values() if space.id == number), None)
                return None if key is None else self._item(row, kind, key)
        return None

    def attached(self, page: Item) -> Iterator[Item]:
        path = f"api/v2/{page.kind}s/{segment(page.id)}/attachments"
        try:
            for row in self.http.cursor_rows(path, {"status": "current", "limit": V2_PAGE}, HIDDEN):
                item = self._file(row)
                if item is not None and item.page == page.id:
                    yield item
        except Hidden:
            return

    def chain(self, page: Item, pages: Mapping[str, Item]) -> tuple[Above, ...] | None:
        above: list[Above] = []
        node = page.parent
        while node is not None and len(above) < MAX_DEPTH:
            above.append(node)
            if node.kind == "page" and node.id in pages:
                node = pages[node.id].parent
                continue
            rest = self._ancestors(node)
            return None if rest is None else (*rest, *reversed(above))
        return None if node is not None else tuple(reversed(above))

    def _ancestors(self, node: Above) -> tuple[Above, ...] | None:
        if node not in self._chains:
            kind = _LISTS.get(node.kind)
            path = f"api/v2/{kind}/{segment(node.id)}/ancestors"
            answer = self.http.json(path, {"limit": V2_PAGE}, HIDDEN) if kind and node.id else None
            above = ancestors_of(answer.get("results")) if isinstance(answer, dict) else None
            self._chains[node] = None if above is None or len(above) >= V2_PAGE else above
        return self._chains[node]

    def permitted(self, page: Item, readers: Readers) -> Readers:
        if len(readers.users) + len(readers.groups) > MAX_CHECKED:
            return NO_READERS
        users = frozenset(user for user in readers.users if self._passes(page, "user", user))
        return Readers(users, frozenset(group for group in readers.groups if self._passes(page, "group", group)))

    def _passes(self, page: Item, kind: str, key: str) -> bool:
        # Whoever is checked passes every restriction that is known: what keeps them out is a folder's, and keeps them
        # out of all that lies below the same folders.
        within = (tuple(above for above in page.above or () if above.kind != "page"), kind, key)
        if within not in self._checked:
            asked = {"subject": {"type": kind, "identifier": key}, "operation": "read"}
            answer = self.http.post(f"rest/api/content/{segment(page.id)}/permission/check", asked, HIDDEN)
            self._checked[within] = isinstance(answer, dict) and answer.get("hasPermission") is True
        return self._checked[within]

    def body_path(self, kind: str, content: str) -> tuple[str, dict[str, Any]]:
        return f"api/v2/{_LISTS[kind]}/{segment(content)}", {"body-format": "storage"}

    # ---- from rows to items

    def _item(self, row: Row, kind: Kind, space: str) -> Item | None:
        key = identity(row.get("id"))
        if key is None or row.get("status") != "current":
            return None
        version, changed_at = version_of(row, "createdAt")
        above_id, above_kind = row.get("parentId"), row.get("parentType")
        parent = None if above_id is None else Above(identity(above_id) or "", str(above_kind))
        link = self._link(row, f"/pages/viewpage.action?pageId={key}")
        title = str(row.get("title", ""))
        return Item(key, kind, title, space, version, changed_at, link, above=None, parent=parent)

    def _file(self, row: Row) -> Item | None:
        key = identity(row.get("id"))
        page = identity(row.get("pageId")) or identity(row.get("blogPostId"))
        if key is None or page is None or is_media(row.get("mediaType")) or row.get("status") != "current":
            return None
        version, changed_at = version_of(row, "createdAt")
        of = "" if version is None else f"?version={version}"
        return Item(
            key,
            "attachment",
            str(row.get("title", "")),
            "",
            version,
            changed_at,
            self._link(row, f"/pages/viewpageattachments.action?pageId={page}"),
            own=ANYONE,
            page=page,
            download=f"/rest/api/content/{page}/child/attachment/{key}/download{of}",
            size_bytes=size_of(row.get("fileSize")),
        )

    def _link(self, row: Row, fallback: str) -> str:
        links = row.get("_links")
        path = links.get("webui") if isinstance(links, dict) else row.get("webuiLink")
        return web_link(self.http.web_base, path or row.get("webuiLink"), self.settings.base_url, fallback)
