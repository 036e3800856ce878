"""A Confluence Data Center, by its one API (v1): pages come with restrictions, ancestors and files, in pages of 100."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ingest.connectors.confluence_answers import Row, segment
from ingest.connectors.confluence_http import HIDDEN, ConfluenceHttp
from ingest.connectors.confluence_items import (
    Above,
    Item,
    Kind,
    identity,
    is_media,
    path_within,
    size_of,
    version_of,
    web_link,
)
from ingest.connectors.confluence_rights import ANYONE, NO_READERS, Readers, read_restriction, server_space_readers
from ingest.connectors.confluence_settings import SPACE_KEY, ConfluenceSettings
from ingest.connectors.confluence_site import (
    PAGE,
    READ_RESTRICTIONS,
    Site,
    Space,
    ancestors_of,
)

_KINDS: dict[Any, Kind] = {"page": "page", "blogpost": "blogpost", "attachment": "attachment"}
_PAGE_FIELDS = f"version,space,ancestors,{READ_RESTRICTIONS}"


class ServerSite(Site):
    """See `Site`. Its paging by `start` is guarded against shifts (`ConfluenceHttp.offset_rows`)."""

    def __init__(self, http: ConfluenceHttp, settings: ConfluenceSettings) -> None:
        super().__init__(http, settings)
        self._attached: dict[str, list[Item]] = {}

    def _list_spaces(self) -> Iterator[Space]:
        asked: dict[str, Any] = {"limit": PAGE}
        if self.settings.spaces is None:
            asked["status"] = "current"
        for row in self.http.offset_rows("rest/api/space", asked, key=lambda row: row.get("key")) or ():
            key = row.get("key")
            if isinstance(key, str) and SPACE_KEY.fullmatch(key):
                yield Space(key, str(row.get("id", "")))

    def _space_path(self, space: Space) -> str:
        return f"rest/api/space/{segment(space.key)}"

    def _search(self, path: str, params: dict[str, Any], absent: frozenset[int]) -> Iterator[Row]:
        yield from self.http.offset_rows(path, params, absent) or ()

    def space_readers(self, space: Space) -> Readers | None:
        found = self.http.json(f"{self._space_path(space)}/permissions", absent=HIDDEN)
        if not isinstance(found, list):
            return None
        readers, anonymous = server_space_readers(found, self.directory.user, self.directory.group)
        everyone = anonymous and self.is_anonymous(space)
        return Readers(readers.users, readers.groups, everyone)

    def pages(self) -> Iterator[Item]:
        fields = f"{_PAGE_FIELDS},children.attachment.version" if self.settings.attachments else _PAGE_FIELDS
        for space in self.spaces.values():
            for kind in ("page", "blogpost"):
                asked = {"spaceKey": space.key, "type": kind, "status": "current", "limit": PAGE, "expand": fields}
                for row in self.http.offset_rows("rest/api/content", asked, frozenset({404})) or ():
                    item = self._item(row, space.key)
                    if item is not None:
                        if self.settings.attachments:
                            self._attached[item.id] = list(self._files(item, row))
                        yield item

    def restrictions(self) -> dict[str, Readers]:
        return {}  # they came with the pages

    def attachments(self, pages: Mapping[str, Item]) -> Iterator[Item]:
        for page in pages:
            yield from self._attached.get(page, ())

    def item(self, content: str) -> Item | None:
        asked = {"status": "any", "expand": f"{_PAGE_FIELDS},container"}
        row = self.http.json(f"rest/api/content/{segment(content)}", asked, HIDDEN)
        if not isinstance(row, dict) or row.get("status") != "current" or identity(row.get("id")) != content:
            return None
        if row.get("type") == "attachment":
            container = row.get("container")
            page = identity(container.get("id")) if isinstance(container, dict) else None
            return None if page is None else self._file(row, page, "")
        space = row.get("space")
        key = space.get("key") if isinstance(space, dict) else None
        if not isinstance(key, str) or (self.settings.spaces is not None and key not in self.settings.spaces):
            return None
        return self._item(row, key)

    def attached(self, page: Item) -> Iterator[Item]:
        asked = {"limit": PAGE, "expand": "version"}
        path = f"rest/api/content/{segment(page.id)}/child/attachment"
        for row in self.http.offset_rows(path, asked, HIDDEN) or ():
            item = self._file(row, page.id, page.space)
            if item is not None:
                yield item

    def chain(self, page: Item, pages: Mapping[str, Item]) -> tuple[Above, ...] | None:
        return page.above

    def permitted(self, page: Item, readers: Readers) -> Readers:
        return NO_READERS  # nothing but pages stands above a page here: what else does is not understood

    def body_path(self, kind: str, content: str) -> tuple[str, dict[str, Any]]:
        return f"rest/api/content/{segment(content)}", {"expand": "body.storage,version"}

    # ---- from rows to items

    def _item(self, row: Row, space: str) -> Item | None:
        key, kind = identity(row.get("id")), _KINDS.get(row.get("type"))
        if key is None or kind is None or kind == "attachment" or row.get("status", "current") != "current":
            return None
        restrictions = row.get("restrictions")
        read = restrictions.get("read") if isinstance(restrictions, dict) else None
        own = read_restriction(read, self.directory.user, self.directory.group)
        above = () if kind == "blogpost" else ancestors_of(row.get("ancestors"))
        version, changed_at = version_of(row, "when")
        fallback = f"/pages/viewpage.action?pageId={key}"
        link = self._link(row, fallback)
        return Item(key, kind, str(row.get("title", "")), space, version, changed_at, link, own, above)

    def _files(self, page: Item, row: Row) -> Iterator[Item]:
        """Give a page's files as they came with it; where not all of them did, they are asked for."""
        children = row.get("children")
        part = children.get("attachment") if isinstance(children, dict) else None
        results = part.get("results") if isinstance(part, dict) else None
        links = part.get("_links") if isinstance(part, dict) else None
        limit = part.get("limit", 25) if isinstance(part, dict) else 0
        if not isinstance(results, list) or (isinstance(links, dict) and "next" in links) or len(results) >= limit > 0:
            yield from self.attached(page)
            return
        for each in results:
            item = self._file(each, page.id, page.space) if isinstance(each, dict) else None
            if item is not None:
                yield item

    def _file(self, row: Row, page: str, space: str) -> Item | None:
        key = identity(row.get("id"))
        extensions = row.get("extensions") if isinstance(row.get("extensions"), dict) else {}
        assert isinstance(extensions, dict)
        if key is None or is_media(extensions.get("mediaType")) or row.get("status", "current") != "current":
            return None
        version, changed_at = version_of(row, "when")
        links = row.get("_links") if isinstance(row.get("_links"), dict) else {}
        assert isinstance(links, dict)
        return Item(
            key,
            "attachment",
            str(row.get("title", "")),
            space,
            version,
            changed_at,
            self._link(row, f"/pages/viewpageattachments.action?pageId={page}"),
            own=ANYONE,
            page=page,
            download=path_within(links.get("download")) or "",
            size_bytes=size_of(extensions.get("fileSize")),
        )

    def _link(self, row: Row, fallback: str) -> str:
        links = row.get("_links")
        path = links.get("webui") if isinstance(links, dict) else None
        return web_link(self.http.web_base, path, self.settings.base_url, fallback)
