"""Who Confluence's users and groups are: their keys, their names in tokens, and who is in a group."""

from __future__ import annotations

from typing import Any

from ingest.connectors.confluence_answers import segment
from ingest.connectors.confluence_http import HIDDEN, ConfluenceHttp
from ingest.connectors.confluence_items import subject_key
from ingest.connectors.confluence_settings import ConfluenceSettings

PAGE = 200


class Directory:
    """Learns names as they come by, and asks for the others once. One for each listing: it does not grow old.

    A user's key is the accountId on Cloud, else the userKey (the name, in a Data Center that gives none); a group's its
    id on Cloud, else its name.
    """

    def __init__(self, http: ConfluenceHttp, settings: ConfluenceSettings) -> None:
        self._http = http
        self._cloud = settings.flavour == "cloud"
        self._user_claim = settings.user_claim
        self._group_claim = settings.group_claim
        self._users: dict[str, str | None] = {}
        self._groups: dict[str, str | None] = {}
        self._members: dict[str, frozenset[str]] = {}

    def user(self, value: Any) -> str | None:
        """Give a user's key from their JSON."""
        key = subject_key(value, "accountId") if self._cloud else subject_key(value, "userKey", "username")
        if key is not None and (name := subject_key(value, self._user_claim)) is not None:
            self._users[key] = name
        return key

    def group(self, value: Any) -> str | None:
        """Give a group's key from its JSON."""
        key = subject_key(value, "id" if self._cloud else "name")
        if key is not None and (name := subject_key(value, self._group_claim)) is not None:
            self._groups[key] = name
        return key

    def user_name(self, key: str) -> str | None:
        """Give the name that stands in a user's tokens; none where Confluence does not tell it."""
        if key not in self._users:
            asked = {"accountId": key} if self._cloud else {"key": key}
            found = self._http.json("rest/api/user", asked, HIDDEN)
            self._users[key] = None
            if self.user(found) != key:
                self._users[key] = None
        return self._users[key]

    def group_name(self, key: str) -> str | None:
        """Give the name that stands in the tokens of a group's members."""
        if self._group_claim == "id" or not self._cloud:
            return key
        if key not in self._groups:
            found = self._http.json("rest/api/group/by-id", {"id": key}, HIDDEN)
            self._groups[key] = None
            if self.group(found) != key:
                self._groups[key] = None
        return self._groups[key]

    def members(self, key: str) -> frozenset[str]:
        """Give the keys of a group's members; none of them where Confluence does not tell."""
        if key not in self._members:
            path = f"rest/api/group/{segment(key)}/" + ("membersByGroupId" if self._cloud else "member")
            rows = self._http.offset_rows(path, {"limit": PAGE}, HIDDEN, self.user)
            self._members[key] = frozenset(found for row in rows or () if (found := self.user(row)) is not None)
        return self._members[key]
