"""The calls of an organization, beside what tests of the domain have."""

from __future__ import annotations

from tests.domain.calls.calls_by_hand import line, other

__all__ = ["line", "other"]
