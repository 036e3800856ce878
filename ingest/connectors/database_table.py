"""A source's rows in SQL: which columns are read, how pages are cut, and what is missing.

Names reach SQL through SQLAlchemy's quoting alone, values as bound parameters. The one SQL text is the operator's
query; it stands in parentheses, in a session that only reads.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, FromClause, Select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import NoSuchTableError

from ingest.connectors.database_rows import id_text
from ingest.connectors.database_settings import DatabaseSettings
from policies.errors import ConfigurationError

MAX_TEXT_CHARS = 5_000_000
"""Of one column of one row: the most that a listing takes into memory of it."""
MAX_NAMES_SHOWN = 60
_BINDS: dict[type, sa.types.TypeEngine[Any]] = {
    int: sa.BigInteger(),
    str: sa.Text(),
    uuid.UUID: sa.Uuid(),
    Decimal: sa.Numeric(),
    bytes: sa.LargeBinary(),
}


@dataclass(frozen=True, slots=True)
class Place:
    """From where a page is read: rows whose id is `key` or more; without `inclusive`, more."""

    key: Any
    inclusive: bool


class SourceTable:
    """The statements over one source, for one dialect."""

    def __init__(self, settings: DatabaseSettings, dialect: str) -> None:
        self._settings = settings
        self._dialect = dialect
        self._from = self._from_clause()
        self._id = self._from.c[settings.id_column]
        self.updated = self._from.c[settings.updated_column] if settings.updated_column is not None else None
        self.binary_order = "C" if dialect == "postgresql" else None

    def rows(self, id_type: type) -> Select[Any]:
        """Select what `RowReader` reads: id, updated, deleted, title, then texts, allow, deny, columns of the address.

        A text comes cut off one character above the limit, so that no row can fill the memory.
        """
        settings = self._settings
        raw = [self._id_key(id_type), *map(self._column, (settings.updated_column, settings.deleted_column))]
        title = self._text(settings.title_column) if settings.title_column is not None else sa.null()
        texts = [self._text(name) for name in settings.texts]
        rest = [self._column(name) for name in (*settings.allow, *settings.deny, *settings.uri_columns)]
        return sa.select(*(part.label(f"c{at}") for at, part in enumerate([*raw, title, *texts, *rest])))

    def page(self, id_type: type, place: Place | None, changed: ColumnElement[bool] | None, limit: int) -> Select[Any]:
        """Select the next rows in the order of their ids."""
        key = self._id_key(id_type)
        statement = self.rows(id_type).where(self._id.is_not(None)).order_by(key).limit(limit)
        if changed is not None:
            statement = statement.where(changed)
        if place is not None:
            least = sa.bindparam("place", place.key, _BINDS.get(type(place.key)))
            statement = statement.where(key >= least if place.inclusive else key > least)
        return statement

    def with_ids(self, id_type: type, values: Sequence[Any]) -> Select[Any]:
        """Select the rows with these ids."""
        kind = None if self._dialect == "sqlite" else _BINDS.get(id_type)
        ids = sa.bindparam("ids", list(values), kind, expanding=True)
        return self.rows(id_type).where(self._id_key(id_type).in_(ids))

    def some_id(self) -> Select[Any]:
        """Select one id, to learn of which type they are."""
        return sa.select(self._id.label("c0")).where(self._id.is_not(None)).limit(1)

    def some_update(self) -> Select[Any] | None:
        """Select one value of the `updated_column`."""
        if self.updated is None:
            return None
        return sa.select(self.updated.label("c0")).where(self.updated.is_not(None)).limit(1)

    def without_id(self) -> Select[Any]:
        """Select one row that has no id."""
        return sa.select(sa.literal(1).label("c0")).select_from(self._from).where(self._id.is_(None)).limit(1)

    def some_rights(self) -> Select[Any] | None:
        """Select one row's columns of rights; none where there are no such columns."""
        names = [*self._settings.allow, *self._settings.deny]
        return sa.select(*(self._from.c[name] for name in names)).limit(1) if names else None

    def check(self, connection: Connection) -> None:
        """See that the table and its columns are there. Raises `ConfigurationError` with what there is."""
        what, settings = self._settings.what, self._settings
        types = self._types(connection)
        for name in settings.columns:
            if name not in types:
                raise ConfigurationError(f"{what} has no column {name!r}; it has: {_shown(types)}")
        for name in (*settings.texts, *filter(None, [settings.title_column])):
            if isinstance(types[name], sa.types.LargeBinary):
                raise ConfigurationError(f"{what}: {name!r} holds bytes, and no text")
        if not self._is_unique(connection) and connection.scalar(self._twice()) is not None:
            raise ConfigurationError(f"{what}: {settings.id_column!r} is not unique: some ids stand in several rows")

    def _is_unique(self, connection: Connection) -> bool:
        """Whether the database itself keeps the ids apart."""
        table, schema, name = self._settings.table, self._settings.table_schema, self._settings.id_column
        if table is None:
            return False
        inspector = sa.inspect(connection)
        unique = [constraint["column_names"] for constraint in inspector.get_unique_constraints(table, schema=schema)]
        return [name] in [inspector.get_pk_constraint(table, schema=schema)["constrained_columns"], *unique]

    def _twice(self) -> Select[Any]:
        several = sa.select(sa.literal(1).label("c0")).select_from(self._from).where(self._id.is_not(None))
        if self._settings.deleted_column is not None:
            several = several.where(self._from.c[self._settings.deleted_column].is_(None))
        return several.group_by(self._id).having(sa.func.count() > 1).limit(1)

    def _types(self, connection: Connection) -> dict[str, Any]:
        """The columns there are, each with its type where that is known."""
        table, schema = self._settings.table, self._settings.table_schema
        if table is None:
            names = connection.execute(sa.select(sa.text("*")).select_from(self._from).limit(0)).keys()
            return dict.fromkeys(names)
        inspector = sa.inspect(connection)
        try:
            return {column["name"]: column["type"] for column in inspector.get_columns(table, schema=schema)}
        except NoSuchTableError:
            there = [*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]
            raise ConfigurationError(f"no table {self._settings.what!r}; there are: {_shown(there)}") from None

    def _from_clause(self) -> FromClause:
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in self._settings.columns]
        if self._settings.table is not None:
            return sa.table(self._settings.table, *columns, schema=self._settings.table_schema)
        # What looks like a parameter in it is none. The line break ends a comment in its last line.
        query = str(self._settings.query).strip().rstrip(";").replace(":", "\\:") + "\n"
        return sa.text(query).columns(*columns).subquery("source_rows")

    def _id_key(self, id_type: type) -> ColumnElement[Any]:
        """The id in a form whose order and whose equality are one and the same, whatever its column's type says.

        A `citext` or `char(n)` is ordered by other rules than those by which it is compared with a parameter.
        """
        if self._dialect == "sqlite":
            return self._id.collate("BINARY")
        return sa.cast(self._id, sa.Text()) if self._dialect == "postgresql" and id_type is str else self._id

    def _column(self, name: str | None) -> ColumnElement[Any]:
        return sa.null() if name is None else self._from.c[name]

    def _text(self, name: str) -> ColumnElement[Any]:
        column: ColumnElement[Any] = self._from.c[name]
        if self._dialect == "postgresql":
            column = sa.cast(column, sa.Text())
        elif self._dialect == "mssql":
            return sa.func.substring(sa.cast(column, sa.UnicodeText()), 1, MAX_TEXT_CHARS + 1)
        start = sa.func.substr(column, 1, MAX_TEXT_CHARS + 1)
        if self._dialect == "sqlite":  # whose functions end a text at its first NUL
            return sa.case((sa.func.length(sa.cast(column, sa.LargeBinary())) > MAX_TEXT_CHARS, start), else_=column)
        return start


def checked_id_type(value: Any, column: str) -> type:
    """The Python type of ids such as this one. Raises `ConfigurationError` for one that is none."""
    if id_text(value) is None:
        raise ConfigurationError(
            f"{column!r} holds {type(value).__name__}; an id is a whole number, text, a UUID, a decimal or bytes"
        )
    return next(kind for kind in (int, str, uuid.UUID, Decimal, bytes) if isinstance(value, kind) or kind is bytes)


def _shown(names: Any) -> str:
    names = sorted(names)
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return (", ".join(names[:MAX_NAMES_SHOWN]) or "none") + more
