"""Databases for tests: one shared by a file, one empty, one freshly migrated."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import text

from db.address import driver_url
from local.embedded import ServerUrls
from tests.db.shared import shared, shared_urls
from tests.support.world import make_organization, with_database

__all__ = ["empty_url", "shared", "shared_urls"]

_COUNTED = ("job_attempts", "jobs", "inbox")


@pytest.fixture
def empty_url(servers: ServerUrls) -> Iterator[str]:
    """The owner's address of a database without any migration."""
    name = f"holdfast_empty_{secrets.token_hex(4)}"
    with psycopg.connect(driver_url(servers.owner_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        yield with_database(servers.owner_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def migrated_url(servers: ServerUrls, template: str) -> Iterator[str]:
    """The owner's address of a fresh database at the newest revision."""
    name = f"holdfast_migrated_{secrets.token_hex(4)}"
    with psycopg.connect(driver_url(servers.owner_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield with_database(servers.owner_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def emptied(shared):
    """The shared database with no jobs and no events, for tests that count all rows."""
    shared.run(lambda s: [s.execute(text(f"DELETE FROM {table}")) for table in _COUNTED])
    return shared


@pytest.fixture
def org(shared):
    """An organization with 100 micros in two entries."""
    return make_organization(shared, micros=100)


@pytest.fixture
def owner(shared_urls):
    """A connection to the shared database as its owner."""
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as connection:
        yield connection
