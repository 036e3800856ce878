"""From a page to its access rule: asks for what that takes, once for each listing; `confluence_rights` works it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ingest.connectors.confluence_http import Faulty
from ingest.connectors.confluence_items import Above, Item
from ingest.connectors.confluence_rights import ANYONE, NO_READERS, Readers, access_rule, meet
from ingest.connectors.confluence_site import Site, Space
from policies.access import NOBODY, AccessRule
from policies.errors import RightsUnreadable


class PageRights:
    """The rules of pages within one listing. What it was told once stands until the listing ends."""

    def __init__(self, site: Site, default: AccessRule) -> None:
        """`default` is for pages without restrictions in a space whose permissions are not told."""
        self._site = site
        self._default = default
        self._spaces: dict[str, Readers | None] = {}
        self._own: dict[str, Readers] = {}
        self._above: dict[tuple[Above, ...], Readers] = {(): ANYONE}
        self._met: dict[tuple[Readers, Readers], Readers] = {}
        self._rules: dict[Readers, AccessRule] = {}

    def learn(self, restrictions: Mapping[str, Readers]) -> None:
        """Take own restrictions of pages that were had in bulk."""
        self._own |= restrictions

    def rule(self, page: Item, pages: Mapping[str, Item]) -> AccessRule:
        """Say who reads a page, and all files that hang on it. `pages` are those already listed, by id.

        Raises `RightsUnreadable` where Confluence fails over what it is asked for that.
        """
        try:
            return self._worked_out(page, pages)
        except Faulty as error:
            raise RightsUnreadable(f"rights of page {page.id}: {error.detail}") from error

    def _worked_out(self, page: Item, pages: Mapping[str, Item]) -> AccessRule:
        chain = self._site.chain(page, pages)
        if chain is None:
            return NOBODY
        inherited = self._inherited(chain, pages)
        restricted = self._meet(inherited, self._own_of(page.id, page))
        if page.space not in self._spaces:
            space = self._site.spaces.get(page.space) or Space(page.space, "")
            self._spaces[page.space] = self._site.space_readers(space)
        of_space = self._spaces[page.space]
        in_folder = any(above.kind != "page" for above in chain)
        if of_space is None:
            return self._default if restricted == ANYONE and not in_folder else NOBODY
        readers = self._meet(of_space, restricted)
        if in_folder:
            readers = self._site.permitted(replace(page, above=chain), readers)
        return self._rule(readers)

    def _inherited(self, chain: tuple[Above, ...], pages: Mapping[str, Item]) -> Readers:
        """Meet the restrictions of all pages above, from the outermost on: neighbours share what is above both."""
        known = len(chain)
        while chain[:known] not in self._above:
            known -= 1
        for depth in range(known, len(chain)):
            above = chain[depth]
            own = self._own_of(above.id, pages.get(above.id)) if above.kind == "page" else ANYONE
            self._above[chain[: depth + 1]] = self._meet(self._above[chain[:depth]], own)
        return self._above[chain]

    def _own_of(self, content: str, item: Item | None) -> Readers:
        if item is not None and item.own is not None:
            return item.own
        if content not in self._own:
            self._own[content] = self._site.own_restriction(content) if content else NO_READERS
        return self._own[content]

    def _meet(self, first: Readers, second: Readers) -> Readers:
        pair = (first, second)
        if pair not in self._met:
            self._met[pair] = meet(first, second, self._site.directory.members)
        return self._met[pair]

    def _rule(self, readers: Readers) -> AccessRule:
        if readers not in self._rules:
            directory = self._site.directory
            self._rules[readers] = access_rule(readers, directory.user_name, directory.group_name)
        return self._rules[readers]
