"""Tenants and their sources in the ledger, with each source's cursor. Names and ids never change once given."""

from __future__ import annotations

from sqlalchemy import Table, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.ledger_schema import cursors, sources, storable, tenants
from policies.errors import InvalidRequest, NotFound


class Sources:
    """Ids of tenants and sources by name."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[tuple[str, str], tuple[int, int]] = {}  # as many entries as there are sources

    def tenant_id(self, name: str) -> int:
        """Give the tenant's id; an unknown tenant is added. Raises `InvalidRequest` for a name with control bytes."""
        found = self.find_tenant(name)
        return self._database.write(lambda connection: self._tenant(connection, name)) if found is None else found

    def find_tenant(self, name: str) -> int | None:
        """Give the tenant's id, `None` for an unknown one."""
        if name != storable(name):
            return None
        found = select(tenants.c.id).where(tenants.c.name == name)
        return self._database.read(lambda connection: connection.scalar(found))

    def tenant_name(self, tenant_id: int) -> str:
        """Give the tenant's name. Raises `NotFound`."""
        name = self._database.read(
            lambda connection: connection.scalar(select(tenants.c.name).where(tenants.c.id == tenant_id))
        )
        if name is None:
            raise NotFound(f"no tenant {tenant_id}")
        return str(name)

    def source_id(self, tenant: str, name: str, uri: str) -> int:
        """Give the source's id; an unknown one is added, a known one gets the new `uri`."""

        def work(connection: Connection) -> int:
            _, source = self._place(connection, tenant, name)
            connection.execute(
                sources.update().where(sources.c.id == source, sources.c.uri != storable(uri)).values(uri=storable(uri))
            )
            return source

        return self._database.write(work)

    def place(self, tenant: str, source: str) -> tuple[int, int]:
        """Give the ids of a tenant and of its source, adding what is missing."""
        known = self._ids.get((tenant, source))
        if known is None:
            known = self._database.write(lambda connection: self._place(connection, tenant, source))
            self._ids[tenant, source] = known
        return known

    def number(self, tenant: str, source: str) -> int:
        """Give the id of a tenant's source, adding what is missing."""
        return self.place(tenant, source)[1]

    def cursor(self, source_id: int) -> str | None:
        """Give where the last listing of the source ended."""
        found = select(cursors.c.value).where(cursors.c.source_id == source_id)
        return self._database.read(lambda connection: connection.scalar(found))

    def set_cursor(self, source_id: int, value: str) -> None:
        """Remember where a listing ended. Call it only when the ledger has the work up to there."""
        row = self._database.insert(cursors).values(source_id=source_id, value=value)
        row = row.on_conflict_do_update(index_elements=["source_id"], set_={"value": value})
        self._database.write(lambda connection: connection.execute(row))

    def forget_cursor(self, source_id: int) -> None:
        """Let the next listing of the source start afresh."""
        self._database.write(
            lambda connection: connection.execute(cursors.delete().where(cursors.c.source_id == source_id))
        )

    def _place(self, connection: Connection, tenant: str, source: str) -> tuple[int, int]:
        tenant_id = self._tenant(connection, tenant)
        return tenant_id, self._id(connection, sources, tenant_id=tenant_id, name=storable(source), uri="")

    def _tenant(self, connection: Connection, name: str) -> int:
        if name != storable(name):  # replacing characters could turn one tenant's name into another's
            raise InvalidRequest("a tenant's name holds a character that cannot be stored")
        return self._id(connection, tenants, name=name)

    def _id(self, connection: Connection, table: Table, **row: int | str) -> int:
        key = [table.c[column] == value for column, value in row.items() if column != "uri"]
        found = connection.scalar(select(table.c.id).where(*key))
        if found is None:
            connection.execute(self._database.insert(table).values(**row).on_conflict_do_nothing())
            found = connection.execute(select(table.c.id).where(*key)).scalar_one()
        return int(found)
