"""One database for the whole file; every sequence creates its own organizations."""

from __future__ import annotations

import psycopg
import pytest

from db.address import driver_url
from db.engine import Database
from tests.db.shared import shared, shared_urls
from tests.model.product import Product

__all__ = ["committed", "product", "shared", "shared_urls"]


@pytest.fixture(scope="module")
def product(shared, shared_urls):
    owner = Database(shared_urls.owner_url, name="test owner", pool_size=8)
    yield Product(shared, owner)
    owner.close()


@pytest.fixture(scope="module")
def committed(shared_urls):
    """A separate connection that reads what was committed."""
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as connection:
        yield connection
