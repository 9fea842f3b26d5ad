"""Which stories the demo can play."""

from __future__ import annotations

from enum import StrEnum


class Story(StrEnum):
    """The whole way of a suspension, or calls that have to end when their money does."""

    WAY = "way"
    CALLS = "calls"
