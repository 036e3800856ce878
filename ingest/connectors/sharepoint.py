"""SharePoint libraries and OneDrive, through Microsoft Graph: files by item id, rights by item permissions.

    list ──▶ delta of the drive (pages, then Graph's cursor) ──▶ permissions of what changed ──▶ Entry | Gone, Mark
    fetch ─▶ /content ──▶ an address that needs no token ──▶ bytes

An item keeps its id when it is renamed or moved. What a listing costs: a request for each page of 200 changes, one for
the rights of each file and each folder that the delta names, one for each user whose name is looked up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ingest.connector import Entry, Gone, Mark
from ingest.connectors.listed_version import changed, is_listed
from ingest.connectors.sharepoint_items import SELECT, Item, is_item_id, read_item
from ingest.connectors.sharepoint_settings import SharepointSettings
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge

if TYPE_CHECKING:
    from ingest.connectors.sharepoint_graph import Graph
    from ingest.connectors.sharepoint_listing import Listing

__all__ = ["SharepointConnector", "SharepointSettings"]


class SharepointConnector:
    """One library, OneDrive or folder. It connects, and loads the SDK (about a second), when it is first used."""

    def __init__(self, settings: SharepointSettings) -> None:
        self._settings = settings
        self._graph: Graph | None = None
        self._drive_id: str | None = None

    def check(self) -> None:
        graph = self._connected()
        graph.run(self._check(graph))

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        yield from self._listing().run(cursor)

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        listing = self._listing()
        for external_id in dict.fromkeys(external_ids):
            if is_item_id(external_id):
                yield from listing.look(external_id)
            else:
                yield Gone(external_id)

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        drive_id, _, item_id = (entry.location or "").partition("/")
        if not (is_item_id(drive_id) and is_item_id(item_id)):
            raise DocumentRejected("nothing to read")
        if entry.ref.size_bytes > max_bytes:
            raise TooLarge(f"the file is larger than {max_bytes / 1_000_000:g} MB")
        graph = self._connected()
        return graph.run(self._content(graph, entry, drive_id, item_id, max_bytes))

    def watch(self) -> AsyncIterator[Sequence[str]] | None:
        """None: Graph sends its change notifications to a webhook."""
        return None

    async def _content(self, graph: Graph, entry: Entry, drive_id: str, item_id: str, max_bytes: int) -> bytes:
        """Give the bytes, where the item has the tag still that was listed before its rights were read."""
        from ingest.connectors.sharepoint_transport import NotPermitted, NotThere

        data = await graph.content(drive_id, item_id, max_bytes)
        builder = graph.api.drives.by_drive_id(drive_id).items.by_drive_item_id(item_id)
        try:
            item = read_item(await graph.get(builder, select=SELECT), drive_id)
        except NotThere as error:
            raise DocumentRejected("deleted while reading") from error
        except NotPermitted as error:
            raise DocumentRejected("no permission to read it") from error
        if not is_listed(entry, item.tag or item.spare_tag):
            raise changed()
        return data

    def _connected(self) -> Graph:
        if self._graph is None:
            try:
                module = import_module("ingest.connectors.sharepoint_graph")
            except ImportError as error:
                raise ConfigurationError("kind sharepoint: run pip install 'rayrag[sharepoint]'") from error
            self._graph = module.Graph(self._settings)
        return self._graph

    def _listing(self) -> Listing:
        from ingest.connectors.sharepoint_listing import Listing

        graph = self._connected()
        drive_id, top = graph.run(self._place(graph))
        return Listing(graph, self._settings, drive_id, top)

    async def _check(self, graph: Graph) -> None:
        from ingest.connectors.sharepoint_listing import PREFER
        from ingest.connectors.sharepoint_readers import Readers

        drive_id, top = await self._place(graph)
        await graph.get(graph.api.drives.by_drive_id(drive_id).items.by_drive_item_id("root").delta, PREFER, top=1)
        readers = Readers(graph, self._settings, drive_id)
        permissions = await readers.permissions(top.id)
        if not any(isinstance(each, dict) and each.get("roles") for each in permissions):
            # Graph shows an application without the right to it an empty list, or grants without roles.
            raise ConfigurationError(
                "Microsoft Graph does not tell who may read: grant the application Sites.FullControl.All, or "
                "Sites.Selected with the role fullcontrol on this site, with an administrator's consent"
            )
        await readers.rule_of(permissions, top.id)
        readers.warn()

    async def _place(self, graph: Graph) -> tuple[str, Item]:
        """Find the drive, and the folder that the source is. Raises `ConfigurationError` where there is none."""
        if self._drive_id is None:
            self._drive_id = await self._find_drive(graph)
        drive = graph.api.drives.by_drive_id(self._drive_id)
        builder, setting = drive.root, "drive_id"
        if self._settings.folder is not None:
            path = f"drives/{quote(self._drive_id, safe='')}/root:/{quote(self._settings.folder)}"
            builder, setting = drive.root.with_url(f"{self._settings.base_url}/{path}"), "folder"
        top = read_item(await self._required(graph, builder, setting), self._drive_id)
        if top.kind != "folder":
            raise ConfigurationError(f"{setting}: this is no folder")
        return self._drive_id, top

    async def _find_drive(self, graph: Graph) -> str:
        settings, api = self._settings, graph.api
        if settings.drive_id is not None:
            return settings.drive_id
        if settings.user is not None:
            return _id(await self._required(graph, api.users.by_user_id(settings.user).drive, "user"))
        host, _, path = (settings.site or "").partition(":/")
        address = f"{settings.base_url}/sites/{quote(host, safe='')}" + (f":/{quote(path)}" if path else "")
        site = api.sites.by_site_id(
            _id(await self._required(graph, api.sites.by_site_id("x").with_url(address), "site"))
        )
        if settings.library is None:
            return _id(await self._required(graph, site.drive, "site"))
        drives = await graph.collect(site.drives, select=["id", "name"])
        for drive in drives:
            if isinstance(drive, dict) and drive.get("name") == settings.library:
                return _id(drive)
        raise ConfigurationError("library: the site has none of this name, or the application may not see it")

    async def _required(self, graph: Graph, builder: Any, setting: str) -> dict[str, Any]:
        from ingest.connectors.sharepoint_transport import Misunderstood, NotThere

        try:
            return await graph.get(builder)
        except (NotThere, Misunderstood) as error:
            raise ConfigurationError(f"{setting}: there is none such, or the application may not see it") from error


def _id(value: dict[str, Any]) -> str:
    found = value.get("id")
    if not isinstance(found, str) or not found:
        raise SourceUnavailable("Microsoft Graph names a drive or site without an id")
    return found
