"""Read the schema that a deployed database must have from a new, migrated one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from db.address import sqlalchemy_url
from db.deployment.schema_facts import Facts, read_facts
from db.migrate import migrate
from local.embedded import EmbeddedServers


def expected_facts() -> Facts:
    """Migrate an empty database on a temporary server and read its facts.

    This takes a few seconds. Raises: EmbeddedServerError if PostgreSQL's programs are not
    installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-schema-"))
    # If we are root, the server runs as another account, which must be able to enter the folder.
    folder.chmod(0o711)
    try:
        with EmbeddedServers(folder / "state", redis=False, fast=True) as urls:
            migrate(urls.owner_url)
            return facts_of(urls.owner_url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def facts_of(url: str) -> Facts:
    """Read the schema of the database at this URL: its objects and grants."""
    engine = create_engine(sqlalchemy_url(url))
    try:
        with engine.connect() as connection:
            return read_facts(Session(bind=connection))
    finally:
        engine.dispose()
