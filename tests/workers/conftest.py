"""Fixtures of the worker tests: an organization, and a telephone with live calls."""

from __future__ import annotations

import pytest

from tests.support.world import make_organization
from tests.workers.actors.phone import Phone


@pytest.fixture
def organization(world):
    """An organization with an empty wallet that no provider knows."""
    return make_organization(world.database)


@pytest.fixture
def phone(world):
    return Phone(world)
