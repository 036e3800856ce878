"""Files in an object store (S3, and through fsspec Google's, Azure's and others), or behind any fsspec URL.

Objects are known by their path under the source's URI, the rows of a `*.jsonl` by `<path>#<id>`. Their version is what
the store says of their content (an ETag). Rights come from `acl.yaml` as in a folder of files, and on S3 from a tag.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ingest.connector import Entry, Gone, Mark, Unreadable
from ingest.connectors.filesystem import local_path
from ingest.connectors.listed_version import is_listed
from ingest.connectors.store_asking import Answer, Asking
from ingest.connectors.store_tree import AnyTree, Bucket
from ingest.connectors.store_visit import StoreVisit
from ingest.look import look_at, look_at_rows
from ingest.source_settings import SourceSettings
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable
from policies.secret_files import read_secret_file

_S3 = re.compile(r"s3a?://(?!.*::)")
_SECRET = re.compile(
    r"secret|token|passw|passphrase|credential|connection_string|account_key|sas|private|authorization|api[_-]?key|signature",
    re.IGNORECASE,
)
_CONTAINER_AT_HOST = frozenset({"abfs", "abfss", "az"})
"""Where what stands before the `@` is a container's name."""
_KEYWORDS = frozenset({"anon", "browser", "cache", "cloud", "google_default"})
"""What gcsfs takes for a token that is none."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_PATIENCE = {"connect_timeout": 5, "read_timeout": 10, "retries": {"mode": "standard", "total_max_attempts": 1}}


class StoreSettings(SourceSettings):
    """A bucket, a folder of one, one object, or what any other fsspec URL names.

    `options` go to fsspec's file system (`endpoint_url`, `anon`, `client_kwargs` …). One whose name ends in `_env` or
    `_file` is read from that environment variable or file, and passed under the name without the ending:
    `key_env: AWS_KEY` gives `key`. `acl_tag`: the S3 object tag that names an object's readers.
    """

    kind: Literal["store"]
    uri: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    acl_tag: str | None = Field(default=None, min_length=1, max_length=128)

    @field_validator("uri")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if "\x00" in value or local_path(value) is not None:
            raise ValueError("give a URL such as s3://bucket/folder; a path is a source of kind filesystem")
        for part in map(urlsplit, value.split("::")):
            is_container = part.scheme in _CONTAINER_AT_HOST and part.password is None
            if part.username is not None and not is_container:
                raise ValueError(
                    "a URL holds no password or user name, for readers are shown it: give them in options "
                    "(username, password_env)"
                )
            if part.query:
                raise ValueError("a URL holds no query (?…), for readers are shown it: give what it says in options")
        return value

    @field_validator("options")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        _refuse_secrets(value)
        return value

    @model_validator(mode="after")
    def _tags_of_s3(self) -> StoreSettings:
        if self.acl_tag is not None and not _S3.match(self.uri):
            raise ValueError("acl_tag: only objects of an s3:// source have tags")
        return self


class StoreConnector:
    """Lists, looks into and reads a store. Nothing tells of changes by itself: queues and webhooks do."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._ask = Asking(settings.name, settings.requests_per_s)
        self._uri = settings.uri.rstrip("/")

    def check(self) -> None:
        with self._telling():
            tree = self._tree()
            first = tree.root()
            if first is None:
                first = next(iter(tree.under("")), None)
                for found in tree.acl_files(""):
                    tree.read(found.address, found.size)
            if first is not None and self._settings.acl_tag is not None and isinstance(tree, Bucket):
                tree.tags(first)

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Unreadable | Mark]:
        """Name everything: there is no cursor, for a store does not say what changed since."""
        with self._telling():
            tree = self._tree()
            visit = self._visit(tree)
            whole = tree.root()
            yield from visit.everything() if whole is None else visit.alone(whole)
            yield Mark(cursor=None, complete=True)

    def look(self, external_ids: Sequence[str]) -> Iterator[Entry | Gone]:
        """Name what is at these paths, as the file system's connector does.

        In each folder above a path, only the spellings `acl.yaml` and `acl.yml` are looked for: a listing refuses all.
        """
        with self._telling():
            tree = self._tree()
            visit = self._visit(tree)
            whole = tree.root()
            if whole is None:
                yield from look_at(visit, external_ids)
            else:
                name = PurePosixPath(whole.address).name
                yield from look_at_rows(name, visit.alone(whole), external_ids)

    def fetch(self, entry: Entry, max_bytes: int) -> bytes:
        if entry.location is None:
            raise DocumentRejected("nothing to read")
        try:
            return self._tree().read(entry.location, max_bytes, lambda version: is_listed(entry, version))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DocumentRejected("deleted while reading") from error
        except PermissionError as error:
            is_archived = Answer.of(error).code == "InvalidObjectState"
            raise DocumentRejected(
                "archived: restore it first" if is_archived else "no permission to read it"
            ) from error

    def watch(self) -> AsyncIterator[Sequence[str]] | None:
        return None

    def _visit(self, tree: Bucket | AnyTree) -> StoreVisit:
        return StoreVisit(self._settings, tree, self._uri, self._settings.acl_tag)

    def _tree(self) -> Bucket | AnyTree:
        """Open the store, which asks it nothing yet. fsspec keeps one connection for all with the same options."""
        from fsspec.core import url_to_fs

        uri, name = self._settings.uri, self._settings.name
        options = _resolved(self._settings.options)
        is_s3 = _S3.match(uri) is not None
        if is_s3:
            options["config_kwargs"] = _PATIENCE | dict(options.get("config_kwargs") or {})
        try:
            system, path = url_to_fs(uri, **options)
        except ImportError as error:
            extra = _EXTRAS.get(uri.partition("://")[0])
            how = f"pip install 'rayrag[{extra}]'" if extra else f"install what reads this kind of URL: {error}"
            raise ConfigurationError(f"{name}: {how}") from error
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{name}: {error}") from error
        return Bucket(system, path, self._ask, uri.endswith("/")) if is_s3 else AnyTree(system, path, self._ask)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        name = self._settings.name
        try:
            yield
        except PermissionError as error:
            what = "list and read it" + (" and its tags" if self._settings.acl_tag else "")
            raise ConfigurationError(f"{name}: the credentials must be allowed to {what}") from error
        except OSError as error:
            raise SourceUnavailable(f"{name}: cannot be read: {type(error).__name__}") from error


def _refuse_secrets(options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if isinstance(value, Mapping):
            _refuse_secrets(value)
        elif key.endswith(("_env", "_file")):
            if not isinstance(value, str):
                raise ValueError(f"options: {key} must name {'a file' if key.endswith('_file') else 'a variable'}")
        elif _SECRET.search(key) and isinstance(value, str) and value not in _KEYWORDS:
            raise ValueError(
                f"options: {key} must not stand here: name a variable in {key}_env or a file in {key}_file"
            )


def _resolved(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put in what environment variables and files hold. Raises `ConfigurationError`, naming only them."""
    resolved: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            resolved[key] = _resolved(value)
        elif key.endswith("_env"):
            if value not in os.environ:
                raise ConfigurationError(f"options.{key}: the environment variable {value} is not set")
            resolved[key.removesuffix("_env")] = os.environ[value]
        elif key.endswith("_file"):
            resolved[key.removesuffix("_file")] = read_secret_file(Path(value), f"options.{key}")
        else:
            resolved[key] = value
    return resolved
