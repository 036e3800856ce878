"""One listing of a drive: everything from the start, or what changed since a cursor, with the rights of each file.

Graph's delta names a folder whose rights, name or place changed, but nothing below it; and it names the folders above
each changed item too. So a listing remembers a mark for each folder (`folder_mark`), asks for the rights of each one
that the delta names, and looks at everything below those whose mark differs. Rights that change above the library
(on the site) are in no delta: the topmost folder's are read every time, and where they differ, all is listed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from ingest.connector import Entry, Gone, Mark
from ingest.connectors.sharepoint_graph import Graph, values
from ingest.connectors.sharepoint_items import SELECT, Cursor, Item, file_name, folder_mark, read_item
from ingest.connectors.sharepoint_readers import Readers, together
from ingest.connectors.sharepoint_settings import SharepointSettings
from ingest.connectors.sharepoint_transport import Misunderstood, NotThere, Stale
from policies.errors import SourceUnavailable

# What lets the delta tell of rights: https://learn.microsoft.com/graph/api/driveitem-delta, "permissions hierarchies".
PREFER = "deltashowremovedasdeleted, deltatraversepermissiongaps, deltashowsharingchanges, hierarchicalsharing"
AT_ONCE = 64


@dataclass(slots=True)
class _Findings:
    """What a listing has to say: files to name, and ids of what is no file of this source any more."""

    files: dict[str, Item] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


class Listing:
    """One run over a drive. `top` is the folder that the source is: the drive's root, or the one in the settings."""

    def __init__(self, graph: Graph, settings: SharepointSettings, drive_id: str, top: Item) -> None:
        self._graph, self._settings, self._drive_id, self._top = graph, settings, drive_id, top
        self._items = graph.api.drives.by_drive_id(drive_id).items
        self._readers = Readers(graph, settings, drive_id)
        self._scope = settings.digest(drive_id, top.id)
        self._told: dict[str, Item] = {}  # what the delta says, its last word on each item
        self._inside: dict[str, bool] = {top.id: True}
        self._walked: set[str] = set()

    def run(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        """List what changed since `cursor`, or everything. Raises `SourceUnavailable`, `ConfigurationError`."""
        before, after = Cursor.decode(cursor, self._scope), Cursor(self._scope)
        found = None if before is None else self._graph.run(self._changes(before, after))
        complete = found is None
        if found is None:
            after = Cursor(self._scope)
            found = self._graph.run(self._everything(after))
        yield from self._say(found)
        self._readers.warn()
        after.groups.update(self._readers.groups)
        after.due.update(self._readers.due)
        yield Mark(after.encode(), complete)

    def look(self, item_id: str) -> Iterator[Entry | Gone]:
        """Name one item, or what is below it if it is a folder. Raises as `run` does."""
        yield from self._say(self._graph.run(self._look(item_id)))

    def _say(self, found: _Findings) -> Iterator[Entry | Gone]:
        yield from map(Gone, sorted(found.gone - found.files.keys()))
        files = list(found.files.values())
        for start in range(0, len(files), AT_ONCE):
            yield from self._graph.run(together(map(self._entry, files[start : start + AT_ONCE])))

    async def _entry(self, item: Item) -> Entry | Gone:
        asked_at = time.time()  # what Graph says of it is at least as new
        if item.tag is None:
            try:
                item = await self._item(item.id)
            except NotThere:
                return Gone(item.id)
        rule = await self._readers.rule(item.id)  # after the tag: a text newer than its rule must not pass for it
        ref = self._settings.ref(item.id, item.uri, rule, item.tag or item.spare_tag, item.size_bytes)
        return Entry(
            replace(ref, seen_at=asked_at),
            location=None if item.infected else f"{self._drive_id}/{item.id}",
            error="SharePoint has found malware in it" if item.infected else None,
            name=file_name(item.name),
            changed_at=item.changed_at,
        )

    # ---- everything ----

    async def _everything(self, after: Cursor) -> _Findings:
        first = self._items.by_drive_item_id("root").delta
        self._inside = {self._top.id: True}
        try:
            await self._delta(first, after, select=SELECT)
        except Stale:  # while paging; once is bad luck
            await self._delta(first, after, select=SELECT)
        found, folders = _Findings(), []
        after.folders[self._top.id] = await self._top_mark()
        for item in self._told.values():
            if item.deleted or item.id == self._top.id or not await self._is_inside(item):
                continue
            if item.kind == "file":
                found.files[item.id] = item
            elif item.kind == "folder":
                folders.append(item)
        for start in range(0, len(folders), AT_ONCE):
            await self._remember(folders[start : start + AT_ONCE], after)
        return found

    # ---- what changed ----

    async def _changes(self, before: Cursor, after: Cursor) -> _Findings | None:
        """Find what changed; none where only a listing of everything can tell."""
        if _differ(await self._top_mark(), before.folders.get(self._top.id)) or not self._graph.is_own(before.link):
            return None
        if await self._readers.changed_groups(before.groups):
            return None
        try:
            await self._delta(self._items.by_drive_item_id("root").delta.with_url(before.link), after)
        except (Stale, Misunderstood, NotThere):
            return None
        if self._hides_what_was_below(before):
            return None
        found = _Findings()
        await self._add_due(before, found)
        after.folders = dict(before.folders)
        after.due = {key: at for key, at in before.due.items() if key not in self._told and key not in found.gone}
        await self._sort(before, after, found)
        return found

    def _hides_what_was_below(self, before: Cursor) -> bool:
        """Say whether a folder was deleted that had something in it, of which the delta says nothing.

        Graph names what was below a deleted folder, too, but does not promise it.
        """
        deleted = [item for item in self._told.values() if item.deleted]
        named = {item.parent for item in deleted}
        return any(not before.folders.get(item.id, "-").startswith("-") and item.id not in named for item in deleted)

    async def _add_due(self, before: Cursor, found: _Findings) -> None:
        """Look again at what a right ended on, or whose rights could not be read."""
        now = time.time()
        for key in [key for key, at in before.due.items() if at <= now and key not in self._told]:
            try:
                self._told[key] = await self._item(key)
            except (NotThere, Misunderstood):
                found.gone.add(key)

    async def _sort(self, before: Cursor, after: Cursor, found: _Findings) -> None:
        """Put what the delta told into `found`, with what is below folders that are not what they were."""
        folders: list[Item] = []
        for item in [item for item in self._told.values() if item.id != self._top.id]:
            inside = not item.deleted and await self._is_inside(item)
            if item.kind == "file" and inside:
                found.files[item.id] = item
            elif item.kind == "folder" and inside:
                folders.append(item)
            elif item.id in before.folders:
                after.folders.pop(item.id, None)
                if not item.deleted:
                    await self._below(item, after, found, inside=False)
            elif item.kind != "folder":
                found.gone.add(item.id)
        await self._remember(folders, after)
        for folder in folders:
            if _differ(after.folders[folder.id], before.folders.get(folder.id)):
                await self._below(folder, after, found, inside=True)

    async def _below(self, folder: Item, after: Cursor, found: _Findings, *, inside: bool) -> None:
        """Find every file below a folder, level by level."""
        level = [folder]
        while level := [each for each in level if each.id not in self._walked]:
            self._walked |= {each.id for each in level}
            self._inside |= {each.id: inside for each in level}
            children = [child for each in await together(map(self._children, level)) for child in each]
            for child in children:
                if child.kind == "file" and inside:
                    found.files[child.id] = child
                elif child.kind == "file":
                    found.gone.add(child.id)
            level = [child for child in children if child.kind == "folder"]
            if inside:
                await self._remember(level, after)
            else:
                after.folders = {key: mark for key, mark in after.folders.items() if key not in {c.id for c in level}}

    async def _remember(self, folders: list[Item], after: Cursor) -> None:
        rules = await together(self._readers.rule(folder.id) for folder in folders)
        after.folders |= {folder.id: folder_mark(folder, rule) for folder, rule in zip(folders, rules, strict=True)}

    # ---- asking ----

    async def _top_mark(self) -> str:
        """Mark the topmost folder. Its rights must be readable: without them, nobody's would be."""
        return folder_mark(self._top, await self._readers.rule_of_top(self._top.id))

    async def _look(self, item_id: str) -> _Findings:
        found = _Findings()
        try:
            item = await self._item(item_id)
        except (NotThere, Misunderstood):
            found.gone.add(item_id)
            return found
        inside = not item.deleted and (item.id == self._top.id or await self._is_inside(item))
        if item.kind == "folder" and not item.deleted:
            await self._below(item, Cursor(self._scope), found, inside=inside)
        elif item.kind == "file" and inside:
            found.files[item.id] = item
        if not inside or item.kind == "other":
            found.gone.add(item_id)
        return found

    async def _delta(self, builder: Any, after: Cursor, **query: Any) -> None:
        """Read all pages of a delta. Raises `SourceUnavailable` where it ends without saying where to go on."""
        self._told.clear()
        page: dict[str, Any] = {}
        async with aclosing(self._graph.pages(builder, PREFER, **query)) as pages:
            async for page in pages:
                items = (read_item(value, self._drive_id) for value in values(page))
                self._told.update((item.id, item) for item in items)
        link = page.get("@odata.deltaLink")
        if not isinstance(link, str) or not self._graph.is_own(link):
            raise SourceUnavailable("Microsoft Graph's listing breaks off")
        after.link = link

    async def _item(self, item_id: str) -> Item:
        builder = self._items.by_drive_item_id(item_id)
        return read_item(await self._graph.get(builder, select=SELECT), self._drive_id)

    async def _children(self, folder: Item) -> list[Item]:
        try:
            found = await self._graph.collect(self._items.by_drive_item_id(folder.id).children, select=SELECT, top=200)
        except NotThere:
            return []  # gone by now: the next listing says so
        return [read_item(value, self._drive_id) for value in found]

    async def _is_inside(self, item: Item) -> bool:
        """Say whether an item lies below the top, climbing from folder to folder; the delta names most of them."""
        if self._settings.folder is None:
            return True
        climbed: list[str] = []
        parent = item.parent
        while parent is not None and parent not in self._inside and parent not in climbed:
            climbed.append(parent)
            above = self._told.get(parent)
            try:
                above = above or await self._item(parent)
            except (NotThere, Misunderstood):
                break
            parent = None if above.deleted else above.parent
        inside = parent is not None and self._inside.get(parent, False)
        self._inside |= dict.fromkeys(climbed, inside)
        return inside


def _differ(mark: str, known: str | None) -> bool:
    return known is None or mark.lstrip("-") != known.lstrip("-")
