"""Copies of the first customer of a test run, so that each test need not make one.

The first customer is made as an operator makes it: through the sandbox's providers and with jobs.
Its rows are then kept and loaded into other fresh databases. Only the providers' ids differ there.
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
    """The rows of a database whose only organization is one customer."""

    def __init__(self, owner_url: str, provider_ids: list[str]) -> None:
        """Read the rows and the sequences. They contain the providers' ids as given."""
        self._provider_ids = provider_ids
        self._rows: list[Rows] = []
        with psycopg.connect(driver_url(owner_url)) as connection:
            for table, columns in _tables(connection):
                query = sql.SQL("COPY {} ({}) TO STDOUT")
                with connection.cursor().copy(query.format(*_names(table, columns))) as copy:
                    text = b"".join(bytes(part) for part in copy)
                if text:
                    self._rows.append(Rows(table, columns, text))
            self._sequences = connection.execute(
                "SELECT sequencename, last_value FROM pg_sequences"
                " WHERE schemaname = 'public' AND last_value IS NOT NULL"
            ).fetchall()

    def load(self, owner_url: str, provider_ids: list[str]) -> None:
        """Write the rows into a new database, with these ids of the providers."""
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
            for name, value in self._sequences:
                connection.execute("SELECT setval(%s::regclass, %s)", [name, value])


def _names(table: str, columns: list[str]) -> tuple[sql.Composable, sql.Composable]:
    return sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))


def is_new(owner_url: str) -> bool:
    """Return whether a database has no organization and no job."""
    with psycopg.connect(driver_url(owner_url)) as connection:
        row = connection.execute(
            "SELECT NOT EXISTS (SELECT FROM organizations) AND NOT EXISTS (SELECT FROM jobs)"
        ).fetchone()
    return row == (True,)


#: Tables that a new database has rows in. Their rows do not belong to the customer.
_FILLED_BY_MIGRATIONS = ("alembic_version", "database_clock", "schedules")


def _tables(connection: psycopg.Connection) -> list[tuple[str, list[str]]]:
    found = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"
        " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        " AND c.relname <> ALL (%s) GROUP BY c.relname",
        [list(_FILLED_BY_MIGRATIONS)],
    )
    return [(table, columns) for table, columns in found]
