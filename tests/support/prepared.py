"""Copies of a test run's first customers, so that each test need not make them.

They are made as an operator makes them: through the sandbox's providers and with jobs.
Their rows are then kept and loaded into other databases. Only the providers' ids differ there.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from db.address import driver_url


@dataclass(frozen=True)
class Rows:
    """The rows of one table in COPY's text format, and its writable columns."""

    table: str
    columns: list[str]
    text: bytes


class Prepared:
    """The rows of one customer, which can be loaded into other databases."""

    def __init__(self, before: list[Rows], after: list[Rows], provider_ids: list[str]) -> None:
        """Keep the rows that making the customer added. They contain these providers' ids."""
        old = {rows.table: set(rows.text.splitlines()) for rows in before}
        self._provider_ids = provider_ids
        self._rows: list[Rows] = []
        for rows in after:
            lines = [one for one in rows.text.splitlines() if one not in old.get(rows.table, ())]
            if lines:
                self._rows.append(Rows(rows.table, rows.columns, b"\n".join(lines) + b"\n"))

    def load(self, owner_url: str, provider_ids: list[str]) -> None:
        """Write the rows into a database, with these ids of the providers."""
        with psycopg.connect(driver_url(owner_url)) as connection:
            # No trigger and no foreign key acts: the rows are already consistent.
            connection.execute("SET session_replication_role = replica")
            for rows in self._rows:
                text = rows.text
                for old, new in zip(self._provider_ids, provider_ids, strict=True):
                    text = text.replace(old.encode(), new.encode())
                query = sql.SQL("COPY {} ({}) FROM STDIN")
                named = query.format(*_names(rows.table, rows.columns))
                with connection.cursor().copy(named) as copy:
                    copy.write(text)


def read_rows(owner_url: str) -> list[Rows]:
    """Read every table's rows, without the numbers that the database assigns."""
    with psycopg.connect(driver_url(owner_url)) as connection:
        found = []
        for table, columns in _tables(connection):
            query = sql.SQL("COPY {} ({}) TO STDOUT")
            with connection.cursor().copy(query.format(*_names(table, columns))) as copy:
                found.append(Rows(table, columns, b"".join(bytes(part) for part in copy)))
        return found


def _names(table: str, columns: list[str]) -> tuple[sql.Composable, sql.Composable]:
    return sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))


def organizations_of(owner_url: str) -> set[str] | None:
    """Return the organizations' ids, or None if a job is not over."""
    with psycopg.connect(driver_url(owner_url)) as connection:
        rows = connection.execute(
            "SELECT id FROM organizations UNION ALL"
            " SELECT NULL FROM jobs WHERE done_at IS NULL AND dead_at IS NULL"
        ).fetchall()
    found = {id_ for (id_,) in rows}
    return None if None in found else found


#: Tables that a new database has rows in. Their rows do not belong to the customer.
_FILLED_BY_MIGRATIONS = ("alembic_version", "database_clock", "schedules")


def _tables(connection: psycopg.Connection) -> list[tuple[str, list[str]]]:
    found = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"
        " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        " AND a.attidentity = ''"
        " AND c.relname <> ALL (%s) GROUP BY c.relname",
        [list(_FILLED_BY_MIGRATIONS)],
    )
    return [(table, columns) for table, columns in found]
