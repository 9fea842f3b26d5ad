"""One database for a whole file of tests.

Each test makes new organizations and does not disturb the others. A test that counts all rows uses
a fresh database instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest

from db.address import driver_url
from db.engine import Database
from local.embedded import ServerUrls
from tests.support.world import Urls, with_database


@pytest.fixture(scope="module")
def shared_urls(
    servers: ServerUrls, template: str, app_url_of: Callable[[str], str]
) -> Iterator[Urls]:
    """A migrated database for a whole file; each test makes new organizations."""
    name = f"holdfast_shared_{secrets.token_hex(4)}"
    with psycopg.connect(driver_url(servers.owner_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        owner_url = with_database(servers.owner_url, name)
        yield Urls(owner_url, app_url_of(owner_url), servers.redis_url)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def shared(shared_urls: Urls) -> Iterator[Database]:
    """The shared database, connected as `holdfast_app`."""
    made = Database(shared_urls.app_url, name="test", pool_size=40)
    yield made
    made.close()
