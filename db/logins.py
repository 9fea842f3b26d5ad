"""Check and prepare the database logins of the serving processes.

A superuser or the owner can bypass every guard of the ledger, so no process serves as one of them.
This module does not import Alembic, because every serving process imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from sqlalchemy.exc import ArgumentError, OperationalError

from base.settings import SettingsError
from db.address import driver_url


@contextmanager
def explain_address_errors(name: str) -> Iterator[None]:
    """Turn a connection error into one line that names the setting of the address.

    libpq quotes an address that it cannot parse, including the password. The line never contains
    the password.

    Raises: SettingsError.
    """
    try:
        yield
    except (psycopg.OperationalError, OperationalError) as error:
        cause = error.orig if isinstance(error, OperationalError) else error
        reason = str(cause).strip().splitlines()[0]
        raise SettingsError(
            f"{name}: cannot connect: {reason}; check {name} and that PostgreSQL runs there"
        ) from None
    # ImportError: SQLAlchemy knows the scheme, such as mysql://, but its driver is not installed.
    except (psycopg.ProgrammingError, ArgumentError, ValueError, ImportError):
        raise SettingsError(
            f"{name}: not an address of a PostgreSQL database; write"
            " postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None


def set_password(owner_url: str, role: str, password: str) -> None:
    """Set a role's password, so that DATABASE_URL can log in with it."""
    with psycopg.connect(driver_url(owner_url), autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
        )


def is_owner_login(url: str) -> bool:
    """Check whether a login is a superuser or a member of the ledger's owner."""
    with psycopg.connect(driver_url(url), autocommit=True, connect_timeout=5) as connection:
        row = connection.execute(
            "SELECT rolsuper OR EXISTS (SELECT FROM pg_roles o WHERE o.rolname = 'holdfast_owner'"
            " AND pg_has_role(current_user, o.oid, 'MEMBER'))"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    return bool(row and row[0])


def check_serving_login(url: str) -> None:
    """Check that the ingress, workers and relays may serve with this login.

    Raises: SettingsError in one line if the database cannot be reached or is not migrated, or if
    the login can bypass the ledger's guards.
    """
    with explain_address_errors("DATABASE_URL"):
        if is_owner_login(url):
            raise SettingsError(
                "wrong setting: DATABASE_URL logs in as a superuser or owner; it must be"
                " holdfast_app (DATABASE_OWNER_URL is for migrate and rebuild)"
            )
        with psycopg.connect(driver_url(url), autocommit=True, connect_timeout=5) as connection:
            row = connection.execute("SELECT to_regclass('jobs')").fetchone()
    if not row or row[0] is None:
        raise SettingsError("DATABASE_URL: the database is not migrated; run: holdfast migrate")
