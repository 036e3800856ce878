"""Who reads an item, asked of Microsoft Graph: its permissions, and the names of those whom they mean."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from ingest.connectors.sharepoint_graph import Graph, Json
from ingest.connectors.sharepoint_items import digest
from ingest.connectors.sharepoint_rights import Policy, access_rule, read_grants
from ingest.connectors.sharepoint_settings import SharepointSettings
from ingest.connectors.sharepoint_transport import Broken, Misunderstood, NotPermitted, NotThere
from policies.access import NOBODY, AccessRule
from policies.errors import RightsUnreadable

T = TypeVar("T")

MAX_BROKEN = 5

_log = logging.getLogger(__name__)


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do several things at once, as fast as the pace lets them. The first that fails ends all of them."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Readers:
    """Reads rights for as long as one listing takes; each user and group is asked for once.

    `due`: items whose rights end, or could not be read, and when to look again (Unix seconds). `groups`: digests of
    the members of the groups that were expanded.
    """

    def __init__(self, graph: Graph, settings: SharepointSettings, drive_id: str) -> None:
        self._graph, self._settings = graph, settings
        self._items = graph.api.drives.by_drive_id(drive_id).items
        self._policy = Policy(
            settings.everyone_for_organization_links, settings.everyone_for_anonymous_links, settings.site_groups
        )
        self._names: dict[tuple[str, str], frozenset[str]] = {}
        self._asking: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._broken = 0
        self.due: dict[str, float] = {}
        self.groups: dict[str, str] = {}
        self.unmapped: set[str] = set()

    async def rule(self, item_id: str) -> AccessRule:
        """Give an item's readers; nobody where its permissions cannot be read, which is tried again next time.

        Raises as `Graph.get` does, and `RightsUnreadable` where Graph fails over more than a few items.
        """
        try:
            permissions = await self.permissions(item_id)
        except Broken as error:
            self._broken += 1
            if self._broken > MAX_BROKEN:
                raise RightsUnreadable(error.detail) from error
            permissions = None
        except (NotPermitted, NotThere):
            permissions = None
        if permissions is None:
            self.due[item_id] = 0.0
            return NOBODY
        return await self.rule_of(permissions, item_id)

    async def permissions(self, item_id: str) -> list[Any]:
        """Ask for an item's effective permissions, as JSON. Raises as `Graph.get` does."""
        return await self._graph.collect(self._items.by_drive_item_id(item_id).permissions)

    async def rule_of_top(self, item_id: str) -> AccessRule:
        """Give the readers of what all else lies below. Raises `RightsUnreadable` where they cannot be read."""
        try:
            return await self.rule_of(await self.permissions(item_id), item_id)
        except (NotPermitted, Broken) as error:
            raise RightsUnreadable(error.detail) from error

    async def rule_of(self, permissions: list[Any], item_id: str) -> AccessRule:
        """Give the rule that some permissions mean now. Raises as `Graph.get` does, and `RightsUnreadable`."""
        grants = read_grants(permissions, self._policy, time.time())
        if grants.until is not None:
            self.due[item_id] = grants.until
        self.unmapped |= grants.unmapped
        wanted = [("user", key) for key in grants.users] + [("group", key) for key in grants.groups]
        found = await together(self._principals(kind, key) for kind, key in wanted)
        return access_rule(grants.principals.union(*found), grants.everyone)

    async def changed_groups(self, known: dict[str, str]) -> bool:
        """Say whether another one is now a member of groups that were expanded before."""
        await together(self._principals("group", key) for key in known)
        return any(self.groups.get(key) != members for key, members in known.items())

    def warn(self) -> None:
        """Say which SharePoint groups gave no rights."""
        if self.unmapped:
            names = ", ".join(f"{name[:64]!a}" for name in sorted(self.unmapped)[:20])
            _log.warning("%s: no rights follow from these groups, see site_groups: %s", self._settings.name, names)

    async def _principals(self, kind: str, key: str) -> frozenset[str]:
        """Give what one user or group is called in tokens; nothing where the directory does not know them."""
        async with self._asking[kind, key]:
            if (kind, key) not in self._names:
                try:
                    names = await (self._user(key) if kind == "user" else self._group(key))
                except (NotThere, Misunderstood):
                    names = frozenset()
                except (NotPermitted, Broken) as error:
                    raise RightsUnreadable(error.detail) from error
                self._names[kind, key] = names
            return self._names[kind, key]

    async def _user(self, key: str) -> frozenset[str]:
        claim = self._settings.user_claim
        if claim == "id" and "@" not in key:
            return frozenset({f"user:{key}"})
        return self._named(await self._graph.get(self._graph.api.users.by_user_id(key), select=["id", claim]))

    def _named(self, user: Json) -> frozenset[str]:
        name = user.get(self._settings.user_claim)
        return frozenset({f"user:{name}"} if isinstance(name, str) and name else ())

    async def _group(self, key: str) -> frozenset[str]:
        group = self._graph.api.groups.by_group_id(key)
        if self._settings.expand_groups:
            select = ["id", self._settings.user_claim]
            members = await self._graph.collect(group.transitive_members.graph_user, select=select, top=999)
            names = frozenset().union(*(self._named(user) for user in members if isinstance(user, dict)))
            self.groups[key] = digest(*sorted(names))
            return names
        if self._settings.group_claim == "id":
            return frozenset({f"group:{key}"})
        name = (await self._graph.get(group, select=["id", "displayName"])).get("displayName")
        return frozenset({f"group:{name}"} if isinstance(name, str) and name else ())
