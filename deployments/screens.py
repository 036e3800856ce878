"""From the configuration's values to what screens requests, and the names of sources that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from index.ledger import Ledger
from index.regimes import LazyFinder, policies_of
from index.settings import AppArgs
from policies.compliance.screening import PersonalData
from policies.errors import Unavailable
from policies.keyed_hashes import KeyedHashes
from policies.roles import Roles


def personal_data(args: AppArgs, ledger: Ledger, roles: Roles) -> PersonalData:
    """Build what screens requests. Raises `ConfigurationError`."""
    settings = args.compliance
    return PersonalData(
        policies_of(settings),
        LazyFinder(settings.detection),
        KeyedHashes.load(Path(settings.key_file)),
        ledger.consents,
        ledger.classifications.categories,
        roles,
        settings.region,
        LazyFinder(settings.detection, names=False),
    )


class SourceNames:
    """Sources' names by the ledger's number. They never change once given."""

    def __init__(self, ask: Callable[[], Mapping[int, tuple[str, str]]]) -> None:
        self._ask = ask
        self._known: dict[int, str] = {}

    def of(self, source_ids: Sequence[int]) -> Mapping[int, str]:
        """Give the names. Raises `Unavailable` for a number that the ledger does not know, or when it does not answer.

        Whose policy holds for a passage is then not known either.
        """
        if not self._known.keys() >= set(source_ids):
            self._known = {number: name for number, (_, name) in self._ask().items()}
        if not self._known.keys() >= set(source_ids):
            raise Unavailable("a passage's source is not known")
        return self._known
