"""What tests of workers are about: an organization, and a telephone whose calls live."""

from __future__ import annotations

import pytest

from tests.support.world import make_organization
from tests.workers.actors.phone import Phone


@pytest.fixture
def organization(world):
    """One that is nobody's customer anywhere, with an empty wallet."""
    return make_organization(world.database)


@pytest.fixture
def phone(world):
    return Phone(world)
