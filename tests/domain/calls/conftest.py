"""The calls of an organization, beside what tests of the domain have."""

from __future__ import annotations

from tests.domain.calls.support import line, other

__all__ = ["line", "other"]
