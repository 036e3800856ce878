"""What is asked of Confluence, alike for Cloud and Data Center; the two differ in where they keep it.

    ServerSite   Data Center: one API (v1). Pages come with their restrictions, ancestors and files, from its database.
    CloudSite    v2 lists pages and files, from its database; v1 knows restrictions, searches, groups and permissions.

The search (CQL) is an index that lags: it only says where to look. `now("-90m")` counts in whole minutes from the
server's own clock: unlike a date, it means the same whatever the time zone of the account is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.connectors.confluence_answers import Row, segment
from ingest.connectors.confluence_directory import Directory
from ingest.connectors.confluence_http import HIDDEN, ConfluenceHttp
from ingest.connectors.confluence_items import Above, Item, identity
from ingest.connectors.confluence_rights import NO_READERS, Readers, restricted_to
from ingest.connectors.confluence_settings import ConfluenceSettings
from policies.access import MAX_NAMES
from policies.errors import ConfigurationError

PAGE = 100
SPACES_A_QUERY = 50
READ_RESTRICTIONS = "restrictions.read.restrictions.user,restrictions.read.restrictions.group"


@dataclass(frozen=True, slots=True)
class Space:
    """A space: its key, and (Cloud) its id."""

    key: str
    id: str


class Site(ABC):
    """One listing's view of a Confluence. What it learns of groups and spaces does not outlive the listing."""

    def __init__(self, http: ConfluenceHttp, settings: ConfluenceSettings) -> None:
        self.http = http
        self.settings = settings
        self.directory = Directory(http, settings)
        self._spaces: dict[str, Space] | None = None

    # ---- what both do alike

    def sign_in(self) -> None:
        """See that Confluence knows the account: one that it does not know gets what is public, and no error.

        Raises `ConfigurationError`.
        """
        me = self.http.json("rest/api/user/current", absent=HIDDEN)
        if self.directory.user(me) is None or me.get("type") == "anonymous":
            raise ConfigurationError(
                f"Confluence does not know the account (see {self.settings.token_env} and username)"
            )

    @property
    def spaces(self) -> Mapping[str, Space]:
        """The spaces to index, by key. Raises `ConfigurationError` where a named one is not there for the account."""
        if self._spaces is None:
            wanted = self.settings.spaces
            found = {space.key: space for space in self._list_spaces() if wanted is None or space.key in wanted}
            lost = [key for key in wanted or () if key not in found]
            if lost:
                raise ConfigurationError(f"spaces: {lost[0]!a} is not there, or not for the account")
            self._spaces = found
        return self._spaces

    def is_anonymous(self, space: Space) -> bool:
        """Say whether a space is read without signing in, by trying: a permission alone does not open it."""
        return self.settings.anonymous and self.http.is_public(self._space_path(space))

    def changed(self, minutes: int) -> list[str]:
        """Give the ids of pages, blog posts and files that the search knows to have changed in these minutes."""
        kinds = "page,blogpost,attachment" if self.settings.attachments else "page,blogpost"
        return self._searched(f'type in ({kinds}) and lastmodified >= now("-{minutes}m")', self.settings.spaces)

    def below(self, page: str) -> list[str]:
        """Give the ids of the pages below a page, as far as the search knows."""
        unknown = frozenset({400, 404})  # a page that the index has not got yet is none to be above others
        return self._searched(f"type = page and ancestor = {page}", None, unknown)

    def _searched(self, what: str, spaces: Sequence[str] | None, absent: frozenset[int] = frozenset()) -> list[str]:
        rows = self._search_rows(what, spaces, {}, absent)
        return list(dict.fromkeys(key for row in rows if (key := identity(row.get("id"))) is not None))

    def _search_rows(
        self, what: str, spaces: Sequence[str] | None, more: dict[str, Any], absent: frozenset[int] = frozenset()
    ) -> Iterator[Row]:
        step = SPACES_A_QUERY
        for part in [spaces[n : n + step] for n in range(0, len(spaces), step)] if spaces else [None]:
            within = "space in ({}) and ".format(",".join(f'"{key}"' for key in part)) if part else ""
            asked = {"cql": f"{within}{what} order by created", "limit": PAGE} | more
            yield from self._search("rest/api/content/search", asked, absent)

    def own_restriction(self, content: str) -> Readers:
        """Ask for a page's own read restriction. Nobody where it is not told."""
        path = f"rest/api/content/{segment(content)}/restriction/byOperation/read"
        users: list[Any] = []
        groups: list[Any] = []
        start = 0
        while start < MAX_NAMES:
            asked = {"start": start, "limit": PAGE, "expand": "restrictions.user,restrictions.group"}
            parts = _restriction_parts(self.http.json(path, asked, HIDDEN))
            if parts is None:
                return NO_READERS
            users += parts[0]
            groups += parts[1]
            brought = max(len(parts[0]), len(parts[1]))
            if brought < parts[2]:
                return restricted_to(users, groups, self.directory.user, self.directory.group)
            start += brought
        return NO_READERS

    # ---- what they do each in its way

    @abstractmethod
    def _list_spaces(self) -> Iterator[Space]: ...

    @abstractmethod
    def _space_path(self, space: Space) -> str: ...

    @abstractmethod
    def _search(self, path: str, params: dict[str, Any], absent: frozenset[int]) -> Iterator[Row]: ...

    @abstractmethod
    def space_readers(self, space: Space) -> Readers | None:
        """Give who reads a space; none where Confluence does not tell the account."""

    @abstractmethod
    def pages(self) -> Iterator[Item]:
        """Give every page and blog post of the spaces that is there now."""

    @abstractmethod
    def restrictions(self) -> dict[str, Readers]:
        """Give the own read restrictions that are had in bulk, by page; those left out must be asked for."""

    @abstractmethod
    def attachments(self, pages: Mapping[str, Item]) -> Iterator[Item]:
        """Give every file that hangs on these pages, but for media."""

    @abstractmethod
    def item(self, content: str) -> Item | None:
        """Give a page, a blog post or a file as it is now; none where it is not there, trashed, or of another space."""

    @abstractmethod
    def attached(self, page: Item) -> Iterator[Item]:
        """Give the files that hang on one page, but for media."""

    @abstractmethod
    def chain(self, page: Item, pages: Mapping[str, Item]) -> tuple[Above, ...] | None:
        """Give all that stands above a page, outermost first; none where that cannot be told."""

    @abstractmethod
    def permitted(self, page: Item, readers: Readers) -> Readers:
        """Give those of `readers`, one by one, whom Confluence itself lets read a page."""

    @abstractmethod
    def body_path(self, kind: str, content: str) -> tuple[str, dict[str, Any]]:
        """Give where a page's body in storage format is, and what to ask there."""


def _restriction_parts(answer: Any) -> tuple[list[Any], list[Any], int] | None:
    """Users, groups, and how many of each Confluence gives at once; none where the answer is malformed."""
    restrictions = answer.get("restrictions") if isinstance(answer, dict) else None
    if not isinstance(restrictions, dict):
        return None
    parts: list[list[Any]] = []
    limit = PAGE
    for kind in ("user", "group"):
        part = restrictions.get(kind)
        results = part.get("results") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(results, list):
            return None
        said = part.get("limit")
        limit = min(limit, said) if isinstance(said, int) and said > 0 else limit
        parts.append(results)
    return parts[0], parts[1], limit


def ancestors_of(ancestors: Any) -> tuple[Above, ...] | None:
    """Read a list of ancestors, outermost first; none where it is malformed."""
    if not isinstance(ancestors, list):
        return None
    found = []
    for ancestor in ancestors:
        key = identity(ancestor.get("id")) if isinstance(ancestor, dict) else None
        if key is None:
            return None
        found.append(Above(key, str(ancestor.get("type", "page"))))
    return tuple(found)
