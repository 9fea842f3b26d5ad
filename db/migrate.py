"""Bring the schema forward or back to a revision, as the database's owner."""

from __future__ import annotations

import random
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from base.outcomes import NotYet
from db.address import sqlalchemy_url
from db.downgrade import check_name, downgrade_safely

#: The folder of the revisions.
SCRIPTS = Path(__file__).parent / "migrations"
#: Key of the advisory lock that makes concurrent migrations run in turn. Its value has no meaning.
_LOCK = 4_713_201
#: Error codes of a conflict with a migration of another database on the same server. Roles belong
#: to the whole server, but the advisory lock covers one database. The other migration has changed
#: or created the same role.
_ROLES_IN_USE = ("XX000", "23505", "42710")
#: The error code if a table is in use for longer than `lock_timeout`.
_LOCKED = "55P03"
_TRIES_MAX = 5


def migrate(owner_url: str, revision: str = "head", *, destroy: str = "") -> str:
    """Upgrade or downgrade the database to a revision, and return its new revision.

    `revision` may also be "head" or "base". A downgrade that would lose rows is refused, unless
    `destroy` names the database. A database that has the revision already is not changed.
    Concurrent migrations run in turn. A conflict or a locked
    table is tried up to five times.

    Raises: RowsWouldBeLost, RowsDoNotFit, WrongDatabase; Alembic's CommandError for an unknown
    revision; NotYet if a table stays in use. After each of these the database is unchanged.
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
    """List the ids of all revisions of this version, oldest first."""
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
                downgrade_safely(
                    connection, revision, lambda: command.downgrade(config, revision), destroy
                )
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
    """Return whether a revision is older than the database's current one."""
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
