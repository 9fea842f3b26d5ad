"""The stories that the demo can play."""

from __future__ import annotations

from enum import StrEnum


class Story(StrEnum):
    """A suspension from start to end, or calls that must end when their money does."""

    WAY = "way"
    CALLS = "calls"
