"""Waiting: a condition is checked at least once, and not longer than allowed."""

from __future__ import annotations

from datetime import UTC

from base.clock import utc_now, wait_until


def test_wait_ends_as_soon_as_the_condition_holds():
    asked = []
    assert wait_until(lambda: len(asked.append(1) or asked) == 3, limit_seconds=9, every_seconds=0)
    assert len(asked) == 3


def test_wait_ends_at_its_limit_and_checks_at_least_once():
    asked = []
    assert not wait_until(lambda: bool(asked.append(1)), limit_seconds=0)
    assert asked == [1]


def test_local_time_has_its_zone():
    assert utc_now().tzinfo is UTC
