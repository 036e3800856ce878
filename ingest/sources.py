"""Every kind of source: from an operator's words to settings, from settings to a connector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from ingest.connector import Connector
from ingest.connectors.confluence import ConfluenceConnector, ConfluenceSettings
from ingest.connectors.database import DatabaseConnector, DatabaseSettings
from ingest.connectors.filesystem import FilesystemConnector, FilesystemSettings
from ingest.connectors.rest import RestConnector, RestSettings
from ingest.connectors.sharepoint import SharepointConnector, SharepointSettings
from ingest.connectors.store import StoreConnector, StoreSettings
from ingest.connectors.web import WebConnector, WebSettings
from ingest.source_settings import SOURCE_NAME, SourceSettings
from policies.access import AccessRule
from policies.errors import ConfigurationError
from policies.labels import Label

AnySource = Annotated[
    FilesystemSettings
    | StoreSettings
    | DatabaseSettings
    | SharepointSettings
    | ConfluenceSettings
    | RestSettings
    | WebSettings,
    Field(discriminator="kind"),
]
_SOURCE: TypeAdapter[AnySource] = TypeAdapter(AnySource)
_CONNECTORS: dict[type[SourceSettings], Any] = {
    FilesystemSettings: FilesystemConnector,
    StoreSettings: StoreConnector,
    DatabaseSettings: DatabaseConnector,
    SharepointSettings: SharepointConnector,
    ConfluenceSettings: ConfluenceConnector,
    RestSettings: RestConnector,
    WebSettings: WebConnector,
}


def open_connector(settings: SourceSettings) -> Connector:
    """Make the connector of a source. Connects to nothing."""
    connector: Connector = _CONNECTORS[type(settings)](settings)
    return connector


def parse_source(values: Any, where: str = "source") -> SourceSettings:
    """Check one source's settings, a mapping or its JSON. Raises `ConfigurationError` naming each wrong key."""
    try:
        settings = _SOURCE.validate_json(values) if isinstance(values, str) else _SOURCE.validate_python(values)
    except ValidationError as error:
        lines = [f"{where}: {_path(problem)}{problem['msg']}" for problem in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(lines)) from error
    if not SOURCE_NAME.fullmatch(settings.name):
        raise ConfigurationError(f"{where}: name: lower-case letters, digits, '.', '_' and '-', at most 63")
    return settings


def read_sources_file(path: Path) -> Sequence[SourceSettings]:
    """Read a `sources.yaml`: `sources:` with one mapping each. Raises `ConfigurationError` as `parse_source`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or set(document) != {"sources"} or not isinstance(document["sources"], list):
        raise ConfigurationError(f"{path}: it must hold one key, sources, with a list")
    found = [parse_source(item, f"{path}: sources.{number}") for number, item in enumerate(document["sources"])]
    names = [settings.name for settings in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{path}: more than one source is named {', '.join(twice)}")
    return found


def source_of(
    name: str, uri: str, tenant: str, acl: AccessRule, watch: bool, label: Label | None = None
) -> SourceSettings:
    """Settings for what a URI says on its own: a folder or file, an object store, a web page. Raises as above."""
    common: dict[str, Any] = {"name": name, "tenant": tenant, "acl": _acl(acl), "watch": watch}
    if label is not None:
        common["label"] = label
    scheme = urlsplit(uri).scheme.lower() if "://" in uri else ""
    if scheme in ("http", "https"):
        return parse_source({"kind": "web", "urls": [uri], **common})
    if scheme in ("", "file", "local"):
        path = uri.removeprefix("file://").removeprefix("local://").removeprefix("localhost")
        return parse_source({"kind": "filesystem", "path": str(Path(path).expanduser().absolute()), **common})
    if scheme.startswith(("postgres", "sqlite", "mysql", "mssql", "oracle")):
        raise ConfigurationError(
            f"{name}: a database needs to be told its table and columns: describe it in a file and "
            "run rayrag sources add --file sources.yaml"
        )
    return parse_source({"kind": "store", "uri": uri, **common})


def uri_of(settings: SourceSettings) -> str:
    """Where a source is, for people: no secret stands in it."""
    values = settings.model_dump()
    for key in ("path", "uri", "url", "site", "drive_id"):
        if values.get(key):
            return _without_secrets(str(values[key]))
    urls = values.get("urls")
    return _without_secrets(str(urls[0])) if urls else str(values["kind"])


def _without_secrets(uri: str) -> str:
    """Leave out who logs in and what is asked for: keys stand there."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _acl(rule: AccessRule) -> dict[str, list[str]]:
    return {"allow": sorted(rule.allow), "deny": sorted(rule.deny)}


def _path(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    return f"{path}: " if path else ""
