"""`wait_until` checks its condition at least once, and stops at its limit."""

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


def test_utc_now_has_the_utc_zone():
    assert utc_now().tzinfo is UTC
