"""Migrations forward and back, run as the owner; and what a serving login may be.

Serving as a superuser or as the owner would pass by every guard of the ledger, so it is refused.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from base.outcomes import NotYet
from base.settings import SettingsError
from db.address import driver_url, sqlalchemy_url
from db.downgrade import check_name, go_back

#: The folder of the revisions.
SCRIPTS = Path(__file__).parent / "migrations"
#: Two migrations at once wait for each other on this advisory lock (any constant will do).
_LOCK = 4_713_201
#: What a migration of another database of the same server makes ours fail with, since roles belong
#: to the whole server and that lock to one database: changed meanwhile, or made meanwhile.
_ROLES_IN_USE = ("XX000", "23505", "42710")
#: A table is in use for longer than lock_timeout.
_LOCKED = "55P03"
_TRIES_MAX = 5


@contextmanager
def clear_addresses(name: str) -> Iterator[None]:
    """This function will turn a bad or unreachable address into one line that names the setting.

    Raises: SettingsError. libpq repeats an address it could not read, password and all: that is
    not for a log.
    """
    try:
        yield
    except (psycopg.OperationalError, OperationalError) as error:
        cause = error.orig if isinstance(error, OperationalError) else error
        reason = str(cause).strip().splitlines()[0]
        raise SettingsError(f"{name}: cannot connect: {reason}") from None
    except (psycopg.ProgrammingError, ArgumentError, ValueError):
        raise SettingsError(f"{name}: not an address of a PostgreSQL database") from None


def migrate(owner_url: str, revision: str = "head", *, destroy: str = "") -> str:
    """Bring the database forward or back to a revision, "head" or "base"; gives where it is then.

    Going back is refused while it would lose rows, unless `destroy` names the database.
    Replay: a database that is there already is left as it is. Two at once are run in turn.
    Raises: RowsWouldBeLost, RowsDoNotFit, WrongDatabase, and alembic's CommandError for a revision
    that is unknown; NotYet where a table stays in use. Each leaves the database as it was.
    """
    for left in range(_TRIES_MAX - 1, -1, -1):
        try:
            return _migrate_once(owner_url, revision, destroy)
        except DBAPIError as error:
            code = getattr(error.orig, "sqlstate", None)
            if code == _LOCKED and not left:
                raise NotYet("a table is in use; nothing was changed") from None
            if not left or code not in (*_ROLES_IN_USE, _LOCKED):
                raise
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311  # not a secret
    raise AssertionError("unreachable: the last try returns or raises")


def revisions() -> list[str]:
    """List the ids of all revisions of this version, from the first to the newest."""
    scripts = ScriptDirectory.from_config(_config())
    return [script.revision for script in scripts.walk_revisions()][::-1]


def _migrate_once(owner_url: str, revision: str, destroy: str) -> str:
    engine = create_engine(sqlalchemy_url(owner_url))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            check_name(connection, destroy)
            config = _config()
            config.attributes["connection"] = connection
            if _is_behind(connection, config, revision):
                go_back(connection, revision, lambda: command.downgrade(config, revision), destroy)
            else:
                command.upgrade(config, revision)
            return _current(connection) or "base"
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    return config


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_behind(connection: Connection, config: Config, revision: str) -> bool:
    """Tell whether a revision comes before the one that the database is at."""
    if revision == "base":
        return True
    scripts = ScriptDirectory.from_config(config)
    target = scripts.get_revision(revision)
    current = _current(connection)
    if current is None or target is None or target.revision == current:
        return False
    return target.revision in {
        script.revision for script in scripts.iterate_revisions(current, "base")
    }


def set_password(owner_url: str, role: str, password: str) -> None:
    """This function will set a role's password, so that DATABASE_URL can log in as it."""
    with psycopg.connect(driver_url(owner_url), autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
        )


def may_own(url: str) -> bool:
    """This function will tell whether a login is a superuser, or acts as the ledger's owner."""
    with psycopg.connect(driver_url(url), autocommit=True, connect_timeout=5) as connection:
        row = connection.execute(
            "SELECT rolsuper OR EXISTS (SELECT FROM pg_roles o WHERE o.rolname = 'holdfast_owner'"
            " AND pg_has_role(current_user, o.oid, 'MEMBER'))"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    return bool(row and row[0])


def check_serving_login(url: str) -> None:
    """This function will check that ingress, workers and relay may serve with this login.

    Raises: SettingsError in one line when the database cannot be reached, is not migrated, or the
    login could pass by the ledger's guards.
    """
    with clear_addresses("DATABASE_URL"):
        if may_own(url):
            raise SettingsError(
                "wrong setting: DATABASE_URL logs in as a superuser or owner; it must be"
                " holdfast_app (DATABASE_OWNER_URL is for migrate and rebuild)"
            )
        with psycopg.connect(driver_url(url), autocommit=True, connect_timeout=5) as connection:
            row = connection.execute("SELECT to_regclass('jobs')").fetchone()
    if not row or row[0] is None:
        raise SettingsError("DATABASE_URL: the database is not migrated; run: holdfast migrate")
