"""Fixtures of calls, in addition to those of the domain's tests."""

from __future__ import annotations

from tests.domain.calls.support import customer, other

__all__ = ["customer", "other"]
