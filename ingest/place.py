"""A place that an operator names by its URI, as a source: a folder, a file, or any fsspec URL of these."""

from __future__ import annotations

from pydantic import ValidationError

from ingest.connectors.filesystem import FilesystemSettings, local_path
from ingest.connectors.store import StoreSettings
from policies.access import AccessRule
from policies.errors import ConfigurationError

UNBOUNDED_REQUESTS_PER_S = 1e6


def place_settings(uri: str, tenant: str, name: str, rule: AccessRule) -> FilesystemSettings | StoreSettings:
    """Describe a place as a source. `rule`: who reads what the place says nothing about, and its label.

    A bulk run asks as fast as it can. Raises `ConfigurationError`.
    """
    acl = {"allow": sorted(rule.allow), "deny": sorted(rule.deny)}
    try:
        if local_path(uri) is not None:
            return FilesystemSettings(kind="filesystem", name=name, tenant=tenant, acl=acl, label=rule.label, path=uri)
        return StoreSettings(
            kind="store",
            name=name,
            tenant=tenant,
            acl=acl,
            label=rule.label,
            uri=uri,
            requests_per_s=UNBOUNDED_REQUESTS_PER_S,
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
