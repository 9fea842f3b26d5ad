"""Prepares a database: migrates it as its owner and creates the serving login.

The processes use the serving login, which cannot bypass the ledger's guards. On a laptop, one
superuser address is enough. The address of the serving login is then derived from that address.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from db.address import driver_url
from db.logins import explain_address_errors, is_owner_login, set_password
from db.migrate import migrate

#: The role that the ingress, the workers and the relay log in as.
APP_ROLE = "holdfast_app"


@dataclass(frozen=True)
class DatabaseUrls:
    """The owner's address (None if unknown) and the address of the serving login."""

    owner_url: str | None
    app_url: str


def prepare(database_url: str, owner_url: str, state: Path) -> DatabaseUrls:
    """Migrate the database if its login may, and return the addresses for serving.

    Replay: safe; a migrated database does not change. Raises: SettingsError, in one line, if the
    database cannot be reached.
    """
    if not owner_url:
        with explain_address_errors("DATABASE_URL"):
            if not is_owner_login(database_url):
                return DatabaseUrls(None, database_url)
        owner_url, database_url = database_url, ""
    with explain_address_errors("DATABASE_OWNER_URL"):
        migrate(owner_url)
        if not database_url:
            database_url = derive_app_url(owner_url, _serving_password(state))
        give_password(owner_url, database_url)
    return DatabaseUrls(owner_url, database_url)


def recreate_database(owner_url: str) -> None:
    """Drop the database and create it again, empty."""
    parts = urlsplit(driver_url(owner_url))
    name = sql.Identifier(unquote(parts.path.removeprefix("/")))
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))


def derive_app_url(owner_url: str, password: str) -> str:
    """Derive the address of the same server and database with the login holdfast_app."""
    parts = urlsplit(owner_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{APP_ROLE}:{quote(password, safe='')}@{host}"))


def give_password(owner_url: str, app_url: str) -> None:
    """Set holdfast_app's password to that in `app_url`, if the URL has a password."""
    parts = urlsplit(app_url)
    if unquote(parts.username or "") == APP_ROLE and parts.password:
        set_password(owner_url, APP_ROLE, unquote(parts.password))


def write_private(path: Path, text: str) -> None:
    """Write a file that only our account can read, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.rename(path)


def _serving_password(state: Path) -> str:
    """Return the serving login's password, created once and readable only by us."""
    path = state / "app-password"
    if not path.exists():
        state.mkdir(parents=True, exist_ok=True)
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text()
