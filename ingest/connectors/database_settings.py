"""What a source of kind `database` is told in `sources.yaml`."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from ingest.connectors.database_rows import PrincipalKind, uri_columns
from ingest.connectors.database_watermark import Unit, WatermarkColumn
from ingest.source_settings import SourceSettings

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
"""A table's or column's name as the database spells it; it is quoted, whatever it holds."""
_SCHEMES = ("http://", "https://", "file://", "s3://", "gs://", "abfs://", "smb://")
_OF_TRANSPORT = frozenset({"url_env", "url_file", "notify_channel", "page_rows", "timeout_s"})
_FORMAT = 1
"""Raise it when the same row would be written as another text: every listing is then one of everything."""


class DatabaseSettings(SourceSettings):
    """Rows of a table, or of a query, as documents. Exactly one of `url_env` and `url_file`, of `table` and `query`."""

    kind: Literal["database"]
    url_env: str | None = Field(default=None, description="environment variable with the SQLAlchemy URL")
    url_file: str | None = Field(default=None, description="file with the SQLAlchemy URL")
    table: Name | None = Field(default=None, description="a table or view")
    table_schema: Name | None = Field(default=None, description="the schema of `table`")
    query: str | None = Field(default=None, min_length=1, description="one SELECT, in place of a table")

    id_column: Name = Field(description="unique and never changed: whole number, text, UUID, decimal or bytes")
    title_column: Name | None = None
    text_columns: list[Name] | dict[Name, str] = Field(
        min_length=1, description="in this order; a mapping gives each its heading"
    )
    html: bool = Field(default=False, description="the text columns hold HTML")
    uri: str | None = Field(default=None, description="what a reader opens: https://crm.example/tickets/{id}")
    deleted_column: Name | None = Field(default=None, description="not NULL, false, 0 or empty where a row is deleted")
    allow_columns: list[Name] | dict[Name, PrincipalKind] = Field(
        default_factory=list, description="who may read a row; a mapping says what kind of name stands there"
    )
    deny_columns: list[Name] | dict[Name, PrincipalKind] = Field(default_factory=list)

    updated_column: Name | None = Field(default=None, description="rises with every change of a row")
    updated_unit: Unit | None = Field(default=None, description="of numbers since 1970; without it they are a counter")
    updated_zone: str = Field(default="UTC", description="of times that name no zone, such as Europe/Berlin")
    overlap_s: float = Field(default=600.0, ge=0, description="how long a transaction may take until its rows show")
    overlap_count: int = Field(default=1_000, ge=0, description="the same for a counter: numbers given out meanwhile")
    notify_channel: str | None = Field(default=None, pattern=r"^[a-z_][a-z0-9_]{0,62}$", description="PostgreSQL")

    inline_bytes: int = Field(default=65_536, ge=0, le=10_000_000, description="a longer text is read when it is due")
    page_rows: int = Field(default=500, ge=1, le=10_000)
    timeout_s: float = Field(default=60.0, gt=0, description="for one page")

    @model_validator(mode="after")
    def _one_of_each(self) -> DatabaseSettings:
        if (self.url_env is None) == (self.url_file is None):
            raise ValueError("give exactly one of url_env and url_file")
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of table and query")
        if self.table_schema is not None and self.table is None:
            raise ValueError("table_schema goes with table")
        return self

    @field_validator("updated_zone")
    @classmethod
    def _a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no time zone by this name; such as UTC or Europe/Berlin") from error
        return value

    @field_validator("uri")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is not None:
            if not re.match(r"[a-z0-9]+://[^{}/]*(/|$)", value) or not value.startswith(_SCHEMES):
                raise ValueError(f"must begin with one of {', '.join(_SCHEMES)}, and a host without placeholders")
            if re.search(r"[{}]", re.sub(r"\{[^{}]+\}", "", value)):
                raise ValueError("placeholders are {id} and {column}")
        return value

    @property
    def what(self) -> str:
        """The rows' name for a person."""
        if self.table is None:
            return "the query"
        return f"{self.table_schema}.{self.table}" if self.table_schema else self.table

    @property
    def texts(self) -> dict[str, str]:
        """The text columns with their headings."""
        columns = self.text_columns
        return dict(columns) if isinstance(columns, dict) else {name: name.replace("_", " ") for name in columns}

    @property
    def allow(self) -> dict[str, PrincipalKind]:
        """The columns that allow, with the kind of the names in them."""
        return _with_kinds(self.allow_columns)

    @property
    def deny(self) -> dict[str, PrincipalKind]:
        """The columns that deny."""
        return _with_kinds(self.deny_columns)

    @property
    def uri_columns(self) -> list[str]:
        """The columns that stand in `uri`."""
        return uri_columns(self.uri or "")

    @property
    def columns(self) -> list[str]:
        """Every column that is read, each once."""
        single = (self.id_column, self.title_column, self.updated_column, self.deleted_column)
        names = [*single, *self.texts, *self.allow, *self.deny, *self.uri_columns]
        return list(dict.fromkeys(name for name in names if name is not None))

    @property
    def watermark(self) -> WatermarkColumn:
        """How `updated_column` is read."""
        return WatermarkColumn(ZoneInfo(self.updated_zone), self.updated_unit, self.overlap_s, self.overlap_count)

    def digest(self, place: str) -> str:
        """Name the settings that decide what a row becomes, and the place that the rows are read from.

        A listing goes on from another's end only where this is the same.
        """
        schedule = SourceSettings.model_fields.keys() - {"name", "tenant", "acl"}
        rows = self.model_dump_json(exclude={*_OF_TRANSPORT, *schedule})
        return hashlib.sha256(f"{_FORMAT}\n{place}\n{rows}".encode()).hexdigest()[:32]


def _with_kinds(columns: list[str] | dict[str, PrincipalKind]) -> dict[str, PrincipalKind]:
    return dict(columns) if isinstance(columns, dict) else dict.fromkeys(columns, "principal")
