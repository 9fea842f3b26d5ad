"""Fixtures of the domain's tests.

A file shares one database, and every test makes new organizations.
"""

from __future__ import annotations

import pytest

from db.engine import Database
from tests.db.shared import shared, shared_urls
from tests.domain.wallet.hold_support import funded
from tests.domain.wallet.level_support import low
from tests.support.world import make_organization

__all__ = ["funded", "low", "org", "owner", "shared", "shared_urls"]


@pytest.fixture
def org(shared):
    """An organization with an empty wallet in USD and without a subscription."""
    return make_organization(shared)


@pytest.fixture
def owner(shared_urls):
    """The shared database as its owner, the only role that may rebuild a wallet."""
    made = Database(shared_urls.owner_url, name="owner", pool_size=1)
    yield made
    made.close()
